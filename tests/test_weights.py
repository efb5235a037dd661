"""Weights from files: what is accepted, and what each refusal says."""

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
    with pytest.raises(UserError, match=r"ASC checkpoint .*none\.pth: there is no such file"):
        load_weights(ASC_Net(), tmp_path / "none.pth", what="ASC checkpoint")
    with pytest.raises(UserError, match="there is no such file"):
        load_weights(ASC_Net(), tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut", b"\x80\x02}q\x00."])
def test_not_a_checkpoint(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.pth: .*state dict"):
        load_weights(ASC_Net(), path)


def test_truncated_checkpoint(saved, encoder_weights):
    path = saved(encoder_weights)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(UserError, match="not a PyTorch state dict"):
        load_weights(resnet18_two_streams(rgb_stack_size=3), path)


@pytest.mark.parametrize(
    ("content", "described"),
    [
        ({"model": {"a": torch.zeros(1)}, "epoch": 3}, "a dictionary of model, epoch"),
        ([torch.zeros(1)], "a list"),
        ({}, "an empty dictionary"),
    ],
)
def test_something_else_in_the_file(saved, content, described):
    with pytest.raises(UserError, match=f"holds {described}"):
        load_weights(ASC_Net(), saved(content))


def test_nothing_in_the_file_is_executed(saved, tmp_path):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    with pytest.raises(UserError, match="not a PyTorch state dict"):
        load_weights(ASC_Net(), saved({"weight": Touch()}))
    assert not (tmp_path / "executed").exists()


def test_another_network(saved, encoder_weights):
    path = saved(encoder_weights)
    with pytest.raises(
        UserError, match=r"another network: it lacks sat\.theta\.weight, .* more, and it has audio_conv1"
    ):
        load_weights(ASC_Net(), path)
    with pytest.raises(UserError, match=r"it lacks a_layer1\.2\.conv1\.weight"):
        load_weights(resnet34_two_streams(rgb_stack_size=3), path)
    with pytest.raises(
        UserError, match=r"another network: sat\.theta\.weight is \(128, 32, 1, 1\), not \(128, 1024, 1, 1\)"
    ):
        load_weights(ASC_Net(), saved(ASC_Net(feature_size=32).state_dict()))


def test_another_clip_length(saved, encoder_weights):
    message = r"trained with clips of 3 frames, and 5 were asked for .*9 channels, not 15.*use clip length 3"
    with pytest.raises(UserError, match=message):
        load_weights(resnet18_two_streams(rgb_stack_size=5), saved(encoder_weights))


def test_another_number_of_context_rows(saved):
    path = saved(ASC_Net(11, 3).state_dict())
    with pytest.raises(UserError, match=r"contexts of 33 rows .*, and 14 were asked for .*4224 columns, not 1792"):
        load_weights(ASC_Net(7, 2), path, what="ASC checkpoint")


def test_a_refused_file_leaves_the_model_as_it_was(saved):
    model = ASC_Net(7, 2)
    before = model.lstm.weight_ih_l0.clone()
    with pytest.raises(UserError):
        load_weights(model, saved(ASC_Net(11, 3).state_dict()))
    assert torch.equal(model.lstm.weight_ih_l0, before)


def test_clip_length_of_a_state_dict(encoder_weights):
    assert clip_length_of(encoder_weights) == 3
    with pytest.raises(UserError, match="not those of a two-stream encoder"):
        clip_length_of(ASC_Net().state_dict())


def test_a_file_with_numbers_for_names_is_no_state_dict(tmp_path):
    torch.save({0: torch.zeros(1)}, tmp_path / "numbers.pth")
    with pytest.raises(UserError, match="not a state dict"):
        read_state_dict(tmp_path / "numbers.pth", "weights")
