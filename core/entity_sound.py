"""The sound of entities, one wav each: whether it is there, and its MFCCs beside the rows of the annotations."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.lib.stride_tricks import sliding_window_view

from core.audio import (
    MFCC_COEFFICIENTS,
    MFCC_FFT,
    MFCC_PREEMPHASIS,
    MFCC_STEP,
    MFCC_WINDOW,
    TRACK_WINDOWS_PER_FRAME,
    WINDOWS_AT_ONCE,
    mfcc_of_windows,
)
from core.errors import UserError

PUBLISHED_FPS = 25  # frames a second that the MFCCs' window and step are meant for


def check_sounds(rows: pd.DataFrame, audio_dir: Path) -> None:
    """See that every entity has its `<entity_id>.wav`.

    Args:
        rows: annotations of a split.
        audio_dir: `audio_dir/<split>`.

    Raises:
        UserError: the folder or a sound is absent; the message names the first entity and its video.
    """
    if not audio_dir.is_dir():
        raise UserError(f"no sound folder {audio_dir}: run data/slice_audio_tracks.py first")
    present = {path.name for path in audio_dir.iterdir()}
    entities = rows.drop_duplicates("entity_id")
    missing = entities[~(entities["entity_id"] + ".wav").isin(present)]
    if len(missing):
        raise UserError(
            f"no sound of {len(missing)} of {len(entities)} entities in {audio_dir}, first "
            f"{missing['entity_id'].iloc[0]} of video {missing['video_id'].iloc[0]}; run data/extract_audio_tracks.py "
            "and data/slice_audio_tracks.py, or leave the video out of the csv"
        )


def frame_grid(time_s: np.ndarray) -> tuple[np.ndarray, float]:
    """The frames that a track's rows stand for, and how many there are a second.

    Timestamps are rounded, so that single intervals tell the rate badly (0.03 s and 0.04 s at 30 frames a second):
    the median interval tells how many frames lie between two rows, all of them together then tell the rate.

    Args:
        time_s: (rows,) seconds, rising.

    Returns:
        (rows,) int64, counted from the first row's frame, with a gap where rows are missing; and the frames a second,
        25 for a track of one row.
    """
    if len(time_s) == 1:
        return np.zeros(1, np.int64), float(PUBLISHED_FPS)
    intervals = np.diff(time_s)
    steps = np.maximum(np.rint(intervals / np.median(intervals)), 1)
    fps = steps.sum() / (time_s[-1] - time_s[0])
    return np.concatenate([[0], np.cumsum(steps)]).astype(np.int64), float(fps)


def mfcc_of_frames(samples: np.ndarray, frames: np.ndarray, fps: float) -> np.ndarray:
    """The MFCCs of some frames of a track, four windows a frame, as whole-track encoders take them.

    Window and step are those of python_speech_features times 25 / fps (published). Every window begins at its own
    time, rounded to a sample, where the published code adds up rounded steps: at 30 frames a second these would be
    one frame early after 13 seconds.

    Args:
        samples: (sample,) int16, the track's sound, from the time of its first frame on.
        frames: (n,) int64, counted from the track's first.
        fps: frames a second.

    Returns:
        (4 * n, 13) float32. Windows beyond the end of the sound, which the last frame of every track has, are those
        of its beginning (published); where there is no sound at all they are those of silence.
    """
    slowness = PUBLISHED_FPS / fps
    length, step = round(MFCC_WINDOW * slowness), MFCC_STEP * slowness
    there = 1 + max(0, int(np.ceil((len(samples) - length) / step)))  # windows that the sound has
    position = (TRACK_WINDOWS_PER_FRAME * frames[:, None] + np.arange(TRACK_WINDOWS_PER_FRAME)).ravel() % there
    starts = np.rint(position * step).astype(np.int64)
    fft = max(MFCC_FFT, 1 << (length - 1).bit_length())  # the published 512 would cut off windows below 20 a second
    around = np.zeros(max(len(samples), starts.max()) + length + 1, np.int16)  # one sample before, for the pre-emphasis
    around[1 : 1 + len(samples)] = samples
    windows = sliding_window_view(around, length + 1)
    out = np.empty((len(starts), MFCC_COEFFICIENTS), np.float32)
    for begin in range(0, len(starts), WINDOWS_AT_ONCE):
        part = starts[begin : begin + WINDOWS_AT_ONCE]
        signal = windows[part].astype(np.float64)
        emphasised = signal[:, 1:] - MFCC_PREEMPHASIS * signal[:, :-1]
        emphasised[part[:, None] + np.arange(length) >= len(samples)] = 0  # padded after the pre-emphasis
        out[begin : begin + len(part)] = mfcc_of_windows(torch.from_numpy(emphasised), fft)
    return out
