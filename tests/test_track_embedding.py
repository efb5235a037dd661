"""A whole-track encoder in evaluation gives the model's numbers, however a track is cut into blocks."""

import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from track_models import PUBLISHED, needs_integers, track, used

from core.download.weights_catalogue import WEIGHTS
from core.inference import engine, track_embedding
from core.inference.track_embedding import TrackEmbedder, visual_precision
from core.models import TRACK_ENCODERS
from core.models.track_encoder import TrackEncoder
from core.models.weights import load_weights
from core.runtime.errors import UserError
from core.runtime.files import fingerprint

CONTEXTS = {"light_asd": (6, 5), "lr_asd": (9, 6)}  # frames: visual, audio


@pytest.fixture(scope="module", params=TRACK_ENCODERS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name) -> TrackEncoder:
    return used(TRACK_ENCODERS[name]())


@pytest.fixture(scope="module")
def embedder(model) -> TrackEmbedder:
    return TrackEmbedder.of(model)


def arrays(batch: int, time: int) -> tuple[np.ndarray, np.ndarray]:
    """MFCCs and faces of tracks."""
    mfcc, faces = track(batch, time)
    return mfcc.numpy(), faces.numpy()


def assert_near(found: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-5 of the largest: random weights have larger embeddings than the published ones, whose are below 10."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("key", PUBLISHED)
def test_published_weights_give_the_published_numbers(key: str, shared: Path):
    model, reference = TRACK_ENCODERS[key.rpartition("_")[0]](), np.load(shared / "reference" / "encoders.npz")
    load_weights(model, shared / "models" / PUBLISHED[key])
    embedder = TrackEmbedder.of(model)
    audio = embedder.audio(reference["mfcc"][None])
    visual = embedder.visual(reference["faces"][None])
    logits, features = embedder.score(audio, visual)
    found = {"audio_embedding": audio, "visual_embedding": visual, "features": features, "logits": logits}
    for name, value in found.items():
        np.testing.assert_allclose(value[0], reference[f"{key}.{name}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (1, 3), (3, 21), (1, 60)])
def test_the_numbers_are_the_models(model, embedder, batch, time, monkeypatch):
    """Also of a track that is worked through in parts, and of a model in training mode."""
    mfcc, faces = track(batch, time)
    with torch.inference_mode():
        expected_logits, _, expected_features = model(mfcc, faces)
    in_training = TrackEmbedder.of(model.train())
    assert model.training
    model.eval()
    for case, blocks in ((embedder, {}), (embedder, {"BLOCK": 13, "LONG_BLOCK": 7}), (in_training, {})):
        with monkeypatch.context() as patch:
            for constant, value in blocks.items():
                patch.setattr(track_embedding, constant, value)
            logits, features = case.score(case.audio(mfcc.numpy()), case.visual(faces.numpy()))
        assert_near(logits, expected_logits)
        assert_near(features, expected_features)
        assert_near(case.logits(features[0]), logits[0])


@pytest.mark.parametrize("time", [1, 9, 20, 29, 30, 41, 75])
def test_a_stream_gives_the_track_and_holds_few_faces(embedder, time, monkeypatch):
    monkeypatch.setattr(track_embedding, "BLOCK", 20)
    faces = arrays(1, time)[1]
    first, second = embedder.stream(), embedder.stream()
    for face, other in zip(faces[0], faces[0, ::-1], strict=True):
        first.push(face)
        second.push(other)
        assert len(first.faces) <= 20 + 2 * embedder.visual_context
    assert_near(first.finish(), embedder.visual(faces)[0])
    assert_near(second.finish(), embedder.visual(faces[:, ::-1])[0])


@pytest.mark.parametrize("time", [3, 10, 25])
def test_a_stream_of_windows_embeds_each_on_its_own(embedder, time):
    faces, stream = arrays(1, time)[1], embedder.stream_windows(10)
    for face in faces[0]:
        stream.push(face)
    windows = [faces[:, start : start + 10] for start in range(0, time, 10)]
    assert_near(stream.finish(), np.concatenate([embedder.visual(window)[0] for window in windows]))


def changed_frames(embed, values: np.ndarray, at: slice) -> list[int]:
    """Frames whose embedding depends on the values at a position."""
    changed = values.copy()
    changed[:, at] = changed[:, at, ..., ::-1] + 1
    return np.flatnonzero(np.abs(embed(changed) - embed(values))[0].max(axis=1) > 1e-6).tolist()


def test_contexts_are_what_embeddings_depend_on(embedder, name):
    visual, audio = CONTEXTS[name]
    assert (embedder.visual_context, embedder.audio_context) == (visual, audio)
    mfcc, faces = arrays(1, 41)
    reached = changed_frames(embedder.visual, faces, slice(20, 21))
    assert (reached[0], reached[-1]) == (20 - visual, 20 + visual)
    reached = changed_frames(embedder.audio, mfcc, slice(80, 84))
    assert 20 - audio <= reached[0] < 20 < reached[-1] <= 20 + audio
    assert max(20 - reached[0], reached[-1] - 20) == audio


@needs_integers
@pytest.mark.parametrize("key", ["light_asd_ava", "lr_asd_ava"])
def test_in_8_bit_integers_published_weights_give_nearly_their_numbers(key: str, shared: Path):
    file, reference = shared / "models" / PUBLISHED[key], np.load(shared / "reference" / "encoders.npz")
    model = TRACK_ENCODERS[key.rpartition("_")[0]]()
    load_weights(model, file)
    embedder = TrackEmbedder.of(model, "cpu", *visual_precision("int8", fingerprint(file), "cpu"))
    visual = embedder.visual(reference["faces"][None])
    logits, _ = embedder.score(embedder.audio(reference["mfcc"][None]), visual)
    expected = reference[f"{key}.visual_embedding"]
    assert 0.006 < (visual[0] - expected).std() / expected.std() < 0.04  # in bfloat16 0.003 to 0.005
    np.testing.assert_allclose(logits[0], reference[f"{key}.logits"], rtol=0, atol=0.05)


PUBLISHED_SHA256 = WEIGHTS["lr_asd"]["ava"].file.sha256


@pytest.mark.parametrize(
    ("asked", "weights", "device", "machine", "has_bfloat16", "found"),
    [
        ("auto", PUBLISHED_SHA256, "cpu", "x86_64", True, "int8"),
        ("auto", PUBLISHED_SHA256, "cpu", "x86_64", False, "int8"),
        ("auto", PUBLISHED_SHA256, "cpu", "arm64", True, "bf16"),
        ("auto", PUBLISHED_SHA256, "cpu", "arm64", False, "fp32"),
        ("auto", PUBLISHED_SHA256, "cuda", "x86_64", True, "fp32"),
        ("auto", "0" * 64, "cpu", "x86_64", True, "bf16"),
        ("auto", "0" * 64, "cpu", "x86_64", False, "fp32"),
        ("fp32", PUBLISHED_SHA256, "cpu", "x86_64", True, "fp32"),
        ("bf16", PUBLISHED_SHA256, "cpu", "x86_64", False, "bf16"),
        ("int8", PUBLISHED_SHA256, "cpu", "x86_64", False, "int8"),
        ("int8", "0" * 64, "cpu", "x86_64", True, None),
        ("int8", WEIGHTS["lr_asd"]["talkset"].file.sha256, "cpu", "x86_64", True, None),
        ("int8", PUBLISHED_SHA256, "cpu", "arm64", True, None),
        ("int8", PUBLISHED_SHA256, "cuda", "x86_64", True, None),
    ],
)
def test_8_bit_integers_are_for_published_weights_and_processors_that_were_measured(
    asked, weights, device, machine, has_bfloat16, found, monkeypatch
):
    monkeypatch.setattr(engine, "has_bfloat16", lambda: has_bfloat16)
    monkeypatch.setattr(track_embedding, "in_openvino", lambda device: device == "cpu")
    monkeypatch.setattr(platform, "machine", lambda: machine)
    if found is None:
        with pytest.raises(UserError, match="int8"):
            visual_precision(asked, weights, device)
    else:
        precision, ranges = visual_precision(asked, weights, device)
        assert precision == found
        assert len(ranges) == (11 if found == "int8" else 0)


def test_bfloat16_is_of_the_visual_encoder(model, embedder):
    mfcc, faces = arrays(1, 40)
    coarse = TrackEmbedder.of(model, precision="bf16")
    expected = embedder.visual(faces)
    assert (coarse.visual(faces) - expected).std() / expected.std() < 0.05
    np.testing.assert_array_equal(coarse.audio(mfcc), embedder.audio(mfcc))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(model):
    mfcc, faces = track(1, 300)
    with torch.inference_mode():
        expected = model(mfcc, faces)[2]
    for precision, tolerance in (("fp32", 0.01), ("bf16", 0.05)):
        embedder = TrackEmbedder.of(model, "cuda", precision)
        features = embedder.score(embedder.audio(mfcc.numpy()), embedder.visual(faces.numpy()))[1]
        assert np.std(features - expected.numpy()) / expected.numpy().std() < tolerance
