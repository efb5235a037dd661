"""Data sets of both stages: clips (crops and sound) for the encoder, contexts (features) for the context network.

One class serves training and forwarding of a stage: what differs is which centres are asked for, and that is the
sampler's business (`core.sampling`). Items are asked for as (epoch, number), so that what is drawn at random depends
on nothing but the seed, the epoch and the number: not on workers, processes or what was drawn before.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from core import ava
from core.audio import clip_samples, fitted_length, mfcc_windows, read_wav
from core.clip_utils import clip_window, run_lengths, speaker_slots, track_bounds
from core.crops import CROP_SIZE, Crops
from core.errors import UserError
from core.features import FeatureStore

Key = tuple[int, int]  # (epoch, number of the item)


class Batch:
    """A dataclass of tensors that moves as one."""

    def to(self, device: torch.device) -> Self:
        """The same batch on another device; from pinned memory the copy runs beside the computation."""
        moved = {field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)}
        return type(self)(**moved)

    def pin_memory(self) -> Self:
        """Called by the data loader where the batch goes to a CUDA device."""
        return type(self)(**{field.name: getattr(self, field.name).pin_memory() for field in fields(self)})


@dataclass
class ClipBatch(Batch):
    """Clips of B centres, on their way to the device.

    Attributes:
        frames: (crop, height, width, [r, g, b]) uint8, each crop once.
        windows: (B, frame) int64, the crops of each clip as indices into `frames`.
        sounds: (n, B, sample) int16, zero after each one's own end; n = 1, or more with mismatched sound:
            sounds[0] are the clips' own, the others come from elsewhere.
        sound_lengths: (n, B) int64.
        labels: (B,) int64, 1 where the centre's face is heard speaking.
        sound_labels: (n, B) int64, 1 where anybody in the frame of the sound's centre is.
        rows: (B,) int64, the centres' rows in the annotation table.
    """

    frames: Tensor
    windows: Tensor
    sounds: Tensor
    sound_lengths: Tensor
    labels: Tensor
    sound_labels: Tensor
    rows: Tensor


class ClipDataset(Dataset):
    """Clips of face crops with their sound, around random centres (one a track and epoch) or around any row.

    Args:
        rows: annotations of a split (`ava.read_augmented`), sorted by video, entity and time.
        crops_dir: `video_dir/<split>`.
        audio_dir: `audio_dir/<split>`.
        clip_length: frames of a clip, odd.
        size: pixels of the crops' sides.
        random_centres: item i is a random clip of track i % tracks; otherwise item i is the clip around row i.
        seed: of the random choices.
        mismatched_sounds: how many sounds from elsewhere come with each clip, in turn from another moment of its
            own track and from another track; never from within a clip's length of the clip itself.

    Raises:
        UserError: crops or sounds that the rows call for are absent.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        crops_dir: str | Path,
        audio_dir: str | Path,
        clip_length: int,
        size: int = CROP_SIZE,
        *,
        random_centres: bool,
        seed: int = 0,
        mismatched_sounds: int = 0,
    ):
        self.crops = Crops(crops_dir, rows)
        self.audio_dir = Path(audio_dir)
        self.clip_length, self.size = clip_length, size
        self.random_centres, self.seed, self.mismatched_sounds = random_centres, seed, mismatched_sounds
        self.entity = rows["entity_id"].to_numpy()
        self.time_s = rows["time_s"].to_numpy()
        self.labels = (rows["label_id"].to_numpy() == ava.SPEAKING_ID).astype(np.int64)
        self.sound_labels = _anybody_speaks(rows)
        self.first, self.last = track_bounds(self.entity)
        self.track_starts, self.track_lengths = run_lengths(self.entity)
        self._check_sounds(rows)
        # Enough for the published rounding, which can leave two samples more than asked for.
        self.samples = max(fitted_length(clip_length) + 2, 1)
        self.mfcc_windows = mfcc_windows(fitted_length(clip_length))

    def __len__(self) -> int:
        return len(self.track_starts) if self.random_centres else len(self.entity)

    def __getitems__(self, keys: list[Key]) -> ClipBatch:
        """The batch of the items `keys`; each crop is decoded once."""
        centres, sound_centres = self._draw(keys) if self.random_centres else self._given(keys)
        windows = clip_window(centres, self.first[centres], self.last[centres], self.clip_length)
        needed, inverse = np.unique(windows, return_inverse=True)
        frames = np.empty((len(needed), self.size, self.size, 3), np.uint8)
        for position, row in enumerate(needed):
            frames[position] = self.crops.decode(row, self.size)
        sounds = np.zeros((*sound_centres.shape, self.samples), np.int16)
        lengths = np.zeros(sound_centres.shape, np.int64)
        tracks: dict[str, np.ndarray] = {}
        for place in np.ndindex(sound_centres.shape):
            samples = self._sound(int(sound_centres[place]), tracks)
            sounds[place][: len(samples)] = samples
            lengths[place] = len(samples)
        return ClipBatch(
            torch.from_numpy(frames),
            torch.from_numpy(inverse.reshape(windows.shape)),
            torch.from_numpy(sounds),
            torch.from_numpy(lengths),
            torch.from_numpy(self.labels[centres]),
            torch.from_numpy(self.sound_labels[sound_centres]),
            torch.from_numpy(centres),
        )

    def _given(self, keys: list[Key]) -> tuple[np.ndarray, np.ndarray]:
        centres = np.array([number for _, number in keys], np.int64)
        return centres, centres[None]

    def _draw(self, keys: list[Key]) -> tuple[np.ndarray, np.ndarray]:
        """Centres (B,) and the centres of their sounds (1 + mismatched, B)."""
        sound_centres = np.empty((1 + self.mismatched_sounds, len(keys)), np.int64)
        for column, (epoch, number) in enumerate(keys):
            rng = np.random.default_rng((self.seed, epoch, number))
            track = number % len(self.track_starts)
            sound_centres[0, column] = self.track_starts[track] + rng.integers(self.track_lengths[track])
            for place in range(self.mismatched_sounds):
                sound_centres[1 + place, column] = self._elsewhere(sound_centres[0, column], track, place, rng)
        return sound_centres[0], sound_centres

    def _elsewhere(self, centre: int, track: int, place: int, rng: np.random.Generator) -> int:
        """A row whose sound is not that of `centre`: of its own track at even places, else of another track."""
        start, length = self.track_starts[track], self.track_lengths[track]
        rows = np.arange(start, start + length)
        far = rows[np.abs(rows - centre) >= self.clip_length]
        if place % 2 == 0 and len(far):
            return int(rng.choice(far))
        other = (track + rng.integers(1, max(2, len(self.track_starts)))) % len(self.track_starts)
        return int(self.track_starts[other] + rng.integers(self.track_lengths[other]))

    def _sound(self, centre: int, tracks: dict[str, np.ndarray]) -> np.ndarray:
        entity = self.entity[centre]
        if entity not in tracks:
            tracks[entity] = read_wav(self.audio_dir / f"{entity}.wav")
        first, last = self.first[centre], self.last[centre]
        begin, end = clip_window(np.array(centre), first, last, self.clip_length)[[0, -1]]
        origin = self.time_s[first]
        return clip_samples(tracks[entity], self.time_s[begin] - origin, self.time_s[end] - origin, self.clip_length)

    def _check_sounds(self, rows: pd.DataFrame) -> None:
        if not self.audio_dir.is_dir():
            raise UserError(f"no sound folder {self.audio_dir}: run data/slice_audio_tracks.py first")
        present = {path.name for path in self.audio_dir.iterdir()}
        missing = [start for start in self.track_starts if f"{self.entity[start]}.wav" not in present]
        if missing:
            entity, video = rows["entity_id"].iloc[missing[0]], rows["video_id"].iloc[missing[0]]
            raise UserError(
                f"no sound of {len(missing)} of {len(self.track_starts)} entities in {self.audio_dir}, first {entity} "
                f"of video {video}; run data/extract_audio_tracks.py and data/slice_audio_tracks.py, or leave the "
                "video out of the csv"
            )


