"""Clustering with pairs apart: by hand, by the definition, and as SciPy does it where nothing is apart."""

import itertools

import numpy as np
import pytest
from scipy.cluster.hierarchy import average, fcluster
from scipy.spatial.distance import squareform

from core.people.clustering import cluster, group_tracks


def random_distances(count: int, seed: int) -> np.ndarray:
    points = np.random.default_rng(seed).normal(size=(count, 3))
    return np.linalg.norm(points[:, None] - points, axis=2)


def nothing(count: int) -> np.ndarray:
    return np.zeros((count, count), bool)


def by_definition(distances: np.ndarray, apart: np.ndarray, max_distance: float) -> list[int]:
    """The nearest allowed pair of clusters, each time from all pairs of their items."""
    clusters = [[item] for item in range(len(distances))]
    while True:
        pairs = [
            (distances[np.ix_(*pair)].mean(), pair)
            for pair in itertools.combinations(clusters, 2)
            if not apart[np.ix_(*pair)].any()
        ]
        distance, pair = min(pairs, default=(np.inf, None))
        if not distance <= max_distance:
            return [next(min(group) for group in clusters if item in group) for item in range(len(distances))]
        clusters = [group for group in clusters if group not in pair] + [sorted(pair[0] + pair[1])]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("share", [0, 0.1, 0.5])
def test_it_is_average_linkage_under_the_constraint(seed, share):
    distances = random_distances(24, seed)
    pairs = np.triu(np.random.default_rng(seed + 100).random(distances.shape) < share, 1)
    apart = pairs | pairs.T
    for limit in (0.5, 1.5, 3.0, 9.0):
        found = cluster(distances, apart, limit)
        assert found.tolist() == by_definition(distances, apart, limit)
        assert not (apart & (found[:, None] == found)).any()


@pytest.mark.parametrize("limit", [0.0, 0.8, 2.0, 10.0])
def test_without_constraints_it_is_scipys(limit):
    distances = random_distances(60, 7)
    expected = fcluster(average(squareform(distances)), limit, "distance")
    found = cluster(distances, nothing(60), limit)
    np.testing.assert_array_equal(found[:, None] == found, expected[:, None] == expected)


def test_the_limit_is_inclusive_and_of_equal_pairs_the_first_are_taken():
    distances = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]], float)
    apart = nothing(3)
    apart[0, 1] = apart[1, 0] = True
    assert cluster(distances, apart, 1.0).tolist() == [0, 1, 0]  # 0 and 2 before 1 and 2
    assert cluster(distances, apart, 0.999).tolist() == [0, 1, 2]


def test_what_is_apart_from_one_is_apart_from_its_cluster():
    """2 is nearest to 1, but is seen at once with 0, which 1 has joined."""
    distances = np.array([[0, 0.1, 0.9], [0.1, 0, 0.2], [0.9, 0.2, 0]])
    apart = nothing(3)
    assert cluster(distances, apart, 0.6).tolist() == [0, 0, 0]
    apart[0, 2] = apart[2, 0] = True
    assert cluster(distances, apart, 0.6).tolist() == [0, 0, 2]


@pytest.mark.parametrize("count", [0, 1])
def test_few_items(count):
    assert cluster(np.zeros((count, count)), nothing(count), 1.0).tolist() == list(range(count))


def test_tracks_are_numbered_by_person_in_order_of_appearance():
    alice, bob = np.array([1, 0], np.float32), np.array([0, 1], np.float32)
    embeddings = [bob, alice, None, bob, alice, alice]
    frames = [(0, 9), (5, 12), (10, 12), (13, 20), (20, 30), (31, 40)]
    assert group_tracks(embeddings, frames, 0.5) == [0, 1, 2, 0, 1, 1]
    # Equal as they may be: those that share a frame are two.
    assert group_tracks([bob] * 6, frames, 0.5) == [0, 1, 0, 0, 1, 0]
    assert group_tracks([], [], 0.5) == []
    assert group_tracks([None, None], frames[:2], 0.5) == [0, 1]
