"""What benchmarks do to audio and faces is what they say, and the same for the same seed."""

import numpy as np
import pytest

from benchmarks import corruptions
from core.clip_utils import SAMPLE_RATE
from core.synthetic import audio as synthetic

SAMPLES = 11 * SAMPLE_RATE  # more than a piece of drawn audio
FRAME = 640  # samples


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """(samples,) int16, quiet enough that audio ten times as loud fits beside it; half of it is silence."""
    samples = 300 * rng(1).standard_normal(SAMPLES)
    samples[: SAMPLES // 2] = 0
    return samples.astype(np.int16)


@pytest.fixture(scope="module")
def other() -> np.ndarray:
    """Three seconds of another video's audio."""
    return (5000 * rng(2).standard_normal(3 * SAMPLE_RATE)).astype(np.int16)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """(time, 112, 112) uint8; each face has the brightness of its number, and texture."""
    texture = rng(3).integers(0, 100, (112, 112))
    return (texture + np.arange(100)[:, None, None]).astype(np.uint8)


def snr_db(speech: np.ndarray, mixed: np.ndarray) -> float:
    """Of speech in a mixture that contains it in any loudness but holds nothing else that resembles it."""
    speech, mixed = speech.astype(np.float64), mixed.astype(np.float64)
    heard = speech * (speech @ mixed) / (speech @ speech)
    return 10 * np.log10(np.sum(heard**2) / np.sum((mixed - heard) ** 2))


LEVELS = {
    **{f"{name}, {level} dB": level for name in ("babble", "music", "noise") for level in (10, 0, -10)},
    "two voices at once": 0,
    "a voice outside the frame": 0,
}


@pytest.mark.parametrize(("name", "level"), LEVELS.items())
def test_added_audio_has_the_level_that_is_stated(name, level, speech, other):
    mixed = corruptions.ON_AUDIO[name](speech, other, rng())
    assert mixed.dtype == np.int16
    assert len(mixed) == len(speech)
    assert snr_db(speech, mixed) == pytest.approx(level, abs=0.2)
    assert np.abs(mixed[-SAMPLE_RATE // 2 :] - speech[-SAMPLE_RATE // 2 :].astype(np.int32)).max() > 10  # to the end


def test_a_mixture_too_loud_is_turned_down_and_not_clipped(other):
    loud = (20_000 * np.sin(np.arange(SAMPLES) / 7)).astype(np.int16)
    mixed = corruptions.added(loud, synthetic.noise(rng(), SAMPLES), -10)
    assert snr_db(loud, mixed) == pytest.approx(-10, abs=0.3)
    assert np.abs(mixed).max() == corruptions.FULL_SCALE
    assert np.count_nonzero(np.abs(mixed) == corruptions.FULL_SCALE) <= 2


def test_silence_adds_nothing(speech):
    np.testing.assert_array_equal(corruptions.with_other(speech, np.zeros(10, np.int16), rng()), speech)


@pytest.mark.parametrize("frames", [-15, -5, -1, 1, 5, 15])
def test_audio_is_shifted_by_the_frames_that_are_stated(frames):
    clicks = np.zeros(SAMPLES, np.int16)
    clicks[[20 * FRAME, 90 * FRAME]] = 1000, 2000
    shifted = corruptions.ON_AUDIO[f"audio shifted by {frames:+d} frames"](clicks, clicks, rng())
    assert np.flatnonzero(shifted).tolist() == [(20 + frames) * FRAME, (90 + frames) * FRAME]
    assert len(shifted) == SAMPLES


@pytest.mark.parametrize("frames", [-15, 15])
def test_audio_shorter_than_the_shift_is_silent(frames):
    short = np.ones(FRAME, np.int16)
    np.testing.assert_array_equal(corruptions.shifted(frames, short, short, rng()), np.zeros(FRAME))


@pytest.mark.parametrize("name", corruptions.ON_AUDIO)
def test_the_same_seed_gives_the_same_audio_and_another_seed_does_not(name, speech, other):
    corrupt = corruptions.ON_AUDIO[name]
    once = corrupt(speech, other, rng())
    np.testing.assert_array_equal(once, corrupt(speech, other, rng()))
    drawn = not name.startswith("audio shifted") and name != "two voices at once"
    assert np.array_equal(once, corrupt(speech, other, rng(9))) != drawn


@pytest.mark.parametrize("name", corruptions.ON_FACES)
def test_the_same_seed_gives_the_same_faces_which_are_changed(name, faces):
    corrupt, before, steps = corruptions.ON_FACES[name], faces.copy(), np.arange(len(faces))
    once = corrupt(faces, steps, rng())
    assert once.dtype == np.uint8
    assert once.shape == faces.shape
    np.testing.assert_array_equal(once, corrupt(faces, steps, rng()))
    assert not np.array_equal(once, faces)
    np.testing.assert_array_equal(faces, before)
    assert np.array_equal(once, corrupt(faces, steps, rng(9))) == (name not in ("low light", "frame drops"))


def test_the_lower_half_is_covered_and_the_upper_is_not(faces):
    covered = corruptions.covered(faces, np.arange(len(faces)), rng())
    np.testing.assert_array_equal(covered[:, :56], faces[:, :56])
    assert (covered[:, 56:] == corruptions.COVER).all()


def test_blur_and_low_light_keep_what_they_should(faces):
    steps = np.arange(len(faces))
    blurred, dark = corruptions.blurred(faces, steps, rng()), corruptions.darkened(faces, steps, rng())
    assert blurred.mean() == pytest.approx(faces.mean(), abs=1)
    assert blurred[0].std() < 0.2 * faces[0].std()
    assert dark.mean() == pytest.approx(corruptions.LIGHT * faces.mean(), rel=0.05)


def test_frames_that_are_lost_are_lost_for_all_faces_and_the_one_before_is_held():
    steps = np.arange(1000)
    seen = corruptions.held(steps, steps, rng())
    arrived = np.flatnonzero(seen == steps)
    assert seen[0] == 0
    assert len(arrived) == pytest.approx((1 - corruptions.DROPPED) * len(steps), rel=0.2)
    np.testing.assert_array_equal(seen, arrived[np.searchsorted(arrived, steps, side="right") - 1])
    later = corruptions.held(steps[400:], steps[400:], rng())  # of a face that appears later
    np.testing.assert_array_equal(later[50:], seen[450:])
