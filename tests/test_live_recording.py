"""What scripts/live.py --record keeps: the video that was seen, with its audio, and all that detect.py writes."""

import json
import signal
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from detections import Mean, Squares
from tiny import BOXES, exit_status, refusal, tiny_frame

from core.clip_utils import GRID_FPS, SAMPLE_RATE
from core.cutting.results import read_results
from core.live import LiveDetector
from core.live.inbox import Heard, Seen, scored_frames
from core.live.lines import ScoredFrame
from core.live.recording import Recording
from core.media.container import MediaFile
from core.media.video import read_frames, yuv420_of
from core.media.video_audio import audio_on_disk
from core.media.video_writer import write_video
from core.models import ResidualContext
from core.outputs import speakers_json
from core.runtime.provenance import check_outputs
from scripts import live as live_script

FILES = ("tracks.csv", "speakers.json", "recording.rttm", "recording.vtt", "report.html")
BLOCK = SAMPLE_RATE // GRID_FPS
NOISE = (3000 * np.random.default_rng(0).standard_normal(10 * SAMPLE_RATE)).astype(np.int16)


def frame_of(number: int) -> np.ndarray:
    """Frames without a cut."""
    return tiny_frame(number // 4 % 10, faces=2)


def played(times_s: Iterable[float], heard: range = range(10_000)) -> list[Seen | Heard]:
    """Frames at these times, and beside those with a number in `heard` their audio, always the same for one number."""
    items = []
    for number, time_s in enumerate(times_s):
        if number in heard:
            items.append(Heard(time_s, NOISE[BLOCK * number :][:BLOCK]))
        items.append(Seen(time_s, yuv420_of(frame_of(number))))
    return items


def record(
    folder: Path, weights: Path, items: Iterable[Seen | Heard], **options
) -> tuple[list[ScoredFrame], Recording]:
    """Record all that is played, as fast as can be."""
    own = {"context": "none", "delay_s": 0.4, "detector": Squares(2), "min_face_px": 10, "min_track_s": 0.1}
    live = LiveDetector("light_asd", weights, **own | options)
    live.encoder = replace(live.encoder, network=Mean())
    recording, given = Recording(folder, live), []
    for scored, seen in scored_frames(live, items):
        recording.add(scored, seen)
        given.append(scored)
    recording.finish(["A note."], complete=True)
    return given, recording


def written(folder: Path) -> tuple[dict, pd.DataFrame]:
    """speakers.json, checked, and tracks.csv."""
    results = json.loads((folder / "speakers.json").read_text(encoding="utf-8"))
    jsonschema.validate(results, speakers_json.schema())
    return results, pd.read_csv(folder / "tracks.csv")


def video_of(folder: Path) -> tuple[np.ndarray, np.ndarray | None, list[np.ndarray]]:
    """Times of the frames, audio, and frames of a recording."""
    with MediaFile(folder / "recording.mp4", as_played=True) as media, audio_on_disk(media) as audio:
        frames = list(read_frames(media))
        samples = None if audio is None else audio.part(0.0, len(audio.samples))
        return np.array([frame.time_s for frame in frames]), samples, [frame.rgb() for frame in frames]


def test_a_recording_is_what_was_seen_heard_and_found(tmp_path, light_weights):
    folder, times_s = tmp_path / "talk", 500 + np.arange(100) / GRID_FPS
    given, _ = record(folder, light_weights, played(times_s))
    recorded_s, samples, frames = video_of(folder)
    assert recorded_s == pytest.approx(times_s - 500, abs=1e-4)
    assert len(samples) == pytest.approx(4 * SAMPLE_RATE, abs=1100)  # AAC's frames
    heard, meant = samples[: 3 * SAMPLE_RATE].astype(float), NOISE[: 3 * SAMPLE_RATE].astype(float)
    assert np.corrcoef(heard, meant)[0, 1] > 0.8
    for number in (0, 50, 99):
        assert np.abs(frames[number].astype(int) - frame_of(number)).mean() < 6
    results, rows = written(folder)
    assert results["notes"] == ["A note."]
    assert results["video"] | {"file": "recording.mp4", "frames": 100, "complete": True} == results["video"]
    assert results["settings"]["delay_s"] == 0.4
    assert len(rows) == sum(len(frame.faces) for frame in given) == 200
    for number, frame in enumerate(given):
        own = rows[rows["frame"] == number]
        assert own["probability"].tolist() == pytest.approx([face.probability for face in frame.faces], abs=1e-6)
        assert own[["x1", "y1", "x2", "y2"]].to_numpy() == pytest.approx(
            np.array([f.box for f in frame.faces]), abs=0.01
        )
    assert set(check_outputs(folder, "outputs", FILES)["outputs"]) == set(FILES)
    assert read_results(folder).video == folder / "recording.mp4"


@pytest.mark.parametrize("jump_s", [5.0, -100.0])
def test_after_a_gap_or_a_clock_that_was_set_the_recording_goes_on_at_once(tmp_path, light_weights, jump_s):
    times_s = 500 + np.arange(80) / GRID_FPS
    times_s[40:] += jump_s
    record(tmp_path, light_weights, played(times_s))
    recorded_s, samples, _ = video_of(tmp_path)
    assert recorded_s == pytest.approx(np.arange(80) / GRID_FPS, abs=1e-4)
    assert len(samples) == pytest.approx(3.2 * SAMPLE_RATE, abs=1100)
    results, rows = written(tmp_path)
    assert [shot["first_frame"] for shot in results["shots"]] == [0, 40]
    assert rows.groupby("track_id")["frame"].agg(["min", "max"]).to_numpy().tolist() == [[0, 39]] * 2 + [[40, 79]] * 2
    assert "1.56 s" in results["notes"][1]


def test_while_the_microphone_was_away_silence_is_assumed(tmp_path, light_weights):
    given, _ = record(tmp_path, light_weights, played(np.arange(100) / GRID_FPS, heard=range(50)), apart_s=0.5)
    results, rows = written(tmp_path)
    assert given[-1].faces[0].probability is None
    assert rows["score"].notna().all()
    assert "2.0 s" in results["notes"][1]
    assert not video_of(tmp_path)[1][round(2.2 * SAMPLE_RATE) :].any()


@pytest.mark.parametrize("has_audio", [True, False])
def test_without_a_microphone_there_are_no_scores(tmp_path, light_weights, has_audio):
    record(tmp_path, light_weights, played(np.arange(50) / GRID_FPS, heard=range(0)), audio=has_audio)
    results, rows = written(tmp_path)
    assert results["video"]["sound"] is None
    assert rows["score"].isna().all()
    assert len(rows) == 100
    assert (video_of(tmp_path)[1] is not None) == has_audio


def test_frames_of_another_size_are_made_as_large_as_the_first(tmp_path, light_weights):
    items = played(np.arange(80) / GRID_FPS)
    items = [
        Seen(item.time_s, item.image.reformat(128, 96)) if isinstance(item, Seen) and item.time_s >= 1.6 else item
        for item in items
    ]
    record(tmp_path, light_weights, items)
    assert {frame.shape for frame in video_of(tmp_path)[2]} == {(48, 64, 3)}
    rows = written(tmp_path)[1]
    for _, own in rows.groupby("track_id"):
        box = BOXES[(own["track_id"].iloc[0] - 1) % 2]
        assert own[["x1", "y1", "x2", "y2"]].to_numpy() == pytest.approx(np.tile(box, (len(own), 1)), abs=1)


def test_a_face_that_is_missed_for_a_little_is_there_all_the_time(tmp_path, light_weights):
    given, recording = record(tmp_path / "a", light_weights, played(np.arange(60) / GRID_FPS))
    again = Recording(tmp_path / "b", recording.live)
    for number, scored in enumerate(given):
        faces = scored.faces[: 1 if 30 <= number < 35 else 2]
        again.add(scored._replace(faces=faces), Seen(scored.time_s, yuv420_of(frame_of(number))))
    again.finish([], complete=True)
    rows = [written(tmp_path / name)[1] for name in ("a", "b")]
    assert rows[1]["frame"].tolist() == rows[0]["frame"].tolist()
    assert rows[1]["x1"].to_numpy() == pytest.approx(rows[0]["x1"].to_numpy(), abs=0.5)


@pytest.fixture
def film(tmp_path, monkeypatch) -> Path:
    """4 s with two faces, found by a stand-in."""
    monkeypatch.setattr("core.live.detector.find_detector", lambda *arguments: Squares(2))
    path = tmp_path / "film.mkv"
    write_video(path, map(frame_of, range(100)), GRID_FPS, audio=NOISE[: 4 * SAMPLE_RATE])
    return path


def test_ctrl_c_ends_a_recording_that_is_whole(film, tmp_path, light_weights, monkeypatch, capsys):
    add = Recording.add

    def interrupted(recording: Recording, *given) -> None:
        add(recording, *given)
        if len(recording.times_s) == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Recording, "add", interrupted)
    folder = tmp_path / "record"
    options = ["--weights", light_weights, "--context", "none", "--delay", "0.4", "--record", folder]
    assert exit_status(live_script.main, film, *options) == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert all((folder / name).is_file() for name in FILES)
    frames = len(capsys.readouterr().out.splitlines())
    assert 5 < frames < 100
    assert len(video_of(folder)[0]) == frames == written(folder)[0]["video"]["frames"]


