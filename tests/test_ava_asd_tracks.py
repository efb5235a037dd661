"""Tracks on a grid, windows, frame numbers: against numbers worked out by hand."""

import numpy as np
import pandas as pd
from tiny import annotation_row

from ava_asd.tracks import face_grid, frame_numbers, window_starts
from core.formats.ava import COLUMNS


def rows_at(**times: list[float]) -> pd.DataFrame:
    """Annotations of entities, given by name, at times; with any boxes."""
    lines = [
        annotation_row("v", f"{time:.2f}", (0.1, 0.1, 0.5, 0.5), "NOT_SPEAKING", entity).split(",")
        for entity, own in times.items()
        for time in own
    ]
    return pd.DataFrame(lines, columns=COLUMNS)


def grid(rows: pd.DataFrame, fps: float) -> list[tuple[str, float, int]]:
    faces = face_grid(rows, fps)
    return list(zip(faces["entity_id"], faces["time_s"], faces["track"], strict=True))


def test_grid_takes_the_nearest_rows():
    # Points 1.0, 1.1, 1.2; of 1.08 and 1.12 the earlier is taken for 1.1.
    rows = rows_at(a=[1.0, 1.04, 1.08, 1.12, 1.16, 1.20, 1.24])
    assert grid(rows, 10) == [("a", 1.0, 0), ("a", 1.08, 0), ("a", 1.2, 0)]


def test_a_gap_of_more_than_a_tenth_of_a_second_ends_a_track():
    rows = rows_at(a=[2.0, 2.1, 2.21])
    assert [track for _, _, track in grid(rows, 10)] == [0, 0, 1]


def test_each_entity_has_its_own_tracks_whatever_the_order():
    rows = rows_at(b=[1.1, 1.0], a=[1.05])
    assert grid(rows, 10) == [("a", 1.05, 0), ("b", 1.0, 1), ("b", 1.1, 1)]


def test_rows_are_repeated_where_there_are_too_few():
    assert [time for _, time, _ in grid(rows_at(a=[0.0, 0.1]), 40)] == [0.0, 0.0, 0.0, 0.1, 0.1]


def test_windows_lie_within_their_tracks():
    track = np.repeat([0, 1, 2], [7, 2, 3])
    assert window_starts(track, 3, 2).tolist() == [0, 2, 4, 9]
    assert window_starts(track, 8, 1).tolist() == []


def test_frame_numbers_are_the_whole_part_and_at_least_1():
    # 0.3 * 10 is 2.9999999999999996 when it comes from 903.4 - 903.1.
    assert frame_numbers(np.array([903.4, 903.39, 903.12]), 903.1, 10).tolist() == [3, 2, 1]
