"""Pairs of tracks, and diarisation errors: by hand, and as pyannote.metrics has them where it is installed."""

import numpy as np
import pytest

from core.people.agreement import DiarisationErrors, Pairs, Turn


def test_pairs_by_hand():
    """Of six pairs two are of one person, two were put together, one is both."""
    pairs = Pairs.of("AABB", [1, 1, 1, 2])
    assert pairs == Pairs(same=2, found=3, both=1)
    assert (pairs.precision, pairs.recall, pairs.f1) == (1 / 3, 1 / 2, 0.4)
    assert pairs + Pairs(1, 1, 1) == Pairs(3, 4, 2)
    assert Pairs.of("AB", [1, 2]) == Pairs()
    assert (Pairs().precision, Pairs().recall, Pairs().f1) == (None, None, None)


@pytest.mark.parametrize(
    ("truth", "found", "errors"),  # total, missed, false alarm, confusion
    [
        ([(0, 10, "a")], [(0, 10, "x")], (10, 0, 0, 0)),
        ([(0, 10, "a")], [], (10, 10, 0, 0)),
        ([], [(0, 4, "x")], (0, 0, 4, 0)),
        ([(0, 10, "a")], [(2, 12, "x")], (10, 2, 2, 0)),
        # x is a for 6 s, which is more than b's 4
        ([(0, 6, "a"), (6, 10, "b")], [(0, 10, "x")], (10, 0, 0, 4)),
        # a is x (6 s in common), so that b is y (2 s), not a is y (3 s) and b is x (4 s)
        ([(0, 9, "a"), (9, 15, "b")], [(0, 6, "x"), (6, 9, "y"), (9, 13, "x"), (13, 15, "y")], (15, 0, 0, 7)),
        # overlapping speech counts twice
        ([(0, 10, "a"), (4, 6, "b")], [(0, 10, "x")], (12, 2, 0, 0)),
        ([(0, 10, "a")], [(0, 10, "x"), (4, 6, "y")], (10, 0, 2, 0)),
        # segments of one speaker that overlap count once
        ([(0, 6, "a"), (4, 10, "a")], [(0, 10, "x")], (10, 0, 0, 0)),
    ],
)
def test_diarisation_errors_by_hand(truth, found, errors):
    assert DiarisationErrors.of(truth, found) == DiarisationErrors(*map(pytest.approx, errors))


def test_rates_are_of_all_videos_together():
    errors = DiarisationErrors(10, 1, 2, 0) + DiarisationErrors(30, 0, 0, 1)
    assert errors.rate == pytest.approx(4 / 40)
    assert DiarisationErrors(0, 0, 4, 0).rate is None


def random_turns(seed: int, speakers: str) -> list[Turn]:
    random = np.random.default_rng(seed)
    turns = []
    for who in speakers:
        bounds = np.sort(random.uniform(0, 60, 10))
        turns += [(float(start), float(end), who) for start, end in bounds.reshape(-1, 2)]
    return turns


@pytest.mark.parametrize("seed", range(8))
def test_it_is_pyannotes_error_rate(seed):
    diarization = pytest.importorskip("pyannote.metrics.diarization", reason="pip install -e '.[people]'")
    from pyannote.core import Annotation, Segment

    truth, found = random_turns(seed, "abc"), random_turns(seed + 100, "wxyz"[: 2 + seed % 3])

    def annotation(turns: list[Turn]) -> Annotation:
        one = Annotation()
        for number, (start, end, who) in enumerate(turns):
            one[Segment(start, end), number] = who
        return one

    expected = diarization.DiarizationErrorRate()(annotation(truth), annotation(found), detailed=True)
    errors = DiarisationErrors.of(truth, found)
    assert errors.total == pytest.approx(expected["total"])
    assert errors.missed == pytest.approx(expected["missed detection"])
    assert errors.false_alarm == pytest.approx(expected["false alarm"])
    assert errors.confusion == pytest.approx(expected["confusion"])
    assert errors.rate == pytest.approx(expected["diarization error rate"])
