"""A file over HTTP: resumed where it stopped, verified, retried, under its final name only when it is whole.

The bytes of `<name>` gather in `<name>.part`. A part that an earlier try left is continued by Range with If-Range (RFC
9110), so never with bytes of another version of the file: `<name>.part.version` keeps the server's mark of the version
(a strong ETag, or Last-Modified). Where the server gave none, a part is continued only if a checksum judges the result.
"""

import contextlib
import fcntl
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from core.runtime.errors import UserError
from core.runtime.files import fingerprint, make_folder

BLOCK_BYTES = 1 << 18
FIRST_DELAY_S = 1.0  # before the second try; doubles with every further one
LONGEST_DELAY_S = 60.0  # also the longest that a server's Retry-After is obeyed
RETRIED_STATUSES = (408, 425, 429)  # beside every 5xx: the server's trouble, or too many requests
RANGE_NOT_SATISFIABLE = 416

Progress = Callable[[int, int | None], object]  # called with the bytes so far and the size, None while unknown


class DownloadError(UserError):
    """A file that could not be downloaded; `url` and `reason` say which and why."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url} could not be downloaded: {reason}")
        self.url, self.reason = url, reason


class _FailedTryError(Exception):
    """A failure after which another try may succeed; `wait_s` is the pause that the server asks for."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def fetch(
    url: str,
    destination: str | Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    tries: int = 5,
    timeout: float = 30.0,
    progress: Progress = lambda done, total: None,
    sleep: Callable[[float], object] = time.sleep,
) -> Path:
    """Download `url` to the file `destination`, unless that file exists already.

    Tried again, after 1, 2, 4, ... s: lost or refused connections, bodies shorter than announced, wrong checksums
    (after these the file starts over), statuses 5xx, 408, 425 and 429. Any other status fails at once. The size is
    always checked; without a checksum the server must therefore state it, by Content-Length or by chunks.

    Args:
        url: http:// or https:// address.
        destination: file to write; its folder is created. An existing file is trusted, as only verified files get the
            name; `check` compares one with its checksum.
        md5, sha256: hexadecimal checksums, any case; each one that is given is verified.
        tries: how often the address is asked at most, >= 1.
        timeout: seconds that the server may be silent.
        progress: an exception of it passes through and leaves the part for the next call.
        sleep: called with the seconds to wait between two tries.

    Raises:
        DownloadError: the file could not be downloaded; what has come of it is kept and continued by the next call.
        UserError: the address is of another kind, or the file cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url!r} cannot be downloaded: give an address that begins with http:// or https://")
    destination = Path(destination)
    if destination.is_file():
        return destination
    make_folder(destination.parent)
    part = destination.with_name(destination.name + ".part")
    try:
        with _part_file(part) as file:
            # Another process may have finished, and released its lock, since the check above.
            if not destination.is_file():
                _receive_until_verified(
                    url,
                    part,
                    file,
                    {"md5": md5, "sha256": sha256},
                    tries=tries,
                    timeout=timeout,
                    progress=progress,
                    sleep=sleep,
                )
                os.fsync(file.fileno())  # the name vouches for the content, after a power cut too
                os.replace(part, destination)
    except BlockingIOError:
        raise DownloadError(url, f"another process is writing {part}; wait until it has ended") from None
    except OSError as error:  # of the disk: those of the network have become _FailedTryError
        raise UserError(
            f"cannot write {destination}: {error.strerror or error}; free some space or give another folder"
        ) from error
    return destination


def check(path: str | Path, *, md5: str | None = None, sha256: str | None = None) -> str | None:
    """Compare a file with its checksums: None if each one that is given fits, or a sentence that says which does not.

    Raises:
        OSError: the file cannot be read.
    """
    for algorithm, expected in (("md5", md5), ("sha256", sha256)):
        if expected is not None and (found := fingerprint(path, algorithm)) != expected.lower():
            return f"its {algorithm.upper()} is {found}, expected {expected.lower()}"
    return None


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".version")


@contextlib.contextmanager
def _part_file(part: Path) -> Iterator[BinaryIO]:
    """The part, open for appending and locked; a BlockingIOError where another process has it."""
    with open(part, "ab", buffering=0) as file:  # unbuffered, so that a killed process loses nothing that had come
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            pass  # some cluster file systems have no locks; there two runs at once end in a failed check
        try:
            yield file
        finally:
            if os.fstat(file.fileno()).st_size == 0:
                part.unlink(missing_ok=True)
            if not part.is_file():  # it is empty, or has its final name
                _version_file(part).unlink(missing_ok=True)


def _receive_until_verified(
    url: str,
    part: Path,
    file: BinaryIO,
    checksums: dict[str, str | None],
    *,
    tries: int,
    timeout: float,
    progress: Progress,
    sleep: Callable[[float], object],
) -> None:
    for number in range(1, tries + 1):
        try:
            _receive(url, part, file, has_checksum=any(checksums.values()), timeout=timeout, progress=progress)
            fault = check(part, **checksums)
            if fault is None:
                return
            _restart(part, file)
            raise _FailedTryError(fault)
        except _FailedTryError as failure:
            if number == tries:
                raise DownloadError(url, f"{failure} (tried {tries} times)") from None
            sleep(min(LONGEST_DELAY_S, max(FIRST_DELAY_S * 2 ** (number - 1), failure.wait_s)))


def _restart(part: Path, file: BinaryIO, version: str = "") -> None:
    # In this order a kill in between leaves an empty part, never a part with the mark of another version.
    file.truncate(0)
    _version_file(part).write_text(version, encoding="latin-1")


def _receive(url: str, part: Path, file: BinaryIO, *, has_checksum: bool, timeout: float, progress: Progress) -> None:
    """One request: append to the part what it lacks, or start it over."""
    done = os.fstat(file.fileno()).st_size
    version = _version_file(part).read_text(encoding="latin-1") if _version_file(part).is_file() else ""
    headers = {"User-Agent": "active-speakers-in-context", "Accept-Encoding": "identity"}
    if done and (version or has_checksum):
        headers |= {"Range": f"bytes={done}-"} | ({"If-Range": version} if version else {})
    else:
        done = 0
    progress(done, None)
    with _open(url, headers, timeout) as response:
        if response.status == RANGE_NOT_SATISFIABLE:
            # The part is complete (a kill before the renaming) or too long: size or checksum tell.
            if not (has_checksum or response.headers.get("Content-Range") == f"bytes */{done}"):
                _restart(part, file)
                raise _FailedTryError(f"{part} did not fit and starts over")
            return
        total = _total_size(url, response, has_checksum)
        if response.status == http.client.PARTIAL_CONTENT:
            # Not every server that honours Range honours If-Range too.
            begin = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
            if not begin or int(begin[1]) != done or (version and _version_of(response) not in ("", version)):
                _restart(part, file)
                raise _FailedTryError(f"asked for the bytes from {done} of one version, got others")
        else:
            done = 0
            _restart(part, file, _version_of(response))
        progress(done, total)
        for block in _blocks(response, None if total is None else total - done):
            view = memoryview(block)
            while view:  # an unbuffered write may take less than it is given
                view = view[file.write(view) :]
            done += len(block)
            progress(done, total)
    if total is not None and done != total:
        raise _FailedTryError(f"{done} of {total} bytes came")


@contextlib.contextmanager
def _open(url: str, headers: dict[str, str], timeout: float) -> Iterator[http.client.HTTPResponse]:
    """The answer with status 200, 206 or 416; anything else raises _FailedTryError or DownloadError."""
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        response = error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(url, f"{reason}; repair this Python's certificates or the clock") from None
        raise _FailedTryError(f"no connection: {reason or type(error).__name__}") from None
    with response:
        status = response.status
        if status >= 500 or status in RETRIED_STATUSES:
            pause = response.headers.get("Retry-After", "")  # seconds, or a date, which our own back-off replaces
            raise _FailedTryError(f"{status} {response.reason}", float(pause) if pause.isdecimal() else 0.0)
        if status not in ((200, 206, RANGE_NOT_SATISFIABLE) if "Range" in headers else (200,)):
            raise DownloadError(url, f"{status} {response.reason}")
        yield response


def _total_size(url: str, response: http.client.HTTPResponse, has_checksum: bool) -> int | None:
    """Bytes of the whole file; None where only the end of the body or a checksum can tell.

    Raises:
        DownloadError: nothing could tell a whole body from a cut one, or this is no file.
    """
    headers = response.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise DownloadError(url, f"the server sends it as {headers['Content-Encoding']}, though asked not to")
    if not has_checksum and headers.get_content_type() == "text/html":
        raise DownloadError(url, "the server answers with a web page instead of a file; open the address in a browser")
    partial = response.status == http.client.PARTIAL_CONTENT
    size = headers.get("Content-Range", "").rpartition("/")[2] if partial else headers.get("Content-Length", "")
    if size.isdecimal():
        return int(size)
    if not has_checksum and headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise DownloadError(url, "the server does not state its size, so that nothing would show a missing part")
    return None


def _version_of(response: http.client.HTTPResponse) -> str:
    tag = response.headers.get("ETag", "")
    # A weak tag promises the same meaning, not the same bytes, and is not allowed in If-Range.
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _blocks(response: http.client.HTTPResponse, count: int | None) -> Iterator[bytes]:
    """The body as it comes in, `count` bytes at most."""
    while count is None or count > 0:
        try:
            # read1 returns what is there; read would wait for a full block, and an interrupt with it.
            block = response.read1(BLOCK_BYTES if count is None else min(BLOCK_BYTES, count))
        except (OSError, http.client.HTTPException) as error:
            raise _FailedTryError(f"the connection broke: {error or type(error).__name__}") from None
        if not block:
            return
        yield block
        if count is not None:
            count -= len(block)
