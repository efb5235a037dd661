"""Whole shots for the residual context network: the faces seen together, on a grid of 25 time steps a second."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.clip_utils import GRID_FPS, run_lengths
from core.inputs.loading import Batch
from core.inputs.sampling import Key

PIECE = 250  # time steps of a piece of a shot in training
LONGEST_GAP_S = 0.5  # a face that has no row for longer is absent in between
# What makes encoders differ from face to face and from film to film, drawn for each piece in training; standard
# deviations, of log odds but for the first two, which are of the logarithms of factors.
FILM_FACTOR, FACE_FACTOR, FALL_FACTOR = 0.3, 0.2, 0.3
FILM_OFFSET, FACE_OFFSET = 1.0, 1.5
NOISE = 1.0
NOISE_STEPS = 12  # time steps between the knots of the noise
LEFT_OUT = 0.2  # share of faces left out of a piece


@dataclass
class ShotBatch(Batch):
    """B pieces of shots, on their way to the device; padded with absent faces and times.

    Attributes:
        cues: (B, face, time, `core.models.residual_context.CUES`) float32.
        present: (B, face, time) bool.
        labels: (B, face, time) int64, 1 where the face is heard speaking.
    """

    cues: Tensor
    present: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Shot:
    """Faces seen together.

    Attributes:
        cues, present, labels: as `ShotBatch` has them, without its first axis.
        rows: of the video, in the order of `places`, (row,).
        places: face and time step of each row, the latter a fraction, (row, 2) float64.
    """

    cues: np.ndarray
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
        in_step: (row, [mean, maximum, correlation]), see `core.inference.in_step`.
    """
    logit, video_logit = logits[:, 1] - logits[:, 0], video_logits[:, 1] - video_logits[:, 0]
    *shifted, correlation = in_step.T
    return np.stack([logit, video_logit, *(logit - odds for odds in shifted), correlation], axis=1).astype(np.float32)


def shots_in(entities: np.ndarray, times_s: np.ndarray, cues: np.ndarray, labels: np.ndarray) -> Iterator[Shot]:
    """The shots of one video, as `seen_together` finds them.

    Args:
        entities: (row,) int64, equal for rows of one entity, which are contiguous.
        times_s: (row,) float64, rising within an entity.
        cues: (row, `CUES`) float32.
        labels: (row,) int64.
    """
    for tracks in seen_together(entities, times_s):
        yield _shot(tracks, times_s, cues, labels)


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


def _shot(tracks: list[np.ndarray], times_s: np.ndarray, cues: np.ndarray, labels: np.ndarray) -> Shot:
    origin_s = min(times_s[rows[0]] for rows in tracks)
    steps = [(times_s[rows] - origin_s) * GRID_FPS for rows in tracks]
    size = 1 + max(int(np.ceil(own[-1] - 1e-6)) for own in steps)
    grid = np.arange(size)
    faces = len(tracks)
    shot = Shot(
        cues=np.zeros((faces, size, cues.shape[1]), np.float32),
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
        for column in range(cues.shape[1]):
            shot.cues[face, :, column] = np.interp(grid, own, cues[rows, column])
        nearest = np.where(np.abs(own[before] - grid) <= np.abs(own[after] - grid), before, after)
        shot.labels[face] = labels[rows[nearest]]
    return shot


class ShotDataset:
    """Pieces of shots for training, or whole ones.

    Args:
        shots: to draw from.
        augment: give a random piece of each, `PIECE` time steps at most, as other encoders, films and faces would have
            it, with some faces left out.
        seed: of the random choices.
        strength: of the differences between encoders, films and faces; 0 leaves the cues as they are.
    """

    def __init__(self, shots: list[Shot], *, augment: bool, seed: int = 0, strength: float = 1.0):
        self.shots, self.augment, self.seed, self.strength = shots, augment, seed, strength

    def __len__(self) -> int:
        return len(self.shots)

    def __getitems__(self, keys: list[Key]) -> ShotBatch:
        """The batch of the shots `keys`, (epoch, number)."""
        pieces = [self._piece(*key) for key in keys]
        faces, size = (max(piece[1].shape[axis] for piece in pieces) for axis in (0, 1))
        batch = ShotBatch(
            torch.zeros(len(pieces), faces, size, pieces[0][0].shape[-1]),
            torch.zeros(len(pieces), faces, size, dtype=torch.bool),
            torch.zeros(len(pieces), faces, size, dtype=torch.int64),
        )
        for number, piece in enumerate(pieces):
            for whole, part in zip((batch.cues, batch.present, batch.labels), piece, strict=True):
                whole[number, : part.shape[0], : part.shape[1]] = torch.from_numpy(part)
        return batch

    def _piece(self, epoch: int, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shot = self.shots[number]
        if not self.augment:
            return shot.cues, shot.present, shot.labels
        rng = np.random.default_rng((self.seed, epoch, number))
        begin, anybody = int(rng.integers(max(1, shot.present.shape[1] - PIECE + 1))), shot.present.any(0)
        if not anybody[begin : begin + PIECE].any():
            begin = int(anybody.argmax())
        piece = slice(begin, begin + PIECE)
        seen = np.flatnonzero(shot.present[:, piece].any(1))
        kept = seen[rng.random(len(seen)) >= LEFT_OUT]
        kept = kept if len(kept) else rng.choice(seen, 1)
        return varied(shot.cues[kept, piece], rng, self.strength), shot.present[kept, piece], shot.labels[kept, piece]


def varied(cues: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Cues as an encoder might have given them that is surer or less sure, of the film, of a face and at times.

    Args:
        cues: (face, time, `CUES`) float32.
        rng: of the differences.
        strength: factor on all deviations.
    """
    faces, size, _ = cues.shape
    logit, video, *falls, correlation = np.moveaxis(cues, 2, 0)

    def of_face(deviation: float) -> np.ndarray:
        return strength * deviation * rng.standard_normal((faces, 1))

    def of_film(deviation: float) -> float:
        return strength * deviation * rng.standard_normal()

    def noise() -> np.ndarray:
        knots = rng.standard_normal((faces, size // NOISE_STEPS + 2))
        at = np.arange(size) / NOISE_STEPS
        return strength * NOISE * np.stack([np.interp(at, np.arange(knots.shape[1]), row) for row in knots])

    offset = of_film(FILM_OFFSET) + of_face(FACE_OFFSET)
    factor = np.exp(of_film(FILM_FACTOR) + of_face(FACE_FACTOR))
    fall = np.exp(of_face(FALL_FACTOR))
    return np.stack(
        [
            factor * logit + offset + noise(),
            np.exp(of_face(FACE_FACTOR)) * video + offset / 2 + of_face(2 / 3 * FACE_OFFSET) + noise(),
            *(fall * values + noise() * 2 / 3 for values in falls),
            correlation,
        ],
        axis=2,
    ).astype(np.float32)
