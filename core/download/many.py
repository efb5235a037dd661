"""Many files over HTTP at once, in threads that end soon after an interrupt."""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from core.download.fetch import DownloadError, fetch
from core.runtime.errors import EXIT_BROKEN_ITEMS


class Remote(NamedTuple):
    """A file on a server, and its MD5 where one is published."""

    url: str
    md5: str | None = None


class _StoppedError(Exception):
    """Ends a download from within, because the whole program is ending."""


class Downloader:
    """Downloads files into one folder, several at a time.

    Args:
        folder: what the paths of the files are relative to.
        jobs: files at a time, >= 1.
        sleep: called with the seconds before another try; None waits, but not beyond an interrupt.

    Attributes:
        missing: a line for each file that could not be downloaded.
    """

    def __init__(self, folder: Path, jobs: int, sleep: Callable[[float], object] | None = None) -> None:
        self.folder, self.jobs, self.sleep = folder, jobs, sleep
        self.missing: list[str] = []

    def fetch(self, remotes: Mapping[Path, Remote], title: str) -> set[Path]:
        """Download each file to its path below the folder; returns the paths that are there in the end.

        Raises:
            UserError: something that would stop the other files too, as a full disk.
        """
        errors: dict[Path, DownloadError] = {}
        sizes: dict[Path, tuple[int, int]] = {}  # bytes so far, and in all
        stopping, lock = threading.Event(), threading.Lock()

        def fetch_one(path: Path) -> tuple[Path, Exception | None]:
            def progress(done: int, total: int | None) -> None:
                if stopping.is_set():
                    raise _StoppedError
                with lock:
                    sizes[path] = done, total or done
                    bar.total = sum(total for _, total in sizes.values())
                    bar.update(sum(done for done, _ in sizes.values()) - bar.n)

            try:
                url, md5 = remotes[path]
                fetch(url, self.folder / path, md5=md5, progress=progress, sleep=self.sleep or stopping.wait)
            except Exception as error:
                return path, error
            return path, None

        # The pool's threads are daemons: after Ctrl-C nobody waits for a silent server, and what came is on the disk.
        unit = {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
        with tqdm(desc=title, total=0, disable=None, **unit) as bar, ThreadPool(self.jobs) as pool:
            try:
                for count, (path, error) in enumerate(pool.imap_unordered(fetch_one, remotes), start=1):
                    bar.set_postfix_str(f"{count} of {len(remotes)} files")
                    if isinstance(error, DownloadError):
                        errors[path] = error
                    elif error is not None:
                        raise error
            finally:
                stopping.set()
        self.missing += [f"{path}: {errors[path].reason} ({errors[path].url})" for path in remotes if path in errors]
        return remotes.keys() - errors.keys()


def report_missing(missing: Sequence[str]) -> int:
    """Print what could not be downloaded; returns the exit status."""
    if not missing:
        return 0
    print(f"{len(missing)} missing; to try again run the same command:", file=sys.stderr)
    for line in missing:
        print(f"  {line}", file=sys.stderr)
    return EXIT_BROKEN_ITEMS
