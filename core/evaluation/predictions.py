"""The two csvs of a split that the official tool compares: predictions and ground truth."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.formats import ava
from core.runtime.provenance import Record


def write_split(
    folder: str | Path,
    name: str,
    rows: pd.DataFrame,
    scores: np.ndarray,
    made_of: Mapping[str, Any],
    left_out: int = 0,
) -> str:
    """Write `<name>.csv` and `gt.csv` in the official format; returns a line that says so.

    Args:
        folder: of the split's predictions.
        name: of the predictions.
        rows: the split's annotations (`ava.AUGMENTED_COLUMNS`), (row).
        scores: (row,) probability of speaking.
        made_of: what the scores depend on, beside the annotations.
        left_out: how many annotated rows `rows` lacks; the ground truth's record keeps it for `evaluate.py`.

    Raises:
        UserError: a file of one of these names is there that was not written here.
    """
    folder = Path(folder)
    annotations = {"annotations": ava.digest(rows, ava.COLUMNS), "left_out": left_out}
    predictions = Record(folder, name, "predictions", annotations | made_of)
    groundtruth = Record(folder, "gt", "ground truth", annotations)
    with predictions.making([f"{name}.csv"]), groundtruth.making(["gt.csv"]):
        ava.write_predictions(folder / f"{name}.csv", rows, scores)
        ava.write_groundtruth(folder / "gt.csv", rows)
    return f"{folder / f'{name}.csv'}, {folder / 'gt.csv'}: {len(rows):,} rows{ava.left_out_text(left_out, len(rows))}"
