"""MFCCs and the samples they are made of: of a clip, of a whole track, beside the rows of the annotations.

All numbers are those of the published code, whose weights depend on them; MFCCs are python_speech_features' defaults.
"""

import functools

import numpy as np
import python_speech_features as psf
import scipy.fft
import torch
from numpy.lib.stride_tricks import sliding_window_view

from core.clip_utils import GRID_FPS, MFCC_PER_FRAME
from core.formats.wav import SAMPLE_RATE

MIN_CLIP_SAMPLES = int(SAMPLE_RATE * (2 / GRID_FPS))  # 0.08 s: shorter clips count as silence
FITTED_FRAMES_PER_S = 27.0  # a clip of n frames is made n/27 s long, as the published loader does

# python_speech_features.mfcc's defaults at 16 kHz
MFCC_COEFFICIENTS = 13
MFCC_WINDOW = int(0.025 * SAMPLE_RATE)  # 400 samples
MFCC_STEP = int(0.01 * SAMPLE_RATE)  # 160 samples
MFCC_FFT = 512  # the next power of two
MFCC_FILTERS = 26
MFCC_LIFTER = 22
MFCC_PREEMPHASIS = 0.97

WINDOWS_AT_ONCE = 6000  # a minute; bounds the memory that a long track's MFCCs take


def fitted_length(clip_length: int) -> int:
    """Samples that the sound of `clip_length` frames is made to have: frames / 27 s (published loader)."""
    return int((1 / FITTED_FRAMES_PER_S) * SAMPLE_RATE * clip_length)


def clip_samples(track: np.ndarray, first_s: float, last_s: float, clip_length: int) -> np.ndarray:
    """The sound of a clip, fitted to the length that the audio stream takes.

    Args:
        track: (samples,) int16 of the entity, from its first timestamp on.
        first_s, last_s: times of the clip's first and last frame, in seconds after the entity's first timestamp.
        clip_length: frames of the clip.

    Returns:
        (samples,) int16 of about `fitted_length`: the published loader's rounding leaves it up to one short or two
        long. Below 0.08 s of sound (clips clamped at a track's end, tracks of one or two rows) it is silence.
    """
    samples = track[int(first_s * SAMPLE_RATE) : int(last_s * SAMPLE_RATE)]
    if len(samples) < MIN_CLIP_SAMPLES:
        samples = np.zeros(int(SAMPLE_RATE * (clip_length / GRID_FPS)), np.int16)
    return fit(samples, fitted_length(clip_length))


def fit(samples: np.ndarray, length: int) -> np.ndarray:
    """Reflect-pad or trim both sides alike, with the published loader's rounding."""
    if len(samples) <= length:
        pad = (length - len(samples)) // 2
        return np.pad(samples, pad, mode="reflect")
    trim = (len(samples) - length - 1) // 2
    return samples[trim : len(samples) - trim]


def mfcc(samples: np.ndarray) -> np.ndarray:
    """One clip's MFCCs by python_speech_features: (1, coefficient 13, window) float32."""
    return psf.mfcc(samples, SAMPLE_RATE).T[None].astype(np.float32)


