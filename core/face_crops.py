"""How a face is cut from a frame for an encoder: one function for each published protocol.

All take a frame and a box (x1, y1, x2, y2) in pixels of the displayed picture, which may reach over its edges.
"""

from collections.abc import Callable

import cv2
import numpy as np

from core.crops import CROP_SIZE, resize
from core.video import Frame

FACE_SIZE = 112  # pixels, side of what the whole-track encoders take
OUTSIDE_GREY = 110  # what the published own-video protocol puts around the picture
# The own-video protocol cuts a square from s above the face's centre to s (1 + 2 * 0.40) below it, and (1 + 0.40) s to
# either side, s being half of the longer side; scales it to 224 x 224; the network sees the middle 112 x 112: this much
# of s above, below and beside the centre.
ABOVE, BELOW, BESIDE = 0.3, 1.1, 0.7
THUMBNAIL_SIZE = 72
THUMBNAIL_QUALITY = 85  # of the JPEG: 2 to 3 kB
THUMBNAIL_MARGIN = 0.25  # of the face, on every side

CropFunction = Callable[[Frame, np.ndarray], np.ndarray]


def box_crop(frame: Frame, box: np.ndarray) -> np.ndarray:
    """The box itself, clamped to the frame: (112, 112) uint8, grey (Light-ASD's and LR-ASD's AVA protocol)."""
    return cv2.resize(frame.grey_region(*clamped(box, frame)), (FACE_SIZE, FACE_SIZE))


def lower_face_crop(frame: Frame, box: np.ndarray) -> np.ndarray:
    """A square around the lower face: (112, 112) uint8, grey (the same encoders' own-video protocol)."""
    (x1, y1, x2, y2) = box
    half = max(x2 - x1, y2 - y1) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    square = np.array([x - BESIDE * half, y - ABOVE * half, x + BESIDE * half, y + BELOW * half])
    edges = np.round(square).astype(int)
    edges[2:] = np.maximum(edges[2:], edges[:2] + 1)
    inside = clamped(edges, frame)
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
    return resize(frame.bgr_region(*clamped(box, frame))[:, :, ::-1], CROP_SIZE)


def thumbnail(frame: Frame, box: np.ndarray) -> bytes:
    """The face with a margin around it, for people to look at: a JPEG of 72 x 72 pixels."""
    half = (1 + 2 * THUMBNAIL_MARGIN) * max(box[2] - box[0], box[3] - box[1]) / 2
    centre = (box[:2] + box[2:]) / 2
    half = min(half, frame.width / 2, frame.height / 2)
    centre = np.clip(centre, half, np.array([frame.width, frame.height]) - half)
    region = frame.bgr_region(*clamped(np.concatenate([centre - half, centre + half]), frame))
    small = cv2.resize(region, (THUMBNAIL_SIZE, THUMBNAIL_SIZE), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, THUMBNAIL_QUALITY])[1].tobytes()


CROPS: dict[str, CropFunction] = {"box": box_crop, "lower_face": lower_face_crop, "colour": colour_crop}


def clamped(box: np.ndarray, frame: Frame) -> np.ndarray:
    """Whole pixels of a box within the frame, at least one pixel wide and high: (x1, y1, x2, y2) int."""
    size = np.array([frame.width, frame.height])
    edges = np.empty(4, np.int64)
    edges[:2] = np.clip(box[:2], 0, size - 1)
    edges[2:] = np.clip(box[2:], edges[:2] + 1, size)
    return edges
