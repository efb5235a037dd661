"""Which predicted face is which annotated one: frames are matched in time, then their boxes by overlap.

Only arrays are seen here; what to do with what was found is for `core.evaluation.detected` and
`core.evaluation.columbia`.
"""

from dataclasses import dataclass

import numpy as np

from core.boxes import intersection_over_union
from core.clip_utils import GRID_FPS

MIN_OVERLAP = 0.5  # intersection over union; Everingham et al., The PASCAL VOC Challenge, IJCV 2010, section 4.2
TIME_SLACK_S = 1e-6  # times are written with a few decimals: this much is rounding
OVERLAP_SLACK = 1e-9  # so is this much of an overlap
LONE_FRAME_S = 1 / GRID_FPS  # interval where a single time leaves it open


@dataclass(frozen=True)
class Faces:
    """Boxes of videos, in any order.

    Attributes:
        videos: (rows,) int64, a number for each video; two sets to be matched number the same videos alike.
        times_s: (rows,) float64, seconds; rows of one video and time are a frame.
        boxes: (rows, [x1, y1, x2, y2]) float64, in any unit, the same in both sets.
    """

    videos: np.ndarray
    times_s: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class Appearances:
    """Predicted faces at annotated times, in order of video and time.

    The predicted frame of an annotated time is the nearest one, so a frame of a slow video may appear at two annotated
    times, and its faces with it; frames that are nearest to no annotated time appear at none.

    Attributes:
        rows: (appearances,) int64, rows of the predictions.
        faces: (appearances,) int64, how many faces are annotated at that time, at least 1.
        frames: (appearances,) int64, a number for each annotated time, ascending.
        pairs: (pairs, [appearance, annotated row]) int64, every predicted face with every annotated one of its time.
    """

    rows: np.ndarray
    faces: np.ndarray
    frames: np.ndarray
    pairs: np.ndarray


def appearances(annotated: Faces, predicted: Faces) -> Appearances:
    """Put predictions at the annotated times, each annotated time getting the predicted frame nearest to it.

    Grids may differ, as those of annotations at 25 frames per second and a video at 29.97 do. Nearest is at most half
    an interval away: half the usual (median) step between the annotated times of that video; or between its predicted
    times where that is longer, so that a video at 24 frames per second loses none of 25 annotated times. Predicted
    times more than two annotated steps apart are gaps between faces and do not count for this. Of two equally near
    the earlier one is taken.
    """
    truth, found = _Frames.of(annotated), _Frames.of(predicted)
    nearest = np.full(len(truth), -1)
    for video in truth.distinct_videos():
        here, there = truth.of_video(video), found.of_video(video)
        wanted, offered = truth.times_s[here], found.times_s[there]
        step = frame_interval(wanted)
        tolerance = max(step, frame_interval(offered, otherwise_s=step, longest_s=2 * step)) / 2
        index = nearest_times(wanted, offered, tolerance)
        nearest[here] = np.where(index < 0, -1, index + there.start)

    frames = np.flatnonzero(nearest >= 0)
    at = nearest[frames]
    frame_of = np.repeat(frames, found.sizes[at])
    rows = found.order[_runs(found.starts[at], found.sizes[at])]
    faces = truth.sizes[frame_of]
    pairs = np.stack(
        [np.repeat(np.arange(len(rows)), faces), truth.order[_runs(truth.starts[frame_of], faces)]], axis=1
    )
    return Appearances(rows, faces, frame_of, pairs)


def match(annotated: Faces, predicted: Faces, min_overlap: float = MIN_OVERLAP) -> tuple[Appearances, np.ndarray]:
    """Match predicted faces with annotated ones, at each annotated time one to one, for the largest sum of overlaps.

    Faces are a pair only if their intersection over union is `min_overlap` or more. Scores, labels and entities have
    no say. Of two predictions with the same overlap the earlier row is matched.

    Returns:
        the predictions at annotated times, and (appearances,) int64: the annotated row of each, -1 where it has none.
    """
    shown = appearances(annotated, predicted)
    overlaps = intersection_over_union(
        predicted.boxes[shown.rows[shown.pairs[:, 0]]], annotated.boxes[shown.pairs[:, 1]]
    )
    near = np.flatnonzero(overlaps >= min_overlap - OVERLAP_SLACK)
    pairs, overlaps = shown.pairs[near], overlaps[near]
    chosen = pairs[best_pairs(pairs, overlaps, shown.frames[pairs[:, 0]])]
    matches = np.full(len(shown.rows), -1)
    matches[chosen[:, 0]] = chosen[:, 1]
    return shown, matches


