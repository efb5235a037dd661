"""Face crops: cut in one sequential pass over a video, stored packed (Arrow) or in the published folders, read back.

Packed: one `<video_id>.arrow` (Arrow IPC file), rows sorted by entity then time: entity_id, frame_timestamp (text),
jpeg (bytes). Folders: `<entity_id>/<frame_timestamp>.jpg`, as the published preparation leaves them.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torchvision.transforms.v2 import functional as tvf

from core import ava
from core.errors import UserError
from core.files import written_whole
from core.media import MediaError
from core.video import Frame, probe, read_frames

CROP_SIZE = 144  # pixels; what the published networks take
JPEG_QUALITY = 90  # real faces of 144 x 144 take 4.3 kB on average
LAYOUTS = ("packed", "folders")
ROWS_PER_BATCH = 4096
SCHEMA = pa.schema(
    [("entity_id", pa.dictionary(pa.int32(), pa.string())), ("frame_timestamp", pa.string()), ("jpeg", pa.binary())]
)


def extract_crops(
    video: str | Path, rows: pd.DataFrame, out: str | Path, size: int = CROP_SIZE, layout: str = "packed"
) -> None:
    """Cut all faces of one video and store them.

    Args:
        video: video file.
        rows: the video's annotations (`ava.AUGMENTED_COLUMNS` and time_s), sorted by entity and time.
        out: folder of the split.
        size: pixels of a stored crop's side; 0 keeps the size in the video.
        layout: "packed" or "folders".

    Raises:
        MediaError: the video is unreadable or truncated, or a row's time lies outside it.
    """
    video_id = rows["video_id"].iloc[0]
    crops = cut_crops(video, rows, size)
    if layout == "folders":
        for row, jpeg in crops:
            name = f"{rows['frame_timestamp'].iloc[row]}.jpg"
            with written_whole(Path(out) / rows["entity_id"].iloc[row] / name) as temporary:
                temporary.write_bytes(jpeg)
    else:
        _write_packed(Path(out) / f"{video_id}.arrow", rows, crops, size)


def cut_crops(video: str | Path, rows: pd.DataFrame, size: int) -> Iterator[tuple[int, bytes]]:
    """Decode a video once and give (row position, JPEG) for every row, in order of time.

    Boxes are clamped to the frame; pixel edges are truncated as in the published preparation.

    Raises:
        MediaError: as `extract_crops`.
    """
    info = probe(video)
    edges = _pixel_edges(ava.boxes(rows), info.width, info.height)
    for row, frame in nearest_frames(video, rows, info.fps):
        yield row, _crop_jpeg(frame, edges[row], size)


def nearest_frames(video: str | Path, rows: pd.DataFrame, fps: float) -> Iterator[tuple[int, Frame]]:
    """Decode a video once and give (row position, the frame whose time is nearest the row's), in order of time.

    Args:
        video: video file.
        rows: with time_s, in seconds.
        fps: the video's average frames per second.

    Raises:
        MediaError: as `extract_crops`.
    """
    times = rows["time_s"].to_numpy()
    order = np.argsort(times, kind="stable").tolist()
    # A row may lie a little outside the picture: annotation grids and frame grids are not the same.
    tolerance = 1.5 / fps
    next_row, before = 0, None
    for frame in read_frames(video, float(times[order[0]]), float(times[order[-1]])):
        while next_row < len(order):
            row = order[next_row]
            time_s = times[row]
            if time_s > frame.time_s:
                break  # the next frame may be nearer
            if before is None and frame.time_s - time_s > tolerance:
                raise MediaError(f"{video}: the picture begins at {frame.time_s:.2f} s, {_row_text(rows, row)}")
            nearer_before = before is not None and time_s - before.time_s <= frame.time_s - time_s
            yield row, before if nearer_before else frame
            next_row += 1
        if next_row == len(order):
            return
        before = frame
    for row in order[next_row:]:
        if before is None or times[row] - before.time_s > tolerance:
            end = f"ends at {before.time_s:.2f} s" if before else "has no frames there"
            raise MediaError(f"{video}: the picture {end}, {_row_text(rows, row)}")
        yield row, before


def is_extracted(rows: pd.DataFrame, out: str | Path, size: int, layout: str) -> bool:
    """Whether a video's crops are there, whole, for just these rows and this size."""
    if layout == "folders":
        return all(
            (Path(out) / entity / f"{timestamp}.jpg").is_file()
            for entity, timestamp in zip(rows["entity_id"], rows["frame_timestamp"], strict=True)
        )
    path = Path(out) / f"{rows['video_id'].iloc[0]}.arrow"
    if not path.is_file():
        return False
    table = _open_table(path)
    stored = (table.schema.metadata or {}).get(b"crop_size", b"").decode()
    return stored == str(size) and _first_difference(table, rows) is None


class Crops:
    """Reads the crops of one split, packed or in folders, by row number of its annotation table.

    Args:
        folder: `video_dir/<split>`.
        rows: the split's annotations, sorted by video, entity and time.

    Raises:
        UserError: crops of a video or an entity are absent, or the stored keys are not those of `rows`.
    """

    def __init__(self, folder: str | Path, rows: pd.DataFrame):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise UserError(f"no crop folder {self.folder}: run data/extract_face_crops_time.py first")
        videos = rows["video_id"].to_numpy()
        self._video_starts = np.concatenate([[0], np.flatnonzero(videos[1:] != videos[:-1]) + 1])
        self._videos = videos[self._video_starts].tolist()
        self.packed = any((self.folder / f"{video}.arrow").is_file() for video in self._videos)
        self._entity, self._timestamp = rows["entity_id"].to_numpy(), rows["frame_timestamp"].to_numpy()
        self._columns: dict[int, tuple[np.ndarray, list[pa.BinaryArray]]] = {}  # opened lazily, in each process
        if self.packed:
            ends = np.append(self._video_starts[1:], len(rows))
            for video, start, end in zip(self._videos, self._video_starts, ends, strict=True):
                self._check_packed(video, rows.iloc[start:end])
        else:
            for entity, video in rows.drop_duplicates("entity_id")[["entity_id", "video_id"]].itertuples(index=False):
                if not (self.folder / entity).is_dir():
                    raise UserError(
                        f"no crops of entity {entity} (video {video}): neither {self.folder / video}.arrow nor the "
                        f"folder {self.folder / entity}; run data/extract_face_crops_time.py"
                    )

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_columns": {}}

    def decode(self, row: int, size: int | None = None) -> np.ndarray:
        """One crop as (size, size, [r, g, b]) uint8; resized (bicubic) where it is stored at another size.

        Without a size it is (height, width, [r, g, b]), as stored.

        Raises:
            UserError: the crop is absent or no picture.
        """
        jpeg = np.frombuffer(self.jpeg(row), np.uint8)
        pixels = cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB) if len(jpeg) else None
        if pixels is None:
            raise UserError(f"{self._place(row)} is no readable picture; delete the file and extract its video again")
        return pixels if size is None or pixels.shape[:2] == (size, size) else resize(pixels, size)

    def jpeg(self, row: int) -> bytes | pa.Buffer:
        """The stored bytes of one crop, without copying where it is packed."""
        if not self.packed:
            return self._folder_file(row).read_bytes()
        video = int(np.searchsorted(self._video_starts, row, side="right")) - 1
        if video not in self._columns:
            column = _open_table(self.folder / f"{self._videos[video]}.arrow")["jpeg"]
            starts = np.cumsum([0] + [len(chunk) for chunk in column.chunks[:-1]])
            self._columns[video] = starts, column.chunks
        starts, chunks = self._columns[video]
        position = row - self._video_starts[video]
        chunk = int(np.searchsorted(starts, position, side="right")) - 1
        return chunks[chunk][int(position - starts[chunk])].as_buffer()

    def _folder_file(self, row: int) -> Path:
        folder, text = self.folder / self._entity[row], self._timestamp[row]
        for name in (text, str(float(text))):  # the published preparation names files by the number: 900.1 for 900.10
            if (folder / f"{name}.jpg").is_file():
                return folder / f"{name}.jpg"
        raise UserError(f"no crop {folder / text}.jpg: run data/extract_face_crops_time.py for its video again")

    def _check_packed(self, video: str, rows: pd.DataFrame) -> None:
        path = self.folder / f"{video}.arrow"
        if not path.is_file():
            raise UserError(f"no crops of video {video} ({path}): run data/extract_face_crops_time.py")
        difference = _first_difference(_open_table(path), rows)
        if difference is not None:
            raise UserError(
                f"{path} was cut for other annotations ({difference}); run data/extract_face_crops_time.py again "
                "with the csv that is used here"
            )

    def _place(self, row: int) -> str:
        return f"crop of entity {self._entity[row]} at {self._timestamp[row]} s in {self.folder}"


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bicubic with antialiasing, as the published loader's: (height, width, 3) -> (size, size, 3) uint8."""
    planes = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1)
    planes = tvf.resize(planes, [size, size], tvf.InterpolationMode.BICUBIC, antialias=True)
    return planes.permute(1, 2, 0).contiguous().numpy()


