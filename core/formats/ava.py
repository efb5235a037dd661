"""The AVA-ActiveSpeaker format: labels, annotations as tables, augmenting, official rows.

A row is one face at one time. Its key is (entity_id, frame_timestamp); timestamps and boxes keep the TEXT of their
source everywhere (a timestamp of "900.10" must not become "900.1"), numbers are derived where they are needed.
Format: https://research.google.com/ava/download.html#ava_active_speaker_download
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from core.formats.official_csv import AUGMENTED_COLUMNS, BOX_COLUMNS, COLUMNS, NUMBER_COLUMNS, Rows, join, key_text
from core.runtime.checks import check_finite
from core.runtime.errors import UserError
from core.runtime.files import atomic_write

LABEL_IDS = {"NOT_SPEAKING": 0, "SPEAKING_AUDIBLE": 1, "SPEAKING_NOT_AUDIBLE": 2}
SPEAKING = "SPEAKING_AUDIBLE"
SPEAKING_ID = LABEL_IDS[SPEAKING]
NOT_AUDIBLE_ID = LABEL_IDS["SPEAKING_NOT_AUDIBLE"]
ANNOTATION_SUFFIX = "-activespeaker.csv"
SPLITS = ("train", "val")

EXAMPLES = 3  # of keys, in messages


def read_annotations(path: str | Path, further: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read and check one AVA csv (eight columns; a header, and those of an augmented csv, may be there).

    Args:
        path: of the csv.
        further: columns that follow the eight in a csv without header, and are left out.

    Returns:
        A frame with `COLUMNS`, all text, in the order of the file.

    Raises:
        UserError: the file is absent, empty or short of columns, or a row has a bad number, a negative time, a box
            outside the frame or with x2 <= x1 or y2 <= y1, an unknown label, an id that cannot name a file, an entity
            of another video, or the key of an earlier row; with the line number.
    """
    return _read([Path(path)], (*COLUMNS, *further)).frame()[list(COLUMNS)]


def read_augmented(path: str | Path) -> pd.DataFrame:
    """Read and check an augmented csv, sorted by video, entity and time.

    Others' are read as well (`train_orig.csv`, `val_orig.csv`): by the names in their header, whatever their order and
    whatever else is there; without header the columns are `AUGMENTED_COLUMNS`.

    Returns:
        A frame with `AUGMENTED_COLUMNS` (all text but label_id, int8) and `time_s` (float64, seconds).

    Raises:
        UserError: as `read_annotations`, or a label_id is not that of its label.
    """
    return sort_tracks(_with_label_ids(_read([Path(path)], AUGMENTED_COLUMNS).frame()))


def augment(annotations: pd.DataFrame) -> pd.DataFrame:
    """Add label_id and instance_id (a run of one label within an entity, `<entity_id>:<n>`), sorted by track.

    Args:
        annotations: rows with `COLUMNS`, of any number of videos.

    Returns:
        Rows with `AUGMENTED_COLUMNS` and `time_s`, sorted by video, entity and time.
    """
    rows = sort_tracks(_with_label_ids(annotations))
    entity = rows["entity_id"]
    new_run = (rows["label_id"] != rows["label_id"].shift()) | (entity != entity.shift())
    run = new_run.groupby(entity, sort=False).cumsum() - 1
    rows["instance_id"] = entity + ":" + run.astype(str)
    return rows[[*AUGMENTED_COLUMNS, "time_s"]]


