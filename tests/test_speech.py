"""Speech segments: hand-counted frames at 25 per second, 0.04 s each."""

import numpy as np
import pytest
from detections import SILENT, SPEAKS, detected, steady, track

from core.outputs.speech import Segment, speaking_time, speech_segments


def segments_of(scores: list[float], times_s: np.ndarray | None = None, first: int = 0, **limits) -> list[Segment]:
    times_s = steady(200) if times_s is None else times_s
    video = detected([track(1, times_s, first, scores)], times_s)
    return speech_segments(video.tracks[0], video, **limits)


def spans(segments: list[Segment]) -> list[tuple[float, float]]:
    return [(round(segment.start_s, 6), round(segment.end_s, 6)) for segment in segments]


def test_a_frame_lasts_until_the_next_one_appears():
    assert spans(segments_of([SILENT] * 5 + [SPEAKS] * 10 + [SILENT] * 5)) == [(0.2, 0.6)]


def test_a_segment_may_begin_and_end_with_its_track():
    assert spans(segments_of([SPEAKS] * 10, first=50)) == [(2.0, 2.4)]


def test_the_last_frame_of_the_video_lasts_one_frame():
    assert spans(segments_of([SPEAKS] * 10, first=190)) == [(7.6, 8.0)]


@pytest.mark.parametrize(("pause", "expected"), [(7, [(0.0, 1.08)]), (8, [(0.0, 0.4), (0.72, 1.12)])])
def test_pauses_up_to_the_limit_are_closed(pause, expected):
    """0.28 s is closed, 0.32 s is not."""
    assert spans(segments_of([SPEAKS] * 10 + [SILENT] * pause + [SPEAKS] * 10)) == expected


def test_a_pause_of_just_the_limit_is_closed_whatever_floats_say():
    """0.6 - 0.3 and its kin are a hair above 0.3."""
    times_s = steady(100, fps=10)
    assert spans(segments_of([SPEAKS] * 3 + [SILENT] * 3 + [SPEAKS] * 3, times_s)) == [(0.0, 0.9)]


@pytest.mark.parametrize(("frames", "kept"), [(4, 0), (5, 1)])
def test_short_segments_are_dropped(frames, kept):
    """0.16 s is dropped, 0.2 s is kept."""
    assert len(segments_of([SILENT] * 3 + [SPEAKS] * frames + [SILENT] * 3)) == kept


def test_pauses_are_closed_before_short_segments_are_dropped():
    assert spans(segments_of([SPEAKS] * 3 + [SILENT] * 2 + [SPEAKS] * 3)) == [(0.0, 0.32)]


def test_limits_can_be_chosen():
    scores = [SPEAKS] * 3 + [SILENT] * 2 + [SPEAKS] * 3
    assert spans(segments_of(scores, min_speech_s=0.1, max_pause_s=0.0)) == [(0.0, 0.12), (0.2, 0.32)]


def test_the_probability_is_the_mean_over_frames_pauses_included():
    odds = [np.log(0.9 / 0.1)] * 5 + [np.log(0.2 / 0.8)] + [np.log(0.7 / 0.3)] * 4
    (segment,) = segments_of(odds)
    assert segment.probability == pytest.approx((5 * 0.9 + 0.2 + 4 * 0.7) / 10, abs=1e-6)


def test_times_follow_a_varying_frame_rate():
    times_s = np.array([0.0, 0.1, 0.5, 0.6, 1.6, 1.7])
    assert spans(segments_of([SILENT, SPEAKS, SPEAKS, SILENT, SPEAKS], times_s)) == [(0.1, 0.6)]
    assert spans(segments_of([SILENT, SPEAKS, SPEAKS, SILENT, SPEAKS], times_s, max_pause_s=1.0)) == [(0.1, 1.7)]


def test_half_counts_as_speaking():
    assert spans(segments_of([0.0] * 5 + [-1e-6] * 5)) == [(0.0, 0.2)]


@pytest.mark.parametrize("scores", [[SILENT] * 20, [np.nan] * 20])
def test_silence_and_missing_sound_have_no_segments(scores):
    assert segments_of(scores) == []
    assert speaking_time([]) == 0.0


def test_speaking_time_is_the_sum_of_lengths():
    assert speaking_time([Segment(0.5, 1.0, 0.9), Segment(2.0, 2.25, 0.8)]) == pytest.approx(0.75)
