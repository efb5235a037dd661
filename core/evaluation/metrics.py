"""Numbers for one column of scores: average precision as the official tool gives it, accuracy, ROC AUC.

Only NumPy is needed, and SciPy for intervals alone: the evaluation starts fast, and training can call these without
further imports.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from core.clip_utils import SPEAKING_THRESHOLD

CALIBRATION_BINS = 15  # as Guo et al. (ICML 2017) have
FACE_COUNT_GROUPS = ("1", "2", "3+")
GROUPINGS = ("by_faces", "by_face_width", "by_category")  # of results
CONFIDENCE = 0.95
Value, Other = TypeVar("Value"), TypeVar("Other")
# Face widths in pixels of the video: the groups of the AVA-ActiveSpeaker paper (Roth et al., ICASSP 2020).
SMALL_FACE_PX = 64
LARGE_FACE_PX = 128
FACE_WIDTH_GROUPS = (f"< {SMALL_FACE_PX} px", f"{SMALL_FACE_PX}-{LARGE_FACE_PX} px", f"> {LARGE_FACE_PX} px")


def average_precision(speaking: np.ndarray, scores: np.ndarray) -> float:
    """The number of ActivityNet's `get_ava_active_speaker_performance.py`.

    Rows are taken by descending score; precision is made monotone from the right; the result is the area under the
    steps over recall. Recall rises by 1/positives at each positive row and reaches 1, so the area is the mean of the
    monotone precision at the positives. Among equal scores the order is the official tool's, see `official_order`.

    Args:
        speaking: (rows,) bool, in the order of the ground truth.
        scores: (rows,) finite numbers, the higher the surer; probabilities or any other scale.

    Raises:
        ValueError: shapes differ, a score is not finite, or no row is positive (the number is then undefined).
    """
    speaking, scores = _checked(speaking, scores)
    return _average_precision_of_ranking(speaking[official_order(scores)])


def precision_recall(speaking: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The steps whose area is `average_precision`.

    Returns:
        (recall, precision), each (positives,) float64: from recall[i - 1] (0 before the first) to recall[i] the
        monotone precision is precision[i].

    Raises:
        ValueError: as `average_precision`.
    """
    speaking, scores = _checked(speaking, scores)
    precision = _monotone_precision_at_positives(speaking[official_order(scores)])
    return np.arange(1, len(precision) + 1) / len(precision), precision


def official_order(scores: np.ndarray) -> np.ndarray:
    """Row indices by descending score, equal scores in the order in which the official tool takes them.

    That tool calls pandas' sort_values(ascending=False), which reverses the rows, applies NumPy's default argsort and
    reverses again. The default sort is not stable, so among equal scores the order depends on the order of the rows
    and on the processor's vector instructions; doing the same here gives the official number of this machine.
    """
    return len(scores) - 1 - np.argsort(scores[::-1])[::-1]


@dataclass(frozen=True)
class Ties:
    """What equal scores leave open: any order of them would be as right as the official one.

    Attributes:
        share: share of the rows whose score is also that of a row with the other label, 0 to 1.
        lowest: average precision with the negatives first among equal scores.
        highest: average precision with the positives first.
    """

    share: float
    lowest: float
    highest: float