@pytest.mark.parametrize("moment", ["add", "finish"])
def test_a_second_ctrl_c_ends_at_once_and_leaves_nothing_half_written(
    film, tmp_path, light_weights, monkeypatch, capsys, moment
):
    given = getattr(Recording, moment)

    def interrupted(recording: Recording, *arguments, **options) -> None:
        if len(recording.times_s) >= 3:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return given(recording, *arguments, **options)

    monkeypatch.setattr(Recording, moment, interrupted)
    folder = tmp_path / "record"
    options = ["--weights", light_weights, "--context", "none", "--delay", "0.4", "--record", folder]
    assert exit_status(live_script.main, film, *options) == 130
    assert list(folder.iterdir()) == []
    assert "run the same command again" not in capsys.readouterr().err


@pytest.mark.parametrize("has_audio", [True, False])
def test_frames_that_are_written_are_not_kept(tmp_path, light_weights, has_audio):
    live = LiveDetector("light_asd", light_weights, context="none", detector=Squares(2), audio=has_audio)
    recording, memory = Recording(tmp_path / "record", live), []
    for number in range(600):
        image = yuv420_of(np.full((360, 640, 3), number % 256, np.uint8))
        recording.add(ScoredFrame(number / 25, (), False), Seen(number / 25, image))
        memory.append(psutil.Process().memory_info().rss)
    recording.finish([], complete=True)
    assert memory[-1] - memory[300] < 50e6  # of 104 MB; what the encoder keeps by then grows no more


