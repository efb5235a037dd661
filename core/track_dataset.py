"""Whole face tracks with their sound, for encoders that read them from end to end (LR-ASD, Light-ASD).

Tracks are asked for as (epoch, number, frames): what is drawn at random, the piece of the track and how it is
augmented, depends on nothing but the seed and these.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from core.clip_utils import FACE_SIZE, run_lengths
from core.formats import ava
from core.formats.crop_store import Crops
from core.formats.wav import check_sounds, read_wav
from core.inputs.loading import Batch
from core.inputs.mfcc import frame_grid, mfcc_of_frames
from core.inputs.sampling import TrackKey

CROP_SIDE = (0.7, 1.0)  # of the random crop box, as a share of the face's (published)
ROTATION = 15.0  # degrees to either side (published)
POWER_FLOOR = 1e-4  # added to the mean square of a sound, so that silence has a level (published)


@dataclass
class TrackBatch(Batch):
    """B pieces of tracks, all of T frames, on their way to the device.

    Attributes:
        faces: (B, T, height 112, width 112) uint8, grey.
        mfcc: (B, 4 * T, coefficient 13) float32.
        labels: (B, T) int64, 1 where the face is heard speaking.
        rows: (B, T) int64, the frames' rows in the annotation table.
        epoch: () int64, the epoch that the batch was drawn for, from 1; 0 where nothing is drawn.
    """

    faces: Tensor
    mfcc: Tensor
    labels: Tensor
    rows: Tensor
    epoch: Tensor


class TrackDataset:
    """Face tracks with their sound, whole or in pieces.

    Args:
        rows: annotations of a split (`ava.read_augmented`), sorted by video, entity and time.
        crops_dir: `video_dir/<split>`; crops of any size.
        audio_dir: `audio_dir/<split>`.
        augment: flip, crop or rotate faces at random and mix sounds.
        seed: of the random choices.
        mix_chance: of another track's sound being mixed in, 0 to 1.
        mix_snr_db: range of how much louder the track's own sound is then, in dB.

    Attributes:
        lengths: (tracks,) int64, frames of each track.

    Raises:
        UserError: crops or sounds that the rows call for are absent.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        crops_dir: str | Path,
        audio_dir: str | Path,
        *,
        augment: bool,
        seed: int = 0,
        mix_chance: float = 0.5,
        mix_snr_db: tuple[float, float] = (-5.0, 5.0),
    ):
        self.crops, self.audio_dir = Crops(crops_dir, rows), Path(audio_dir)
        self.augment, self.seed, self.mix_chance, self.mix_snr_db = augment, seed, mix_chance, mix_snr_db
        self.entity = rows["entity_id"].to_numpy()
        self.time_s = rows["time_s"].to_numpy()
        self.labels = (rows["label_id"].to_numpy() == ava.SPEAKING_ID).astype(np.int64)
        self.starts, self.lengths = run_lengths(self.entity)
        self.video_of_track = rows["video_id"].to_numpy()[self.starts]
        check_sounds(rows, self.audio_dir)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitems__(self, keys: list[TrackKey]) -> TrackBatch:
        """The batch of the tracks `keys`, whose epochs and frames are equal."""
        rows, faces, mfcc = zip(*(self._piece(*key) for key in keys), strict=True)
        rows = np.stack(rows)
        return TrackBatch(
            torch.from_numpy(np.stack(faces)),
            torch.from_numpy(np.stack(mfcc)),
            torch.from_numpy(self.labels[rows]),
            torch.from_numpy(rows),
            torch.tensor(keys[0][0]),
        )

    def _piece(self, epoch: int, track: int, frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (frames,), faces (frames, 112, 112) and MFCCs (4 * frames, 13) of a piece of a track."""
        rng = np.random.default_rng((self.seed, epoch, track))
        begin = int(rng.integers(self.lengths[track] - frames + 1))
        rows = self.starts[track] + np.arange(begin, begin + frames)
        faces = np.stack([self._face(row) for row in rows])
        samples = self._sound(track)
        if self.augment:
            faces = augmented(faces, rng)
            samples = self._mixed(samples, track, rng)
        numbers, fps = frame_grid(self.time_s[self.starts[track] : self.starts[track] + self.lengths[track]])
        return rows, faces, mfcc_of_frames(samples, numbers[begin : begin + frames], fps)

    def _face(self, row: int) -> np.ndarray:
        """(112, 112) uint8, resized as the published loader does."""
        return cv2.resize(cv2.cvtColor(self.crops.decode(row), cv2.COLOR_RGB2GRAY), (FACE_SIZE, FACE_SIZE))

    def _sound(self, track: int) -> np.ndarray:
        return read_wav(self.audio_dir / f"{self.entity[self.starts[track]]}.wav")

    def _mixed(self, samples: np.ndarray, track: int, rng: np.random.Generator) -> np.ndarray:
        """The sound, by chance with that of a track of another video: those of its own may sound the same."""
        if rng.random() >= self.mix_chance:
            return samples
        others = np.flatnonzero(self.video_of_track != self.video_of_track[track])
        if len(others) == 0:
            return samples
        return mixed(samples, self._sound(int(rng.choice(others))), rng.uniform(*self.mix_snr_db))


def augmented(faces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Faces of one track, all changed alike: one of left as they are, flipped, cropped, rotated (published).

    Args:
        faces: (frame, side, side) uint8.
        rng: of the choice and its strength.

    Returns:
        The same shape and type.
    """
    side = faces.shape[1]
    kind = rng.choice(["none", "flip", "crop", "rotation"])
    if kind == "flip":
        return np.ascontiguousarray(faces[:, :, ::-1])
    if kind == "crop":
        box = int(side * rng.uniform(*CROP_SIDE))
        left, top = rng.integers(side - box + 1, size=2)
        return np.stack([cv2.resize(face[top : top + box, left : left + box], (side, side)) for face in faces])
    if kind == "rotation":
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-ROTATION, ROTATION), 1)
        return np.stack([cv2.warpAffine(face, matrix, (side, side)) for face in faces])
    return faces


def mixed(samples: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """A sound with another one added, this many dB quieter: (sample,) int16 both, and so is the result.

    The other is repeated or cut to the length. The published code squares 16-bit numbers in 16 bits, so that its
    levels are not those that it names; here they are.
    """
    noise = np.resize(noise, len(samples)).astype(np.float64) if len(noise) else np.zeros(len(samples))
    levels_db = [10 * np.log10(_power(sound) + POWER_FLOOR) for sound in (samples, noise)]
    gain = 10 ** ((levels_db[0] - levels_db[1] - snr_db) / 20)
    limits = np.iinfo(np.int16)
    return np.clip(np.rint(samples + gain * noise), limits.min, limits.max).astype(np.int16)


def _power(sound: np.ndarray) -> float:
    return float(np.mean(np.square(sound, dtype=np.float64))) if len(sound) else 0.0
