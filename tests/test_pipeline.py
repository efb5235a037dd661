"""scripts/run_pipeline.py: end to end on the built-in synthetic set, and the recipes that it makes."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from tiny import exit_status, refusal

from core.evaluation.metrics import average_precision
from core.formats import ava
from core.runtime.errors import UserError
from scripts import make_synthetic_ava, run_pipeline
from scripts.run_pipeline import Stage, Stages, clip_recipe, cut_every, track_recipe

ROOT = Path(__file__).resolve().parents[1]


def arguments(folder: Path) -> list[str]:
    words = ["--videos", folder / "videos", "--annotations", folder / "annotations", "--out", folder / "run"]
    words += ["--clip-length", 3, "--crop-size", 32, "--ste-clips", 30, "--asc-contexts", 200, "--jobs", 1]
    changes = ("epochs=2", "step_size=1", "clips_per_entity=2", "threads=0", "mismatched_sounds=1")
    return list(map(str, [*words, *(word for one in changes for word in ("--set", f"STE_optimization_params.{one}"))]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """A run on a synthetic set with one video spoilt."""
    folder = tmp_path_factory.mktemp("pipeline")
    words = [folder, "--videos", 3, "--val-videos", 1, "--seconds", 2, "--seed", 5, "--size", "320x180"]
    assert exit_status(make_synthetic_ava.main, *words) == 0
    spoilt = sorted((folder / "videos" / "train").iterdir())[0]
    spoilt.write_bytes(spoilt.read_bytes()[:200])
    command = [sys.executable, "scripts/run_pipeline.py", *arguments(folder)]
    return folder, subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_goes_from_videos_to_the_official_number(finished: tuple[Path, subprocess.CompletedProcess]) -> None:
    folder, result = finished
    assert result.returncode == 1, result.stderr  # one video could not be used
    out = folder / "run"
    evaluation = json.loads((out / "evaluation.json").read_text())
    for name, entry in zip(("STE_audio", "STE_video", "STE", "ASC"), evaluation["files"], strict=True):
        lines = (out / "predictions" / "val" / f"{name}.csv").read_text().splitlines()
        labels = [line.split(",")[6] for line in (out / "predictions" / "val" / "gt.csv").read_text().splitlines()]
        scores = np.array([float(line.split(",")[-1]) for line in lines])
        expected = average_precision(np.array(labels) == ava.SPEAKING, scores)
        assert entry["average_precision"] == pytest.approx(expected, abs=1e-9)
        by_faces = [entry["by_faces"][group]["average_precision"] for group in ("1", "2", "3+")]
        cells = ["–" if value is None else f"{value:.4f}" for value in (entry["average_precision"], *by_faces)]
        assert f"| {' | '.join(cells)} |" in result.stdout
    for name in ("learning_curves.png", "precision_recall.png", "config.py", "summary.md", "models/STE/best.pth"):
        assert (out / name).stat().st_size > 0


def test_leaves_out_a_broken_video_and_names_it(finished: tuple[Path, subprocess.CompletedProcess]) -> None:
    folder, result = finished
    spoilt = sorted(path.stem for path in (folder / "videos" / "train").iterdir())[0]
    assert f"train/{spoilt}" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    rows = ava.read_augmented(folder / "run" / "csv" / "train.csv")
    assert rows["video_id"].nunique() == 2
    assert spoilt not in set(rows["video_id"])


def in_this_process(command: list[str], **options: object) -> subprocess.CompletedProcess:
    """In place of `subprocess.run` of a stage, without the seconds in which PyTorch is imported."""
    script = importlib.import_module(command[1].removesuffix(".py").replace("/", "."))
    return subprocess.CompletedProcess(command, exit_status(script.main, *command[2:]))


def test_runs_again_without_doing_anything_twice(
    finished: tuple[Path, subprocess.CompletedProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = finished
    made = [path for path in (folder / "run").rglob("*.*") if path.suffix in (".wav", ".arrow", ".pth", ".csv")]
    made = {path for path in made if not {"csv", "predictions"} & set(path.parts)}
    before = {path: path.stat().st_mtime_ns for path in made}
    seconds = json.loads((folder / "run" / "stages.json").read_text())
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(run_pipeline.subprocess, "run", in_this_process)
    assert exit_status(run_pipeline.main, *arguments(folder)) == 1
    assert {path: path.stat().st_mtime_ns for path in made} == before
    now = json.loads((folder / "run" / "stages.json").read_text())
    assert {"audio of videos, val", "face crops, train", "STE_train", "ASC_forward"} <= {
        name for name in now if now[name] == seconds[name]
    }


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_stage_ends_with_the_pipeline(tmp_path: Path, sent: signal.Signals) -> None:
    stage = tmp_path / "stage.py"
    stage.write_text(
        "import pathlib, time; from core.runtime.errors import exits_cleanly\n"
        f"@exits_cleanly\ndef main():\n    pathlib.Path({str(tmp_path / 'begun')!r}).touch(); time.sleep(60)\nmain()\n"
    )
    code = (
        "import pathlib, sys; from scripts.run_pipeline import Stage, Stages; none = pathlib.Path('none')\n"
        "Stages(none).run(Stage('wait', sys.argv[1:], 1, 'face', none))\n"
    )
    command, environment = [sys.executable, "-c", code, str(stage)], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment) as pipeline:
        while not (tmp_path / "begun").exists():
            assert pipeline.poll() is None
            time.sleep(0.01)
        stages = psutil.Process(pipeline.pid).children()
        pipeline.send_signal(sent)  # to it alone
        _, alive = psutil.wait_procs(stages, timeout=20)
    for process in alive:
        process.kill()
    assert (len(stages), alive) == (1, [])


def test_every_stage_is_run_again_and_keeps_its_time_if_it_wrote_nothing(tmp_path: Path) -> None:
    """A stage knows itself what is to be done: a command that is the same says nothing of the data."""
    script, written = tmp_path / "stage.py", tmp_path / "out" / "written"
    script.write_text(
        "import pathlib, sys\n"
        "with open(sys.argv[1], 'a') as runs: runs.write('x')\n"
        "if sys.argv[2] == '1': pathlib.Path(sys.argv[3]).write_text(open(sys.argv[1]).read())\n"
        "sys.exit(int(sys.argv[4]))\n"
    )
    written.parent.mkdir()
    (tmp_path / "data").write_text("")

    def seconds(writes: int, status: int = 0, **options: bool) -> float:
        command = [script, tmp_path / "data", writes, written, status]
        stages = Stages(tmp_path / "stages.json")
        stages.run(Stage("stage", command, 1, "face", written.parent), **options)
        return stages.table["stage"]["seconds"]

    first = seconds(1)
    assert seconds(0) == first
    assert seconds(1) != first
    assert written.read_text() == "xxx"
    seconds(0, status=1, may_break=True)
    for status, options in ((1, {}), (2, {"may_break": True})):
        with pytest.raises(UserError, match=f"stage .* status {status}"):
            seconds(0, status=status, **options)


def test_a_damaged_list_of_stages_is_named(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stages.json").write_text('{"STE_train"')
    assert str(tmp_path / "run" / "stages.json") in refusal(capsys, run_pipeline.main, *arguments(tmp_path))


def test_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "--videos needs {train,val}" in refusal(capsys, run_pipeline.main, *arguments(tmp_path))


# ---------------------------------------------------------------- recipes


def test_whole_tracks_are_trained_for_fewer_epochs_over_which_the_rate_falls_as_far():
    recipe = track_recipe("light_asd", frames=100_000, faces=10_000)
    assert (recipe["epochs"], recipe["frames_per_batch"], recipe["optimizer"]) == (10, 500, "Adam")
    assert recipe["gamma"] ** 10 == pytest.approx(0.95**30, rel=1e-4)
    assert (recipe["temperature"], recipe["temperature_drop"]) == (1.3, 0.06)
    published = track_recipe("lr_asd", frames=10**9, faces=1000)
    assert (published["epochs"], published["gamma"], published["weight_decay"]) == (40, 0.95, 0.01)
    assert track_recipe("lr_asd", frames=1, faces=1000)["epochs"] == 1


def test_clips_fill_their_budget():
    recipe = clip_recipe(clips=16_000, tracks=100, crop_size=144)
    assert recipe["epochs"] * recipe["clips_per_entity"] * 100 == 16_000
    assert (recipe["step_size"], cut_every(1)) == (4, 1)


@pytest.mark.parametrize(
    ("backbone", "heads", "unit"),
    [("lr_asd", ["av", "video"], "frames"), ("resnet18_two_streams", ["av", "audio", "video"], "clips")],
)
def test_only_heads_that_the_encoder_has_are_evaluated(tmp_path, backbone, heads, unit):
    words = ["--videos", "videos", "--annotations", "annotations", "--out", str(tmp_path), "--backbone", backbone]
    arguments = run_pipeline.parse(words)
    rows = dict.fromkeys(("train", "val"), pd.DataFrame({"entity_id": ["a"] * 50 + ["b"] * 30}))
    config = run_pipeline.write_config(arguments, tmp_path, rows)
    stages = {stage.name: stage for stage in run_pipeline.learning(arguments, tmp_path, rows, config)}
    assert [name.split(", ")[1] for name in stages if name.startswith("STE_postprocessing")] == heads
    names = [word.name for word in stages["evaluate"].command if str(word).endswith(".csv")]
    assert ("STE_audio.csv" in names) == ("audio" in heads)
    assert names[-1] == "ASC.csv"
    assert stages["STE_train"].unit == unit


def test_another_encoder_is_refused(capsys):
    words = ["--videos", "v", "--annotations", "a", "--out", "o", "--backbone", "asd"]
    assert "'asd'" in refusal(capsys, run_pipeline.main, *words)
