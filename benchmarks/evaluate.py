"""Seconds and memory of evaluate.py on as many rows as AVA-ActiveSpeaker's validation split has.

Writes a ground truth with predictions in its order and in random order to a temporary folder, runs evaluate.py on
each as its own process, start-up included, and prints the runs beside what is stated of the official tool.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks import measure
from benchmarks.measure import Result
from core.formats.ava import LABEL_IDS, SPEAKING

ROOT = Path(__file__).resolve().parents[1]

VAL_ROWS = 768_000  # face crops of AVA-ActiveSpeaker v1.0's validation split, rounded
VAL_VIDEOS = 33
BASELINE_SECONDS = 7.3  # ActivityNet's tool, repaired for NumPy >= 1.24, on 768,000 rows
BASELINE_MB = 490
TARGET_SECONDS = 2.0
TARGET_MB = 500


def results(folder: Path, repeats: int = 5, rows: int = VAL_ROWS) -> list[Result]:
    """The benchmark's lines; the files to evaluate are made in `folder`."""
    # In a process of its own: Linux counts the memory of this one, at the start of a child, as the child's peak.
    groundtruth, predictions = measure.in_child(write_files, folder, rows)
    full = rows == VAL_ROWS  # what is stated of the official tool, and the targets, are for this many
    lines = []
    for name, path in predictions.items():
        elapsed, peak = zip(*(evaluated(groundtruth, path) for _ in range(repeats)), strict=True)
        name = f"evaluate.py, {rows:,} rows, {name}"
        for what, runs, baseline, target in (
            ("s", elapsed, BASELINE_SECONDS, TARGET_SECONDS),
            ("peak memory, MB", peak, BASELINE_MB, TARGET_MB),
        ):
            stated = (baseline, target) if full else (None, None)
            lines.append(Result(f"{name}, {what}", runs, *stated, at_most=True))
    return lines


def write_files(folder: Path, rows: int) -> tuple[Path, dict[str, Path]]:
    """A ground truth of entities of 1 to 190 rows at 25 frames per second, and two orders of its predictions."""
    generator = np.random.default_rng(0)
    labels = list(LABEL_IDS)
    truth, predicted = [], []
    entity = 0
    while len(truth) < rows:
        video_id = f"bench{entity % VAL_VIDEOS:06d}"
        start = int(generator.integers(900 * 25, 1800 * 25))  # AVA annotates minutes 15 to 30
        length = min(int(generator.integers(1, 191)), rows - len(truth))
        label = labels[generator.integers(len(labels))]
        scores = generator.beta(4, 2, length) if label == SPEAKING else generator.beta(2, 4, length)
        corners = np.sort(generator.random((length, 2, 2)), axis=1).reshape(length, 4)
        for index in range(length):
            box = ",".join(f"{value:.6f}" for value in corners[index])
            position = f"{video_id},{(start + index) / 25:.2f},{box}"
            entity_id = f"{video_id}_{start // 25:04d}_{start // 25 + 60:04d}:{entity}"
            truth.append(f"{position},{label},{entity_id}\n")
            predicted.append(f"{position},{SPEAKING},{entity_id},{float(scores[index])!r}\n")
        entity += 1
    groundtruth = folder / "gt.csv"
    groundtruth.write_text("".join(truth))
    paths = {"same order": folder / "same.csv", "random order": folder / "random.csv"}
    for path, order in zip(paths.values(), (range(rows), generator.permutation(rows)), strict=True):
        path.write_text("".join(predicted[index] for index in order))
    return groundtruth, paths


def evaluated(groundtruth: Path, predictions: Path) -> tuple[float, float]:
    """Wall-clock seconds and peak resident megabytes of one run of evaluate.py."""
    command = [sys.executable, str(ROOT / "evaluate.py"), "--groundtruth", str(groundtruth)]
    command += ["--predictions", str(predictions), "--frame-size", "1280x720"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    # Linux counts in kilobytes, macOS in bytes.
    return seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / measure.MB
