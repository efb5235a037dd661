"""Mel-frequency cepstral coefficients as the published system takes them from librosa 0.7, with its defaults.

Not those of `core.media.audio`: the window is Hann's and centred, the 128 mel bands are Slaney's and reach to half of
the sound's own sample rate, levels are decibels down to 80 below the loudest. Published weights depend on all of it.
"""

import functools

import numpy as np
import scipy.fft
import torch

BANDS = 128
RANGE_DB = 80.0
LEAST_POWER = 1e-10
WINDOWS_AT_ONCE = 4096  # bounds the memory that the spectra of a long sound take
# The mel scale of Slaney's Auditory Toolbox: 3 mel each 200 Hz up to 1 kHz, above it 27 mel each factor of 6.4.
HZ_PER_MEL = 200 / 3
LINEAR_UP_TO_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27


def mfcc(samples: np.ndarray, sample_rate: int, coefficients: int, window_s: float, stride_s: float) -> np.ndarray:
    """The MFCCs of a sound; vector i is of the window around sample i * stride.

    Args:
        samples: (sample,) float, -1 to 1; more than half a window.
        sample_rate: samples per second.
        coefficients: of a vector, at most `BANDS`.
        window_s, stride_s: seconds; both become whole numbers of samples.

    Returns:
        (coefficient, vector) float32, `vectors` of them.
    """
    window, stride = whole_samples(window_s, sample_rate), whole_samples(stride_s, sample_rate)
    padded = np.pad(np.asarray(samples, np.float32), window // 2, mode="reflect")
    windows = torch.from_numpy(padded).unfold(0, window, stride)
    hann, filters = torch.hann_window(window), torch.from_numpy(mel_filters(sample_rate, window))
    parts = [torch.fft.rfft(part * hann).abs().square() @ filters.T for part in windows.split(WINDOWS_AT_ONCE)]
    decibels = 10 * torch.log10(torch.cat(parts).clamp(min=LEAST_POWER))
    decibels = decibels.clamp(min=float(decibels.max()) - RANGE_DB).numpy()
    return np.ascontiguousarray(scipy.fft.dct(decibels, norm="ortho")[:, :coefficients].T, np.float32)


def vectors(samples: int, sample_rate: int, window_s: float, stride_s: float) -> int:
    """How many vectors `mfcc` makes of a number of samples."""
    window, stride = whole_samples(window_s, sample_rate), whole_samples(stride_s, sample_rate)
    return 1 + (samples + window // 2 * 2 - window) // stride


def normalised(mfccs: np.ndarray, *, mean: bool, deviation: bool) -> np.ndarray:
    """Take away each coefficient's mean over time, and divide by its standard deviation, as asked.

    Args:
        mfccs: (coefficient, vector) float32. A coefficient that never changes has no deviation to divide by.
        mean, deviation: what is done.

    Returns:
        (coefficient, vector) float32.
    """
    deviations = mfccs.std(axis=1, keepdims=True, dtype=np.float64)
    mfccs = mfccs - mfccs.mean(axis=1, keepdims=True, dtype=np.float64) if mean else mfccs
    mfccs = mfccs / np.where(deviations > 0, deviations, 1) if deviation else mfccs
    return mfccs.astype(np.float32)


def whole_samples(seconds: float, sample_rate: int) -> int:
    """How many samples a window or a stride takes: cut off, not rounded, as published."""
    return int(sample_rate * seconds)


@functools.cache
def mel_filters(sample_rate: int, window: int) -> np.ndarray:
    """Triangles of equal area, evenly spaced in mel from 0 to half of the sample rate: (band, bin) float32."""
    bins = np.fft.rfftfreq(window, 1 / sample_rate)
    edges = _hertz(np.linspace(0, _mel(sample_rate / 2), BANDS + 2))
    widths = np.diff(edges)
    rising = (bins - edges[:-2, None]) / widths[:-1, None]
    falling = (edges[2:, None] - bins) / widths[1:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def _mel(hertz: float) -> float:
    linear = hertz / HZ_PER_MEL
    if hertz < LINEAR_UP_TO_HZ:
        return linear
    return LINEAR_UP_TO_HZ / HZ_PER_MEL + np.log(hertz / LINEAR_UP_TO_HZ) / LOG_STEP


def _hertz(mel: np.ndarray) -> np.ndarray:
    knee = LINEAR_UP_TO_HZ / HZ_PER_MEL
    return np.where(mel < knee, mel * HZ_PER_MEL, LINEAR_UP_TO_HZ * np.exp(LOG_STEP * (mel - knee)))
