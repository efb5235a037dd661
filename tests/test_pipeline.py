"""scripts/run_pipeline.py, end to end on the built-in synthetic set."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.evaluation.metrics import average_precision
from core.formats import ava
from scripts import make_synthetic_ava

ROOT = Path(__file__).resolve().parents[1]


def run(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "scripts/run_pipeline.py", "--videos", folder / "videos", "--annotations"]
    command += [folder / "annotations", "--out", folder / "run", "--clip-length", "3", "--crop-size", "32"]
    command += ["--ste-clips", "30", "--asc-contexts", "200", "--jobs", "1"]
    changes = ("epochs=2", "step_size=1", "clips_per_entity=2", "threads=0", "mismatched_sounds=1")
    command += [word for change in changes for word in ("--set", f"STE_optimization_params.{change}")]
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """A run on a synthetic set with one video spoilt."""
    folder = tmp_path_factory.mktemp("pipeline")
    words = [folder, "--videos", 3, "--val-videos", 1, "--seconds", 2, "--seed", 5, "--size", "320x180"]
    with pytest.raises(SystemExit) as end:
        make_synthetic_ava.main([str(word) for word in words])
    assert end.value.code == 0
    spoilt = sorted((folder / "videos" / "train").iterdir())[0]
    spoilt.write_bytes(spoilt.read_bytes()[:200])
    return folder, run(folder)


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
        assert f"| {entry['average_precision']:.4f} |" in result.stdout
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


def test_runs_again_without_doing_anything_twice(finished: tuple[Path, subprocess.CompletedProcess]) -> None:
    folder, _ = finished
    weights = folder / "run" / "models" / "STE" / "2.pth"
    before = weights.stat().st_mtime_ns
    again = run(folder)
    assert again.returncode == 1
    stages = json.loads((folder / "run" / "stages.json").read_text())
    skipped = {name for name in stages if f"[{name}] finished before" in again.stdout}
    # Only the steps that met the broken video are tried again: it may have been mended.
    assert stages.keys() - skipped == {"audio of videos, train", "audio of faces, train", "face crops, train"}
    assert weights.stat().st_mtime_ns == before


def test_says_what_is_missing(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "videos", ignore_errors=True)
    result = run(tmp_path)
    assert result.returncode == 2
    assert "--videos needs {train,val}" in result.stderr
    assert "Traceback" not in result.stderr
