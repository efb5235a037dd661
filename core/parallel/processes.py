"""A function over items in this process or in several of this machine."""

import concurrent.futures
import concurrent.futures.process
import itertools
import multiprocessing
import multiprocessing.synchronize
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from core.runtime import elsewhere
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import MediaError, UserError, end_after

Item = TypeVar("Item")
AHEAD = 2  # items for each process that are handed out, so that none waits for its next
_function: Callable[..., object]  # of a worker: what it calls
_stopping: multiprocessing.synchronize.Event  # of a worker: set when no further item shall be begun


def outcomes(
    function: Callable[[Item], object], items: Mapping[str, Item], jobs: int
) -> Iterator[tuple[str, str | None]]:
    """Call a function for each item, in `jobs` processes; 1 works in this one.

    Yields:
        The item's name, and what is wrong with it or None, as soon as it is done.

    Raises:
        UserError: a process ended in the middle of its item. Another exception of the function than MediaError is
            raised as it is.
    """
    if jobs == 1 or len(items) <= 1:
        reuse_freed_memory()
        for name, item in items.items():
            yield name, attempt(function, item)
        return
    # "spawn": forking a process that holds PyTorch's and FFmpeg's threads can deadlock
    context = multiprocessing.get_context("spawn")
    stopping = context.Event()
    rest = iter(items.items())
    waiting: dict[concurrent.futures.Future, str] = {}
    with concurrent.futures.ProcessPoolExecutor(jobs, context, _start_worker, (function, stopping)) as pool:

        def submit(count: int) -> None:
            # Ctrl-C reaches the workers too. They start by ignoring it and obey it while they work on a video: one that
            # starts or waits has nothing to clean up and would only print a traceback.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            try:
                for name, item in itertools.islice(rest, count):
                    waiting[pool.submit(_attempt_in_worker, item)] = name
            finally:
                signal.signal(signal.SIGINT, handler)

        try:
            submit(AHEAD * jobs)
            while waiting:
                done, _ = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                submit(len(done))
                for future in done:
                    yield waiting.pop(future), future.result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError(
                "a process ended in the middle of its video, as when the system runs out of memory; run the same "
                "command again with fewer --jobs"
            ) from error
        except BaseException:  # an interrupt too: what has not begun is not begun
            stopping.set()  # the pool hands some items out in advance
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def attempt(function: Callable[[Item], object], item: Item) -> str | None:
    """Call a function; what is wrong with its item, or None."""
    try:
        function(item)
    except MediaError as error:
        return str(error)
    finally:
        elsewhere.forget()
    return None


def one_thread_each() -> None:
    """Prepare a worker process: the cores are shared by many workers, so each works on one thread."""
    import cv2

    reuse_freed_memory()
    cv2.setNumThreads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # the engine goes by it, and PyTorch when it is loaded
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _start_worker(function: Callable[..., object], stopping: multiprocessing.synchronize.Event) -> None:
    global _function, _stopping
    _function, _stopping = function, stopping
    end_after(multiprocessing.parent_process().join)
    one_thread_each()


def _attempt_in_worker(item: Item) -> str | None:
    if _stopping.is_set():
        return None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return attempt(_function, item)
    except KeyboardInterrupt:
        _stopping.set()  # the next item may be at hand before the parent process has heard of it
        raise
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
