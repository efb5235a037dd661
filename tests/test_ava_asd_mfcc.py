"""MFCCs against librosa's numbers and its formula, and their normalisation."""

import numpy as np
import pytest
import scipy.fft

from ava_asd.mfcc import mfcc, normalised, vectors

# librosa 0.11.0: feature.mfcc of power_to_db of its mel filters on |stft|^2 with n_fft=1102, hop_length=441 and
# pad_mode="reflect", the default of librosa 0.7; coefficients 0 to 3 of the vectors 0, 5, 20 and 50.
LIBROSA = {
    0: (-295.291, 239.525, 21.875, 23.830),
    5: (-614.047, 48.762, 40.461, 27.719),
    20: (-326.316, 18.596, 17.794, 10.286),
    50: (-375.101, -20.272, -3.026, -6.201),
}


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(7).normal(0, 0.1, samples).astype(np.float32)


def test_mfccs_are_those_of_librosa():
    time = np.arange(22050) / 44100
    audio = 0.3 * np.sin(2 * np.pi * 440 * time) * (time < 0.3) + 0.1 * noise(22050) * (time > 0.1)
    found = mfcc(audio.astype(np.float32), 44100, coefficients=13, window=1102, stride=441)
    assert found.shape == (13, 51)
    assert found.dtype == np.float32
    for vector, values in LIBROSA.items():
        np.testing.assert_allclose(found[:4, vector], values, atol=2e-3)


@pytest.mark.parametrize(("rate", "window", "stride"), [(22050, 551, 220), (11025, 275, 110)])
def test_a_window_of_an_odd_number_of_samples(rate, window, stride):
    """The formula of librosa 0.7: the bins lie evenly from 0 to half of the sample rate."""
    audio = noise(8 * stride)
    padded = np.pad(audio.astype(float), window // 2, mode="reflect")
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    spectra = [np.fft.rfft(padded[first : first + window] * hann) for first in range(0, 8 * stride, stride)]
    mels = np.linspace(0, 15 + 27 * np.log(rate / 2000) / np.log(6.4), 130)  # Slaney's: linear up to 1 kHz, mel 15
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * np.exp(np.log(6.4) / 27 * (mels - 15)))
    low, centre, high = (edges[part, None] for part in (slice(-2), slice(1, -1), slice(2, None)))
    bins = np.linspace(0, rate / 2, window // 2 + 1)
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    decibels = 10 * np.log10(np.maximum(filters @ np.abs(spectra).T ** 2, 1e-10))
    expected = scipy.fft.dct(np.maximum(decibels, decibels.max() - 80), axis=0, norm="ortho")[:13]
    np.testing.assert_allclose(mfcc(audio, rate, coefficients=13, window=window, stride=stride), expected, atol=1e-3)


@pytest.mark.parametrize(("window", "stride"), [(400, 160), (551, 220), (275, 110), (1102, 441)])
def test_the_number_of_vectors(window, stride):
    for samples in (100 * stride - 1, 100 * stride, 100 * stride + 1):
        found = mfcc(noise(samples), 16000, coefficients=13, window=window, stride=stride)
        assert found.shape[1] == vectors(samples, window, stride)


def test_long_audio_is_worked_on_in_parts(monkeypatch):
    whole = mfcc(noise(16000), 16000, coefficients=13, window=400, stride=160)
    monkeypatch.setattr("ava_asd.mfcc.WINDOWS_AT_ONCE", 7)
    np.testing.assert_allclose(mfcc(noise(16000), 16000, coefficients=13, window=400, stride=160), whole, atol=1e-3)


@pytest.mark.parametrize(
    ("mean", "deviation", "expected"),
    [
        (True, True, [[-1, 1], [0, 0]]),
        (True, False, [[-2, 2], [0, 0]]),
        (False, True, [[0.5, 2.5], [3, 3]]),
        (False, False, [[1, 5], [3, 3]]),
    ],
)
def test_normalisation(mean, deviation, expected):
    values = np.array([[1, 5], [3, 3]], np.float32)  # the second coefficient never changes
    np.testing.assert_allclose(normalised(values, mean=mean, deviation=deviation), expected)
