"""Shot boundaries while a video is being decoded, found by PySceneDetect."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from core.boxes import pixel_edges
from core.detection.results import is_gap
from core.media.video import Frame
from core.runtime.errors import MediaError

FRAME_SIDE = 256  # pixels, at most; PySceneDetect's own default is to shrink frames to about this width
# In frames halved until they are small enough a little less changes than in PySceneDetect's own, whose default is 15;
# on 14,600 frames of composed clips with 63 cuts both find the same.
LEAST_CHANGE = 13.5
# Of frames without colour: a change is the mean of those of hue, saturation and brightness, and the last alone is left.
LEAST_CHANGE_OF_GREY = LEAST_CHANGE / 3
GREY = 4.0  # mean difference of a pixel's strongest and weakest colour, 0 to 255; in frames of colour films 11 or more
ALIKE = 0.7  # least correlation of what a place shows before and after a cut that does not concern it; see `unchanged`
SMALLEST = 24  # pixels of a frame made small: least side of such a place, or chance would correlate
MIN_SHOT_S = 0.4  # a shot that is shorter belongs to its neighbour: a flash, a damaged frame


@dataclass(frozen=True)
class ShotFrame:
    """A frame, and whether a shot begins with it.

    Attributes:
        number: of the video's own frames, from 0.
        begins_shot: True for the first frame of the video and after each cut.
    """

    number: int
    frame: Frame
    begins_shot: bool


def find_shots(frames: Iterable[Frame], fps: float) -> Iterator[ShotFrame]:
    """Mark the frames that begin a shot; a few frames are held back, because a cut shows only in what follows it.

    PySceneDetect's adaptive detector compares each change between frames with those around it, so that a moving camera
    is not a cut; its ratio is the default.

    Args:
        frames: of a video, in order; where they end in a MediaError it is raised after all frames before it were given.
        fps: its average frame rate, for the shortest shot.
    """
    finder = ShotFinder(fps)
    failure = None
    try:
        for frame in frames:
            yield from finder.add(frame)
    except MediaError as error:
        failure = error
    yield from finder.finish()
    if failure is not None:
        raise failure


class ShotFinder:
    """Marks the frames that begin a shot as they come: after a cut, and after a gap in time.

    Args:
        fps: average frame rate, for the shortest shot.
        holds: frames are held back until it is known whether a shot begins with them; else a cut is marked at the frame
            that shows it, two frames late.

    Attributes:
        waiting: the frames that are held back.
    """

    def __init__(self, fps: float, *, holds: bool = True):
        self.fps = float(fps)
        self._detector = AdaptiveDetector(min_scene_len=max(1, round(MIN_SHOT_S * fps)))
        self._held = self._detector.event_buffer_length if holds else 0
        self.waiting: deque[Frame] = deque()
        self._count = 0
        self._cuts = {0}
        self._last_s: float | None = None

    def add(self, frame: Frame) -> Iterator[ShotFrame]:
        """Take the next frame; the frame that this makes known, if there is one."""
        self.waiting.append(frame)
        small = _small(frame)
        self._detector.min_content_val = LEAST_CHANGE_OF_GREY if _is_grey(small) else LEAST_CHANGE
        found = self._detector.process_frame(FrameTimecode(self._count, self.fps), small)
        self._cuts.update(cut.frame_num for cut in found)
        if self._last_s is not None and is_gap(frame.time_s - self._last_s, self.fps):
            self._cuts.add(self._count)
        self._last_s = frame.time_s
        self._count += 1
        if len(self.waiting) > self._held:
            yield self._next()

    def finish(self) -> Iterator[ShotFrame]:
        """The frames held back, after the last one."""
        while self.waiting:
            yield self._next()

    def _next(self) -> ShotFrame:
        number = self._count - len(self.waiting)
        cuts = {cut for cut in self._cuts if cut <= number}
        self._cuts -= cuts
        return ShotFrame(number, self.waiting.popleft(), bool(cuts))


def unchanged(before: Frame, after: Frame, boxes: np.ndarray) -> np.ndarray:
    """Which places a cut left as they were, as where only one of several pictures side by side is another.

    Faces that go on moving correlate by 0.79 or more over such a cut, others at most by 0.56, of 55 at the cuts of 24
    composed clips.

    Args:
        before, after: the frames on either side of the cut.
        boxes: (place, [x1, y1, x2, y2]) pixels.

    Returns:
        (place,) bool.
    """
    first, second = (cv2.cvtColor(frame.halved_bgr(FRAME_SIDE), cv2.COLOR_BGR2GRAY) for frame in (before, after))
    if first.shape != second.shape:
        return np.zeros(len(boxes), bool)
    height, width = first.shape
    small = boxes * (np.tile([width, height], 2) / np.tile([before.width, before.height], 2))
    middle, half = (small[:, :2] + small[:, 2:]) / 2, np.maximum((small[:, 2:] - small[:, :2]) / 2, SMALLEST / 2)
    edges = pixel_edges(np.concatenate([middle - half, middle + half], axis=1), width, height)
    parts = [(first[y1:y2, x1:x2], second[y1:y2, x1:x2]) for x1, y1, x2, y2 in edges]
    return np.array([_correlation(*part) >= ALIKE for part in parts], bool)


def _correlation(*parts: np.ndarray) -> float:
    first, second = (part - part.mean() for part in parts)
    return (first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum() + 1)  # 0 of what shows nothing


def _is_grey(pixels: np.ndarray) -> bool:
    some = pixels[::8, ::8]
    return float((some.max(axis=2) - some.min(axis=2)).mean()) < GREY


def _small(frame: Frame) -> np.ndarray:
    # A light blur: compression noise in flat frames would otherwise look like change.
    return cv2.blur(frame.halved_bgr(FRAME_SIDE), (3, 3))
