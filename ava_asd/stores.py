"""What is stored of each video, mapped into memory and checked: faces, their crops, audio, MFCCs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from ava_asd.config import Config
from ava_asd.layout import VideoFolder, crop_settings, mfcc_settings, video_folder
from core.formats.arrow_file import is_text, open_arrow
from core.formats.ava import ANNOTATION_SUFFIX, LABEL_IDS, annotation_files
from core.formats.official_csv import BOX_COLUMNS
from core.formats.wav import map_wav
from core.runtime.errors import MediaError, UserError
from core.runtime.files import fingerprint

FAULTS_SHOWN = 5
FACE_COLUMNS = dict.fromkeys(("entity_id", "frame_timestamp", "label"), is_text)
FACE_COLUMNS |= dict.fromkeys((*BOX_COLUMNS, "time_s"), pa.types.is_float64)
FACE_COLUMNS |= dict.fromkeys(("track", "frame", "width", "height"), pa.types.is_integer)


@dataclass(frozen=True)
class Store:
    """What is stored of a video.

    Attributes:
        folder: where it lies.
        annotations: SHA-256 of those that the faces are from.
        start_s: time of the first frame and the first sample in seconds.
        hop_s: seconds from one vector of the MFCCs to the next.
        crops: (face, channel, row, column) uint8.
        mfccs: (coefficient, vector) float32.
        time_s: (face,) float64 seconds.
    """

    folder: VideoFolder
    annotations: str
    start_s: float
    hop_s: float
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
    annotations = folder.check("videos", crop_settings(config))["annotations"]
    found = folder.check("mfccs", mfcc_settings(config))
    start_s = folder.start_s()
    if found["start_ts"] != start_s:
        raise UserError(f"{folder.mfccs} is of another extraction: run 'ava-extract mfccs' again")
    # Plain arrays over the mapped memory: a slice of a memmap costs more than the copying of a window.
    time_s = read_faces(folder.faces)["time_s"].to_numpy()
    crops, mfccs = np.asarray(open_crops(folder, config, len(time_s))), np.asarray(open_mfccs(folder, config))
    return Store(folder, annotations, start_s, found["hop_s"], crops, mfccs, time_s)


def read_faces(path: Path) -> pa.Table:
    """The table of a video's faces, as `extract_videos.write_faces` leaves it.

    Raises:
        UserError: it is absent, unreadable or another table.
    """
    table = open_arrow(path, FACE_COLUMNS, "run 'ava-extract videos' again")
    numbers = {name: table[name].to_numpy() for name, check in FACE_COLUMNS.items() if check is not is_text}
    good = all(np.isfinite(values).all() for values in numbers.values())
    good = good and all((numbers[name] > 0).all() for name in ("frame", "width", "height"))
    if not good or not set(table["label"].unique().to_pylist()) <= set(LABEL_IDS):
        raise UserError(f"{path} holds numbers or labels that no face has: run 'ava-extract videos' again")
    return table


def open_crops(folder: VideoFolder, config: Config, faces: int) -> np.memmap:
    """A video's faces at network size, as many as its table has: (face, channel, row, column) uint8.

    Raises:
        UserError: they are absent, unreadable, or of another number or size.
    """
    shape = (faces, config.channels, config.height, config.width)
    return _open_array(folder.crops, np.uint8, shape, "videos")


def open_mfccs(folder: VideoFolder, config: Config) -> np.memmap:
    """A video's MFCCs: (coefficient, vector) float32.

    Raises:
        UserError: they are absent, unreadable or of another size.
    """
    return _open_array(folder.mfccs, np.float32, (config.nmfcc, None), "mfccs")


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


def check_annotations(stores: Sequence[Store], samples: Mapping[str, str | None], folder: Path) -> None:
    """Check that times and labels are of one source: of the samples, of the stored faces, and of the annotations.

    Args:
        stores: of the videos.
        samples: video id -> SHA-256 of the annotations that its samples are from, of all videos of the split.
        folder: of the split's annotations; where it holds none any more, they are not asked for.

    Raises:
        UserError: they are not.
    """
    again = "'ava-extract annotations' again (and 'ava-subset', if you use it)"
    files = annotation_files(folder) if any(folder.glob(f"*{ANNOTATION_SUFFIX}")) else {}
    if files and (other := files.keys() ^ samples.keys()):
        raise UserError(
            f"{folder} does not have the videos that the samples are of ({min(other)} for one is new, or gone): run "
            f"'ava-extract videos', 'ava-extract mfccs' and {again}"
        )
    for store in stores:
        name = store.folder.path.name
        if samples.get(name) != store.annotations:
            raise UserError(
                f"{store.folder.path} was extracted with other annotations than the samples are from: run {again}"
            )
        if files and fingerprint(files[name]) != store.annotations:
            raise UserError(
                f"{files[name]} has changed since {store.folder.path} was extracted: run 'ava-extract videos', "
                f"'ava-extract mfccs' and {again}"
            )


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
        if faces.max() >= len(store.time_s) or (store.time_s[faces] != times).any():
            raise UserError(f"{store.folder.path} has other faces than the samples: run 'ava-extract annotations'")


def _open_array(path: Path, dtype: type, shape: tuple[int | None, ...], step: str) -> np.memmap:
    """Map an .npy file into memory; in the shape that it must have, None is any length. `step` writes it."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # damaged headers, which are Python source, end in all kinds
        raise UserError(f"{path} cannot be read ({error}): run 'ava-extract {step}' again") from error
    fits = array.ndim == len(shape) and all(n in (None, found) for n, found in zip(shape, array.shape, strict=True))
    if array.dtype != dtype or not fits:
        expected = " x ".join("any" if n is None else str(n) for n in shape)
        found = " x ".join(map(str, array.shape))
        raise UserError(
            f"{path} holds {array.dtype} numbers, {found}, expected {np.dtype(dtype)}, {expected}: run 'ava-extract "
            f"{step}' again"
        )
    return array
