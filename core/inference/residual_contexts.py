"""The residual context network on whole shots, in pieces of bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from core.clip_utils import COEFFICIENTS, GRID_FPS
from core.inference.engine import Networks, Parts, open_networks
from core.inference.voices import EVERY, VOICE_REACH, by_voice
from core.inputs.shots import Shot, TrackFeatures, at_steps, cues, shots_in
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
    """The residual context: the network in evaluation, then `by_voice`; `networks` are opened, of `parts_of`."""

    def __init__(self, networks: Networks):
        self._network, self._reach = networks.function("context"), networks.numbers["reach"]

    @classmethod
    def of(cls, model: "nn.Module", device: str = "cpu") -> Self:
        """A copy of a network in memory, on a device; later changes to the network have no effect."""
        return cls(open_networks(lambda: parts_of(model), device))

    def odds(
        self, firsts: Sequence[int], cues: Sequence[np.ndarray], present: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """The network's log odds of speaking of a shot's faces, each (time,) float32; whatever where one is absent.

        Args:
            firsts: each face's first time step.
            cues: of each face, (time, `core.models.residual_context.CUES`) float32.
            present: of each face, (time,) bool.
        """
        odds = [np.zeros(len(own), np.float32) for own in present]
        for window in _windows(firsts, present, self._reach):
            [[scored]] = self._network(window.of(cues)[None], window.of(present)[None])
            window.put(odds, scored[:, window.now])
        return odds

    def voices(
        self,
        firsts: Sequence[int],
        odds: Sequence[np.ndarray],
        heard: Sequence[np.ndarray],
        present: Sequence[np.ndarray],
        persons: Sequence[int],
        since: float = -np.inf,
    ) -> list[np.ndarray]:
        """What voices add to the log odds of faces, as `odds` gives these.

        Args:
            firsts, present: as of `odds`.
            odds: of each face, (time,) float32.
            heard: MFCCs of each face's time, (time, 13).
            persons: a number for each face, those of one person alike; no two of these at the same time.
            since: the first time step for which this is wanted; 0 is given before.
        """
        added = [np.zeros_like(own) for own in odds]
        for window in _windows(firsts, present, VOICE_REACH, since):
            there = window.of(present)
            sounds = at_steps(np.nonzero(there)[1], window.of(heard)[there], window.size)
            here, row = np.unique([persons[face] for face in window.faces], return_inverse=True)
            faces_of = (np.arange(len(here))[:, None] == row).astype(np.float32)  # (person, face)
            together = faces_of @ np.where(there, window.of(odds), 0)
            window.put(added, by_voice(together, faces_of @ there > 0, sounds, window.now)[row])
        return added

    def scores(
        self,
        firsts: Sequence[int],
        cues: Sequence[np.ndarray],
        heard: Sequence[np.ndarray],
        present: Sequence[np.ndarray],
    ) -> list[np.ndarray]:
        """As `odds`, with what voices add, each face being a person."""
        odds = self.odds(firsts, cues, present)
        added = self.voices(firsts, odds, heard, present, range(len(odds)))
        return [own + more for own, more in zip(odds, added, strict=True)]

    def tracks(self, tracks: Sequence[TrackFeatures]) -> list[np.ndarray]:
        """The network's logits for every face and time step of a shot, each (time step, [not speaking, speaking])
        float32.

        Args:
            tracks: the shot's faces; their `features` are what `told` gives.
        """
        cues = [track.features[:, :-COEFFICIENTS] for track in tracks]
        present = [np.ones(len(own), bool) for own in cues]
        return [logits_of(own) for own in self.odds([track.first for track in tracks], cues, present)]

    def with_voices(
        self,
        tracks: Sequence[TrackFeatures],
        logits: Sequence[np.ndarray],
        persons: Sequence[int],
        since: float = -np.inf,
    ) -> list[np.ndarray]:
        """Logits of faces with what voices add, also over several shots.

        Args:
            tracks: the faces, on one grid, as `tracks` takes them; of their features the last 13 are read.
            logits: of each, as `tracks` gives them.
            persons, since: as of `voices`.
        """
        odds = [own[:, 1] - own[:, 0] for own in logits]
        heard = [track.features[:, -COEFFICIENTS:] for track in tracks]
        present = [np.ones(len(own), bool) for own in odds]
        added = self.voices([track.first for track in tracks], odds, heard, present, persons, since)
        return [logits_of(own + more) for own, more in zip(odds, added, strict=True)]

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
            firsts, heard = [0] * len(shot.cues), [shot.heard] * len(shot.cues)
            odds[shot.rows] = shot.at_rows(np.stack(self.scores(firsts, shot.cues, heard, shot.present)))
        return logits_of(odds)


def shots_of(store: "FeatureStore", rows: slice | None = None) -> list[Shot]:
    """The shots of all videos of a store, or of the one that some rows are.

    Raises:
        UserError: the store does not keep what the network reads.
    """
    if store.video_logits is None or store.in_step is None or store.heard is None:
        raise UserError(
            f"{store.folder}: these features do not tell what is heard and whether faces are in step with it, which "
            "the residual context reads: they are csv files, of an earlier version, or of a network of your own. "
            "Delete them and run STE_forward.py again with format arrow and one of its encoders, or train ASC_Net"
        )
    shots = []
    for own in store.videos.values() if rows is None else [rows]:
        shots += shots_in(
            store.entities[own],
            store.times_s[own],
            cues(store.logits[own], store.video_logits[own], store.in_step[own]),
            store.heard[own],
            store.labels[own],
        )
    return shots


def logits_of(odds: np.ndarray) -> np.ndarray:
    """Log odds of speaking (n,) as logits (n, [not speaking, speaking])."""
    return np.stack((-odds / 2, odds / 2), axis=1)


@dataclass(frozen=True)
class _Window:
    """Time steps of a shot, of those faces that are there.

    Attributes:
        size: how many steps.
        now: those that are to be scored; the others are around them.
        faces: face -> its first step here, and which of its own steps are here.
    """

    size: int
    now: slice
    faces: dict[int, tuple[int, slice]]

    def of(self, values: Sequence[np.ndarray]) -> np.ndarray:
        """What faces have here, of values (time, ...) of each of all faces: (face, time, ...), 0 beyond their ends."""
        out = np.zeros((len(self.faces), self.size, *values[0].shape[1:]), values[0].dtype)
        for row, (face, (at, own)) in enumerate(self.faces.items()):
            part = values[face][own]
            out[row, at : at + len(part)] = part
        return out

    def put(self, values: Sequence[np.ndarray], scored: np.ndarray) -> None:
        """Write what was scored, (face, now), to values (time,) of each of all faces."""
        for row, (face, (at, own)) in enumerate(self.faces.items()):
            first = own.start - at  # of the window's steps, by the face's own
            begin, end = max(0, first + self.now.start), max(0, first + self.now.stop)
            part = values[face][begin:end]
            part[:] = scored[row, begin - first - self.now.start :][: len(part)]


def _windows(
    firsts: Sequence[int], present: Sequence[np.ndarray], margin: int, since: float = -np.inf
) -> Iterator[_Window]:
    """A shot, or what of it is since a time step, in pieces of `PIECE` time steps, each with a margin around it; see
    `ResidualScorer.odds`."""
    ends = [first + len(own) for first, own in zip(firsts, present, strict=True)]
    # The same of the other times are looked at, wherever it begins.
    skipped = int(max(0, since - min(firsts))) // EVERY * EVERY
    for start in range(min(firsts) + skipped, max(ends), PIECE):
        begin, end = max(min(firsts), start - margin), min(max(ends), start + PIECE + margin)
        spans = [slice(max(0, begin - first), max(0, end - first)) for first in firsts]
        faces = {
            face: (max(0, firsts[face] - begin), span) for face, span in enumerate(spans) if present[face][span].any()
        }
        if faces:
            yield _Window(end - begin, slice(start - begin, min(start + PIECE, end) - begin), faces)
