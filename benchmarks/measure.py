"""What the benchmarks share: repetition, memory, a process of one's own, and the table that they print."""

import argparse
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.runtime.allocation import reuse_freed_memory

HEADER = ("what", "ours, best run", "median run", "published", "better by", "target", "met")
MB = 1e6  # bytes
PLOT_SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Result:
    """One line of a benchmark's table.

    Attributes:
        what: what was measured, and its unit.
        runs: the values of all runs.
        published: what is stated of the published code.
        target: what ours has to reach, or must not exceed ...
        at_most: ... where less is better.
    """

    what: str
    runs: Sequence[float]
    published: float | None = None
    target: float | None = None
    at_most: bool = False

    @property
    def best(self) -> float:
        """The best run: what the code does when nothing else wants the machine."""
        return min(self.runs) if self.at_most else max(self.runs)

    @property
    def met(self) -> bool | None:
        """Whether the best run meets the target; None where there is none."""
        if self.target is None:
            return None
        return self.best <= self.target if self.at_most else self.best >= self.target

    def cells(self) -> list[str]:
        """The line's cells, in the order of `HEADER`."""
        factor = ""
        if self.published is not None:
            factor = f"{number(self.published / self.best if self.at_most else self.best / self.published)} ×"
        return [
            self.what,
            number(self.best),
            number(statistics.median(self.runs)) if len(self.runs) > 1 else "",
            "" if self.published is None else number(self.published),
            factor,
            "" if self.target is None else f"{'≤' if self.at_most else '≥'} {number(self.target)}",
            {None: "", True: "yes", False: "**no**"}[self.met],
        ]


def print_table(results: Iterable[Result]) -> None:
    """Print results as a GitHub markdown table whose columns also stand straight in a terminal."""
    lines = [list(HEADER), *(result.cells() for result in results)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for cells in (lines[0], rule, *lines[1:]):
        first, *others = zip(cells, widths, strict=True)
        row = [f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in others)]
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def in_child(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a module's function in a fresh process: its memory is its own, and what it sets does not last."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=reuse_freed_memory) as pool:  # as every script does
        return pool.submit(function, *arguments, **options).result()


def seconds(call: Callable[[], object]) -> float:
    """Wall-clock seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def repeated(items: int, call: Callable[[], object], run_s: float) -> list[float]:
    """Repeat a call, on whichever device, for some seconds; items per second of each repetition."""

    import torch  # here: what a process imports counts as the memory of the programs that it starts

    def timed() -> None:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    for _ in range(2):
        timed()
    times: list[float] = []
    while len(times) < 3 or sum(times) < run_s:
        times.append(seconds(timed))
    return [items / value for value in times]


def rates(
    batches: Callable[[], Generator[int, None, None]], runs: int, run_s: float = 3.0, warm_up: int = 10
) -> list[float]:
    """Items per second of `runs` stretches of about `run_s` seconds, after some batches of warming up.

    Args:
        batches: gives an endless supply of batches, as their numbers of items.
    """
    supply, values = batches(), []
    for _ in range(warm_up):
        next(supply)
    for _ in range(runs):
        items, start = 0, time.perf_counter()
        while time.perf_counter() - start < run_s:
            items += next(supply)
        values.append(items / (time.perf_counter() - start))
    supply.close()  # so that loader workers end before the interpreter does
    return values


def plot_file(text: str) -> Path:
    """The type of an option that names a plot to write."""
    if not text.lower().endswith(PLOT_SUFFIXES):
        raise argparse.ArgumentTypeError(f"{text}: the name must end with one of {', '.join(PLOT_SUFFIXES)}")
    return Path(text)


def peak_mb() -> float:
    """Megabytes that this process has had in memory at most."""
    status = Path("/proc/self/status")
    if status.is_file():  # Linux counts the parent's memory in ru_maxrss, but not in VmHWM (kilobytes)
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MB


def number(value: float) -> str:
    """Three digits that count, thousands grouped."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value >= 0.01 or value == 0 else f"{value:.0e}"
