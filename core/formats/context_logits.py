"""The context network's logits: one csv a video, as published: entity_id, frame_timestamp, two logits; no header."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from core.formats.ava import check_finite
from core.formats.official_csv import Rows
from core.runtime.errors import UserError
from core.runtime.files import atomic_write, finished_files, make_folder, write_json

COLUMNS = {
    "entity_id": pa.string(),
    "frame_timestamp": pa.string(),
    "logit0": pa.float64(),
    "logit1": pa.float64(),
}
MADE_BY = "made_by.json"


def start_folder(folder: str | Path, made_by: Mapping[str, object]) -> None:
    """Make ready to write a split's logits; those made by other weights, features or contexts are removed."""
    folder = make_folder(folder)
    note = folder / MADE_BY
    with contextlib.suppress(OSError, ValueError):  # absent or damaged: what made the logits is not known
        if json.loads(note.read_text(encoding="utf-8")) == json.loads(json.dumps(made_by)):
            return
    for path in folder.glob("*.csv"):
        path.unlink()
    write_json(note, made_by)


def is_written(folder: str | Path, video_id: str) -> bool:
    """Whether a video's logits are there."""
    return (Path(folder) / f"{video_id}.csv").is_file()


def write_logits(
    folder: str | Path, video_id: str, entity_ids: np.ndarray, timestamps: np.ndarray, logits: np.ndarray
) -> None:
    """Write one video's logits, whole or not at all: keys (row,) text, logits (row, [not speaking, speaking]).

    Raises:
        UserError: a logit is not a finite number; the message names its row.
    """
    check_finite(
        logits,
        lambda row: f"{video_id}: the logits of entity {entity_ids[row]} at {timestamps[row]} s",
        "the weights are not finite or too large, as after a training that diverged; forward with others",
    )
    values = [entity_ids, timestamps, *np.asarray(logits, np.float64).T]
    arrays = [pa.array(value, kind) for value, kind in zip(values, COLUMNS.values(), strict=True)]
    with atomic_write(Path(folder) / f"{video_id}.csv") as temporary:
        options = pa.csv.WriteOptions(include_header=False, quoting_style="none")
        pa.csv.write_csv(pa.table(arrays, names=list(COLUMNS)), temporary, options)


def read_logits(folder: str | Path) -> pd.DataFrame:
    """All logits of a folder: entity_id and frame_timestamp (text), logit0 and logit1 (float64).

    Raises:
        UserError: there are none, or a file is not of this form, or a number is not finite; with file and line.
    """
    paths = finished_files(folder, ".csv")
    if not paths:
        raise UserError(f"no logits in {folder}: run ASC_forward.py first")
    return Rows(paths, tuple(COLUMNS), texts=["frame_timestamp"]).frame()
