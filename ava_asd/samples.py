"""The table of a split's samples, written by ava-extract and ava-subset: a row a window.

Arrow file; columns video_id, entity_id, time_s (float64, of the last face), label (of the last face), first (int32, row
of the first face in the video's faces.arrow), smallest_side (int32 pixels: of the window's faces, the least width or
height). A record beside it says what the windows were made of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ava_asd.config import Config
from ava_asd.layout import check_made
from core.formats.arrow_file import open_arrow
from core.runtime.errors import UserError
from core.runtime.files import atomic_write
from core.runtime.provenance import Record, read_record

COMMANDS = {"full": "ava-extract annotations", "subset": "ava-subset"}  # kind of a table -> what writes it
FACES = "faces"  # among what samples are made of
SCHEMA = pa.schema(
    [
        ("video_id", pa.dictionary(pa.int32(), pa.string())),
        ("entity_id", pa.dictionary(pa.int32(), pa.string())),
        ("time_s", pa.float64()),
        ("label", pa.dictionary(pa.int32(), pa.string())),
        ("first", pa.int32()),
        ("smallest_side", pa.int32()),
    ]
)
COLUMNS = {field.name: field.type.equals for field in SCHEMA}


@dataclass(frozen=True)
class Samples:
    """A table of samples.

    Attributes:
        table: rows with `SCHEMA`, dictionaries unified.
        made_of: fps, window (faces) and ann_stride; `FACES` holds, for each video, the SHA-256 of the table of its
            faces, or None for one that could not be used; of a subset also how it was chosen.
    """

    table: pa.Table
    made_of: Mapping[str, Any]

    def __len__(self) -> int:
        return self.table.num_rows

    def column(self, name: str) -> np.ndarray:
        """A column, text as objects."""
        return self.table[name].to_numpy()

    def classes(self, config: Config) -> np.ndarray:
        """(sample,) int64 class of each sample's label."""
        column = self.table["label"].combine_chunks()
        of_code = np.array([config.classes[label] for label in column.dictionary.to_pylist()], np.int64)
        return of_code[column.indices.to_numpy()]

    def take(self, rows: np.ndarray) -> "Samples":
        """Some of the samples."""
        return Samples(self.table.take(pa.array(rows)), self.made_of)


def window_settings(config: Config) -> dict[str, Any]:
    """What windows depend on."""
    return {"fps": config.fps, "window": config.video_window, "ann_stride": config.ann_stride}


def write_samples(path: Path, samples: Samples) -> None:
    """Write a table of samples, whole or not at all.

    Raises:
        UserError: something else is there.
    """
    record = Record(path.parent, path.name, "samples", samples.made_of)
    with (
        record.making([path.name]),
        atomic_write(path) as temporary,
        pa.ipc.new_file(str(temporary), samples.table.schema) as writer,
    ):
        writer.write_table(samples.table)


def read_samples(config: Config, data: Path, split: str, kind: str) -> Samples:
    """Read a table of samples.

    Args:
        config: the windows must be made with its fps, window and ann_stride, a subset with its filters and ratio too.
        data: folder that the relative paths of the settings are under.
        split: "train" or "test".
        kind: "full" or "subset".

    Raises:
        UserError: the file is absent, damaged or empty, was made with other settings, or is a subset of others than
            the samples that there are.
    """
    path, command = config.path(data, f"{split}_annotations_{kind}"), COMMANDS[kind]
    record = read_record(path.parent, path.name)
    made_of = dict(record["made_of"] if record else {}) | window_settings(config)
    if not isinstance(made_of.get(FACES), dict):
        made_of[FACES] = {}
    if kind == "subset":
        made_of |= selection_settings(config, split)
    check_made(Record(path.parent, path.name, "samples", made_of), [path.name], command)
    if kind == "subset" and config.path(data, f"{split}_annotations_full").is_file():
        full = read_samples(config, data, split, "full")
        if full.made_of[FACES] != made_of[FACES]:
            raise UserError(f"{path} was chosen from other samples than there are now: run '{command}' again")
    return Samples(open_arrow(path, COLUMNS, f"run '{command}' again").unify_dictionaries(), made_of)


def usable(samples: Samples, config: Config) -> np.ndarray:
    """(sample,) bool: which samples filter_out and remove_small_faces keep.

    filter_out removes samples with a label of filter_classes, remove_small_faces those with a face narrower or lower
    than small_face_threshold.
    """
    kept = np.ones(len(samples), bool)
    if config.filter_out:
        kept &= ~np.isin(samples.column("label"), config.filter_classes)
    if config.remove_small_faces:
        kept &= samples.column("smallest_side") >= config.small_face_threshold
    return kept


def selection_settings(config: Config, split: str) -> dict[str, Any]:
    """What a split's subset depends on, beside its windows and the seed; settings without effect are omitted.

    Args:
        config: settings.
        split: "train" or "test".
    """
    return {
        "filter_classes": sorted(config.filter_classes) if config.filter_out else [],
        "small_face_threshold": config.small_face_threshold if config.remove_small_faces else 0,
        f"{split}_keep_ratio": getattr(config, f"{split}_keep_ratio"),
    }


def share(count: int, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """A random share of `count` rows, at least one, ascending: (row,) int64."""
    if ratio >= 1:
        return np.arange(count)
    return np.sort(generator.choice(count, max(1, int(count * ratio)), replace=False))


def balanced(classes: np.ndarray, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """As many random rows of either class, ascending: (row,) int64.

    Args:
        classes: (sample,) 0 or 1; both occur.
        ratio: how many, as a share of the class that has fewer; at least one.
        generator: of the choice.
    """
    rows = [np.flatnonzero(classes == number) for number in (0, 1)]
    count = max(1, int(min(map(len, rows)) * ratio))
    return np.sort(np.concatenate([generator.choice(part, count, replace=False) for part in rows]))
