"""Files that are elsewhere: objects of a bucket, each with a copy on this machine while it is worked on.

`place("s3://bucket/videos/a.mp4")` is the path of a copy, `…/.elsewhere/s3/bucket/videos/a.mp4` among temporary files;
in any process, on any node, the path itself says what it is a copy of. Nothing is there before `bring` fetches it, and
nothing reaches the bucket but by `put`, which writes an object whole or not at all. `core.runtime.provenance` calls
both for the inputs and outputs that it keeps records of. Paths of files of this machine are left as they are.

Credentials are those that the file systems of fsspec find in the environment and their own files; none is in a URL.
"""

import atexit
import contextlib
import functools
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from core.runtime.errors import COPIES, MediaError, UserError, as_given
from core.runtime.files import NO_SPACE, PART, atomic_write, make_folder

PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}  # scheme -> what knows it
URLS = f"{', '.join(f'{scheme}://…' for scheme in PACKAGES)} or file:///…"
OPTIONS = {"s3": {"max_concurrency": 1}}  # parts side by side take 500 MB, and one that is short leaves zeros
SCHEMES = (*PACKAGES, "file")
TRIES = 3  # in addition to those that the file systems make
FIRST_DELAY_S = 1.0  # before the second try; doubles with every further one
VERSIONS = ("ETag", "etag", "blob_id", "md5Hash", "generation")  # what file systems call the mark of a content

State = list[int]  # size in bytes, 0, and a digest of the mark of its content: as long as the state of a file here
Answer = TypeVar("Answer")
_folders: dict[str, dict[str, State]] = {}  # URLs of those that were listed -> name of a file in it -> state
_states: dict[str, State | None] = {}  # URLs of single files that were asked about, while one item is worked on
_copies: dict[Path, State | None] = {}  # that this process has -> state of what they are copies of


def place(text: str) -> Path:
    """The path that an argument names, or of the copy of what its URL names; an argparse type.

    Raises:
        UserError: as `copy_of`.
    """
    look_anew()
    return copy_of(text)


def look_anew() -> None:
    """Forget what was asked, which is from another command."""
    _folders.clear()
    _states.clear()


def copy_of(text: str) -> Path:
    """The path that a text names, or of the copy of what its URL names.

    Raises:
        UserError: the URL is of another kind, or has more in it than bucket and key.
    """
    scheme, is_url, rest = text.partition("://")
    if not is_url:
        return Path(text)
    if scheme == "file" and rest.startswith("/"):
        return Path(rest)
    if scheme not in PACKAGES:
        raise UserError(f"{as_given(text)}: expected {URLS}, or a path")
    parts = PurePosixPath(rest).parts
    if not parts or rest.startswith("/") or ".." in parts or "@" in parts[0] or "?" in rest:
        raise UserError(
            f"{scheme}://…: expected {scheme}://BUCKET/KEY and nothing else; credentials are those of the environment"
        )
    return Path(_scratch(), scheme, *parts)


def fetched(text: str) -> Path:
    """The path of a file that an argument names, or of what its URL names, fetched; an argparse type.

    Raises:
        UserError: as `place` and `bring`.
    """
    return bring(place(text))


def is_address(text: str) -> bool:
    """Whether an argument is an address that FFmpeg reads, rather than a path or a URL of files elsewhere."""
    scheme, is_url, _ = text.partition("://")
    return bool(is_url) and scheme not in SCHEMES


def url_of(path: str | Path) -> str | None:
    """What a path is the copy of; None for that of a file here."""
    _, _, place_there = str(path).partition(f"/{COPIES}/")
    return place_there.replace("/", "://", 1) or None


def state(path: Path) -> State | None:
    """What changes when the content of what is elsewhere does; None where it is absent.

    Raises:
        MediaError: there is no answer, or a refusal.
    """
    url = _url(path)
    folder, _, name = url.rpartition("/")
    if folder in _folders:
        return _folders[folder].get(name)
    if url not in _states:
        info = _asked(url, lambda: _found(url))
        _states[url] = _state(info) if info and info["type"] == "file" else None
    return _states[url]


def list_folder(path: Path) -> dict[str, State]:
    """Name -> state of the files of a folder elsewhere; asked for once by each process, not file by file.

    Raises:
        MediaError: there is no answer.
        UserError: it may not be read.
    """
    url = _url(path)
    if url not in _folders:
        own = url.partition("://")[2]
        entries = _asked(url, lambda: _listing(url), refusal=UserError)
        names = {PurePosixPath(entry["name"]).name: entry for entry in entries if entry["name"].strip("/") != own}
        _folders[url] = {name: _state(entry) for name, entry in names.items() if entry["type"] == "file"}
    return _folders[url]


def files_in(folder: Path) -> list[Path]:
    """The files of a folder, here or elsewhere, in no order; none where there is no such folder."""
    if url_of(folder):
        return [folder / name for name in list_folder(folder)]
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def is_file(path: Path) -> bool:
    """Whether there is a file, here or elsewhere."""
    return state(path) is not None if url_of(path) else path.is_file()


def is_folder(path: Path) -> bool:
    """Whether there is a folder, here or elsewhere, where one is there by what is in it."""
    if (url := url_of(path)) is None:
        return path.is_dir()
    return (_asked(url, lambda: _found(url)) or {}).get("type") == "directory"


