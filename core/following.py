"""Faces followed through a shot as its frames come in, each cut for its scorer on a 25 frames per second grid.

Encoders are trained at 25 frames per second; a video has any rate, also a varying one. All tracks of a video share one
grid of times, origin + k / 25; at each of them a face is cut from the frame shown nearest to that time, so that picture
and sound stay together. Of a video with 25 frames per second each frame is cut once.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from core.face_crops import CropFunction, thumbnail
from core.faces import FaceDetector
from core.shots import ShotFrame
from core.tracking import SETTLE_S, FaceTrack, FaceTracker
from core.video import Frame

GRID_FPS = 25
DETECTION_SIDE = 640  # pixels, longer side of the picture in which faces are looked for
BETTER_BY = 0.05  # a thumbnail is taken anew where the detector is this much surer


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


class TrackScorer(Protocol):
    """Takes a face's crops as they are cut and tells in the end who was speaking."""

    def push(self, crop: np.ndarray) -> None: ...

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """Logits (n, [not speaking, speaking]) float32 and features (n, feature) of the n crops."""
        ...


StartScorer = Callable[[float], TrackScorer]  # from the time of the first crop, in seconds


def look_for_faces(frames: Iterable[ShotFrame], detector: FaceDetector, every: int) -> Iterator[SeenFrame]:
    """Detect faces in the first and the last frame of each shot and in every `every`-th frame between."""
    waiting: ShotFrame | None = None
    since = 0
    for frame in frames:
        if waiting is not None:
            yield _seen(waiting, detector if since % every == 0 or frame.begins_shot else None)
        since = 0 if frame.begins_shot else since + 1
        waiting = frame
    if waiting is not None:
        yield _seen(waiting, detector)


def _seen(shot_frame: ShotFrame, detector: FaceDetector | None) -> SeenFrame:
    faces = None
    if detector is not None:
        frame = shot_frame.frame
        picture = frame.scaled_bgr(DETECTION_SIDE)
        faces = detector(picture)
        faces[:, :4] *= np.tile([frame.width / picture.shape[1], frame.height / picture.shape[0]], 2)
    return SeenFrame(shot_frame.number, shot_frame.frame, shot_frame.begins_shot, faces)


@dataclass
class FollowedFace:
    """A track with what is known of it at every frame of the video.

    Attributes:
        track: its detections.
        first_grid: k of its first crop's time, origin + k / 25.
        crops: how many crops were cut.
        scorer: has taken them; None where there is no sound.
        frames, times_s, boxes: number, time and smoothed box of each frame.
        thumbnail: JPEG.
    """

    track: FaceTrack
    first_grid: int
    scorer: TrackScorer | None
    crops: int = 0
    frames: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    thumbnail: bytes | None = None
    certainty: float = -1.0  # the detector's score of the thumbnail


class ShotFollower:
    """Follows the faces of one shot.

    Args:
        origin_s: time of the grid's first point, that of the video's first frame.
        crop: cuts a face for the scorers.
        start_scorer: makes a track's scorer; None where there is no sound.
    """

    def __init__(self, origin_s: float, crop: CropFunction, start_scorer: StartScorer | None):
        self.origin_s, self.crop, self.start_scorer = origin_s, crop, start_scorer
        self.tracker = FaceTracker()
        self.waiting: deque[SeenFrame] = deque()  # frames that may still gain boxes
        self.faces: list[FollowedFace] = []

    def add(self, seen: SeenFrame) -> None:
        """Take in the next frame; those that nothing can change any more are cut."""
        if seen.faces is not None:
            self.tracker.update(seen.frame.time_s, seen.faces)
        self.waiting.append(seen)
        while seen.frame.time_s - self.waiting[0].frame.time_s > SETTLE_S + 1e-6:
            self._settle(self.waiting.popleft())

    def finish(self) -> list[FollowedFace]:
        """All faces of the shot, in order of appearance; to be called once, after its last frame."""
        while self.waiting:
            self._settle(self.waiting.popleft())
        return self.faces

    def _settle(self, seen: SeenFrame) -> None:
        time_s = seen.frame.time_s
        for track in self.tracker.tracks[len(self.faces) :]:
            if track.first_s > time_s:
                break
            first_grid = int(np.ceil((track.first_s - self.origin_s) * GRID_FPS - 0.5 - 1e-6))
            scorer = self.start_scorer(self._grid_time(first_grid)) if self.start_scorer else None
            self.faces.append(FollowedFace(track, first_grid, scorer))
        for face in self.faces:
            if time_s <= face.track.last_s:
                self._cut(face, seen)

    def _cut(self, face: FollowedFace, seen: SeenFrame) -> None:
        time_s = seen.frame.time_s
        box = face.track.box_at(time_s)
        face.frames.append(seen.number)
        face.times_s.append(time_s)
        face.boxes.append(box.astype(np.float32))
        if seen.faces is not None:
            certainty = face.track.score_at(time_s)
            if certainty > face.certainty + BETTER_BY:
                face.certainty, face.thumbnail = certainty, thumbnail(seen.frame, box)
        if face.scorer is None:
            return
        last = time_s == face.track.last_s
        until_s = time_s + 0.5 / GRID_FPS if last else (time_s + self.waiting[0].frame.time_s) / 2
        crop = None
        while self._grid_time(face.first_grid + face.crops) < until_s - 1e-6:
            crop = self.crop(seen.frame, box) if crop is None else crop
            face.scorer.push(crop)
            face.crops += 1

    def _grid_time(self, number: int) -> float:
        return self.origin_s + number / GRID_FPS


def scores_at(times_s: np.ndarray, first_s: float, logits: np.ndarray) -> np.ndarray:
    """The log odds of speaking at the video's own frames, interpolated between the grid's points.

    Args:
        times_s: (n,) of the frames.
        first_s: time of the first grid point.
        logits: (points, [not speaking, speaking]).

    Returns:
        (n,) float32.
    """
    odds = logits[:, 1] - logits[:, 0]
    return np.interp((times_s - first_s) * GRID_FPS, np.arange(len(odds)), odds).astype(np.float32)