def _pixel_edges(boxes: np.ndarray, width: int, height: int) -> list[list[int]]:
    """Boxes (row, 4) as fractions -> x1, y1, x2, y2 of each in whole pixels of the frame, at least one pixel wide."""
    edges = (np.clip(boxes, 0, 1) * (width, height, width, height)).astype(int)
    edges[:, :2] = np.minimum(edges[:, :2], (width - 1, height - 1))
    edges[:, 2:] = np.maximum(edges[:, 2:], edges[:, :2] + 1)
    return edges.tolist()


def _crop_jpeg(frame: Frame, edges: list[int], size: int) -> bytes:
    crop = frame.bgr_region(*edges)
    if size:
        crop = resize(crop, size)
    flags = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", crop, flags)[1].tobytes()


def _write_packed(path: Path, rows: pd.DataFrame, crops: Iterator[tuple[int, bytes]], size: int) -> None:
    """Sort by entity what comes by time: spill to an unnamed file, so that memory stays flat for any length."""
    offsets = np.zeros((len(rows), 2), np.int64)  # start and length of each row's bytes in the spill
    schema = SCHEMA.with_metadata({"crop_size": str(size)})
    with written_whole(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as spill:
        for row, jpeg in crops:
            offsets[row] = spill.tell(), len(jpeg)
            spill.write(jpeg)
        entity = pa.array(rows["entity_id"].to_numpy(), pa.string()).dictionary_encode()
        timestamp = pa.array(rows["frame_timestamp"].to_numpy(), pa.string())
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for start in range(0, len(rows), ROWS_PER_BATCH):
                part = slice(start, start + ROWS_PER_BATCH)
                jpegs = []
                for offset, length in offsets[part]:
                    spill.seek(offset)
                    jpegs.append(spill.read(length))
                columns = [entity[part], timestamp[part], pa.array(jpegs, pa.binary())]
                writer.write_batch(pa.record_batch(columns, schema=schema))


def _open_table(path: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is no crop file ({error}); delete it and extract its video again") from error


def _first_difference(table: pa.Table, rows: pd.DataFrame) -> str | None:
    """Where the keys of a stored table and of annotation rows differ, in words; None where they agree."""
    if table.num_rows != len(rows):
        return f"{table.num_rows} crops, {len(rows)} annotated faces"
    for name in ("entity_id", "frame_timestamp"):
        stored, wanted = table[name].to_numpy(), rows[name].to_numpy()
        differs = stored != wanted
        if differs.any():
            row = int(differs.argmax())
            return f"row {row} has {name} {stored[row]}, annotated is {wanted[row]}"
    return None


def _row_text(rows: pd.DataFrame, row: int) -> str:
    entity, timestamp = rows["entity_id"].iloc[row], rows["frame_timestamp"].iloc[row]
    return f"but entity {entity} is annotated at {timestamp} s"
