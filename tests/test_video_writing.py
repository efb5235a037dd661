"""Writing videos: frames at their own times, sound beside them, the index where it is asked for."""

import av
import numpy as np
import pytest

from core.formats.wav import SAMPLE_RATE
from core.media.audio import decode_audio
from core.media.video import probe, read_frames
from core.media.video_writer import write_timed_video, write_video

WIDTH, HEIGHT = 64, 48
# A rate that changes, pauses, and times that no frame rate has.
TIMES_S = [0.0, 0.04, 0.08, 0.1, 0.5, 0.5333, 1.25, 1.2666]


def grey(level: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH, 3), level, np.uint8)


def click(at_s: float, seconds: float, sample_rate: int) -> np.ndarray:
    """(samples,) int16: 10 ms of full sound in silence."""
    samples = np.zeros(round(seconds * sample_rate), np.int16)
    samples[round(at_s * sample_rate) : round((at_s + 0.01) * sample_rate)] = 20_000
    return samples


def test_each_frame_keeps_its_time(tmp_path):
    path = tmp_path / "varying.mp4"
    write_timed_video(path, [(time_s, grey(20 + 25 * n)) for n, time_s in enumerate(TIMES_S)], fps=6)
    frames = list(read_frames(path))
    np.testing.assert_allclose([frame.time_s for frame in frames], TIMES_S, atol=1 / 90_000)
    np.testing.assert_allclose([frame.rgb().mean() for frame in frames], 20 + 25 * np.arange(8), atol=3)


def test_two_frames_at_one_time_follow_each_other(tmp_path):
    path = tmp_path / "twice.mp4"
    write_timed_video(path, [(0.0, grey(20)), (0.2, grey(60)), (0.2, grey(100))], fps=5)
    times_s = [frame.time_s for frame in read_frames(path)]
    np.testing.assert_allclose(times_s, [0.0, 0.2, 0.2], atol=1e-4)
    assert times_s[1] < times_s[2]


def test_a_picture_that_begins_late_stays_late(tmp_path):
    path = tmp_path / "late.mp4"
    frames = [(1.0 + number / 25, grey(100)) for number in range(5)]
    write_timed_video(path, frames, 25, [click(0.5, 1.2, 16_000)], 16_000)
    assert next(read_frames(path)).time_s == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("sample_rate", [16_000, 44_100, 48_000])
def test_sound_is_where_it_was(tmp_path, sample_rate):
    path = tmp_path / "click.mp4"
    whole = click(1.3, 2.0, sample_rate)
    blocks = np.split(whole, [7, 1000, 1000, sample_rate])  # of any length, none too
    write_timed_video(path, [(n / 25, grey(100)) for n in range(50)], 25, blocks, sample_rate)
    heard = np.abs(np.concatenate(list(decode_audio(path))).astype(int))
    assert np.argmax(heard > 5000) / SAMPLE_RATE == pytest.approx(1.3, abs=0.003)
    assert len(heard) / SAMPLE_RATE == pytest.approx(2.0, abs=0.1)


def test_left_and_right_stay_apart(tmp_path):
    path = tmp_path / "stereo.mp4"
    left, right = click(0.3, 1.0, 48_000), click(0.7, 1.0, 48_000)
    write_timed_video(path, [(n / 25, grey(100)) for n in range(25)], 25, [np.stack([left, right], axis=1)], 48_000)
    heard = np.concatenate(list(decode_audio(path, 48_000, channels=2)))
    assert heard.shape[1] == 2
    assert heard.dtype == np.int16
    assert (np.abs(heard.astype(int)) > 5000).argmax(axis=0) / 48_000 == pytest.approx([0.3, 0.7], abs=0.003)


def test_sound_and_frames_are_taken_in_turns(tmp_path):
    """Neither stream is held back until the other has ended, or long videos would fill the memory."""
    taken = []

    def frames():
        for number in range(100):
            taken.append(("frame", number / 25))
            yield number / 25, grey(100)

    def sound():
        for number in range(40):
            taken.append(("sound", number / 10))
            yield np.zeros(1600, np.int16)

    write_timed_video(tmp_path / "turns.mp4", frames(), 25, sound(), 16_000)
    latest = {"frame": 0.0, "sound": 0.0}
    for stream, time_s in taken:
        latest[stream] = time_s
        assert abs(latest["frame"] - latest["sound"]) <= 0.2


@pytest.mark.parametrize("index_first", [True, False])
def test_the_index_of_an_mp4_can_come_first(tmp_path, index_first):
    path = tmp_path / "a.mp4"
    write_timed_video(path, [(0.0, grey(100))], 25, index_first=index_first)
    data = path.read_bytes()
    assert (data.index(b"moov") < data.index(b"mdat")) == index_first


def test_the_colours_are_said_to_be_what_they_are(tmp_path):
    """Large pictures without a tag are taken for BT.709 by players, which turns faces greenish."""
    path = tmp_path / "colours.mp4"
    colour = np.array([200, 80, 40], np.uint8)
    write_video(path, [np.full((720, 1280, 3), colour)] * 2, 25, crf=5)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (6, 1)  # SMPTE 170M, limited
    np.testing.assert_allclose(next(read_frames(path)).rgb().mean(axis=(0, 1)), colour, atol=3)


@pytest.mark.parametrize("fps", [24_000 / 1001, 25, 30_000 / 1001, 60])
def test_a_constant_rate_is_constant(tmp_path, fps):
    path = tmp_path / "steady.mp4"
    write_video(path, [grey(100)] * 30, fps)
    np.testing.assert_allclose([frame.time_s for frame in read_frames(path)], np.arange(30) / fps, atol=1 / 90_000)
    assert probe(path).fps == pytest.approx(fps, abs=1e-3)
    assert probe(path).duration_s == pytest.approx(30 / fps, abs=0.002)
