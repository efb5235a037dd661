"""Map a function over videos: in local processes, in a share of a bigger job, or on a Dask cluster."""

import argparse
import concurrent.futures
import concurrent.futures.process
import multiprocessing
import multiprocessing.synchronize
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from core.runtime.allocation import reuse_freed_memory
from core.runtime.checks import as_whole
from core.runtime.errors import EXIT_BROKEN_ITEMS, MediaError, UserError, end_after
from core.runtime.files import printable

Item = TypeVar("Item")
_stopping: multiprocessing.synchronize.Event  # of a worker: set when no further item shall be begun


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every preparation step that works video by video."""
    parser.add_argument("--jobs", type=int, default=1, help="videos worked on side by side (default 1)")
    parser.add_argument("--shard", metavar="I/N", help="work on the I-th of N shares of the videos only")
    parser.add_argument("--cluster", metavar="ADDRESS", help="a Dask scheduler whose workers see the same paths")


def map_videos(
    function: Callable[[Item], object],
    items: dict[str, Item],
    jobs: int = 1,
    description: str = "",
    cluster: str | None = None,
) -> dict[str, str]:
    """Call `function` once for each video, side by side; a broken video does not stop the others.

    Args:
        function: picklable; its item's output files are its result. It raises MediaError for a broken video; any
            other exception ends the whole map.
        items: video id -> argument.
        jobs: local processes; 1 works in this process.
        description: what the progress bar says.
        cluster: address of a Dask scheduler; its workers see the same paths and do the work in place of `jobs`.

    Returns:
        Video id -> message, of the broken videos.

    Raises:
        UserError: `jobs` is below 1.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: expected 1 or more")
    broken = {}
    with tqdm(total=len(items), desc=description, unit="video", disable=None) as bar:
        for name, outcome in _outcomes(function, items, jobs, cluster):
            bar.update()
            if outcome is not None:
                broken[name] = outcome
    return broken


def shard(names: Sequence[str], spec: str | None) -> list[str]:
    """The I-th of N shares of a list, for jobs spread over machines by hand or by a batch system.

    Args:
        names: all names, in an order that every machine agrees on.
        spec: "I/N", 1 <= I <= N; None for all.

    Raises:
        UserError: the text is not of that form.
    """
    if spec is None:
        return list(names)
    try:
        index, count = (as_whole(part) for part in spec.split("/"))
        if not 1 <= index <= count:
            raise ValueError
    except ValueError:
        raise UserError(f"--shard {spec}: expected I/N with 1 <= I <= N, for example 2/8") from None
    return list(names)[index - 1 :: count]


def report(broken: dict[str, str], total: int, out: str | Path) -> int:
    """Print what became of `total` videos, the broken ones by name; return the exit status of the script."""
    print(f"{out}: {total - len(broken):,} of {total:,} videos done")
    if not broken:
        return 0
    print(f"{len(broken)} video(s) with faults; the others are finished:", file=sys.stderr)
    for name, message in sorted(broken.items()):
        named = message if message.startswith(name) else f"{name}: {message}"  # where names are paths many begin so
        print(printable(f"  {named}"), file=sys.stderr)
    return EXIT_BROKEN_ITEMS


def run(function: Callable[[Item], object], items: dict[str, Item], arguments: argparse.Namespace, title: str) -> int:
    """A preparation step: `map_videos` as the options of `add_arguments` ask for, then `report`; the exit status."""
    mine = {name: items[name] for name in shard(list(items), arguments.shard)}
    return report(map_videos(function, mine, arguments.jobs, title, arguments.cluster), len(mine), arguments.out)


def _outcomes(
    function: Callable[[Item], object], items: dict[str, Item], jobs: int, cluster: str | None
) -> Iterator[tuple[str, str | None]]:
    if cluster is not None:
        yield from _on_cluster(function, items, cluster)
        return
    if jobs == 1 or len(items) <= 1:
        reuse_freed_memory()
        for name, item in items.items():
            yield name, _attempt(function, item)
        return
    # "spawn": forking a process that holds PyTorch's and FFmpeg's threads can deadlock
    context = multiprocessing.get_context("spawn")
    stopping = context.Event()
    with concurrent.futures.ProcessPoolExecutor(jobs, context, _start_worker, (stopping,)) as pool:
        # Ctrl-C reaches the workers too. They start by ignoring it and obey it while they work on a video: one that
        # starts or waits has nothing to clean up and would only print a traceback.
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            waiting = {pool.submit(_attempt_in_worker, function, item): name for name, item in items.items()}
        finally:
            signal.signal(signal.SIGINT, handler)
        try:
            for future in concurrent.futures.as_completed(waiting):
                yield waiting[future], future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError(
                "a process ended in the middle of its video, as when the system runs out of memory; run the same "
                "command again with fewer --jobs"
            ) from error
        except BaseException:  # an interrupt too: what has not begun is not begun
            stopping.set()  # the pool hands some items out in advance
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _on_cluster(
    function: Callable[[Item], object], items: dict[str, Item], address: str
) -> Iterator[tuple[str, str | None]]:
    try:
        import distributed  # an optional extra: only those who have a cluster need it
    except ImportError:
        raise UserError("--cluster needs Dask: pip install 'active-speakers-in-context[cluster]'") from None
    try:
        client = distributed.Client(address, timeout="10s")
    except OSError as error:
        raise UserError(f"--cluster {address}: no Dask scheduler answers there ({error})") from error
    with client:
        futures = {client.submit(_attempt, function, item, pure=False): name for name, item in items.items()}
        for future, outcome in distributed.as_completed(futures, with_results=True):
            yield futures[future], outcome


def _attempt(function: Callable[[Item], object], item: Item) -> str | None:
    try:
        function(item)
    except MediaError as error:
        return str(error)
    return None


def _start_worker(stopping: multiprocessing.synchronize.Event) -> None:
    global _stopping
    _stopping = stopping
    end_after(multiprocessing.parent_process().join)
    one_thread_each()


def _attempt_in_worker(function: Callable[[Item], object], item: Item) -> str | None:
    if _stopping.is_set():
        return None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return _attempt(function, item)
    except KeyboardInterrupt:
        _stopping.set()  # the next item may be at hand before the parent process has heard of it
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def one_thread_each() -> None:
    """Prepare a worker process: the cores are shared by many workers, so each works on one thread."""
    import cv2
    import torch

    reuse_freed_memory()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
