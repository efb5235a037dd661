"""LR-ASD and Light-ASD: the published numbers and names, and what any of their weights must do."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from track_models import PUBLISHED, SIDE, used

from core.models import light_asd, lr_asd
from core.models.track_encoder import TrackEncoder
from core.models.weights import load_weights
from core.runtime.errors import UserError

ENCODERS = {"light_asd": light_asd, "lr_asd": lr_asd}
both = pytest.mark.parametrize("constructor", ENCODERS.values(), ids=ENCODERS)


def tracks(batch: int, time: int, side: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mfcc = 5 * torch.randn(batch, 4 * time, 13, generator=generator)
    faces = torch.randint(0, 256, (batch, time, side, side), generator=generator, dtype=torch.uint8)
    return mfcc, faces


@pytest.mark.parametrize("key", PUBLISHED)
def test_published_weights_give_the_published_numbers(key: str, shared: Path):
    model, reference = ENCODERS[key.rpartition("_")[0]](), np.load(shared / "reference" / "encoders.npz")
    load_weights(model, shared / "models" / PUBLISHED[key])
    model.eval()
    mfcc, faces = torch.from_numpy(reference["mfcc"])[None], torch.from_numpy(reference["faces"])[None]
    kept = {}
    for name in ("audio", "visual"):
        encoder = getattr(model.model, f"{name}Encoder")
        encoder.register_forward_hook(lambda *call, name=name: kept.__setitem__(name, call[2]))
    with torch.inference_mode():
        logits, visual_logits, features = model(mfcc, faces)
        expected_visual = model.lossV.FC(torch.from_numpy(reference[f"{key}.visual_embedding"]))
    found = {**{f"{name}_embedding": value for name, value in kept.items()}, "logits": logits, "features": features}
    assert len(found) == 4
    for name, value in found.items():
        np.testing.assert_allclose(value[0], reference[f"{key}.{name}"], rtol=0, atol=1e-4)
    torch.testing.assert_close(visual_logits[0], expected_visual, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("constructor", "entries", "numbers"), [(light_asd, 192, 1_026_146), (lr_asd, 168, 841_086)], ids=ENCODERS
)
def test_state_dicts_are_as_large_as_the_published_ones(constructor, entries, numbers):
    state = constructor().state_dict()
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (entries, numbers)


@both
def test_published_names(constructor):
    prefixes = {".".join(name.split(".")[:2]) for name in constructor().state_dict()}
    own = {light_asd: {"model.GRU"}, lr_asd: {"model.fusion", "model.detector"}}[constructor]
    assert prefixes == {"model.visualEncoder", "model.audioEncoder", "lossAV.FC", "lossV.FC"} | own


@both
def test_weights_of_the_other_network_are_refused(constructor, tmp_path):
    (other,) = set(ENCODERS.values()) - {constructor}
    torch.save(other().state_dict(), tmp_path / "other.model")
    with pytest.raises(UserError, match="weights of another network"):
        load_weights(constructor(), tmp_path / "other.model", "weights")


@both
def test_shapes_and_attributes(constructor):
    model = constructor().eval()
    with torch.inference_mode():
        logits, visual_logits, features = model(*tracks(2, 5, side=112))
    assert logits.shape == visual_logits.shape == (2, 5, 2)
    assert features.shape == (2, 5, 128)
    assert model.feature_size == 128


@both
def test_logits_are_linear_in_the_features(constructor):
    model = used(constructor())
    with torch.inference_mode():
        logits, _, features = model(*tracks(1, 9))
        torch.testing.assert_close(logits, model.lossAV.FC(features))
    assert logits[0, :, 1].std() > 0.01


@both
def test_tracks_of_a_batch_do_not_meet(constructor):
    model, (mfcc, faces) = used(constructor()), tracks(3, 7)
    with torch.inference_mode():
        together = model(mfcc, faces)
        alone = model(mfcc[1:2], faces[1:2])
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one[1:2], other, rtol=0, atol=1e-5)


@both
def test_faces_of_any_type(constructor):
    model, (mfcc, faces) = used(constructor()), tracks(1, 4)
    with torch.inference_mode():
        for one, other in zip(model(mfcc, faces), model(mfcc, faces.float()), strict=True):
            assert torch.equal(one, other)


@both
def test_every_frame_hears_and_sees_the_whole_track(constructor):
    """The readers go forwards and backwards: sound or picture at one end reaches the score at the other."""
    model, (mfcc, faces) = used(constructor()), tracks(1, 16)  # farther than embeddings reach
    with torch.inference_mode():
        expected = model(mfcc, faces)[0]
        for end, other in ((slice(0, 4), -1), (slice(-4, None), 0)):
            changed = mfcc.clone()
            changed[:, end] += 10
            assert (model(changed, faces)[0][0, other] - expected[0, other]).abs().max() > 1e-6


@both
def test_a_training_step_reaches_every_weight_and_lowers_the_loss(constructor):
    torch.manual_seed(0)
    model, (mfcc, faces) = constructor().train(), tracks(2, 6)
    labels = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 1, 0]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def loss() -> torch.Tensor:
        logits, visual_logits, _ = model(mfcc, faces)
        return sum(nn.functional.cross_entropy(x.flatten(0, 1), labels.flatten()) for x in (logits, visual_logits))

    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        losses.append(value.item())
        assert all(weight.grad.isfinite().all() for weight in model.parameters())
        optimizer.step()
    assert all(weight.grad.any() for weight in model.parameters())
    assert min(losses[-2:]) < 0.8 * losses[0]


@both
def test_activations_keep_their_size_at_the_start_of_training(constructor):
    """The initial weights neither drown the signal nor let it grow, though it goes through some 12 layers."""
    torch.manual_seed(0)
    model: TrackEncoder = constructor().train()
    with torch.no_grad():
        logits, visual_logits, features = model(*tracks(4, 20))
    for values in (logits, visual_logits, features):
        assert 0.01 < values.std() < 10
