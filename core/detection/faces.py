"""Face detectors, all behind one small interface: an image in, boxes with scores and landmarks out."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from core.detection.shots import ShotFrame
from core.download.cache import NotDownloadedError, cached
from core.download.weights_catalogue import YUNET
from core.inference.engine import onnx_network
from core.media.video import Frame
from core.runtime.errors import MediaError, UserError
from core.runtime.files import fingerprint

STRIDES = (8, 16, 32)  # pixels between the positions at which YuNet detects faces, of three sizes
HAAR_FILE = "haarcascade_frontalface_default.xml"  # shipped with OpenCV
HAAR_CERTAIN = 10.0  # level weight of a face that is hardly ever a mistake; its share of this is the score

DETECTION_SIDE = 640  # pixels, longer side of the image in which faces are detected
IsDue = Callable[[int, float], bool]  # of a detection, by the frames and the seconds since the last one


class FaceDetector(Protocol):
    """Finds faces in one image.

    Attributes:
        name: for the output and its readers.
    """

    name: str

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Find the faces.

        Args:
            image: (height, width, [b, g, r]) uint8.

        Returns:
            (face, [x1, y1, x2, y2, score]) float32, pixels; the score is 0 to 1. Where the detector finds landmarks ten
            further columns: x and y of right eye, left eye, nose, right and left corner of the mouth, right being the
            person's.
        """
        ...


class YuNet:
    """The YuNet network (Wu et al., "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research
    2023); boxes and scores are those of OpenCV's `FaceDetectorYN`, as are the defaults.

    Args:
        weights: ONNX file.
        threshold: least score of a face.
        nms_threshold: two boxes of greater intersection over union are one face.
        top_k: at most so many boxes, those of the highest scores, are compared with each other.

    Raises:
        UserError: the file is absent or no YuNet network.
    """

    name = "YuNet"

    def __init__(self, weights: str | Path, threshold: float = 0.6, nms_threshold: float = 0.3, top_k: int = 5000):
        if not Path(weights).is_file():
            raise UserError(f"no detector weights {weights}: give the path of a YuNet file (.onnx)")
        self.weights_sha256 = fingerprint(weights)
        self.threshold, self.nms_threshold, self.top_k = threshold, nms_threshold, top_k
        try:
            self.network = onnx_network(weights)
            outputs = self.network(np.zeros((1, 3, 64, 64), np.float32))
        except Exception as error:  # no network, or one of another input
            raise UserError(
                f"detector weights {weights} cannot be run as YuNet ({error}); give a YuNet file"
            ) from error
        missing = {f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES} - set(outputs)
        if missing:
            raise UserError(
                f"detector weights {weights} are not YuNet's: no output {', '.join(sorted(missing))}; give a YuNet file"
            )

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """See `FaceDetector`."""
        height, width = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in image.shape[:2])
        padded = np.zeros((height, width, 3), np.float32)
        padded[: image.shape[0], : image.shape[1]] = image
        outputs = self.network(np.ascontiguousarray(padded.transpose(2, 0, 1)[None]))
        faces = np.concatenate([_faces(outputs, stride, width // stride, self.threshold) for stride in STRIDES])
        # OpenCV compares boxes in whole pixels: x, y, width, height.
        boxes = np.trunc(np.concatenate([faces[:, :2], faces[:, 2:4] - faces[:, :2]], axis=1))
        kept = cv2.dnn.NMSBoxes(boxes, faces[:, 4], self.threshold, self.nms_threshold, top_k=self.top_k)
        return faces[np.asarray(kept, int)]


def _faces(outputs: Mapping[str, np.ndarray], stride: int, columns: int, threshold: float) -> np.ndarray:
    """Boxes, scores and landmarks, as `FaceDetector` has them, of the positions whose score reaches the threshold.

    Args:
        outputs: of the network: at each position, row by row, `cls` and `obj`, whose geometric mean is the score, and
            `bbox`: offset of the centre, x and y, and logarithm of width and height, in strides; `kps`: offsets of
            five landmarks, x and y, in strides.
        stride: pixels between the positions.
        columns: positions in a row.
    """
    cls, obj, box, landmarks = (outputs[f"{kind}_{stride}"][0] for kind in ("cls", "obj", "bbox", "kps"))
    scores = np.sqrt(np.clip(cls[:, 0], 0, 1) * np.clip(obj[:, 0], 0, 1))
    found = np.flatnonzero(scores >= threshold)
    position = np.stack([found % columns, found // columns], axis=1)
    centre, size = (position + box[found, :2]) * stride, np.exp(box[found, 2:4]) * stride
    points = (np.tile(position, 5) + landmarks[found]) * stride
    columns = [centre - size / 2, centre + size / 2, scores[found, None], points]
    return np.concatenate(columns, axis=1).astype(np.float32)


class HaarCascade:
    """The cascade that OpenCV ships (Viola and Jones, CVPR 2001): frontal faces only, and more mistakes than YuNet."""

    name = "Haar cascade"

    def __init__(self) -> None:
        self.cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / HAAR_FILE))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """See `FaceDetector`."""
        grey = cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        boxes, _, weights = self.cascade.detectMultiScale3(grey, 1.1, 5, minSize=(24, 24), outputRejectLevels=True)
        if len(boxes) == 0:
            return np.zeros((0, 5), np.float32)
        x, y, w, h = np.asarray(boxes, np.float32).T
        scores = np.clip(np.asarray(weights, np.float32).reshape(-1) / HAAR_CERTAIN, 0, 1)
        return np.stack([x, y, x + w, y + h, scores], axis=1)


def find_detector(
    detector: str | Path | FaceDetector | None, cache: str | Path | None = None
) -> tuple[FaceDetector, str | None]:
    """The face detector asked for, and a note where it is not the one to expect.

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
            "YuNet's weights could not be downloaded, so OpenCV's Haar cascade detected the faces: it misses faces "
            f"that are turned, small or dark, and takes other things for faces ({error})"
        )
        return HaarCascade(), note


@dataclass(frozen=True)
class SeenFrame:
    """A frame and the faces detected in it; None where none was asked for.

    Attributes:
        faces: as `FaceDetector` gives them, in pixels of the displayed image.
    """

    number: int
    frame: Frame
    begins_shot: bool
    faces: np.ndarray | None


def detect_faces(frames: Iterable[ShotFrame], detector: FaceDetector, is_due: IsDue) -> Iterator[SeenFrame]:
    """Detect faces in the first and the last frame of each shot, and between them where it is due.

    Where the frames end in a MediaError it is raised after all frames before it were given.
    """
    waiting: ShotFrame | None = None  # known to be a shot's last frame when the next one has come
    detected: ShotFrame | None = None
    failure = None
    try:
        for frame in frames:
            if waiting is not None:
                elapsed_s = waiting.frame.time_s - detected.frame.time_s if detected else 0.0
                if waiting.begins_shot or frame.begins_shot or is_due(waiting.number - detected.number, elapsed_s):
                    detected = waiting
                yield _seen(waiting, detector if detected is waiting else None)
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
        image = frame.scaled_bgr(DETECTION_SIDE)
        faces = detector(image)
        scale = [frame.width / image.shape[1], frame.height / image.shape[0]]
        faces[:, :4] *= np.tile(scale, 2)
        faces[:, 5:] *= np.tile(scale, faces[:, 5:].shape[1] // 2)
    return SeenFrame(shot_frame.number, shot_frame.frame, shot_frame.begins_shot, faces)
