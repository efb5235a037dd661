"""Faces tracked from frame to frame within a shot.

Faces are matched by overlap; gaps of detection are bridged; boxes are smoothed. All of it happens while the video
streams by: a track's box at a frame is final as soon as the track has ended, or has been detected `SMOOTHING_S` later.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

import numpy as np

from core.boxes import intersection_over_union

MIN_OVERLAP = 0.3  # intersection over union of a face and where its track was last detected, or is expected
MAX_GAP_S = 0.4  # a face undetected for longer ends its track (10 frames at 25 fps, as in published pipelines) ...
MAX_MISSES = 1  # ... if more detections than this missed it: those of a slow video are further apart
SMOOTHING_S = 0.24  # median over this much on either side (13 frames at 25 fps, as in published pipelines)
SMOOTHING_STEP_S = 0.04
OFFSETS_S = [SMOOTHING_STEP_S * np.arange(-n, n + 1) for n in range(int(SMOOTHING_S / SMOOTHING_STEP_S + 1e-6) + 1)]
MAX_SPEED = 2.0  # a face may be expected to have moved at most this many of its own widths a second


@dataclass
class FaceTrack:
    """A face that is being tracked.

    Attributes:
        times_s: when it was detected, seconds, ascending.
        boxes: ([x1, y1, x2, y2, score, and landmarks where there are some],) float32 at each of these times; pixels,
            and a score of 0 to 1.
        misses: how many frames with detection since the last of them have missed it.
    """

    times_s: list[float] = field(default_factory=list)
    boxes: list[np.ndarray] = field(default_factory=list)
    misses: int = 0

    @property
    def first_s(self) -> float:
        return self.times_s[0]

    @property
    def last_s(self) -> float:
        return self.times_s[-1]

    @property
    def confidence(self) -> float:
        """Mean score of its detections, 0 to 1."""
        return float(np.mean([box[4] for box in self.boxes]))

    def add(self, time_s: float, box: np.ndarray) -> None:
        self.times_s.append(time_s)
        self.boxes.append(box)
        self.misses = 0

    def may_go_on(self, time_s: float) -> bool:
        """Whether a face detected at a time, or later, can be this one."""
        return self.misses <= MAX_MISSES or time_s - self.last_s <= MAX_GAP_S + 1e-6

    def detection_at(self, time_s: float) -> np.ndarray | None:
        """What was detected at a time, as in `boxes`; None where nothing was."""
        index = bisect_left(self.times_s, time_s)
        return self.boxes[index] if time_s in self.times_s[index : index + 1] else None

    def forget(self, before_s: float) -> None:
        """Forget the detections before a time, but for the last two."""
        needless = max(0, min(bisect_left(self.times_s, before_s), len(self.times_s) - 2))
        del self.times_s[:needless], self.boxes[:needless]

    def expected(self, time_s: float) -> np.ndarray:
        """Where the face should be at a time after its last detection, ([x1, y1, x2, y2],) pixels.

        It goes on as it moved between its last two detections, for as long as those were apart."""
        last = self.boxes[-1][:4]
        if len(self.times_s) == 1:
            return last
        before = self.boxes[-2][:4]
        elapsed = self.times_s[-1] - self.times_s[-2]
        centres = [(box[:2] + box[2:]) / 2 for box in (before, last)]
        reach = MAX_SPEED * (last[2] - last[0])
        velocity = np.clip((centres[1] - centres[0]) / elapsed, -reach, reach)
        return last + np.tile(velocity, 2) * min(time_s - self.last_s, elapsed)

    def box_at(self, time_s: float) -> np.ndarray:
        """The smoothed box at a time from the first detection on, ([x1, y1, x2, y2],) float64 pixels.

        Between detections boxes are interpolated; smoothing is a median over `SMOOTHING_S` on either side, as far as
        the track reaches. After the last detection it is where the face is expected.
        """
        if time_s > self.last_s:
            return self.expected(time_s)
        reach = min(SMOOTHING_S, time_s - self.first_s, self.last_s - time_s)
        steps = int(reach / SMOOTHING_STEP_S + 1e-6)
        samples_s = time_s + OFFSETS_S[steps]
        first = max(0, bisect_right(self.times_s, samples_s[0]) - 1)
        last = bisect_left(self.times_s, samples_s[-1]) + 1
        boxes = np.array([box[:4] for box in self.boxes[first:last]], float)
        if len(boxes) == 1:
            return boxes[0]
        # As `numpy.interp`, of all sides at once.
        times = np.array(self.times_s[first:last])
        before = np.minimum(times.searchsorted(samples_s, "right"), len(times) - 1) - 1
        slopes = (boxes[1:] - boxes[:-1]) / (times[1:] - times[:-1])[:, None]
        sides = boxes[before] + slopes[before] * (samples_s - times[before])[:, None]
        sides.partition(steps, axis=0)
        return sides[steps]


class FaceTracker:
    """Matches the faces detected in a frame with the tracks so far; one tracker a shot.

    Attributes:
        open: the tracks that may go on.
    """

    def __init__(self) -> None:
        self.open: list[FaceTrack] = []

    def update(self, time_s: float, faces: np.ndarray, stay: np.ndarray | None = None) -> list[FaceTrack]:
        """Take in the faces of a frame.

        Args:
            time_s: of the frame, after that of the call before.
            faces: (face, [x1, y1, x2, y2, score, and landmarks where there are some]) of one frame, pixels.
            stay: (face,) bool, which of them may have been seen before; None for all. Where some may not, tracks that
                go on with none of them end.

        Returns:
            The tracks that begin with this frame.
        """
        self.open = [track for track in self.open if track.may_go_on(time_s)]
        found, taken = set(), set()
        if self.open and len(faces):
            expected = np.array([track.expected(time_s) for track in self.open])
            overlaps = intersection_over_union(expected[:, None], faces[None, :, :4])
            overlaps = overlaps if stay is None else overlaps * stay
            for track, face in _pairs(overlaps):
                self.open[track].add(time_s, faces[face])
                found.add(track)
                taken.add(face)
        for number, track in enumerate(self.open):
            track.misses += number not in found
        if stay is not None:
            self.open = [track for number, track in enumerate(self.open) if number in found]
        begun = [FaceTrack([time_s], [face]) for number, face in enumerate(faces) if number not in taken]
        self.open = [track for track in self.open if track.may_go_on(time_s)] + begun
        return begun

    def may_go_on(self, track: FaceTrack) -> bool:
        """Whether a track may be continued by faces that are still to come."""
        return any(track is one for one in self.open)

    def is_final(self, time_s: float) -> bool:
        """Whether no face that is still to come can change a box at a time, or give one to it."""
        return all(track.first_s > time_s or track.last_s >= time_s + SMOOTHING_S for track in self.open)


def _pairs(overlaps: np.ndarray) -> np.ndarray:
    """Which tracks go on with which faces, (pair, [track, face]): as many as can, of such ways that of most overlap.

    Args:
        overlaps: (track, face) 0 to 1.
    """
    possible = overlaps >= MIN_OVERLAP
    if possible.sum(0).max() > 1 or possible.sum(1).max() > 1:
        from scipy.optimize import linear_sum_assignment  # slow to load, and in most videos no faces compete

        chosen = np.zeros_like(possible)
        chosen[linear_sum_assignment(np.where(possible, overlaps, -1), maximize=True)] = True
        possible &= chosen
    return np.argwhere(possible)
