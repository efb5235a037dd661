"""The residual context network: what its scores depend on, and what they do not; long shots in pieces."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from core.inference import residual_contexts
from core.inference.engine import Function
from core.inference.residual_contexts import ResidualScorer, logits_of
from core.inference.voices import VOICE_REACH, by_voice
from core.inputs.shots import TrackFeatures
from core.models import ASC_Net, ResidualContext
from core.models.residual_context import ABSENT, AROUND, CUES, DILATIONS, REACH, around, is_residual, others

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def network() -> ResidualContext:
    """With weights as after a training that changed much."""
    torch.manual_seed(0)
    network = ResidualContext().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.fixture(scope="module")
def scorer(network: ResidualContext) -> ResidualScorer:
    """Of the network; opening one takes seconds."""
    return ResidualScorer.of(network)


def shot(faces: int, time: int, seed: int = 0, share: float = 0.7) -> tuple[Tensor, Tensor]:
    """Cues (1, face, time, cue) and whether each face is present."""
    source = torch.Generator().manual_seed(seed)
    cues = 3 * torch.randn(1, faces, time, len(CUES), generator=source)
    return cues, torch.rand(1, faces, time, generator=source) < share


@torch.inference_mode()
def scores(network: ResidualContext, cues: Tensor, present: Tensor) -> Tensor:
    """What the network says of the faces that are present; 0 of the others."""
    return torch.where(present, network(cues, present), 0)


def test_it_begins_as_the_encoder():
    torch.manual_seed(1)
    cues, present = shot(3, 90, share=1.0)
    found = ResidualContext().eval()(cues, present)
    torch.testing.assert_close(found, cues[..., CUES.index("logit")], rtol=0, atol=1e-5)


def test_it_learns_from_the_first_step():
    """Though its correction begins at nothing."""
    torch.manual_seed(1)
    network, (cues, present) = ResidualContext().train(), shot(3, 40)
    (network(cues, present) * torch.randn(1, 3, 40)).sum().backward()
    for member in network.members:
        assert member.correction.weight.grad.abs().max() > 0
        assert member.scale.grad.abs() > 0


def test_members_are_trained_each_for_itself_and_averaged():
    torch.manual_seed(1)
    network, (cues, present) = ResidualContext(members=2, dropout=0.0), shot(3, 40)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    each = network.train()(cues, present)
    assert each.shape == (2, 1, 3, 40)
    assert not torch.allclose(each[0], each[1])
    torch.testing.assert_close(network.eval()(cues, present), each.mean(0))
    each[0].sum().backward()
    assert not any(parameter.grad.any() for parameter in network.members[1].parameters())
    assert any(parameter.grad.any() for parameter in network.members[0].parameters())


def test_the_order_of_faces_is_of_no_matter(network):
    cues, present = shot(5, 80)
    order = torch.tensor([3, 0, 4, 2, 1])
    found = scores(network, cues[:, order], present[:, order])
    torch.testing.assert_close(found, scores(network, cues, present)[:, order], rtol=0, atol=1e-4)


@pytest.mark.parametrize("garbage", [1e9, -1e9, 3e38, float("inf"), float("nan")])
def test_what_is_given_of_absent_faces_is_of_no_matter(network, garbage):
    cues, present = shot(4, 80)
    expected = scores(network, cues, present)
    assert torch.equal(scores(network, torch.where(present[..., None], cues, garbage), present), expected)


@pytest.mark.parametrize("faces", [1, 3])
def test_padding_changes_nothing(network, faces):
    cues, present = shot(faces, 50, share=1.0)
    size = (1, faces + 2, 50 + 2 * REACH)
    padded_cues, padded = torch.zeros(*size, len(CUES)), torch.zeros(size)
    padded_cues[:, 1 : 1 + faces, REACH : REACH + 50], padded[:, 1 : 1 + faces, REACH : REACH + 50] = cues, 1
    found = scores(network, padded_cues, padded.bool())[:, 1 : 1 + faces, REACH : REACH + 50]
    torch.testing.assert_close(found, scores(network, cues, present), rtol=0, atol=1e-4)


def test_shots_of_a_batch_are_apart(network):
    cues, present = (torch.cat(parts) for parts in zip(shot(3, 40), shot(3, 40, seed=1), strict=True))
    together = scores(network, cues, present)
    for number in range(2):
        one = slice(number, number + 1)
        torch.testing.assert_close(together[one], scores(network, cues[one], present[one]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("face", [0, 1])
def test_a_score_depends_on_the_reach_and_not_on_more(network, face):
    """In both directions, of the face's own cues; of another's, which only pass over between two means, on less."""
    few = 2  # a mean over many steps hides what one of them does
    reach = REACH - len(DILATIONS) * (AROUND - few) - face * few
    middle, (cues, present) = REACH, shot(2, 2 * REACH + 1, share=1.0)
    exact = ResidualContext(reach=few).eval()
    exact.load_state_dict(network.state_dict())
    exact, cues = exact.double(), cues.double()
    changed = cues.clone()
    changed[:, face, middle] += 3
    differing = (scores(exact, changed, present) - scores(exact, cues, present))[0, 0].abs()
    reached = differing.gt(1e-11).nonzero().flatten()
    assert (reached[0], reached[-1]) == (middle - reach, middle + reach)


@pytest.mark.parametrize("size", [1, AROUND, 3 * AROUND])
def test_a_faces_own_mean_by_a_loop(size):
    source = torch.Generator().manual_seed(0)
    values = torch.randn(2, 3, size, 2, generator=source)
    there = torch.rand(2, 3, size, 1, generator=source) < 0.3
    there[0, 0] = False
    found = around(values, there, AROUND)
    for time in {0, size // 2, size - 1}:
        near = slice(max(0, time - AROUND), time + AROUND + 1)
        count = there[:, :, near].sum(2).clamp(min=1)
        expected = (values * there)[:, :, near].sum(2) / count
        torch.testing.assert_close(found[:, :, time], expected, rtol=0, atol=1e-5)


def test_the_others_by_a_loop():
    source = torch.Generator().manual_seed(0)
    values = torch.randint(-9, 9, (2, 5, 30, 3), generator=source).float()  # many equal ones, many below ABSENT
    there = torch.rand(2, 5, 30, 1, generator=source) < 0.4
    mean, highest = others(values, there)
    seen = set()
    for batch in range(2):
        for time in range(30):
            for face in range(5):
                beside = [n for n in range(5) if n != face and there[batch, n, time]]
                seen.add(len(beside))
                expected = values[batch, beside, time]
                torch.testing.assert_close(
                    mean[batch, face, time], expected.mean(0) if beside else torch.zeros(3), rtol=0, atol=1e-5
                )
                least = torch.full((1, 3), ABSENT)
                if there[batch, face, time]:
                    assert torch.equal(highest[batch, face, time], torch.cat((expected, least)).amax(0))
    assert seen == {0, 1, 2, 3, 4}
    low = torch.full((1, 2, 1, 1), 2 * ABSENT)
    assert others(low, torch.ones_like(low, dtype=torch.bool))[1].unique().tolist() == [ABSENT]
    alone = others(values[:, :1], there[:, :1])
    assert (alone[0].unique().tolist(), alone[1].unique().tolist()) == ([0], [ABSENT])


def test_networks_are_told_apart_by_their_weights():
    assert is_residual(ResidualContext().state_dict())
    assert not is_residual(ASC_Net(3, 2, feature_size=8).state_dict())


# ---------------------------------------------------------------- long shots


def track(first: int, length: int, seed: int) -> TrackFeatures:
    """A face that is told of at random, but that hears what the others do at the same times."""
    cues = 3 * np.random.default_rng(seed).standard_normal((length, len(CUES)))
    heard = 20 * np.random.default_rng(99).standard_normal((first + length, 13))[first:]
    return TrackFeatures(first, np.concatenate((cues, heard), axis=1).astype(np.float32))


def parts(tracks: list[TrackFeatures]) -> dict[str, list]:
    """What `ResidualScorer.scores` is given of tracks."""
    cues, heard = zip(*(np.split(one.features, [len(CUES)], axis=1) for one in tracks), strict=True)
    firsts, present = [one.first for one in tracks], [np.ones(len(one), bool) for one in cues]
    return {"firsts": firsts, "cues": list(cues), "heard": list(heard), "present": present}


def odds_of(scorer: ResidualScorer, tracks: list[TrackFeatures]) -> list[np.ndarray]:
    """The odds of tracks before voices are considered."""
    return scorer.odds(**{name: part for name, part in parts(tracks).items() if name != "heard"})


def at_once(network: ResidualContext, tracks: list[TrackFeatures]) -> list[np.ndarray]:
    """The odds of all tracks by one call of the network on all of the shot."""
    first, end = min(one.first for one in tracks), max(one.end for one in tracks)
    cues, present = torch.zeros(1, len(tracks), end - first, len(CUES)), torch.zeros(1, len(tracks), end - first)
    for face, one in enumerate(tracks):
        cues[0, face, one.first - first : one.end - first] = torch.from_numpy(one.features[:, : len(CUES)])
        present[0, face, one.first - first : one.end - first] = 1
    odds = scores(network, cues, present.bool())[0].numpy()
    return [own[one.first - first : one.end - first] for own, one in zip(odds, tracks, strict=True)]


TRACKS = [track(7, 800, 0), track(60, 40, 1), track(805, 900, 2), track(807, 1, 3), track(1390, 900, 4)]


@pytest.mark.parametrize("piece", [1500, 700, 200])
def test_pieces_change_nothing(network, scorer, monkeypatch, piece):
    monkeypatch.setattr(residual_contexts, "PIECE", piece)
    for odds, expected in zip(odds_of(scorer, TRACKS), at_once(network, TRACKS), strict=True):
        assert odds.dtype == np.float32
        np.testing.assert_allclose(odds, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("piece", [1500, 700])
def test_what_a_voice_adds_does_not_depend_on_pieces(scorer, monkeypatch, piece):
    """In a shot of four minutes, of which a minute to either side is looked at."""
    tracks = [track(0, 6000, 0), track(2000, 3000, 1)]
    monkeypatch.setattr(residual_contexts, "PIECE", 6000)
    whole = scorer.scores(**parts(tracks))
    monkeypatch.setattr(residual_contexts, "PIECE", piece)
    for own, expected in zip(scorer.scores(**parts(tracks)), whole, strict=True):
        np.testing.assert_allclose(own, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("piece", [1500, 200])
def test_voices_are_added_to_the_networks_odds(network, scorer, monkeypatch, piece):
    monkeypatch.setattr(residual_contexts, "PIECE", piece)
    first, tracks = 7, [track(7, 800, 0), track(60, 40, 1), track(805, 500, 2), track(1000, 1, 3)]
    odds, present = np.zeros((4, 1298)), np.zeros((4, 1298), bool)
    for face, (one, own) in enumerate(zip(tracks, at_once(network, tracks), strict=True)):
        span = slice(one.first - first, one.end - first)
        odds[face, span], present[face, span] = own, True
    heard = track(0, 1305, 0).features[first:, len(CUES) :]
    added = by_voice(odds, present, heard, slice(None))
    assert np.abs(added[0]).max() > 0.1
    scored = scorer.with_voices(tracks, scorer.tracks(tracks), range(4))
    for face, (logits, one) in enumerate(zip(scored, tracks, strict=True)):
        expected = (odds + added)[face, one.first - first : one.end - first]
        np.testing.assert_allclose(logits, np.stack((-expected, expected), axis=1) / 2, rtol=0, atol=1e-3)


def test_the_tracks_of_a_person_share_a_voice(scorer):
    """As one face that is away in between."""
    whole, other = track(3, 700, 0), track(40, 600, 1)
    given = parts([whole, other])
    given["present"][0][200:300] = False
    first, second = map(logits_of, scorer.odds(given["firsts"], given["cues"], given["present"]))
    tracks = [TrackFeatures(303, whole.features[300:]), other, TrackFeatures(3, whole.features[:200])]
    together, apart = (
        scorer.with_voices(tracks, [first[300:], second, first[:200]], persons) for persons in ([5, 2, 5], [0, 1, 2])
    )
    first, second = map(logits_of, scorer.scores(**given))
    for scored, expected in zip(together, [first[300:], second, first[:200]], strict=True):
        np.testing.assert_allclose(scored, expected, rtol=0, atol=1e-4)
    assert np.abs(apart[0] - together[0]).max() > 0.02


def test_a_piece_in_which_nobody_is_seen(network, scorer, monkeypatch):
    monkeypatch.setattr(residual_contexts, "PIECE", 50)
    gap, whole = slice(20, 20 + 3 * REACH), track(0, 40 + 3 * REACH, 5)
    given = parts([whole])
    given["present"][0][gap] = False
    [scored] = scorer.scores(**given)
    assert np.isfinite(scored).all()
    del given["heard"]
    [odds] = scorer.odds(**given)
    for part in (slice(gap.start), slice(gap.stop, None)):
        [expected] = at_once(network, [TrackFeatures(0, whole.features[part])])
        np.testing.assert_allclose(odds[part], expected, rtol=0, atol=1e-4)


def test_memory_does_not_grow_with_a_shot(network, monkeypatch):
    """A hundred faces after one another in front of one that stays: the network is shown a few of them."""
    monkeypatch.setattr(residual_contexts, "PIECE", 200)
    tracks = [track(0, 10_000, 0), *(track(100 * number, 30, number) for number in range(100))]
    shown = []

    class Watched:
        numbers: ClassVar = {"reach": REACH}

        def function(self, name: str) -> Function:
            def first_cue(cues: np.ndarray, present: np.ndarray) -> tuple[np.ndarray]:
                shown.append(present.shape)
                return (cues[..., 0],)

            return first_cue

    def no_voices(odds: np.ndarray, present: np.ndarray, heard: np.ndarray, now: slice) -> np.ndarray:
        listened.append(odds.shape)
        assert present.shape == (len(odds), len(heard))
        return np.zeros(odds[:, now].shape)

    listened = []
    monkeypatch.setattr(residual_contexts, "by_voice", no_voices)
    scorer = ResidualScorer(Watched())
    for logits, one in zip(scorer.with_voices(tracks, scorer.tracks(tracks), range(101)), tracks, strict=True):
        np.testing.assert_array_equal(logits[:, 1], one.features[:, 0] / 2)
    assert len(listened) == 50
    assert max(faces for faces, _ in listened) <= 1 + 2 + (200 + 2 * VOICE_REACH) // 100
    assert max(time for _, time in listened) == 200 + 2 * VOICE_REACH
    assert len(shown) == 50
    assert max(faces for _, faces, _ in shown) <= 1 + 2 + (200 + 2 * REACH) // 100
    assert max(time for *_, time in shown) == 200 + 2 * REACH
