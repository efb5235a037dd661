"""Joining rows by their key (entity_id, frame_timestamp), never by their position."""

import numpy as np
import pandas as pd

from core.errors import UserError

EXAMPLES = 3


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
