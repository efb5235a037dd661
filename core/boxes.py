"""How much boxes overlap."""

import numpy as np


def intersection(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Areas that boxes share: (..., [x1, y1, x2, y2]) twice, shapes broadcast -> (...)."""
    width = np.minimum(first[..., 2], second[..., 2]) - np.maximum(first[..., 0], second[..., 0])
    height = np.minimum(first[..., 3], second[..., 3]) - np.maximum(first[..., 1], second[..., 1])
    return width.clip(min=0) * height.clip(min=0)


def area(boxes: np.ndarray) -> np.ndarray:
    """(..., [x1, y1, x2, y2]) -> (...)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Overlap of boxes, 0 to 1: (..., [x1, y1, x2, y2]) twice, none empty, shapes broadcast -> (...).

    Width and height may have different units, as fractions of a frame have: the ratio does not depend on them.
    """
    shared = intersection(first, second)
    return shared / (area(first) + area(second) - shared)
