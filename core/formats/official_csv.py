"""Csvs in AVA's official format: read into columns, checked with file and line, joined by key.

Evaluation compares numbers, as the official tool does: they become float64 as the file is read, several times faster
and in a fraction of the memory of text. Preparation keeps the text of every number, for a timestamp's text is a key
and a file name. A file that does not fit its types is read once more as text, to name the line.

A file that begins with a line of its columns' names may have others beside them and any order, as the csvs that other
groups' preparations and evaluations write (`val_orig.csv`, `val_res.csv`); one without has exactly those asked for, or
the ten of an augmented csv.
"""

import itertools
import re
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from core.runtime.errors import UserError

BOX_COLUMNS = ("entity_box_x1", "entity_box_y1", "entity_box_x2", "entity_box_y2")
COLUMNS = ("video_id", "frame_timestamp", *BOX_COLUMNS, "label", "entity_id")
AUGMENTED_COLUMNS = (*COLUMNS, "label_id", "instance_id")
PREDICTION_COLUMNS = (*COLUMNS, "score")
HEADER_NAME = "frame_timestamp"  # shows a header: all our csvs have it, and there is a number below it
LONGEST_HEADER = 1 << 16  # bytes
NUMBER_COLUMNS = ("frame_timestamp", *BOX_COLUMNS, "score", "logit0", "logit1")
MISSHAPEN_ROW = re.compile(
    r"CSV parse error: Row #(\d+): Expected (\d+) columns, got (\d+): (.*)", re.DOTALL
)  # Arrow's
FORBIDDEN = r'[/,"\x00-\x1f]'  # characters that ids may not have: they name files, and stand in csvs without quotes
NO_FILE_NAME = rf"{FORBIDDEN}|^\.{{0,2}}$"


