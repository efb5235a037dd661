"""Faces and voices: whether a mouth is in step with what is heard, and whose voice it is.

A mouth that moves beside somebody else's voice scores nearly as well with audio from a second earlier; one that is
heard does not. And where a mouth is heard it moves while the audio is loud, and rests in the pauses (`in_step`). The
embeddings of both are there already, so this costs the encoder's last layers alone.

The context network follows these scores over some seconds, but does not hear. The voices of a shot differ: scores at
times that sound alike tell more of a face than those of all times (`by_voice`). Nothing is trained for it. While people
speak a `VoiceMemory` keeps what this needs.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from core.clip_utils import COEFFICIENTS, GRID_FPS
from core.inputs.shots import TrackFeatures
from core.people.clustering import group_tracks

STEPS = 12_000  # time steps scored at once, of all shifts together: few shifts of a long track
SHIFTS = (-25, -18, -12, -8, 8, 12, 18, 25)  # frames, of 1/25 s: beyond what a dubbed mouth may be out of step
AROUND = 25  # time steps on either side over which a correlation is taken; with 10 or 50 it tells less
SMOOTHING = 5.0  # standard deviation, in time steps, of the bell that both are smoothed with before: about a syllable
MEAN = np.full(2 * AROUND + 1, 1 / (2 * AROUND + 1))
LEAST = 1e-3  # added to the product of the variances: what does not change correlates with nothing
SYLLABLES = 10.0  # standard deviation, in time steps, of the bell that MFCCs are smoothed with: a few syllables
ALIKE = 7.0  # standard deviation of the bell of weights over the distance between smoothed MFCCs
APART = GRID_FPS  # time steps: nearer ones sound alike whoever speaks
EVERY = 5  # of the other times one in so many is looked at: they are smoothed
WITHIN = 60 * GRID_FPS  # time steps: those further away are not looked at, so that work for a second does not grow
VOICE_REACH = WITHIN + round(4 * SYLLABLES)  # time steps to either side that what a voice adds depends on
MOST_GONE = 50  # faces that are gone and remembered; of more of them the last
SELDOM = 0.05  # probability that is added to both, so that never is not infinitely less than seldom
WEIGHT = 1.5  # of what the voice tells


def in_step(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    audio: np.ndarray,
    visual: np.ndarray,
    video_logits: np.ndarray,
    loudness: np.ndarray,
    *,
    goes_on: bool = False,
) -> np.ndarray:
    """What tells of one track whether its face and the audio are in step.

    Args:
        score: the encoder's last layers: embeddings of audio and faces, each (batch, time, ...), to logits
            (batch, time, [not speaking, speaking]).
        audio, visual: the track's embeddings, (time, ...).
        video_logits: by the faces alone, (time, [not speaking, speaking]).
        loudness: of the audio, logarithm of its energy, (time,).
        goes_on: the track has not ended: near its end shifts do not count that would need the audio to come.

    Returns:
        (time, [mean, maximum, correlation]) float32: the log odds of speaking with the audio shifted in a circle, over
        `SHIFTS`; and how the video's log odds follow the loudness, -1 to 1.
    """
    parts, at_once = [], max(1, STEPS // len(audio))
    for begin in range(0, len(SHIFTS), at_once):
        shifted = np.stack([np.roll(audio, shift, axis=0) for shift in SHIFTS[begin : begin + at_once]])
        logits = score(shifted, np.repeat(visual[None], len(shifted), axis=0))
        parts.append(logits[..., 1] - logits[..., 0])
    odds, to_come = np.concatenate(parts), np.arange(len(audio))[::-1]
    counts = np.add.outer(SHIFTS, to_come) >= 0 if goes_on else True
    mean, highest = odds.mean(0, where=counts), odds.max(0, where=counts, initial=-np.inf)
    correlation = correlated(video_logits[:, 1] - video_logits[:, 0], loudness)
    return np.stack((mean, highest, correlation), axis=1).astype(np.float32)


def correlated(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The correlation of two series (time,) around each time: of deviations from a moving mean, -1 to 1, float64.

    Both are smoothed first. Beyond the ends they stay as they are there.
    """
    smooth = (weighted_means(values, bell(SMOOTHING)) for values in (first, second))
    first, second = (values - weighted_means(values, MEAN) for values in smooth)
    product, *squares = (weighted_means(a * b, MEAN) for a, b in ((first, second), (first, first), (second, second)))
    return product / np.sqrt(squares[0] * squares[1] + LEAST)


