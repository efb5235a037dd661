"""Weights from files: what is accepted, and what each refusal says."""

from functools import partial

import pytest
import torch

from core.models import ASC_Net, resnet18_two_streams, resnet34_two_streams
from core.models.weights import clip_length_of, load_weights, read_state_dict
from core.runtime.errors import UserError


@pytest.fixture(scope="module")
def encoder_weights():
    return resnet18_two_streams(rgb_stack_size=3).state_dict()


@pytest.fixture
def saved(tmp_path):
    def save(content, name="weights.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_state_dict_is_loaded_whole(saved, encoder_weights, prefix):
    path = saved({prefix + name: tensor for name, tensor in encoder_weights.items()})
    model = resnet18_two_streams(rgb_stack_size=3)
    load_weights(model, path)
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in encoder_weights.items())


def test_absent_file(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(UserError, match=f"ASC checkpoint {path}: there is no such file"):
            load_weights(ASC_Net(), path, what="ASC checkpoint")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut", b"\x80\x02}q\x00.", None])
def test_not_a_checkpoint(saved, encoder_weights, content):
    path = saved(encoder_weights)
    path.write_bytes(path.read_bytes()[:100_000] if content is None else content)
    with pytest.raises(UserError, match=r"weights\.pth: .*state dict"):
        load_weights(ASC_Net(), path)


@pytest.mark.parametrize(
    ("content", "described"),
    [
        ({"model": {"a": torch.zeros(1)}, "epoch": 3}, "a dictionary of model, epoch"),
        ([torch.zeros(1)], "a list"),
        ({}, "an empty dictionary"),
        ({0: torch.zeros(1)}, "a dictionary of 0"),
    ],
)
def test_something_else_in_the_file(saved, content, described):
    with pytest.raises(UserError, match=f"{described}, not a state dict"):
        read_state_dict(saved(content), "weights")


def test_nothing_in_the_file_is_executed(saved, tmp_path):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    with pytest.raises(UserError, match="not a PyTorch state dict"):
        load_weights(ASC_Net(), saved({"weight": Touch()}))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("model", "weights", "words"),
    [
        (ASC_Net, "encoder", ["another network: it lacks sat.theta.weight", "and it has audio_conv1.weight"]),
        (partial(resnet34_two_streams, rgb_stack_size=3), "encoder", ["it lacks a_layer1.2.conv1.weight"]),
        (
            ASC_Net,
            ASC_Net(feature_size=32),
            ["another network", "theta.weight is (128, 32, 1, 1), not (128, 1024, 1, 1)"],
        ),
        (
            partial(resnet18_two_streams, rgb_stack_size=5),
            "encoder",
            ["clips of 3 frames, and 5 were asked for", "9 channels, not 15", "use clip length 3"],
        ),
        (
            partial(ASC_Net, 7, 2),
            ASC_Net(11, 3),
            ["contexts of 33 rows", "14 were asked for", "4224 columns, not 1792"],
        ),
    ],
)
def test_weights_of_another_network(saved, encoder_weights, model, weights, words):
    """The message says what differs, and the model stays as it was."""
    model = model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(model, saved(encoder_weights if weights == "encoder" else weights.state_dict()))
    assert all(word in str(caught.value) for word in words), caught.value
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_clip_length_of_a_state_dict(encoder_weights):
    assert clip_length_of(encoder_weights) == 3
    with pytest.raises(UserError, match=r"video_conv1\.weight"):
        clip_length_of(ASC_Net().state_dict())
