"""Features in the published form, one csv a video, without header.

video_id, timestamp, entity_id, label (0.0 or 1.0, 1.0 where the face is heard speaking), two logits, "[feature, ...]".
"""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from core.formats import ava
from core.formats.arrow_file import fixed_lists
from core.runtime.checks import as_number
from core.runtime.errors import UserError
from core.runtime.files import atomic_write

NUMPY_NUMBER = re.compile(r"np\.float\d+\(([^()]*)\)")


def write_feature_csv(path: Path, rows: pd.DataFrame, logits: np.ndarray, features: np.ndarray) -> None:
    """Write one video's features, whole or not at all.

    Args:
        path: of the csv.
        rows: annotations (`ava.AUGMENTED_COLUMNS`), (row).
        logits: (row, [not speaking, speaking]).
        features: (row, feature).
    """
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        keys = rows[["video_id", "frame_timestamp", "entity_id"]].itertuples(index=False)
        labels = (rows["label_id"] == ava.SPEAKING_ID).astype(float)
        for key, label, pair, vector in zip(keys, labels, logits.tolist(), features.tolist(), strict=True):
            writer.writerow([*key, label, *pair, str(vector)])


def read_feature_csv(path: Path) -> pa.Table:
    """Read one video's features whole: the columns that the feature store has, vectors as float32.

    Raises:
        UserError: a line is not of this form; with its number.
    """
    keys, logits, features = [], [], []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file, strict=True)
        try:
            for line in reader:
                video, timestamp, entity, label, *pair, vector = line
                as_number(timestamp)
                keys.append((entity, timestamp, as_number(label)))  # published: 0.0 and 1.0
                logits.append([as_number(text) for text in pair])
                features.append(_vector(vector))
                if (
                    len(pair) != 2
                    or features[-1].shape != (len(features[0]),)
                    or keys[-1][2] not in ava.LABEL_IDS.values()
                ):
                    raise ValueError("fields or numbers are missing, or there are too many")
                if video != path.stem:
                    raise ValueError(f"video {video!r}, and the file is named after {path.stem!r}")
        except (ValueError, TypeError, OverflowError, RecursionError, csv.Error) as error:
            raise UserError(
                f"{path}, line {reader.line_num}: {error}; expected video_id, timestamp, entity_id, label, two logits "
                'and a vector "[...]" as long as that of the first line, without header'
            ) from error
    if not keys:
        raise UserError(f"{path} has no rows; delete it and run STE_forward.py again")
    order = sorted(range(len(keys)), key=lambda row: (keys[row][0], float(keys[row][1])))
    entity, timestamp, label = zip(*(keys[row] for row in order), strict=True)
    return pa.table(
        {
            "entity_id": pa.array(entity, pa.string()),
            "frame_timestamp": pa.array(timestamp, pa.string()),
            "label_id": pa.array(label, pa.int8()),
            "logits": fixed_lists(np.array(logits, np.float32)[order]),
            "features": fixed_lists(np.stack(features)[order]),
        }
    )


def _vector(text: str) -> np.ndarray:
    """A list of numbers as text, or of NumPy's: under NumPy 2 the published code writes "[np.float32(0.5), ...]"."""
    return np.array(json.loads(NUMPY_NUMBER.sub(r"\1", text)), np.float32)
