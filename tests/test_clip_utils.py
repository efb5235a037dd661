"""Index arithmetic: parity with the published code, and whole arrays against one row at a time."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from core.clip_utils import clip_window, run_lengths, speaker_slots, track_bounds

# What the published functions chose: clip windows [track length, half, centre, rows], context windows [track length,
# half, stride, centre, rows], context speakers [entities, speakers, seed, names].
PUBLISHED = json.loads((Path(__file__).parent / "fixtures" / "published_clips.json").read_text())


# ---------------------------------------------------------------- windows


def test_windows_by_hand():
    """Around the middle of a track and clamped at both ends; for an array of centres of any shape."""
    windows = clip_window(np.array([12, 10, 14]), np.array([10] * 3), np.array([14] * 3), 5)
    assert windows.tolist() == [[10, 11, 12, 13, 14], [10, 10, 10, 11, 12], [12, 13, 14, 14, 14]]
    assert clip_window(np.array(12), np.array(10), np.array(14), 3, stride=2).tolist() == [10, 12, 14]
    grid = clip_window(np.array([[1, 5], [2, 8]]), np.zeros((2, 2), int), np.full((2, 2), 9), 3)
    assert grid.tolist() == [[[0, 1, 2], [4, 5, 6]], [[1, 2, 3], [7, 8, 9]]]


def test_windows_are_the_published_ones():
    clips = [(length, half, 1, centre, rows) for length, half, centre, rows in PUBLISHED["clip_windows"]]
    for length, half, stride, centre, rows in clips + PUBLISHED["context_windows"]:
        # The track stands at row 100 of a table: the window moves with it.
        bounds = np.array([100]), np.array([100 + length - 1])
        window = clip_window(np.array([100 + centre]), *bounds, 2 * half + 1, stride)
        assert (window[0] - 100).tolist() == rows, (length, half, stride, centre)


# ---------------------------------------------------------------- tracks


@pytest.mark.parametrize(
    ("labels", "starts", "lengths", "first", "last"),
    [("bbaccc", [0, 2, 3], [2, 1, 3], [0, 0, 2, 3, 3, 3], [1, 1, 2, 5, 5, 5]), ("", [], [], [], [])],
)
def test_runs_and_bounds(labels, starts, lengths, first, last):
    labels = np.array(list(labels))
    assert [part.tolist() for part in run_lengths(labels)] == [starts, lengths]
    assert [part.tolist() for part in track_bounds(labels)] == [first, last]


# ---------------------------------------------------------------- context speakers


@pytest.mark.parametrize("drawn", [False, True])
def test_speakers_follow_the_published_multiset_rule(drawn):
    for entities, speakers, seed, chosen in PUBLISHED["context_speakers"]:
        others = len(entities) - 1
        rng = np.random.default_rng(seed) if drawn else None
        slots = speaker_slots(np.array([others]), speakers, rng)[0]
        names = [entities[slot + 1] for slot in slots]  # -1 is the target, the first entity of these lists
        assert len(names) == len(chosen) == speakers
        assert names[0] == chosen[0]
        assert min(slots[1:], default=0) >= (0 if others else -1)
        # How often the others may be repeated is not drawn in the first rounds: the same in both.
        ours, theirs = Counter(names[1 : 1 + others]), Counter(chosen[1 : 1 + others])
        assert sorted(ours.values()) == sorted(theirs.values())
        if 0 < others < speakers:
            assert set(names) == set(chosen)


def test_deterministic_speakers_one_row_at_a_time():
    others = np.array([0, 1, 2, 3, 6])
    expected = [
        [-1, -1, -1, -1],  # alone
        [-1, 0, 0, 0],
        [-1, 0, 1, 0],  # the rest repeats them in turn
        [-1, 0, 1, 2],
        [-1, 0, 1, 2],  # more than slots: the first ones
    ]
    assert speaker_slots(others, 4).tolist() == expected
    for row, count in zip(expected, others, strict=True):  # whatever stands beside it
        assert speaker_slots(np.array([count]), 4).tolist() == [row]


def test_drawn_speakers_are_uniform_and_reach_everybody():
    slots = speaker_slots(np.full(6000, 4), 3, np.random.default_rng(3))
    pairs = Counter(map(tuple, slots[:, 1:].tolist()))
    assert len(pairs) == 4 * 3  # each ordered pair of different others
    assert min(pairs.values()) > 400  # 500 expected, 21 its standard deviation
    repeated = speaker_slots(np.full(6000, 2), 4, np.random.default_rng(3))[:, 3]
    assert 2800 < np.count_nonzero(repeated == 0) < 3200
