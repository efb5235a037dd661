"""The fast forms of the networks give the networks' numbers."""

import pytest
import torch
from torch import nn

from core.models import BACKBONES, ASC_Net, resnet18_two_streams
from core.models.fast_context import CPU_PLACES, ContextScorer
from core.models.fast_two_stream import fast_two_stream


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def with_used_batch_norms(model: nn.Module) -> nn.Module:
    """Batch norms as after training: fresh ones change next to nothing, and would hide a wrong folding."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


@pytest.mark.parametrize("name", ["resnet18_two_streams", "resnet50_two_streams"])
def test_fast_encoder_gives_the_same_numbers(name):
    model = with_used_batch_norms(BACKBONES[name](rgb_stack_size=3))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    audio, video = torch.randn(2, 1, 13, 12), torch.randn(2, 9, 64, 64)
    with torch.inference_mode():
        expected = model(audio, video)
    outputs = fast_two_stream(model)(audio, video)
    for output, reference in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, reference, rtol=0, atol=1e-3 * max(1, reference.std().item()))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_fast_encoder_takes_either_memory_layout():
    encode = fast_two_stream(with_used_batch_norms(resnet18_two_streams(rgb_stack_size=1)))
    audio, video = torch.randn(2, 1, 13, 4), torch.randn(2, 3, 48, 48)
    for one, other in zip(
        encode(audio, video), encode(audio, video.to(memory_format=torch.channels_last)), strict=True
    ):
        assert torch.equal(one, other)


def test_fast_encoder_in_evaluation_mode_whatever_the_mode_of_the_model():
    model = with_used_batch_norms(resnet18_two_streams(rgb_stack_size=1))
    audio, video = torch.randn(2, 1, 13, 4), torch.randn(2, 3, 48, 48)
    expected = fast_two_stream(model)(audio, video)[0]
    assert torch.equal(fast_two_stream(model.train())(audio, video)[0], expected)
    assert model.training


def test_bfloat16_is_near_and_returns_float32():
    model = with_used_batch_norms(resnet18_two_streams(rgb_stack_size=1))
    audio, video = torch.randn(2, 1, 13, 8), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(audio, video)[3]
    features = fast_two_stream(model, dtype=torch.bfloat16)(audio, video)[3]
    assert features.dtype == torch.float32
    deviation = (features - expected).std() / expected.std()
    assert 0 < deviation < 0.05


@pytest.mark.parametrize(("clips", "speakers", "contexts"), [(1, 1, 7), (3, 2, 5), (11, 3, CPU_PLACES // 33 + 2)])
def test_scorer_gives_the_numbers_of_the_network(clips, speakers, contexts):
    network = with_used_batch_norms(ASC_Net(clips, speakers, feature_size=48))
    for parameter in network.parameters():  # sharper attention and livelier gates than a fresh network has
        parameter.data.mul_(1.5)
    features = torch.randn(20, 48)
    index = torch.randint(0, 20, (contexts, clips, speakers))
    index[0] = 4  # one row everywhere, as when a face is alone at the end of its track
    with torch.inference_mode():
        expected = network(features[index].permute(0, 3, 1, 2))
    scorer = ContextScorer(network)
    torch.testing.assert_close(scorer.logits(scorer.project(features), index), expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.05


def test_scorer_takes_half_precision_features_and_no_contexts():
    network = with_used_batch_norms(ASC_Net(3, 2, feature_size=16))
    scorer = ContextScorer(network.train())
    features = torch.randn(4, 16).half()
    projections = scorer.project(features)
    torch.testing.assert_close(projections, scorer.project(features.float()))
    assert scorer.logits(projections, torch.empty(0, 3, 2, dtype=torch.int64)).shape == (0, 2)
    assert network.training


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    network = with_used_batch_norms(ASC_Net(3, 2, feature_size=16)).cuda()
    scorer = ContextScorer(network)
    features, index = torch.randn(9, 16), torch.randint(0, 9, (50, 3, 2))
    with torch.inference_mode():
        expected = network(features[index].permute(0, 3, 1, 2).cuda())
    torch.testing.assert_close(scorer.logits(scorer.project(features), index), expected, rtol=0, atol=1e-4)

    model = with_used_batch_norms(resnet18_two_streams(rgb_stack_size=1)).cuda()
    audio, video = torch.randn(2, 1, 13, 8), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(audio.cuda(), video.cuda())[3]
    for dtype, tolerance in ((torch.float32, 0.01), (torch.bfloat16, 0.05)):
        features = fast_two_stream(model, dtype=dtype)(audio, video)[3]
        assert (features - expected).std() / expected.std() < tolerance
