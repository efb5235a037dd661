"""Speed of the two networks for evaluation, beside the published code's.

    python benchmarks/networks.py
    python benchmarks/networks.py --seconds 2 --device 0

Random weights and input: the speed does not depend on them. Each row repeats one call for some seconds; given are the
fastest repetition (what the machine can do) and the median (what it did, with whatever else ran).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.errors import exits_cleanly
from core.models import ASC_Net, resnet18_two_streams
from core.models.inference import ContextScorer, fast_two_stream

CLIPS, SPEAKERS, FEATURES = 11, 3, 1024
CONTEXTS = 2048  # contexts a call
ROWS = 4096  # feature rows that they draw on
# The published code, measured on two CPU cores: face-frames and contexts per second.
PUBLISHED_ENCODER = {1: "34 (whole forward script: 17.8)", 32: "54"}
PUBLISHED_CONTEXT = "1,225 on one thread (whole forward script: 228)"


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="time for each row (default 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default all cores)")
    parser.add_argument("--device", default="cpu", help="cpu, or the index of a CUDA device")
    args = parser.parse_args(argv)
    if args.threads < 1:
        parser.error(f"--threads {args.threads}: give 1 or more")
    if args.device != "cpu" and not (args.device.isdecimal() and int(args.device) < torch.cuda.device_count()):
        parser.error(f"--device {args.device}: give cpu or an index below {torch.cuda.device_count()}")
    device = torch.device("cpu" if args.device == "cpu" else f"cuda:{args.device}")
    torch.set_num_threads(args.threads)

    where = f"{args.threads} CPU threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
    print(f"{where}, clips of {CLIPS} frames of 144×144, contexts of {CLIPS}×{SPEAKERS}; items per second")
    print(f"{'':44}{'best':>9}{'median':>9}   published (2 cores)")
    with torch.inference_mode():
        encoder_rows(device, args.seconds)
        context_rows(device, args.seconds)


def encoder_rows(device: torch.device, seconds: float) -> None:
    model = resnet18_two_streams(rgb_stack_size=CLIPS).eval().to(device)
    for batch in (1, 32):
        audio = torch.randn(batch, 1, 13, 40, device=device)
        video = torch.randn(batch, 3 * CLIPS, 144, 144, device=device)
        channels_last = video.to(memory_format=torch.channels_last)
        published = PUBLISHED_ENCODER[batch]
        row(f"encoder, plain, batch {batch}", batch, lambda: model(audio, video), seconds, published)  # noqa: B023
        for dtype in (torch.float32, torch.bfloat16):
            fast = fast_two_stream(model, dtype=dtype)
            name = f"encoder, fast, {str(dtype).removeprefix('torch.')}, batch {batch}"
            row(name, batch, lambda: fast(audio, channels_last), seconds, published)  # noqa: B023


def context_rows(device: torch.device, seconds: float) -> None:
    network = ASC_Net(CLIPS, SPEAKERS, FEATURES).eval().to(device)
    scorer = ContextScorer(network)
    features = torch.randn(ROWS, FEATURES, device=device)
    index = torch.randint(0, ROWS, (CONTEXTS, CLIPS, SPEAKERS), device=device)
    x = features[index[:64]].permute(0, 3, 1, 2).contiguous()
    projections = scorer.project(features)
    row("context network, plain, batch 64", 64, lambda: network(x), seconds, PUBLISHED_CONTEXT)
    row("context scorer, projection of rows", ROWS, lambda: scorer.project(features), seconds, "")
    row("context scorer, contexts", CONTEXTS, lambda: scorer.logits(projections, index), seconds, PUBLISHED_CONTEXT)


def row(name: str, items: int, call: Callable[[], object], seconds: float, published: str) -> None:
    """Time a call and print its line of the table."""

    def timed() -> float:
        start = time.perf_counter()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(2):
        timed()
    times = []
    while len(times) < 3 or sum(times) < seconds:
        times.append(timed())
    print(f"{name:44}{items / min(times):9,.1f}{items / statistics.median(times):9,.1f}   {published}", flush=True)


if __name__ == "__main__":
    main()
