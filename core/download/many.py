"""Fetch many files at once, in threads that end soon after an interrupt."""

import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from core.download.fetch import DownloadError, fetch
from core.runtime.errors import EXIT_BROKEN_ITEMS

FEW_FILES = 3  # up to here the progress bar counts bytes, beyond it files


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


class Downloader:
    """Fetches remotes into one folder, with a bar, and remembers what is missing."""

    def __init__(self, folder: Path, jobs: int, sleep: Callable[[float], object] | None) -> None:
        self.folder = folder
        self.jobs = jobs
        self.sleep = sleep
        self.missing: list[str] = []  # a line each

    def fetch(self, remotes: Mapping[Path, Remote], title: str) -> set[Path]:
        """Fetch each remote to its path in the folder; the paths that are there in the end."""
        lock, seen = threading.Lock(), {}
        by_bytes = len(remotes) <= FEW_FILES
        unit = {"unit": "B", "unit_scale": True, "unit_divisor": 1024} if by_bytes else {"unit": "file"}
        with tqdm(desc=title, total=0 if by_bytes else len(remotes), disable=None, **unit) as bar:

            def on_bytes(path: Path, done: int, total: int | None) -> None:
                if by_bytes:
                    with lock:
                        seen[path] = (done, total or done)
                        bar.total = sum(total for _, total in seen.values())
                        bar.update(sum(done for done, _ in seen.values()) - bar.n)

            errors = fetch_all(
                {self.folder / path: remote for path, remote in remotes.items()},
                jobs=self.jobs,
                on_bytes=on_bytes,
                on_file=lambda path: None if by_bytes else bar.update(),
                sleep=self.sleep,
            )
        for path, error in errors.items():
            self.missing.append(f"{path.relative_to(self.folder)}: {error.reason} ({error.url})")
        return {path for path in remotes if self.folder / path not in errors}


def report_missing(missing: Sequence[str]) -> int:
    """Print what could not be fetched; the exit status."""
    if not missing:
        return 0
    print(f"{len(missing)} missing; to try again run the same command:", file=sys.stderr)
    for line in missing:
        print(f"  {line}", file=sys.stderr)
    return EXIT_BROKEN_ITEMS
