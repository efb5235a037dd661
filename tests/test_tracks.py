"""A track scored while it comes in: one pass equals the whole track, six passes the published protocol."""

import numpy as np
import pytest
import torch
from track_models import SIDE, used

from core.inference import tracks
from core.inference.track_embedding import TrackEmbedder
from core.inference.tracks import OnePass, SixPasses
from core.inputs.mfcc import track_mfcc, track_samples
from core.media.video_audio import VideoAudio
from core.models import light_asd, lr_asd
from core.models.track_encoder import TrackEncoder


@pytest.fixture(scope="module", params=[light_asd, lr_asd])
def model(request) -> TrackEncoder:
    return used(request.param())


@pytest.fixture(scope="module")
def embedder(model) -> TrackEmbedder:
    return TrackEmbedder.of(model)


def material(frames: int) -> tuple[np.ndarray, VideoAudio]:
    rng = np.random.default_rng(frames)
    faces = rng.integers(0, 256, (frames, SIDE, SIDE)).astype(np.uint8)
    samples = rng.integers(-9000, 9000, track_samples(frames) + 16000).astype(np.int16)
    return faces, VideoAudio(samples, 0.0, len(samples) / 16000)


def run(scorer: OnePass | SixPasses, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    for face in faces:
        scorer.push(face)
    return scorer.finish()


def plain(model: TrackEncoder, mfcc: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and features by the network itself."""
    with torch.inference_mode():
        logits, _, features = model(torch.from_numpy(mfcc)[None], torch.from_numpy(faces)[None])
    return logits[0].numpy(), features[0].numpy()


def published_six_passes(model: TrackEncoder, mfcc: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The protocol as published, every window through the network."""
    time = len(faces)
    passes = []
    for seconds in (1, 2, 3, 4, 5, 6):
        starts = range(0, time, 25 * seconds)
        windows = [(mfcc[4 * s : 4 * (s + 25 * seconds)], faces[s : s + 25 * seconds]) for s in starts]
        passes.append(np.concatenate([plain(model, *window)[0] for window in windows]))
    mean = np.mean(passes, axis=0)
    return np.stack([mean[max(0, row - 2) : row + 3].mean(axis=0) for row in range(time)])


@pytest.mark.parametrize("frames", [1, 2, 25, 175])
def test_blocks_give_what_the_whole_track_gives(model, embedder, frames):
    faces, audio = material(frames)
    logits, features = run(OnePass(embedder, audio, 0.5), faces)
    expected = plain(model, track_mfcc(audio.samples[8000:], np.arange(frames)), faces)
    np.testing.assert_allclose(logits, expected[0], atol=1e-4)
    np.testing.assert_allclose(features, expected[1], atol=1e-4)
    assert (logits.dtype, features.dtype) == (np.float32, np.float32)


# Less than a window, one; a last window of one frame, of a few, of more than an embedding depends on.
@pytest.mark.parametrize("frames", [12, 25, 51, 130])
def test_six_passes_are_the_published_protocol(model, embedder, frames):
    faces, audio = material(frames)
    logits, features = run(SixPasses(embedder, audio, 0.25), faces)
    assert features is None
    expected = published_six_passes(model, track_mfcc(audio.samples[4000:], np.arange(frames)), faces)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_six_passes_stretch_by_stretch(embedder, monkeypatch):
    monkeypatch.setattr(tracks, "PASSES_S", (1, 2, 3))
    faces, audio = material(330)
    expected = run(SixPasses(embedder, audio, 0.0), faces)
    monkeypatch.setattr(tracks, "STRETCH", 6 * 25)
    np.testing.assert_allclose(run(SixPasses(embedder, audio, 0.0), faces)[0], expected[0], atol=1e-4)


def test_windows_of_all_lengths_end_with_a_stretch_and_their_two_edges_do_not_meet(embedder):
    """What lets six passes work by stretches and encode each face twice only."""
    assert all(tracks.STRETCH % (25 * seconds) == 0 for seconds in tracks.PASSES_S)
    assert 2 * max(embedder.visual_context, embedder.audio_context) <= 25 * min(tracks.PASSES_S)
