"""The MFCCs of a track's frames: at any frame rate, over gaps and at the end of the sound."""

import numpy as np
import pandas as pd
import pytest
import python_speech_features as psf

from core.formats.wav import SAMPLE_RATE, check_sounds
from core.inputs.mfcc import frame_grid, mfcc_of_frames, track_mfcc
from core.runtime.errors import UserError


def noise(samples: int) -> np.ndarray:
    return (np.random.default_rng(samples).standard_normal(samples) * 3000).astype(np.int16)


def published(samples: np.ndarray, frames: int, fps: float) -> np.ndarray:
    """As the published loaders have it: what is missing at the end comes from the beginning."""
    mfcc = psf.mfcc(samples, SAMPLE_RATE, numcep=13, winlen=0.025 * 25 / fps, winstep=0.010 * 25 / fps)
    missing = max(0, 4 * frames - len(mfcc))
    return np.pad(mfcc, ((0, missing), (0, 0)), "wrap")[: 4 * frames]


@pytest.mark.parametrize("fps", [25, 50, 20])  # rates at which the published step is a whole number of samples
@pytest.mark.parametrize("frames", [2, 3, 40])
def test_the_published_numbers(fps, frames):
    samples = noise(int((frames - 1) / fps * SAMPLE_RATE))  # from the first to the last timestamp
    found = mfcc_of_frames(samples, np.arange(frames), fps)
    np.testing.assert_allclose(found, published(samples, frames, fps), atol=2e-4)


def test_a_track_of_one_row_has_no_sound():
    found = mfcc_of_frames(noise(0), np.zeros(1, np.int64), 25.0)
    np.testing.assert_allclose(found, psf.mfcc(np.zeros(400), SAMPLE_RATE).repeat(4, axis=0), atol=2e-4)


def test_long_windows_are_not_cut_off():
    """At 12.5 frames a second a window has 800 samples: more than the 512 points that python_speech_features takes."""
    samples = noise(SAMPLE_RATE)
    found = mfcc_of_frames(samples, np.arange(5), 12.5)
    expected = psf.mfcc(samples, SAMPLE_RATE, winlen=0.05, winstep=0.02, nfft=1024)[:20]
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_windows_keep_to_their_frames_where_the_published_step_is_rounded():
    """At 30 frames a second a click in frame 1200 is heard in frame 1200; the published windows are 3 frames early."""
    samples = np.zeros(50 * SAMPLE_RATE, np.int16)
    samples[round(1200.5 / 30 * SAMPLE_RATE)] = 30_000
    energy = mfcc_of_frames(samples, np.arange(1500), 30.0)[:, 0]
    assert np.flatnonzero(energy > -30).mean() == pytest.approx(4 * 1200.5, abs=2)
    there = np.flatnonzero(published(samples, 1500, 30.0)[:, 0] > -30).mean()
    assert there - 4 * 1200.5 > 8


def test_a_piece_is_the_same_in_the_whole():
    samples = noise(SAMPLE_RATE)
    whole = mfcc_of_frames(samples, np.arange(25), 25.0).reshape(25, 4, 13)
    some = np.array([3, 4, 9, 20])
    np.testing.assert_array_equal(mfcc_of_frames(samples, some, 25.0).reshape(4, 4, 13), whole[some])


def test_the_same_as_detection_has_where_there_is_sound_enough():
    samples = noise(SAMPLE_RATE)
    np.testing.assert_allclose(mfcc_of_frames(samples, np.arange(20), 25.0), track_mfcc(samples, 20), atol=1e-5)


def test_frames_of_rounded_timestamps():
    time_s = np.round(901 + np.arange(200) / 30, 2)  # 0.03 s and 0.04 s apart
    numbers, fps = frame_grid(time_s)
    assert numbers.tolist() == list(range(200))
    assert fps == pytest.approx(30, rel=1e-3)


def test_frames_over_a_gap():
    numbers, fps = frame_grid(np.array([0.0, 0.04, 0.08, 0.24, 0.28]))
    assert numbers.tolist() == [0, 1, 2, 6, 7]
    assert fps == pytest.approx(25)
    numbers, fps = frame_grid(np.array([7.5]))
    assert (numbers.tolist(), fps) == ([0], 25.0)


def test_sounds_that_are_missing_are_named(tmp_path):
    rows = pd.DataFrame({"entity_id": ["a:1", "a:1", "b:1", "b:2"], "video_id": ["a", "a", "b", "b"]})
    with pytest.raises(UserError, match="no sound folder"):
        check_sounds(rows, tmp_path / "none")
    for name in ("a:1.wav", "b:2.wav"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"no sound of 1 of 3 entities in .*, first b:1 of video b; run data/"):
        check_sounds(rows, tmp_path)
    (tmp_path / "b:1.wav").touch()
    check_sounds(rows, tmp_path)
