"""Pieces of whole shots in batches, from which the residual context network learns."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.inputs.loading import Batch
from core.inputs.sampling import Key
from core.inputs.shots import Shot

PIECE = 250  # time steps of a piece of a shot in training
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
