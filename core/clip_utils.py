"""Index arithmetic of clips and contexts, as pure functions on row numbers; and the sizes that networks share.

A track is an entity's rows, contiguous and in time order, `first` to `last` inclusive. Windows that reach over a
track's end repeat its end row (published behaviour).
"""

import numpy as np

GRID_FPS = 25  # frames per second of AVA's annotations and of whatever the networks are given
CLASSES = 2  # not speaking, speaking
SPEAKING_THRESHOLD = 0.5  # a face counts as speaking from this probability on: of two classes the surer one
FACE_SIZE = 112  # pixels, side of the grey faces that whole-track encoders take
CROP_SIZE = 144  # pixels, side of the crops in colour that encoders of clips take
COEFFICIENTS = 13  # of an MFCC
MFCC_PER_FRAME = 4  # windows of the former's MFCCs to a frame
SAMPLE_RATE = 16_000  # samples of audio per second, mono, 16 bit


def clip_window(centre: np.ndarray, first: np.ndarray, last: np.ndarray, length: int, stride: int = 1) -> np.ndarray:
    """Rows of the windows around `centre`, clamped to their tracks.

    Args:
        centre: (window,) int row numbers.
        first, last: (window,) int, the ends of each window's track.
        length: rows in a window, odd.
        stride: rows between neighbours in the window.

    Returns:
        (window, length) int64: centre - (length // 2) * stride ... centre + (length // 2) * stride, clamped.
    """
    offsets = (np.arange(length) - length // 2) * stride
    rows = np.asarray(centre)[..., None] + offsets
    return np.clip(rows, np.asarray(first)[..., None], np.asarray(last)[..., None])


def track_bounds(entity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last row of each row's track.

    Args:
        entity: (row,) labels, equal ones contiguous.

    Returns:
        Two (row,) int64 arrays.
    """
    starts, lengths = run_lengths(entity)
    return np.repeat(starts, lengths), np.repeat(starts + lengths - 1, lengths)


def run_lengths(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and lengths of the runs of equal neighbours, each (run,) int64."""
    values = np.asarray(values)
    if len(values) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return starts, np.diff(np.append(starts, len(values)))


def speaker_slots(others: np.ndarray, speakers: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Choose the context speakers of many targets at once.

    The target takes the first slot. The others visible with it follow, each once before any is repeated; when there
    are more of them than slots, a random choice (or, without a generator, the first ones) is kept; when there are
    fewer, the remaining slots repeat them (the published multiset rule); alone, the target fills all slots.

    Args:
        others: (target,) int, how many other entities are visible with each target.
        speakers: slots S, at least 1.
        rng: generator for training; None makes the choice deterministic (evaluation).

    Returns:
        (target, speaker) int64: -1 for the target, else the number of the other, 0 <= n < others.
    """
    others = np.asarray(others)
    targets, most = len(others), int(others.max(initial=0))
    slots = np.full((targets, speakers), -1, np.int64)
    if most == 0 or speakers == 1:
        return slots
    present = np.arange(most) < others[:, None]
    if rng is None:
        order = np.where(present, np.arange(most), most)
    else:
        order = np.where(present, rng.random((targets, most)), 2.0)
    ranked = np.argsort(order, axis=1, kind="stable")  # (target, most): those present first, in their drawn order
    fill = np.arange(speakers - 1)
    accompanied = others > 0
    count = np.maximum(others, 1)[:, None]
    if rng is None:
        pick = fill % count
    else:  # beyond the first round the published code draws with replacement
        pick = np.where(fill < count, fill, (rng.random((targets, speakers - 1)) * count).astype(np.int64))
    chosen = np.take_along_axis(ranked, pick, axis=1)
    slots[accompanied, 1:] = chosen[accompanied]
    return slots
