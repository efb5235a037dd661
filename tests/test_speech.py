"""Speech segments: hand-counted frames at 25 per second, 0.04 s each; and the files that hold them."""

import numpy as np
import pytest
from detections import SILENT, SPEAKS, detected, steady, track

from core.detection.results import DetectedVideo, Person
from core.outputs.speech import Segment, speakers, speaking_time, speech_segments, write_rttm, write_vtt


def segments_of(scores: list[float], times_s: np.ndarray | None = None, first: int = 0, **limits) -> list[Segment]:
    times_s = steady(200) if times_s is None else times_s
    video = detected([track(1, times_s, first, scores)], times_s)
    return speech_segments(video.tracks[0], video, **limits)


def spans(segments: list[Segment]) -> list[tuple[float, float]]:
    return [(round(segment.start_s, 6), round(segment.end_s, 6)) for segment in segments]


@pytest.mark.parametrize(
    ("scores", "first", "expected"),
    [
        ([SILENT] * 5 + [SPEAKS] * 10 + [SILENT] * 5, 0, (0.2, 0.6)),  # a frame lasts until the next one appears
        ([SPEAKS] * 10, 50, (2.0, 2.4)),  # from a track's beginning to its end
        ([SPEAKS] * 10, 190, (7.6, 8.0)),  # the last frame of the video lasts one frame
        ([SPEAKS] * 3 + [SILENT] * 2 + [SPEAKS] * 3, 0, (0.0, 0.32)),  # pauses go before short segments do
        ([0.0] * 5 + [-1e-6] * 5, 0, (0.0, 0.2)),  # a probability of one half is speaking
    ],
)
def test_where_a_segment_begins_and_ends(scores, first, expected):
    assert spans(segments_of(scores, first=first)) == [expected]


@pytest.mark.parametrize(("pause", "expected"), [(7, [(0.0, 1.08)]), (8, [(0.0, 0.4), (0.72, 1.12)])])
def test_pauses_up_to_the_limit_are_closed(pause, expected):
    """0.28 s is closed, 0.32 s is not."""
    assert spans(segments_of([SPEAKS] * 10 + [SILENT] * pause + [SPEAKS] * 10)) == expected


def test_a_pause_of_just_the_limit_is_closed_whatever_floats_say():
    """0.9 - 0.6 is a hair above 0.3."""
    times_s = steady(100, fps=10)
    assert spans(segments_of([SPEAKS] * 6 + [SILENT] * 3 + [SPEAKS] * 3, times_s)) == [(0.0, 1.2)]


@pytest.mark.parametrize(("frames", "kept"), [(4, 0), (5, 1)])
def test_short_segments_are_dropped(frames, kept):
    """0.16 s is dropped; 0.2 s is kept, here 0.24 - 0.04, which is a hair below."""
    assert len(segments_of([SILENT] + [SPEAKS] * frames + [SILENT] * 3)) == kept


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


@pytest.mark.parametrize("scores", [[SILENT] * 20, [np.nan] * 20])
def test_silence_and_missing_audio_have_no_segments(scores):
    assert segments_of(scores) == []
    assert speaking_time([]) == 0.0


def test_speaking_time_is_the_sum_of_lengths():
    assert speaking_time([Segment(0.5, 1.0, 0.9), Segment(2.0, 2.25, 0.8)]) == pytest.approx(0.75)


# Turns of persons


def across_a_cut(pause: int, **options) -> DetectedVideo:
    """Track 1 speaks until 2 s, track 3 after a pause of frames; track 2 from 1 s to 2 s."""
    times_s = steady(200)
    tracks = [
        track(1, times_s, 0, [SPEAKS] * 50),
        track(2, times_s, 20, [SILENT] * 5 + [SPEAKS] * 25),
        track(3, times_s, 50, [SILENT] * pause + [SPEAKS] * 25, shot=1),
    ]
    return detected(tracks, times_s, cuts=(50,), **options)


@pytest.mark.parametrize(("pause", "turns"), [(0, [(0.0, 3.0)]), (7, [(0.0, 3.28)]), (8, [(0.0, 2.0), (2.32, 3.32)])])
def test_a_turn_goes_on_across_a_cut(pause, turns):
    persons = [Person(1, (1, 3)), Person(2, (2,), "Bob")]
    first, second = speakers(across_a_cut(pause, persons=persons))
    assert spans(first.turns) == turns
    assert [track.id for track in first.tracks] == [1, 3]
    assert (first.id, first.label, first.key) == (1, "Person 1", "person_001")
    assert (spans(second.turns), second.label, second.key) == ([(1.0, 2.0)], "Bob", "Bob")


