"""MFCCs of face tracks, which whole-track encoders hear, and of single windows of audio.

All numbers are those of the published code, whose weights depend on them; MFCCs are python_speech_features' defaults.
"""

import functools
from types import ModuleType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from core.clip_utils import COEFFICIENTS, GRID_FPS, MFCC_PER_FRAME, SAMPLE_RATE

# python_speech_features.mfcc's defaults at 16 kHz
WINDOW = int(0.025 * SAMPLE_RATE)  # 400 samples
STEP = int(0.01 * SAMPLE_RATE)  # 160 samples
FFT = 512  # the next power of two
FILTERS = 26
LIFTER = 22
PREEMPHASIS = 0.97

WINDOWS_AT_ONCE = 500  # of a track, five seconds: their float64 values stay in a processor's cache
EPSILON = np.finfo(np.float64).eps  # replaces zero before a logarithm, as in python_speech_features


def track_samples(frames: int) -> int:
    """Samples at 16 kHz that `track_mfcc` needs for the first `frames` frames of a track at 25 a second."""
    return MFCC_PER_FRAME * frames * STEP + WINDOW - STEP


def frame_grid(time_s: np.ndarray) -> tuple[np.ndarray, float]:
    """The frames that a track's rows stand for, and how many there are a second.

    Timestamps are rounded, so that a single interval is a poor measure of the rate (0.03 s and 0.04 s at 30 frames a
    second): the median interval gives how many frames lie between two rows, all of them together then give the rate.

    Args:
        time_s: (row,) seconds, rising.

    Returns:
        (row,) int64, counted from the first row's frame, with a gap where rows are missing; and the frames a second,
        25 for a track of one row.
    """
    if len(time_s) == 1:
        return np.zeros(1, np.int64), float(GRID_FPS)
    intervals = np.diff(time_s)
    steps = np.maximum(np.rint(intervals / np.median(intervals)), 1)
    fps = steps.sum() / (time_s[-1] - time_s[0])
    return np.concatenate([[0], np.cumsum(steps)]).astype(np.int64), float(fps)


def track_mfcc(samples: np.ndarray, frames: np.ndarray, fps: float = GRID_FPS) -> np.ndarray:
    """The MFCCs of some frames of a face track, four windows a frame, as whole-track encoders take them.

    Window and step are those of python_speech_features times 25 / fps (published). Every window begins at its own
    time, rounded to a sample, where the published code adds up rounded steps: at 30 frames a second these would be
    one frame early after 13 seconds.

    Args:
        samples: (sample,) int16, the track's audio, from the time of its first frame on.
        frames: (n,) int64, counted from the track's first.
        fps: frames a second.

    Returns:
        (4 * n, 13) float32. Windows beyond the end of the audio, which the last frame of every annotated track has,
        are those of its beginning (published); where there is no audio at all they are those of silence.
    """
    slowness = GRID_FPS / fps
    length, step = round(WINDOW * slowness), STEP * slowness
    there = 1 + max(0, int(np.ceil((len(samples) - length) / step)))  # windows that the audio has
    numbers = (MFCC_PER_FRAME * frames[:, None] + np.arange(MFCC_PER_FRAME)).ravel() % there
    starts = np.rint(numbers * step).astype(np.int64)
    fft = max(FFT, 1 << (length - 1).bit_length())  # the published 512 would cut off windows below 20 a second
    padded = np.zeros(1 + max(len(samples), starts.max()) + length, np.int16)
    padded[1 : 1 + len(samples)] = samples
    windows = sliding_window_view(padded, 1 + length)
    out = np.empty((len(starts), COEFFICIENTS), np.float32)
    for begin in range(0, len(starts), WINDOWS_AT_ONCE):
        part = starts[begin : begin + WINDOWS_AT_ONCE]
        out[begin : begin + len(part)] = cepstra(windows[part], len(samples) - part, np, fft)
    return out


def track_heard(mfcc: np.ndarray) -> np.ndarray:
    """What is heard at each frame of a track: the mean of its MFCCs, (n, 13).

    The first is how loud it is, the logarithm of the energy, at least 0 (that of digital silence is -36).

    Args:
        mfcc: (4 * n, 13), see `track_mfcc`.
    """
    heard = mfcc.reshape(-1, MFCC_PER_FRAME, COEFFICIENTS).copy()
    heard[..., 0] = np.maximum(heard[..., 0], 0)
    return heard.mean(1)


def cepstra(windows: Any, own: Any, namespace: ModuleType, fft: int = FFT) -> Any:
    """MFCCs of windows of one length: (..., 1 + sample) int16 -> (..., coefficient 13) float32.

    Computed in float64: in float32 the spectrum of quiet bands beside loud ones loses the digits that the logarithm
    then shows.

    Args:
        windows: array or tensor, with the sample before each window, for the pre-emphasis.
        own: (...) int64, how many of a window's samples belong to the audio; those behind are padded with zeros after
            the pre-emphasis, as python_speech_features does.
        namespace: NumPy or PyTorch, whose arrays these are.
        fft: points of the spectrum, at least as many as a window has samples.
    """
    xp = namespace
    signal = xp.asarray(windows, dtype=xp.float64)
    emphasised = signal[..., 1:] - PREEMPHASIS * signal[..., :-1]
    emphasised[xp.arange(emphasised.shape[-1], device=own.device) >= own[..., None]] = 0.0
    spectrum = xp.fft.rfft(emphasised, fft)
    power = (spectrum.real**2 + spectrum.imag**2) / fft  # (..., bin)
    filters, cosines = (xp.asarray(matrix, device=own.device) for matrix in _matrices(fft))
    energy, bands = power.sum(-1), power @ filters
    for values in (energy, bands):
        values[values == 0] = EPSILON
    coefficients = xp.log(bands) @ cosines
    coefficients[..., 0] = xp.log(energy)
    return xp.asarray(coefficients, dtype=xp.float32)


@functools.cache
def _matrices(fft: int) -> tuple[np.ndarray, np.ndarray]:
    """The mel filters (bin, filter) and the liftered cosine transform (filter, coefficient), float64."""
    mel = np.linspace(0, 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700), FILTERS + 2)
    edges = np.floor((fft + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE)  # bins where a filter begins and ends
    bins, (low, middle, high) = np.arange(fft // 2 + 1)[:, None], (edges[:-2], edges[1:-1], edges[2:])
    rises, falls = (low <= bins) & (bins < middle), (middle <= bins) & (bins < high)
    filters = rises * (bins - low) / np.maximum(middle - low, 1) + falls * (high - bins) / np.maximum(high - middle, 1)
    numbers = np.arange(COEFFICIENTS)
    cosines = np.cos(np.pi * numbers * (np.arange(FILTERS)[:, None] + 0.5) / FILTERS) * np.sqrt(2 / FILTERS)
    cosines[:, 0] /= np.sqrt(2)
    return filters, cosines * (1 + LIFTER / 2 * np.sin(np.pi * numbers / LIFTER))
