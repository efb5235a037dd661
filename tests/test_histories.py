"""Whatever was done to a set of videos before, its numbers are those of a fresh run.

A small pipeline is led through random edits, interrupts among them; after each, every number is compared with that of a
run on the same inputs in an empty folder. HISTORIES=200 in the environment tries as many histories.
"""

import contextlib
import copy
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_optimization import narrow_two_streams
from tiny import (
    AUDIBLE,
    BOXES,
    FPS,
    HEIGHT,
    NOT_SPEAKING,
    WIDTH,
    annotation_row,
    exit_status,
    tiny_frame,
    write_annotations,
)

import ASC_forward
import ASC_prediction_postprocessing
import ASC_train
import STE_forward
import STE_postprocessing
import STE_train
from core import models
from core.clip_utils import SAMPLE_RATE
from core.formats import ava
from core.media.video_writer import write_video
from core.runtime import files
from data import augment_annotations, extract_audio_tracks, extract_face_crops_time, slice_audio_tracks

HISTORIES = int(os.environ.get("HISTORIES", "2"))
FRAMES = 8
INTERRUPTED = 130
START = {
    "videos": {
        name: {"split": split, "look": n, "shift": 0, "speaks": n}
        for n, (name, split) in enumerate({"a": "train", "b": "train", "c": "val"}.items())
    },
    "crop_size": 16,
    "clip": 3,
    "stride": 1,
    "seed": 0,
}


# ---------------------------------------------------------------- edits: of a state, with random numbers


def label(state: dict, rng: random.Random) -> None:
    _any(state, rng)["speaks"] += 1


def box(state: dict, rng: random.Random) -> None:
    _any(state, rng)["shift"] ^= 1


def replace(state: dict, rng: random.Random) -> None:
    _any(state, rng)["look"] += 10


def move(state: dict, rng: random.Random) -> None:
    """A video to the other split, where its own keeps one."""
    video = _any(state, rng)
    if sum(other["split"] == video["split"] for other in state["videos"].values()) > 1:
        video["split"] = "val" if video["split"] == "train" else "train"


def add(state: dict, rng: random.Random) -> None:
    name = next(name for name in "abcdefghijklmnopq" if name not in state["videos"])
    state["videos"][name] = {"split": rng.choice(ava.SPLITS), "look": rng.randrange(9), "shift": 0, "speaks": 1}


def remove(state: dict, rng: random.Random) -> None:
    name = rng.choice(sorted(state["videos"]))
    if sum(other["split"] == state["videos"][name]["split"] for other in state["videos"].values()) > 1:
        del state["videos"][name]


def crop_size(state: dict, rng: random.Random) -> None:
    state["crop_size"] = 40 - state["crop_size"]


def clip_length(state: dict, rng: random.Random) -> None:
    state["clip"] = 8 - state["clip"]


def stride(state: dict, rng: random.Random) -> None:
    state["stride"] = 3 - state["stride"]


def retrain(state: dict, rng: random.Random) -> None:
    state["seed"] += 1


def interrupt(state: dict, rng: random.Random) -> None:
    """Nothing changes; every run after an edit may be interrupted, this one begins as the last one did."""


EDITS = [label, box, replace, move, add, remove, crop_size, clip_length, stride, retrain, interrupt]


def _any(state: dict, rng: random.Random) -> dict:
    return state["videos"][rng.choice(sorted(state["videos"]))]


# ---------------------------------------------------------------- inputs and the pipeline


