"""The networks: the numbers of the published ones, the constructors, and what each output depends on."""

import json
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock
from track_models import hash_weights

from core.models import (
    BACKBONES,
    ASC_Net,
    SelfAttentionModule,
    TwoStreamResNet,
    resnet18_two_streams,
    resnet18_two_streams_forward,
)
from core.models.two_stream import start_from_motion
from core.runtime.errors import UserError

# Made by the published code (clips of 11 frames; contexts of 11 x 3), with `hash_weights` and the inputs below.
PUBLISHED = json.loads((Path(__file__).parent / "fixtures" / "published_networks.json").read_text())
ENCODER_LABELS = torch.tensor([[0, 1, 1], [1, 1, 0]])  # of the faces, of anybody in the frame


def encoder_inputs() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(1)
    audio = 10 * rng.standard_normal((3, 1, 13, 40), np.float32)
    return torch.from_numpy(audio), torch.from_numpy(rng.standard_normal((3, 33, 144, 144), np.float32))


def assert_published(model: nn.Module, stage: str, outputs: dict[str, Tensor], losses: list[Tensor]) -> None:
    """Layout, outputs, losses and gradients are those of the published network with the same weights and inputs."""
    expected = PUBLISHED[stage]
    layout = {name: [list(tensor.shape), str(tensor.dtype)] for name, tensor in model.state_dict().items()}
    assert list(layout.items()) == list(expected["state_dict"].items())  # in this order
    for name, output in outputs.items():
        np.testing.assert_allclose(output.flatten(), expected["outputs"][name], rtol=1e-4, atol=1e-4, err_msg=name)
    np.testing.assert_allclose([loss.item() for loss in losses], expected["losses"], rtol=1e-4)
    sum(losses).backward()
    norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
    # Biases before a batch norm have no gradient but rounding noise: hence the absolute tolerance.
    assert norms == pytest.approx(expected["gradient_norms"], rel=2e-3, abs=1e-5)


def test_the_two_stream_network_is_the_published_one():
    model = resnet18_two_streams().eval()
    hash_weights(model)
    with torch.inference_mode():
        av, audio, video, features = model(*encoder_inputs())
    outputs = {"av": av, "audio": audio, "video": video, "features": features[:, ::8]}
    heads = model.train()(*encoder_inputs())[:3]
    losses = [nn.functional.cross_entropy(x, ENCODER_LABELS[row]) for x, row in zip(heads, (0, 1, 0), strict=True)]
    assert_published(model, "ste", outputs, losses)


def test_the_context_network_is_the_published_one():
    x = torch.from_numpy(np.abs(np.random.default_rng(2).standard_normal((4, 1024, 11, 3), np.float32)))
    model = ASC_Net().eval()
    hash_weights(model)
    with torch.inference_mode():
        outputs = {"attention": model.sat(x)[:, ::64], "logits": model(x)}
    loss = nn.functional.cross_entropy(model.train()(x), torch.tensor([0, 1, 1, 0]))
    assert_published(model, "asc", outputs, [loss])


@pytest.mark.parametrize(("name", "feature_size"), [("resnet18", 1024), ("resnet34", 1024), ("resnet50", 4096)])
def test_any_odd_clip_length_and_input_size(name, feature_size):
    """The features are the audio half, then the video half."""
    model = BACKBONES[f"{name}_two_streams"](rgb_stack_size=5).eval()
    mfcc, clips = torch.randn(2, 1, 13, 18), torch.randn(2, 15, 50, 70)
    with torch.inference_mode():
        *logits, features = model(mfcc, clips)
        others = model(mfcc, clips + 1)[3]
    assert [part.shape for part in logits] == [(2, 2)] * 3
    assert features.shape == (2, model.feature_size) == (2, feature_size)
    assert [half.all().item() for half in (features == others).chunk(2, dim=1)] == [True, False]


# ---------------------------------------------------------------- as the published code calls them


@pytest.mark.parametrize(
    "make",
    [
        lambda: resnet18_two_streams(False, True, 3, 4),
        lambda: resnet18_two_streams(pretrained=False, progress=False, rgb_stack_size=3, num_classes=4),
        lambda: TwoStreamResNet(BasicBlock, [2, 2, 2, 2], 3, 4),
        lambda: TwoStreamResNet(BasicBlock, [2, 2, 2, 2], rgb_stack_size=3, num_classes=4),
    ],
)
def test_encoders_of_published_calls(make):
    weights = make().state_dict()
    assert list(weights) == list(PUBLISHED["ste"]["state_dict"])
    assert weights["video_conv1.weight"].shape == (64, 9, 7, 7)
    assert [len(weights[f"fc_{head}.weight"]) for head in ("final", "aux_a", "aux_v")] == [4, 4, 4]


