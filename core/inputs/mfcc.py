"""MFCCs and the samples they are computed from: of clips (two-stream encoders) and of face tracks (whole-track ones).

All numbers are those of the published code, whose weights depend on them; MFCCs are python_speech_features' defaults.
"""

import functools
from collections.abc import Sequence

import numpy as np
import python_speech_features as psf
import scipy.fft
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from core.clip_utils import GRID_FPS, MFCC_PER_FRAME
from core.formats.wav import SAMPLE_RATE

MIN_CLIP_SAMPLES = int(SAMPLE_RATE * (2 / GRID_FPS))  # 0.08 s: shorter clips count as silence
FITTED_FRAMES_PER_S = 27.0  # a clip of n frames is made n/27 s long, as the published loader does

# python_speech_features.mfcc's defaults at 16 kHz
COEFFICIENTS = 13
WINDOW = int(0.025 * SAMPLE_RATE)  # 400 samples
STEP = int(0.01 * SAMPLE_RATE)  # 160 samples
FFT = 512  # the next power of two
FILTERS = 26
LIFTER = 22
PREEMPHASIS = 0.97

WINDOWS_AT_ONCE = 500  # of a track, five seconds: their float64 values stay in a processor's cache


# ---------------------------------------------------------------- clips


def fitted_length(clip_length: int) -> int:
    """Samples that the audio of `clip_length` frames is made to have: frames / 27 s (published loader)."""
    return int((1 / FITTED_FRAMES_PER_S) * SAMPLE_RATE * clip_length)


def clip_samples(track: np.ndarray, first_s: float, last_s: float, clip_length: int) -> np.ndarray:
    """The audio of a clip, fitted to the length that the audio stream takes.

    Args:
        track: (sample,) int16 of the entity, from its first timestamp on.
        first_s, last_s: times of the clip's first and last frame, in seconds after the entity's first timestamp.
        clip_length: frames of the clip.

    Returns:
        (sample,) int16 of about `fitted_length`: the published loader's rounding leaves it up to one short or two
        long. Below 0.08 s of audio (clips clamped at a track's end, tracks of one or two rows) it is silence.
    """
    samples = track[int(first_s * SAMPLE_RATE) : int(last_s * SAMPLE_RATE)]
    if len(samples) < MIN_CLIP_SAMPLES:
        samples = np.zeros(int(SAMPLE_RATE * (clip_length / GRID_FPS)), np.int16)
    return fit(samples, fitted_length(clip_length))


def fit(samples: np.ndarray, length: int) -> np.ndarray:
    """Reflect-pad or trim both sides alike, with the published loader's rounding.

    Args:
        samples: (sample,), at least one.
        length: samples to fit to.

    Returns:
        (sample,) of the same type: `length` of them, one fewer after padding by an odd number, one or two more after
        trimming.
    """
    if len(samples) <= length:
        pad = (length - len(samples)) // 2
        return np.pad(samples, pad, mode="reflect")
    trim = (len(samples) - length - 1) // 2
    return samples[trim : len(samples) - trim]


def join_clips(clips: Sequence[np.ndarray], clip_length: int) -> tuple[Tensor, Tensor]:
    """The samples of clips (`clip_samples`) in one tensor.

    Returns:
        (clip, sample) int16, zero after each clip's end; and how many samples each clip has, (clip,) int64.
    """
    joined = torch.zeros(len(clips), fitted_length(clip_length) + 2, dtype=torch.int16)
    for row, samples in zip(joined, clips, strict=True):
        row[: len(samples)] = torch.from_numpy(samples)
    return joined, torch.tensor([len(samples) for samples in clips])


