"""The static networks: layers as Keras computes them, shapes, penalty, initial weights, losses, optimisers."""

import math

import pytest
import torch
import torch.nn.functional as F

from ava_asd import models, winograd
from ava_asd.layers import SameConv2d, SameConv3d, SamePool2d, flatten
from ava_asd.optimisers import OPTIMISERS
from core.optimization import make_optimizer
from core.runtime.errors import UserError

AUDIO_VISUAL, OUTPUTS = ("s_av", "s_av_fc"), ["audio", "video", "main"]
AUDIO = (1, 13, 20)
VIDEO = (3, 2, 12, 10)  # channels, frames, height, width


def inputs(batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, *AUDIO, generator=generator), torch.rand(batch, *VIDEO, generator=generator)


def optimiser_of(name: str, parameter: torch.nn.Parameter, learning_rate: float) -> torch.optim.Optimizer:
    """As a training has it."""
    return make_optimizer(OPTIMISERS[name], [parameter], learning_rate)


@pytest.fixture(scope="module")
def networks():
    torch.manual_seed(1)
    return {mode: models.StaticNetwork(mode, AUDIO, VIDEO).eval() for mode in models.MODES}


def test_an_even_kernel_pads_one_more_at_the_end():
    layer = SameConv2d(1, 1, (1, 4))
    with torch.no_grad():
        layer.weight[:] = torch.tensor([1.0, 10.0, 100.0, 1000.0])
        output = layer(torch.tensor([[[[1.0, 2.0, 3.0]]]]))
    # one 0 before, two behind: 0 1 2 3 | 1 2 3 0 | 2 3 0 0
    assert output.flatten().tolist() == [3210.0, 321.0, 32.0]


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([6, 5, 4, 3, 2, 1], [6, 3]),
        ([5, 4, 3, 2, 1], [5, 2]),  # one missing, behind: 5 4 3 | 2 1
        ([7, 6, 5, 4, 3, 2, 1], [7, 5, 2]),  # two missing, one on each side: 7 6 | 5 4 3 | 2 1
    ],
)
def test_a_pool_of_what_is_left_over(numbers, expected):
    row = torch.tensor(numbers, dtype=torch.float32).reshape(1, 1, 1, -1) - 10  # padding must not count as 0
    assert (SamePool2d(3)(row).flatten() + 10).tolist() == expected


@pytest.mark.parametrize("kernel", [(5, 7, 7), (3, 3, 5), (1, 5, 5)])
def test_a_convolution_over_frames_is_that_of_pytorch(kernel):
    torch.manual_seed(2)
    layer, clips = SameConv3d(3, 4, kernel, frames=5), torch.randn(2, 3, 5, 8, 9)
    padding = [side // 2 for side in kernel]
    with torch.no_grad():
        layer.bias.uniform_()
        output = layer(clips.transpose(1, 2).flatten(0, 1)).unflatten(0, (2, 5)).transpose(1, 2)
        torch.testing.assert_close(output, F.conv3d(clips, layer.weight, layer.bias, padding=padding))


@pytest.mark.parametrize(
    ("type_", "autocast", "by_winograd"),
    [
        (torch.float32, False, True),
        (torch.float32, True, False),
        (torch.bfloat16, False, False),
        (torch.float64, False, False),
    ],
)
def test_only_float32_goes_by_winograd(monkeypatch, type_, autocast, by_winograd):
    calls, original = [], winograd.convolve
    monkeypatch.setattr(winograd, "convolve", lambda *arguments: calls.append(1) or original(*arguments))
    torch.manual_seed(3)
    layer, maps = SameConv2d(4, 8, (5, 5)).to(type_), torch.randn(2, 4, 9, 7).to(type_)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = layer(maps)
        plain = F.conv2d(maps, layer.weight, layer.bias, padding=2)
    assert output.dtype == plain.dtype == (torch.bfloat16 if autocast else type_)
    assert bool(calls) == by_winograd
    torch.testing.assert_close(output, plain)


def test_flattening_is_in_the_order_of_keras():
    clip = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)  # (frame, channel, row, column)
    expected = clip.permute(0, 2, 3, 1).reshape(1, -1)
    assert torch.equal(flatten(clip, frames=2), expected)
    assert flatten(clip).shape == (2, 60)


@pytest.mark.parametrize(("mode", "flat", "parameters"), [("s_a", 3072, 5_659_586), ("s_v", 40_960, 17_614_146)])
def test_the_layer_table(mode, flat, parameters):
    """Sums over the published table, by hand, at the published sizes of the input."""
    model = models.StaticNetwork(mode)
    assert model.get_submodule(model.outputs[0]).fc7.in_features == flat
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("mode", "names"), [("s_a", ["audio"]), ("s_v", ["video"]), *((mode, OUTPUTS) for mode in AUDIO_VISUAL)]
)
def test_which_outputs_depend_on_which_input(networks, mode, names):
    model, (audio, video) = networks[mode], inputs()
    with torch.no_grad():
        logits, of_other_audio = model(audio, video), model(audio + 1, video)
        of_other_faces = model(audio, 1 - video)
    assert list(model.outputs) == names
    assert [output.shape for output in logits] == [(2, 2)] * len(names)
    changed = [not torch.equal(*pair) for pair in zip(logits, of_other_audio, strict=True)]
    assert changed == [name != "video" for name in names]
    changed = [not torch.equal(*pair) for pair in zip(logits, of_other_faces, strict=True)]
    assert changed == [name != "audio" for name in names]