def sort_tracks(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows sorted by video, entity and time, with `time_s` (float64, seconds) added and a fresh index."""
    rows = rows.assign(time_s=times(rows))
    return rows.sort_values(["video_id", "entity_id", "time_s"], kind="stable", ignore_index=True)


def write_augmented(path: str | Path, rows: pd.DataFrame) -> None:
    """Write rows with `AUGMENTED_COLUMNS` as an augmented csv."""
    _write_csv(path, {name: rows[name] for name in AUGMENTED_COLUMNS}, header=True)


def write_groundtruth(path: str | Path, rows: pd.DataFrame) -> None:
    """Write rows in the official ground-truth format: AVA's eight columns, no header."""
    _write_csv(path, {name: rows[name] for name in COLUMNS}, header=False)


def write_predictions(path: str | Path, rows: pd.DataFrame, scores: np.ndarray) -> None:
    """Write official prediction rows: AVA's columns with label SPEAKING_AUDIBLE, then the score, no header.

    Args:
        path: csv to write.
        rows: rows with `COLUMNS`; timestamp and box text is copied.
        scores: (rows,) probability of speaking; written with full precision.

    Raises:
        ValueError: there is not one score for each row.
        UserError: a score is not a finite number.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(rows),):
        raise ValueError(f"need one score for each of {len(rows)} rows, got shape {scores.shape}")
    check_finite(scores, lambda row: f"{path}: the scores of {key_text(rows.iloc[row])}", "forward with other weights")
    columns = {name: rows[name] for name in COLUMNS}
    columns["label"] = pd.Series([SPEAKING] * len(rows))
    _write_csv(path, {**columns, "score": scores}, header=False)


def times(rows: pd.DataFrame) -> np.ndarray:
    """Timestamps in seconds, (rows,) float64."""
    return rows["frame_timestamp"].to_numpy(dtype=np.float64)


def boxes(rows: pd.DataFrame) -> np.ndarray:
    """Boxes as fractions of the frame's width and height, (rows, [x1, y1, x2, y2]) float64."""
    return rows[list(BOX_COLUMNS)].to_numpy(dtype=np.float64)


def digest(rows: pd.DataFrame, columns: Iterable[str]) -> str:
    """SHA-256 of some columns' text, row by row: what something is made of that is made of these."""
    table = pa.table({name: pa.array(rows[name].astype(str).to_numpy()) for name in columns})
    out = pa.BufferOutputStream()
    pa.csv.write_csv(table, out, pa.csv.WriteOptions(include_header=False, quoting_style="none"))
    return hashlib.sha256(out.getvalue()).hexdigest()


def annotation_files(folder: str | Path) -> dict[str, Path]:
    """The AVA csvs of a folder: video id -> path, sorted by id.

    Raises:
        UserError: the folder is absent or holds no `<video_id>-activespeaker.csv`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no annotation folder {folder}: give a folder that holds <video_id>{ANNOTATION_SUFFIX} files")
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(ANNOTATION_SUFFIX))
    if not names:
        raise UserError(f"no <video_id>{ANNOTATION_SUFFIX} in {folder}: give the folder of one split (train or val)")
    return {name.removesuffix(ANNOTATION_SUFFIX): folder / name for name in names}


def read_split(folder: str | Path) -> pd.DataFrame:
    """All annotations of a folder as one frame with `COLUMNS`, in order of video id.

    Raises:
        UserError: as `annotation_files` and `read_annotations`.
    """
    return _read(list(annotation_files(folder).values())).frame()


def positions(annotations: pd.DataFrame, entity_ids: np.ndarray, timestamps: np.ndarray, source: str) -> np.ndarray:
    """Position of each annotated row among the rows of a file or folder, joined by the text of their keys.

    Args:
        annotations: rows with entity_id and frame_timestamp (text), each key once.
        entity_ids, timestamps: (rows,) text, the keys that `source` brings, in its order.
        source: what the user calls it, for messages.

    Returns:
        (annotations,) int64 indices into the rows of `source`.

    Raises:
        UserError: a key is missing, surplus or there twice; with examples.
    """
    theirs = pd.DataFrame({"entity_id": entity_ids, "frame_timestamp": timestamps})
    both = pd.concat([annotations[list(theirs)], theirs], ignore_index=True)
    keys = both.groupby(list(theirs), sort=False).ngroup().to_numpy()
    wanted, found = np.split(keys, [len(annotations)])
    order = join(wanted, found)
    if order is None:
        faults = [
            examples(annotations[~np.isin(wanted, found)], "annotated rows are missing"),
            examples(theirs[~np.isin(found, wanted)], "rows are not annotated"),
            examples(theirs[theirs.duplicated()], "rows repeat a key"),
        ]
        raise UserError(f"{source} does not fit the annotations: {'; '.join(filter(None, faults))}; forward it again")
    return order


def without_left_out(
    annotations: pd.DataFrame, entity_ids: np.ndarray, timestamps: np.ndarray, left_out: int
) -> pd.DataFrame:
    """The annotated rows that a file or folder has, where it lacks just as many as the step that wrote it left out.

    Otherwise all of them, for `positions` to refuse.

    Args:
        annotations, entity_ids, timestamps: as for `positions`.
        left_out: rows.
    """
    if not left_out:
        return annotations
    keys = pd.MultiIndex.from_frame(annotations[["entity_id", "frame_timestamp"]])
    there = keys.isin(pd.MultiIndex.from_arrays([entity_ids, timestamps]))
    enough = np.count_nonzero(~there) == left_out
    return annotations[there].reset_index(drop=True) if enough else annotations


def left_out_text(left_out: int, kept: int) -> str:
    """How many annotated rows are left out, to be said with every result; empty where none is."""
    return f" ({left_out:,} of {left_out + kept:,} annotated faces are left out: no crops)" if left_out else ""


def examples(rows: pd.DataFrame, fault: str) -> str:
    """How many rows have a fault, with examples, for messages; empty where there are none."""
    some = [f"{row.entity_id} at {row.frame_timestamp}" for row in rows[:EXAMPLES].itertuples()]
    return f"{len(rows):,} {fault} ({', '.join(some)}{', ...' * (len(rows) > EXAMPLES)})" if some else ""


def _with_label_ids(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(label_id=rows["label"].map(LABEL_IDS).astype(np.int8))


def _read(paths: list[Path], columns: tuple[str, ...] = COLUMNS) -> Rows:
    """Rows of csvs with AVA's columns and others, as text, with all that preparation relies on checked."""
    rows = Rows(paths, columns, texts=NUMBER_COLUMNS)
    rows.refuse(
        rows.numbers("frame_timestamp") < 0,
        lambda row: f"frame_timestamp is {row['frame_timestamp']}",
        "expected seconds, 0 or more",
    )
    rows.check_boxes()
    rows.check_labels(list(LABEL_IDS), "as in AVA-ActiveSpeaker")
    if "label_id" in columns:
        label_id = [str(LABEL_IDS.get(label)) for label in rows.names("label").to_pylist()]
        rows.refuse(
            np.array(rows.names("label_id").to_pylist())[rows.codes("label_id")]
            != np.array(label_id)[rows.codes("label")],
            lambda row: f"label_id is {row['label_id']!r} and the label {row['label']}",
            f"expected {', '.join(f'{number} for {label}' for label, number in LABEL_IDS.items())}",
        )
    for column in ("video_id", "entity_id"):
        rows.check_file_names(column)
    video, entity = rows.codes("video_id"), rows.codes("entity_id")
    first_video = np.empty(len(rows.names("entity_id")), video.dtype)
    first_video[entity[::-1]] = video[::-1]  # of several assignments to one position the last one stays
    rows.refuse(
        video != first_video[entity],
        lambda row: f"entity {row['entity_id']} of video {row['video_id']} is in another video before",
        "entity ids must be unique in a split, as <video_id>_<start>_<end>:<n> is",
    )
    rows.check_unique("entity_id")
    return rows


def _write_csv(path: str | Path, columns: dict[str, Iterable], *, header: bool) -> None:
    table = pa.table({name: pa.array(np.asarray(values)) for name, values in columns.items()})
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        if header:  # by hand: the writer would put the names in quotes
            file.write((",".join(columns) + "\n").encode())
        pa.csv.write_csv(table, file, pa.csv.WriteOptions(include_header=False, quoting_style="none"))
