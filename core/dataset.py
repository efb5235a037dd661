"""Data sets of both stages: clips (crops and audio) for the encoder, contexts (features) for the context network.

One class serves training and forwarding of a stage, which differ in the centres that they request
(`core.inputs.sampling`). Items are requested by (epoch, number), so that what is drawn at random depends on nothing but
the seed, the epoch and the number: not on threads, processes or earlier draws.
"""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.clip_utils import CROP_SIZE, clip_window, run_lengths, speaker_slots, track_bounds
from core.formats.feature_store import FeatureStore
from core.inputs.annotated_tracks import AnnotatedTracks
from core.inputs.clip_mfcc import clip_samples, fitted_length, join_clips, mfcc_windows
from core.inputs.loading import Batch
from core.inputs.sampling import Key
from core.runtime.errors import UserError

SHAPE = ("clip_length", "skip_frames", "speakers")  # of a context, as on the command line
ROWS_PER_CHOICE = 65536  # context speakers are chosen for so many rows at once: bounds the memory that it takes


@dataclass
class ClipBatch(Batch):
    """Clips of B centres, on their way to the device.

    Attributes:
        frames: (crop, height, width, [r, g, b]) uint8, each crop once.
        windows: (B, frame) int64, the crops of each clip as indices into `frames`.
        audio: (n, B, sample) int16, zero after each one's own end; n = 1, or more with mismatched audio: audio[0] is
            the clips' own, the others come from elsewhere.
        audio_lengths: (n, B) int64, samples.
        labels: (B,) int64, 1 where the centre's face is heard speaking.
        audio_labels: (n, B) int64, 1 where anybody in the frame of the audio's centre is.
        rows: (B,) int64, the centres' rows in the annotation table.
    """

    frames: Tensor
    windows: Tensor
    audio: Tensor
    audio_lengths: Tensor
    labels: Tensor
    audio_labels: Tensor
    rows: Tensor