@pytest.mark.parametrize("mode", AUDIO_VISUAL)
def test_dropout_is_on_the_joint_output_in_training_only(networks, mode):
    model, batch = networks[mode], inputs()
    with torch.no_grad():
        first, second = model.train()(*batch), model(*batch)
        evaluated, again = model.eval()(*batch), model(*batch)
    assert [torch.equal(*pair) for pair in zip(first, evaluated, strict=True)] == [True, True, False]
    assert not torch.equal(first[2], second[2])
    assert torch.equal(evaluated[2], again[2])


@pytest.mark.parametrize("mode", AUDIO_VISUAL)
def test_the_penalty_is_on_the_kernels_of_the_convolutions(mode):
    model = models.StaticNetwork(mode, AUDIO, VIDEO)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(3.0)
        for tower in (model.audio, model.video):
            for layer in tower.convolutions:
                layer.weight.zero_()
        model.audio.conv1.weight.fill_(2.0)  # 64 x 1 x 3 x 3
        model.video.conv6.weight[0, :, 0, 0, 0] = 1.0  # 256 of them
    assert model.penalty().item() == pytest.approx(1e-4 * (64 * 9 * 4 + 256))


def test_single_modes_have_no_penalty(networks):
    assert [networks[mode].penalty().item() for mode in ("s_a", "s_v")] == [0, 0]


def test_initial_weights_are_those_of_keras():
    for name, parameter in models.StaticNetwork("s_av", AUDIO, VIDEO).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
            continue
        field = math.prod(parameter.shape[2:])
        limit = math.sqrt(6 / (parameter.shape[1] * field + parameter.shape[0] * field))
        assert parameter.abs().max() <= limit, name
        if parameter.numel() > 1000:
            assert parameter.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1), name


def test_an_unknown_mode():
    with pytest.raises(UserError, match=r"mode 'r_av': expected one of s_a, s_v, s_av, s_av_fc"):
        models.StaticNetwork("r_av")


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_our_own_weights(suffix, networks, tmp_path):
    path, expected = tmp_path / f"weights{suffix}", networks["s_av_fc"].state_dict()
    torch.save(expected, path)
    model = models.StaticNetwork("s_av_fc", AUDIO, VIDEO)
    models.load_weights(model, path)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.items())


@pytest.mark.parametrize(
    ("content", "video", "facts"),
    [
        ("s_v", VIDEO, ["mode s_v", "mode s_av", "'mode: s_v'"]),
        ("s_av", (3, 1, 12, 10), ["video.fc7.weight is (256, 1024), not (256, 512)"]),
        ({"conv.weight": torch.zeros(3)}, VIDEO, ["another network"]),
        (3, VIDEO, ["not a state dict"]),
        (None, VIDEO, ["no such file"]),
    ],
)
def test_weights_of_another_mode_shape_or_kind(networks, tmp_path, content, video, facts):
    path = tmp_path / "weights.pth"
    if content is not None:
        torch.save(networks[content].state_dict() if content in list(networks) else content, path)
    with pytest.raises(UserError) as refused:
        models.load_weights(models.StaticNetwork("s_av", AUDIO, video), path)
    assert [fact for fact in (str(path), *facts) if fact not in str(refused.value)] == [], refused.value


def test_sgd_is_that_of_keras():
    """v = 0.9 v - lr g; w += 0.9 v - lr g; lr = 0.01 / (1 + 1e-6 step)."""
    weight = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    optimiser = optimiser_of("SGD", weight, 0.01)
    expected, velocity = 1.0, 0.0
    for step in range(5):
        gradient = 2.0 - step
        weight.grad = torch.tensor(gradient, dtype=torch.float64)
        optimiser.step()
        rate = 0.01 / (1 + 1e-6 * step)
        velocity = 0.9 * velocity - rate * gradient
        expected += 0.9 * velocity - rate * gradient
        assert weight.item() == pytest.approx(expected, abs=1e-6)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.01 / (1 + 4e-6), rel=1e-12)


def test_the_decay_goes_on_after_an_interrupt():
    first, second = (optimiser_of("SGD", torch.nn.Parameter(torch.ones(1)), 0.5) for _ in range(2))
    for _ in range(1000):
        first.step()
    second.load_state_dict(first.state_dict())
    second.step()
    assert second.param_groups[0]["lr"] == pytest.approx(0.5 / (1 + 1e-6 * 1000), rel=1e-12)


# Weights after 50 steps of Keras 3.15's optimisers with its defaults, in the test below; RMSprop, Nadam and Adam have
# other rules there than in PyTorch and in older Keras.
KERAS_STEPS = {
    "Adagrad": [1.0065587, -2.105226, 0.498419],
    "Adadelta": [1.0000147, -2.0006135, 0.49957126],
    "Adamax": [1.0232595, -2.2458818, 4.9745664e-05],
}


@pytest.mark.parametrize("name", KERAS_STEPS)
def test_optimisers_with_keras_defaults(name):
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimiser = optimiser_of(name, weight, 0.01)
    for step in range(50):
        weight.grad = torch.tensor([step % 3 - 1.0, 0.3 * step % 1, 1e-3])
        optimiser.step()
    torch.testing.assert_close(weight.detach(), torch.tensor(KERAS_STEPS[name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_descends(name):
    weight = torch.nn.Parameter(torch.tensor([3.0]))
    optimiser = optimiser_of(name, weight, 0.01)
    for _ in range(20):
        weight.grad = 2 * weight.detach()
        optimiser.step()
    assert weight.item() < 3.0 - 1e-5
