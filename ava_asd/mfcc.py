"""Mel-frequency cepstral coefficients as the published system takes them from librosa 0.7, with its defaults.

Not those of `core.inputs.mfcc`: the window is Hann's and centred, the 128 mel bands are Slaney's and reach to half of
the audio's own sample rate, levels are decibels down to 80 below the loudest. Published weights depend on all of it.
"""

import math

import numpy as np
import torch
from torchaudio import functional as AF

VERSION = 2  # of the numbers: another version's MFCCs are extracted anew
BANDS = 128
RANGE_DB = 80.0
LEAST_POWER = 1e-10
WINDOWS_AT_ONCE = 4096  # limits the memory that the spectra of a long recording take


def mfcc(samples: np.ndarray, sample_rate: int, *, coefficients: int, window: int, stride: int) -> np.ndarray:
    """The MFCCs of audio; vector i is of the window around sample i * stride.

    Args:
        samples: (sample,) float, -1 to 1; more than half a window.
        sample_rate: samples per second.
        coefficients: of a vector, at most `BANDS`.
        window, stride: samples, of `whole_samples`.

    Returns:
        (coefficient, vector) float32, `vectors` of them.
    """
    padded = np.pad(np.asarray(samples, np.float32), window // 2, mode="reflect")
    windows = torch.from_numpy(padded).unfold(0, window, stride)
    hann = torch.hann_window(window)
    filters = mel_filters(sample_rate / 2, window // 2 + 1)
    parts = [torch.fft.rfft(part * hann).abs().square() @ filters for part in windows.split(WINDOWS_AT_ONCE)]
    decibels = AF.amplitude_to_DB(torch.cat(parts), 10.0, LEAST_POWER, 0.0, top_db=RANGE_DB)
    return (decibels @ AF.create_dct(coefficients, BANDS, "ortho")).T.contiguous().numpy()


def mel_filters(highest_hz: float, bins: int) -> torch.Tensor:
    """Slaney's mel bands as triangles of equal area, (bin, band) float32.

    Not torchaudio's: it rounds half of an odd sample rate down, which moves coefficients at 11,025 Hz by 0.4.

    Args:
        highest_hz: half of the sample rate, at least 1000.
        bins: how many; they lie evenly from 0 to `highest_hz`.
    """
    # A mel is 200 / 3 Hz up to 1 kHz, and above a factor of the 27th root of 6.4.
    mels = torch.linspace(0, 15 + 27 * math.log(highest_hz / 1000, 6.4), BANDS + 2, dtype=torch.float64)
    edges = torch.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    hz = torch.linspace(0, highest_hz, bins, dtype=torch.float64)[:, None]
    triangles = torch.minimum((hz - low) / (centre - low), (high - hz) / (high - centre)).clamp(min=0)
    return (triangles * 2 / (high - low)).float()


def vectors(samples: int, window: int, stride: int) -> int:
    """How many vectors `mfcc` makes of a number of samples."""
    return 1 + (samples + window // 2 * 2 - window) // stride


def normalised(mfccs: np.ndarray, *, mean: bool, deviation: bool) -> np.ndarray:
    """Subtract each coefficient's mean over time, and divide by its standard deviation, as asked.

    Args:
        mfccs: (coefficient, vector) float32. A coefficient that never changes has no deviation to divide by.
        mean, deviation: whether to subtract the mean, and to divide by the deviation.

    Returns:
        (coefficient, vector) float32.
    """
    deviations = mfccs.std(axis=1, keepdims=True, dtype=np.float64)
    mfccs = mfccs - mfccs.mean(axis=1, keepdims=True, dtype=np.float64) if mean else mfccs
    mfccs = mfccs / np.where(deviations > 0, deviations, 1) if deviation else mfccs
    return mfccs.astype(np.float32)


def whole_samples(seconds: float, sample_rate: int) -> int:
    """How many samples a window or a stride takes: truncated, not rounded, as published."""
    return int(sample_rate * seconds)
