"""MFCCs of clips and of tracks: python_speech_features' numbers, the published fitting, any frame rate, gaps, ends."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import python_speech_features as psf
import torch

from core.clip_utils import SAMPLE_RATE
from core.inputs.clip_mfcc import clip_mfcc, clip_samples, fit, fitted_length, join_clips, mfcc_windows
from core.inputs.mfcc import frame_grid, track_mfcc, track_samples

FITS = json.loads((Path(__file__).parent / "fixtures" / "published_clips.json").read_text())["fits"]
LENGTHS = (1, 160, 399, 400, 401, 559, 560, 561, 3000, 6517, 6518, 6519, 6520)


def noise(samples: int, loudness: float = 3000) -> np.ndarray:
    values = np.random.default_rng(samples).standard_normal(samples) * loudness
    return values.clip(-32768, 32767).astype(np.int16)


# ---------------------------------------------------------------- the audio of a clip


def test_fit_by_hand():
    np.testing.assert_array_equal(fit(np.array([1, 2, 3]), 7), [3, 2, 1, 2, 3, 2, 1])
    np.testing.assert_array_equal(fit(np.array([1, 2, 3]), 6), [2, 1, 2, 3, 2])  # published rounding: one short
    np.testing.assert_array_equal(fit(np.arange(10), 5), np.arange(2, 8))  # and one long
    np.testing.assert_array_equal(fit(np.arange(10), 10), np.arange(10))


def test_clips_are_fitted_as_published():
    """`_fit_audio_clip(np.arange(count), 16000, frames)` of the published core/io.py: length and CRC-32 of int16."""
    assert len(FITS) == 39
    for frames, count, length, checksum in FITS:
        fitted = clip_samples(np.arange(20_000, dtype=np.int16), 0.0, count / SAMPLE_RATE, frames)
        assert (len(fitted), zlib.crc32(fitted.tobytes())) == (length, checksum), (frames, count)


def test_the_clip_is_cut_from_its_first_to_its_last_frame():
    samples = clip_samples(np.arange(16_000, dtype=np.int16), 0.2, 0.6, 11)
    # 6,400 samples from 3,200 on, padded to 11/27 s = 6,518 by 59 reflected ones on each side
    assert len(samples) == fitted_length(11) == 6518
    assert samples[[58, 59, -60]].tolist() == [3201, 3200, 9599]


@pytest.mark.parametrize("seconds", [0.0, 0.04, 0.0799])
def test_less_than_two_frames_of_audio_is_silence(seconds):
    loud = np.full(16_000, 9000, np.int16)
    assert not clip_samples(loud, 0.0, seconds, 11).any()
    assert clip_samples(loud, 0.0, 0.0801, 11).all()
    assert not clip_samples(loud[:0], 0.0, 1.0, 11).any()  # an entity with one row has no audio


def test_clips_are_joined_and_end_in_zeros():
    clips = [np.full(length, 7, np.int16) for length in (2962, 2964)]
    joined, lengths = join_clips(clips, 5)
    assert (joined.shape, joined.dtype, lengths.tolist()) == ((2, fitted_length(5) + 2), torch.int16, [2962, 2964])
    assert (joined != 0).sum(1).tolist() == [2962, 2964]


# ---------------------------------------------------------------- the MFCCs of clips


def test_mfccs_of_clips_are_those_of_python_speech_features():
    """Signals silent, quiet, loud and clipped, of lengths from nothing to the whole axis, side by side."""
    longest = 6520
    seconds = np.arange(longest) / SAMPLE_RATE
    tone = 30_000 * np.sin(2 * np.pi * 200 * seconds)  # all the energy in one band
    signals = [np.zeros(longest), np.zeros(1280), np.full(longest, 32767), np.resize([-32768, 32767], longest)]
    signals += [tone, np.where(seconds < 0.2, 0, tone)]  # silence, then a tone
    signals += [noise(length, loudness) for length in LENGTHS for loudness in (1, 100, 30_000)]
    signals = [np.asarray(signal).astype(np.int16) for signal in signals]
    # What follows a clip's end must not count.
    batch = np.stack([np.pad(signal, (0, longest - len(signal)), constant_values=12_345) for signal in signals])
    lengths = torch.tensor([len(signal) for signal in signals])
    found = clip_mfcc(torch.from_numpy(batch), lengths, mfcc_windows(longest)).numpy()
    assert (found.shape, found.dtype) == ((len(signals), 1, 13, mfcc_windows(longest)), np.float32)
    for features, signal in zip(found, signals, strict=True):
        expected = psf.mfcc(signal, SAMPLE_RATE).T  # float64
        assert expected.shape[1] == mfcc_windows(len(signal))
        near_zero = 1e-6 * np.abs(expected).max()  # float32's own rounding where a coefficient crosses zero
        np.testing.assert_allclose(features[0, :, : expected.shape[1]], expected, rtol=1e-4, atol=near_zero)


def test_windows_beyond_the_samples_are_silent():
    clip = torch.from_numpy(noise(3000))[None]
    found = clip_mfcc(clip, torch.tensor([3000]), 40)
    torch.testing.assert_close(found[..., :18], clip_mfcc(clip, torch.tensor([3000]), 18))
    np.testing.assert_allclose(found[0, 0, :, 30], psf.mfcc(np.zeros(400), SAMPLE_RATE)[0], atol=2e-4)


# ---------------------------------------------------------------- the MFCCs of tracks


def published(samples: np.ndarray, frames: int, fps: float) -> np.ndarray:
    """As the published loaders have it: what is missing at the end comes from the beginning."""
    mfcc = psf.mfcc(samples, SAMPLE_RATE, numcep=13, winlen=0.025 * 25 / fps, winstep=0.010 * 25 / fps)
    missing = max(0, 4 * frames - len(mfcc))
    return np.pad(mfcc, ((0, missing), (0, 0)), "wrap")[: 4 * frames]


@pytest.mark.parametrize("fps", [25, 50, 20])  # rates at which the published step is a whole number of samples
@pytest.mark.parametrize("frames", [2, 3, 40])
def test_the_published_numbers(fps, frames):
    samples = noise(int((frames - 1) / fps * SAMPLE_RATE))  # from the first to the last timestamp
    found = track_mfcc(samples, np.arange(frames), fps)
    np.testing.assert_allclose(found, published(samples, frames, fps), atol=2e-4)


@pytest.mark.parametrize("frames", [1, 2, 25, 100])
def test_four_windows_a_frame_block_by_block(frames, monkeypatch):
    monkeypatch.setattr("core.inputs.mfcc.WINDOWS_AT_ONCE", 70)  # several blocks, the last one short
    samples = noise(track_samples(frames) + 159)
    found = track_mfcc(samples[: track_samples(frames)], np.arange(frames))
    assert found.shape == (4 * frames, 13)
    np.testing.assert_allclose(found, psf.mfcc(samples[: track_samples(frames)], SAMPLE_RATE), atol=2e-4)
    np.testing.assert_array_equal(track_mfcc(samples, np.arange(frames)), found)  # more audio changes nothing


def test_a_track_of_one_row_has_no_audio():
    found = track_mfcc(noise(0), np.zeros(1, np.int64))
    np.testing.assert_allclose(found, psf.mfcc(np.zeros(400), SAMPLE_RATE).repeat(4, axis=0), atol=2e-4)


def test_long_windows_are_not_cut_off():
    """At 12.5 frames a second a window has 800 samples: more than the 512 points that python_speech_features takes."""
    samples = noise(SAMPLE_RATE)
    expected = psf.mfcc(samples, SAMPLE_RATE, winlen=0.05, winstep=0.02, nfft=1024)[:20]
    np.testing.assert_allclose(track_mfcc(samples, np.arange(5), 12.5), expected, atol=2e-4)


def test_windows_keep_to_their_frames_where_the_published_step_is_rounded():
    """At 30 frames a second a click in frame 1200 is heard in frame 1200; the published windows are 3 frames early."""
    samples = np.zeros(50 * SAMPLE_RATE, np.int16)
    samples[round(1200.5 / 30 * SAMPLE_RATE)] = 30_000
    energy = track_mfcc(samples, np.arange(1500), 30.0)[:, 0]
    assert np.flatnonzero(energy > -30).mean() == pytest.approx(4 * 1200.5, abs=2)
    there = np.flatnonzero(published(samples, 1500, 30.0)[:, 0] > -30).mean()
    assert there - 4 * 1200.5 > 8


def test_some_frames_have_what_they_have_in_the_whole():
    samples, some = noise(SAMPLE_RATE), np.array([3, 4, 9, 20])
    whole = track_mfcc(samples, np.arange(25)).reshape(25, 4, 13)
    np.testing.assert_array_equal(track_mfcc(samples, some).reshape(4, 4, 13), whole[some])


@pytest.mark.parametrize(
    ("time_s", "numbers", "fps"),
    [
        (np.round(901 + np.arange(200) / 30, 2), list(range(200)), 30),  # 0.03 s and 0.04 s apart
        (np.array([0.0, 0.04, 0.08, 0.24, 0.28]), [0, 1, 2, 6, 7], 25),  # a gap
        (np.array([7.5]), [0], 25),
    ],
)
def test_frames_of_timestamps(time_s, numbers, fps):
    found, rate = frame_grid(time_s)
    assert found.tolist() == numbers
    assert rate == pytest.approx(fps, rel=1e-3)
