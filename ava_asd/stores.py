"""What is stored of each video, checked by its records and mapped into memory: faces, their crops, audio, MFCCs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ava_asd.config import Config
from ava_asd.layout import ANNOTATION_KEYS, VideoFolder, check_made, video_folder
from ava_asd.mfcc import whole_samples
from core.formats.arrow_file import is_text, open_arrow
from core.formats.official_csv import BOX_COLUMNS
from core.formats.wav import map_wav
from core.runtime import elsewhere
from core.runtime.errors import MediaError, UserError
from core.runtime.provenance import Files, checksums, recorded

FAULTS_SHOWN = 5
FACE_COLUMNS = dict.fromkeys(("entity_id", "frame_timestamp", "label"), is_text)
FACE_COLUMNS |= dict.fromkeys((*BOX_COLUMNS, "time_s"), pa.types.is_float64)
FACE_COLUMNS |= dict.fromkeys(("track", "frame", "width", "height"), pa.types.is_integer)


@dataclass(frozen=True)
class Store:
    """What is stored of a video.

    Attributes:
        folder: where it lies.
        start_s: time of the first frame and the first sample in seconds.
        hop_s: seconds from one vector of the MFCCs to the next.
        crops: (face, channel, row, column) uint8.
        mfccs: (coefficient, vector) float32.
    """

    folder: VideoFolder
    start_s: float
    hop_s: float
    crops: np.ndarray
    mfccs: np.ndarray

    def digest(self) -> str | None:
        """SHA-256 of what a training reads of it."""
        videos = Files(self.folder.path, self.folder.outputs, "videos")
        return recorded([videos, Files(self.folder.path, [self.folder.mfccs.name], "mfccs")])


def open_stores(config: Config, data: Path, split: str, names: Sequence[str]) -> list[Store]:
    """The stores of some videos of a split.

    Raises:
        UserError: some were not extracted, or with other settings; one message for all.
    """
    stores, faults = [], []
    for name in names:
        try:
            stores.append(open_store(config, data, split, name))
        except UserError as error:
            faults.append(f"  - {error}")
    if faults:
        more = [f"  - and {len(faults) - FAULTS_SHOWN:,} more"] if len(faults) > FAULTS_SHOWN else []
        lines = "\n".join(faults[:FAULTS_SHOWN] + more)
        raise UserError(f"{len(faults):,} of {len(names):,} videos cannot be used:\n{lines}")
    return stores


def open_store(config: Config, data: Path, split: str, name: str) -> Store:
    """The store of a video.

    Raises:
        UserError: it was not extracted, or of something else than there is now.
    """
    folder = checked_folder(config, data, split, name)
    check_made(folder.mfcc_record(config), [folder.mfccs.name], "ava-extract mfccs")
    rate, _ = read_audio(folder.audio)
    # Plain arrays over the mapped memory: a slice of a memmap costs more than the copying of a window.
    crops, mfccs = (np.asarray(np.load(path, mmap_mode="r")) for path in (folder.crops, folder.mfccs))
    start_s = float(folder.start_ts.read_text(encoding="utf-8"))
    return Store(folder, start_s, whole_samples(config.stride, rate) / rate, crops, mfccs)


def checked_folder(config: Config, data: Path, split: str, name: str) -> VideoFolder:
    """The folder of a video, after a check of what was extracted of it but for the frames.

    Raises:
        UserError: it was not extracted, or of something else than there is now.
    """
    folder = video_folder(config, data, name)
    annotations, videos = config.path(data, ANNOTATION_KEYS[split]), config.path(data, "vid_save_path")
    videos = None if elsewhere.url_of(videos) else videos  # a training asks no bucket
    check_made(folder.video_record(config, annotations, videos), folder.outputs, "ava-extract videos")
    return folder


def faces_digest(folder: VideoFolder) -> str:
    """SHA-256 of the table of a video's faces."""
    return checksums(Files(folder.path, [folder.faces.name], "videos"))[folder.faces.name]


def read_faces(path: Path) -> pa.Table:
    """The table of a video's faces, as `extract_videos.write_faces` leaves it.

    Raises:
        UserError: it is absent, unreadable or another table.
    """
    return open_arrow(path, FACE_COLUMNS, "run 'ava-extract videos' again")


def read_audio(path: Path) -> tuple[int, np.ndarray]:
    """A video's audio: samples per second, and (sample,) or (sample, channel) int16, mapped into memory.

    Raises:
        MediaError: it is absent, unreadable, cut off or not of 16 bit.
    """
    if not path.is_file():
        raise MediaError(f"no audio {path}: run 'ava-extract videos'")
    rate, samples = map_wav(path, "run 'ava-extract videos' again")
    if samples.dtype != np.int16 or rate < 1:
        raise MediaError(
            f"{path} has {samples.dtype} samples, {rate} a second, expected 16 bit: run 'ava-extract videos' again"
        )
    return rate, samples
