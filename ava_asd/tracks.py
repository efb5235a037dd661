"""Face tracks on a grid of `fps` faces a second, and the windows that are samples: pure functions on tables."""

import numpy as np
import pandas as pd

from core.clip_utils import run_lengths
from core.formats.ava import sort_tracks

TRACK_GAP_S = 0.1  # a longer time without a row ends a track (published)
ROUNDING = 1e-6  # of a frame or of a second: times are decimals, and 2.3 * 10 is less than 23


def face_grid(rows: pd.DataFrame, fps: float) -> pd.DataFrame:
    """Thin the annotations of a video out to `fps` faces a second.

    A track is an entity's rows without a gap of more than 0.1 s. The points of its grid lie at its first time and every
    1 / fps after it, up to its last time; each point takes the row nearest in time, the earlier of two. Where there are
    fewer than `fps` rows a second, rows are repeated.

    Args:
        rows: annotations of a video, with `ava.COLUMNS`.
        fps: faces a second.

    Returns:
        The rows taken, by entity and time, with time_s (float64, seconds) and track (int64, from 0).
    """
    rows = sort_tracks(rows)
    time, entity = rows["time_s"].to_numpy(), rows["entity_id"].to_numpy()
    begins = (entity[1:] != entity[:-1]) | (np.diff(time) > TRACK_GAP_S + ROUNDING)
    track = np.concatenate([[0], np.cumsum(begins)])
    runs = zip(*run_lengths(track), strict=True)
    taken = np.concatenate([start + _nearest(time[start : start + length], fps) for start, length in runs])
    return rows.iloc[taken].assign(track=track[taken]).reset_index(drop=True)


def window_starts(track: np.ndarray, length: int, stride: int) -> np.ndarray:
    """Where the windows of all tracks begin.

    Args:
        track: (face,) int, tracks of a grid; equal values are contiguous.
        length: faces in a window.
        stride: faces from one window to the next.

    Returns:
        (window,) int64 rows; each window lies within its track.
    """
    runs = zip(*run_lengths(track), strict=True)
    starts = [np.arange(start, start + faces - length + 1, stride) for start, faces in runs]
    return np.concatenate(starts).astype(np.int64)


def frame_numbers(time_s: np.ndarray, start_s: float, fps: float) -> np.ndarray:
    """The extracted frame that a face is cut from, (face,) int64, from 1.

    The published rule: the whole part of the frames since start_ts is taken for a number that counts from 1. At 10
    frames a second, of which each shows the middle of its slot, a frame shows what was 0.07 to 0.17 s before, with
    video of 24 to 30 frames a second. Published weights were trained with that.

    Args:
        time_s: (face,) float64 seconds.
        start_s: time of frame 1.
        fps: extracted frames a second.
    """
    return np.maximum(np.floor((time_s - start_s) * fps + ROUNDING), 1).astype(np.int64)


def _nearest(time: np.ndarray, fps: float) -> np.ndarray:
    """For each point of a track's grid the nearest of its ascending times."""
    points = time[0] + np.arange(int((time[-1] - time[0]) * fps + ROUNDING) + 1) / fps
    after = np.searchsorted(time, points).clip(1, max(1, len(time) - 1))
    if len(time) == 1:
        return np.zeros(len(points), np.int64)
    nearer_before = points - time[after - 1] <= time[after] - points + ROUNDING
    return np.where(nearer_before, after - 1, after)
