"""The context network's logits: one csv a video, as published: entity_id, frame_timestamp, two logits; no header."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from core.formats.official_csv import Rows
from core.runtime.checks import check_finite
from core.runtime.errors import UserError
from core.runtime.files import atomic_write, finished_files
from core.runtime.provenance import check_outputs, declared

COLUMNS = {
    "entity_id": pa.string(),
    "frame_timestamp": pa.string(),
    "logit0": pa.float64(),
    "logit1": pa.float64(),
}
STEP = "context logits"  # of the records in a folder of logits (core.runtime.provenance)


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

    Where ASC_forward.py wrote the folder, they are those of the videos whose features it was last given.

    Raises:
        UserError: there are none or not all, a file is not as it was written or not of this form, or a number is not
            finite; with file and line.
    """
    videos = declared(folder, STEP)
    for video_id in videos or ():
        if check_outputs(folder, video_id, [f"{video_id}.csv"]) is None:
            raise UserError(f"no logits of video {video_id} in {folder}: run ASC_forward.py again, to its end")
    paths = finished_files(folder, ".csv") if videos is None else [Path(folder) / f"{name}.csv" for name in videos]
    if not paths:
        raise UserError(f"no logits in {folder}: run ASC_forward.py first")
    return Rows(paths, tuple(COLUMNS), texts=["frame_timestamp"]).frame()
