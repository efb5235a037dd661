"""Clips of faces: what is cut, that frames and audio stay together, that the square is steady; and the script."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from detections import HEIGHT, SILENT, SPEAKS, WIDTH, steady
from heads import GREEN, RADIUS, RED, disc, draw, head_track, results_of, shown
from tiny import exit_status, refusal, tree
from videos import click_times, clicks, frame_times, heard, number_of

from core.clip_utils import SAMPLE_RATE
from core.detection.results import Person, Track
from core.media.container import MediaFile
from core.runtime.provenance import Files, Record
from scripts import export_clips

LEFT, RIGHT = (80, 120), (240, 120)
FRAMES = 75
TIMES_S = steady(FRAMES)


def spoken(*spans: tuple[int, int]) -> list[float]:
    """Scores of a face that speaks in these frames, ends excluded."""
    scores = np.full(FRAMES, SILENT)
    for first, end in spans:
        scores[first:end] = SPEAKS
    return scores.tolist()


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    """Two heads: one speaks in frames 20 to 59, the other for a second and for 0.4 s."""
    tracks = [
        head_track(1, TIMES_S, 0, spoken((20, 60)), LEFT),
        head_track(2, TIMES_S, 0, spoken((0, 25), (60, 70)), RIGHT),
    ]
    frames = [draw(number, {RED: LEFT, GREEN: RIGHT}) for number in range(FRAMES)]
    persons = [Person(1, (1,)), Person(2, (2,), "Zoë")]
    return results_of(tmp_path, frames, tracks, TIMES_S, audio=clicks([1.0, 2.0], 3.0), persons=persons)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def export(talk: Path, *options: object) -> dict[str, tuple[int, int]]:
    """Run the script into `clips` beside the results: name of each clip -> its first and last frame, in hundredths."""
    assert exit_status(export_clips.main, talk, "--out", talk.parent / "clips", *options) == 0
    rows = table(talk.parent / "clips" / "talk-clips.csv")
    assert {row["clip"] for row in rows} == {path.name for path in (talk.parent / "clips").glob("*.mp4")}
    return {row["clip"]: (round(float(row["start_s"]) * 100), round(float(row["end_s"]) * 100)) for row in rows}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {"talk_track001_001.mp4": (80, 240), "talk_track002_001.mp4": (0, 100)}),
        (["--speaking", "--min-seconds", 1.6], {"talk_track001_001.mp4": (80, 240)}),
        (
            ["--min-seconds", 0, "--persons", "Zoë"],
            {"talk_track002_001.mp4": (0, 100), "talk_track002_002.mp4": (240, 280)},
        ),
        (["--persons", "2", "--persons", "Zoë"], {"talk_track002_001.mp4": (0, 100)}),
        (["--all"], {"talk_track001_001.mp4": (0, 300), "talk_track002_001.mp4": (0, 300)}),
        (["--min-seconds", 9], {}),
    ],
)
def test_what_is_cut(talk, options, expected):
    assert export(talk, *options) == expected


def test_the_table_says_whose_face_it_is_and_where(talk):
    export(talk)
    row = table(talk.parent / "clips" / "talk-clips.csv")[0]
    assert (row["track"], row["person"], row["source"]) == ("1", "Person 1", "talk.mp4")
    assert [float(row[side]) for side in ("x1", "y1", "x2", "y2")] == [50, 90, 110, 150]
    assert (int(row["square"]), float(row["probability"])) == (96, pytest.approx(0.9526))


@pytest.mark.parametrize("fps", ["own", "25"])
def test_a_table_beside_each_clip_says_where_the_face_is_in_every_frame(tmp_path, fps):
    """A head that moves through 30 frames a second, found by its colour; it speaks in the last two thirds."""
    times_s = steady(90, 30) + 5
    middles = np.column_stack([np.interp(np.arange(90), [0, 90], [80, 240]), np.full(90, 100.0)])
    frames = [draw(number % 70, {RED: middle}) for number, middle in enumerate(middles)]
    scores = np.where(np.arange(90) < 30, -1.5, 2.25)
    talk = results_of(
        tmp_path,
        frames,
        [head_track(1, times_s, 0, scores, middles)],
        times_s,
        audio=clicks([], 3.0),
        audio_start_s=5.0,
    )
    export(talk, "--all", "--fps", fps)
    clip = tmp_path / "clips" / "talk_track001_001.mp4"
    rows = table(clip.with_suffix(".csv"))
    assert [int(row["frame"]) for row in rows] == list(range(90 if fps == "own" else 75))
    column = lambda name: np.array([float(row[name]) for row in rows])  # noqa: E731
    np.testing.assert_allclose(column("time_s"), frame_times(clip), atol=1e-3)
    numbers = np.rint((column("source_s") - 5) * 30).astype(int)
    np.testing.assert_allclose(column("source_s") - 5 - column("time_s"), 0, atol=0.017)
    np.testing.assert_allclose((column("x1") + column("x2")) / 2, middles[numbers, 0], atol=0.06)
    scale = 224 / 96
    found = np.array([disc(pixels, RED)[:2] for pixels in shown(clip)]) + 0.5 - 0.5 * scale  # middles of pixels
    np.testing.assert_allclose((column("clip_x1") + column("clip_x2")) / 2, found[:, 0], atol=1)
    np.testing.assert_allclose((column("clip_y1") + column("clip_y2")) / 2, found[:, 1], atol=1)
    np.testing.assert_allclose(column("clip_x2") - column("clip_x1"), 60 * scale, atol=0.2)
    np.testing.assert_array_equal(column("score"), scores[numbers])
    np.testing.assert_array_equal(column("speaking"), scores[numbers] > 0)


def timing_case(folder: Path, times_s: np.ndarray, **options) -> Path:
    frames = [draw(number, {RED: (160, 120)}) for number in range(len(times_s))]
    scores = np.where((times_s - times_s[0] >= 0.8 - 1e-6) & (times_s - times_s[0] < 2.4 - 1e-6), SPEAKS, SILENT)
    tracks = [head_track(1, times_s, 0, scores, (160, 120))]
    return results_of(folder, frames, tracks, times_s, audio=clicks([1.0, 2.0], 3.0), **options)


@pytest.mark.parametrize(
    ("times_s", "fps", "expected_s", "numbers"),
    [
        (TIMES_S, "own", np.arange(40) / 25, range(20, 60)),
        (TIMES_S + 5, "own", np.arange(40) / 25, range(20, 60)),
        (np.arange(38) * 0.08, "own", np.arange(20) * 0.08, range(10, 30)),
        (np.arange(38) * 0.08, "25", np.arange(40) / 25, np.arange(40) // 2 + 10),
        (steady(76, 30), "25", np.arange(40) / 25, np.round(np.arange(40) * 1.2 + 24)),
        (np.arange(75) * 1001 / 25000, "own", np.arange(40) * 1001 / 25000, range(20, 60)),
    ],
)  # fmt: skip
def test_frames_and_audio_stay_together(tmp_path, times_s, fps, expected_s, numbers):
    """Each frame is at its time, and clicks are heard where they were to within 3 ms; an AAC frame lasts 64 ms here."""
    export(timing_case(tmp_path, times_s, audio_start_s=float(times_s[0])), "--fps", fps)
    path = tmp_path / "clips" / "talk_track001_001.mp4"
    np.testing.assert_allclose(frame_times(path), expected_s, atol=3e-4)
    np.testing.assert_allclose([number_of(pixels[:20]) for pixels in shown(path)], list(numbers), atol=1)
    begin_s = times_s[np.flatnonzero(times_s - times_s[0] >= 0.8 - 1e-6)[0]] - times_s[0]
    assert click_times(heard(path)) == pytest.approx([1.0 - begin_s, 2.0 - begin_s], abs=0.003)
    assert len(heard(path)) / SAMPLE_RATE == pytest.approx(1.6, abs=0.065)


@pytest.mark.parametrize(("pause_s", "end"), [(0.44, 120), (2.44, 80)])
def test_a_face_that_goes_before_its_shot_ends_is_cut_to_where_its_last_frame_does(tmp_path, pause_s, end):
    """At the next frame, or where that comes after a gap, an average frame later."""
    times_s = np.concatenate([steady(20), steady(20) + 0.76 + pause_s])
    frames = [draw(number, {RED: LEFT}) for number in range(40)]
    tracks = [head_track(1, times_s, 0, [SPEAKS] * 20, LEFT)]
    talk = results_of(tmp_path, frames, tracks, times_s, audio=clicks([], 3.0))
    assert export(talk, "--all", "--min-seconds", 0) == {"talk_track001_001.mp4": (0, end)}


def cut_head(folder: Path, middles: np.ndarray, boxes: np.ndarray | None = None, *options: object) -> list[np.ndarray]:
    """The frames of a clip of a head that is drawn at `middles`, while the tracker says `boxes`."""
    tracks = [head_track(1, TIMES_S, 0, [SPEAKS] * FRAMES, middles)]
    if boxes is not None:
        tracks[0].boxes[:] = boxes
    frames = [draw(number % 20 + 30, {RED: middle}) for number, middle in enumerate(middles)]
    export(results_of(folder, frames, tracks, TIMES_S, audio=clicks([], 3.0)), "--all", "--size", 192, *options)
    return shown(folder / "clips" / "talk_track001_001.mp4")


def test_a_head_at_rest_stays_at_rest_though_its_box_trembles(tmp_path):
    middles = np.tile([160.0, 120.0], (FRAMES, 1))
    boxes = np.concatenate([middles - RADIUS, middles + RADIUS], axis=1)
    boxes += np.random.default_rng(0).normal(0, 4, boxes.shape)
    found = np.array([disc(pixels, RED) for pixels in cut_head(tmp_path, middles, boxes)])
    assert np.abs(np.diff(found[:, :2], axis=0)).max() < 1.2  # of 192 pixels; the boxes move by up to 15
    assert np.ptp(found[:, 2]) < 0.02 * found[0, 2]  # nor does it grow and shrink
    assert np.abs(found[:, :2] - 96).max() < 6


def test_the_square_goes_along_with_a_head(tmp_path):
    x = np.concatenate([np.full(25, 90.0), np.linspace(90, 230, 25), np.full(25, 230.0)])
    found = np.array([disc(pixels, RED) for pixels in cut_head(tmp_path, np.column_stack([x, np.full(FRAMES, 120)]))])
    assert np.abs(found[:, 0] - 96).max() < 0.25 * 192
    assert np.ptp(found[:, 2]) < 0.08 * found[0, 2]  # motion takes a little of its rim
    assert np.abs(found[[0, -1], :2] - 96).max() < 1.5


def test_a_square_at_the_frames_edge_stays_inside(tmp_path):
    frames = cut_head(tmp_path, np.tile([32.0, 34.0], (FRAMES, 1)))
    assert disc(frames[0], RED)[:2] == pytest.approx((64, 68), abs=1.5)  # the square begins at the corner, doubled
    assert min(pixels[[0, -1]].min() for pixels in frames) > 60  # nothing black above and below
    assert min(pixels[:, [0, -1]].min() for pixels in frames) > 60


def test_a_square_larger_than_the_frame_is_black_beside_it(tmp_path):
    middles = np.tile([160.0, 120.0], (FRAMES, 1))
    boxes = np.tile(np.array([0, 0, WIDTH, HEIGHT], np.float32), (FRAMES, 1))
    pixels = cut_head(tmp_path, middles, boxes)[0]
    assert disc(pixels, RED)[:2] == pytest.approx((96, 96), abs=1)
    assert pixels[:20].max() < 10
    assert pixels[90:100, :30].max() < 10


def test_clips_have_their_size_and_stereo(tmp_path):
    frames = [draw(number, {RED: LEFT}) for number in range(FRAMES)]
    audio = np.stack([clicks([1.0], 3.0, 44_100), np.zeros(3 * 44_100, np.int16)])
    tracks = [head_track(1, TIMES_S, 0, spoken((20, 60)), LEFT)]
    export(results_of(tmp_path, frames, tracks, TIMES_S, audio=audio, rate=44_100), "--size", 64)
    path = tmp_path / "clips" / "talk_track001_001.mp4"
    with MediaFile(path) as media:
        assert (media.info.width, media.info.height) == (64, 64)
        assert (media.audio.sample_rate, media.audio.channels) == (44_100, 2)
    left, right = heard(path, 44_100, 2).T
    assert click_times(left, 44_100) == pytest.approx([0.2], abs=0.003)
    assert np.abs(right).max() < 1000


# what is there already


def states(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.is_file()}


def test_what_is_there_is_not_made_again(talk):
    export(talk)
    before = states(talk.parent / "clips")
    export(talk)
    assert states(talk.parent / "clips") == before
    (talk.parent / "clips" / "talk_track002_001.mp4").unlink()
    export(talk)
    assert {name for name, state in states(talk.parent / "clips").items() if before[name] != state} == {
        "talk_track002_001.mp4",
        "talk_track002_001.csv",
    }


@pytest.mark.parametrize("change", ["results", "video", "size"])
def test_clips_of_other_results_another_video_or_size_are_made_anew(talk, change):
    export(talk)
    before = states(talk.parent / "clips")
    options = ["--size", 64] if change == "size" else []
    if change == "results":
        path = talk / "speakers.json"
        path.write_text(path.read_text(encoding="utf-8").replace('"notes":[]', '"notes":["other"]'), encoding="utf-8")
    elif change == "video":
        frames = [draw(number, {RED: LEFT}) for number in range(FRAMES)]
        results_of(
            talk.parent, frames, [head_track(1, TIMES_S, 0, [SPEAKS] * FRAMES, LEFT)], TIMES_S, audio=clicks([], 3)
        )
    after = export(talk, *options) and states(talk.parent / "clips")
    assert all(before.get(name) != state for name, state in after.items())


def test_clips_that_are_no_longer_asked_for_go_and_files_of_others_stay(talk):
    export(talk, "--min-seconds", 0)
    other = talk.parent / "clips" / "mine.txt"
    other.write_text("mine")
    export(talk, "--min-seconds", 1.5)  # compares the table with the clips that are there
    assert other.read_text() == "mine"


def test_a_file_of_somebody_else_is_not_replaced(talk, capsys):
    path = talk.parent / "clips" / "talk_track001_001.mp4"
    path.parent.mkdir()
    path.write_text("mine")
    assert str(path) in refusal(capsys, export_clips.main, talk, "--out", path.parent)
    assert list(states(path.parent)) == [path.name]
    assert path.read_text() == "mine"


# mistakes


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (["--persons", "Bob"], ["Bob", "1 (Person 1), 2 (Zoë)"]),
        (["--size", "225"], ["225", "even"]),
        (["--size", "8"], ["8", "16"]),
        (["--min-seconds", "-1"], ["-1"]),
        (["--min-seconds", "nan"], ["nan"]),
        (["--reframe", "9x16"], ["9x16", "9:16"]),
        (["--reframe", "0:16"], ["0:16"]),
        (["--reframe", "999:1", "--video", "talk.mov"], ["talk.mov"]),
    ],
)
def test_wrong_options_are_refused_before_any_work(talk, capsys, options, facts):
    message = refusal(capsys, export_clips.main, talk, "--out", talk.parent / "clips", *options)
    assert all(fact in message for fact in facts)
    assert not (talk.parent / "clips").exists()


def no_folder(talk: Path) -> list[str]:
    (talk / "speakers.json").unlink()
    talk.rmdir()
    return [str(talk)]


def no_json(talk: Path) -> list[str]:
    (talk / "speakers.json").unlink()
    return [str(talk), "json"]


def damaged_json(talk: Path) -> list[str]:
    (talk / "speakers.json").write_bytes((talk / "speakers.json").read_bytes()[:-40])
    return ["speakers.json"]


def changed_json(talk: Path) -> list[str]:
    document = json.loads((talk / "speakers.json").read_text(encoding="utf-8"))
    document["tracks"][1]["boxes"].pop()
    (talk / "speakers.json").write_text(json.dumps(document), encoding="utf-8")
    return ["speakers.json", "track 2"]


def speech_elsewhere(talk: Path) -> list[str]:
    document = json.loads((talk / "speakers.json").read_text(encoding="utf-8"))
    document["tracks"][1]["speech"] = [{"start_s": 100.0, "end_s": 104.0, "probability": 0.9}]
    (talk / "speakers.json").write_text(json.dumps(document), encoding="utf-8")
    return ["speakers.json", "100.0"]


def end_before_the_last_frame(talk: Path) -> list[str]:
    document = json.loads((talk / "speakers.json").read_text(encoding="utf-8"))
    document["tracks"][1]["end_s"] = 0.5
    (talk / "speakers.json").write_text(json.dumps(document), encoding="utf-8")
    return ["speakers.json", "track 2", "0.5"]


def moved_video(talk: Path) -> list[str]:
    (talk.parent / "talk.mp4").rename(talk.parent / "other.mp4")
    return [str(talk.parent / "talk.mp4"), "--video"]


def another_video(talk: Path) -> list[str]:
    video = talk.parent / "talk.mp4"
    with Record(talk, "outputs", "detection", {"video": Files.one(video)}).making([]):
        pass
    video.write_bytes(video.read_bytes() + b"more")
    return [str(video), "--video"]


@pytest.mark.parametrize(
    "fault",
    [
        no_folder,
        no_json,
        damaged_json,
        changed_json,
        speech_elsewhere,
        end_before_the_last_frame,
        moved_video,
        another_video,
    ],
)
def test_outputs_that_cannot_be_used_are_reported_in_one_message(talk, capsys, fault):
    facts = fault(talk)
    message = refusal(capsys, export_clips.main, talk, "--out", talk.parent / "clips")
    assert all(fact in message for fact in facts)
    assert not (talk.parent / "clips").exists()


def test_a_video_without_audio_has_whole_tracks_only(tmp_path, capsys):
    tracks: list[Track] = [head_track(1, TIMES_S, 0, [np.nan] * FRAMES, LEFT)]
    frames = [draw(number, {RED: LEFT}) for number in range(FRAMES)]
    talk = results_of(tmp_path, frames, tracks, TIMES_S, audio=None)
    assert "--all" in refusal(capsys, export_clips.main, talk, "--out", tmp_path / "clips")
    assert export(talk, "--all") == {"talk_track001_001.mp4": (0, 300)}
    assert MediaFile(tmp_path / "clips" / "talk_track001_001.mp4").audio is None
    assert table(tmp_path / "clips" / "talk-clips.csv")[0]["probability"] == ""
    frame = table(tmp_path / "clips" / "talk_track001_001.csv")[0]
    assert (frame["score"], frame["speaking"]) == ("", "")


def test_a_moved_video_is_named(talk):
    moved = (talk.parent / "talk.mp4").rename(talk.parent / "other.mp4")
    assert exit_status(export_clips.main, talk, "--video", moved, "--out", talk.parent / "clips") == 0
    assert (talk.parent / "clips" / "other_track001_001.mp4").is_file()


# ---------------------------------------------------------------- several videos


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_video_that_cannot_be_used_does_not_stop_the_others(talk, tmp_path, capsys, jobs):
    broken, out = tmp_path / "broken.asd", tmp_path / "out"
    broken.mkdir()
    assert exit_status(export_clips.main, broken, talk, "--out", out, "--jobs", jobs) == 1
    assert "broken.asd" in capsys.readouterr().err
    assert exit_status(export_clips.main, talk, "--out", tmp_path / "alone") == 0
    ours, alone = tree(out), tree(tmp_path / "alone")
    assert ours.keys() == alone.keys() != set()
    assert all(ours[name] == alone[name] for name in ours if name.endswith(".csv"))


def test_two_folders_of_one_name_are_refused(talk, tmp_path, capsys):
    assert "--out" in refusal(capsys, export_clips.main, talk, tmp_path / talk.name, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()
