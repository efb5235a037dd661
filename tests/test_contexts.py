"""The context network on the tracks of a shot: the contexts of the staged pipeline, in pieces that change nothing."""

import numpy as np
import pytest
import torch

from core.clip_utils import clip_window
from core.inference import contexts
from core.inference.contexts import score_shot
from core.inputs.shots import TrackFeatures
from core.models import ASC_Net
from core.models.fast_context import ContextScorer

SHAPE = (3, 4, 2)  # time steps, stride, speakers
SIZE = 6


@pytest.fixture(scope="module")
def network() -> ASC_Net:
    torch.manual_seed(0)
    return ASC_Net(SHAPE[0], SHAPE[2], feature_size=SIZE).eval()


def track(first: int, length: int, seed: int) -> TrackFeatures:
    return TrackFeatures(first, np.random.default_rng(seed).standard_normal((length, SIZE)).astype(np.float32))


def by_hand(network: ASC_Net, tracks: list[TrackFeatures], number: int, step: int) -> np.ndarray:
    """One context at a time: the target, then the first other face visible at the time step, or the target again."""
    others = [n for n, other in enumerate(tracks) if n != number and other.first <= step < other.end]
    faces = [number, others[0] if others else number]
    columns = []
    for face in faces:
        rows = clip_window(np.array(step - tracks[face].first), 0, len(tracks[face].features) - 1, SHAPE[0], SHAPE[1])
        columns.append(tracks[face].features[rows])
    context = torch.from_numpy(np.stack(columns)).permute(2, 1, 0)[None]  # (1, feature, clip, speaker)
    with torch.no_grad():
        return network(context)[0].numpy()


def test_scores_are_those_of_single_contexts(network):
    tracks = [track(10, 30, 0), track(25, 40, 1), track(50, 5, 2)]
    scored = score_shot(ContextScorer(network), tracks, SHAPE, torch.device("cpu"))
    assert [logits.shape for logits in scored] == [(30, 2), (40, 2), (5, 2)]
    for number, step in [(0, 10), (0, 24), (0, 25), (0, 39), (1, 25), (1, 45), (1, 52), (1, 64), (2, 50), (2, 54)]:
        expected = by_hand(network, tracks, number, step)
        np.testing.assert_allclose(scored[number][step - tracks[number].first], expected, atol=1e-4)


def test_pieces_change_nothing(network, monkeypatch):
    tracks = [track(0, 90, 0), track(25, 40, 1), track(70, 30, 2)]
    scorer = ContextScorer(network)
    whole = score_shot(scorer, tracks, SHAPE, torch.device("cpu"))
    monkeypatch.setattr(contexts, "PIECE", 17)
    for expected, found in zip(whole, score_shot(scorer, tracks, SHAPE, torch.device("cpu")), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_piece_without_faces_is_passed_over(network, monkeypatch):
    monkeypatch.setattr(contexts, "PIECE", 20)
    tracks = [track(0, 10, 0), track(400, 15, 1)]
    scored = score_shot(ContextScorer(network), tracks, SHAPE, torch.device("cpu"))
    assert [logits.shape for logits in scored] == [(10, 2), (15, 2)]
    np.testing.assert_allclose(scored[1][5], by_hand(network, tracks, 1, 405), atol=1e-4)
