"""The face tracks of a split's annotations with their crops and audio: what the encoders' data sets share."""

from pathlib import Path

import numpy as np
import pandas as pd

from core.clip_utils import run_lengths
from core.formats import ava
from core.formats.crop_store import Crops
from core.formats.wav import check_audio, read_wav


class AnnotatedTracks:
    """Annotated face tracks, their crops and their audio.

    Args:
        rows: annotations of a split (`ava.read_augmented`), sorted by video, entity and time.
        crops_dir: `video_dir/<split>`.
        audio_dir: `audio_dir/<split>`.

    Attributes:
        rows, crops: the annotations, and their crops by row number.
        video, entity: (row,) ids.
        time_s: (row,) float64.
        labels: (row,) int64, 1 where the face is heard speaking.
        starts, lengths: (track,) int64, each track's first row and how many rows it has.

    Raises:
        UserError: crops or audio that the rows call for are absent.
    """

    def __init__(self, rows: pd.DataFrame, crops_dir: str | Path, audio_dir: str | Path):
        self.rows, self.crops, self.audio_dir = rows, Crops(crops_dir, rows), Path(audio_dir)
        check_audio(rows, self.audio_dir)
        self.video, self.entity = rows["video_id"].to_numpy(), rows["entity_id"].to_numpy()
        self.time_s = rows["time_s"].to_numpy()
        self.labels = (rows["label_id"].to_numpy() == ava.SPEAKING_ID).astype(np.int64)
        self.starts, self.lengths = run_lengths(self.entity)

    def audio(self, track: int) -> np.ndarray:
        """(sample,) int16 at 16 kHz, from the track's first timestamp to its last; memory-mapped."""
        return read_wav(self.audio_dir / f"{self.entity[self.starts[track]]}.wav")
