"""The command: outputs, many videos, resuming, and what it refuses. Weights are random, detectors local."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detections import Squares
from tiny import CLIPS, exit_status, picture, sound
from videos import encode

import detect
import evaluate
from core.models import light_asd
from core.outputs.files import write_outputs
from core.runtime.provenance import Finished

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "light.pth"
    torch.save(light_asd().state_dict(), path)
    return path


@pytest.fixture(autouse=True)
def no_detector_from_before() -> None:
    detect.detector_of.cache_clear()


@pytest.fixture
def run(weights, monkeypatch):
    """Run the command with the tiny set's own face detector; its exit status."""
    monkeypatch.setattr("core.detection.detector.find_detector", lambda *_: (Squares(), None))
    return lambda *arguments: exit_status(detect.main, *arguments, "--weights", weights, "--min-face", 10)


def tiny_video(path: Path, audio: np.ndarray | None = None) -> Path:
    return encode(path, [picture(n, 2) for n in range(40)], audio=audio, crf="8")


@pytest.fixture
def video(tmp_path) -> Path:
    return tiny_video(tmp_path / "two faces.mp4", sound(CLIPS[0])[: 40 * 640])


def test_all_outputs_lie_beside_the_video(run, video, capsys):
    assert run(video) == 0
    folder = video.parent / "two faces.asd"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert {"tracks.csv", "speakers.json", "report.html", "overlay.mp4"} <= names
    assert {path.suffix for path in folder.iterdir()} >= {".rttm", ".vtt"}
    with (folder / "tracks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 40
    assert {row["track_id"] for row in rows} == {"1", "2"}
    speakers = json.loads((folder / "speakers.json").read_text())
    assert len(speakers["tracks"]) == 2
    printed = capsys.readouterr()
    assert "2 face track(s) in 1 shot(s)" in printed.out + printed.err
    assert "1 of 1 videos done" in printed.out


def test_done_videos_are_skipped_and_changed_settings_are_not(run, video, capsys):
    assert run(video, "--format", "csv") == 0
    table = video.parent / "two faces.asd" / "tracks.csv"
    before = table.stat().st_mtime_ns
    assert run(video, "--format", "csv") == 0
    assert "done before" in "".join(capsys.readouterr())
    assert table.stat().st_mtime_ns == before
    assert run(video, "--format", "csv", "--detect-every", 5) == 0
    assert table.stat().st_mtime_ns > before


def test_done_means_that_all_files_are_there(run, video, capsys):
    folder = video.parent / "two faces.asd"
    assert run(video, "--format", "csv,json,rttm") == 0
    capsys.readouterr()
    assert run(video, "--format", "json,csv") == 0  # fewer, in another order
    assert "done before" in "".join(capsys.readouterr())
    (folder / "speakers.json").unlink()
    assert run(video, "--format", "json,csv") == 0
    assert (folder / "speakers.json").is_file()
    assert run(video, "--format", "vtt") == 0  # more
    assert {path.suffix for path in folder.iterdir()} == {".csv", ".json", ".rttm", ".vtt"}


def test_outputs_of_other_settings_are_removed(run, video):
    folder = video.parent / "two faces.asd"
    assert run(video, "--format", "csv,rttm") == 0
    (folder / "notes.txt").write_text("the user's own")
    assert run(video, "--format", "csv", "--min-track", 0.2) == 0
    assert {path.name for path in folder.iterdir()} == {".finished.json", "notes.txt", "tracks.csv"}


def test_what_cannot_be_done_is_not_tried_again(run, tmp_path, capsys):
    tiny_video(tmp_path / "mute.mp4")
    for _ in range(2):
        assert run(tmp_path / "mute.mp4", "--format", "csv,ava") == 1
        printed = "".join(capsys.readouterr())
        assert "omit the format ava. All other outputs are in" in printed
        assert (tmp_path / "mute.asd" / "tracks.csv").is_file()
    assert "x real time" not in printed


def test_what_cannot_be_done_is_no_fault_where_it_is_not_asked_for(run, tmp_path, capsys):
    tiny_video(tmp_path / "mute.mp4")
    assert run(tmp_path / "mute.mp4", "--format", "csv,ava") == 1
    capsys.readouterr()
    assert run(tmp_path / "mute.mp4", "--format", "csv") == 0  # as the message advises
    assert "done before" in "".join(capsys.readouterr())
    (tmp_path / "mute.asd" / "tracks.csv").unlink()
    assert run(tmp_path / "mute.mp4", "--format", "csv,ava") == 1
    assert (tmp_path / "mute.asd" / "tracks.csv").is_file()


def test_interrupted_outputs_are_not_taken_for_those_of_other_settings(run, video, capsys, monkeypatch):
    folder = video.parent / "two faces.asd"
    assert run(video, "--format", "csv,json") == 0
    before = (folder / "tracks.csv").read_text()

    def interrupted(folder, found, formats):
        write_outputs(folder, found, ("csv", "rttm"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(detect, "write_outputs", interrupted)
        assert run(video, "--format", "csv,json,rttm", "--min-track", 2) == 130
    assert (folder / "tracks.csv").read_text() != before
    capsys.readouterr()
    assert run(video, "--format", "csv,json") == 0
    assert "done before" not in "".join(capsys.readouterr())
    assert (folder / "tracks.csv").read_text() == before
    assert not list(folder.glob("*.rttm"))  # of the interrupted run


def test_outputs_of_interrupted_runs_are_known(tmp_path):
    """Begun with settings b and left, gone on with b and another format, then a: of b nothing stays."""
    csv, rttm, speakers = (tmp_path / name for name in ("tracks.csv", "talk.rttm", "speakers.json"))
    first = Finished(tmp_path, {"settings": "b"})
    first.begin([csv, rttm])
    csv.touch()
    rttm.touch()
    second = Finished(tmp_path, {"settings": "b"})
    second.begin([speakers])
    speakers.touch()
    second.end([speakers], None, {})
    assert not Finished(tmp_path, {"settings": "b"}).has([csv])
    third = Finished(tmp_path, {"settings": "a"})
    assert not third.has([speakers])
    third.begin([csv])
    assert {path.name for path in tmp_path.iterdir()} == {".finished.json"}


def test_what_was_impossible_once_is_done_when_it_is_done(tmp_path):
    overlay, csv = tmp_path / "overlay.mp4", tmp_path / "tracks.csv"
    first = Finished(tmp_path, {})
    csv.touch()
    first.end([csv, overlay], "only in part", {"overlay.mp4": "the disk is away"})
    again = Finished(tmp_path, {})
    assert again.has([csv, overlay])
    assert again.faults([csv, overlay]) == ["only in part", "the disk is away"]
    assert again.faults([csv]) == ["only in part"]
    overlay.touch()
    again.end([csv, overlay], None, {})
    assert Finished(tmp_path, {}).faults([csv, overlay]) == []
    overlay.unlink()
    assert not Finished(tmp_path, {}).has([csv, overlay])


def test_folders_that_cannot_be_written_to_are_reported_before_any_work(run, video, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(detect, "work_through", lambda task: pytest.fail("work began"))
    (tmp_path / "file").write_text("")
    assert run(video, "--out", tmp_path / "file") == 2
    assert "cannot create the folder" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "two faces.asd").write_text("")
    assert run(video, "--out", tmp_path / "out") == 2
    assert "cannot write into" in capsys.readouterr().err


def test_a_detector_of_last_resort_is_reported_before_any_work(run, video, monkeypatch, capsys):
    monkeypatch.setattr("core.detection.detector.find_detector", lambda *_: (Squares(), "the cascade looks for faces"))
    monkeypatch.setattr(detect, "work_through", lambda task: pytest.fail("work began"))
    with pytest.raises(pytest.fail.Exception):
        run(video)
    assert "note: the cascade looks for faces" in capsys.readouterr().err


def test_a_broken_video_does_not_stop_the_others(run, video, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"")
    assert run(tmp_path / "broken.mp4", video, "--out", tmp_path / "out", "--format", "csv,rttm") == 1
    assert (tmp_path / "out" / "two faces.asd" / "tracks.csv").is_file()
    assert not (tmp_path / "out" / "broken.asd").exists()
    printed = capsys.readouterr()
    assert "broken.mp4" in printed.err
    assert "empty (0 bytes)" in printed.err


def test_ava_predictions_are_fit_for_the_evaluation(run, video, tmp_path):
    assert run(video, "--format", "ava", "--out", tmp_path / "out") == 0
    [predictions] = (tmp_path / "out" / "two faces.asd").glob("*.csv")
    truth = tmp_path / "two faces-activespeaker.csv"
    rows = predictions.read_text().splitlines()
    video_id = rows[0].split(",")[0]
    labels = ["SPEAKING_AUDIBLE", "NOT_SPEAKING"]
    rows = sorted((row.split(",") for row in rows), key=lambda row: (row[1], row))
    annotated = [[*row[:6], labels[n % 2], f"{video_id}:{n % 2}"] for n, row in enumerate(rows)]
    truth.write_text("".join(",".join(row) + "\n" for row in annotated))
    out = tmp_path / "result.json"
    assert (
        exit_status(evaluate.main, "--groundtruth", truth, "--predictions", predictions, "--detected", "--json", out)
        == 0
    )
    result = json.loads(out.read_text())
    assert result["faces"]["recall"] == result["faces"]["precision"] == 1


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["absent.mp4"], "absent.mp4"),
        (["VIDEO", "--format", "srt"], "srt.*csv"),
        (["VIDEO", "--encoder", "talknet"], "talknet.*light_asd"),
        (["VIDEO", "--context-shape", "10,4,3"], "10,4,3.*odd"),
        (["VIDEO", "--detect-every", "0"], "detect_every 0"),
        (["VIDEO", "--jobs", "0"], "--jobs 0"),
        (["VIDEO", "--device", "gpu"], "gpu"),
        (["VIDEO", "--min-track", "nan"], "min_track_s nan"),
    ],
)
def test_mistakes_are_reported_before_any_work(run, video, capsys, arguments, facts):
    assert run(*(video if argument == "VIDEO" else argument for argument in arguments)) == 2
    assert re.search(facts, capsys.readouterr().err)
    assert not (video.parent / "two faces.asd").exists()


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["absent.mp4"], 2)])
def test_nothing_heavy_is_loaded_before_the_command_line_is_known_to_be_right(arguments, status):
    """The user's mistakes are answered in a fraction of a second, not in the seconds that PyTorch takes to load."""
    code = (
        "import sys, detect\n"
        "try: detect.main(sys.argv[1:])\n"
        "finally: print({'torch', 'cv2', 'scenedetect', 'pandas', 'scipy'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == status
    assert ended.stdout.endswith("set()\n")


def test_two_videos_of_one_name_are_refused(run, video, tmp_path, capsys):
    other = tmp_path / "elsewhere" / video.name
    other.parent.mkdir()
    other.write_bytes(video.read_bytes())
    assert run(video, other, "--out", tmp_path / "out") == 2
    assert "would both write into" in capsys.readouterr().err


def test_several_processes(weights, video, tmp_path, shared):
    """In processes of their own, with the real detector: it finds nobody in squares."""
    copies = [tmp_path / f"{n}.mp4" for n in range(2)]
    for copy in copies:
        copy.write_bytes(video.read_bytes())
    options = ["--jobs", 2, "--format", "json", "--out", tmp_path / "out", "--weights", weights]
    options += ["--detector-weights", shared / "models" / "yunet_n_640_640.onnx"]
    assert exit_status(detect.main, *copies, *options) == 0
    for copy in copies:
        speakers = json.loads((tmp_path / "out" / f"{copy.stem}.asd" / "speakers.json").read_text())
        assert speakers["tracks"] == []
        assert speakers["notes"] == ["No face was found."]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("audio-44.1k-stereo.mp4", 0),
        ("container.mkv", 0),
        ("fps-29.97.mp4", 0),
        ("no-audio-track.mp4", 0),
        ("rotation-90-metadata.mp4", 0),
        ("variable-frame-rate.mp4", 0),
        ("truncated-middle.mp4", 1),
        ("truncated-index-lost.mp4", 1),
        ("zero-bytes.mp4", 1),
    ],
)
def test_unusual_videos(shared, unusual, tmp_path, name, status):
    video = unusual / name
    options = ["--out", tmp_path, "--cache", shared / "models", "--format", "csv,json,rttm,vtt"]
    assert exit_status(detect.main, video, *options) == status
    folder = tmp_path / f"{video.stem}.asd"
    opens = name not in ("truncated-index-lost.mp4", "zero-bytes.mp4")
    assert folder.exists() == opens
    if opens:
        speakers = json.loads((folder / "speakers.json").read_text())
        assert bool(speakers["notes"]) == (name in ("no-audio-track.mp4", "truncated-middle.mp4"))
