"""How a window moves over frames: smoothly with a face, or at rest and cutting to where it is needed."""

import math
from collections.abc import Iterator

import numpy as np
from scipy.ndimage import gaussian_filter1d

from core.media.container import VideoInfo

STEP_S = 0.04  # of the grid on which paths are made


def smoothed(centres: np.ndarray, sigma_s: float) -> np.ndarray:
    """A path averaged over neighbours with Gaussian weights; nowhere faster than before.

    Args:
        centres: (n, [x, y]), a position every `STEP_S`.
        sigma_s: standard deviation of the weights, seconds.

    Returns:
        (n, 2) float64.
    """
    return gaussian_filter1d(np.asarray(centres, np.float64), sigma_s / STEP_S, axis=0, mode="nearest")


def grid(start_s: float, end_s: float) -> np.ndarray:
    """Times every `STEP_S` from `start_s` on and before `end_s`, at least one: (n,) float64."""
    return start_s + STEP_S * np.arange(max(1, math.ceil((end_s - start_s) / STEP_S - 1e-6)))


def middles(boxes: np.ndarray) -> np.ndarray:
    """The middles of boxes, (n, [x1, y1, x2, y2]) -> (n, [x, y])."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def along(values: np.ndarray, times_s: np.ndarray, at_s: np.ndarray) -> np.ndarray:
    """Values (n, value) known at some times, at others: (m, value); beyond the ends those of the ends."""
    return np.stack([np.interp(at_s, times_s, column) for column in np.transpose(values)], axis=-1)


def inside(centres: np.ndarray, shape: tuple[int, int], info: VideoInfo) -> np.ndarray:
    """Middles of a window moved so that it lies in the frame; in the middle of the frame where it is larger.

    Args:
        centres: (n, [x, y]), pixels.
        shape: width and height of the window, pixels.
        info: the video's.

    Returns:
        (n, [x, y]) float64.
    """
    size, half = np.array([info.width, info.height]), np.array(shape) / 2
    return np.clip(centres, np.minimum(half, size / 2), np.maximum(size - half, size / 2))


def follow(
    targets: np.ndarray, reach: np.ndarray, free: np.ndarray, fastest: np.ndarray, begin: np.ndarray | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """Keep targets in view with as little motion as may be, in parts between which the camera cuts.

    The camera rests while the target is within `free` of it, else it goes after it, no faster than `fastest`; a target
    that gets out of `reach` all the same is cut to.

    Args:
        targets: (n, [x, y]), a position every `STEP_S`.
        reach, free: ([x, y],), how far the target may be from the camera, pixels.
        fastest: ([x, y],), pixels a step.
        begin: where the camera is; None where it may begin anywhere.

    Yields:
        The first step of a part, and the camera's positions in it, (steps, [x, y]) float64.
    """
    first, camera = 0, _resting_place(targets, free) if begin is None else begin
    path: list[np.ndarray] = []
    for step, target in enumerate(targets):
        away = target - camera
        if (np.abs(away) > reach).any():
            if path:
                yield first, np.array(path)
            first, path, camera = step, [], _resting_place(targets[step:], free)
            away = target - camera
        camera = camera + np.clip(np.sign(away) * np.maximum(np.abs(away) - free, 0), -fastest, fastest)
        path.append(camera)
    yield first, np.array(path)


def _resting_place(targets: np.ndarray, free: np.ndarray) -> np.ndarray:
    """From where as many targets as possible, beginning with the first, are within `free`: ([x, y],)."""
    highest, lowest = np.maximum.accumulate(targets), np.minimum.accumulate(targets)
    last = np.flatnonzero(np.logical_and.accumulate((highest - lowest <= 2 * free).all(axis=1)))[-1]
    return (highest[last] + lowest[last]) / 2
