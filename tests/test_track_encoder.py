"""LR-ASD and Light-ASD: the published numbers and names, and what any of their weights must do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from track_models import hash_weights, track, used

from core.models import TRACK_ENCODERS
from core.models.track_encoder import TrackEncoder
from core.models.weights import load_weights
from core.runtime.errors import UserError

# Outputs with `hash_weights` on `reference_track`, made by these networks when they gave the published code's outputs
# with the published weights within 1e-5: array `<encoder>.<output>`.
REFERENCE = np.load(Path(__file__).parent / "fixtures" / "track_encoders.npz")
both = pytest.mark.parametrize("name", TRACK_ENCODERS)


def reference_track() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    mfcc = 5 * rng.standard_normal((1, 64, 13), np.float32)
    return torch.from_numpy(mfcc), torch.from_numpy(rng.integers(0, 256, (1, 16, 112, 112), np.uint8))


def outputs(model: TrackEncoder, mfcc: Tensor, faces: Tensor) -> dict[str, Tensor]:
    with torch.inference_mode():
        logits, visual_logits, features = model(mfcc, faces)
        found = {"logits": logits, "visual_logits": visual_logits, "features": features}
        return found | {"audio": model.model.audioEncoder(mfcc), "visual": model.model.visualEncoder(faces)}


@both
def test_the_networks_are_the_published_ones(name):
    model = TRACK_ENCODERS[name]().eval()
    hash_weights(model)
    for output, found in outputs(model, *reference_track()).items():
        expected = REFERENCE[f"{name}.{output}"]
        np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=output)


@pytest.mark.parametrize(
    ("name", "entries", "numbers", "own"),
    [
        ("light_asd", 192, 1_026_146, {"model.GRU"}),
        ("lr_asd", 168, 841_086, {"model.fusion", "model.detector"}),
    ],
)
def test_state_dicts_are_the_published_ones(name, entries, numbers, own):
    state = TRACK_ENCODERS[name]().state_dict()
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (entries, numbers)
    prefixes = {".".join(key.split(".")[:2]) for key in state}
    assert prefixes == {"model.visualEncoder", "model.audioEncoder", "lossAV.FC", "lossV.FC"} | own


def test_weights_of_the_other_network_are_refused(tmp_path):
    torch.save(TRACK_ENCODERS["lr_asd"]().state_dict(), tmp_path / "other.model")
    with pytest.raises(UserError, match=r"other\.model"):
        load_weights(TRACK_ENCODERS["light_asd"](), tmp_path / "other.model", "weights")


@both
def test_tracks_of_a_batch_do_not_meet_and_faces_are_of_any_type(name):
    model, (mfcc, faces) = used(TRACK_ENCODERS[name]()), track(3, 7)
    together, alone = outputs(model, mfcc, faces), outputs(model, mfcc[1:2], faces[1:2].float())
    for output, found in alone.items():
        torch.testing.assert_close(together[output][1:2], found, rtol=0, atol=1e-5 * found.abs().max().item())


@both
def test_every_frame_depends_on_the_whole_track(name):
    """The GRUs run forward and backward: audio at one end reaches the score at the other."""
    model, (mfcc, faces) = used(TRACK_ENCODERS[name]()), track(1, 16)  # farther than embeddings reach
    expected = outputs(model, mfcc, faces)["logits"][0]
    for end, other in ((slice(0, 4), -1), (slice(-4, None), 0)):
        changed = mfcc.clone()
        changed[:, end] += 10
        assert (outputs(model, changed, faces)["logits"][0, other] - expected[other]).abs().max() > 1e-6


@both
def test_a_training_step_reaches_every_weight_and_lowers_the_loss(name):
    torch.manual_seed(0)
    model, (mfcc, faces) = TRACK_ENCODERS[name]().train(), track(2, 6)
    labels = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 1, 0]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        logits, visual_logits, features = model(mfcc, faces)
        for values in (logits, visual_logits, features)[: 3 * (not losses)]:
            assert 0.01 < values.std() < 10  # the initial weights keep the size of activations through some 12 layers
        loss = sum(nn.functional.cross_entropy(x.flatten(0, 1), labels.flatten()) for x in (logits, visual_logits))
        loss.backward()
        losses.append(loss.item())
        assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in model.parameters())
        optimizer.step()
    assert min(losses[-2:]) < 0.8 * losses[0]
