"""MFCCs of clips, and the samples they are computed from: what two-stream encoders hear.

All numbers are those of the published code, whose weights depend on them.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from core.clip_utils import GRID_FPS, MFCC_PER_FRAME, SAMPLE_RATE
from core.inputs.mfcc import STEP, WINDOW, cepstra

MIN_CLIP_SAMPLES = int(SAMPLE_RATE * (2 / GRID_FPS))  # 0.08 s: shorter clips count as silence
FITTED_FRAMES_PER_S = 27.0  # a clip of n frames is made n/27 s long, as the published loader does


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
    windows = cepstra(padded.unfold(1, 1 + WINDOW, STEP), lengths[:, None] - starts, torch)
    return windows.transpose(1, 2).unsqueeze(1)


def clip_heard(mfcc: Tensor) -> Tensor:
    """What is heard in the middle of clips, (clip, 13), as `core.inputs.mfcc.track_heard` gives it.

    Args:
        mfcc: (clip, 1, coefficient 13, window), see `clip_mfcc`.
    """
    first = (mfcc.shape[-1] - MFCC_PER_FRAME) // 2
    heard = mfcc[:, 0, :, first : first + MFCC_PER_FRAME].clone()
    heard[:, 0] = heard[:, 0].clamp(min=0)
    return heard.mean(-1)
