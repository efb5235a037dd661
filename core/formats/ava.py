"""The AVA-ActiveSpeaker format: columns, labels, reading with checks, augmenting, official rows.

A row is one face at one time. Its key is (entity_id, frame_timestamp); timestamps and boxes keep the TEXT of their
source everywhere (a timestamp of "900.10" must not become "900.1"), numbers are derived where they are needed.
Format: https://research.google.com/ava/download.html#ava_active_speaker_download
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv

from core.runtime.errors import UserError
from core.runtime.files import written_whole

BOX_COLUMNS = ("entity_box_x1", "entity_box_y1", "entity_box_x2", "entity_box_y2")
COLUMNS = ("video_id", "frame_timestamp", *BOX_COLUMNS, "label", "entity_id")
AUGMENTED_COLUMNS = (*COLUMNS, "label_id", "instance_id")
LABEL_IDS = {"NOT_SPEAKING": 0, "SPEAKING_AUDIBLE": 1, "SPEAKING_NOT_AUDIBLE": 2}
SPEAKING = "SPEAKING_AUDIBLE"
SPEAKING_ID = LABEL_IDS[SPEAKING]
ANNOTATION_SUFFIX = "-activespeaker.csv"
SPLITS = ("train", "val")

EXAMPLES = 3


def read_annotations(path: str | Path) -> pd.DataFrame:
    """Read and check one AVA csv (no header, eight columns).

    Returns:
        A frame with `COLUMNS`, all text, in the order of the file.

    Raises:
        UserError: the file is absent, empty or short of columns, or a row has a bad number, a box outside the frame
            or with x2 <= x1 or y2 <= y1, an unknown label, or the key of an earlier row; with the line number.
    """
    rows = _read_text_columns(path, COLUMNS, header=False)
    _check_rows(path, rows, first_line=1)
    return rows


def read_augmented(path: str | Path) -> pd.DataFrame:
    """Read and check an augmented csv (header, `AUGMENTED_COLUMNS`), sorted by video, entity and time.

    Returns:
        A frame with `AUGMENTED_COLUMNS` (all text but label_id, int8) and `time_s` (float64, seconds).

    Raises:
        UserError: as `read_annotations`, or the header is not the augmented one.
    """
    rows = _read_text_columns(path, AUGMENTED_COLUMNS, header=True)
    _check_rows(path, rows, first_line=2)
    return sort_tracks(_with_label_ids(rows))


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
        ValueError: a score is not a finite number or there is not one for each row.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(rows),) or not np.isfinite(scores).all():
        raise ValueError(f"need one finite score for each of {len(rows)} rows, got shape {scores.shape}")
    columns = {name: rows[name] for name in COLUMNS}
    columns["label"] = pd.Series([SPEAKING] * len(rows))
    _write_csv(path, {**columns, "score": scores}, header=False)


def times(rows: pd.DataFrame) -> np.ndarray:
    """Timestamps in seconds, (rows,) float64."""
    return rows["frame_timestamp"].to_numpy(dtype=np.float64)


def boxes(rows: pd.DataFrame) -> np.ndarray:
    """Boxes as fractions of the frame's width and height, (rows, [x1, y1, x2, y2]) float64."""
    return rows[list(BOX_COLUMNS)].to_numpy(dtype=np.float64)


