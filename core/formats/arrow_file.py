"""Arrow IPC files, mapped into memory: one way to open them, which checks all that reading relies on."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pyarrow as pa

from core.runtime.errors import UserError

TypeCheck = Callable[[pa.DataType], bool]


def open_arrow(
    path: str | Path,
    columns: Mapping[str, TypeCheck],
    remedy: str,
    optional: Mapping[str, TypeCheck] = MappingProxyType({}),
) -> pa.Table:
    """Map a file into memory; what is read of it is the schema, and how rows are divided into batches.

    Args:
        path: file of `pyarrow.ipc.new_file`.
        columns: name -> whether a type is right.
        remedy: what to do about a file that is not as expected, for the message.
        optional: columns that may be absent; the file may have others besides.

    Returns:
        these columns, without nulls; no offset, index or text leads outside the file or is not UTF-8.

    Raises:
        UserError: the file is absent, damaged, or lacks a column of the right type.
    """
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            schema = reader.schema
            columns = {**columns, **{name: check for name, check in optional.items() if name in schema.names}}
            faults = [_fault(schema, name, is_right) for name, is_right in columns.items()]
            if not any(faults):
                table = reader.read_all().select(list(columns))
                table.validate(full=True)
                faults = [f"column {name} has gaps" for name in columns if table[name].null_count]
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        faults = [" ".join(str(error).split())]
    if any(faults):
        raise UserError(f"{path} is damaged or of another kind ({', '.join(filter(None, faults))}): {remedy}")
    return table


def is_text(kind: pa.DataType) -> bool:
    """Text, or numbers of a dictionary of texts."""
    return pa.types.is_string(kind.value_type if pa.types.is_dictionary(kind) else kind)


def is_number(kind: pa.DataType) -> bool:
    """Whole numbers, or float64."""
    return pa.types.is_integer(kind) or pa.types.is_float64(kind)


def is_vectors(kind: pa.DataType) -> bool:
    """Lists of one length of float16 or float32."""
    return (
        pa.types.is_fixed_size_list(kind)
        and kind.list_size > 0
        and (pa.types.is_float16(kind.value_type) or pa.types.is_float32(kind.value_type))
    )


def lists_of(size: int) -> TypeCheck:
    """Whether a type is lists of so many float32."""
    return lambda kind: is_vectors(kind) and kind.list_size == size and pa.types.is_float32(kind.value_type)


def fixed_lists(values: np.ndarray) -> pa.FixedSizeListArray:
    """(row, column) as lists of one length, one a row."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])


def _fault(schema: pa.Schema, name: str, is_right: TypeCheck) -> str | None:
    if schema.get_field_index(name) < 0:  # absent, or there twice
        return f"it has no column {name}" if name not in schema.names else f"it has several columns {name}"
    kind = schema.field(name).type
    return None if is_right(kind) else f"column {name} is of type {kind}"
