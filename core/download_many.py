"""Fetch many files at once, in threads that end soon after an interrupt."""

import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from core.download import DownloadError, fetch


class Remote(NamedTuple):
    """A file on a server, and its MD5 where one is published."""

    url: str
    md5: str | None = None


class _StoppedError(Exception):
    """Ends a download from within, because the whole is ending."""


def fetch_all(
    wanted: Mapping[Path, Remote],
    *,
    jobs: int,
    on_bytes: Callable[[Path, int, int | None], None] = lambda path, done, total: None,
    on_file: Callable[[Path], None] = lambda path: None,
    sleep: Callable[[float], object] | None = None,
) -> dict[Path, DownloadError]:
    """Fetch every file, `jobs` at a time; those that are there already count as fetched.

    Args:
        wanted: destination -> where it comes from.
        jobs: number of threads, >= 1.
        on_bytes: called from the threads with a destination, its bytes so far and its size (None while unknown).
        on_file: called from this thread when a file is finished or given up.
        sleep: called with the seconds before another try; None waits, but not beyond an interrupt.

    Returns:
        The error of each file that could not be had, in the order of `wanted`.

    Raises:
        UserError: something that would stop the other files too, as a full disk.
    """
    errors = {}
    stopping = threading.Event()
    remaining, outcomes = queue.SimpleQueue(), queue.SimpleQueue()
    for item in wanted.items():
        remaining.put(item)

    def fetch_one(path: Path, remote: Remote) -> BaseException | None:
        def progress(done: int, total: int | None) -> None:
            if stopping.is_set():
                raise _StoppedError
            on_bytes(path, done, total)

        try:
            fetch(remote.url, path, md5=remote.md5, progress=progress, sleep=sleep or stopping.wait)
        except BaseException as error:  # handed to the waiting thread, which would wait for ever otherwise
            return error
        return None

    def work() -> None:
        while not stopping.is_set():
            try:
                path, remote = remaining.get_nowait()
            except queue.Empty:
                return
            outcomes.put((path, fetch_one(path, remote)))

    # Daemons instead of a pool: after Ctrl-C a pool waits for a server that is silent, and what came is on the disk.
    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(jobs, len(wanted)))]
    try:
        for thread in threads:
            thread.start()
        for _ in wanted:
            path, error = outcomes.get()
            if isinstance(error, DownloadError):
                errors[path] = error
            elif error is not None:
                raise error
            on_file(path)
    finally:
        stopping.set()
        for thread in threads:
            thread.join(timeout=1)  # seconds: enough for those that are not waiting for a server
    return {path: errors[path] for path in wanted if path in errors}
