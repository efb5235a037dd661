"""Metrics against hand-computed numbers, pandas' order of ties, scikit-learn, and the official tool's answers."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.evaluation import metrics

# ActivityNet's get_ava_active_speaker_performance.py on 40 random rows, and what it printed for each pair of files.
OFFICIAL = Path(__file__).parent / "fixtures" / "official_tool"
ANSWERS = json.loads((OFFICIAL / "average_precision.json").read_text())


@pytest.mark.parametrize(
    ("speaking", "scores", "expected"),
    [
        # Ranks 1, 3 and 6 speak: precision 1, 2/3, 1/2 falls already; each raises recall by 1/3.
        ([0, 1, 0, 1, 0, 1], [0.1, 0.9, 0.8, 0.7, 0.2, 0.05], (1 + 2 / 3 + 1 / 2) / 3),
        # Ranks 2, 3, 4 speak: precision 1/2, 2/3, 3/4 rises with recall, so every step is lifted to 3/4.
        ([0, 1, 1, 1], [0.9, 0.8, 0.7, 0.6], 3 / 4),
    ],
)
def test_average_precision_by_hand(speaking, scores, expected):
    value = metrics.average_precision(np.array(speaking, bool), np.array(scores))
    assert value == pytest.approx(expected, abs=1e-12)


def test_area_under_the_returned_steps_is_the_average_precision():
    generator = np.random.default_rng(0)
    speaking = generator.random(500) < 0.3
    scores = generator.random(500) + 0.3 * speaking
    recall, precision = metrics.precision_recall(speaking, scores)
    area = float(np.sum(np.diff(recall, prepend=0) * precision))
    assert area == pytest.approx(metrics.average_precision(speaking, scores), abs=1e-12)
    assert recall[-1] == 1
    assert (np.diff(precision) <= 0).all()


@pytest.mark.parametrize("rows", [5, 60, 300, 5000])
def test_equal_scores_are_ordered_as_pandas_orders_them(rows):
    scores = np.random.default_rng(rows).integers(0, 10, rows) / 10
    expected = pd.DataFrame({"score": scores}).sort_values(by=["score"], ascending=False).index
    np.testing.assert_array_equal(metrics.official_order(scores), expected)


@pytest.mark.parametrize("files", ANSWERS)
def test_official_numbers(files):
    *truth, predictions = files.split("+")
    official = ANSWERS[files]
    labelled = pd.read_csv(OFFICIAL / f"{truth[0] if truth else 'gt'}.csv", header=None)
    scored = pd.read_csv(OFFICIAL / f"{predictions}.csv", header=None)
    rows = labelled.merge(scored, on=[1, 7], validate="1:1")
    speaking, scores = (rows["6_x"] == "SPEAKING_AUDIBLE").to_numpy(), rows[8].to_numpy()

    tied = metrics.ties(speaking, scores)
    assert tied.lowest - 1e-9 <= official <= tied.highest + 1e-9
    # Which of the tied orders comes out depends on the processor; ask pandas what the official tool would do here.
    ranked = speaking[rows[8].to_frame().sort_values(by=[8], ascending=False).index]
    precision = np.maximum.accumulate((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[::-1])[::-1]
    here = float(precision[ranked].mean())
    ours = metrics.average_precision(speaking, scores)
    assert ours == pytest.approx(here, abs=1e-9)
    if abs(here - official) > 1e-9:
        pytest.skip("this processor sorts equal scores in another order than the one the reference was made on")
    assert ours == pytest.approx(official, abs=1e-9)


def test_tie_bounds_are_the_extremes_of_all_orders():
    speaking = np.array([1, 0, 0, 1, 1, 0, 1], dtype=bool)
    scores = np.array([0.9, 0.9, 0.5, 0.5, 0.5, 0.2, 0.1])
    values = []
    for order in itertools.permutations(range(len(scores))):
        ranked = list(order)
        if (np.diff(scores[ranked]) <= 0).all():
            distinct = -np.arange(len(scores), dtype=float)  # this order, without ties
            values.append(metrics.average_precision(speaking[ranked], distinct))
    tied = metrics.ties(speaking, scores)
    assert (tied.lowest, tied.highest) == pytest.approx((min(values), max(values)), abs=1e-12)
    assert tied.share == pytest.approx(5 / 7)
    assert min(values) < max(values)


def test_no_ties_no_share():
    tied = metrics.ties(np.array([True, False, True, True]), np.array([0.4, 0.1, 0.2, 0.2]))
    assert tied.share == 0  # the two equal scores have one label
    assert tied.lowest == tied.highest == 1


def test_roc_auc_and_average_precision_against_scikit_learn():
    oracle = pytest.importorskip("sklearn.metrics", reason="scikit-learn is a development dependency")
    generator = np.random.default_rng(1)
    speaking = generator.random(400) < 0.4
    scores = generator.normal(size=400) + speaking
    for column in (scores, np.round(scores), np.zeros(400)):  # few, many and only ties
        assert metrics.roc_auc(speaking, column) == pytest.approx(oracle.roc_auc_score(speaking, column), abs=1e-12)
    # Theirs is not made monotone, so ours lies above; on a ranking whose precision only falls they agree.
    assert metrics.average_precision(speaking, scores) > oracle.average_precision_score(speaking, scores)
    falling, ranks = np.array([1, 1, 0, 1, 0, 0, 1, 0], dtype=bool), -np.arange(8.0)
    theirs = oracle.average_precision_score(falling, ranks)
    assert metrics.average_precision(falling, ranks) == pytest.approx(theirs, abs=1e-12)


def test_accuracy_counts_the_threshold_as_speaking():
    speaking, scores = np.array([True, True, False, False]), np.array([0.5, 0.4, 0.45, 0.1])
    assert metrics.accuracy(speaking, scores) == 0.75
    assert metrics.accuracy(speaking, scores, threshold=0.4) == 0.75
    assert metrics.accuracy(speaking, scores, threshold=0.42) == 0.5


def test_groups_by_hand():
    assert metrics.face_count_groups(np.array([1, 2, 3, 7])).tolist() == [0, 1, 2, 2]
    # 0.35 - 0.30 is a little under 0.05 in floating point, and 0.05 of 1280 pixels is 64: the middle group.
    widths = np.array([63.999, (0.35 - 0.30) * 1280, 100, 128, 128.001])
    assert widths[1] < 64
    assert metrics.face_width_groups(widths).tolist() == [0, 1, 1, 1, 2]

    speaking, scores = np.array([1, 0, 0, 1, 0], dtype=bool), np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    results = metrics.by_group(speaking, scores, np.array([0, 0, 1, 1, 2]), ("a", "b", "c", "d"))
    expected = {"a": (2, 1, 1), "b": (2, 1, 0.5), "c": (1, 0, None), "d": (0, 0, None)}
    assert results == {name: metrics.GroupResult(*numbers) for name, numbers in expected.items()}


FUNCTIONS = (metrics.average_precision, metrics.precision_recall, metrics.roc_auc, metrics.ties)


@pytest.mark.parametrize(
    ("functions", "speaking", "scores", "fact"),
    [
        (FUNCTIONS, [False, False], [0.1, 0.2], "no row is positive"),
        (FUNCTIONS, [True, False], [0.1], "shapes"),
        (FUNCTIONS, [], [], "shapes"),
        (FUNCTIONS, [True, False], [0.1, np.nan], "nan is not a finite number"),
        ([metrics.roc_auc], [True, True], [0.1, 0.2], "every row is positive"),
    ],
)
def test_undefined_input_is_refused(functions, speaking, scores, fact):
    for function in functions:
        with pytest.raises(ValueError, match=fact):
            function(np.array(speaking, dtype=bool), np.array(scores, dtype=float))


def test_calibration_by_hand():
    # Bins of a fifth: 0 and 0.2 in the first, 0.7 and 0.8 in the fourth, 1 in the last.
    probabilities = np.array([0.0, 0.2, 0.7, 0.8, 1.0])
    found = metrics.calibration(np.array([0, 1, 1, 1, 0], bool), probabilities, bins=5)
    assert found.rows.tolist() == [2, 0, 0, 2, 1]
    np.testing.assert_allclose(found.probability, [0.1, np.nan, np.nan, 0.75, 1])
    np.testing.assert_allclose(found.speaking, [0.5, np.nan, np.nan, 1, 0])
    assert found.expected_error == pytest.approx((2 * 0.4 + 2 * 0.25 + 1 * 1) / 5)


def test_probabilities_that_come_true_are_calibrated_and_log_odds_are_none():
    generator = np.random.default_rng(0)
    probabilities = generator.random(100_000)
    speaking = generator.random(100_000) < probabilities
    assert metrics.calibration(speaking, probabilities).expected_error < 0.01
    assert len(metrics.calibration(speaking, probabilities).rows) == 15
    assert metrics.calibration(speaking, probabilities**2).expected_error == pytest.approx(1 / 6, abs=0.01)
    with pytest.raises(ValueError, match=r"1\.5"):
        metrics.calibration(np.array([True, False]), np.array([0.5, 1.5]))


def ranking_of(speaking: np.ndarray, scores: np.ndarray, videos: np.ndarray) -> metrics.Ranking:
    order = np.argsort(-scores)
    return metrics.Ranking(speaking[order], videos[order], np.bincount(videos[speaking], minlength=videos.max() + 1))


def test_without_a_video_average_precision_is_that_of_the_others():
    generator = np.random.default_rng(0)
    videos, speaking = generator.integers(0, 5, 80), generator.random(80) < 0.4
    scores = generator.random(80) + 0.3 * speaking
    ranking = ranking_of(speaking, scores, videos)
    assert ranking.average_precision() == pytest.approx(metrics.average_precision(speaking, scores))
    for video in range(5):
        others = videos != video
        expected = metrics.average_precision(speaking[others], scores[others])
        assert ranking.average_precision(video) == pytest.approx(expected)


def test_intervals_hold_what_more_videos_would_give_about_as_often_as_they_say():
    """Of 300 sets of 40 videos, which lie apart in how high their scores are: of two systems, and their difference."""
    generator = np.random.default_rng(0)

    def drawn(videos: int) -> dict[str, metrics.Named[metrics.Ranking]]:
        of = np.repeat(np.arange(videos), 20)
        speaking, apart = generator.random(len(of)) < 0.4, generator.normal(size=videos)[of]
        scores = {weight: speaking + weight * apart + 0.5 * generator.normal(size=len(of)) for weight in (1, 0.3)}
        return {str(name): {"all": ranking_of(speaking, column, of)} for name, column in scores.items()}

    first, second = (system["all"].average_precision() for system in drawn(10_000).values())
    held = np.zeros(3)
    for _ in range(300):
        one, other = metrics.intervals(drawn(40))
        for place, (interval, true) in enumerate(
            ((one["all"], first), (other["all"], second), (other["difference"]["all"], second - first))
        ):
            held[place] += abs(interval["value"] - true) <= interval["margin"]
    assert ((held / 300 >= 0.88) & (held / 300 <= 0.98)).all()


def test_where_one_video_has_all_positives_there_is_no_interval():
    videos = np.array([0, 0, 1, 1])
    alone = {"all": ranking_of(np.array([True, True, False, False]), np.arange(4.0), videos)}
    both = {"all": ranking_of(np.array([True, False, True, False]), np.arange(4.0), videos)}
    (none,), (some,) = metrics.intervals({"a": alone}), metrics.intervals({"a": both})
    assert none["all"] is None
    assert some["all"]["videos"] == 2
