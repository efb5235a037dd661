"""Whole shots for the residual network: which faces are of one, on which time steps; pieces of them; their loss."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.inputs import shot_batches
from core.inputs.shot_batches import ShotBatch, ShotDataset, varied
from core.inputs.shots import Shot, cues, shots_in
from core.models.residual_context import CUES
from core.training.losses import ShotLoss

Track = list[float]  # times of its rows, seconds


def video(*tracks: Track) -> tuple[np.ndarray, ...]:
    """What `shots_in` is given of tracks; a row's cues are its number, its MFCCs its time, its label 0 or 1 in turn."""
    entities = np.repeat(np.arange(len(tracks)), [len(track) for track in tracks])
    rows = np.arange(len(entities))
    times_s, cues = np.concatenate(tracks), np.tile(rows[:, None], len(CUES)).astype(np.float32)
    return entities, times_s, cues, np.tile(times_s[:, None], 13), rows % 2


def every(step_s: float, first_s: float, rows: int) -> Track:
    return (first_s + step_s * np.arange(rows)).tolist()


# ---------------------------------------------------------------- shots


@pytest.mark.parametrize(
    ("tracks", "expected"),
    [
        ([[0.0, 1.0]], [{0}]),
        ([[0.0, 1.0], [1.04, 2.0]], [{0}, {1}]),
        ([[0.0, 1.0], [1.0, 2.0]], [{0, 1}]),
        ([[0.0, 1.0], [2.0, 3.0], [0.5, 2.5]], [{0, 1, 2}]),  # the first two by the third
        ([[5.0, 6.0], [0.0, 1.0], [5.5, 5.6]], [{1}, {0, 2}]),  # in order of time
        ([[0.0, 9.0], [1.0, 2.0], [3.0, 4.0]], [{0, 1, 2}]),  # one inside a longer one
        ([[0.0], [0.0], [0.5]], [{0, 1}, {2}]),
    ],
)
def test_shots_are_of_tracks_that_overlap_by_others_too(tracks, expected):
    entities, *others = video(*tracks)
    found = [set(entities[shot.rows].tolist()) for shot in shots_in(entities, *others)]
    assert found == expected