def ties(speaking: np.ndarray, scores: np.ndarray) -> Ties:
    """How much of the ranking, and of the average precision, is decided by the order of equal scores.

    Raises:
        ValueError: as `average_precision`.
    """
    speaking, scores = _checked(speaking, scores)
    sizes, positives = _groups_of_equal_scores(speaking, scores)
    mixed = (positives > 0) & (positives < sizes)
    position = np.arange(len(scores)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # within its group, from 0
    return Ties(
        share=float(sizes[mixed].sum() / len(scores)),
        lowest=_average_precision_of_ranking(position >= np.repeat(sizes - positives, sizes)),
        highest=_average_precision_of_ranking(position < np.repeat(positives, sizes)),
    )


def accuracy(speaking: np.ndarray, scores: np.ndarray, threshold: float = SPEAKING_THRESHOLD) -> float:
    """Share of the rows where (score >= threshold) is the label."""
    speaking, scores = _checked(speaking, scores, need_positive=False)
    return float(np.mean((scores >= threshold) == speaking))


def roc_auc(speaking: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: the chance that a speaking row scores above a silent one, equal scores counting half.

    Raises:
        ValueError: as `average_precision`, or every row is positive.
    """
    speaking, scores = _checked(speaking, scores)
    sizes, positives = _groups_of_equal_scores(speaking, scores)
    negatives = sizes - positives
    if not negatives.any():
        raise ValueError("every row is positive: the area under the ROC curve is not defined")
    positives_above = np.cumsum(positives) - positives
    won = np.sum(negatives * (positives_above + positives / 2))
    return float(won / (positives.sum() * negatives.sum()))


@dataclass(frozen=True)
class Calibration:
    """Probabilities beside how often they were right, in bins of equal width from 0 to 1; bins without rows are nan.

    Attributes:
        rows: (bin,) int64.
        probability: (bin,) mean probability of speaking.
        speaking: (bin,) share of the rows that are speaking.
    """

    rows: np.ndarray
    probability: np.ndarray
    speaking: np.ndarray

    @property
    def expected_error(self) -> float:
        """The expected calibration error, 0 to 1: the sum over bins b of n_b / n |speaking_b - probability_b|.

        After Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3. There it is of the surer
        class; here of the class speaking, so that rows surely silent count in the lowest bin.
        """
        return float(np.nansum(self.rows * np.abs(self.speaking - self.probability)) / self.rows.sum())


def calibration(speaking: np.ndarray, probabilities: np.ndarray, bins: int = CALIBRATION_BINS) -> Calibration:
    """How far probabilities can be believed.

    Args:
        speaking: (rows,) bool.
        probabilities: (rows,) of speaking, 0 to 1; bin b of n holds those above b / n, up to (b + 1) / n.
        bins: how many.

    Raises:
        ValueError: shapes differ, or a number is no probability.
    """
    speaking, probabilities = _checked(speaking, probabilities, need_positive=False)
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError(f"probabilities from {probabilities.min():g} to {probabilities.max():g}, expected 0 to 1")
    index = np.maximum(np.ceil(probabilities * bins).astype(np.int64) - 1, 0)
    rows = np.bincount(index, minlength=bins)
    filled = np.where(rows, rows, np.nan)
    sums = (np.bincount(index, weights=values, minlength=bins) for values in (probabilities, speaking))
    return Calibration(rows, *(total / filled for total in sums))


def face_count_groups(faces: np.ndarray) -> np.ndarray:
    """(rows,) number of faces in the row's frame, at least 1 -> (rows,) index into `FACE_COUNT_GROUPS`."""
    return np.minimum(faces, len(FACE_COUNT_GROUPS)) - 1


def face_width_groups(widths: np.ndarray) -> np.ndarray:
    """(rows,) face widths in pixels -> (rows,) index into `FACE_WIDTH_GROUPS`; 64 and 128 belong to the middle."""
    # Boxes are written with six decimals: the rounding only takes away float error, so that 0.05 x 1280 is 64.
    widths = np.round(widths, 6)
    return (widths >= SMALL_FACE_PX).astype(np.int64) + (widths > LARGE_FACE_PX)


@dataclass(frozen=True)
class GroupResult:
    """Average precision of some of the rows; None where it is undefined because none of them is speaking."""

    rows: int
    positives: int
    average_precision: float | None


def by_group(
    speaking: np.ndarray, scores: np.ndarray, groups: np.ndarray, names: tuple[str, ...]
) -> dict[str, GroupResult]:
    """Average precision within each group of rows.

    Args:
        speaking: (rows,) bool.
        scores: (rows,) finite numbers.
        groups: (rows,) index into `names`.
        names: one for each group, in the order of the result.
    """
    speaking, scores = _checked(speaking, scores, need_positive=False)
    results = {}
    for index, name in enumerate(names):
        inside = groups == index
        labels = speaking[inside]
        positives = int(np.count_nonzero(labels))
        value = average_precision(labels, scores[inside]) if positives else None
        results[name] = GroupResult(rows=len(labels), positives=positives, average_precision=value)
    return results


@dataclass(frozen=True)
class Ranking:
    """What an average precision is of, and the videos that it is from.

    Attributes:
        hits: (ranks,) bool, by descending score: is that of each rank positive.
        videos: (ranks,) int64, the video of each.
        positives: (videos,) int64, positive rows of each video, those that are not ranked (faces not found) included.
    """

    hits: np.ndarray
    videos: np.ndarray
    positives: np.ndarray

    def average_precision(self, without: int | None = None) -> float:
        """Average precision, of all videos or without one of them; nan where there is no positive row."""
        hits, positives = self.hits, int(self.positives.sum())
        if without is not None:
            hits, positives = hits[self.videos != without], positives - int(self.positives[without])
        return float(_monotone_precision_at_positives(hits).sum()) / positives if positives else float("nan")


# By the names of results: a value, or the values of groups, or None for groups that are not known.
Named = Mapping[str, Value | Mapping[str, Value] | None]


def intervals(systems: Mapping[str, Named[Ranking]]) -> list[dict]:
    """How far average precision depends on which videos happen to be evaluated: 95 % confidence intervals by the
    jackknife (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 11) over videos, as the faces of a
    video are alike, with Student's t for their number.

    Args:
        systems: name -> what it ranks, of the same ground truth.

    Returns:
        For each system, by the names of its rankings, `value`, `margin`, which the interval extends to either side of
        it, and `videos`, how many have such rows; None where there are fewer than two, or all positive rows are in one.
        And `difference`, the same of its average precision less that of the first system, with `from`, the name of
        that; None for the first.
    """
    first, *_ = systems
    return [
        {
            **_each(_interval, rankings),
            "difference": None if name == first else {"from": first, **_each(_interval, rankings, systems[first])},
        }
        for name, rankings in systems.items()
    ]


def _each(function: Callable[..., Other], *named: Named) -> dict[str, Other | dict[str, Other] | None]:
    """The results of a function of the values of the same names."""

    def result(*values: object) -> object:
        if isinstance(values[0], Mapping):
            return _each(function, *values)
        return None if values[0] is None else function(*values)

    return {key: result(*(one[key] for one in named)) for key in named[0]}


def _interval(ranking: Ranking, less: Ranking | None = None) -> dict[str, float] | None:
    """Of one average precision, or of how far it is from another one."""
    from scipy.special import stdtrit  # here: it takes a tenth of a second to import

    rankings = [ranking] if less is None else [ranking, less]
    present = [np.concatenate([one.videos, np.flatnonzero(one.positives)]) for one in rankings]

    def value(without: int | None = None) -> float:
        own, *others = (one.average_precision(without) for one in rankings)
        return own - sum(others)

    values = np.array([value(video) for video in np.unique(np.concatenate(present))])
    count = len(values)
    if count < 2 or np.isnan(values).any():
        return None
    error = np.sqrt((count - 1) / count * np.sum((values - values.mean()) ** 2))
    return {"value": value(), "margin": float(stdtrit(count - 1, (1 + CONFIDENCE) / 2) * error), "videos": count}


def _checked(speaking: np.ndarray, scores: np.ndarray, *, need_positive: bool = True) -> tuple[np.ndarray, np.ndarray]:
    speaking = np.asarray(speaking, dtype=bool)
    scores = np.asarray(scores, dtype=np.float64)
    if speaking.ndim != 1 or speaking.shape != scores.shape or not len(scores):
        raise ValueError(f"need (rows,) labels and as many scores, got shapes {speaking.shape} and {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError(f"score {scores[~np.isfinite(scores)][0]} is not a finite number")
    if need_positive and not speaking.any():
        raise ValueError("no row is positive: average precision and ROC AUC are not defined")
    return speaking, scores


def _monotone_precision_at_positives(hits: np.ndarray) -> np.ndarray:
    """(rows,) bool, is the row of each rank positive -> (positives,) precision there, or a later one if higher."""
    ranks = np.flatnonzero(hits) + 1
    precision = np.arange(1, len(ranks) + 1) / ranks
    # Between two positives precision only falls, so the best to the right of any rank lies at a positive.
    return np.maximum.accumulate(precision[::-1])[::-1]


def _average_precision_of_ranking(hits: np.ndarray) -> float:
    return float(_monotone_precision_at_positives(hits).mean())


def _groups_of_equal_scores(speaking: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes and numbers of positives of the groups of equal scores, by descending score; each (groups,) int64."""
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
    sizes = np.diff(np.append(starts, len(scores)))
    return sizes, np.add.reduceat(speaking[order].astype(np.int64), starts)
