"""Speed of the two networks for evaluation, beside the published code's.

Random weights and input: the speed does not depend on them. Each line repeats one call for some seconds.
"""

from functools import partial

import torch

from benchmarks.measure import Result, repeated
from core.inference.engine import DTYPES, in_pytorch
from core.models import ASC_Net, resnet18_two_streams
from core.models.fast_context import ContextScorer

CPU = torch.device("cpu")
CLIPS, SPEAKERS, FEATURES = 11, 3, 1024
CONTEXTS = 2048  # contexts a call
ROWS = 4096  # feature rows that they draw on
# The published networks alone, on two CPU cores: face-frames and contexts per second (those on one thread).
PUBLISHED_ENCODER = {1: 34, 32: 54}
PUBLISHED_CONTEXT = 1225


def results(seconds: float = 3, threads: int = 2, device: torch.device = CPU) -> list[Result]:
    """The benchmark's lines, each measured for some seconds."""
    torch.set_num_threads(threads)
    return encoder_lines(device, seconds) + context_lines(device, seconds)


def encoder_lines(device: torch.device, seconds: float) -> list[Result]:
    model = resnet18_two_streams(rgb_stack_size=CLIPS)
    lines = []
    for batch, published in PUBLISHED_ENCODER.items():
        audio = torch.randn(batch, 1, 13, 40, device=device)
        video = torch.randn(batch, 3 * CLIPS, 144, 144, device=device)
        channels_last = video.to(memory_format=torch.channels_last)  # as core.inputs.transforms.stack gives it
        calls = {"plain": partial(in_pytorch(model, device), audio, video)}
        calls |= {
            dtype: partial(in_pytorch(model, device, name), audio, channels_last) for name, dtype in DTYPES.items()
        }
        for how, call in calls.items():
            what = f"encoder, batch {batch}, {how}, faces/s"
            lines.append(Result(what, repeated(batch, call, seconds), published))
    return lines


def context_lines(device: torch.device, seconds: float) -> list[Result]:
    network = ASC_Net(CLIPS, SPEAKERS, feature_size=FEATURES).eval().to(device)
    scorer = ContextScorer(network)
    features = torch.randn(ROWS, FEATURES, device=device)
    index = torch.randint(0, ROWS, (CONTEXTS, CLIPS, SPEAKERS), device=device)
    x = features[index[:64]].permute(0, 3, 1, 2).contiguous()
    projections = scorer.project(features)
    plain = repeated(64, partial(in_pytorch(network, device), x), seconds)
    projecting = repeated(ROWS, partial(scorer.project, features), seconds)
    scoring = repeated(CONTEXTS, partial(scorer.logits, projections, index), seconds)
    return [
        Result("context network, plain, batch 64, contexts/s", plain, PUBLISHED_CONTEXT),
        Result("context network, projecting, rows/s", projecting),
        Result("context network, of projected rows, contexts/s", scoring, PUBLISHED_CONTEXT),
    ]
