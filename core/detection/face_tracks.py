"""Faces followed through a shot as its frames come in, each cut for its scorer on a 25 frames per second grid.

Encoders are trained at 25 frames per second; a video has any rate, also a varying one. All tracks of a video share one
grid of times, origin + k / 25; at each of them a face is cut from the frame shown nearest to that time, so that video
and audio stay together. Of a video with 25 frames per second each frame is cut once.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from core.boxes import intersection_over_union
from core.clip_utils import GRID_FPS, SPEAKING_THRESHOLD
from core.detection.faces import SeenFrame
from core.detection.results import is_gap
from core.detection.shots import unchanged
from core.detection.tracking import FaceTrack, FaceTracker
from core.media.cropping import CropFunction, thumbnail
from core.people.embedding import FaceEmbedder
from core.people.portraits import Portraits

MIN_CONFIDENCE = 0.7  # mean score of a track's detections that is worth keeping
SAME_PLACE = 0.5  # intersection over union of a face before and after a cut that does not concern it
BETTER_BY = 0.05  # a thumbnail is replaced where the detector is this much surer


class TrackScorer(Protocol):
    """Takes the crops of one face as they are cut, and scores them."""

    def push(self, crop: np.ndarray) -> None:
        """Take the next crop, 1 / 25 s after the one before, as the encoder's crop function cuts it.

        Args:
            crop: uint8, (112, 112) grey or (144, 144, [r, g, b]).
        """
        ...

    def finish(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits (n, [not speaking, speaking]) float32 of the n crops, and what a context network reads of them:
        features (n, feature), cues (n, cue) or None."""
        ...


StartScorer = Callable[[float], TrackScorer]  # from the time of the first crop, in seconds
Later = Callable[..., object]  # takes a function and its arguments, and calls it, now or later, in the order of calls


@dataclass
class FollowedFace:
    """A track with what is known of it at each of its frames.

    Attributes:
        number: in order of appearance in the shot.
        track: its detections.
        first_grid: k of its first crop's time, origin + k / 25.
        scorer: takes them; None where there is no audio, and after `conclude`.
        crops: how many crops were cut.
        frames, times_s: number and time (seconds) of each frame.
        boxes: the smoothed box of each frame, ([x1, y1, x2, y2],) float32 pixels, not clamped to the frame.
        thumbnail: JPEG.
        certainty: the detector's score of the face in the thumbnail, 0 to 1; -1 before there is one.
        logits: (crop, [not speaking, speaking]) float32, as the scorer gave them in the end; None where there is no
            audio.
        features: (crop, feature) or (crop, cue), likewise; None also where the scorer gives none.
        portraits: its best frames; None where persons are not told apart, and after `conclude`.
        embedding: (feature,) float32, made of them in the end.
    """

    number: int
    track: FaceTrack
    first_grid: int
    scorer: TrackScorer | None
    crops: int = 0
    frames: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    thumbnail: bytes | None = None
    certainty: float = -1.0
    logits: np.ndarray | None = None
    features: np.ndarray | None = None
    portraits: Portraits | None = None
    embedding: np.ndarray | None = None

    def conclude(self) -> None:
        """Score the crops and make the embedding, after the track's last frame."""
        if self.scorer is not None:
            self.logits, self.features = self.scorer.finish()
        if self.portraits is not None:
            self.embedding = self.portraits.embedding()
        self.scorer = self.portraits = None


def across_cuts(frames: Iterable[SeenFrame], fps: float) -> Iterator[SeenFrame]:
    """Frames as they come; where a cut leaves faces as they were, the shot goes on for these (see `after_cut`), but not
    after a gap in time."""
    last: SeenFrame | None = None
    for seen in frames:
        if last is not None and seen.begins_shot and not is_gap(seen.frame.time_s - last.frame.time_s, fps):
            seen = after_cut(last, seen)
        yield seen
        last = seen


def after_cut(before: SeenFrame, after: SeenFrame) -> SeenFrame:
    """A frame that begins a shot, or goes on with the one before for those faces that the cut left as they were.

    So it is where several pictures are side by side, and one of them is cut.

    Args:
        before, after: frames on either side of a cut, with faces.
    """
    overlaps = intersection_over_union(after.faces[:, None, :4], before.faces[None, :, :4])
    stay = (overlaps >= SAME_PLACE).any(axis=1)
    stay[stay] = unchanged(before.frame, after.frame, after.faces[stay, :4])
    return replace(after, begins_shot=False, stay=stay) if stay.any() else after


