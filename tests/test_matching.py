"""Matching in time and by overlap against hand-computed cases and an exhaustive search."""

import itertools

import numpy as np
import pytest

from core.evaluation import matching
from core.evaluation.matching import Faces, appearances, best_pairs, match, nearest_times


def faces(*rows, video=0):
    """(time, x1, x2) of boxes from 0 to 1 in height."""
    times = np.array([row[0] for row in rows], dtype=float)
    boxes = np.array([[x1, 0, x2, 1] for _, x1, x2 in rows], dtype=float).reshape(-1, 4)
    return Faces(np.full(len(rows), video), times, boxes)


def grid(times):
    return faces(*((time, 0, 1) for time in times))


def joined(*parts):
    return Faces(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("videos", "times_s", "boxes")))


def matched_rows(annotated, predicted, **options):
    """Predicted row -> annotated row or -1; each predicted row may appear once only."""
    shown, matches = match(annotated, predicted, **options)
    assert len(set(shown.rows.tolist())) == len(shown.rows)
    return dict(zip(shown.rows.tolist(), matches.tolist(), strict=True))


# ---- time -------------------------------------------------------------------------------------------------------


def test_nearest_times_by_hand():
    offered = np.array([0.0, 0.04, 0.08])
    wanted = np.array([-0.02, -0.021, 0.019, 0.02, 0.021, 0.1, 0.101])
    assert nearest_times(wanted, offered, 0.02).tolist() == [0, -1, 0, 0, 1, 2, -1]
    assert nearest_times(wanted, offered[:0], 0.02).tolist() == [-1] * 7
    assert nearest_times(wanted[:0], offered, 0.02).tolist() == []


def test_annotations_at_25_in_a_video_at_29_97_frames_per_second():
    annotated = np.round(np.arange(500) / 25, 2)
    frames = np.arange(600) * 1001 / 30000
    shown = appearances(grid(annotated), grid(frames))
    distance = np.abs(frames[None] - annotated[:, None])
    assert shown.rows.tolist() == distance.argmin(axis=1).tolist()
    assert len(set(shown.rows.tolist())) == 500  # no frame twice; the other 100 stand at no annotated time


def test_a_grid_off_by_half_a_frame_is_near_enough_and_a_little_more_is_not():
    annotated = np.arange(10) * 0.04
    for times, offset, count in (
        *((annotated, offset, 10) for offset in (0.02, -0.02, 0.019)),
        (annotated[::2], 0.0399, 5),
        (annotated[:1], 0.021, 0),  # one time: as of 25 a second
    ):
        assert len(appearances(grid(times), grid(times + offset)).rows) == count


def test_a_slower_video_loses_no_annotated_time():
    annotated, frames = np.arange(600) / 25, np.arange(576) / 24
    shown = appearances(grid(annotated), grid(frames))
    assert len(shown.rows) == 600
    assert np.abs(frames[shown.rows] - annotated).max() <= 0.5 / 24 + 1e-9
    # At half the rate every frame stands at two annotated times.
    assert np.bincount(appearances(grid(np.arange(100) / 25), grid(np.arange(50) / 12.5)).rows).tolist() == [2] * 50


def test_rare_detections_do_not_count_far_around():
    annotated = grid(np.arange(1000) / 25)
    assert appearances(annotated, grid([3.0, 30.0])).rows.tolist() == [0, 1]
    assert appearances(annotated, grid([3.0, 3.2, 30.0, 30.2])).rows.tolist() == [0, 1, 2, 3]


def test_only_predictions_at_annotated_times_appear_and_videos_stay_apart():
    annotated = joined(faces((1.0, 0, 1), (1.04, 0, 1), video=7), faces((5.0, 0, 1), (5.04, 0, 1), video=3))
    predicted = joined(
        faces((5.04, 0, 1), (1.04, 0, 1), (1.04, 2, 3), (9.0, 0, 1), video=3),  # 1.04 is annotated in the other video
        faces((1.0, 0, 1), video=7),
        faces((1.04, 0, 1), video=-1),
    )
    shown = appearances(annotated, predicted)
    assert shown.rows.tolist() == [0, 4]
    assert shown.pairs.tolist() == [[0, 3], [1, 0]]
    assert shown.faces.tolist() == [1, 1]


def test_every_predicted_face_meets_every_annotated_one_of_its_time():
    annotated = faces((2, 0, 1), (1, 0, 1), (1, 2, 3), (1, 4, 5))
    predicted = faces((1, 0, 1), (2, 0, 1), (1, 2, 3), (2, 6, 7))
    shown = appearances(annotated, predicted)
    pairs = {(int(shown.rows[left]), int(right)) for left, right in shown.pairs}
    assert pairs == {(0, 1), (0, 2), (0, 3), (2, 1), (2, 2), (2, 3), (1, 0), (3, 0)}
    assert dict(zip(shown.rows.tolist(), shown.faces.tolist(), strict=True)) == {0: 3, 2: 3, 1: 1, 3: 1}


