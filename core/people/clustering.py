"""Vectors put together to groups, under the constraint that some pairs are apart."""

import numpy as np


def group_tracks(embeddings: list[np.ndarray | None], frames: list[tuple[int, int]], max_distance: float) -> list[int]:
    """Which tracks are of one person; tracks that share a frame are of two.

    Args:
        embeddings: (feature,) float32 of length 1 of each track; a track without one is a person of its own.
        frames: first and last frame of each track, both inside.
        max_distance: mean cosine distance up to which groups are one.

    Returns:
        A number for each track, those of one person alike: 0, 1, ... in order of the persons' first tracks.
    """
    known = [number for number, embedding in enumerate(embeddings) if embedding is not None]
    groups = np.arange(len(embeddings))
    if known:
        vectors = np.stack([embeddings[number] for number in known])
        first, last = np.array(frames)[known].T
        at_once = (first[:, None] <= last) & (first <= last[:, None])
        groups[known] = np.array(known)[cluster(1 - vectors @ vectors.T, at_once, max_distance)]
    return np.unique(groups, return_inverse=True)[1].tolist()


def cluster(distances: np.ndarray, apart: np.ndarray, max_distance: float) -> np.ndarray:
    """Agglomerative clustering with average linkage: the two nearest clusters that may be one become one, again and
    again, until none are near enough.

    The distance of two clusters is the mean over all pairs of their items. Of pairs equally near the one that comes
    first by its items is taken, so that the result is always the same.

    Args:
        distances: (n, n) of the items, symmetric.
        apart: (n, n) bool, symmetric: these two must not come into one cluster; the diagonal has no say.
        max_distance: of two clusters that become one.

    Returns:
        (n,) int64: the first item of each one's cluster.
    """
    between = np.where(apart, np.inf, distances).astype(np.float64)
    np.fill_diagonal(between, np.inf)
    count = len(between)
    sizes, owner = np.ones(count), np.arange(count)
    # Each row's nearest is kept, and looked for again only where one of the two has changed.
    nearest = between.argmin(axis=1) if count else owner
    while count > 1:
        least = between[np.arange(count), nearest]
        one = int(least.argmin())
        if not least[one] <= max_distance:
            break
        one, other = sorted((one, int(nearest[one])))
        # A mean with infinity is infinity: what was apart from either stays apart from both.
        merged = (sizes[one] * between[one] + sizes[other] * between[other]) / (sizes[one] + sizes[other])
        merged[one] = np.inf
        between[one] = between[:, one] = merged
        between[other] = between[:, other] = np.inf
        sizes[one] += sizes[other]
        owner[owner == other] = one
        stale = np.flatnonzero((nearest == one) | (nearest == other))
        nearest[stale] = between[stale].argmin(axis=1)
        nearest[one] = between[one].argmin()
        least = between[np.arange(count), nearest]
        nearest[(merged < least) | ((merged == least) & (nearest > one))] = one
    return owner
