"""The context network by projections gives the network's numbers."""

import pytest
import torch
from torch import Tensor
from track_models import used

from core.models import ASC_Net
from core.models.fast_context import CPU_POSITIONS, ContextScorer


def network(clips: int, speakers: int, feature_size: int) -> ASC_Net:
    """Sharper attention and livelier gates than a fresh network has."""
    made = used(ASC_Net(clips, speakers, feature_size=feature_size))
    for parameter in made.parameters():
        parameter.data.mul_(1.5)
    return made


def expected(network: ASC_Net, features: Tensor, index: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(features[index].permute(0, 3, 1, 2))


@pytest.mark.parametrize(("clips", "speakers", "contexts"), [(1, 1, 7), (3, 2, 5), (11, 3, CPU_POSITIONS // 33 + 2)])
def test_scorer_gives_the_numbers_of_the_network(clips, speakers, contexts):
    model, features = network(clips, speakers, 48), torch.randn(20, 48)
    index = torch.randint(0, 20, (contexts, clips, speakers))
    index[0] = 4  # one row everywhere, as when a face is alone at the end of its track
    logits = expected(model, features, index)
    scorer = ContextScorer(model.train())
    assert model.training
    torch.testing.assert_close(scorer.logits(scorer.project(features), index), logits, rtol=0, atol=1e-4)
    assert logits.std() > 0.05


def test_scorer_takes_half_precision_features_and_no_contexts():
    scorer, features = ContextScorer(network(3, 2, 16)), torch.randn(4, 16).half()
    projections = scorer.project(features)
    torch.testing.assert_close(projections, scorer.project(features.float()))
    assert scorer.logits(projections, torch.empty(0, 3, 2, dtype=torch.int64)).shape == (0, 2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    model, features, index = network(3, 2, 16), torch.randn(9, 16), torch.randint(0, 9, (50, 3, 2))
    logits = expected(model, features, index)
    scorer = ContextScorer(model.cuda())
    torch.testing.assert_close(scorer.logits(scorer.project(features), index).cpu(), logits, rtol=0, atol=1e-4)
