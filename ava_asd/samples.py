"""The table of a split's samples, written by ava-extract and ava-subset: a row a window.

Arrow file; columns video_id, entity_id, time_s (float64, of the last face), label (of the last face), first (int32, row
of the first face in the video's faces.arrow), smallest_side (int32 pixels: of the window's faces, the least width or
height). The schema's metadata say what the windows were made with.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ava_asd.config import LABELS, Config
from core.formats.arrow_file import open_arrow
from core.runtime.errors import UserError
from core.runtime.files import atomic_write

COMMANDS = {"full": "ava-extract annotations", "subset": "ava-subset"}  # kind of a table -> what writes it
MAGIC = b"ARROW1"  # how the files begin
MADE_WITH = b"made_with"  # key of the schema's metadata
ANNOTATIONS = "annotations"
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
        made_with: fps, window (faces) and ann_stride; `ANNOTATIONS` holds, for each video, the SHA-256 of what the
            samples' times and labels are from, or None for one that could not be used; of a subset also how it was
            chosen.
    """

    table: pa.Table
    made_with: Mapping[str, Any]

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
        return Samples(self.table.take(pa.array(rows)), self.made_with)


def window_settings(config: Config) -> dict[str, Any]:
    """What windows depend on."""
    return {"fps": config.fps, "window": config.video_window, "ann_stride": config.ann_stride}


def write_samples(path: Path, samples: Samples) -> None:
    """Write a table of samples, whole or not at all.

    Raises:
        UserError: something else is there.
    """
    if path.is_file() and path.open("rb").read(len(MAGIC)) != MAGIC:
        raise UserError(
            f"{path} is no table of samples (perhaps one of the published ava_asd), so it is not replaced: move it "
            "away, or set another name in the configuration"
        )
    schema = samples.table.schema.with_metadata({MADE_WITH: json.dumps(dict(samples.made_with))})
    with atomic_write(path) as temporary, pa.ipc.new_file(str(temporary), schema) as writer:
        writer.write_table(samples.table.replace_schema_metadata(schema.metadata))


def read_samples(config: Config, data: Path, split: str, kind: str) -> Samples:
    """Read a table of samples.

    Args:
        config: the windows must be made with its fps, window and ann_stride, a subset with its filters and ratio too.
        data: folder that the relative paths of the settings are under.
        split: "train" or "test".
        kind: "full" or "subset".

    Raises:
        UserError: the file is absent, unreadable or empty, was made with other settings, or is a subset of others than
            the samples that there are.
    """
    path, command = config.path(data, f"{split}_annotations_{kind}"), COMMANDS[kind]
    if not path.is_file():
        raise UserError(f"no samples {path}: run '{command}'")
    remedy = f"delete it and run '{command}'"
    table = open_arrow(path, COLUMNS, remedy).unify_dictionaries()
    try:
        made_with = dict(json.loads((table.schema.metadata or {})[MADE_WITH]))
        made_with[ANNOTATIONS] = dict(made_with.get(ANNOTATIONS, {}))
        names = {name: set(table[name].unique().to_pylist()) for name in ("label", "first", "smallest_side", "time_s")}
        if not names["label"] <= set(LABELS) or min(names["first"] | names["smallest_side"], default=0) < 0:
            raise ValueError("a label that is none, or a number below 0")
        if not np.isfinite(list(names["time_s"])).all():
            raise ValueError("a time that is not finite")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is no table of samples ({error}): {remedy}") from error
    if len(table) == 0:
        raise UserError(f"{path} has no samples: change what is filtered out, and run '{command}'")
    selection = selection_settings(config, split) if kind == "subset" else {}
    for name, value in {**window_settings(config), **selection}.items():
        found = made_with.get(name)
        if found != value:
            raise UserError(f"{path} was made with {name} {found}, configured is {value}: run '{command}'")
    if kind == "subset" and config.path(data, f"{split}_annotations_full").is_file():
        full = read_samples(config, data, split, "full")
        if full.made_with[ANNOTATIONS] != made_with[ANNOTATIONS]:
            raise UserError(f"{path} was chosen from other samples than there are now: run '{command}' again")
    return Samples(table, made_with)


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
