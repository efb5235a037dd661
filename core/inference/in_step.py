"""Whether a face and the audio are in step: what a context network is told of it besides the encoder's scores.

A mouth that moves beside somebody else's voice scores nearly as well with audio from a second earlier; one that is
heard does not. And where a mouth is heard it moves while the audio is loud, and rests in the pauses. The embeddings of
both are there already, so this costs the encoder's last layers alone.
"""

from collections.abc import Callable

import numpy as np

STEPS = 12_000  # time steps scored at once, of all shifts together: few shifts of a long track
SHIFTS = (-25, -18, -12, -8, 8, 12, 18, 25)  # frames, of 1/25 s: beyond what a dubbed mouth may be out of step
AROUND = 25  # time steps on either side over which a correlation is taken; with 10 or 50 it tells less
SMOOTHING = 5.0  # standard deviation, in time steps, of the bell that both are smoothed with before: about a syllable
MEAN = np.full(2 * AROUND + 1, 1 / (2 * AROUND + 1))
BELL = np.exp(-(np.arange(-20.0, 21.0) ** 2) / (2 * SMOOTHING**2))
BELL /= BELL.sum()
LEAST = 1e-3  # added to the product of the variances: what does not change correlates with nothing


def in_step(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    audio: np.ndarray,
    visual: np.ndarray,
    video_logits: np.ndarray,
    loudness: np.ndarray,
) -> np.ndarray:
    """What tells of one track whether its face and the audio are in step.

    Args:
        score: the encoder's last layers: embeddings of audio and faces, each (batch, time, ...), to logits
            (batch, time, [not speaking, speaking]).
        audio, visual: the track's embeddings, (time, ...).
        video_logits: by the faces alone, (time, [not speaking, speaking]).
        loudness: of the audio, logarithm of its energy, (time,).

    Returns:
        (time, [mean, maximum, correlation]) float32: the log odds of speaking with the audio shifted in a circle, over
        `SHIFTS`; and how the video's log odds follow the loudness, -1 to 1.
    """
    parts, at_once = [], max(1, STEPS // len(audio))
    for begin in range(0, len(SHIFTS), at_once):
        shifted = np.stack([np.roll(audio, shift, axis=0) for shift in SHIFTS[begin : begin + at_once]])
        logits = score(shifted, np.repeat(visual[None], len(shifted), axis=0))
        parts.append(logits[..., 1] - logits[..., 0])
    odds = np.concatenate(parts)
    correlation = correlated(video_logits[:, 1] - video_logits[:, 0], loudness)
    return np.stack((odds.mean(0), odds.max(0), correlation), axis=1).astype(np.float32)


def correlated(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The correlation of two series (time,) around each time: of deviations from a moving mean, -1 to 1, float64.

    Both are smoothed first. Beyond the ends they stay as they are there.
    """
    first, second = (values - _weighted(values, MEAN) for values in (_weighted(first, BELL), _weighted(second, BELL)))
    product, *squares = (_weighted(a * b, MEAN) for a, b in ((first, second), (first, first), (second, second)))
    return product / np.sqrt(squares[0] * squares[1] + LEAST)


def _weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean around each time, (time,), by an odd number of weights, (step,), which are the same in either order."""
    return np.convolve(np.pad(values, len(weights) // 2, mode="edge"), weights, mode="valid")
