"""Curves of the synthetic set that are not speech: how heads sway, eyes blink, and mouths move without a voice."""

from collections.abc import Callable

import numpy as np

Curves = tuple[np.ndarray, np.ndarray]  # (frame,) opening of the mouth, 0 to 1; (frame,) its width, -1 to 1
GESTURE_S = (0.8, 4.0)


def drift(rng: np.random.Generator, times: np.ndarray, fastest_hz: float) -> np.ndarray:
    """A slow random curve of about unit size, (frame,): three sines of up to `fastest_hz`; times in seconds."""
    rates, phases = rng.uniform(0.1, fastest_hz, 3), rng.uniform(0, 2 * np.pi, 3)
    return np.sin(2 * np.pi * rates * times[:, None] + phases).mean(1) * 1.6


def random_times(rng: np.random.Generator, times: np.ndarray, per_s: float) -> np.ndarray:
    """Random times in seconds, `per_s` of them a second on average."""
    return rng.uniform(0, times[-1], rng.poisson(per_s * times[-1]))


def bumps(times: np.ndarray, centres: np.ndarray, length_s: float) -> np.ndarray:
    """A curve (frame,) that rises to 1 and falls back within `length_s` around each centre."""
    phase = np.clip((times - centres[:, None]) / length_s, -0.5, 0.5)
    return (np.cos(np.pi * phase) ** 2).max(0, initial=0.0)


def resting_mouth(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """What a mouth does without speech, (frame,) opening: it trembles a little, and opens once in a while."""
    gestures = bumps(times, random_times(rng, times, 0.15), rng.uniform(0.3, 0.8)) * rng.uniform(0.15, 0.45)
    return np.maximum(0.05 * drift(rng, times, 1.5), gestures)


def gestures(rng: np.random.Generator, times: np.ndarray, per_s: float) -> Curves:
    """Laughing, singing, chewing and smiling, `per_s` of them a second on average; times in seconds."""
    opening, width = np.zeros(len(times)), np.zeros(len(times))
    for start_s in np.sort(random_times(rng, times, per_s)):
        during = (times >= start_s) & (times < start_s + rng.uniform(*GESTURE_S))
        if during.any():
            kind = GESTURES[rng.integers(len(GESTURES))]
            opening[during], width[during] = kind(rng, times[during] - times[during][0])
    return opening, width


def _laughing(rng: np.random.Generator, times: np.ndarray) -> Curves:
    pulses = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(3.5, 6) * times)
    level = rng.uniform(0.3, 0.7) * np.ones(len(times))
    return level * (0.6 + 0.4 * pulses), np.full(len(times), rng.uniform(0.5, 1))


def _singing(rng: np.random.Generator, times: np.ndarray) -> Curves:
    notes = np.abs(np.sin(np.pi * rng.uniform(0.5, 2) * times + rng.uniform(0, np.pi))) ** 0.5
    return rng.uniform(0.5, 1.0) * notes, 0.7 * drift(rng, times, 1.0).clip(-1, 1)


def _chewing(rng: np.random.Generator, times: np.ndarray) -> Curves:
    phase = 2 * np.pi * rng.uniform(1, 2) * times
    return rng.uniform(0.05, 0.25) * (0.5 + 0.5 * np.sin(phase)), rng.uniform(0.2, 0.6) * np.sin(phase + 1)


def _smiling(rng: np.random.Generator, times: np.ndarray) -> Curves:
    return np.full(len(times), rng.uniform(0, 0.2)), np.full(len(times), rng.uniform(0.5, 1))


GESTURES: tuple[Callable[[np.random.Generator, np.ndarray], Curves], ...] = (_laughing, _singing, _chewing, _smiling)