def test_a_name_that_is_too_long_is_refused(film, light_weights, capsys):
    said = refusal(capsys, live_script.main, film, "--weights", light_weights, "--record", "x" * 300)
    assert said.startswith("error: --record xxx")


@pytest.mark.parametrize(
    ("options", "voices_by"), [([], "likeness"), (["--no-people"], None), (["--context", "none"], None)]
)
def test_a_recording_tells_what_voices_were_remembered_by(tmp_path, light_weights, monkeypatch, options, voices_by):
    monkeypatch.setattr("core.live.detector.find_detector", lambda *arguments: Squares(2))
    torch.save(ResidualContext().state_dict(), tmp_path / "residual.pth")
    film, folder = tmp_path / "film.mkv", tmp_path / "record"
    write_video(film, map(frame_of, range(20)), GRID_FPS, audio=NOISE[: 4 * SAMPLE_RATE // 5])
    given = ["--weights", light_weights, "--context", tmp_path / "residual.pth", "--record", folder, *options]
    assert exit_status(live_script.main, film, *given) == 0
    assert json.loads((folder / "speakers.json").read_text())["settings"]["voices_by"] == voices_by


def test_a_folder_with_something_in_it_is_refused(film, light_weights, capsys):
    said = refusal(capsys, live_script.main, film, "--weights", light_weights, "--record", film.parent)
    assert f"--record {film.parent}" in said
    assert sorted(path.name for path in film.parent.iterdir()) == ["film.mkv"]