class Rows:
    """Rows of one or several csvs, in the order of the files.

    Args:
        sources: the files.
        columns: what is read of the files; their order in a file without header.
        texts: number columns whose text is kept.

    Raises:
        UserError: a file is absent, empty or lacks a column, or a number is not finite; with file and line.

    Attributes:
        sources: the files.
        table: dictionary-encoded text; float64 for `NUMBER_COLUMNS` but `texts`; each column in one chunk.
    """

    def __init__(self, sources: Sequence[Path], columns: tuple[str, ...], *, texts: Collection[str] = ()):
        self.sources = list(sources)
        tables = [_read(path, columns, texts) for path in self.sources]
        self._first_rows = np.cumsum([0, *(table.num_rows for table in tables[:-1])])
        self.table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        # Arrow keeps what reading has used for later; on AVA's val split that is 80 MB for each file.
        del tables
        pa.default_memory_pool().release_unused()
        for name in NUMBER_COLUMNS:
            if name in columns:
                self.refuse(
                    ~np.isfinite(self.numbers(name)),
                    lambda row, name=name: f"{name} is {row[name]!r}",
                    "expected a finite number",
                )

    def __len__(self) -> int:
        return self.table.num_rows

    def numbers(self, column: str) -> np.ndarray:
        """(rows,) float64; NaN where a text is no number."""
        values = self.table[column].chunk(0)
        if not isinstance(values, pa.DictionaryArray):
            return values.to_numpy()
        return pd.to_numeric(values.dictionary.to_pandas(), errors="coerce").to_numpy(np.float64)[self.codes(column)]

    def boxes(self) -> np.ndarray:
        """(rows, [x1, y1, x2, y2]) float64, fractions of the frame's width and height."""
        return np.stack([self.numbers(name) for name in BOX_COLUMNS], axis=1)

    def codes(self, column: str) -> np.ndarray:
        """(rows,) int32, index into `names(column)`."""
        return self.table[column].chunk(0).indices.to_numpy()

    def names(self, column: str) -> pa.Array:
        """The distinct texts of a column."""
        return self.table[column].chunk(0).dictionary

    @cached_property
    def times(self) -> pa.DictionaryArray:
        """(rows,) timestamps in seconds, equal numbers encoded alike."""
        return pa.array(self.numbers("frame_timestamp")).dictionary_encode()

    def keys(self, numbering: "Rows") -> np.ndarray:
        """(rows,) int64, a number for each (entity_id, timestamp as a number), the key of the official tool.

        Args:
            numbering: the rows that give the numbers, 0 or more; -1 where entity or time does not occur there.
        """
        entity = pa.compute.index_in(self.names("entity_id"), numbering.names("entity_id"))
        entity = entity.fill_null(-1).to_numpy()[self.codes("entity_id")].astype(np.int64)
        time = pa.compute.index_in(self.times.dictionary, numbering.times.dictionary)
        time = time.fill_null(-1).to_numpy()[self.times.indices.to_numpy()]
        return np.where((entity < 0) | (time < 0), -1, entity * len(numbering.times.dictionary) + time)

    def is_text(self, column: str, accepted: Sequence[str]) -> np.ndarray:
        """(rows,) bool: the text of a column is one of `accepted`."""
        return np.isin(self.names(column).to_pylist(), accepted)[self.codes(column)]

    def frame(self) -> pd.DataFrame:
        """The table as text columns (and float64 ones)."""
        columns = {name: self.table[name] for name in self.table.column_names}
        return pa.table(
            {name: c.cast(pa.string()) if pa.types.is_dictionary(c.type) else c for name, c in columns.items()}
        ).to_pandas()

    # ------------------------------------------------------------ checks: a UserError with the first bad row's line

    def check_labels(self, accepted: Sequence[str], reason: str) -> None:
        """Refuse labels beside the accepted ones."""
        self.refuse(
            ~self.is_text("label", accepted),
            lambda row: f"the label is {row['label']!r}",
            f"accepted are {', '.join(accepted)}; {reason}",
        )

    def check_boxes(self) -> None:
        """Refuse boxes that are empty or lie outside the frame."""
        x1, y1, x2, y2 = self.boxes().T

        def box(row: dict) -> str:
            return "box " + ",".join(str(row[name]) for name in BOX_COLUMNS)

        self.refuse((x2 <= x1) | (y2 <= y1), lambda row: f"{box(row)} is empty", "expected x1 < x2 and y1 < y2")
        self.refuse(
            (x1 >= 1) | (y1 >= 1) | (x2 <= 0) | (y2 <= 0),
            lambda row: f"{box(row)} lies outside the frame",
            "expected fractions of width and height from 0 to 1, not pixels",
        )

    def check_file_names(self, column: str) -> None:
        """Refuse ids that cannot be the name of a file."""
        bad = self.names(column).to_pandas().str.contains(NO_FILE_NAME).to_numpy(bool)
        remedy = "expected a name that can be a file name"
        self.refuse(bad[self.codes(column)], lambda row: f"{column} is {row[column]!r}", remedy)

    def check_unique(self, *ids: str) -> None:
        """Refuse a row whose time, as a number, and ids are those of an earlier row."""
        keys = self.times.indices.to_numpy().astype(np.int64)
        for name in ids:
            keys = keys * len(self.names(name)) + self.codes(name)
        ordered = np.sort(keys)
        if not (ordered[1:] == ordered[:-1]).any():
            return
        again = pd.Series(keys).duplicated().to_numpy()
        first = int(np.argmax(keys == keys[again.argmax()]))
        self.refuse(
            again,
            lambda row: f"{key_text(row)} is already in {self.line(first)}",
            "keep one row for each entity and time",
        )

    def refuse(self, bad: np.ndarray, fault: Callable[[dict], str], remedy: str) -> None:
        """Raise a UserError at the first bad row, if there is one; `fault` describes it from the row's values."""
        if bad.any():
            row = int(bad.argmax())
            count = int(np.count_nonzero(bad))
            values = {name: self.table[name][row].as_py() for name in self.table.column_names}
            more = f" ({count:,} such rows)" if count > 1 else ""
            raise UserError(f"{self.line(row)}: {fault(values)}{more}; {remedy}")

    def line(self, row: int) -> str:
        """The location of a row: `<file>, line <number>`."""
        source = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        path = self.sources[source]
        below = row - self._first_rows[source] + (HEADER_NAME in _first_line(path))
        return f"{path}, line {_line_number(path, below)}"


