"""RTTM and WebVTT, line by line."""

import numpy as np
from detections import SILENT, SPEAKS, detected, steady, track

from core.detection.results import DetectedVideo
from core.outputs.speech import write_rttm, write_vtt


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
