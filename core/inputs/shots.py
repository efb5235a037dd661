"""Whole shots for the residual context network: the faces seen together, on a grid of 25 time steps a second."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from core.clip_utils import GRID_FPS, run_lengths

LONGEST_GAP_S = 0.5  # a face that has no row for longer is absent in between


@dataclass(frozen=True)
class TrackFeatures:
    """An encoder's features of one face.

    Attributes:
        first: number of its first time step, on a grid of 25 a second that all faces of the shot share.
        features: (time step, feature) float16 or float32; for the residual network what `told` gives.
    """

    first: int
    features: np.ndarray

    @property
    def end(self) -> int:
        return self.first + len(self.features)


@dataclass(frozen=True)
class Shot:
    """Faces seen together.

    Attributes:
        cues: (face, time, `core.models.residual_context.CUES`) float32.
        heard: MFCCs, (time, 13) float32; at times without a face, between those before and after.
        present: (face, time) bool.
        labels: (face, time) int64, 1 where the face is heard speaking.
        rows: of the video, in the order of `places`, (row,).
        places: face and time step of each row, the latter a fraction, (row, 2) float64.
    """

    cues: np.ndarray
    heard: np.ndarray
    present: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    places: np.ndarray

    def at_rows(self, values: np.ndarray) -> np.ndarray:
        """Values (face, time) interpolated between time steps at the times of `rows`: (row,) of the same type."""
        out = np.empty(len(self.rows), values.dtype)
        for face in range(len(values)):
            own = self.places[:, 0] == face
            out[own] = np.interp(self.places[own, 1], np.arange(values.shape[1]), values[face])
        return out


def cues(logits: np.ndarray, video_logits: np.ndarray, in_step: np.ndarray) -> np.ndarray:
    """What the residual context network reads, (row, `CUES`) float32.

    Args:
        logits, video_logits: (row, [not speaking, speaking]).
        in_step: (row, [mean, maximum, correlation]), see `core.inference.voices`.
    """
    logit, video_logit = logits[:, 1] - logits[:, 0], video_logits[:, 1] - video_logits[:, 0]
    *shifted, correlation = in_step.T
    return np.stack([logit, video_logit, *(logit - odds for odds in shifted), correlation], axis=1).astype(np.float32)


def told(logits: np.ndarray, video_logits: np.ndarray, in_step: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """What the residual context needs of a face: its cues and MFCCs `heard`, (row, 13); (row, `CUES` + 13) float32."""
    return np.concatenate((cues(logits, video_logits, in_step), heard), axis=1)


def at_steps(places: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Values (n, column) at places on the grid, (n,), in any order, interpolated: (size, column) float32."""
    order = np.argsort(places, kind="stable")
    columns = [np.interp(np.arange(size), places[order], column[order]) for column in values.T]
    return np.stack(columns, axis=1).astype(np.float32)


def shots_in(
    entities: np.ndarray, times_s: np.ndarray, cues: np.ndarray, heard: np.ndarray, labels: np.ndarray
) -> Iterator[Shot]:
    """The shots of one video, as `seen_together` finds them.

    Args:
        entities: (row,) int64, equal for rows of one entity, which are contiguous.
        times_s: (row,) float64, rising within an entity.
        cues: (row, `CUES`) float32.
        heard: MFCCs, (row, 13) float32.
        labels: (row,) int64.
    """
    for tracks in seen_together(entities, times_s):
        yield _shot(tracks, times_s, cues, heard, labels)


def seen_together(entities: np.ndarray, times_s: np.ndarray) -> Iterator[list[np.ndarray]]:
    """The rows of each track of each shot: tracks that overlap in time, or both overlap a third, are of one.

    Annotated tracks end at cuts.

    Args:
        entities: (row,), equal for rows of one entity, which are contiguous; one row at least.
        times_s: (row,) float64, rising within an entity.
    """
    starts, lengths = run_lengths(entities)
    tracks = [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    tracks.sort(key=lambda rows: times_s[rows[0]])
    together: list[np.ndarray] = []
    end_s = -np.inf
    for rows in tracks:
        if together and times_s[rows[0]] > end_s:
            yield together
            together, end_s = [], -np.inf
        together.append(rows)
        end_s = max(end_s, times_s[rows[-1]])
    yield together


def _shot(
    tracks: list[np.ndarray], times_s: np.ndarray, cues: np.ndarray, heard: np.ndarray, labels: np.ndarray
) -> Shot:
    origin_s = min(times_s[rows[0]] for rows in tracks)
    steps = [(times_s[rows] - origin_s) * GRID_FPS for rows in tracks]
    size = 1 + max(int(np.ceil(own[-1] - 1e-6)) for own in steps)
    grid = np.arange(size)
    faces = len(tracks)
    shot = Shot(
        cues=np.zeros((faces, size, cues.shape[1]), np.float32),
        heard=at_steps(np.concatenate(steps), heard[np.concatenate(tracks)], size),
        present=np.zeros((faces, size), bool),
        labels=np.zeros((faces, size), np.int64),
        rows=np.concatenate(tracks),
        places=np.concatenate([np.stack([np.full(len(own), n), own], axis=1) for n, own in enumerate(steps)]),
    )
    for face, (rows, own) in enumerate(zip(tracks, steps, strict=True)):
        after = np.clip(np.searchsorted(own, grid), 0, len(own) - 1)
        before = np.maximum(after - 1, 0)
        near = np.minimum(np.abs(own[after] - grid), np.abs(own[before] - grid))
        shot.present[face] = near <= LONGEST_GAP_S * GRID_FPS / 2
        shot.present[face] &= (grid >= np.floor(own[0] + 1e-6)) & (grid <= np.ceil(own[-1] - 1e-6))
        shot.cues[face] = at_steps(own, cues[rows], size)
        nearest = np.where(np.abs(own[before] - grid) <= np.abs(own[after] - grid), before, after)
        shot.labels[face] = labels[rows[nearest]]
    return shot