def mfcc_windows(samples: int) -> int:
    """How many windows python_speech_features makes of a number of samples."""
    return 1 if samples <= MFCC_WINDOW else 1 + -(-(samples - MFCC_WINDOW) // MFCC_STEP)


def batch_mfcc(clips: torch.Tensor, lengths: torch.Tensor, windows: int | None = None) -> torch.Tensor:
    """MFCCs of many clips at once, equal to python_speech_features' within float32 rounding, on any device.

    Args:
        clips: (batch, samples) int16 or float, zero after each clip's own end.
        lengths: (batch,) int64, each clip's own number of samples.
        windows: analysis windows to return; by default those of the whole `samples` axis.

    Returns:
        (batch, 1, coefficient 13, window) float32. Computed in float64: in float32 the spectrum of quiet bands
        beside loud ones loses the digits that the logarithm then shows.
    """
    windows = windows or mfcc_windows(clips.shape[1])
    emphasised = _emphasised(clips)
    position = torch.arange(clips.shape[1], device=clips.device)
    emphasised.masked_fill_(position >= lengths[:, None], 0.0)
    return _windowed_mfcc(emphasised, windows).unsqueeze(1)


def _emphasised(clips: torch.Tensor) -> torch.Tensor:
    """(batch, sample) -> the same in float64, each sample less most of the one before it."""
    signal = clips.to(torch.float64)
    emphasised = signal.clone()
    emphasised[:, 1:] -= MFCC_PREEMPHASIS * signal[:, :-1]
    return emphasised


def _windowed_mfcc(emphasised: torch.Tensor, windows: int) -> torch.Tensor:
    """(batch, sample) float64 -> (batch, coefficient 13, window) float32."""
    needed = (windows - 1) * MFCC_STEP + MFCC_WINDOW
    emphasised = torch.nn.functional.pad(emphasised, (0, max(0, needed - emphasised.shape[1])))[:, :needed]
    return mfcc_of_windows(emphasised.unfold(1, MFCC_WINDOW, MFCC_STEP)).transpose(1, 2)


def mfcc_of_windows(windows: torch.Tensor, fft: int = MFCC_FFT) -> torch.Tensor:
    """MFCCs of windows of pre-emphasised sound: (..., sample) float64 -> (..., coefficient 13) float32.

    Args:
        windows: of one length.
        fft: points of the spectrum, at least as many as a window has samples.
    """
    spectrum = torch.fft.rfft(windows, fft)
    power = (spectrum.real.square() + spectrum.imag.square()) / fft  # (..., bin)
    filters, cosines = _mfcc_matrices(fft)
    smallest = torch.finfo(torch.float64).eps  # stands for zero before a logarithm, as in python_speech_features
    energy = power.sum(-1)
    bands = power @ filters.to(windows.device)
    bands = bands.masked_fill_(bands == 0, smallest).log_()
    coefficients = bands @ cosines.to(windows.device)
    coefficients[..., 0] = energy.masked_fill_(energy == 0, smallest).log_()
    return coefficients.to(torch.float32)


def track_samples(frames: int) -> int:
    """Samples at 16 kHz that the MFCCs of a track of `frames` frames at 25 a second are made of."""
    return MFCC_PER_FRAME * frames * MFCC_STEP + MFCC_WINDOW - MFCC_STEP


def track_mfcc(samples: np.ndarray, frames: int) -> np.ndarray:
    """The MFCCs of a face track at 25 frames a second, four windows a frame, as whole-track encoders take them.

    The numbers are python_speech_features'; memory does not grow with the track but for the result.

    Args:
        samples: (sample,) int16 from the time of the track's first frame on; `track_samples(frames)` of them are used,
            what is missing counts as silence.
        frames: of the track.

    Returns:
        (4 * frames, 13) float32.
    """
    windows = MFCC_PER_FRAME * frames
    out = np.empty((windows, MFCC_COEFFICIENTS), np.float32)
    for start in range(0, windows, WINDOWS_AT_ONCE):
        count = min(WINDOWS_AT_ONCE, windows - start)
        # A sample more at the front, 0 before the first one: it is in no window, but the pre-emphasis needs it.
        block = np.zeros(1 + (count - 1) * MFCC_STEP + MFCC_WINDOW, np.int16)
        before = start * MFCC_STEP - 1
        given = samples[max(0, before) : before + len(block)]
        block[max(0, -before) :][: len(given)] = given
        out[start : start + count] = _windowed_mfcc(_emphasised(torch.from_numpy(block)[None])[:, 1:], count)[0].T
    return out


@functools.cache
def _mfcc_matrices(fft: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mel filters (bin, filter) and the liftered cosine transform (filter, coefficient), float64."""
    filters = psf.get_filterbanks(MFCC_FILTERS, fft, SAMPLE_RATE)
    cosines = scipy.fft.dct(np.eye(MFCC_FILTERS), type=2, axis=1, norm="ortho")[:, :MFCC_COEFFICIENTS]
    cosines = psf.lifter(cosines, MFCC_LIFTER)
    return torch.from_numpy(filters.T.copy()), torch.from_numpy(np.ascontiguousarray(cosines))


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
        return np.zeros(1, np.int64), float(GRID_FPS)
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
    slowness = GRID_FPS / fps
    length, step = round(MFCC_WINDOW * slowness), MFCC_STEP * slowness
    there = 1 + max(0, int(np.ceil((len(samples) - length) / step)))  # windows that the sound has
    position = (MFCC_PER_FRAME * frames[:, None] + np.arange(MFCC_PER_FRAME)).ravel() % there
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