def test_a_shot_by_hand():
    """Two faces on the grid of 25 a second, the second from the third time step on."""
    [shot] = shots_in(*video(every(0.04, 10.0, 4), every(0.04, 10.08, 3)))
    assert shot.present.tolist() == [[True] * 4 + [False], [False] * 2 + [True] * 3]
    assert shot.cues.dtype == np.float32
    np.testing.assert_allclose(shot.cues[0, :4, 0], [0, 1, 2, 3], atol=1e-4)
    np.testing.assert_allclose(shot.cues[1, 2:, 3], [4, 5, 6], atol=1e-4)
    assert [shot.labels[0, :4].tolist(), shot.labels[1, 2:].tolist()] == [[0, 1, 0, 1], [0, 1, 0]]
    assert shot.rows.tolist() == [0, 1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(shot.heard, np.tile(10 + 0.04 * np.arange(5)[:, None], 13), rtol=1e-6)


def test_a_face_is_absent_in_long_gaps_only():
    """It is there for a quarter of a second on either side of one."""
    short, long = every(0.04, 0.0, 5) + every(0.04, 0.56, 5), every(0.04, 0.0, 5) + every(0.04, 2.16, 5)
    [shot] = shots_in(*video(short))
    assert shot.present.all()
    [shot] = shots_in(*video(long))
    assert np.flatnonzero(~shot.present[0]).tolist() == list(range(4 + 7, 54 - 6))


@pytest.mark.parametrize(("fps", "expected"), [(12.5, [0, 0, 1, 1, 0, 0]), (50, [0, 0, 0]), (30, [0, 1, 0, 0, 1, 0])])
def test_labels_are_those_of_the_nearest_rows(fps, expected):
    """The earlier of two that are as near; at 30 a second the time steps are rows 0, 1.2, 2.4, 3.6, 4.8 and 6."""
    rows = 1 + round((len(expected) - 1) * fps / 25)
    [shot] = shots_in(*video(every(1 / fps, 3.0, rows)))
    np.testing.assert_allclose(shot.cues[0, :, 0], np.arange(shot.cues.shape[1]) * fps / 25, atol=1e-3)
    # 12.5 a second: every second step lies midway between rows, where rounding decides
    certain = slice(None, None, 2) if fps == 12.5 else slice(None)
    assert shot.labels[0, certain][: len(expected)].tolist() == expected[certain]


def test_a_track_of_one_row_is_present_on_both_sides_of_it():
    [shot] = shots_in(*video(every(0.04, 0.0, 10), [0.10]))
    assert np.flatnonzero(shot.present[1]).tolist() == [2, 3]
    assert shot.cues[1, [2, 3]].tolist() == [[10.0] * len(CUES)] * 2
    values = np.zeros(shot.present.shape)
    values[1, 2:4] = 4, 6
    assert shot.at_rows(values)[-1] == pytest.approx(5)


@st.composite
def videos(draw) -> list[Track]:
    tracks = []
    for _ in range(draw(st.integers(1, 6))):
        fps, first = draw(st.sampled_from([5, 12.5, 24, 25, 29.97, 30, 60])), draw(st.integers(0, 3000)) / 1000
        times = first + np.arange(draw(st.integers(1, 60))) / fps
        kept = np.array(draw(st.lists(st.booleans(), min_size=len(times), max_size=len(times))))
        kept[0] = True
        tracks.append(np.round(times[kept], 3).tolist())
    return tracks


@settings(max_examples=60, deadline=None, derandomize=True)
@given(videos())
def test_every_row_is_of_one_shot_and_finds_its_time_there(tracks):
    entities, times_s, *others = video(*tracks)
    found = list(shots_in(entities, times_s, *others))
    assert sorted(np.concatenate([shot.rows for shot in found]).tolist()) == list(range(len(entities)))
    ends = []
    for shot in found:
        own_s = times_s[shot.rows]
        steps = np.arange(shot.present.shape[1])
        line = shot.at_rows(np.tile(own_s.min() + steps / 25, (len(shot.present), 1)))
        np.testing.assert_allclose(line, own_s, atol=1e-9)
        assert (len(steps) - 2) / 25 < np.ptp(own_s) + 1e-6
        for face, step in shot.places:  # the time steps that a row's score is made of
            at = np.array([np.floor(step + 1e-6), np.ceil(step - 1e-6)], int)
            assert shot.present[int(face), at].all()
        assert shot.present.any(1).all()
        ends.append((own_s.min(), own_s.max()))
    assert all(first[1] < second[0] for first, second in itertools.pairwise(ends))


def test_cues_are_differences_of_logits():
    logits, video_logits = np.array([[1.0, 3.0]]), np.array([[0.5, -1.0]])
    found = cues(logits, video_logits, np.array([[-4.0, 1.5, 0.25]]))
    assert found.dtype == np.float32
    assert dict(zip(CUES, found[0].tolist(), strict=True)) == {
        "logit": 2.0,
        "video_logit": -1.5,
        "mean_fall": 6.0,
        "least_fall": 0.5,
        "correlation": 0.25,
    }


# ---------------------------------------------------------------- pieces for training


def shot(faces: int, time: int, seed: int = 0, gap: slice = slice(0)) -> Shot:
    rng = np.random.default_rng(seed)
    present = np.ones((faces, time), bool)
    present[:, gap] = False
    values = rng.standard_normal((faces, time, len(CUES))).astype(np.float32)
    heard, labels = np.zeros((time, 13), np.float32), rng.integers(0, 2, (faces, time))
    return Shot(values, heard, present, labels, np.zeros(0, int), np.zeros((0, 2)))


def same(one: ShotBatch, other: ShotBatch) -> bool:
    pairs = ((one.cues, other.cues), (one.present, other.present), (one.labels, other.labels))
    return all(torch.equal(*pair) for pair in pairs)


def test_a_piece_depends_on_seed_epoch_and_number():
    dataset = ShotDataset([shot(2, 400), shot(2, 400)], augment=True, seed=1)
    piece = dataset.__getitems__([(3, 0)])
    assert same(piece, dataset.__getitems__([(3, 0)]))
    assert same(piece, ShotDataset(dataset.shots, augment=True, seed=1).__getitems__([(3, 0)]))
    others = [dataset.__getitems__([(4, 0)]), dataset.__getitems__([(3, 1)])]
    others.append(ShotDataset(dataset.shots, augment=True, seed=2).__getitems__([(3, 0)]))
    assert not any(same(piece, other) for other in others)


def test_pieces_are_as_long_as_told_and_hold_a_face_at_least():
    dataset = ShotDataset([shot(1, 300), shot(5, 40), shot(3, 251)], augment=True)
    batches = [dataset.__getitems__([(epoch, number) for number in range(3)]) for epoch in range(40)]
    for batch in batches:
        assert batch.present.shape[2] == shot_batches.PIECE
        assert batch.present.any(2).sum(1).min() >= 1
        assert batch.present[1, :, 40:].sum() == 0
        assert batch.cues.shape == (*batch.present.shape, len(CUES))
        assert batch.cues.isfinite().all()
    kept = np.mean([batch.present[1].any(1).sum().item() for batch in batches])
    assert 3.4 < kept < 4.6  # of 5


def test_a_piece_is_never_of_a_gap_alone(monkeypatch):
    monkeypatch.setattr(shot_batches, "PIECE", 10)
    dataset = ShotDataset([shot(2, 500, gap=slice(3, 497))], augment=True)
    for epoch in range(50):
        assert dataset.__getitems__([(epoch, 0)]).present.any()


def test_labels_stay_with_their_faces_and_times():
    """What is varied are cues; the third face speaks, the others do not, in the second half."""
    one = shot(3, 100)
    one.labels[:], one.cues[:] = 0, 0
    one.labels[2, 50:] = 1
    one.cues[2, 50:] = 1e4
    batch = ShotDataset([one], augment=True).__getitems__([(epoch, 0) for epoch in range(20)])
    assert torch.equal(batch.labels == 1, batch.cues[..., 0] > 1e3)
    assert batch.labels.sum() > 0


def test_whole_shots_are_given_as_they_are():
    one, other = shot(2, 30), shot(4, 20)
    batch = ShotDataset([one, other], augment=False).__getitems__([(0, 1), (0, 0)])
    assert batch.present.shape == (2, 4, 30)
    np.testing.assert_array_equal(batch.cues[0, :, :20], other.cues)
    np.testing.assert_array_equal(batch.labels[1, :2], one.labels)
    assert batch.present.sum() == 4 * 20 + 2 * 30


@pytest.mark.parametrize("size", [(1, 1), (3, 12), (2, 250)])
def test_cues_vary_by_film_face_and_time(size):
    given = np.zeros((*size, len(CUES)), np.float32)
    found = np.stack([varied(given, np.random.default_rng(seed)) for seed in range(300)])
    assert (found.dtype, found.shape[1:]) == (np.float32, given.shape)
    expected = np.sqrt(shot_batches.FILM_OFFSET**2 + shot_batches.FACE_OFFSET**2 + shot_batches.NOISE**2)
    # Between its knots the noise is less.
    assert 0.85 * expected < found[..., 0].std(0).mean() < 1.1 * expected
    assert found[:, 0, 0, 2].std() == pytest.approx(2 / 3 * shot_batches.NOISE, rel=0.15)


# ---------------------------------------------------------------- loss


class Given(torch.nn.Module):
    """A network that gives the first cue back."""

    def forward(self, cues: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        return cues[..., 0]


def test_the_loss_is_of_faces_that_are_there():
    batch = ShotDataset([shot(2, 30), shot(3, 20, seed=1)], augment=False).__getitems__([(0, 0), (0, 1)])
    result = ShotLoss(torch.nn.CrossEntropyLoss())(Given(), batch, None)
    odds, labels = batch.cues[..., 0][batch.present].double(), batch.labels[batch.present].double()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(odds, labels)
    assert result.loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert len(result) == 2 * 30 + 3 * 20
    torch.testing.assert_close(result.logits["context"].diff(dim=1)[:, 0].double(), odds)