def mfcc_windows(samples: int) -> int:
    """How many windows python_speech_features makes of a number of samples."""
    return 1 if samples <= WINDOW else 1 + -(-(samples - WINDOW) // STEP)


def clip_mfcc(clips: Tensor, lengths: Tensor, windows: int) -> Tensor:
    """MFCCs of many clips at once, equal to python_speech_features' within float32 rounding, on any device.

    Args:
        clips: (clip, sample) int16; what follows each clip's own end is ignored.
        lengths: (clip,) int64, each clip's own number of samples.
        windows: analysis windows to return; where a clip has none left they are those of silence.

    Returns:
        (clip, 1, coefficient 13, window) float32.
    """
    needed = (windows - 1) * STEP + WINDOW
    padded = torch.nn.functional.pad(clips, (1, max(0, needed - clips.shape[1])))[:, : 1 + needed]
    starts = STEP * torch.arange(windows, device=clips.device)
    return _mfcc(padded.unfold(1, 1 + WINDOW, STEP), lengths[:, None] - starts).transpose(1, 2).unsqueeze(1)


def clip_loudness(mfcc: Tensor) -> Tensor:
    """How loud it is in the middle of clips: the logarithm of the energy, (clip, 1), at least 0.

    Args:
        mfcc: (clip, 1, coefficient 13, window), see `clip_mfcc`.
    """
    first = (mfcc.shape[-1] - MFCC_PER_FRAME) // 2
    return mfcc[:, 0, :1, first : first + MFCC_PER_FRAME].clamp(min=0).mean(-1)


# ---------------------------------------------------------------- face tracks


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
        out[begin : begin + len(part)] = _mfcc(
            torch.from_numpy(windows[part]), torch.from_numpy(len(samples) - part), fft
        )
    return out


def track_loudness(mfcc: Tensor) -> Tensor:
    """How loud it is at each frame of a track: the logarithm of the energy, (n,), at least 0 (digital silence is -36).

    Args:
        mfcc: (4 * n, 13), see `track_mfcc`.
    """
    return mfcc[:, 0].clamp(min=0).unflatten(0, (-1, MFCC_PER_FRAME)).mean(1)


# ---------------------------------------------------------------- one window


def _mfcc(windows: Tensor, own: Tensor, fft: int = FFT) -> Tensor:
    """MFCCs of windows of one length: (..., 1 + sample) int16 -> (..., coefficient 13) float32.

    Computed in float64: in float32 the spectrum of quiet bands beside loud ones loses the digits that the logarithm
    then shows.

    Args:
        windows: with the sample before each one, for the pre-emphasis.
        own: (...) int64, how many of a window's samples belong to the audio; those behind are padded with zeros after
            the pre-emphasis, as python_speech_features does.
        fft: points of the spectrum, at least as many as a window has samples.
    """
    signal = windows.to(torch.float64)
    emphasised = torch.sub(signal[..., 1:], signal[..., :-1], alpha=PREEMPHASIS)
    emphasised.masked_fill_(torch.arange(emphasised.shape[-1], device=own.device) >= own[..., None], 0.0)
    spectrum = torch.fft.rfft(emphasised, fft)
    power = (spectrum.real.square() + spectrum.imag.square()) / fft  # (..., bin)
    filters, cosines = _matrices(fft)
    smallest = torch.finfo(torch.float64).eps  # replaces zero before a logarithm, as in python_speech_features
    energy = power.sum(-1)
    bands = power @ filters.to(windows.device)
    bands = bands.masked_fill_(bands == 0, smallest).log_()
    coefficients = bands @ cosines.to(windows.device)
    coefficients[..., 0] = energy.masked_fill_(energy == 0, smallest).log_()
    return coefficients.to(torch.float32)


@functools.cache
def _matrices(fft: int) -> tuple[Tensor, Tensor]:
    """The mel filters (bin, filter) and the liftered cosine transform (filter, coefficient), float64."""
    filters = psf.get_filterbanks(FILTERS, fft, SAMPLE_RATE)
    cosines = scipy.fft.dct(np.eye(FILTERS), type=2, axis=1, norm="ortho")[:, :COEFFICIENTS]
    return torch.from_numpy(filters.T.copy()), torch.from_numpy(psf.lifter(np.ascontiguousarray(cosines), LIFTER))
