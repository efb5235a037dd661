"""How well persons were told apart: pairs of tracks, and who spoke when, beside the truth."""

import itertools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

Turn = tuple[float, float, Hashable]  # start and end in seconds, and who speaks


@dataclass(frozen=True)
class Pairs:
    """Pairs of tracks.

    Attributes:
        same: that are of one person.
        found: that were put together.
        both: that are of one person and were put together.
    """

    same: int = 0
    found: int = 0
    both: int = 0

    @classmethod
    def of(cls, persons: Sequence[Hashable], groups: Sequence[Hashable]) -> Self:
        """The pairs within a list of tracks, each with its person and with the group that it was put into."""
        pairs = list(itertools.combinations(zip(persons, groups, strict=True), 2))
        same = [one[0] == other[0] for one, other in pairs]
        found = [one[1] == other[1] for one, other in pairs]
        return cls(sum(same), sum(found), sum(map(min, same, found)))

    def __add__(self, other: Self) -> Self:
        return type(self)(self.same + other.same, self.found + other.found, self.both + other.both)

    @property
    def precision(self) -> float | None:
        return self.both / self.found if self.found else None

    @property
    def recall(self) -> float | None:
        return self.both / self.same if self.same else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None where there is neither pair."""
        return 2 * self.both / (self.same + self.found) if self.same + self.found else None


@dataclass(frozen=True)
class DiarisationErrors:
    """Seconds of speech, and of what is wrong about them; of several voices at once each counts.

    Attributes:
        total: speech of the truth.
        missed: where fewer are said to speak than do.
        false_alarm: where more are.
        confusion: where it is said to be another.
    """

    total: float = 0.0
    missed: float = 0.0
    false_alarm: float = 0.0
    confusion: float = 0.0

    @classmethod
    def of(cls, truth: Iterable[Turn], found: Iterable[Turn]) -> Self:
        """Errors in one video, exact to the boundaries of the turns: no collar, and overlapping speech counts.

        Speakers correspond one to one, for the greatest time in common (NIST RT-09 evaluation plan, section 6.1).
        """
        from scipy.optimize import linear_sum_assignment  # slow to load, and most evaluations go without

        turns = [list(truth), list(found)]
        bounds = np.unique([time for side in turns for turn in side for time in turn[:2]])
        active = [_activity(side, bounds) for side in turns]
        seconds = np.diff(bounds)
        in_common = (active[0] * seconds) @ active[1].T
        pairs = linear_sum_assignment(in_common, maximize=True)
        real, said = (side.sum(axis=0) for side in active)
        right = in_common[pairs].sum()
        return cls(
            total=float(real @ seconds),
            missed=float(np.maximum(real - said, 0) @ seconds),
            false_alarm=float(np.maximum(said - real, 0) @ seconds),
            confusion=float(np.minimum(real, said) @ seconds - right),
        )

    def __add__(self, other: Self) -> Self:
        return type(self)(
            self.total + other.total,
            self.missed + other.missed,
            self.false_alarm + other.false_alarm,
            self.confusion + other.confusion,
        )

    @property
    def rate(self) -> float | None:
        """The diarisation error rate, 0 or more; None where nobody speaks in truth."""
        return (self.missed + self.false_alarm + self.confusion) / self.total if self.total else None


def _activity(turns: Sequence[Turn], bounds: np.ndarray) -> np.ndarray:
    """(speaker, interval between two bounds) int64: 1 where the speaker speaks."""
    speakers = {who: number for number, who in enumerate(dict.fromkeys(who for _, _, who in turns))}
    active = np.zeros((len(speakers), max(0, len(bounds) - 1)), np.int64)
    for start_s, end_s, who in turns:
        active[speakers[who], slice(*np.searchsorted(bounds, (start_s, end_s)))] = 1
    return active