def write_inputs(folder: Path, state: dict, before: dict | None) -> None:
    """The videos and annotations of a state; only what changed is written."""
    for name in set(before["videos"] if before else ()) - set(state["videos"]):
        for path in (*folder.glob(f"videos/*/{name}.mp4"), *folder.glob(f"annotations/*/{name}-activespeaker.csv")):
            path.unlink()
    for name, video in state["videos"].items():
        old = before["videos"].get(name) if before else None
        if old == video:
            continue
        for path in (*folder.glob(f"videos/*/{name}.mp4"), *folder.glob(f"annotations/*/{name}-activespeaker.csv")):
            if path.parent.name != video["split"]:
                path.unlink()
        path = folder / "videos" / video["split"] / f"{name}.mp4"
        if old is None or (old["look"], old["split"]) != (video["look"], video["split"]):
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(video["look"])
            audio = rng.normal(0, 3000, FRAMES * SAMPLE_RATE // FPS).astype(np.int16)
            write_video(path, (tiny_frame((video["look"] + n) % 50, 2) for n in range(FRAMES)), FPS, audio, crf=8)
        rows = []
        for face, edges in enumerate(BOXES[:2]):
            box = (np.array(edges) + video["shift"]) / (WIDTH, HEIGHT, WIDTH, HEIGHT)
            for n in range(FRAMES):
                speaks = AUDIBLE if (n // 2 + face + video["speaks"]) % 2 else NOT_SPEAKING
                rows.append(annotation_row(name, f"{n / FPS:.2f}", box, speaks, f"{name}_0000_0060:{face + 1}"))
        write_annotations(folder / "annotations" / video["split"] / f"{name}{ava.ANNOTATION_SUFFIX}", rows)


def configuration(folder: Path, state: dict) -> list[str]:
    splits = {f"{{}}_{split}_full": split for split in ava.SPLITS}
    csvs = {key.format("csv"): str(folder / "csv" / f"{split}.csv") for key, split in splits.items()}
    features = {key.format("features"): str(folder / "features" / split) for key, split in splits.items()}
    out = {"models_out": str(folder / "ste"), "predictions_out": str(folder / "predictions")}
    media = {"audio_dir": str(folder / "audio"), "video_dir": str(folder / "crops")}
    training = {"epochs": 1, "threads": 0, "seed": state["seed"], "batch_size": 4, "learning_rate": 1e-3}
    dictionaries: dict[str, dict[str, Any]] = {
        "STE_inputs": csvs | out | media | {"features_out": str(folder / "features")},
        "STE_optimization_params": training | {"crop_size": state["crop_size"], "pretrained": False},
        "STE_forward_params": {"weights": "last", "threads": 0, "crop_size": state["crop_size"]},
        "ASC_inputs": features | {"models_out": str(folder / "asc")},
        "ASC_optimization_params": training,
        "ASC_inputs_forward": features | csvs | out | {"logits_out": str(folder / "logits")},
        "ASC_forward_params": {"weights": "last"},
    }
    del dictionaries["ASC_inputs_forward"]["models_out"]
    config = folder / "config.py"
    config.write_text("\n".join(f"{name} = {values!r}" for name, values in dictionaries.items()))
    return ["--config", str(config)]


def run(folder: Path, state: dict) -> bool:
    """All stages by their scripts; whether they came to the end, which an interrupt keeps them from."""
    options = configuration(folder, state)
    steps: list[tuple] = []
    for split in ava.SPLITS:
        videos, csv = folder / "videos" / split, folder / "csv" / f"{split}.csv"
        tracks = folder / "tracks" / split
        steps += [
            (augment_annotations, folder / "annotations" / split, csv),
            (extract_audio_tracks, videos, csv, tracks),
            (slice_audio_tracks, tracks, csv, folder / "audio" / split),
            (extract_face_crops_time, videos, csv, folder / "crops" / split, "--size", 20),
        ]
    context = [3, state["stride"], 2, "cpu"]
    steps += [
        (STE_train, state["clip"], "cpu", "--name", "a", "--update", *options),
        (STE_forward, state["clip"], "cpu", *options),
        (STE_postprocessing, "--split", "both", *options),
        (ASC_train, *context, "--name", "a", "--update", *options),
        (ASC_forward, *context, "--split", "both", *options),
        (ASC_prediction_postprocessing, "--split", "both", *options),
    ]
    for script, *arguments in steps:
        status = exit_status(script.main, *arguments)
        if status == INTERRUPTED:
            return False
        assert status == 0, (script.__name__, state)
    return True


@contextlib.contextmanager
def interrupted(after: int) -> Iterator[None]:
    """An interrupt when the `after`-th file gets its name, or just then had got it."""
    replace, calls = os.replace, []

    def counted(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == after and after % 2:
            raise KeyboardInterrupt
        replace(*arguments)
        if len(calls) == after:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "replace", counted)
        yield


def check(folder: Path, fresh: Path, history: list[str]) -> None:
    for split in ava.SPLITS:
        for name in ("gt", "STE", "ASC"):
            found, expected = (
                pd.read_csv(one / "predictions" / split / f"{name}.csv", header=None) for one in (folder, fresh)
            )
            assert found[list(range(8))].equals(expected[list(range(8))]), (history, split, name)
            if name != "gt":  # other rows may have shared a batch
                np.testing.assert_allclose(found[8], expected[8], atol=1e-5, err_msg=f"{history} {split} {name}")


@settings(max_examples=HISTORIES, deadline=None, database=None, derandomize=HISTORIES < 10)
@given(edits=st.lists(st.sampled_from(EDITS), min_size=2, max_size=4), seed=st.integers(0, 10**6))
def test_the_numbers_are_those_of_a_fresh_run(tmp_path_factory, edits, seed):
    root, rng, state = tmp_path_factory.mktemp("history"), random.Random(seed), copy.deepcopy(START)
    folder = root / "set"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.BACKBONES, "resnet18_two_streams", narrow_two_streams)
        write_inputs(folder, state, None)
        assert run(folder, state)
        for number, edit in enumerate(edits):
            before = copy.deepcopy(state)
            edit(state, rng)
            write_inputs(folder, state, before)
            if edit is interrupt or rng.random() < 0.5:
                with interrupted(rng.randrange(1, 90)):
                    run(folder, state)
            assert run(folder, state)
            fresh = root / f"fresh{number}"
            for part in ("videos", "annotations"):
                shutil.copytree(folder / part, fresh / part)
            assert run(fresh, state)
            check(folder, fresh, [edit.__name__ for edit in edits[: number + 1]])
            shutil.rmtree(fresh)
    shutil.rmtree(root)
