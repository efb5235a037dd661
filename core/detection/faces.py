"""Face detectors, all behind one small interface: an image in, boxes with scores and landmarks out."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import av
import cv2
import numpy as np

from core.boxes import intersection_over_union
from core.detection.options import DEFAULT_DETECTOR
from core.detection.shots import ShotFrame
from core.download.cache import cached
from core.download.weights_catalogue import YUNET
from core.inference.engine import best_precision, onnx_network
from core.media.container import VideoInfo
from core.media.video import Frame
from core.runtime.errors import MediaError, UserError
from core.runtime.files import fingerprint

STRIDES = (8, 16, 32)  # pixels between the positions at which YuNet detects faces, of three sizes
NMS_THRESHOLD = 0.3  # intersection over union of two boxes that are one face
TOP_K = 5000  # YuNet's boxes of the highest scores that are compared with each other
HAAR_NAME, HAAR_FILE = "haar", "haarcascade_frontalface_default.xml"  # instead of a path; shipped with OpenCV
HAAR_CERTAIN = 10.0  # level weight of a face that is hardly ever a mistake; its share of this is the score

# Pixels, longer side of the image in which faces are detected. Of faces higher than 700 pixels YuNet misses some.
SMALL_SIDE, LARGE_SIDE = 640, 1280
SAFE_FACE_PX = 32  # height of faces that an image of the small size is enough for

DETECT_EVERY_S = 0.12  # every third frame at 25 frames per second
SKIPPED = 3  # of four such frames, where the same faces are at about the same position before and after them
SAME_POSITION = 0.8  # intersection over union
HELD_BYTES = 384e6  # of decoded frames that wait for the next detection, and for two more that may miss a face


class FaceDetector(Protocol):
    """Finds faces in one image.

    Attributes:
        name: for the output and its readers.
        least_face_px: height of the smallest faces that it finds, pixels of the image.
    """

    name: str
    least_face_px: float

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
        precision: "fp32" or "bf16", of the network's products; "auto" is bf16 on a processor that has it.

    Raises:
        UserError: the file is absent or no YuNet network.
    """

    name = "YuNet"
    least_face_px = 12  # four of five real faces scaled to 12-14 pixels are found, and all larger ones than 32

    def __init__(self, weights: str | Path, threshold: float = 0.6, precision: str = "auto"):
        if not Path(weights).is_file():
            raise UserError(f"no detector weights {weights}: give the path of a YuNet file (.onnx)")
        self.weights_sha256 = fingerprint(weights)
        self.threshold = threshold
        self.precision = best_precision() if precision == "auto" else precision
        try:
            self.network = onnx_network(weights, self.precision)
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
        kept = cv2.dnn.NMSBoxes(boxes, faces[:, 4], self.threshold, NMS_THRESHOLD, top_k=TOP_K)
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
    least_face_px = 24

    def __init__(self) -> None:
        self.cascade = cv2.CascadeClassifier(str(Path(cv2.data.haarcascades) / HAAR_FILE))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """See `FaceDetector`."""
        grey = cv2.equalizeHist(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
        boxes, _, weights = self.cascade.detectMultiScale3(
            grey, 1.1, 5, minSize=2 * (self.least_face_px,), outputRejectLevels=True
        )
        if len(boxes) == 0:
            return np.zeros((0, 5), np.float32)
        x, y, w, h = np.asarray(boxes, np.float32).T
        scores = np.clip(np.asarray(weights, np.float32).reshape(-1) / HAAR_CERTAIN, 0, 1)
        return np.stack([x, y, x + w, y + h, scores], axis=1)


def find_detector(
    detector: str | Path | FaceDetector = DEFAULT_DETECTOR, cache: str | Path | None = None, precision: str = "auto"
) -> FaceDetector:
    """The face detector asked for.

    Args:
        detector, precision: as `core.detection.ActiveSpeakerDetector` has them; "int8" is "auto" for YuNet.
        cache: folder for downloads; None for the user's.

    Raises:
        UserError: the path is no YuNet network, or another file lies in its place in the cache.
        NotDownloadedError: YuNet's weights could not be downloaded.
    """
    if not isinstance(detector, str | Path):
        return detector
    if detector == HAAR_NAME:
        return HaarCascade()
    precision = "auto" if precision == "int8" else precision
    return YuNet(cached(YUNET, cache) if detector == DEFAULT_DETECTOR else detector, precision=precision)


@dataclass(frozen=True)
class FaceFinder:
    """A face detector for the frames of a video, made smaller as far as its faces allow.

    Attributes:
        detector: it.
        longest: pixels, longer side of the frames.
        side: pixels, longer side of the image that it is given; from a large one only the small faces are taken, and
            the others from a small one.
    """

    detector: FaceDetector
    longest: int
    side: int

    @classmethod
    def of(cls, detector: FaceDetector, info: VideoInfo | Frame, min_face_px: float, side: int | None = None) -> Self:
        """The finder for a video.

        Args:
            detector: of faces.
            info: of the video, or a frame of it.
            min_face_px: pixels, height of the faces that are to be found.
            side: pixels; None for what these faces need, 640 at least.
        """
        longest = max(info.width, info.height)
        if side is None:
            least = detector.least_face_px
            side = max(SMALL_SIDE, math.ceil(longest * least / max(min_face_px, least)))
        return cls(detector, longest, min(side, longest))

    @property
    def least_face_px(self) -> float:
        """Height of the smallest faces that are found, pixels of the frame."""
        return self.detector.least_face_px * self.longest / self.side

    def __call__(self, frame: Frame) -> np.ndarray:
        """The faces in a frame, as `FaceDetector` gives them, in pixels of the displayed frame."""
        faces = self._in_image(frame, self.side)
        if self.side <= LARGE_SIDE:
            return faces
        small = (faces[:, 3] - faces[:, 1]) * SMALL_SIDE < SAFE_FACE_PX * self.longest
        faces = np.concatenate([faces[small], self._in_image(frame, SMALL_SIDE)])
        boxes = np.concatenate([faces[:, :2], faces[:, 2:4] - faces[:, :2]], axis=1)
        return faces[np.asarray(cv2.dnn.NMSBoxes(boxes, faces[:, 4], 0, NMS_THRESHOLD), int)]

    def _in_image(self, frame: Frame, side: int) -> np.ndarray:
        image = frame.scaled_bgr(side)
        faces = self.detector(image)
        scale = [frame.width / image.shape[1], frame.height / image.shape[0]]
        faces[:, :4] *= np.tile(scale, 2)
        faces[:, 5:] *= np.tile(scale, faces[:, 5:].shape[1] // 2)
        return faces


@dataclass(frozen=True)
class Schedule:
    """In which frames of a shot faces are detected, beside its first and its last.

    Attributes:
        is_due: by the frames and the seconds since the last detection that was due.
        skipped: so many due ones one after the other are left out where the faces before and after them are the same.
        most_held: frames that may wait for the next detection; after so many it is due.
    """

    is_due: Callable[[int, float], bool]
    skipped: int
    most_held: int


def schedule(info: VideoInfo, detect_every: int | None) -> Schedule:
    """The schedule of a video: every so many frames, or by default every 0.12 s, less often where nothing changes."""
    bits = av.VideoFormat(info.pixel_format or "yuv420p").padded_bits_per_pixel
    most_held = max(1, int(HELD_BYTES / 3 / (info.width * info.height * bits / 8)))
    if detect_every is not None:
        return Schedule(lambda frames, seconds: frames >= detect_every, 0, most_held)
    return Schedule(lambda frames, seconds: seconds >= DETECT_EVERY_S - 0.5 / info.fps, SKIPPED, most_held)


@dataclass(frozen=True)
class SeenFrame:
    """A frame and the faces in it, as `FaceFinder` gives them; None where none were looked for.

    Attributes:
        stay: (face,) bool, after a cut that left some faces as they were: which; else None.
    """

    number: int
    frame: Frame
    begins_shot: bool
    faces: np.ndarray | None
    stay: np.ndarray | None = None


def detect_faces(
    frames: Iterable[ShotFrame], find: Callable[[Frame], np.ndarray], when: Schedule
) -> Iterator[SeenFrame]:
    """Detect faces in the first and the last frame of each shot, and between them when they are due.

    Where the frames end in a MediaError it is raised after all frames before it were given.
    """
    between: _Between | None = None
    for frame, is_last in _with_last(frames):
        if frame.begins_shot:
            between = _Between(find, when)
        yield from between.add(frame, is_last=is_last)


def _with_last(frames: Iterable[ShotFrame]) -> Iterator[tuple[ShotFrame, bool]]:
    """Frames, and whether each is the last of its shot, which the next one shows."""
    waiting: ShotFrame | None = None
    failure = None
    try:
        for frame in frames:
            if waiting is not None:
                yield waiting, frame.begins_shot
            waiting = frame
    except MediaError as error:
        failure = error
    if waiting is not None:
        yield waiting, True
    if failure is not None:
        raise failure


class _Between:
    """The frames of a shot since the last detection in it; given on when it is known in which faces are looked for."""

    def __init__(self, find: Callable[[Frame], np.ndarray], when: Schedule):
        self.find, self.when = find, when
        self.held: list[ShotFrame] = []
        self.due: list[ShotFrame] = []  # of these, after the one with the last detection
        self.faces: dict[int, np.ndarray] = {}  # number of a frame -> those in it

    def add(self, frame: ShotFrame, *, is_last: bool) -> list[SeenFrame]:
        """Take in the shot's next frame; the frames that are done."""
        self.held.append(frame)
        must = is_last or not self.due or len(self.held) >= self.when.most_held
        if not must and not self._is_due(frame):
            return []
        self.due.append(frame)
        return self._settle() if must or len(self.due) == self.when.skipped + 2 else []

    def _is_due(self, frame: ShotFrame) -> bool:
        last = self.due[-1]
        return self.when.is_due(frame.number - last.number, frame.frame.time_s - last.frame.time_s)

    def _settle(self) -> list[SeenFrame]:
        self._look(len(self.due) - 1)
        self._look_between(0, len(self.due) - 1)
        done = [SeenFrame(one.number, one.frame, one.begins_shot, self.faces.get(one.number)) for one in self.held]
        self.held, self.due = [], self.due[-1:]
        self.faces = {self.due[0].number: self.faces[self.due[0].number]}
        return done

    def _look(self, index: int) -> None:
        frame = self.due[index]
        self.faces[frame.number] = self.find(frame.frame)

    def _look_between(self, first: int, last: int) -> None:
        """Look in the middle of two due frames, and so on, unless the same faces are in both."""
        if last - first < 2 or _same(*(self.faces[self.due[index].number] for index in (first, last))):
            return
        middle = (first + last) // 2
        self._look(middle)
        self._look_between(first, middle)
        self._look_between(middle, last)


def _same(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two frames show as many faces, each of them where one is in the other."""
    if len(before) != len(after):
        return False
    there = intersection_over_union(before[:, None, :4], after[None, :, :4]) >= SAME_POSITION
    return bool((there.sum(0) == 1).all() and (there.sum(1) == 1).all())
