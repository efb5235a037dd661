"""Files that are downloaded once and kept: where, and what to do where they could not be downloaded."""

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from core.download.fetch import DownloadError, check, fetch
from core.runtime.errors import UserError
from core.runtime.files import make_folder

FOLDER_VARIABLE = "ASC_CACHE"
FOLDER_NAME = "active-speakers-in-context"
TRIES = 3
TIMEOUT_S = 10.0  # that a server may be silent


class NotDownloadedError(UserError):
    """A file is not in the cache and could not be downloaded."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of another owner, at an address whose content does not change.

    Attributes:
        what: for messages.
        name: of the file in the cache folder.
        url, sha256: where it is, and its content.
        licence: of the file, as its owner states it.
    """

    what: str
    name: str
    url: str
    sha256: str
    licence: str


def cache_folder(given: str | Path | None = None) -> Path:
    """The folder for downloads: the one given, else that of the environment variable ASC_CACHE, else the user's."""
    if given is not None:
        return Path(given)
    if os.environ.get(FOLDER_VARIABLE):
        return Path(os.environ[FOLDER_VARIABLE])
    return platformdirs.user_cache_path(FOLDER_NAME, appauthor=False)


def cached(remote: RemoteFile, cache: str | Path | None = None) -> Path:
    """The path of a file in the cache folder, downloaded if it is not there; its SHA-256 is checked either way.

    Args:
        remote: the file.
        cache: the folder, as `cache_folder` takes it.

    Raises:
        NotDownloadedError: it cannot be downloaded or kept; the message says where to get it and where to put it by
            hand.
        UserError: the cache holds another file of that name.
    """
    path = cache_folder(cache) / remote.name
    by_hand = f"download {remote.url} (SHA-256 {remote.sha256}) on any machine and put it at {path}"
    if not path.is_file():
        try:
            with _alone_in(make_folder(path.parent)):
                return fetch(remote.url, path, sha256=remote.sha256, tries=TRIES, timeout=TIMEOUT_S)
        except DownloadError as error:
            raise NotDownloadedError(f"{error}. Without network: {by_hand}") from error
        except UserError as error:
            raise NotDownloadedError(
                f"{remote.what}: {error}; another cache folder can be given with --cache or the variable "
                f"{FOLDER_VARIABLE}, or {by_hand}"
            ) from error
    fault = check(path, sha256=remote.sha256)
    if fault is not None:
        raise UserError(f"{path} is not {remote.what}: {fault}; delete it to have it downloaded again, or {by_hand}")
    return path


def all_of(*calls: Callable[[], Any]) -> list[Any]:
    """The results of functions that need files of the cache; where some could not be downloaded, one message names all.

    Raises:
        NotDownloadedError: at least one function raised it; the others were called nevertheless.
    """
    results, missing = [], []
    for call in calls:
        try:
            results.append(call())
        except NotDownloadedError as error:
            missing.append(str(error))
    if missing:
        raise NotDownloadedError("\n".join(missing))
    return results


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process downloads into a folder, and let none do so meanwhile."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some cluster file systems have no locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