def by_voice(odds: np.ndarray, present: np.ndarray, heard: np.ndarray, now: slice) -> np.ndarray:
    """What voices add to the log odds of faces seen together at some times, (face, now) float32.

    The logarithm of how much more probably than usual a face spoke at times that sounded alike, times `WEIGHT`; 0 where
    there are none.

    Args:
        odds: log odds of speaking, (face, time), of any value where a face is absent.
        present: (face, time) bool.
        heard: MFCCs, (time, 13).
        now: the time steps that are wanted, of those that are given.
    """
    smooth = bell(SYLLABLES)
    sounds = np.stack([weighted_means(column, smooth) for column in heard.T], axis=1) / ALIKE
    steps = np.arange(len(heard))
    wanted, then = steps[now], steps[EVERY // 2 :: EVERY]
    squares = (sounds**2).sum(1)
    distances = squares[wanted, None] + squares[then] - 2 * sounds[wanted] @ sounds[then].T
    away = np.abs(wanted[:, None] - then)
    others = (away > APART) & (away <= WITHIN) & present[:, then].any(0)
    least = np.where(others, distances, np.inf).min(1, keepdims=True, initial=1e9)  # what is most alike weighs 1
    there = present[:, then].astype(np.float64)
    spoke = there / (1 + np.exp(-odds[:, then]))

    def share(weights: np.ndarray) -> np.ndarray:
        """The mean probability of each face, (face, now); not a number of one that was hardly there."""
        seen = there @ weights.T
        return np.divide(spoke @ weights.T, seen, out=np.full(seen.shape, np.nan), where=seen > 1e-6)

    alike = np.where(others, np.exp(np.minimum(least - distances, 0) / 2), 0)
    ratio = (share(alike) + SELDOM) / (share(others.astype(np.float64)) + SELDOM)
    return (WEIGHT * np.log(np.nan_to_num(ratio, nan=1.0))).astype(np.float32)


def weighted_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean around each time, (time,), by an odd number of weights, (step,), which are the same in either order.

    Beyond the ends values stay as they are there.
    """
    return np.convolve(np.pad(values, len(weights) // 2, mode="edge"), weights, mode="valid")


def bell(deviation: float) -> np.ndarray:
    """Weights, (step,), of a normal distribution out to four standard deviations; a deviation is in time steps."""
    steps = np.arange(-round(4 * deviation), round(4 * deviation) + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    return weights / weights.sum()


@dataclass(eq=False)
class Remembered:
    """What is remembered of a face.

    Attributes:
        first, last: numbers of its first and last time step, on a grid that all faces share.
        heard: MFCCs of the last of its steps, (time, 13) float32.
        logits: of the same steps, without what voices add, (time, [not speaking, speaking]) float32.
        embedding: (feature,) float32 of length 1, by which it is found alike to others, or None.
    """

    first: int
    last: int
    heard: np.ndarray
    logits: np.ndarray
    embedding: np.ndarray | None


class VoiceMemory:
    """What the faces of a stream were heard and seen to do, of which it is told what their voices add.

    It holds what `ResidualScorer.with_voices` looks at, a minute, so that neither it nor the work with it grows.

    Args:
        with_voices: as `ResidualScorer.with_voices`; None where voices add nothing.
        max_distance: mean cosine distance up to which faces that are not seen at once share a voice.
    """

    def __init__(self, with_voices: Callable[..., list[np.ndarray]] | None, max_distance: float):
        self.with_voices, self.max_distance = with_voices, max_distance
        self.faces: dict[Hashable, Remembered] = {}
        self.begin: int | None = None  # the first time step of all

    def note(
        self, face: Hashable, first: int, told: TrackFeatures, logits: np.ndarray, embedding: np.ndarray | None
    ) -> None:
        """Remember a face, in place of what was known before of the same time steps.

        Args:
            face: any object that stands for it.
            first: number of its first time step.
            told: its last steps, which follow those that were noted before or overlap them; of the features the last
                13, what is heard, are read.
            logits: of these, without what voices add, (time, [not speaking, speaking]) float32.
            embedding: (feature,) float32 of length 1, or None.
        """
        heard, before = told.features[:, -COEFFICIENTS:], self.faces.get(face)
        if before is not None:
            kept = len(before.heard) - (before.last + 1 - told.first)
            heard = np.concatenate((before.heard[:kept], heard))
            logits = np.concatenate((before.logits[:kept], logits))
        self.faces[face] = Remembered(first, told.end - 1, heard, logits, embedding)
        self.begin = told.first if self.begin is None else self.begin

    def scores(self, since: int) -> dict[Hashable, np.ndarray]:
        """The logits of all faces that are remembered, with what voices add from a time step on, (time, [not speaking,
        speaking]) float32; what voices from there on do not depend on is then forgotten."""
        known = list(self.faces.values())
        logits = [one.logits for one in known]
        if self.with_voices is not None and known:
            tracks = [TrackFeatures(one.last + 1 - len(one.heard), one.heard) for one in known]
            spans = [(one.first, one.last) for one in known]
            persons = group_tracks([one.embedding for one in known], spans, self.max_distance)
            logits = self.with_voices(tracks, logits, persons, since)
        scores = dict(zip(self.faces, logits, strict=True))
        self._forget(since)
        return scores

    def _forget(self, since: int) -> None:
        # By whole `EVERY`, so that the same of the other times are looked at as if nothing were forgotten.
        least = self.begin + (since - VOICE_REACH - self.begin) // EVERY * EVERY
        gone = sorted((face for face, known in self.faces.items() if known.last < since), key=self._last)
        too_many = set(gone[: max(0, len(gone) - MOST_GONE)])
        for face, known in list(self.faces.items()):
            if known.last < least or face in too_many:
                del self.faces[face]
            else:
                kept = slice(-(known.last + 1 - least), None)
                known.heard, known.logits = known.heard[kept].copy(), known.logits[kept].copy()

    def _last(self, face: Hashable) -> int:
        return self.faces[face].last
