"""The face tracks of a split's annotations with their crops and audio: what the encoders' data sets share."""

from pathlib import Path

import numpy as np
import pandas as pd

from core.clip_utils import run_lengths
from core.formats import ava, crop_store, wav
from core.formats.crop_store import Crops
from core.formats.wav import entity_audio
from core.runtime import elsewhere
from core.runtime.provenance import Files, digest_of, recorded


def check_names(rows: pd.DataFrame, crops_dir: Path, audio_dir: Path, rows_without_crops: str) -> None:
    """See that a split has crops and audio by the names in its folders, those that are here; no file is opened.

    Args:
        rows, crops_dir, audio_dir, rows_without_crops: as of `AnnotatedTracks`.

    Raises:
        UserError: a video has no crops, or an entity no audio.
    """
    if not elsewhere.url_of(crops_dir):
        crop_store.check_names(crops_dir, rows)
    if not elsewhere.url_of(audio_dir) and rows_without_crops == "refuse":  # else some need none
        wav.check_names(audio_dir, rows)


def packed_sources(rows: pd.DataFrame, crops_dir: Path, audio_dir: Path) -> dict[str, str | int | Files] | None:
    """What `AnnotatedTracks.sources` gives of one video with packed crops, whose files are not opened, nor fetched.

    The samples are those that the outputs were made of: rows and audio decide them.

    Returns:
        None where the crops are here, in folders.

    Raises:
        UserError: the crops were cut by other rows.
    """
    video_id = rows["video_id"].iloc[0]
    if not elsewhere.url_of(crops_dir) and not (crops_dir / f"{video_id}.arrow").is_file():
        return None
    crop_store.check_boxes(crops_dir, rows)
    wavs = [wav.entity_wav(audio_dir, video_id, entity) for entity in rows["entity_id"].unique()]
    return {
        "rows": _digest(rows),
        "left_out": 0,
        "crops": Files(crops_dir, [f"{video_id}.arrow"], video_id),
        "audio": Files(audio_dir, [str(path.relative_to(audio_dir)) for path in wavs], video_id),
        "samples": Files(audio_dir, []),
    }


class AnnotatedTracks:
    """Annotated face tracks, their crops and their audio.

    Args:
        rows: annotations of a split (`ava.read_augmented`), sorted by video, entity and time.
        crops_dir: `video_dir/<split>`.
        audio_dir: `audio_dir/<split>`.
        rows_without_crops: "refuse" rows without a crop, or "leave_out": then all is as if the annotations did not have
            them, but for `audio_labels`.

    Attributes:
        rows, crops: the annotations, and their crops by row number.
        left_out: the annotations without a crop.
        video, entity: (row,) ids.
        time_s: (row,) float64.
        labels: (row,) int64, 1 where the face is heard speaking.
        audio_labels: (row,) int64, 1 where anybody who is annotated at the row's time is heard speaking.
        starts, lengths: (track,) int64, each track's first row and how many rows it has.

    Raises:
        UserError: crops or audio that the rows call for are absent.
    """

    def __init__(
        self, rows: pd.DataFrame, crops_dir: str | Path, audio_dir: str | Path, rows_without_crops: str = "refuse"
    ):
        self.crops = Crops(crops_dir, rows, rows_without_crops)
        there = self.crops.there
        self.audio_dir = Path(audio_dir)
        self._audio = entity_audio(rows, there, self.audio_dir)
        speaking = rows["label_id"] == ava.SPEAKING_ID
        anybody = speaking.groupby([rows["video_id"], rows["time_s"]]).transform("any")
        self.audio_labels = anybody[there].to_numpy(np.int64)
        self.rows, self.left_out = rows[there].reset_index(drop=True), rows[~there]
        self.video, self.entity = self.rows["video_id"].to_numpy(), self.rows["entity_id"].to_numpy()
        self.time_s = self.rows["time_s"].to_numpy()
        self.labels = speaking[there].to_numpy(np.int64)
        self.starts, self.lengths = run_lengths(self.entity)

    def sources(self) -> dict[str, dict[str, str | int | list | Files]]:
        """Video id -> what its features are made of, beside the encoder: rows, crops and audio."""
        sources = {}
        for start, length in zip(*run_lengths(self.video), strict=True):
            rows, video_id = slice(start, start + length), self.video[start]
            tracks = [self._audio[track] for track in np.flatnonzero(self.video[self.starts] == video_id)]
            left_out = self.left_out[self.left_out["video_id"] == video_id]
            annotated = pd.concat([self.rows[rows], left_out])
            sources[video_id] = {
                "rows": _digest(annotated),
                "left_out": len(left_out),
                "crops": self.crops.sources(rows),
                "audio": Files(self.audio_dir, [str(a.path.relative_to(self.audio_dir)) for a in tracks], video_id),
                "samples": [[track.begin, track.end] for track in tracks],
            }
        return sources

    def made_of(self) -> dict[str, str | None]:
        """What a training on these tracks depends on, by SHA-256; None for crops or audio without records."""
        sources = self.sources().values()
        return {
            "rows": digest_of([source["rows"] for source in sources]),
            "crops": recorded(source["crops"] for source in sources),
            "audio": recorded(source["audio"] for source in sources),
        }

    def left_out_text(self) -> str:
        """How many rows are left out, to be said with what is made of the others; empty where there are none."""
        return ava.left_out_text(len(self.left_out), len(self.rows))

    def audio(self, track: int) -> np.ndarray:
        """(sample,) int16 at 16 kHz, from the track's first timestamp to its last; memory-mapped."""
        return self._audio[track].read()


def _digest(rows: pd.DataFrame) -> str:
    return ava.digest(rows, ["entity_id", "frame_timestamp", "label_id"])