# ---- one to one -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotated", "predicted", "rows"),
    [
        # Two faces of width 0.2 pass each other; the predictions lag by 0.01. In the middle every overlap is above one
        # half: 0.19 / 0.21 on one's own, 0.17 / 0.23 on the other's.
        (
            [(0, 0.1, 0.3), (0, 0.5, 0.7), (0.04, 0.30, 0.50), (0.04, 0.34, 0.54), (0.08, 0.5, 0.7)],
            [(0.04, 0.33, 0.53), (0.04, 0.31, 0.51), (0, 0.51, 0.71), (0, 0.11, 0.31), (0.08, 0.49, 0.69)],
            {0: 3, 1: 2, 2: 1, 3: 0, 4: 4},
        ),
        # The largest sum wins over the largest single overlap: 0-0 is 8/12, 0-1 9/11, 1-1 8/12; 1-0 is 5/15, no pair.
        ([(0, 0, 10), (0, 3, 13)], [(0, 2, 12), (0, 5, 15)], {0: 0, 1: 1}),
        # A missed face, a false face and a second box on one face.
        ([(0, 0, 10), (0, 20, 30)], [(0, 1, 11), (0, 0.5, 10.5), (0, 40, 50)], {0: -1, 1: 0, 2: -1}),
        # The same box twice: the earlier row is matched.
        ([(0, 0, 10), (0, 20, 30)], [(0, 0, 9), (0, 0, 9)], {0: 0, 1: -1}),
        # One prediction between two annotated faces takes the nearer.
        ([(0, 0, 10), (0, 1, 11)], [(0, 0.8, 10.8)], {0: 1}),
        # No pair at all; and no prediction at an annotated time.
        ([(0, 0, 1)], [(0, 5, 6)], {0: -1}),
        ([(0, 0, 1)], [(50, 0, 1)], {}),
    ],
)
def test_matches_by_hand(annotated, predicted, rows):
    assert matched_rows(faces(*annotated), faces(*predicted)) == rows


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.37, 0.613])
def test_an_overlap_of_exactly_one_half_matches(shift):
    annotated, half = faces((0, shift, shift + 0.3)), faces((0, shift, shift + 0.15))
    assert matched_rows(annotated, half) == {0: 0}
    assert matched_rows(annotated, faces((0, shift, shift + 0.1499))) == {0: -1}
    assert matched_rows(annotated, half, min_overlap=0.51) == {0: -1}


def exhaustive(pairs, overlaps):
    """The largest sum of overlaps over all one-to-one choices."""
    best = 0
    for size in range(1, 5):
        for choice in itertools.combinations(range(len(pairs)), size):
            if all(len({pairs[index][side] for index in choice}) == size for side in (0, 1)):
                best = max(best, sum(overlaps[index] for index in choice))
    return best


def test_best_pairs_against_an_exhaustive_search():
    generator = np.random.default_rng(0)
    pairs, overlaps, groups, expected = [], [], [], []
    for group in range(300):
        nodes = itertools.product(range(int(generator.integers(1, 5))), range(int(generator.integers(1, 4))))
        inside = [(4 * group + left, 4 * group + right) for left, right in nodes if generator.random() < 0.7]
        weights = generator.choice([0.5, 0.6, 0.75, 0.9, 1.0], len(inside)).tolist()
        pairs, overlaps, groups = pairs + inside, overlaps + weights, groups + [group] * len(inside)
        expected.append(exhaustive(inside, weights))
    pairs, overlaps, groups = np.array(pairs), np.array(overlaps), np.array(groups)
    chosen = best_pairs(pairs, overlaps, groups)
    assert all(len(set(side)) == len(side) for side in pairs[chosen].T.tolist())
    sums = np.bincount(groups[chosen], overlaps[chosen], minlength=300)
    np.testing.assert_allclose(sums, expected, atol=1e-12)
    assert best_pairs(pairs[:0], overlaps[:0], groups[:0]).tolist() == []


def test_interval_is_the_usual_step():
    assert matching.frame_interval(np.array([0, 0.04, 0.08, 60.0, 60.04])) == pytest.approx(0.04)
    assert matching.frame_interval(np.array([5.0])) == 0.04
    assert matching.frame_interval(np.array([0, 0.05, 0.1, 7, 14, 21]), 0.04, 0.08) == pytest.approx(0.05)
    assert matching.frame_interval(np.array([0, 7.0]), 0.04, 0.08) == 0.04
