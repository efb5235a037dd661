"""Tracks as csvs: cells by hand, AVA's format read back by the evaluation."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from detections import SILENT, SPEAKS, detected, steady, track

from core.detection.results import DetectedVideo, Person
from core.evaluation.official import read_predictions
from core.formats import ava
from core.outputs.tables import write_ava_predictions, write_tracks_csv
from core.runtime.errors import MediaError


def two_faces(**options) -> DetectedVideo:
    times_s = steady(20)
    tracks = [
        track(1, times_s, 2, [SPEAKS, 0.0, SILENT]),
        track(2, times_s, 3, [1.5, -0.1], box=(0, 0.125, 320, 239.996)),
    ]
    return detected(tracks, times_s, **options)


def test_every_cell_of_a_table(tmp_path):
    write_tracks_csv(tmp_path / "tracks.csv", two_faces())
    lines = (tmp_path / "tracks.csv").read_text().splitlines()
    assert lines[0] == "frame,time_s,track_id,x1,y1,x2,y2,score,probability,speaking,context,person"
    assert lines[2] == '3,0.120000,1,40.00,60.00,120.00,180.00,0,0.5,1,"none",'
    assert [line.split(",")[:7] for line in lines[4:]] == [
        ["3", "0.120000", "2", "0.00", "0.12", "320.00", "240.00"],
        ["4", "0.160000", "2", "0.00", "0.12", "320.00", "240.00"],
    ]
    assert [line.split(",")[9] for line in lines[1:]] == ["1", "1", "0", "1", "0"]


@pytest.mark.parametrize("name", [None, "light_asd.pth", 'mine, "new".pth'])
def test_every_row_says_which_context_made_its_score(tmp_path, name):
    write_tracks_csv(tmp_path / "tracks.csv", two_faces(context=name))
    read = pd.read_csv(tmp_path / "tracks.csv")
    assert read["context"].tolist() == [name or "none"] * 5
    assert read["frame"].tolist() == [2, 3, 4, 3, 4]


def test_every_row_says_which_person_it_shows(tmp_path):
    write_tracks_csv(tmp_path / "tracks.csv", two_faces(persons=[Person(1, (2,)), Person(2, (1,))]))
    assert pd.read_csv(tmp_path / "tracks.csv")["person"].tolist() == [2, 2, 2, 1, 1]


def test_scores_and_probabilities_keep_all_digits_of_float32(tmp_path):
    times_s = steady(100)
    scores = np.random.default_rng(0).normal(0, 6, 100).astype(np.float32)
    video = detected([track(1, times_s, 0, scores)], times_s)
    write_tracks_csv(tmp_path / "tracks.csv", video)
    read = np.genfromtxt(tmp_path / "tracks.csv", np.float32, delimiter=",", skip_header=1)
    np.testing.assert_array_equal(read[:, 7], scores)
    np.testing.assert_array_equal(read[:, 8], video.tracks[0].probabilities)


def test_without_audio_the_cells_that_need_it_are_empty(tmp_path):
    times_s = steady(5)
    write_tracks_csv(tmp_path / "tracks.csv", detected([track(1, times_s, 0, [np.nan])], times_s, audio_s=None))
    assert (tmp_path / "tracks.csv").read_text().splitlines()[1] == "0,0.000000,1,40.00,60.00,120.00,180.00,,,,,"


def test_a_video_without_faces(tmp_path):
    """A table of its header only; predictions have none."""
    for write in (write_tracks_csv, write_ava_predictions):
        write(tmp_path / write.__name__, detected([], steady(5)))
    assert len((tmp_path / "write_tracks_csv").read_text().splitlines()) == 1
    assert (tmp_path / "write_ava_predictions").read_text() == ""


def test_half_a_million_rows_take_seconds(tmp_path):
    times_s = steady(50_000)
    scores = np.random.default_rng(0).normal(0, 3, 50_000)
    video = detected([track(id, times_s, 0, scores) for id in range(1, 11)], times_s)
    started = time.perf_counter()
    write_tracks_csv(tmp_path / "tracks.csv", video)
    assert time.perf_counter() - started < 5
    assert (tmp_path / "tracks.csv").read_bytes().count(b"\n") == 500_001


def test_the_evaluation_reads_predictions(tmp_path):
    write_ava_predictions(tmp_path / "p.csv", two_faces(path="folder/some talk.mp4"))
    rows = read_predictions(tmp_path / "p.csv")
    assert len(rows) == 5
    first = [rows.table[name][0].as_py() for name in (*ava.COLUMNS, "score")]
    box, probability = [0.125, 0.25, 0.375, 0.75], 1 / (1 + np.exp(-SPEAKS))
    assert first[:-1] == ["some talk", 0.08, *box, "SPEAKING_AUDIBLE", "some talk_0000_0001:1"]
    assert first[-1] == pytest.approx(probability, abs=1e-7)
    assert rows.table["entity_id"].to_pylist()[3:] == ["some talk_0000_0001:2"] * 2


def test_predictions_count_from_the_beginning_of_the_file(tmp_path):
    """Annotations do, whatever clock a player shows."""
    start_s = 3605.0
    video = two_faces()
    late = replace(
        video,
        start_s=start_s,
        frame_times_s=video.frame_times_s + start_s,
        tracks=[replace(track, times_s=track.times_s + start_s) for track in video.tracks],
        shots=[replace(shot, start_s=shot.start_s + start_s, end_s=shot.end_s + start_s) for shot in video.shots],
    )
    write_ava_predictions(tmp_path / "soon.csv", video)
    write_ava_predictions(tmp_path / "late.csv", late)
    assert (tmp_path / "late.csv").read_text() == (tmp_path / "soon.csv").read_text()
    write_tracks_csv(tmp_path / "tracks.csv", late)
    assert pd.read_csv(tmp_path / "tracks.csv")["time_s"].min() == 3605.08


def test_predictions_have_the_official_text(tmp_path):
    write_ava_predictions(tmp_path / "p.csv", two_faces())
    text = (tmp_path / "p.csv").read_text().splitlines()[1]
    assert text == "talk,0.12,0.125000,0.250000,0.375000,0.750000,SPEAKING_AUDIBLE,talk_0000_0001:1,0.5"


@pytest.mark.parametrize(
    ("times_s", "decimals"),
    [
        (steady(90_000), 2),
        (steady(1000, 50) + 900, 2),
        (steady(1000, 30), 6),
        (steady(1000, 30000 / 1001), 6),
        (steady(1000, 120), 6),
        (np.array([0.0, 0.04, 0.085]), 6),
    ],
)
def test_timestamps_have_two_decimals_where_that_is_exact(tmp_path, times_s, decimals):
    write_ava_predictions(tmp_path / "p.csv", detected([track(1, times_s, 0, [0.0] * len(times_s))], times_s))
    texts = [line.split(",")[1] for line in (tmp_path / "p.csv").read_text().splitlines()]
    assert {len(text.partition(".")[2]) for text in texts} == {decimals}
    assert len(set(texts)) == len(times_s)
    np.testing.assert_allclose(np.array(texts, np.float64), times_s, rtol=0, atol=1e-6)


def test_without_audio_there_are_no_predictions(tmp_path):
    with pytest.raises(MediaError, match=r"talk\.mp4 has no audio.*format ava"):
        write_ava_predictions(tmp_path / "p.csv", two_faces(audio_s=None))
    assert not (tmp_path / "p.csv").exists()


@pytest.mark.parametrize(
    ("name", "video_id"),
    [("a,b.mp4", "a_b"), ('say "hi".mp4', "say _hi_"), ("two\nlines.mp4", "two_lines"), ("größe.mp4", "größe")],
)
def test_names_that_the_format_cannot_hold_are_changed(tmp_path, name, video_id):
    write_ava_predictions(tmp_path / "p.csv", two_faces(path=name))
    rows = read_predictions(tmp_path / "p.csv")
    assert set(rows.table["video_id"].to_pylist()) == {video_id}
    assert rows.table["entity_id"][0].as_py() == f"{video_id}_0000_0001:1"