def bring(path: Path) -> Path:
    """Fetch a copy, unless it is there; the path, of whatever file.

    Raises:
        MediaError: it is absent, or does not arrive whole.
    """
    if (url := url_of(path)) is None:
        return path
    if (expected := state(path)) is None:
        raise MediaError(f"no file {url}")
    if _copies.get(path) == expected and path.exists():  # processes that work for this one remove what they have used
        return path
    with atomic_write(path, sync=False) as temporary:

        def get() -> None:
            _files(url).get_file(url, str(temporary))
            _check_size(temporary.stat().st_size, expected[0])

        _asked(url, get)
    _copies[path] = expected
    return path


def put(path: Path) -> None:
    """Write a copy that was made here to where it belongs, whole or not at all.

    Raises:
        MediaError: it does not arrive.
        UserError: it may not be written there.
    """
    if (url := url_of(path)) is None:
        return
    _copies[path] = None

    def send() -> dict[str, Any]:
        _files(url).put_file(str(path), url)
        info = _files(url).info(url)
        _check_size(info["size"], path.stat().st_size)
        return info

    info = _asked(url, send, refusal=UserError)
    _copies[path] = _states[url] = _state(info)
    folder, _, name = url.rpartition("/")
    _folders.get(folder, {})[name] = _state(info)


def remove(path: Path) -> None:
    """Remove a file here, or an object and its copy.

    Raises:
        MediaError: there is no answer, or a refusal.
    """
    path.unlink(missing_ok=True)
    if (url := url_of(path)) and state(path) is not None:
        _asked(url, lambda: _files(url).rm_file(url))
        _states[url] = None
        folder, _, name = url.rpartition("/")
        _folders.get(folder, {}).pop(name, None)


def check_writable(folder: Path) -> None:
    """See that something can be put into a folder elsewhere, by an empty object that is removed again.

    Raises:
        UserError: it cannot.
    """
    if url_of(folder):
        empty = make_folder(folder) / f"{PART}{time.time_ns()}"
        empty.touch()
        put(empty)
        remove(empty)


def forget() -> None:
    """Remove the copies that this process has: the next item may find other files."""
    _states.clear()
    while _copies:
        with contextlib.suppress(OSError):
            _copies.popitem()[0].unlink()


def scratch_folder() -> Path | None:
    """The folder of this process's copies, which those that work for it use, too; None where there are none."""
    return _scratch().parent if _scratch.cache_info().currsize else None


@functools.cache
def _scratch() -> Path:
    """A new folder of temporary files, that goes when this process ends."""
    folder = tempfile.mkdtemp(prefix="active-speakers-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder, COPIES)


def _url(path: Path) -> str:
    url = url_of(path)
    if url is None:
        raise ValueError(f"{path} is no copy of something elsewhere")
    return url


def _files(url: str) -> Any:
    """The file system of fsspec that a URL belongs to; fsspec keeps one for each scheme."""
    scheme = url.partition("://")[0]
    try:
        import fsspec

        return fsspec.filesystem(scheme, use_listings_cache=False, **OPTIONS.get(scheme, {}))
    except ImportError:
        install = "'active-speakers-in-context[cloud]'" if scheme == "s3" else PACKAGES[scheme]
        raise UserError(f"{scheme}:// needs {PACKAGES[scheme]}: pip install {install}") from None


def _found(url: str) -> dict[str, Any] | None:
    try:
        return _files(url).info(url)
    except FileNotFoundError:
        return None


def _listing(url: str) -> list[dict[str, Any]]:
    try:
        return _files(url).ls(url, detail=True)
    except FileNotFoundError:
        return []


def _state(info: dict[str, Any]) -> State:
    version = next((str(info[name]) for name in VERSIONS if info.get(name)), "")
    return [info["size"], 0, int(hashlib.sha256(version.encode()).hexdigest()[:12], 16)]


def _check_size(found: int, expected: int) -> None:
    if found != expected:
        raise OSError(f"{found:,} of {expected:,} bytes arrived")


def _asked(url: str, ask: Callable[[], Answer], *, refusal: type[UserError] = MediaError) -> Answer:
    """An answer, asked for again where there was none.

    Args:
        url: what it is about.
        ask: asks the file system once.
        refusal: what a refusal raises: UserError where it is not about one file.

    Raises:
        MediaError: there is no answer after some tries.
    """
    for number in range(1, TRIES + 1):
        try:
            return ask()
        except UserError:
            raise
        except Exception as error:  # each file system has its own kinds
            if getattr(error, "errno", None) in NO_SPACE:
                raise
            text = " ".join(as_given(getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
            if _is_refusal(error):
                raise refusal(f"{url} is refused ({text}): give credentials that may use it, or another URL") from error
            if number == TRIES:
                raise MediaError(f"{url}: {text} (tried {number} times)") from error
        time.sleep(FIRST_DELAY_S * 2 ** (number - 1))
    raise AssertionError


def _is_refusal(error: Exception) -> bool:
    """Whether an error says that one may not: those of s3fs and fsspec, of gcsfs, and of huggingface_hub."""
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    named = "Credential" in type(error).__name__ or str(error).startswith("Forbidden")
    return isinstance(error, PermissionError) or named or status in (401, 403)
