"""Weights from files: what is accepted, and the facts that each refusal names."""

from functools import partial
from pathlib import Path

import pytest
import torch

from core.models import ASC_Net, resnet18_two_streams, resnet34_two_streams
from core.models.weights import clip_length_of, load_weights
from core.runtime.errors import UserError


@pytest.fixture(scope="module")
def encoder_weights():
    return resnet18_two_streams(rgb_stack_size=3).state_dict()


@pytest.fixture
def saved(tmp_path):
    """Write weights.pth: bytes as they are, anything else by torch.save."""

    def save(content: object) -> Path:
        path = tmp_path / "weights.pth"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        return path

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
        with pytest.raises(UserError, match=f"ASC checkpoint {path}: .*no such file"):
            load_weights(ASC_Net(), path, what="ASC checkpoint")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        *((content, "damaged") for content in (b"", b"not a checkpoint", b"PK\x03\x04 cut", b"\x80\x02}q\x00.", "cut")),
        ({"model": {"a": torch.zeros(1)}, "epoch": 3}, "a dictionary of model, epoch"),
        ([torch.zeros(1)], "a list"),
        ({}, "an empty dictionary"),
        ({0: torch.zeros(1)}, "a dictionary of 0"),
    ],
)
def test_not_a_state_dict(saved, encoder_weights, content, found):
    path = saved(saved(encoder_weights).read_bytes()[:100_000] if content == "cut" else content)
    with pytest.raises(UserError, match=rf"weights\.pth: .*{found}"):
        load_weights(ASC_Net(), path)


def test_nothing_in_the_file_is_executed(saved, tmp_path):
    class Touch:
        def __reduce__(self):
            return (open, (str(tmp_path / "executed"), "w"))

    with pytest.raises(UserError, match=r"weights\.pth"):
        load_weights(ASC_Net(), saved({"weight": Touch()}))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("model", "weights", "facts"),
    [
        (ASC_Net, None, ["another network", "lacks sat.theta.weight", "has audio_conv1.weight"]),
        (partial(resnet34_two_streams, rgb_stack_size=3), None, ["lacks a_layer1.2.conv1.weight"]),
        (
            ASC_Net,
            ASC_Net(feature_size=32),
            ["another network", "theta.weight is (128, 32, 1, 1), not (128, 1024, 1, 1)"],
        ),
        (partial(resnet18_two_streams, rgb_stack_size=5), None, ["of 3 frames, and 5 ", "9 channels, not 15"]),
        (partial(ASC_Net, 7, 2), ASC_Net(11, 3), ["of 33 rows", "14 were asked for", "4224 columns, not 1792"]),
    ],
)
def test_weights_of_another_network(saved, encoder_weights, model, weights, facts):
    """The message says what differs, and the model stays as it was. Without `weights`: those of the encoder."""
    model = model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_weights(model, saved(weights.state_dict() if weights else encoder_weights))
    assert all(fact in str(caught.value) for fact in facts), caught.value
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_flipped_bit_is_noticed(saved):
    model = torch.nn.Linear(2, 3)
    path = saved(model.state_dict())
    content = bytearray(path.read_bytes())
    content[content.index(model.weight.detach().numpy().tobytes())] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)  # takes it
    with pytest.raises(UserError, match=r"weights\.pth: .*checksum"):
        load_weights(model, path)


@pytest.mark.parametrize(
    ("tensor", "fact"),
    [
        (torch.zeros(3, 2).to_sparse(), "sparse_coo"),
        (torch.zeros(3, 2, device="meta"), "meta"),
        (torch.zeros(3, 2, dtype=torch.int64), "weight holds torch.int64, expected torch.float32"),
        (torch.zeros(3, 2, dtype=torch.complex64), "weight holds torch.complex64"),
        (torch.tensor([[0, 1], [0, torch.inf], [0, 0]]), "weight holds numbers that are not finite"),
        (torch.tensor([[0, 1], [0, torch.nan], [0, 0]]), "weight holds numbers that are not finite"),
    ],
)
def test_tensors_of_another_kind_are_refused(saved, tensor, fact):
    model = torch.nn.Linear(2, 3)
    with pytest.raises(UserError, match=rf"weights\.pth: .*{fact}"):
        load_weights(model, saved({**model.state_dict(), "weight": tensor}))


def test_half_precision_is_loaded(saved):
    model = torch.nn.Linear(2, 3)
    load_weights(model, saved({name: torch.ones_like(value).half() for name, value in model.state_dict().items()}))
    assert model.weight.dtype == torch.float32
    assert (model.weight == 1).all()


def test_clip_length_of_a_state_dict(encoder_weights):
    assert clip_length_of(encoder_weights) == 3
    with pytest.raises(UserError, match=r"video_conv1\.weight"):
        clip_length_of(ASC_Net().state_dict())