class ShotFollower:
    """Follows the faces of one shot; of those whose tracks have ended only the results are kept.

    Args:
        origin_s: time of the grid's first point, that of the video's first frame.
        crop: cuts a face for the scorers.
        start_scorer: makes a track's scorer; None where there is no audio.
        is_kept: whether a face whose track has ended is worth keeping.
        embedder: makes the vectors by which persons are told apart; None for none.
        later: makes the calls that take the networks' time: scorers take crops, and faces `conclude`.
        wait_s: faces are cut from a frame this long after it at the latest, by what is known then of their boxes.
    """

    def __init__(
        self,
        origin_s: float,
        crop: CropFunction,
        start_scorer: StartScorer | None,
        is_kept: Callable[[FollowedFace], bool] = lambda face: True,
        embedder: FaceEmbedder | None = None,
        later: Later = lambda function, *arguments: function(*arguments),
        wait_s: float = np.inf,
    ):
        self.origin_s, self.crop, self.start_scorer = origin_s, crop, start_scorer
        self.is_kept, self.embedder, self.later, self.wait_s = is_kept, embedder, later, wait_s
        self.tracker = FaceTracker()
        self.waiting: deque[SeenFrame] = deque()  # frames whose boxes are not final
        self.begun: deque[FaceTrack] = deque()  # those that begin with one of these
        self.followed: list[FollowedFace] = []
        self.ended: list[FollowedFace] = []
        self.count = 0

    def add(self, seen: SeenFrame) -> None:
        """Take in the next frame; faces are cut from those whose boxes are final, or that have waited long enough."""
        self.waiting.append(seen)
        if seen.faces is not None:
            self.look(seen.frame.time_s, seen.faces, seen.stay)
        until_s = seen.frame.time_s - self.wait_s + 1e-6
        while self.waiting and (
            self.waiting[0].frame.time_s <= until_s or self.tracker.is_final(self.waiting[0].frame.time_s)
        ):
            self._settle(self.waiting.popleft())

    def look(self, time_s: float, faces: np.ndarray, stay: np.ndarray | None = None) -> None:
        """Take in the faces of the last frame, where it was added without them."""
        self.begun += self.tracker.update(time_s, faces, stay)

    def finish(self) -> list[FollowedFace]:
        """All faces of the shot, in order of appearance; to be called once, after its last frame.

        Their scores are there when the calls made by `later` are.
        """
        self.tracker.open.clear()
        while self.waiting:
            self._settle(self.waiting.popleft())
        return sorted(self.ended, key=lambda face: face.number)

    def _settle(self, seen: SeenFrame) -> None:
        time_s = seen.frame.time_s
        while self.begun and self.begun[0].first_s <= time_s:
            self.followed.append(self._face(self.begun.popleft()))
        going_on = []
        for face in self.followed:
            lasts = self.tracker.may_go_on(face.track) or face.track.last_s > time_s
            if lasts or face.track.last_s == time_s:  # else it was cut where it was expected, and was not seen again
                self._cut(face, seen, last=not lasts)
            if lasts:
                going_on.append(face)
            else:
                self._end(face)
        self.followed = going_on

    def _face(self, track: FaceTrack) -> FollowedFace:
        first_grid = int(np.ceil((track.first_s - self.origin_s) * GRID_FPS - 0.5 - 1e-6))
        scorer = self.start_scorer(self._grid_time(first_grid)) if self.start_scorer else None
        self.count += 1
        portraits = Portraits(self.embedder) if self.embedder else None
        return FollowedFace(self.count, track, first_grid, scorer, portraits=portraits)

    def _end(self, face: FollowedFace) -> None:
        if self.is_kept(face):
            self.later(face.conclude)
            self.ended.append(face)

    def _cut(self, face: FollowedFace, seen: SeenFrame, *, last: bool) -> None:
        time_s = seen.frame.time_s
        box = face.track.box_at(time_s)
        face.frames.append(seen.number)
        face.times_s.append(time_s)
        face.boxes.append(box.astype(np.float32))
        detection = face.track.detection_at(time_s)
        if detection is not None:
            if detection[4] > face.certainty + BETTER_BY:
                face.certainty, face.thumbnail = float(detection[4]), thumbnail(seen.frame, box)
            if face.portraits is not None:
                face.portraits.add(seen.frame, detection)
        if face.scorer is None:
            return
        until_s = time_s + 0.5 / GRID_FPS if last else (time_s + self.waiting[0].frame.time_s) / 2
        crop = None
        # A face of one frame midway between two points of the grid is nearest to its first one.
        while self._grid_time(face.first_grid + face.crops) < until_s - 1e-6 or (last and not face.crops):
            crop = self.crop(seen.frame, box) if crop is None else crop
            self.later(face.scorer.push, crop)
            face.crops += 1

    def _grid_time(self, number: int) -> float:
        return self.origin_s + number / GRID_FPS


def why_left_out(
    heights: Sequence[float], seconds: float, confidence: float, *, min_face_px: float, min_track_s: float
) -> str | None:
    """Why a face is not kept, or None: too small (heights in pixels, one a frame), too short, or too uncertain."""
    if np.median(heights) < min_face_px:
        return f"smaller than {min_face_px:g} pixels"
    if seconds < min_track_s - 1e-6:
        return f"seen for less than {min_track_s:g} s"
    return f"less certain than {MIN_CONFIDENCE:g}" if confidence < MIN_CONFIDENCE else None


def scores_at(times_s: np.ndarray, first_s: float, logits: np.ndarray) -> np.ndarray:
    """The log odds of speaking at the video's own frames, interpolated between the points of the grid.

    Args:
        times_s: (n,) of the frames, seconds.
        first_s: time of the first grid point, seconds.
        logits: (points, [not speaking, speaking]) float32.

    Returns:
        (n,) float32.
    """
    odds = logits[:, 1] - logits[:, 0]
    return np.interp((times_s - first_s) * GRID_FPS, np.arange(len(odds)), odds).astype(np.float32)


def settings_of(detector: Any) -> dict[str, Any]:
    """What results depend on, of an `ActiveSpeakerDetector` and a `core.live.LiveDetector` alike, as plain values."""
    return {
        **detector.encoder.settings,
        "face_detector": detector.detector.name,
        "face_detector_sha256": getattr(detector.detector, "weights_sha256", None),
        "face_detector_precision": getattr(detector.detector, "precision", None),
        "detection_size": detector.detection_size,
        "min_track_s": detector.min_track_s,
        "min_face_px": detector.min_face_px,
        "voices_by": None if detector.grouper is None else detector.grouper.name,
        "min_confidence": MIN_CONFIDENCE,
        "threshold": SPEAKING_THRESHOLD,
    }