def key_text(row: dict) -> str:
    """A row's key, for messages."""
    return f"entity {row['entity_id']} at {row['frame_timestamp']} s"


def join(wanted: np.ndarray, found: np.ndarray) -> np.ndarray | None:
    """Position of each wanted key among those found: (wanted,) int64; None unless both hold the same keys, each once.

    Args:
        wanted, found: (rows,) integers, those wanted all different.
    """
    if np.array_equal(wanted, found):
        return np.arange(len(wanted))
    # Joining by sorting is as fast as by hashing here, and shows repeated keys and whether the sets are equal.
    order, of_wanted = np.argsort(found), np.argsort(wanted)
    if not np.array_equal(wanted[of_wanted], found[order]):
        return None
    positions = np.empty(len(wanted), np.int64)
    positions[of_wanted] = order
    return positions


def _read(path: Path, columns: tuple[str, ...], texts: Collection[str]) -> pa.Table:
    """Some columns of one csv, as text but for numbers that are not among `texts`."""
    shape = f"{', '.join(columns)}; without header, or below one with these names"
    if columns == AUGMENTED_COLUMNS:
        shape += " (data/augment_annotations.py makes it of AVA's csvs)"
    if not path.is_file():
        raise UserError(f"no file {path}: expected a csv of the columns {shape}")
    text = pa.dictionary(pa.int32(), pa.string())
    types = {name: pa.float64() if name in NUMBER_COLUMNS and name not in texts else text for name in columns}
    as_text = pa.float64() not in types.values()
    first = _first_line(path)
    header = HEADER_NAME in first
    lacking = [name for name in columns if first.count(name) != 1] if header else []
    if lacking:
        raise UserError(
            f"{path}: the header {','.join(first)[:200]} does not name {', '.join(lacking)} once: expected {shape}"
        )
    whole = AUGMENTED_COLUMNS if columns == COLUMNS and len(first) == len(AUGMENTED_COLUMNS) else columns
    try:
        table = pa.csv.read_csv(
            path,
            # On one thread Arrow counts the rows; in large blocks it is fast enough.
            pa.csv.ReadOptions(
                column_names=None if header else whole,
                use_threads=not as_text,
                block_size=1 << 24 if as_text else None,
            ),
            convert_options=pa.csv.ConvertOptions(column_types=types, null_values=[], include_columns=columns),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError, OSError) as error:
        if not as_text and isinstance(error, pa.ArrowInvalid):
            Rows([path], columns, texts=NUMBER_COLUMNS)  # names the line that does not fit
        if misshapen := MISSHAPEN_ROW.match(str(error)):
            row, expected, found, text = misshapen.groups()
            raise UserError(
                f"{path}, line {_line_number(path, int(row) - 1)}: {found} columns where {expected} are "
                f"expected ({shape}): {text[:120]!r}"
            ) from error
        raise UserError(f"{path} cannot be read ({error}): expected UTF-8 text with rows of {shape}") from error
    if not table.num_rows:
        raise UserError(f"{path} has no rows: expected rows of {shape}")
    return table


def _first_line(path: Path) -> list[str]:
    """The fields of the first line that is not empty; quotes may stand around names."""
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        lines = iter(lambda: file.readline(LONGEST_HEADER), "")
        line = next((line for line in lines if line != "\n"), "")
    return [field.strip('"') for field in line.rstrip("\n").split(",")]


def _line_number(path: Path, row: int) -> int:
    """Line, from 1, of a row, from 0, header included: the reader passes over empty lines, an editor counts them."""
    with path.open(encoding="latin-1") as file:  # a carriage return alone ends a line too, as in the reader
        lines = (number for number, line in enumerate(file, start=1) if line != "\n")
        return next(itertools.islice(lines, int(row), None))
