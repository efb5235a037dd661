"""The command: outputs, many videos, resuming, and what it refuses. Weights are random, detectors local."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from detections import Brightness, Squares, SquaresWithLandmarks
from tiny import CLIPS, audio_of, exit_status, tiny_frame, write_annotations
from videos import encode, of_streams, tone

import detect
import evaluate
from core.cutting.results import read_results
from core.download.cache import NotDownloadedError
from core.download.fetch import DownloadError
from core.download.weights_catalogue import SFACE, WEIGHTS, YUNET
from core.outputs.files import write_outputs

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"csv": "tracks.csv", "json": "speakers.json", "rttm": "two faces.rttm", "vtt": "two faces.vtt"}


@pytest.fixture
def run(light_weights, monkeypatch):
    """Run the command with the tiny set's own face detector; its exit status."""
    monkeypatch.setattr("core.detection.detector.find_detector", lambda *_: Squares())
    return lambda *arguments: exit_status(detect.main, *arguments, "--weights", light_weights, "--min-face", 10)


def tiny_video(path: Path, audio: np.ndarray | None = None) -> Path:
    return encode(path, [tiny_frame(n, 2) for n in range(40)], audio=audio, crf="8")


@pytest.fixture
def video(tmp_path) -> Path:
    return tiny_video(tmp_path / "two faces.mp4", audio_of(CLIPS[0])[: 40 * 640])


def test_all_outputs_lie_beside_the_video(run, video, capsys):
    assert run(video) == 0
    folder = video.parent / "two faces.asd"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"tracks.csv", "speakers.json", "report.html", "overlay.mp4", "two faces.rttm", "two faces.vtt"}
    assert pd.read_csv(folder / "tracks.csv")["track_id"].value_counts().to_dict() == {1: 40, 2: 40}
    assert len(json.loads((folder / "speakers.json").read_text())["tracks"]) == 2
    printed = "".join(capsys.readouterr())
    assert "2 face track(s) in 1 shot(s)" in printed
    assert "1 of 1 videos done" in printed


@pytest.mark.parametrize(
    ("lost", "arguments", "written", "left"),
    [
        (None, ["json,csv"], [], ["csv", "json", "rttm"]),  # fewer, in another order: done before
        ("speakers.json", ["json,csv"], ["csv", "json"], ["csv", "json", "rttm"]),
        (None, ["vtt"], ["vtt"], ["csv", "json", "rttm", "vtt"]),
        (None, ["csv", "--detect-every", 5], ["csv"], ["csv"]),  # those of other settings go
    ],
)
def test_what_is_done_is_not_done_again(run, video, lost, arguments, written, left):
    folder = video.parent / "two faces.asd"
    assert run(video, "--format", "csv,json,rttm") == 0
    (folder / "notes.txt").write_text("the user's own")
    if lost:
        (folder / lost).unlink()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert run(video, "--format", *arguments) == 0
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sorted(after) == sorted([".made", "notes.txt", *map(NAMES.get, left)])
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed - {".made"} == set(map(NAMES.get, written))


def test_what_cannot_be_made_is_tried_once_and_no_fault_where_it_is_not_asked_for(run, tmp_path, capsys):
    mute, table = tiny_video(tmp_path / "mute.mp4"), tmp_path / "mute.asd" / "tracks.csv"
    for works in (True, False):
        assert run(mute, "--format", "csv,ava") == 1
        printed = "".join(capsys.readouterr())
        assert "omit the format ava" in printed
        assert str(table.parent) in printed
        assert ("x real time" in printed) == works
        assert table.is_file()
    assert run(mute, "--format", "csv") == 0  # as the message advises
    assert "x real time" not in "".join(capsys.readouterr())
    table.unlink()
    assert run(mute, "--format", "csv,ava") == 1
    assert table.is_file()
    assert run(mute, "--format", "all") == 0  # all that can be made


def test_the_video_is_found_from_outputs_that_lie_elsewhere(run, video, tmp_path):
    assert run(video, "--out", tmp_path / "out", "--format", "json") == 0
    results = read_results(tmp_path / "out" / "two faces.asd")
    assert (results.video, [face.id for face in results.faces]) == (video, [1, 2])
    moved = video.rename(tmp_path / "out" / video.name)
    assert read_results(tmp_path / "out" / "two faces.asd").video == moved