def match_in_turn(annotated: Faces, predicted: Faces, scores: np.ndarray, min_overlap: float) -> np.ndarray:
    """Give each predicted face, by descending score, the annotated one that it overlaps most, unless that is taken.

    Of two that it overlaps alike, it is the earlier row.

    Args:
        annotated, predicted: a frame is the rows of one video and of exactly one time.
        scores: (predicted,) float64; equal ones are taken in their order.
        min_overlap: intersection over union, below which a face is no other.

    Returns:
        (predicted,) bool: it was given one.
    """
    both = [np.stack([faces.videos, faces.times_s], axis=1) for faces in (annotated, predicted)]
    frames = np.unique(np.concatenate(both), axis=0, return_inverse=True)[1].ravel()
    truth, found = np.split(frames, [len(annotated.times_s)])
    order = np.argsort(truth, kind="stable")
    starts, ends = (np.searchsorted(truth[order], found, side) for side in ("left", "right"))
    rows, faces = np.repeat(np.arange(len(found)), ends - starts), order[_runs(starts, ends - starts)]
    overlaps = intersection_over_union(predicted.boxes[rows], annotated.boxes[faces])
    best = np.full(len(found), -1)
    ascending = np.argsort(-overlaps, kind="stable")[::-1]  # so that of equal overlaps the first row is the last
    ascending = ascending[overlaps[ascending] >= min_overlap - OVERLAP_SLACK]
    best[rows[ascending]] = faces[ascending]  # of several assignments to one position the last one stays
    ranked = np.argsort(-scores, kind="stable")
    ranked = ranked[best[ranked] >= 0]
    hits = np.zeros(len(found), dtype=bool)
    hits[ranked[np.unique(best[ranked], return_index=True)[1]]] = True
    return hits


def frame_interval(times_s: np.ndarray, otherwise_s: float = LONE_FRAME_S, longest_s: float = np.inf) -> float:
    """The usual step between ascending times, in seconds: the median of those up to the longest, if there are any."""
    steps = np.diff(times_s)
    steps = steps[steps <= longest_s + TIME_SLACK_S]
    return float(np.median(steps)) if len(steps) else otherwise_s


def nearest_times(wanted: np.ndarray, offered: np.ndarray, tolerance_s: float) -> np.ndarray:
    """Index of the nearest of `offered` for each of `wanted`, -1 where none is within the tolerance.

    Args:
        wanted: (n,) float64, seconds.
        offered: (m,) float64, seconds, ascending; may be empty.
        tolerance_s: inclusive. Of two equally near the earlier one is taken.
    """
    if not len(offered):
        return np.full(len(wanted), -1)
    after = np.searchsorted(offered, wanted).clip(max=len(offered) - 1)
    before = (after - 1).clip(min=0)
    index = np.where(np.abs(wanted - offered[before]) <= np.abs(offered[after] - wanted) + TIME_SLACK_S, before, after)
    return np.where(np.abs(offered[index] - wanted) <= tolerance_s + TIME_SLACK_S, index, -1)


def best_pairs(pairs: np.ndarray, overlaps: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Choose pairs in which nobody occurs twice, with the largest sum of overlaps.

    Args:
        pairs: (pairs, [left, right]) int64 >= 0; all of them may be chosen.
        overlaps: (pairs,) float64 > 0.
        groups: (pairs,) int64, ascending; no left or right occurs in two groups.

    Returns:
        (chosen,) int64, indices of pairs, ascending.
    """
    left, right = pairs.T
    alone = (_degrees(left) == 1) & (_degrees(right) == 1)
    chosen, contested = np.flatnonzero(alone), np.flatnonzero(~alone)
    # A few frames of a video at most come here: each takes tens of microseconds.
    ends = np.flatnonzero(np.diff(groups[contested])) + 1
    settled = [part[_assignment(pairs[part], overlaps[part])] for part in np.split(contested, ends) if len(part)]
    return np.sort(np.concatenate([chosen, *settled]))


def _assignment(pairs: np.ndarray, overlaps: np.ndarray) -> np.ndarray:
    """(pairs, 2) and their overlaps -> (pairs,) bool, the exact best choice by the Hungarian method."""
    from scipy.optimize import linear_sum_assignment  # slow to load, and most evaluations go without

    left, right = (np.unique(side, return_inverse=True)[1] for side in pairs.T)
    table = np.zeros((left.max() + 1, right.max() + 1))
    table[left, right] = overlaps
    taken = np.zeros(table.shape, dtype=bool)
    taken[linear_sum_assignment(table, maximize=True)] = True  # zeros may be taken too, but are no pairs
    return taken[left, right]


def _degrees(nodes: np.ndarray) -> np.ndarray:
    """(pairs,) in how many pairs each one's node occurs."""
    return np.bincount(nodes)[nodes] if len(nodes) else nodes


def _runs(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Indices start, ..., start + size - 1 of each run, one after the other."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(sizes.sum())


@dataclass(frozen=True)
class _Frames:
    """Faces sorted by video and time: those of frame i are order[starts[i] : starts[i] + sizes[i]]."""

    order: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    videos: np.ndarray
    times_s: np.ndarray

    @classmethod
    def of(cls, faces: Faces) -> "_Frames":
        order = np.lexsort((faces.times_s, faces.videos))
        videos, times_s = faces.videos[order], faces.times_s[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (videos[1:] != videos[:-1]) | (times_s[1:] != times_s[:-1])
        starts = np.flatnonzero(new)
        return cls(order, starts, np.diff(np.append(starts, len(order))), videos[starts], times_s[starts])

    def __len__(self) -> int:
        return len(self.starts)

    def distinct_videos(self) -> np.ndarray:
        return self.videos[np.append(True, self.videos[1:] != self.videos[:-1])] if len(self) else self.videos

    def of_video(self, video: int) -> slice:
        return slice(*np.searchsorted(self.videos, (video, video + 1)))
