"""Writing videos: frames at their own times, audio beside them, the index where it is asked for."""

import av
import numpy as np
import pytest
from videos import click_times, clicks, frame_times, grey, heard, number_of

from core.clip_utils import SAMPLE_RATE
from core.media.container import MediaFile
from core.media.video import read_frames, yuv420_of
from core.media.video_writer import write_timed_video, write_video

# A rate that changes, pauses, and times that no frame rate has.
TIMES_S = [0.0, 0.04, 0.08, 0.1, 0.5, 0.5333, 1.25, 1.2666]


@pytest.mark.parametrize("times_s", [TIMES_S, [0.0, 0.2, 0.2]])
def test_each_frame_keeps_its_time(tmp_path, times_s):
    path = tmp_path / "varying.mp4"
    write_timed_video(path, [(time_s, grey(5 * n)) for n, time_s in enumerate(times_s)], fps=6)
    np.testing.assert_allclose(frame_times(path), times_s, atol=2 / 90_000)
    assert (np.diff(frame_times(path)) > 0).all()  # two frames at one time follow each other
    shown = [number_of(frame.rgb()) for frame in read_frames(MediaFile(path))]
    np.testing.assert_allclose(shown, 5 * np.arange(len(times_s)), atol=1)


def test_a_video_that_begins_later_than_its_audio_stays_late(tmp_path):
    path = tmp_path / "late.mp4"
    frames = [(1.0 + number / 25, grey(20)) for number in range(5)]
    write_timed_video(path, frames, 25, [clicks([0.5], 1.2)], 16_000)
    assert frame_times(path)[0] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("sample_rate", [16_000, 44_100, 48_000])
def test_audio_is_where_it_was(tmp_path, sample_rate):
    path = tmp_path / "click.mp4"
    blocks = np.split(clicks([1.3], 2.0, sample_rate), [7, 1000, 1000, sample_rate])  # of any length, none too
    write_timed_video(path, [(n / 25, grey(20)) for n in range(50)], 25, blocks, sample_rate)
    assert click_times(heard(path)) == pytest.approx([1.3], abs=0.003)
    assert len(heard(path)) / SAMPLE_RATE == pytest.approx(2.0, abs=0.1)


def test_left_and_right_stay_apart(tmp_path):
    path = tmp_path / "stereo.mp4"
    samples = np.stack([clicks([0.3], 1.0, 48_000), clicks([0.7], 1.0, 48_000)], axis=1)
    write_timed_video(path, [(n / 25, grey(20)) for n in range(25)], 25, [samples], 48_000)
    channels = heard(path, 48_000, 2).T
    assert [click_times(channel, 48_000) for channel in channels] == [
        pytest.approx([time_s], abs=0.003) for time_s in (0.3, 0.7)
    ]


def test_audio_and_frames_are_taken_in_turns(tmp_path):
    """Neither stream is held back until the other has ended, or long videos would fill the memory."""
    latest = {"frame": 0.0, "audio": 0.0}
    apart_s = []

    def taken(stream: str, steps: int, per_second: int, item):
        for number in range(steps):
            latest[stream] = number / per_second
            apart_s.append(abs(latest["frame"] - latest["audio"]))
            yield item(number)

    frames = taken("frame", 100, 25, lambda number: (number / 25, grey(20)))
    audio = taken("audio", 40, 10, lambda number: np.zeros(1600, np.int16))
    write_timed_video(tmp_path / "turns.mp4", frames, 25, audio, 16_000)
    assert len(apart_s) == 140
    assert max(apart_s) <= 0.2


@pytest.mark.parametrize("index_first", [True, False])
def test_the_index_of_an_mp4_can_come_first(tmp_path, index_first):
    path = tmp_path / "a.mp4"
    write_timed_video(path, [(0.0, grey(20))], 25, index_first=index_first)
    data = path.read_bytes()
    assert (data.index(b"moov") < data.index(b"mdat")) == index_first


def test_the_colours_are_tagged_as_what_they_are(tmp_path):
    """Large frames without a tag are taken for BT.709 by players, which turns faces greenish."""
    path = tmp_path / "colours.mp4"
    colour = np.array([200, 80, 40], np.uint8)
    write_video(path, [np.full((720, 1280, 3), colour)] * 2, 25, crf=5)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range) == (6, 1)  # SMPTE 170M, limited
    shown = next(read_frames(MediaFile(path))).rgb()
    np.testing.assert_allclose(shown.mean(axis=(0, 1)), colour, atol=3)


@pytest.mark.parametrize("fps", [24_000 / 1001, 25, 30_000 / 1001, 60])
def test_a_constant_rate_is_constant(tmp_path, fps):
    path = tmp_path / "steady.mp4"
    write_video(path, [grey(20)] * 30, fps)
    np.testing.assert_allclose(frame_times(path), np.arange(30) / fps, atol=1 / 90_000)
    info = MediaFile(path).info
    assert (info.fps, info.duration_s) == (pytest.approx(fps, abs=1e-3), pytest.approx(30 / fps, abs=0.002))


def test_frames_in_yuv420p_keep_their_numbers_and_the_tags_of_their_colours(tmp_path):
    frame = yuv420_of(grey(20))
    frame.colorspace, frame.color_range = 1, 1  # BT.709, limited
    write_timed_video(tmp_path / "tagged.mp4", [(0.0, frame)], 25, crf=0, quick=True)
    [shown] = read_frames(MediaFile(tmp_path / "tagged.mp4"))
    assert (shown.raw.colorspace, shown.raw.color_range) == (1, 1)
    np.testing.assert_array_equal(shown.raw.to_ndarray(), frame.to_ndarray())
