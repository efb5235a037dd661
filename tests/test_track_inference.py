"""The fast form of the whole-track encoders gives their numbers, however a track is cut into blocks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from track_models import PUBLISHED, SIDE, used

from core.models import fast_track_encoder, light_asd, lr_asd
from core.models.fast_track_encoder import FastTrackEncoder
from core.models.track_encoder import TrackEncoder
from core.models.weights import load_weights

CONTEXTS = {light_asd: (6, 5), lr_asd: (9, 6)}  # frames: visual, audio


@pytest.fixture(scope="module", params=CONTEXTS)
def constructor(request):
    return request.param


@pytest.fixture(scope="module")
def model(constructor) -> TrackEncoder:
    return used(constructor())


def track(time: int, *batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(time)
    mfcc = 5 * torch.randn(*batch, 4 * time, 13, generator=generator)
    faces = torch.randint(0, 256, (*batch, time, SIDE, SIDE), generator=generator, dtype=torch.uint8)
    return mfcc, faces


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Within 1e-5 of the largest: random weights have larger embeddings than the published ones, whose are below 10."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1, expected.abs().max().item()))


@pytest.mark.parametrize("key", PUBLISHED)
def test_published_numbers(key: str, shared: Path):
    model, reference = (lr_asd if key.startswith("lr") else light_asd)(), np.load(shared / "reference" / "encoders.npz")
    load_weights(model, shared / "models" / PUBLISHED[key])
    encoder = FastTrackEncoder(model)
    audio = encoder.audio(torch.from_numpy(reference["mfcc"]))
    visual = encoder.visual(torch.from_numpy(reference["faces"]))
    logits, features = encoder.score(audio, visual)
    found = {"audio_embedding": audio, "visual_embedding": visual, "features": features, "logits": logits}
    for name, value in found.items():
        np.testing.assert_allclose(value, reference[f"{key}.{name}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("time", [1, 3, 24, 47, 60])
def test_the_numbers_are_the_models(model, time):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mfcc, faces = track(time)
    with torch.inference_mode():
        expected_logits, _, expected_features = model(mfcc[None], faces[None])
    encoder = FastTrackEncoder(model)
    logits, features = encoder.score(encoder.audio(mfcc), encoder.visual(faces))
    assert_near(logits, expected_logits[0])
    assert_near(features, expected_features[0])
    assert torch.equal(encoder.logits(features), logits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_several_tracks_at_once(model):
    mfcc, faces = track(21, 3)
    encoder = FastTrackEncoder(model)
    audio, visual = encoder.audio(mfcc), encoder.visual(faces)
    logits, features = encoder.score(audio, visual)
    assert (logits.shape, features.shape) == ((3, 21, 2), (3, 21, 128))
    for number in range(3):
        assert_near(encoder.visual(faces[number]), visual[number])
        assert_near(encoder.score(encoder.audio(mfcc[number]), visual[number])[0], logits[number])


def test_in_evaluation_mode_whatever_the_mode_of_the_model(model):
    _, faces = track(12)
    expected = FastTrackEncoder(model).visual(faces)
    assert torch.equal(FastTrackEncoder(model.train()).visual(faces), expected)
    assert model.training
    model.eval()


@pytest.mark.parametrize("sizes", [[10, 30], [16, 16, 8], [39, 1], [10, 10, 10, 10], [40]])
def test_a_stream_gives_the_track_whatever_its_blocks(model, sizes):
    _, faces = track(40)
    encoder = FastTrackEncoder(model)
    stream = encoder.stream()
    blocks = faces.split(sizes)
    parts = [stream.push(block) for block in blocks[:-1]]
    assert sum(map(len, parts)) == max(0, 40 - sizes[-1] - stream.context)
    parts.append(stream.push(blocks[-1], ends=True))
    with torch.inference_mode():
        normalised = fast_track_encoder.normalise(faces)[None, None]
        expected = model.model.visualEncoder(normalised)[0]
    assert_near(torch.cat(parts), expected)
    assert_near(stream.push(faces, ends=True), expected)  # a new run has forgotten the last


def test_streams_have_weights_in_common_and_nothing_else(model):
    _, faces = track(60)
    encoder = FastTrackEncoder(model)
    streams = encoder.stream(), encoder.stream()
    first, second = ([stream] for stream in faces.split(30))
    found = [[], []]
    for part in range(2):
        for number, (whole,) in enumerate((first, second)):
            found[number].append(streams[number].push(whole[15 * part : 15 * part + 15], ends=part == 1))
    assert_near(torch.cat(found[0]), encoder.visual(faces[:30]))
    assert_near(torch.cat(found[1]), encoder.visual(faces[30:]))
    one, other = (list(stream._encoder.parameters()) for stream in streams)
    assert all(mine is yours for mine, yours in zip(one, other, strict=True))


def changed_frames(embed, values: torch.Tensor, at: slice) -> list[int]:
    """Frames whose embedding depends on the values at a place."""
    changed = values.clone()
    changed[at] = changed[at].flip(-1) + 1
    return (embed(changed) - embed(values)).abs().amax(dim=1).gt(1e-6).nonzero().flatten().tolist()


def test_contexts_are_what_embeddings_depend_on(model, constructor):
    encoder = FastTrackEncoder(model)
    visual, audio = CONTEXTS[constructor]
    assert (encoder.visual_context, encoder.audio_context) == (visual, audio)
    mfcc, faces = track(41)
    reached = changed_frames(encoder.visual, faces, slice(20, 21))
    assert (reached[0], reached[-1]) == (20 - visual, 20 + visual)
    reached = changed_frames(encoder.audio, mfcc, slice(80, 84))
    assert 20 - audio <= reached[0] < 20 < reached[-1] <= 20 + audio
    assert max(20 - reached[0], reached[-1] - 20) == audio


def test_long_tracks_are_worked_through_in_parts(model, monkeypatch):
    mfcc, faces = track(50, 2)
    encoder = FastTrackEncoder(model)
    audio, visual = encoder.audio(mfcc), encoder.visual(faces)
    logits, features = encoder.score(audio, visual)
    monkeypatch.setattr(fast_track_encoder, "LONG_BLOCK", 7)
    assert_near(encoder.audio(mfcc), audio)
    for found, expected in zip(encoder.score(audio, visual), (logits, features), strict=True):
        assert_near(found, expected)


def test_bfloat16_is_near_and_returns_float32(model):
    mfcc, faces = track(40)
    exact, coarse = FastTrackEncoder(model), FastTrackEncoder(model, dtype=torch.bfloat16)
    expected, found = exact.visual(faces), coarse.visual(faces)
    assert found.dtype == torch.float32
    assert 0 < (found - expected).std() / expected.std() < 0.05
    assert torch.equal(coarse.audio(mfcc), exact.audio(mfcc))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(model):
    mfcc, faces = track(300)
    with torch.inference_mode():
        expected = model(mfcc[None], faces[None])[2][0]
    for dtype, tolerance in ((torch.float32, 0.01), (torch.bfloat16, 0.05)):
        encoder = FastTrackEncoder(model, "cuda", dtype)
        features = encoder.score(encoder.audio(mfcc), encoder.visual(faces))[1]
        assert features.device.type == "cuda"
        assert (features.cpu() - expected).std() / expected.std() < tolerance
