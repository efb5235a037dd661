"""Whole face tracks with their audio, for encoders that read them from end to end (LR-ASD, Light-ASD).

Tracks are requested by (epoch, number, frames): what is drawn at random, the piece of the track and its augmentation,
depends on nothing but the seed and these.
"""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torchaudio.functional import add_noise

from core.clip_utils import FACE_SIZE
from core.inputs.annotated_tracks import AnnotatedTracks
from core.inputs.loading import Batch
from core.inputs.mfcc import frame_grid, track_mfcc
from core.inputs.sampling import TrackKey

CROP_SIDE = (0.7, 1.0)  # of the random crop box, as a share of the face's (published)
ROTATION = 15.0  # degrees to either side (published)


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


class TrackDataset(AnnotatedTracks):
    """Face tracks with their audio, whole or in pieces.

    Args:
        rows, crops_dir, audio_dir, rows_without_crops: as `AnnotatedTracks`, which also gives the attributes; crops of
            any size.
        augment: flip, crop or rotate faces at random and mix audio.
        seed: of the random choices.
        mix_chance: of another track's audio being mixed in, 0 to 1.
        mix_snr_db: range of how much louder the track's own audio is then, in dB.
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
        rows_without_crops: str = "refuse",
    ):
        super().__init__(rows, crops_dir, audio_dir, rows_without_crops)
        self.augment, self.seed, self.mix_chance, self.mix_snr_db = augment, seed, mix_chance, mix_snr_db
        self.video_of_track = self.video[self.starts]

    def __len__(self) -> int:
        return len(self.starts)

    def __getitems__(self, keys: list[TrackKey]) -> TrackBatch:
        """The batch of the tracks `keys`, all of one epoch and one number of frames."""
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
        samples = self.audio(track)
        if self.augment:
            faces = augmented(faces, rng)
            samples = self._mixed(samples, track, rng)
        numbers, fps = frame_grid(self.time_s[self.starts[track] : self.starts[track] + self.lengths[track]])
        return rows, faces, track_mfcc(samples, numbers[begin : begin + frames], fps)

    def _face(self, row: int) -> np.ndarray:
        """(112, 112) uint8, resized as the published loader does."""
        return cv2.resize(cv2.cvtColor(self.crops.decode(row), cv2.COLOR_RGB2GRAY), (FACE_SIZE, FACE_SIZE))

    def _mixed(self, samples: np.ndarray, track: int, rng: np.random.Generator) -> np.ndarray:
        """The audio, by chance mixed with that of a track of another video: those of its own may sound the same."""
        if rng.random() >= self.mix_chance:
            return samples
        others = np.flatnonzero(self.video_of_track != self.video_of_track[track])
        if len(others) == 0:
            return samples
        return mixed(samples, self.audio(int(rng.choice(others))), rng.uniform(*self.mix_snr_db))


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
    """Audio with other audio added, `snr_db` quieter over the whole length: (sample,) int16 all three.

    The other is repeated or cut to the length; silence on either side leaves the audio as it is. The published code
    squares 16-bit numbers in 16 bits, so that its levels are not those that it names; here they are.
    """
    noise = np.resize(noise, len(samples))
    if not noise.any():  # has no level
        return samples
    both = (torch.from_numpy(audio.astype(np.float32)) for audio in (samples, noise))
    limits = torch.iinfo(torch.int16)
    return add_noise(*both, torch.tensor(snr_db)).round().clamp(limits.min, limits.max).to(torch.int16).numpy()
