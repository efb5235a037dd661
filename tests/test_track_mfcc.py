"""MFCCs of whole tracks: python_speech_features' numbers, four windows a frame, block by block."""

import numpy as np
import pytest
import python_speech_features as psf

from core.formats.wav import SAMPLE_RATE
from core.inputs import mfcc
from core.inputs.mfcc import track_mfcc, track_samples


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-8000, 8000, samples).astype(np.int16)


def test_four_windows_a_frame():
    assert track_samples(1) == 3 * 160 + 400
    assert track_mfcc(noise(880), 1).shape == (4, 13)


@pytest.mark.parametrize("frames", [1, 2, 25, 100])
def test_the_numbers_are_those_of_python_speech_features(frames, monkeypatch):
    monkeypatch.setattr(mfcc, "WINDOWS_AT_ONCE", 70)  # several blocks, the last one short
    samples = noise(track_samples(frames))
    expected = psf.mfcc(samples, SAMPLE_RATE)
    assert len(expected) == 4 * frames
    np.testing.assert_allclose(track_mfcc(samples, frames), expected, atol=2e-4)


def test_what_is_missing_is_silence():
    short = noise(5000)
    whole = np.zeros(track_samples(20), np.int16)
    whole[:5000] = short
    np.testing.assert_array_equal(track_mfcc(short, 20), track_mfcc(whole, 20))


def test_more_sound_than_needed_changes_nothing():
    samples = noise(track_samples(10) + 999)
    np.testing.assert_array_equal(track_mfcc(samples, 10), track_mfcc(samples[: track_samples(10)], 10))


def test_published_numbers(shared):
    reference = np.load(shared / "reference" / "encoders.npz")
    frames = len(reference["faces"])
    found = track_mfcc(reference["audio_int16"], frames)
    np.testing.assert_allclose(found, reference["mfcc"], atol=1e-3)