def test_an_encoder_with_its_weights(tmp_path):
    model = resnet18_two_streams(rgb_stack_size=3)
    torch.save(model.state_dict(), tmp_path / "STE.pth")
    loaded = resnet18_two_streams_forward(str(tmp_path / "STE.pth"), rgb_stack_size=3, num_classes=2)
    assert not loaded.training
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())
    with pytest.raises(UserError, match=r"STE\.pth.* of 3 frames, and 5 "):
        resnet18_two_streams_forward(tmp_path / "STE.pth", rgb_stack_size=5)


@pytest.mark.parametrize("constructor", [resnet18_two_streams, resnet18_two_streams_forward])
def test_a_clip_length_in_the_place_of_progress_is_refused(constructor):
    with pytest.raises(UserError, match=r"progress, the second argument, is 5: .*rgb_stack_size"):
        constructor(False, 5)


def test_the_third_argument_of_the_context_network_is_the_published_one():
    network = ASC_Net(5, 2, 16, feature_size=32)
    assert (network.sat.theta.weight.shape, network.lstm.hidden_size) == ((16, 32, 1, 1), 16)
    assert network.fc_final.in_features == 5 * 2 * 16
    assert network(torch.randn(4, 32, 5, 2)).shape == (4, 2)
    assert ASC_Net(5, 2, 16).lstm.input_size == 1024
    assert list(SelfAttentionModule(32, 16).state_dict()) == list(network.sat.state_dict())


# ---------------------------------------------------------------- what outputs depend on


def test_even_clip_length_is_refused():
    with pytest.raises(UserError, match=r"clip length 4: .*odd"):
        resnet18_two_streams(rgb_stack_size=4)


def test_streams_share_no_parameter():
    model = resnet18_two_streams()
    assert len({parameter.data_ptr() for parameter in model.parameters()}) == len(list(model.parameters()))


def test_start_from_a_local_resnet(tmp_path):
    trunk = resnet18()
    nn.init.normal_(trunk.bn1.bias)
    torch.save(trunk.state_dict(), tmp_path / "resnet18.pth")
    model = resnet18_two_streams(pretrained=tmp_path / "resnet18.pth", rgb_stack_size=3)

    kernel = trunk.conv1.weight
    assert torch.equal(model.audio_conv1.weight, kernel.mean(dim=1, keepdim=True))
    for frame in range(3):
        assert torch.equal(model.video_conv1.weight[:, 3 * frame : 3 * frame + 3], kernel)
    for stream in ("a", "v"):
        assert torch.equal(getattr(model, f"{stream}_bn1").bias, trunk.bn1.bias)
        assert torch.equal(getattr(model, f"{stream}_layer4")[1].conv2.weight, trunk.layer4[1].conv2.weight)


def test_start_from_another_resnet_is_refused(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(UserError, match=r"resnet34 .*resnet18\.pth.*layer1\.2\.conv1\.weight"):
        BACKBONES["resnet34_two_streams"](pretrained=str(tmp_path / "resnet18.pth"))


def test_no_network_names_both_ways_out(tmp_path, monkeypatch):
    def unreachable(*args, **kwargs):
        raise urllib.error.URLError("network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(UserError, match=r"resnet18-.*network is unreachable.*'pretrained': False"):
        resnet18_two_streams(pretrained=True)


def test_positions_are_ordered_by_time_then_speaker():
    model = ASC_Net(clip_number=2, candidate_speakers=2, feature_size=8).eval()
    nn.init.zeros_(model.sat.omega_bn.weight)  # the attention block becomes the identity
    x = torch.randn(1, 8, 2, 2)
    sequence = torch.stack([x[0, :, 0, 0], x[0, :, 0, 1], x[0, :, 1, 0], x[0, :, 1, 1]])
    expected = model.fc_final(model.lstm(sequence[None])[0].flatten(1))
    torch.testing.assert_close(model(x), expected)


def test_a_start_from_motion_sees_nothing_in_a_still_clip() -> None:
    model = resnet18_two_streams(rgb_stack_size=5)
    start_from_motion(model)
    still = torch.rand(1, 3, 32, 32).repeat(1, 5, 1, 1)
    moving = torch.rand(1, 15, 32, 32)
    assert model.video_conv1(still).abs().max() < 1e-4
    assert model.video_conv1(moving).abs().max() > 0.1
    weight = model.video_conv1.weight.view(64, 5, 3, 7, 7)
    assert torch.equal(weight[:, :, 0], weight[:, :, 1])


def test_random_first_convolutions_differ_from_frame_to_frame() -> None:
    weight = resnet18_two_streams(rgb_stack_size=3).video_conv1.weight
    assert not torch.allclose(weight[:, :3], weight[:, 3:6])
