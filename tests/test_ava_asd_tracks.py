"""Tracks on a grid, windows, frame numbers, MFCCs: against numbers worked out by hand and librosa's."""

import numpy as np
import pandas as pd
import pytest
from tiny import annotation_row

from ava_asd.mfcc import mfcc, normalised
from ava_asd.tracks import face_grid, frame_numbers, window_starts
from core.formats.ava import COLUMNS


def rows_at(**times: list[float]) -> pd.DataFrame:
    """Annotations of entities, given by name, at times; their boxes tell nothing."""
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


def test_frame_numbers_are_the_whole_part_and_never_nought():
    # 0.3 * 10 is 2.9999999999999996 when it comes from 903.4 - 903.1.
    assert frame_numbers(np.array([903.4, 903.39, 903.12]), 903.1, 10).tolist() == [3, 2, 1]


# librosa 0.11.0: feature.mfcc of power_to_db of its mel filters on |stft|^2 with n_fft=1102, hop_length=441 and
# pad_mode="reflect", the default of librosa 0.7; coefficients 0 to 3 of the vectors 0, 5, 20 and 50.
LIBROSA = {
    0: (-295.291, 239.525, 21.875, 23.830),
    5: (-614.047, 48.762, 40.461, 27.719),
    20: (-326.316, 18.596, 17.794, 10.286),
    50: (-375.101, -20.272, -3.026, -6.201),
}


def test_mfccs_are_those_of_librosa():
    time = np.arange(22050) / 44100
    noise = np.random.default_rng(7).standard_normal(len(time))
    sound = (0.3 * np.sin(2 * np.pi * 440 * time) * (time < 0.3) + 0.01 * noise * (time > 0.1)).astype(np.float32)
    found = mfcc(sound, 44100, 13, 0.025, 0.01)
    assert found.shape == (13, 51)
    assert found.dtype == np.float32
    for vector, values in LIBROSA.items():
        np.testing.assert_allclose(found[:4, vector], values, atol=2e-3)


def test_long_sounds_are_worked_on_in_parts(monkeypatch):
    sound = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    whole = mfcc(sound, 16000, 13, 0.025, 0.01)
    monkeypatch.setattr("ava_asd.mfcc.WINDOWS_AT_ONCE", 7)
    np.testing.assert_allclose(mfcc(sound, 16000, 13, 0.025, 0.01), whole, atol=1e-3)


@pytest.mark.parametrize(
    ("mean", "deviation", "expected"),
    [
        (True, True, [[-1, 1], [0, 0]]),
        (True, False, [[-2, 2], [0, 0]]),
        (False, True, [[0.5, 2.5], [3, 3]]),
        (False, False, [[1, 5], [3, 3]]),
    ],
)
def test_normalisation(mean, deviation, expected):
    values = np.array([[1, 5], [3, 3]], np.float32)  # the second coefficient never changes
    np.testing.assert_allclose(normalised(values, mean=mean, deviation=deviation), expected)