def test_interrupted_outputs_are_not_taken_for_those_of_other_settings(run, video, monkeypatch):
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
    assert run(video, "--format", "csv,json") == 0
    assert (folder / "tracks.csv").read_text() == before
    assert not list(folder.glob("*.rttm"))  # of the interrupted run


def test_folders_that_cannot_be_written_to_are_reported_before_any_work(run, video, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(detect, "work_through", lambda *_: pytest.fail("work began"))
    (tmp_path / "out").mkdir()
    for file in (tmp_path / "file", tmp_path / "out" / "two faces.asd"):
        file.touch()
    for out in ("file", "out"):
        assert run(video, "--out", tmp_path / out) == 2
        assert str(tmp_path / out) in capsys.readouterr().err


def test_without_network_one_message_names_all_files_that_are_missing(tmp_path, video, capsys, monkeypatch):
    def unreachable(*_, **__):
        raise DownloadError("a file", "no network")

    monkeypatch.setattr("core.download.cache.fetch", unreachable)
    assert exit_status(detect.main, video, "--cache", tmp_path / "cache") == 2
    said = capsys.readouterr().err
    assert [said.count(str(tmp_path / "cache" / file.name)) for file in (YUNET, WEIGHTS["light_asd"]["ava"].file)] == [
        1,
        1,
    ]


def test_a_folder_means_all_videos_in_it(run, video, tmp_path):
    (tmp_path / "videos").mkdir()
    for name in ("-b.MP4", "a.mts", "c.txt"):
        (tmp_path / "videos" / name).write_bytes(video.read_bytes())
    assert run(tmp_path / "videos", "--out", tmp_path / "out", "--format", "csv") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["-b.asd", "a.asd"]


def test_a_folder_without_videos_is_refused(run, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(tmp_path / "empty") == 2
    assert re.search(r"no video in the folder .*empty.*\.mp4", capsys.readouterr().err)


def test_names_may_begin_with_a_dash(run, video, tmp_path, monkeypatch):
    (tmp_path / "-1-r.mp4").write_bytes(video.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert run("-1-r.mp4", "--format", "csv") == 0
    assert (tmp_path / "-1-r.asd" / "tracks.csv").is_file()


def test_addresses_are_fetched_once(run, server, video, tmp_path, capsys):
    server.files["/talks/one.mp4"] = video.read_bytes()
    for _ in range(2):
        assert run(f"{server.url}/talks/one.mp4", "--out", tmp_path / "out", "--format", "csv") == 0
        asked = len(server.asked)
        assert pd.read_csv(tmp_path / "out" / "one.asd" / "tracks.csv")["track_id"].value_counts().to_dict() == {
            1: 40,
            2: 40,
        }
    assert len(server.asked) == asked
    assert run(f"{server.url}/talks/absent.mp4", "--out", tmp_path / "out", "--format", "csv") == 1
    assert "absent.mp4 cannot be fetched" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".made", "one.asd", "one.mkv"]


def test_no_other_file_is_taken_for_what_is_at_an_address(run, server, video, tmp_path, capsys):
    """Neither a file that was there before, nor what another address gave."""
    out, options = tmp_path / "out", ("--out", tmp_path / "out", "--format", "csv")
    for folder in ("a", "b"):
        server.files[f"/{folder}/one.mp4"] = video.read_bytes()
    first, second = (f"{server.url}/{folder}/one.mp4" for folder in ("a", "b"))
    assert run(first, second, *options) == 2
    assert re.search(f"{first} and {second}.*one.mkv", capsys.readouterr().err)
    assert not out.exists()
    out.mkdir()
    (out / "one.mkv").write_bytes(b"mine")
    for both in ((first, out / "one.mkv"), (out / "one.mkv", first)):
        assert run(*both, *options) == 2
        assert first in capsys.readouterr().err
    assert run(first, *options) != 0
    assert "one.mkv" in capsys.readouterr().err
    assert (out / "one.mkv").read_bytes() == b"mine"
    (out / "one.mkv").unlink()
    assert run(first, *options) == 0
    asked = len(server.asked)
    assert run(second, *options) == 0
    assert len(server.asked) > asked
    for both in ((second, out), (out, second)):  # the folder holds what was fetched
        assert run(*both, *options) == 0


def test_where_persons_are_not_told_apart_it_is_said_unless_they_are_not_wanted(run, video, tmp_path, capsys):
    options = [video, "--format", "csv", "--cache", tmp_path / "empty"]
    assert run(*options) == 0
    assert SFACE.name in capsys.readouterr().err
    assert run(*options, "--no-people") == 0
    assert SFACE.name not in capsys.readouterr().err
    assert pd.read_csv(video.parent / "two faces.asd" / "tracks.csv")["person"].isna().all()


def test_persons_that_are_asked_for_need_their_weights(run, video, tmp_path, capsys, monkeypatch):
    def unreachable(remote, cache):
        raise NotDownloadedError(f"{remote.name} could not be downloaded")

    monkeypatch.setattr("core.people.embedding.cached", unreachable)
    assert run(video, "--people", "--cache", tmp_path / "empty") == 2
    assert SFACE.name in capsys.readouterr().err


@pytest.fixture
def run_with_persons(run, monkeypatch):
    """As `run`, with an embedder of which both tiny faces are one person, but that they are seen at once."""
    monkeypatch.setattr("core.detection.detector.find_detector", lambda *_: SquaresWithLandmarks())
    monkeypatch.setattr("core.detection.detector.find_embedder", lambda *_: (Brightness(), None))
    return run


def test_an_edited_file_of_names_is_kept_on_the_next_run(run_with_persons, video, tmp_path, capsys):
    path, folder = tmp_path / "names.json", video.parent / "two faces.asd"
    options = [video, "--format", "json,rttm", "--names", path]
    assert run_with_persons(*options) == 0
    written = json.loads(path.read_text())
    assert [(one["person"], one["name"]) for one in written[video.name]] == [(1, None), (2, None)]
    capsys.readouterr()
    assert run_with_persons(*options) == 0
    assert "done before" in capsys.readouterr().out  # nobody has edited it

    written[video.name][1]["name"] = "Zoë"
    written["another.mp4"] = [{"name": "Ann", "seen": [[1, 2, 3]]}]
    path.write_text(json.dumps(written))
    for again in (False, True):
        assert run_with_persons(*options) == 0
        assert ("done before" in capsys.readouterr().out) == again
        persons = json.loads((folder / "speakers.json").read_text())["persons"]
        assert [person["name"] for person in persons] == [None, "Zoë"]
        kept = json.loads(path.read_text())
        assert [one["name"] for one in kept[video.name]] == [None, "Zoë"]
        assert kept["another.mp4"][0]["name"] == "Ann"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_names_and_formats_need_no_new_detection(run_with_persons, video, tmp_path, monkeypatch):
    """What is written of the tracks of an earlier run is what a run from the beginning writes, byte by byte."""
    names, folder = tmp_path / "names.json", video.parent / "two faces.asd"
    assert run_with_persons(video, "--format", "csv,json", "--names", names) == 0
    written = json.loads(names.read_text())
    for person, name in zip(written[video.name], ("Ann", "Zoë"), strict=True):
        person["name"] = name
    names.write_text(json.dumps(written))
    options = ["--format", "all", "--names", names]
    with monkeypatch.context() as patch:
        patch.setattr(detect, "detect", lambda *_: pytest.fail("detected again"))
        assert run_with_persons(video, *options) == 0
    again = contents(folder)
    assert "Zoë" in again["speakers.json"].decode()
    assert run_with_persons(video, *options, "--out", tmp_path / "new") == 0
    assert contents(tmp_path / "new" / folder.name) == again


@pytest.mark.parametrize("change", [["--min-track", 0.3], ["--embeddings"], "damage"])
def test_what_depends_on_more_than_names_is_detected_anew(run_with_persons, video, monkeypatch, change):
    options = [video, "--format", "csv"]
    assert run_with_persons(*options) == 0
    if change == "damage":
        (video.parent / "two faces.asd" / ".made" / "tracks.npz").write_bytes(b"damaged")
        change = ["--format", "vtt"]
    detected_anew, real = [], detect.detect
    monkeypatch.setattr(detect, "detect", lambda *given: detected_anew.append(given) or real(*given))
    assert run_with_persons(*options, *change) == 0
    assert len(detected_anew) == 1


def test_embeddings_are_written_only_where_they_are_asked_for(run_with_persons, video):
    table = video.parent / "two faces.asd" / "embeddings.csv"
    assert run_with_persons(video, "--format", "all") == 0
    assert not table.exists()
    assert "embedding_1" not in np.load(table.parent / ".made" / "tracks.npz")
    assert run_with_persons(video, "--format", "csv", "--embeddings") == 0
    rows = pd.read_csv(table)
    assert rows.columns.tolist() == ["track_id", "person", "e0", "e1"]
    assert rows["track_id"].tolist() == rows["person"].tolist() == [1, 2]
    assert np.hypot(rows["e0"], rows["e1"]).to_numpy() == pytest.approx(1)


@pytest.mark.parametrize("option", [["--names", "names.json"], ["--embeddings"]])
def test_what_is_of_persons_needs_them(run, video, option, capsys):
    assert run(video, "--no-people", *option) == 2
    assert "--no-people" in capsys.readouterr().err


def test_a_broken_video_does_not_stop_the_others(run, video, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"")
    assert run(tmp_path / "broken.mp4", video, "--out", tmp_path / "out", "--format", "csv,rttm") == 1
    assert (tmp_path / "out" / "two faces.asd" / "tracks.csv").is_file()
    assert not (tmp_path / "out" / "broken.asd").exists()
    assert re.search(r"broken\.mp4.*0 bytes", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("option", "asked", "there"),
    [
        ("--video-stream", 1, "one, number 0"),
        ("--video-stream", -1, "one, number 0"),
        ("--audio-stream", 2, "2, numbers 0 to 1"),
    ],
)
def test_a_stream_that_no_video_has_is_a_mistake(run, video, tmp_path, capsys, option, asked, there):
    """One that some of the videos have is used there; the others are reported when their turn comes."""
    two = of_streams(tmp_path / "two.mkv", [(64, 0, "")], [(tone(2000), ""), (tone(4000), "")])
    assert run(two, f"{option}={asked}", "--format", "csv") == 2
    assert re.search(rf"two\.mkv: .* stream {asked}: the file has {there}", capsys.readouterr().err)
    assert not (tmp_path / "two.asd").exists()
    assert run(two, video, "--audio-stream", 1, "--format", "csv") == 1
    assert re.search(r"two faces\.mp4: audio stream 1: the file has one, number 0", capsys.readouterr().err)
    assert (tmp_path / "two.asd" / "tracks.csv").is_file()


def test_ava_predictions_are_fit_for_the_evaluation(run, video, tmp_path):
    assert run(video, "--format", "ava", "--out", tmp_path / "out") == 0
    [predictions] = (tmp_path / "out" / "two faces.asd").glob("*.csv")
    rows = sorted((row.split(",") for row in predictions.read_text().splitlines()), key=lambda row: (row[1], row))
    labels = ("SPEAKING_AUDIBLE", "NOT_SPEAKING")
    annotated = [",".join([*row[:6], labels[n % 2], f"{row[0]}:{n % 2}"]) for n, row in enumerate(rows)]
    truth, out = write_annotations(tmp_path / "two faces-activespeaker.csv", annotated), tmp_path / "result.json"
    options = ["--groundtruth", truth, "--predictions", predictions, "--detected", "--json", out]
    assert exit_status(evaluate.main, *options) == 0
    result = json.loads(out.read_text())
    assert result["faces"]["recall"] == result["faces"]["precision"] == 1


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["absent.mp4"], "absent.mp4"),
        (["VIDEO", "--format", "srt"], "srt.*csv"),
        (["VIDEO", "--encoder", "talknet"], "talknet.*light_asd"),
        (["VIDEO", "--context-shape", "10,4,3"], "10,4,3.*odd"),
        (["VIDEO", "--detect-every", "0"], "--detect-every 0"),
        (["VIDEO", "--detection-size", "8"], "--detection-size 8.*32"),
        (["VIDEO", "--min-track", "-1"], "--min-track -1"),
        (["VIDEO", "--encoder", "resnet18_two_streams", "--crop", "box", "--ensemble"], "--crop and --ensemble"),
        (["VIDEO", "--ensemble", "--context", "a.pth"], "--context or --ensemble"),
        (["-absent.mp4"], "no such video: ./-absent.mp4"),
        (["VIDEO", "--jobs", "0"], "--jobs 0"),
        (["VIDEO", "--device", "gpu"], "gpu"),
        (["VIDEO", "--min-track", "nan"], "--min-track nan"),
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


def test_several_processes(light_weights, video, tmp_path, shared):
    """In processes of their own, with the real detector: it finds nobody in squares."""
    copies = [tmp_path / f"{n}.mp4" for n in range(2)]
    for copy in copies:
        copy.write_bytes(video.read_bytes())
    options = ["--jobs", 2, "--format", "json", "--out", tmp_path / "out", "--weights", light_weights]
    options += ["--detector", shared / "models" / "yunet_n_640_640.onnx"]
    assert exit_status(detect.main, *copies, *options) == 0
    for copy in copies:
        speakers = json.loads((tmp_path / "out" / f"{copy.stem}.asd" / "speakers.json").read_text())
        assert speakers["tracks"] == []
        assert speakers["notes"] == ["No face was found."]


@pytest.mark.parametrize(
    ("name", "opens", "noted"),
    [
        ("audio-44.1k-stereo.mp4", True, False),
        ("container.mkv", True, False),
        ("fps-29.97.mp4", True, False),
        ("no-audio-track.mp4", True, True),
        ("rotation-90-metadata.mp4", True, False),
        ("variable-frame-rate.mp4", True, False),
        ("truncated-middle.mp4", True, True),
        ("truncated-index-lost.mp4", False, False),
        ("zero-bytes.mp4", False, False),
    ],
)
def test_unusual_videos(shared, unusual, tmp_path, capsys, name, opens, noted):
    options = ["--out", tmp_path, "--cache", shared / "models", "--format", "csv,json,rttm,vtt"]
    status = exit_status(detect.main, unusual / name, *options)
    assert status == (not opens or name.startswith("truncated"))
    assert (name in capsys.readouterr().err) or not status
    speakers = tmp_path / f"{Path(name).stem}.asd" / "speakers.json"
    assert speakers.parent.exists() == opens
    assert not opens or bool(json.loads(speakers.read_text())["notes"]) == noted


WITHOUT_YUNET = """
import sys
import numpy as np
import detect
from core.detection import detector
class Still:
    name, least_face_px = "still", 1
    def __call__(self, image):
        return np.float32([[20, 20, 60, 60, 0.9], [80, 20, 120, 60, 0.9]])
detector.find_detector = lambda *_: Still()
try:
    detect.main(sys.argv[1:])
finally:
    print("loaded:", *sorted({"torch", "pandas", "scipy"} & set(sys.modules)))
"""


def test_a_second_run_gives_the_same_bytes_without_pytorch(light_weights, video, tmp_path):
    """Nor pandas and SciPy: all of these take long to load."""
    loaded, files = [], []
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ASC_CACHE": str(tmp_path / "cache")}
    for number in range(2):
        options = [
            video,
            "--out",
            tmp_path / str(number),
            "--weights",
            light_weights,
            "--min-face",
            "10",
            "--no-people",
        ]
        command = [sys.executable, "-c", WITHOUT_YUNET, *map(str, options)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        loaded.append(re.search("loaded:(.*)", ran.stdout)[1].split())
        files.append({path.name: path.read_bytes() for path in (tmp_path / str(number)).glob("*.asd/[!.]*")})
    assert loaded == [["torch"], []]
    assert files[0] == files[1]
    assert len(files[0]) == 6
    assert [path.name.partition("-")[0] for path in (tmp_path / "cache" / "networks").iterdir()] == ["light_asd"]
