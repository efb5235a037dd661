"""Csvs in the official format, without header, read straight into typed columns.

`core.formats.ava` keeps the text of every number, which preparation needs. Evaluation compares numbers, as the official
tool does, so its files go into typed columns: several times faster, in a fraction of the memory. A file that does not
fit its types is read a second time, as text, to name the line.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.csv

from core.formats.ava import BOX_COLUMNS, COLUMNS
from core.runtime.errors import UserError

PREDICTION_COLUMNS = (*COLUMNS, "score")
NUMBER_COLUMNS = ("frame_timestamp", *BOX_COLUMNS, "score")


class Rows:
    """Rows of one or several csvs, in the order of the files.

    Args:
        sources: the files.
        columns: `COLUMNS` or `PREDICTION_COLUMNS`.

    Raises:
        UserError: a file is absent, empty or has not these columns, or a number is not finite; with file and line.

    Attributes:
        sources: the files.
        table: float64 for `NUMBER_COLUMNS`, dictionary-encoded text for the others; each column in one chunk.
    """

    def __init__(self, sources: Sequence[Path], columns: tuple[str, ...]):
        self.sources = list(sources)
        tables = [_read(path, columns) for path in self.sources]
        self._first_rows = np.cumsum([0, *(table.num_rows for table in tables[:-1])])
        self.table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
        # Arrow keeps what reading has used for later; on AVA's val split that is 80 MB for each file.
        del tables
        pa.default_memory_pool().release_unused()
        for name in self.table.column_names:
            if name in NUMBER_COLUMNS:
                bad = ~np.isfinite(self.numbers(name))
                self.refuse(bad, lambda row, name=name: f"{name} is {row[name]}", "expected a finite number")

    def __len__(self) -> int:
        return self.table.num_rows

    def numbers(self, column: str) -> np.ndarray:
        """(rows,) float64."""
        return self.table[column].to_numpy()

    def codes(self, column: str) -> np.ndarray:
        """(rows,) int32, index into `names(column)`."""
        return self.table[column].chunk(0).indices.to_numpy()

    def names(self, column: str) -> pa.Array:
        """The distinct texts of a column."""
        return self.table[column].chunk(0).dictionary

    def is_text(self, column: str, accepted: Sequence[str]) -> np.ndarray:
        """(rows,) bool: the text of a column is one of `accepted`."""
        return np.isin(self.names(column).to_pylist(), accepted)[self.codes(column)]

    def line(self, row: int) -> str:
        """Where a row stands: `<file>, line <number>`."""
        source = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        return f"{self.sources[source]}, line {_line_number(self.sources[source], row - self._first_rows[source])}"

    def refuse(self, bad: np.ndarray, fault: Callable[[dict], str], remedy: str) -> None:
        """Raise a UserError at the first bad row, if there is one; `fault` tells it from the row's values."""
        if bad.any():
            row = int(bad.argmax())
            count = int(np.count_nonzero(bad))
            values = {name: self.table[name][row].as_py() for name in self.table.column_names}
            more = f" ({count:,} such rows)" if count > 1 else ""
            raise UserError(f"{self.line(row)}: {fault(values)}{more}; {remedy}")


def _read(path: Path, columns: tuple[str, ...]) -> pa.Table:
    """One csv without header as typed columns; a UserError names the line that does not fit."""
    if not path.is_file():
        raise UserError(f"no file {path}: expected a csv without header, of the columns {', '.join(columns)}")
    text = pa.dictionary(pa.int32(), pa.string())
    types = {name: pa.float64() if name in NUMBER_COLUMNS else text for name in columns}
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(column_names=columns),
            convert_options=pa.csv.ConvertOptions(column_types=types, null_values=[]),
        )
    except pa.ArrowInvalid as error:
        _explain(path, columns, error)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not table.num_rows:
        _explain(path, columns, "it has no rows")
    return table


def _explain(path: Path, columns: tuple[str, ...], error: Exception | str) -> NoReturn:
    """Read a file that the typed reader refused again as text, on one thread, where Arrow counts the rows."""
    misshapen = []

    def note_first(row: pa.csv.InvalidRow) -> str:
        if not misshapen:
            misshapen.append(row)
        return "skip"

    whole = UserError(f"{path} cannot be read ({error}): expected rows of {', '.join(columns)}, without header")
    try:
        table = pa.csv.read_csv(
            path,
            read_options=pa.csv.ReadOptions(column_names=columns, use_threads=False),
            parse_options=pa.csv.ParseOptions(invalid_row_handler=note_first),
            convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), null_values=[]),
        )
    except pa.ArrowInvalid:
        raise whole from None
    if misshapen:
        row = misshapen[0]
        raise UserError(
            f"{path}, line {_line_number(path, row.number - 1)}: {row.actual_columns} columns where "
            f"{row.expected_columns} are expected ({', '.join(columns)}): {row.text[:120]!r}"
        )
    faults = [
        (row, name, value)
        for name in NUMBER_COLUMNS
        if name in columns
        for row, value in itertools.islice(_not_numbers(table[name].to_pylist()), 1)
    ]
    if not faults:
        raise whole
    row, name, value = min(faults)
    header = "; if this is a header, take it away: the official format has no header" if row == 0 else ""
    raise UserError(f"{path}, line {_line_number(path, row)}: {name} is {value!r}, expected a finite number{header}")


def _not_numbers(values: list[str]) -> Iterator[tuple[int, str]]:
    for row, value in enumerate(values):
        try:
            float(value)
        except ValueError:
            yield row, value


def _line_number(path: Path, row: int) -> int:
    """Line, from 1, of a row, from 0: the reader passes over empty lines, an editor counts them."""
    with open(path, "rb") as file:
        lines = (number for number, line in enumerate(file, start=1) if line.strip(b"\r\n"))
        return next(itertools.islice(lines, int(row), None))