def test_where_persons_were_not_told_apart_each_track_is_a_speaker():
    found = speakers(across_a_cut(0))
    assert [(one.id, one.label, one.key, spans(one.turns)) for one in found] == [
        (1, "Face 1", "face_001", [(0.0, 2.0)]),
        (2, "Face 2", "face_002", [(1.0, 2.0)]),
        (3, "Face 3", "face_003", [(2.0, 3.0)]),
    ]


def test_the_probability_of_a_turn_is_the_mean_by_length():
    times_s = steady(200)
    odds = [float(np.log(p / (1 - p))) for p in (0.9, 0.6)]
    tracks = [track(1, times_s, 0, [odds[0]] * 50), track(2, times_s, 50, [odds[1]] * 100, shot=1)]
    [person] = speakers(detected(tracks, times_s, cuts=(50,), persons=[Person(1, (1, 2))]))
    assert [turn.probability for turn in person.turns] == pytest.approx([(0.9 + 2 * 0.6) / 3])


# RTTM and WebVTT, line by line


def test_rttm_and_vtt_speak_of_persons(tmp_path):
    video = turns(persons=[Person(1, (1, 12), "Anna <& Co>"), Person(2, (2,))])
    write_rttm(tmp_path / "a.rttm", video)
    assert [line.split()[7] for line in (tmp_path / "a.rttm").read_text().splitlines()] == [
        "person_002",
        "Anna_<&_Co>",
        "Anna_<&_Co>",
    ]
    write_vtt(tmp_path / "a.vtt", video)
    cues = (tmp_path / "a.vtt").read_text().strip().split("\n\n")[2:]
    assert [cue.split("\n")[1] for cue in cues] == [
        "<v Person 2>Person 2 speaks (0.95)",
        *["<v Anna &lt;&amp; Co&gt;>Anna &lt;&amp; Co&gt; speaks (0.95)"] * 2,
    ]


def turns(**options) -> DetectedVideo:
    """Face 2 speaks first, then face 1, with an overlap; then face 1 again, past an hour."""
    times_s = np.append(steady(100), 3600.0 + steady(100))
    tracks = [
        track(1, times_s, 0, [SILENT] * 20 + [SPEAKS] * 30),
        track(2, times_s, 0, [SPEAKS] * 25 + [SILENT] * 25),
        track(12, times_s, 110, [SPEAKS] * 50),
    ]
    return detected(tracks, times_s, **options)


def test_rttm_has_ten_fields_by_start_time(tmp_path):
    write_rttm(tmp_path / "a.rttm", turns(path="my  talk,\ttake 2.mp4"))
    assert (tmp_path / "a.rttm").read_text().splitlines() == [
        "SPEAKER my__talk,_take_2 1 0.000 1.000 <NA> <NA> face_002 <NA> <NA>",
        "SPEAKER my__talk,_take_2 1 0.800 1.200 <NA> <NA> face_001 <NA> <NA>",
        "SPEAKER my__talk,_take_2 1 3600.400 2.000 <NA> <NA> face_012 <NA> <NA>",
    ]


def test_vtt_has_a_cue_a_segment(tmp_path):
    write_vtt(tmp_path / "a.vtt", turns())
    blocks = (tmp_path / "a.vtt").read_text().split("\n\n")
    assert blocks[0] == "WEBVTT"
    assert blocks[1].startswith("NOTE ")
    assert "mean" in blocks[1]
    assert "-->" not in blocks[1]
    assert [block.strip().split("\n") for block in blocks[2:]] == [
        ["00:00:00.000 --> 00:00:01.000", "<v Face 2>Face 2 speaks (0.95)"],
        ["00:00:00.800 --> 00:00:02.000", "<v Face 1>Face 1 speaks (0.95)"],
        ["01:00:00.400 --> 01:00:02.400", "<v Face 12>Face 12 speaks (0.95)"],
    ]


def test_without_speech_there_are_no_lines(tmp_path):
    times_s = steady(20)
    video = detected([track(1, times_s, 0, [np.nan] * 20)], times_s, audio_s=None)
    write_rttm(tmp_path / "a.rttm", video)
    write_vtt(tmp_path / "a.vtt", video)
    assert (tmp_path / "a.rttm").read_text() == ""
    assert " --> " not in (tmp_path / "a.vtt").read_text()


def test_a_name_that_is_no_utf_8_can_be_written(tmp_path):
    write_rttm(tmp_path / "a.rttm", turns(path="caf\udce9.mp4"))
    assert (tmp_path / "a.rttm").read_text(encoding="utf-8").startswith("SPEAKER caf\N{REPLACEMENT CHARACTER} 1 ")
