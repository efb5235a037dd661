"""How much boxes overlap, and what of them lies in a frame."""

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


def clamped(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """The parts of boxes that lie in a frame: (..., [x1, y1, x2, y2]) pixels -> the same shape and type."""
    return np.minimum(np.maximum(boxes, 0), np.array([width, height, width, height], boxes.dtype))


def pixel_edges(boxes: np.ndarray, width: int, height: int) -> np.ndarray:
    """Whole pixels of boxes in a frame, truncated, each box at least one pixel wide and high.

    Args:
        boxes: (..., [x1, y1, x2, y2]) pixels, which may reach over the frame's edges.
        width, height: of the frame, pixels.

    Returns:
        (..., [x1, y1, x2, y2]) int64, 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height.
    """
    edges = clamped(boxes, width, height).astype(np.int64)
    edges[..., :2] = np.minimum(edges[..., :2], (width - 1, height - 1))
    edges[..., 2:] = np.maximum(edges[..., 2:], edges[..., :2] + 1)
    return edges
