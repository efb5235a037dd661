"""Faces cut from a video: crops of annotated rows in one pass, and one function for each published protocol.

A box is (x1, y1, x2, y2) in pixels of the displayed frame, which may reach over its edges.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from core.boxes import pixel_edges
from core.clip_utils import CROP_SIZE, FACE_SIZE
from core.media.container import MediaFile
from core.media.video import Frame, read_frames, until_failure
from core.runtime.errors import MediaError
from core.runtime.files import atomic_write

if TYPE_CHECKING:  # it takes half a second to import
    import pandas as pd

JPEG_QUALITY = 90  # real faces of 144 x 144 take 4.3 kB on average

OUTSIDE_GREY = 110  # what the published own-video protocol puts around the frame
# The own-video protocol cuts a square from s above the face's centre to s (1 + 2 * 0.40) below it, and (1 + 0.40) s to
# either side, s being half of the longer side; scales it to 224 x 224; the network sees the middle 112 x 112: this much
# of s above, below and beside the centre.
ABOVE, BELOW, BESIDE = 0.3, 1.1, 0.7
THUMBNAIL_SIZE = 72
THUMBNAIL_QUALITY = 85  # of the JPEG: 2 to 3 kB
THUMBNAIL_MARGIN = 0.25  # of the face, on every side

CropFunction = Callable[[Frame, np.ndarray], np.ndarray]


def extract_crops(
    media: MediaFile, rows: "pd.DataFrame", out: str | Path, size: int = CROP_SIZE, layout: str = "packed"
) -> None:
    """Cut all faces of one video and store them.

    Args:
        media: the open video.
        rows: the video's annotations (`ava.AUGMENTED_COLUMNS` and time_s), sorted by entity and time.
        out: folder of the split.
        size: pixels of a stored crop's side; 0 keeps the size in the video.
        layout: "packed" or "folders".

    Raises:
        MediaError: the video cannot be decoded or is truncated, or a row's time lies outside it.
    """
    from core.formats.crop_store import crop_path, write_packed  # here, as below: it imports pandas

    video_id = rows["video_id"].iloc[0]
    crops = cut_crops(media, rows, size)
    if layout == "folders":
        for row, jpeg in crops:
            with atomic_write(Path(out) / crop_path(Path(out), rows.iloc[row]), sync=False) as temporary:
                temporary.write_bytes(jpeg)
    else:
        write_packed(Path(out) / f"{video_id}.arrow", rows, crops)


def cut_crops(media: MediaFile, rows: "pd.DataFrame", size: int) -> Iterator[tuple[int, bytes]]:
    """Decode a video once and give (row position, JPEG) for every row, in order of time.

    Boxes are clamped to the frame; pixel edges are truncated as in the published preparation.

    Raises:
        MediaError: as `extract_crops`.
    """
    from core.formats import ava
    from core.formats.crop_store import resize

    info = media.info
    edges = pixel_edges(ava.boxes(rows) * np.tile([info.width, info.height], 2), info.width, info.height)
    for row, frame in nearest_frames(media, rows):
        crop = frame.bgr_region(*edges[row].tolist())
        yield row, _jpeg(resize(crop, size) if size else crop, JPEG_QUALITY)


def nearest_frames(media: MediaFile, rows: "pd.DataFrame") -> Iterator[tuple[int, Frame]]:
    """Decode a video once and give (row position, the frame whose time is nearest the row's), in order of time.

    Args:
        media: the open video.
        rows: with time_s, in seconds; for messages entity_id and frame_timestamp.

    Raises:
        MediaError: as `extract_crops`.
    """
    times = rows["time_s"].to_numpy()
    order = np.argsort(times, kind="stable").tolist()
    # A row may lie a little outside the video: annotation grids and frame grids are not the same.
    tolerance = 1.5 / media.info.fps
    next_row, before = 0, None
    frames = read_frames(media, float(times[order[0]]), float(times[order[-1]]))
    for frame in until_failure(frames) if media.tolerant else frames:
        while next_row < len(order):
            row = order[next_row]
            time_s = times[row]
            if time_s > frame.time_s:
                break  # the next frame may be nearer
            if before is None and frame.time_s - time_s > tolerance:
                raise MediaError(f"{media.path}: the video begins at {frame.time_s:.2f} s, {_row_text(rows, row)}")
            nearer_before = before is not None and time_s - before.time_s <= frame.time_s - time_s
            yield row, before if nearer_before else frame
            next_row += 1
        if next_row == len(order):
            return
        before = frame
    for row in order[next_row:]:
        if before is None or times[row] - before.time_s > tolerance:
            end = f"ends at {before.time_s:.2f} s" if before else "has no frames there"
            raise MediaError(f"{media.path}: the video {end}, {_row_text(rows, row)}")
        yield row, before


def _row_text(rows: "pd.DataFrame", row: int) -> str:
    entity, timestamp = rows["entity_id"].iloc[row], rows["frame_timestamp"].iloc[row]
    return f"but entity {entity} is annotated at {timestamp} s"


def box_crop(frame: Frame, box: np.ndarray) -> np.ndarray:
    """The box itself, clamped to the frame: (112, 112) uint8, grey (Light-ASD's and LR-ASD's AVA protocol)."""
    return cv2.resize(frame.grey_region(*_edges(box, frame)), (FACE_SIZE, FACE_SIZE))


def lower_face_crop(frame: Frame, box: np.ndarray) -> np.ndarray:
    """A square around the lower face: (112, 112) uint8, grey (the same encoders' own-video protocol)."""
    (x1, y1, x2, y2) = box
    half = max(x2 - x1, y2 - y1) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    square = np.array([x - BESIDE * half, y - ABOVE * half, x + BESIDE * half, y + BELOW * half])
    edges = np.round(square).astype(int)
    edges[2:] = np.maximum(edges[2:], edges[:2] + 1)
    inside = _edges(edges, frame)
    region = frame.grey_region(*inside)
    if (edges != inside).any():
        left, top = np.maximum(0, inside[:2] - edges[:2])
        right, bottom = np.maximum(0, edges[2:] - inside[2:])
        region = cv2.copyMakeBorder(
            region, int(top), int(bottom), int(left), int(right), cv2.BORDER_CONSTANT, value=OUTSIDE_GREY
        )
    return cv2.resize(region, (FACE_SIZE, FACE_SIZE))


def colour_crop(frame: Frame, box: np.ndarray) -> np.ndarray:
    """The box itself, clamped to the frame: (144, 144, [r, g, b]) uint8 (the Short-Term Encoder's input)."""
    from core.formats.crop_store import resize

    return resize(frame.bgr_region(*_edges(box, frame))[:, :, ::-1], CROP_SIZE)


def thumbnail(frame: Frame, box: np.ndarray) -> bytes:
    """The face with a margin around it, for people to see: a JPEG of 72 x 72 pixels."""
    half = (1 + 2 * THUMBNAIL_MARGIN) * max(box[2] - box[0], box[3] - box[1]) / 2
    centre = (box[:2] + box[2:]) / 2
    half = min(half, frame.width / 2, frame.height / 2)
    centre = np.clip(centre, half, np.array([frame.width, frame.height]) - half)
    region = frame.bgr_region(*_edges(np.concatenate([centre - half, centre + half]), frame))
    return _jpeg(cv2.resize(region, (THUMBNAIL_SIZE, THUMBNAIL_SIZE), interpolation=cv2.INTER_AREA), THUMBNAIL_QUALITY)


def window_crop(frame: Frame, centre: np.ndarray, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """What a window over a frame shows, between whole pixels too; black where it reaches over the frame.

    Args:
        frame: displayed upright.
        centre: ([x, y],) of the window, pixels.
        shape: its width and height, pixels of the frame.
        size: width and height to scale that to.

    Returns:
        (height, width, [r, g, b]) uint8.
    """
    left_top = centre - np.array(shape) / 2
    reach = np.concatenate([np.floor(left_top), np.ceil(left_top + shape)])
    x1, y1, x2, y2 = _edges(reach, frame)
    region = cv2.cvtColor(frame.bgr_region(x1, y1, x2, y2), cv2.COLOR_BGR2RGB)
    move = np.column_stack([np.eye(2), left_top - (x1, y1)])
    window = cv2.warpAffine(region, move, shape, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    if shape == size:
        return window
    return cv2.resize(window, size, interpolation=cv2.INTER_AREA if size[0] < shape[0] else cv2.INTER_CUBIC)


CROPS: dict[str, CropFunction] = {"box": box_crop, "lower_face": lower_face_crop, "colour": colour_crop}


def _edges(box: np.ndarray, frame: Frame) -> np.ndarray:
    return pixel_edges(box, frame.width, frame.height)


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """(height, width, [b, g, r]) uint8 -> JPEG, quality 0 to 100."""
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
