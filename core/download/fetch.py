"""Fetch one file over HTTP: resumed where it stopped, verified, retried, under its final name only when it is whole.

A part that an earlier try left is continued by Range with If-Range (RFC 9110), so never with bytes of another version
of the file; where the server gave no mark of its version, only if a checksum will judge the result. The bytes are in
`<name>.part`; beside it `<name>.part.version` keeps the server's mark of the version that they belong to (a strong
ETag, or Last-Modified).
"""

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from core.runtime.errors import UserError
from core.runtime.files import make_folder

BLOCK_BYTES = 1 << 18
FIRST_DELAY_S = 1.0  # before the second try; doubles with every further one
LONGEST_DELAY_S = 60.0  # also the longest that a server's Retry-After is obeyed
RETRIED_STATUSES = (408, 425, 429)  # beside every 5xx: the server's trouble, or too much haste of ours
RANGE_NOT_SATISFIABLE = 416


class PartFileLockedError(Exception):
    """Another process is writing this part; the text says which file."""


class PartFile:
    """The part of one destination, open and locked inside a `with` block; nothing is written without its methods.

    On leaving the block an empty part is removed, any other stays for a later run.
    """

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.path = destination.with_name(destination.name + ".part")
        self.version_path = destination.with_name(destination.name + ".part.version")

    def __enter__(self) -> "PartFile":
        # Unbuffered, so that a killed process loses nothing that had come.
        self.file = open(self.path, "ab", buffering=0)
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.file.close()
            raise PartFileLockedError(f"another process is writing {self.path}; wait until it has ended") from None
        except OSError:
            pass  # some cluster file systems have no locks; there two runs at once end in a failed check
        return self

    def __exit__(self, *_) -> None:
        if self.size() == 0 or self.destination.is_file():
            self.path.unlink(missing_ok=True)
            self.version_path.unlink(missing_ok=True)
        self.file.close()

    def size(self) -> int:
        return os.fstat(self.file.fileno()).st_size

    def version(self) -> str:
        """What If-Range needs; empty if the server gave no mark."""
        return self.version_path.read_text(encoding="latin-1") if self.version_path.is_file() else ""

    def restart(self, version: str = "") -> None:
        # In this order a kill in between leaves an empty part, never a part with the mark of another version.
        self.file.truncate(0)
        self.version_path.write_text(version, encoding="latin-1")

    def write(self, block: bytes) -> None:
        view = memoryview(block)
        while view:  # an unbuffered write may take less than it is given
            view = view[self.file.write(view) :]

    def finish(self) -> None:
        os.fsync(self.file.fileno())  # the name vouches for the content, after a power cut too
        os.replace(self.path, self.destination)


class DownloadError(UserError):
    """A file that could not be fetched for good; `url` and `reason` say which and why."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"cannot fetch {url}: {reason}")
        self.url = url
        self.reason = reason


class _FailedTryError(Exception):
    """A failure that another try may mend; `wait_s` is the pause the server asks for."""

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
    progress: Callable[[int, int | None], None] | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Path:
    """Fetch `url` into the file `destination`, unless that file exists already.

    Tried again, after 1, 2, 4, ... s: lost or refused connections, bodies shorter than announced, wrong checksums
    (after these the file starts over), statuses 5xx, 408, 425 and 429. Any other status fails at once. The size is
    always checked; without a checksum the server must therefore tell it, by Content-Length or by chunks.

    Args:
        url: http:// or https:// address.
        destination: file to write; its folder is made. An existing file is trusted, as only verified files get the
            name; `check` compares one with its checksum.
        md5, sha256: hexadecimal checksums, any case; each one that is given is verified.
        tries: how often the address is asked at most, >= 1.
        timeout: seconds that the server may be silent.
        progress: called with the bytes that are there and the size (None while unknown), at the start of every try
            and after every block. An exception of it passes through and leaves the part for the next call.
        sleep: called with the seconds to wait between two tries.

    Raises:
        DownloadError: the file cannot be had; what has come of it is kept and continued by the next call.
        UserError: the address is of another kind, or the file cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise UserError(f"cannot fetch {url!r}: give an address that begins with http:// or https://")
    destination = Path(destination)
    if destination.is_file():
        return destination
    make_folder(destination.parent)
    try:
        with PartFile(destination) as part:
            # Another process may have finished, and let go of its lock, between the look above and ours.
            if not destination.is_file():
                _fetch_part(url, part, {"md5": md5, "sha256": sha256}, tries, timeout, progress, sleep)
                part.finish()
    except PartFileLockedError as error:
        raise DownloadError(url, str(error)) from None
    except OSError as error:  # of the disk: those of the network have become _FailedTryError
        raise UserError(
            f"cannot write {destination}: {error.strerror or error}; free some space or give another place"
        ) from error
    return destination


