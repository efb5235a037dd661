"""From a network's logits to the score of a row: median filter within an entity, then the probability of speaking."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.ndimage import median_filter
from scipy.special import expit

from core.clip_utils import run_lengths


def speaking_probability(
    logits: np.ndarray, entity_ids: Sequence[str] | np.ndarray, median_window: int = 1
) -> np.ndarray:
    """Probability of speaking for each row.

    The median filter runs over time on each logit column of one entity, and never sees another entity. Beyond the
    ends of an entity it sees zeros, as the published postprocessing (scipy.signal.medfilt) does at the ends of its
    one long track: the first and last rows are drawn towards 0.5, and an entity of fewer rows than half the window
    gets 0.5 throughout. The softmax of two logits is the logistic function of their difference.

    Args:
        logits: (rows, [not speaking, speaking]) finite numbers; one entity's rows are contiguous, in time order.
        entity_ids: (rows,) entity of each row.
        median_window: rows, odd; 1 = no filter.

    Returns:
        (rows,) float64, 0 to 1, not rounded.

    Raises:
        ValueError: shapes differ, a logit is not finite, the window is not odd and positive, or an entity's rows are
            not contiguous.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if logits.ndim != 2 or logits.shape[1] != 2:
        raise ValueError(f"logits must have shape (rows, 2), got {logits.shape}")
    if not np.isfinite(logits).all():
        row = int(np.flatnonzero(~np.isfinite(logits).all(axis=1))[0])
        raise ValueError(f"the logits of row {row} are {logits[row].tolist()}, expected finite numbers")
    if median_window != int(median_window) or median_window < 1 or median_window % 2 == 0:
        raise ValueError(f"median_window is {median_window}, expected an odd number of rows (1 = no filter)")
    track = _track_of_each_row(np.asarray(entity_ids), len(logits))
    if median_window > 1:
        logits = _median_within_tracks(logits, track, int(median_window))
    return expit(logits[:, 1] - logits[:, 0])


def _track_of_each_row(entity_ids: np.ndarray, rows: int) -> np.ndarray:
    """(rows,) number of the entity in order of appearance, after the checks that `speaking_probability` names."""
    if entity_ids.shape != (rows,):
        raise ValueError(f"need one entity id for each of {rows} rows, got shape {entity_ids.shape}")
    starts, lengths = run_lengths(entity_ids)
    again = pd.Series(entity_ids[starts]).duplicated().to_numpy()
    if again.any():
        row = starts[again.argmax()]
        raise ValueError(f"row {row} goes on with entity {entity_ids[row]}, whose rows must be contiguous")
    return np.repeat(np.arange(len(starts)), lengths)


def _median_within_tracks(logits: np.ndarray, track: np.ndarray, window: int) -> np.ndarray:
    # One filter call for all: half a window of zeros between two entities keeps each out of the other's windows.
    half = window // 2
    position = np.arange(len(logits)) + half * track
    filtered = np.empty_like(logits)
    for column in range(logits.shape[1]):
        spread = np.zeros(position[-1] + 1 if len(position) else 0)
        spread[position] = logits[:, column]
        filtered[:, column] = median_filter(spread, size=window, mode="constant", cval=0.0)[position]
    return filtered