def is_speaking(rows: pd.DataFrame) -> np.ndarray:
    """The binary target, (rows,) bool: SPEAKING_NOT_AUDIBLE counts as not speaking."""
    return (rows["label"] == SPEAKING).to_numpy(dtype=bool)


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
        UserError: as `annotation_files` and `read_annotations`, or an entity stands in two files.
    """
    parts = [read_annotations(path) for path in annotation_files(folder).values()]
    rows = pd.concat(parts, ignore_index=True)
    videos_of_entity = rows.drop_duplicates(["video_id", "entity_id"])
    twice = videos_of_entity[videos_of_entity["entity_id"].duplicated()]
    if len(twice):
        entity = twice["entity_id"].iloc[0]
        videos = videos_of_entity.loc[videos_of_entity["entity_id"] == entity, "video_id"].tolist()
        raise UserError(
            f"{folder}: entity {entity} stands in the annotations of {', '.join(videos)}; "
            "entity ids must be unique in a split, as <video_id>_<start>_<end>:<n> is"
        )
    return rows


def _with_label_ids(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(label_id=rows["label"].map(LABEL_IDS).astype(np.int8))


def _read_text_columns(path: str | Path, columns: tuple[str, ...], *, header: bool) -> pd.DataFrame:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no file {path}: give an AVA-ActiveSpeaker csv")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: expected rows of {', '.join(columns)}")
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(
                column_names=columns if not header else None, use_threads=False, block_size=1 << 24
            ),
            parse_options=pa.csv.ParseOptions(ignore_empty_lines=False),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        words = str(error).removeprefix("CSV parse error: ").replace("Row #", "line ")
        raise UserError(f"{path}: {words}; expected UTF-8 text with the columns {', '.join(columns)}") from error
    if tuple(table.column_names) != columns:
        raise UserError(
            f"{path}: the header is {','.join(table.column_names)[:200]}, expected {','.join(columns)}; "
            "make the file with data/augment_annotations.py"
        )
    if table.num_rows == 0:
        raise UserError(f"{path} has no rows: expected rows of {', '.join(columns)}")
    return table.to_pandas()


def _check_rows(path: str | Path, rows: pd.DataFrame, first_line: int) -> None:
    """Raise a UserError at the first row that breaks the format."""

    def refuse(bad: np.ndarray | pd.Series, say) -> None:
        bad = np.asarray(bad, dtype=bool)
        if bad.any():
            index = int(bad.argmax())
            more = f" ({int(bad.sum())} such rows)" if bad.sum() > 1 else ""
            raise UserError(f"{path}, line {index + first_line}: {say(rows.iloc[index])}{more}")

    refuse((rows[list(COLUMNS)] == "").all(axis=1), lambda row: "the line is blank, expected a row; delete it")
    for name in ("frame_timestamp", *BOX_COLUMNS):
        numbers = pd.to_numeric(rows[name], errors="coerce").to_numpy(dtype=np.float64)
        refuse(~np.isfinite(numbers), lambda row, name=name: f"{name} is {row[name]!r}, expected a finite number")
    refuse(times(rows) < 0, lambda row: f"frame_timestamp is {row['frame_timestamp']}, expected seconds >= 0")
    x1, y1, x2, y2 = boxes(rows).T

    def box_text(row: pd.Series) -> str:
        return "box " + ",".join(row[name] for name in BOX_COLUMNS)

    refuse((x2 <= x1) | (y2 <= y1), lambda row: f"{box_text(row)} is empty, expected x1 < x2 and y1 < y2")
    refuse(
        (x1 >= 1) | (y1 >= 1) | (x2 <= 0) | (y2 <= 0),
        lambda row: f"{box_text(row)} lies outside the frame, expected fractions of width and height from 0 to 1",
    )
    refuse(
        ~rows["label"].isin(list(LABEL_IDS)),
        lambda row: f"unknown label {row['label']!r}, accepted are {', '.join(LABEL_IDS)}",
    )
    for name in ("video_id", "entity_id"):
        refuse(
            (rows[name] == "") | rows[name].str.contains(r'[/,"\x00-\x1f]|^\.\.?$'),
            lambda row, name=name: f"{name} is {row[name]!r}, expected a name that can be a file name",
        )
    keys = pd.DataFrame({"entity_id": rows["entity_id"], "time_s": times(rows)})
    refuse(
        keys.duplicated(),
        lambda row: f"entity {row['entity_id']} at {row['frame_timestamp']} s stands in an earlier line already",
    )


def _write_csv(path: str | Path, columns: dict[str, Iterable], *, header: bool) -> None:
    table = pa.table({name: pa.array(np.asarray(values)) for name, values in columns.items()})
    with written_whole(path) as temporary, temporary.open("wb") as file:
        if header:  # by hand: the writer would put the names in quotes
            file.write((",".join(columns) + "\n").encode())
        pa.csv.write_csv(table, file, pa.csv.WriteOptions(include_header=False, quoting_style="none"))


def positions(annotations: pd.DataFrame, entity_ids: np.ndarray, timestamps: np.ndarray, source: str) -> np.ndarray:
    """Where each annotated row stands among rows that a file or folder brings.

    Args:
        annotations: rows with entity_id and frame_timestamp (text).
        entity_ids, timestamps: (rows,) text, the keys that `source` brings, in its order.
        source: what the user calls it, for messages.

    Returns:
        (annotations,) int64 indices into the rows of `source`.

    Raises:
        UserError: a key is missing, surplus or there twice; with examples.
    """
    wanted = pd.MultiIndex.from_arrays([annotations["entity_id"], annotations["frame_timestamp"]])
    found = pd.MultiIndex.from_arrays([entity_ids, timestamps])
    if found.has_duplicates:
        raise UserError(f"{source} has keys twice: {_examples(found[found.duplicated()])}")
    missing, surplus = wanted.difference(found), found.difference(wanted)
    if len(missing) or len(surplus):
        parts = [f"{len(missing):,} annotated rows are missing ({_examples(missing)})"] * bool(len(missing))
        parts += [f"{len(surplus):,} rows are not annotated ({_examples(surplus)})"] * bool(len(surplus))
        raise UserError(f"{source} does not fit the annotations: {'; '.join(parts)}; forward the same csv again")
    return found.get_indexer(wanted)


def _examples(index: pd.MultiIndex) -> str:
    text = ", ".join(f"{entity} at {timestamp}" for entity, timestamp in index[:EXAMPLES])
    return text + (", ..." if len(index) > EXAMPLES else "")
