"""Median filter and softmax against SciPy run entity by entity, and the published postprocessing."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import medfilt
from scipy.special import softmax

from core.evaluation.scores import speaking_probability

# Random logits and what the published postprocessing made of them, by window of its median filter.
PUBLISHED = Path(__file__).parent / "fixtures" / "published_postprocessing.json"


def test_published_numbers():
    reference = json.loads(PUBLISHED.read_text())
    logits = np.array(reference["logits"])
    for window, expected in reference["prob_by_filter"].items():
        np.testing.assert_allclose(
            speaking_probability(logits, ["e"] * len(logits), int(window)), expected, rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("window", [3, 5, 11])
def test_each_entity_is_filtered_alone(window):
    generator = np.random.default_rng(window)
    lengths = [1, 2, window // 2, window, 40, 3]
    tracks = [generator.normal(size=(length, 2)) + 3 for length in lengths]
    ids = np.repeat([f"v:{number}" for number in range(len(lengths))], lengths)
    # Zeros on both sides by hand: medfilt has its own way with tracks shorter than the window.
    half = window // 2
    padded = [np.pad(track, ((half, half), (0, 0))) for track in tracks]
    filtered = [np.stack([medfilt(track[:, c], window) for c in (0, 1)], axis=1)[half:-half] for track in padded]
    expected = softmax(np.concatenate(filtered), axis=1)[:, 1]
    result = speaking_probability(np.concatenate(tracks), ids, window)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


def test_filter_by_hand():
    # One outlier in the middle goes; the rows at the ends see a zero beyond: median(0, 2, 2) = 2, and 0 when alone.
    logits = np.array([[0, 2], [0, 2], [0, -9], [0, 2], [0, 2], [0, 5]], dtype=float)
    ids = ["a", "a", "a", "a", "a", "b"]
    two = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(speaking_probability(logits, ids, 3), [two] * 5 + [0.5], atol=1e-12)


def test_window_one_is_the_bare_softmax_and_extreme_logits_stay_finite():
    logits = np.array([[0.0, 0.0], [-1000, 1000], [1000, -1000], [700, 700.5]])
    expected = [0.5, 1, 0, 1 / (1 + np.exp(-0.5))]
    np.testing.assert_allclose(speaking_probability(logits, list("abcd")), expected, atol=1e-12)
    assert speaking_probability(np.zeros((0, 2)), [], 3).shape == (0,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"entity_ids": ["a", "b", "a"]}, "row 2 goes on with entity a"),
        ({"entity_ids": ["a", "b"]}, "one entity id for each of 3 rows"),
        ({"median_window": 4}, "median_window is 4"),
        ({"median_window": 0}, "median_window is 0"),
        ({"median_window": -3}, "median_window is -3"),
        ({"logits": np.zeros((3, 3))}, r"shape \(rows, 2\)"),
        ({"logits": np.array([[0, 0], [0, np.nan], [0, 0]])}, "logits of row 1"),
    ],
)
def test_wrong_input_is_refused(changes, message):
    arguments = {"logits": np.zeros((3, 2)), "entity_ids": ["a", "b", "b"]}
    speaking_probability(**arguments)
    with pytest.raises(ValueError, match=message):
        speaking_probability(**(arguments | changes))