def check(path: str | Path, *, md5: str | None = None, sha256: str | None = None) -> str | None:
    """Compare a file with its checksums: None if each one that is given fits, or a sentence that says which does not.

    Raises:
        OSError: the file cannot be read.
    """
    for name, expected in (("md5", md5), ("sha256", sha256)):
        if expected is not None:
            with open(path, "rb") as file:
                # Not for security: MD5 is what the AVA files have, and hardened builds refuse it otherwise.
                found = hashlib.file_digest(file, lambda name=name: hashlib.new(name, usedforsecurity=False))
            if found.hexdigest() != expected.lower():
                return f"its {name.upper()} is {found.hexdigest()}, expected {expected.lower()}"
    return None


def _fetch_part(url, part, checksums, tries, timeout, progress, sleep) -> None:
    """Try until the part is whole and verified."""
    for number in range(1, tries + 1):
        try:
            _receive(url, part, any(checksums.values()), timeout, progress or (lambda done, total: None))
            fault = check(part.path, **checksums)
            if fault is None:
                return
            part.restart()
            raise _FailedTryError(fault)
        except _FailedTryError as failure:
            if number == tries:
                raise DownloadError(url, f"{failure} (tried {tries} times)") from None
            sleep(min(LONGEST_DELAY_S, max(FIRST_DELAY_S * 2 ** (number - 1), failure.wait_s)))


def _receive(url: str, part: PartFile, has_checksum: bool, timeout: float, progress) -> None:
    """One request: append to the part what it lacks, or start it over."""
    done = part.size()
    headers = {"User-Agent": "active-speakers-in-context", "Accept-Encoding": "identity"}
    version = part.version()
    if done and (version or has_checksum):
        headers["Range"] = f"bytes={done}-"
        if version:
            headers["If-Range"] = version
    else:
        done = 0
    progress(done, None)
    with _open(url, headers, timeout) as response:
        if response.status == RANGE_NOT_SATISFIABLE:
            # The part is complete (a kill before the renaming) or too long: size or checksum tell.
            if not (has_checksum or response.headers.get("Content-Range") == f"bytes */{done}"):
                part.restart()
                raise _FailedTryError(f"{part.path} did not fit and starts over")
            return
        total = _total_size(url, response, has_checksum)
        if response.status == 206:
            # Not every server that honours Range honours If-Range too.
            if _range_start(response) != done or (version and _version_of(response) not in ("", version)):
                part.restart()
                raise _FailedTryError(f"asked for the bytes from {done} of one version, got others")
        else:
            done = 0
            part.restart(_version_of(response))
        progress(done, total)
        for block in _blocks(response, None if total is None else total - done):
            part.write(block)
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
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise DownloadError(url, f"{error.reason}; mend this Python's certificates or the clock") from None
        raise _FailedTryError(f"no connection: {error.reason}") from None
    except (OSError, http.client.HTTPException) as error:
        raise _FailedTryError(f"no answer: {error or type(error).__name__}") from None
    with response:
        status = response.status
        if status >= 500 or status in RETRIED_STATUSES:
            pause = response.headers.get("Retry-After", "")  # seconds, or a date, which the own back-off replaces
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
        raise DownloadError(url, f"the server sends it as {headers['Content-Encoding']}, though asked for it as it is")
    if not has_checksum and headers.get_content_type() == "text/html":
        raise DownloadError(url, "the server answers with a web page instead of a file; open the address in a browser")
    if response.status == 206:
        size = headers.get("Content-Range", "").rpartition("/")[2]
    else:
        size = headers.get("Content-Length", "")
    if size.isdecimal():
        return int(size)
    if not has_checksum and headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise DownloadError(url, "the server does not tell its size, so that nothing would show a part missing")
    return None


def _range_start(response: http.client.HTTPResponse) -> int | None:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else None


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
