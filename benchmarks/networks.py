"""Speed of the two networks for evaluation, beside the published code's.

    python benchmarks/networks.py
    python benchmarks/networks.py --seconds 2 --device 0

Random weights and input: the speed does not depend on them. Each line repeats one call for some seconds.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from benchmarks.measure import Result
from core.models import ASC_Net, resnet18_two_streams
from core.models.fast_context import ContextScorer
from core.models.fast_two_stream import fast_two_stream
from core.runtime.errors import exits_cleanly

CLIPS, SPEAKERS, FEATURES = 11, 3, 1024
CONTEXTS = 2048  # contexts a call
ROWS = 4096  # feature rows that they draw on
CPU = torch.device("cpu")
# The published networks alone, on two CPU cores: face-frames and contexts per second (those on one thread).
PUBLISHED_ENCODER = {1: 34, 32: 54}
PUBLISHED_CONTEXT = 1225


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    seconds, threads, device = parse(argv, __doc__, torch.get_num_threads(), "all cores")
    print(f"clips of {CLIPS} frames of 144×144, contexts of {CLIPS}×{SPEAKERS}")
    measure.print_table(results(seconds, threads, device))


def parse(argv: list[str] | None, about: str, threads: int, why: str) -> tuple[float, int, torch.device]:
    """Seconds for each row, CPU threads and device, as the command line of a benchmark of networks has them.

    Args:
        argv: the command line.
        about: what the benchmark is, for --help.
        threads: the default, and `why` it is that.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="time for each row (default 5)")
    parser.add_argument("--threads", type=int, default=threads, help=f"CPU threads (default {threads}: {why})")
    parser.add_argument("--device", default="cpu", help="cpu, or the index of a CUDA device")
    args = parser.parse_args(argv)
    if args.threads < 1:
        parser.error(f"--threads {args.threads}: give 1 or more")
    if args.device != "cpu" and not (args.device.isdecimal() and int(args.device) < torch.cuda.device_count()):
        parser.error(f"--device {args.device}: give cpu or an index below {torch.cuda.device_count()}")
    device = torch.device("cpu" if args.device == "cpu" else f"cuda:{args.device}")
    print(f"{args.threads} CPU threads" if device.type == "cpu" else torch.cuda.get_device_name(device), end=", ")
    return args.seconds, args.threads, device


def results(seconds: float, threads: int, device: torch.device = CPU) -> list[Result]:
    """The benchmark's lines, each measured for some seconds."""
    torch.set_num_threads(threads)
    with torch.inference_mode():
        return encoder_lines(device, seconds) + context_lines(device, seconds)


def encoder_lines(device: torch.device, seconds: float) -> list[Result]:
    model = resnet18_two_streams(rgb_stack_size=CLIPS).eval().to(device)
    lines = []
    for batch, published in PUBLISHED_ENCODER.items():
        audio = torch.randn(batch, 1, 13, 40, device=device)
        video = torch.randn(batch, 3 * CLIPS, 144, 144, device=device)
        channels_last = video.to(memory_format=torch.channels_last)
        name = f"encoder, batch {batch}"
        lines.append(line(f"{name}, plain, faces/s", batch, lambda: model(audio, video), seconds, published))  # noqa: B023
        for dtype in (torch.float32, torch.bfloat16):
            fast = fast_two_stream(model, dtype=dtype)
            what = f"{name}, fast, {str(dtype).removeprefix('torch.')}, faces/s"
            lines.append(line(what, batch, lambda: fast(audio, channels_last), seconds, published))  # noqa: B023
    return lines


def context_lines(device: torch.device, seconds: float) -> list[Result]:
    network = ASC_Net(CLIPS, SPEAKERS, FEATURES).eval().to(device)
    scorer = ContextScorer(network)
    features = torch.randn(ROWS, FEATURES, device=device)
    index = torch.randint(0, ROWS, (CONTEXTS, CLIPS, SPEAKERS), device=device)
    x = features[index[:64]].permute(0, 3, 1, 2).contiguous()
    projections = scorer.project(features)
    name = "context network"
    return [
        line(f"{name}, plain, batch 64, contexts/s", 64, lambda: network(x), seconds, PUBLISHED_CONTEXT),
        line(f"{name}, projecting, rows/s", ROWS, lambda: scorer.project(features), seconds),
        line(
            f"{name}, of projected rows, contexts/s",
            CONTEXTS,
            lambda: scorer.logits(projections, index),
            seconds,
            PUBLISHED_CONTEXT,
        ),
    ]


def line(
    what: str,
    items: int,
    call: Callable[[], object],
    seconds: float,
    published: float | None = None,
    target: float | None = None,
) -> Result:
    """Repeat a call for some seconds; items per second of each repetition."""

    def timed() -> None:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    for _ in range(2):
        timed()
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        times.append(measure.seconds(timed))
    return Result(what, [items / value for value in times], published, target)


if __name__ == "__main__":
    main()
