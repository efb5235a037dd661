"""Overlap of boxes, by hand."""

import numpy as np
import pytest

from core.boxes import area, intersection, intersection_over_union

BOXES = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 40]], np.float64)


def test_areas():
    assert area(BOXES) == pytest.approx([100, 100, 200])


def test_overlaps_of_all_with_one():
    assert intersection(BOXES[0], BOXES) == pytest.approx([100, 50, 0])
    assert intersection_over_union(BOXES[:1], BOXES) == pytest.approx([1, 50 / 150, 0])


def test_overlaps_of_all_with_all():
    overlaps = intersection_over_union(BOXES[:, None], BOXES[None])
    assert overlaps.shape == (3, 3)
    assert overlaps[1, 0] == overlaps[0, 1] == pytest.approx(1 / 3)
