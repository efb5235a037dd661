"""Boxes: overlaps, and the parts inside a frame, by hand."""

import numpy as np
import pytest

from core.boxes import area, clamped, intersection, intersection_over_union, pixel_edges

BOXES = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 40]], np.float64)


def test_areas_and_overlaps():
    assert area(BOXES) == pytest.approx([100, 100, 200])
    assert intersection(BOXES[0], BOXES) == pytest.approx([100, 50, 0])
    overlaps = intersection_over_union(BOXES[:, None], BOXES[None])
    assert overlaps == pytest.approx(np.array([[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]]))


def test_the_part_inside_a_frame():
    boxes = np.array([[-5.5, 2.5, 30.25, 70], [10, -3, 12, 5]], np.float32)
    inside = clamped(boxes, width=24, height=48)
    assert inside.dtype == np.float32
    assert inside.tolist() == [[0, 2.5, 24, 48], [10, 0, 12, 5]]


@pytest.mark.parametrize(
    ("box", "edges"),
    [
        ([1.9, 2.9, 5.9, 6.9], [1, 2, 5, 6]),
        ([-20, -15, 90, 70], [0, 0, 64, 48]),
        ([10.2, 20.2, 10.4, 20.4], [10, 20, 11, 21]),  # less than a pixel
        ([63.9, 47.9, 70, 50], [63, 47, 64, 48]),
        ([400, 300, 500, 400], [63, 47, 64, 48]),  # outside
        ([-9, -9, -3, -3], [0, 0, 1, 1]),
    ],
)
def test_whole_pixels_inside_a_frame(box, edges):
    assert pixel_edges(np.array(box, np.float64), 64, 48).tolist() == edges
    assert pixel_edges(np.array([[box]], np.float64), 64, 48).tolist() == [[edges]]
