"""What is stored of each video, mapped into memory: face crops and MFCCs, checked against settings and samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ava_asd.config import Config
from ava_asd.extract_annotations import read_faces
from ava_asd.layout import VideoFolder, crop_settings, mfcc_settings, video_folder
from core.errors import UserError

FAULTS_SHOWN = 5


@dataclass(frozen=True)
class Store:
    """What is stored of a video.

    Attributes:
        folder: where it lies.
        start_s: time of the first frame and the first sample in seconds.
        crops: (face, channel, row, column) uint8.
        mfccs: (coefficient, vector) float32.
        time_s: (face,) float64 seconds.
    """

    folder: VideoFolder
    start_s: float
    crops: np.ndarray
    mfccs: np.ndarray
    time_s: np.ndarray


def open_stores(config: Config, data: Path, names: Sequence[str]) -> list[Store]:
    """The stores of some videos.

    Raises:
        UserError: some were not extracted, or with other settings; one message for all.
    """
    stores, faults = [], []
    for name in names:
        try:
            stores.append(open_store(config, video_folder(config, data, name)))
        except UserError as error:
            faults.append(f"  - {error}")
    if faults:
        more = [f"  - and {len(faults) - FAULTS_SHOWN:,} more"] if len(faults) > FAULTS_SHOWN else []
        lines = "\n".join(faults[:FAULTS_SHOWN] + more)
        raise UserError(f"{len(faults):,} of {len(names):,} videos cannot be used:\n{lines}")
    return stores


def open_store(config: Config, folder: VideoFolder) -> Store:
    """The store of a video.

    Raises:
        UserError: it was not extracted, or with other settings, or cannot be read.
    """
    for step, wanted in (("videos", crop_settings(config)), ("mfccs", mfcc_settings(config))):
        found = folder.made_with(step)
        if found is None:
            raise UserError(f"{folder.path}: 'ava-extract {step}' has not finished there; run it")
        other = [f"{key} {found.get(key)} instead of {value}" for key, value in wanted.items() if found[key] != value]
        if other:
            raise UserError(f"{folder.path} was made with {', '.join(other)}: run 'ava-extract {step}' again")
    start_s = folder.start_s()
    if found["start_ts"] != start_s:
        raise UserError(f"{folder.mfccs} is of another extraction: run 'ava-extract mfccs' again")
    try:
        crops, mfccs = (np.load(path, mmap_mode="r") for path in (folder.crops, folder.mfccs))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder.path} cannot be read ({error}): delete it and run all of ava-extract") from error
    # Plain arrays over the mapped memory: a slice of a memmap costs more than the copying of a window.
    return Store(folder, start_s, np.asarray(crops), np.asarray(mfccs), read_faces(folder.faces)["time_s"].to_numpy())


def check_faces(stores: Sequence[Store], code: np.ndarray, last: np.ndarray, time_s: np.ndarray) -> None:
    """Check that the samples are of the stored faces, which may have been extracted anew since.

    Args:
        stores: of the videos.
        code: (sample,) int, which video.
        last: (sample,) int, row of the last face.
        time_s: (sample,) float64, time of the last face.

    Raises:
        UserError: they are not.
    """
    for number, store in enumerate(stores):
        faces, times = last[code == number], time_s[code == number]
        there = len(store.crops) == len(store.time_s) and faces.max() < len(store.crops)
        if not there or (store.time_s[faces] != times).any():
            raise UserError(f"{store.folder.path} has other faces than the samples: run 'ava-extract annotations'")
