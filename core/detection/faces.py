"""Face detectors, all behind one small interface: a picture in, boxes with scores out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from core.detection.shots import ShotFrame
from core.download.cache import NotDownloadedError, cached
from core.download.weights_catalogue import YUNET
from core.media.video import Frame
from core.runtime.errors import MediaError, UserError
from core.runtime.files import fingerprint

NON_MAXIMUM_SUPPRESSION = 0.3  # overlap from which two boxes are one face; OpenCV's default for YuNet
MOST_CANDIDATES = 5000  # OpenCV's default
HAAR_FILE = "haarcascade_frontalface_default.xml"  # shipped with OpenCV
HAAR_CERTAIN = 10.0  # level weight of a face that is hardly ever a mistake; its share of this is the score

DETECTION_SIDE = 640  # pixels, longer side of the picture in which faces are looked for
IsDue = Callable[[int, float], bool]  # of a look, by the frames and the seconds since the last one


class FaceDetector(Protocol):
    """Finds faces in one picture.

    Attributes:
        name: for the output and its readers.
    """

    name: str

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """(height, width, [b, g, r]) uint8 -> (face, [x1, y1, x2, y2, score]) float32, pixels; the score is 0 to 1."""
        ...


class YuNet:
    """OpenCV's `FaceDetectorYN` with the YuNet network (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector",
    Machine Intelligence Research 2023).

    Args:
        weights: ONNX file.
        threshold: least score of a face.

    Raises:
        UserError: the file is absent or no YuNet network.
    """

    name = "YuNet"

    def __init__(self, weights: str | Path, threshold: float = 0.6):
        if not Path(weights).is_file():
            raise UserError(f"no detector weights {weights}: give the path of a YuNet file (.onnx)")
        self.weights_sha256 = fingerprint(weights)
        try:
            self.network = cv2.FaceDetectorYN.create(
                str(weights), "", (320, 320), threshold, NON_MAXIMUM_SUPPRESSION, MOST_CANDIDATES
            )
            self(np.zeros((64, 64, 3), np.uint8))
        except cv2.error as error:
            raise UserError(
                f"detector weights {weights}: OpenCV cannot run them as YuNet ({error.err}); give a YuNet file (.onnx)"
            ) from error

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """See `FaceDetector`."""
        height, width = picture.shape[:2]
        self.network.setInputSize((width, height))
        _, found = self.network.detect(picture)
        if found is None:
            return np.zeros((0, 5), np.float32)
        x, y, w, h = found[:, :4].T
        return np.stack([x, y, x + w, y + h, found[:, -1]], axis=1).astype(np.float32)


class HaarCascade:
    """The cascade that OpenCV ships (Viola and Jones, CVPR 2001): frontal faces only, and more mistakes than YuNet."""

    name = "Haar cascade"

    def __init__(self) -> None:
        self.cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / HAAR_FILE))

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """See `FaceDetector`."""
        grey = cv2.equalizeHist(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY))
        boxes, _, weights = self.cascade.detectMultiScale3(grey, 1.1, 5, minSize=(24, 24), outputRejectLevels=True)
        if len(boxes) == 0:
            return np.zeros((0, 5), np.float32)
        x, y, w, h = np.asarray(boxes, np.float32).T
        scores = np.clip(np.asarray(weights, np.float32).reshape(-1) / HAAR_CERTAIN, 0, 1)
        return np.stack([x, y, x + w, y + h, scores], axis=1)


def find_detector(
    detector: str | Path | FaceDetector | None, cache: str | Path | None = None
) -> tuple[FaceDetector, str | None]:
    """The face detector that the user asks for, and a sentence for him where it is not the one he would expect.

    Args:
        detector: the path of YuNet weights, a detector, or None: YuNet with weights downloaded once, else the Haar
            cascade.
        cache: folder for downloads; None for the user's.

    Raises:
        UserError: the path is no YuNet network, or another file lies in its place in the cache.
    """
    if detector is not None:
        return (YuNet(detector), None) if isinstance(detector, str | Path) else (detector, None)
    try:
        return YuNet(cached(YUNET, cache)), None
    except NotDownloadedError as error:
        note = (
            "YuNet's weights could not be had, so OpenCV's Haar cascade looked for faces: it misses faces that are "
            f"turned, small or dark, and takes other things for faces ({error})"
        )
        return HaarCascade(), note


@dataclass(frozen=True)
class SeenFrame:
    """A frame and the faces detected in it; None where it was not looked at.

    Attributes:
        faces: (face, [x1, y1, x2, y2, score]), pixels of the displayed picture.
    """

    number: int
    frame: Frame
    begins_shot: bool
    faces: np.ndarray | None


def look_for_faces(frames: Iterable[ShotFrame], detector: FaceDetector, is_due: IsDue) -> Iterator[SeenFrame]:
    """Detect faces in the first and the last frame of each shot, and between them where it is due.

    Where the frames end in a MediaError it is raised after all frames before it were given.
    """
    waiting: ShotFrame | None = None  # known to be a shot's last frame when the next one has come
    looked: ShotFrame | None = None
    failure = None
    try:
        for frame in frames:
            if waiting is not None:
                elapsed_s = waiting.frame.time_s - looked.frame.time_s if looked else 0.0
                if waiting.begins_shot or frame.begins_shot or is_due(waiting.number - looked.number, elapsed_s):
                    looked = waiting
                yield _seen(waiting, detector if looked is waiting else None)
            waiting = frame
    except MediaError as error:
        failure = error
    if waiting is not None:
        yield _seen(waiting, detector)
    if failure is not None:
        raise failure


def _seen(shot_frame: ShotFrame, detector: FaceDetector | None) -> SeenFrame:
    faces = None
    if detector is not None:
        frame = shot_frame.frame
        picture = frame.scaled_bgr(DETECTION_SIDE)
        faces = detector(picture)
        faces[:, :4] *= np.tile([frame.width / picture.shape[1], frame.height / picture.shape[0]], 2)
    return SeenFrame(shot_frame.number, shot_frame.frame, shot_frame.begins_shot, faces)
