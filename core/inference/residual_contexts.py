"""The residual context network on whole shots, in pieces of bounded memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from core.clip_utils import GRID_FPS
from core.inference.engine import Networks, Parts, open_networks
from core.inputs.shots import Shot, TrackFeatures, cues, shots_in
from core.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from core.formats.feature_store import FeatureStore

PIECE = 60 * GRID_FPS  # time steps scored at once, with a margin that the network sees


def parts_of(model: "nn.Module") -> Parts:
    """The network that a `ResidualScorer` runs; `model` is a `ResidualContext`."""
    import torch

    from core.models.residual_context import CUES, REACH

    example = torch.zeros(1, 2, 7, len(CUES)), torch.ones(1, 2, 7, dtype=torch.bool)
    return Parts({"context": (model, example)}, {"reach": REACH})


class ResidualScorer:
    """The residual context network in evaluation; `networks` are opened, of `parts_of`."""

    def __init__(self, networks: Networks):
        self._network, self._reach = networks.function("context"), networks.numbers["reach"]

    @classmethod
    def of(cls, model: "nn.Module", device: str = "cpu") -> Self:
        """A copy of a network in memory, on a device; later changes to the network have no effect."""
        return cls(open_networks(lambda: parts_of(model), device))

    def odds(
        self, firsts: Sequence[int], cues: Sequence[np.ndarray], present: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """The log odds of speaking of all faces of a shot, each (time,) float32; whatever where a face is absent.

        Args:
            firsts: each face's first time step.
            cues: of each face, (time, `core.models.residual_context.CUES`) float32.
            present: of each face, (time,) bool.
        """
        odds = [np.zeros(len(own), np.float32) for own in present]
        ends = [first + len(own) for first, own in zip(firsts, present, strict=True)]
        for start in range(min(firsts), max(ends), PIECE):
            begin, end = max(min(firsts), start - self._reach), min(max(ends), start + PIECE + self._reach)
            spans = [slice(max(0, begin - first), max(0, end - first)) for first in firsts]
            seen = [face for face, span in enumerate(spans) if present[face][span].any()]
            if not seen:
                continue
            seen_cues = np.zeros((len(seen), end - begin, cues[0].shape[1]), np.float32)
            there = np.zeros(seen_cues.shape[:2], bool)
            for row, face in enumerate(seen):
                at = max(0, firsts[face] - begin)
                part = present[face][spans[face]]
                seen_cues[row, at : at + len(part)], there[row, at : at + len(part)] = cues[face][spans[face]], part
            [[scored]] = self._network(seen_cues[None], there[None])
            for row, face in enumerate(seen):
                own = odds[face][max(0, start - firsts[face]) : max(0, start + PIECE - firsts[face])]
                own[:] = scored[row, max(start, firsts[face]) - begin :][: len(own)]
        return odds

    def tracks(self, tracks: Sequence[TrackFeatures]) -> list[np.ndarray]:
        """Logits for every face and time step of a shot, each (time step, [not speaking, speaking]) float32.

        Args:
            tracks: the shot's faces; their `features` are cues.
        """
        cues = [track.features for track in tracks]
        odds = self.odds([track.first for track in tracks], cues, [np.ones(len(own), bool) for own in cues])
        return [logits_of(own) for own in odds]

    def rows(self, store: "FeatureStore", rows: slice) -> np.ndarray:
        """Logits for every row of one video, (row, [not speaking, speaking]) float32.

        Args:
            store: features of the split.
            rows: the video's in the store.

        Raises:
            UserError: the store does not keep what the network reads.
        """
        odds = np.zeros(rows.stop - rows.start, np.float32)
        for shot in shots_of(store, rows):
            scored = self.odds([0] * len(shot.cues), shot.cues, shot.present)
            odds[shot.rows] = shot.at_rows(np.stack(scored))
        return logits_of(odds)


def shots_of(store: "FeatureStore", rows: slice | None = None) -> list[Shot]:
    """The shots of all videos of a store, or of the one that some rows are.

    Raises:
        UserError: the store does not keep what the network reads.
    """
    if store.video_logits is None or store.in_step is None:
        raise UserError(
            f"{store.folder}: these features do not tell whether faces and audio are in step, which the residual "
            "network reads: they are csv files, of an earlier version, or of a network of your own. Delete them and "
            "run STE_forward.py again with format arrow and one of its encoders, or train ASC_Net"
        )
    shots = []
    for own in store.videos.values() if rows is None else [rows]:
        shots += shots_in(
            store.entities[own],
            store.times_s[own],
            cues(store.logits[own], store.video_logits[own], store.in_step[own]),
            store.labels[own],
        )
    return shots


def logits_of(odds: np.ndarray) -> np.ndarray:
    """Log odds of speaking (n,) as logits (n, [not speaking, speaking])."""
    return np.stack((-odds / 2, odds / 2), axis=1)