class ClipDataset(AnnotatedTracks):
    """Clips of face crops with their audio, around random centres (one a track and epoch) or around any row.

    Args:
        rows, crops_dir, audio_dir, rows_without_crops: as `AnnotatedTracks`, which also gives the attributes.
        clip_length: frames of a clip, odd.
        size: pixels of the crops' sides.
        random_centres: item i is a random clip of track i % tracks; otherwise item i is the clip around row i.
        seed: of the random choices.
        mismatched_sounds: how many pieces of audio from elsewhere come with each clip, in turn from another time of
            its own track and from another track; never from a time that the clip itself covers in its video.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        crops_dir: str | Path,
        audio_dir: str | Path,
        *,
        clip_length: int,
        size: int = CROP_SIZE,
        random_centres: bool,
        seed: int = 0,
        mismatched_sounds: int = 0,
        rows_without_crops: str = "refuse",
    ):
        super().__init__(rows, crops_dir, audio_dir, rows_without_crops)
        self.clip_length, self.size = clip_length, size
        self.random_centres, self.seed, self.mismatched_sounds = random_centres, seed, mismatched_sounds
        self.track = np.repeat(np.arange(len(self.starts)), self.lengths)  # of each row
        self.first, self.last = track_bounds(self.entity)
        self.mfcc_windows = mfcc_windows(fitted_length(clip_length))

    def __len__(self) -> int:
        return len(self.starts) if self.random_centres else len(self.entity)

    def __getitems__(self, keys: list[Key]) -> ClipBatch:
        """The batch of the items `keys`; each crop is decoded once."""
        if self.random_centres:
            audio_centres = np.stack([self._draw(*key) for key in keys], axis=1)
        else:
            audio_centres = np.array([[number for _, number in keys]], np.int64)
        centres = audio_centres[0]
        windows = self._window(centres)
        needed, inverse = np.unique(windows, return_inverse=True)
        frames = np.empty((len(needed), self.size, self.size, 3), np.uint8)
        for position, row in enumerate(needed):
            frames[position] = self.crops.decode(row, self.size)
        tracks = {track: self.audio(track) for track in np.unique(self.track[audio_centres])}
        clips = [self._clip_audio(centre, tracks[self.track[centre]]) for centre in audio_centres.flat]
        audio, lengths = join_clips(clips, self.clip_length)
        return ClipBatch(
            torch.from_numpy(frames),
            torch.from_numpy(inverse.reshape(windows.shape)),
            audio.view(*audio_centres.shape, -1),
            lengths.view(audio_centres.shape),
            torch.from_numpy(self.labels[centres]),
            torch.from_numpy(self.audio_labels[audio_centres]),
            torch.from_numpy(centres),
        )

    def _draw(self, epoch: int, number: int) -> list[int]:
        """The centre of an item, and those of its mismatched audio."""
        rng = np.random.default_rng((self.seed, epoch, number))
        track = number % len(self.starts)
        centre = int(self.starts[track] + rng.integers(self.lengths[track]))
        return [centre, *(self._elsewhere(centre, track, turn, rng) for turn in range(self.mismatched_sounds))]

    def _elsewhere(self, centre: int, track: int, turn: int, rng: np.random.Generator) -> int:
        """A row whose audio is not that of `centre`: of its own track at even turns, else of another track."""
        tracks = len(self.starts)
        begin = rng.integers(max(1, tracks - 1))
        others = ((track + 1 + (begin + n) % (tracks - 1)) % tracks for n in range(tracks - 1))
        for candidate in itertools.chain([track], others) if turn % 2 == 0 else itertools.chain(others, [track]):
            rows = self._apart(centre, candidate)
            if len(rows):
                return int(rng.choice(rows))
        raise UserError(
            f"entity {self.entity[centre]} at {self.time_s[centre]} s: there is no audio of another time or video to "
            "pair with it; train with more tracks, or set STE_optimization_params['mismatched_sounds'] to 0"
        )

    def _apart(self, centre: int, track: int) -> np.ndarray:
        """The rows of a track whose audio shares no time with that of `centre`.

        Tracks of one video are cut from one recording: at the same time they sound the same.
        """
        rows = self.starts[track] + np.arange(self.lengths[track])
        if self.video[rows[0]] != self.video[centre]:
            return rows
        begin, end = self._span(centre)
        begins, ends = self._span(rows)
        return rows[(ends <= begin) | (begins >= end)]

    def _window(self, centres: np.ndarray | int) -> np.ndarray:
        """The rows of clips, (..., frame) int64."""
        return clip_window(centres, self.first[centres], self.last[centres], self.clip_length)

    def _span(self, centres: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
        """Times of the first and the last frame of clips, seconds."""
        windows = self._window(centres)
        return self.time_s[windows[..., 0]], self.time_s[windows[..., -1]]

    def _clip_audio(self, centre: int, track: np.ndarray) -> np.ndarray:
        """The samples of the clip around `centre`, of those of its track."""
        begin_s, end_s = self._span(centre)
        origin_s = self.time_s[self.first[centre]]
        return clip_samples(track, begin_s - origin_s, end_s - origin_s, self.clip_length)


@dataclass
class ContextBatch(Batch):
    """Contexts of B targets, on their way to the device.

    Attributes:
        features: (feature row, feature) float16 or float32, each row once.
        index: (B, clip, speaker) int64, the contexts' rows as indices into `features`; speaker 0 is the target.
        labels: (B,) int64, 1 where the target is heard speaking.
        rows: (B,) int64, the targets' rows in the data set.
    """

    features: Tensor
    index: Tensor
    labels: Tensor
    rows: Tensor


class ContextDataset:
    """The features of a target and of the speakers visible with it, at time steps around it.

    Args:
        entities: (row,) int64, equal for rows of one track, contiguous, in order of time.
        time_steps: (row,) int64, equal for rows that are visible together.
        gather: gives the feature vectors of rows: (n,) int64, ascending -> (n, feature) float16 or float32.
        labels: (row,) int64, 1 where the row's face is heard speaking; None where only `contexts` is used.
        clip_length: L, time steps of a context, odd.
        stride: rows between them, at least 1 (the published `skip_frames`).
        speakers: S, at least 1.
        random_speakers: draw the context's speakers anew in each epoch where there are more than S - 1; otherwise
            they are chosen the same every time.
        seed: of the random choices.
    """

    def __init__(
        self,
        entities: np.ndarray,
        time_steps: np.ndarray,
        gather: Callable[[np.ndarray], np.ndarray],
        labels: np.ndarray | None = None,
        *,
        clip_length: int,
        stride: int,
        speakers: int,
        random_speakers: bool,
        seed: int = 0,
    ):
        self.gather, self.labels = gather, labels
        self.clip_length, self.stride, self.speakers = clip_length, stride, speakers
        self.random_speakers, self.seed = random_speakers, seed
        self.first, self.last = track_bounds(entities)
        self._chosen: tuple[int, np.ndarray] | None = None  # an epoch and its speakers
        self._scratch = threading.local()  # batches are made by several threads
        # Rows of one time step are neighbours in `by_time_step`; `slot` is a row's number among them.
        self.by_time_step = np.argsort(time_steps, kind="stable")
        starts, lengths = run_lengths(time_steps[self.by_time_step])
        self.step_start, self.others, self.slot = (np.empty(len(time_steps), np.int64) for _ in range(3))
        self.step_start[self.by_time_step] = np.repeat(starts, lengths)
        self.others[self.by_time_step] = np.repeat(lengths - 1, lengths)
        self.slot[self.by_time_step] = np.arange(len(time_steps)) - np.repeat(starts, lengths)

    @classmethod
    def of(cls, store: FeatureStore, shape: Mapping[str, int], *, random_speakers: bool, seed: int = 0) -> Self:
        """The contexts of all rows of a store; `shape` as `context_shape` gives it."""
        rows = store.entities, store.time_steps, store.gather, store.labels
        numbers = dict(zip(("clip_length", "stride", "speakers"), map(shape.get, SHAPE), strict=True))
        return cls(*rows, **numbers, random_speakers=random_speakers, seed=seed)

    def __len__(self) -> int:
        return len(self.first)

    def contexts(self, targets: np.ndarray, epoch: int = 0) -> np.ndarray:
        """The rows of contexts: targets (B,) int64 -> (B, clip, speaker) int64, speaker 0 the target."""
        rows = self._speakers(epoch if self.random_speakers else 0)[targets]
        return clip_window(rows, self.first[rows], self.last[rows], self.clip_length, self.stride).transpose(0, 2, 1)

    def __getitems__(self, keys: list[Key]) -> ContextBatch:
        """The batch of the items `keys`, all of one epoch."""
        targets = np.array([number for _, number in keys], np.int64)
        index = self.contexts(targets, keys[0][0])
        # np.unique with its inverse, but without sorting positions: three times as fast for some thousand numbers.
        if not hasattr(self._scratch, "positions"):
            self._scratch.positions = np.empty(len(self), np.int64)
        positions = self._scratch.positions
        needed = np.sort(index, axis=None)
        needed = needed[np.concatenate([[True], needed[1:] != needed[:-1]])]
        positions[needed] = np.arange(len(needed))
        return ContextBatch(
            torch.from_numpy(self.gather(needed)),
            torch.from_numpy(positions[index]),
            torch.from_numpy(self.labels[targets]),
            torch.from_numpy(targets),
        )

    def _speakers(self, epoch: int) -> np.ndarray:
        """The rows of the speakers at each row's own time, (row, speaker) int64, chosen for all rows of an epoch.

        At once, since most of the time of choosing for a single batch goes into the calls; and so that the choice
        depends on the row, not on the batch or process that it falls to.
        """
        if self._chosen is None or self._chosen[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch)) if self.random_speakers else None
            rows = np.empty((len(self), self.speakers), np.int64)
            for start in range(0, len(self), ROWS_PER_CHOICE):
                targets = np.arange(start, min(start + ROWS_PER_CHOICE, len(self)))
                slots = speaker_slots(self.others[targets], self.speakers, rng)
                # The n-th other of a target is the n-th row of its time step, not counting the target itself.
                position = slots + (slots >= self.slot[targets, None])
                others = self.by_time_step[np.where(slots < 0, 0, self.step_start[targets, None] + position)]
                rows[targets] = np.where(slots < 0, targets[:, None], others)
            self._chosen = epoch, rows
        return self._chosen[1]


def context_shape(shape: Sequence[int], network: str) -> dict[str, int]:
    """The shape of a network's contexts by name; empty for the residual network, which has none.

    Args:
        shape: as on the command line.
        network: "ASC_Net" or "residual".

    Raises:
        UserError: there are too many numbers or too few, or the first is even.
    """
    if network == "residual":
        if shape:
            given = " ".join(map(str, shape))
            raise UserError(f"the residual network reads whole shots: omit {given} before the device")
        return {}
    if len(shape) != len(SHAPE):
        raise UserError(f"expected {len(SHAPE)} numbers before the device, {', '.join(SHAPE)}, found {len(shape)}")
    if shape[0] % 2 == 0:
        raise UserError(f"clip_length {shape[0]}: expected an odd number of time steps")
    return dict(zip(SHAPE, shape, strict=True))