@dataclass
class ContextBatch(Batch):
    """Contexts of B targets, on their way to the device.

    Attributes:
        features: (feature row, feature) float16 or float32, each row once.
        index: (B, clip, speaker) int64, the contexts' rows as indices into `features`; speaker 0 is the target.
        labels: (B,) int64, 1 where the target is heard speaking.
        rows: (B,) int64, the targets' rows in the feature store.
    """

    features: Tensor
    index: Tensor
    labels: Tensor
    rows: Tensor


class ContextDataset(Dataset):
    """The features of a target and of the speakers visible with it, at times around it.

    Args:
        store: features of a split.
        clip_length: L, moments of a context, odd.
        stride: rows between its moments, at least 1 (the published `skip_frames`).
        speakers: S, at least 1.
        random_speakers: draw the context's speakers anew in each epoch where there are more than S - 1; otherwise
            they are chosen the same every time.
        seed: of the random choices.
    """

    def __init__(
        self, store: FeatureStore, clip_length: int, stride: int, speakers: int, *, random_speakers: bool, seed: int = 0
    ):
        self.store = store
        self.clip_length, self.stride, self.speakers = clip_length, stride, speakers
        self.random_speakers, self.seed = random_speakers, seed
        self.labels = (store.label_ids == ava.SPEAKING_ID).astype(np.int64)
        self.first, self.last = track_bounds(store.entities)
        # Rows of one video and time stand together in `by_moment`; `slot` is a row's place there.
        moment = store.moments
        self.by_moment = np.argsort(moment, kind="stable")
        starts, lengths = run_lengths(moment[self.by_moment])
        self.moment_start = np.empty(len(moment), np.int64)
        self.moment_start[self.by_moment] = np.repeat(starts, lengths)
        self.others = np.empty(len(moment), np.int64)
        self.others[self.by_moment] = np.repeat(lengths - 1, lengths)
        self.slot = np.empty(len(moment), np.int64)
        self.slot[self.by_moment] = np.arange(len(moment)) - np.repeat(starts, lengths)

    def __len__(self) -> int:
        return len(self.labels)

    def contexts(self, targets: np.ndarray, epoch: int = 0) -> np.ndarray:
        """The rows of contexts: targets (B,) int64 -> (B, clip, speaker) int64, speaker 0 the target."""
        rng = np.random.default_rng((self.seed, epoch, int(targets[0]))) if self.random_speakers else None
        slots = speaker_slots(self.others[targets], self.speakers, rng)
        # The n-th other of a target is the n-th row of its moment, not counting the target itself.
        place = slots + (slots >= self.slot[targets, None])
        rows = self.by_moment[np.where(slots < 0, 0, self.moment_start[targets, None] + place)]
        rows = np.where(slots < 0, targets[:, None], rows)
        return clip_window(rows, self.first[rows], self.last[rows], self.clip_length, self.stride).transpose(0, 2, 1)

    def __getitems__(self, keys: list[Key]) -> ContextBatch:
        """The batch of the items `keys`, whose epochs are equal."""
        targets = np.array([number for _, number in keys], np.int64)
        index = self.contexts(targets, keys[0][0])
        needed, inverse = np.unique(index, return_inverse=True)
        return ContextBatch(
            self.store.gather(needed),
            torch.from_numpy(inverse.reshape(index.shape)),
            torch.from_numpy(self.labels[targets]),
            torch.from_numpy(targets),
        )


def as_is(batch: Batch) -> Batch:
    """The collate function of both data sets, which make whole batches themselves."""
    return batch


def _anybody_speaks(rows: pd.DataFrame) -> np.ndarray:
    """(rows,) int64: 1 where any face annotated in the row's video at the row's time is heard speaking."""
    speaking = rows["label_id"] == ava.SPEAKING_ID
    return speaking.groupby([rows["video_id"], rows["time_s"]]).transform("any").to_numpy().astype(np.int64)
