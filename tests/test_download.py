"""core.download.fetch and core.download.many against a server that misbehaves."""

import hashlib
import resource
import socket
from pathlib import Path

import pytest

from core.download.fetch import DownloadError, check, fetch
from core.download.many import Downloader, Remote
from core.runtime.errors import UserError

CONTENT = bytes(range(256)) * 4000  # several blocks long
HALF = len(CONTENT) // 2
FROM_HALF = f"bytes={HALF}-"
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BY_MD5, BY_SHA256 = {"md5": MD5}, {"sha256": SHA256}
ETAG = f'"{MD5}"'


@pytest.fixture
def naps(server):
    """The seconds that were slept, in place of sleeping."""
    server.files["/file"] = CONTENT
    return []


@pytest.fixture
def get(server, tmp_path, naps):
    def get(**options) -> bytes:
        assert fetch(f"{server.url}/file", tmp_path / "file", sleep=naps.append, **options) == tmp_path / "file"
        return (tmp_path / "file").read_bytes()

    return get


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("checksums", [{}, BY_MD5, {"sha256": SHA256.upper()}, BY_MD5 | BY_SHA256])
def test_a_file_is_fetched_once(get, server, tmp_path, naps, checksums):
    assert get(**checksums) == get(**checksums) == CONTENT
    assert server.paths() == ["/file"]
    assert (names(tmp_path), naps) == (["file"], [])


def test_check(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert check(path) is None
    assert check(path, md5=MD5.upper(), sha256=SHA256) is None
    fault = check(path, md5=MD5, sha256="0" * 64)
    assert all(fact in fault for fact in ("SHA256", SHA256, "0" * 64))


@pytest.mark.parametrize(
    ("faults", "options", "ranges"),
    [
        *((f"{status} {status}", {}, [None] * 3) for status in ("500", "503", "429", "408")),
        ("hang_up hang_up", {}, [None] * 3),
        # What has come is continued.
        ("truncate truncate", {}, [None, FROM_HALF, f"bytes={HALF + HALF // 2}-"]),
        ("silent", {"timeout": 0.2}, [None, FROM_HALF]),
        ("chunks_cut chunks_cut", {}, [None, f"bytes={len(CONTENT)}-", f"bytes={len(CONTENT)}-"]),
        # A server without ranges, or with other ones, starts over.
        ("truncate ignore_range", {}, [None, FROM_HALF]),
        ("truncate other_range", {}, [None, FROM_HALF, None]),
        # Without a mark of the version only a checksum allows to continue.
        *((mark, {}, [None, None]) for mark in ("no_mark", "weak_mark")),
        *((mark, BY_MD5, [None, FROM_HALF]) for mark in ("no_mark", "weak_mark")),
        # Wrong bytes are thrown away.
        *(("truncate wrong_bytes", checksum, [None, FROM_HALF, None]) for checksum in (BY_MD5, BY_SHA256)),
        # A checksum, or the end of the chunks, stands in for the size.
        *((form, BY_MD5, [None]) for form in ("html", "no_length", "chunked")),
        ("chunked", {}, [None]),
    ],
)
def test_the_file_becomes_whole_in_spite_of_faults(get, server, tmp_path, faults, options, ranges):
    server.faults["/file"] = faults.split()
    assert get(**options) == CONTENT
    assert server.ranges() == ranges
    assert {asked.if_range for asked in server.asked} <= {None, ETAG}
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("fault", "options", "fact", "tries"),
    [
        *((status, {}, f": {status} ", 1) for status in ("403", "404", "204", "410")),
        ("html", {}, "web page", 1),
        ("no_length", {}, "size", 1),
        ("gzip", {}, "gzip", 1),
        ("hang_up", {}, "tried 5 times", 5),
        ("wrong_bytes", {"tries": 3, **BY_MD5}, f"expected {MD5} (tried 3 times)", 3),
        ("wrong_bytes", {"tries": 3, **BY_SHA256}, f"expected {SHA256} (tried 3 times)", 3),
    ],
)
def test_nothing_is_left_of_a_file_that_cannot_be_downloaded(get, server, tmp_path, naps, fault, options, fact, tries):
    server.faults["/file"] = [fault] * 9
    with pytest.raises(DownloadError) as caught:
        get(**options)
    assert caught.value.url == f"{server.url}/file"
    assert caught.value.url in str(caught.value)
    assert fact in str(caught.value)
    assert len(server.asked) == tries
    assert naps == [1, 2, 4, 8][: tries - 1]
    assert names(tmp_path) == []


def test_back_off_obeys_the_server(get, server, naps):
    server.faults["/file"] = ["429", "503"]
    assert get() == CONTENT
    assert naps == [7, 7]  # Retry-After of the test server


def test_no_server(tmp_path, naps):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file"
        with pytest.raises(DownloadError, match="no connection"):
            fetch(url, tmp_path / "file", tries=2, sleep=naps.append)
    assert naps == [1]


def test_a_later_call_continues(get, server, tmp_path):
    server.faults["/file"] = ["truncate"]
    with pytest.raises(DownloadError, match=f"{HALF} of {len(CONTENT)} bytes"):
        get(tries=1)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:HALF]
    assert not (tmp_path / "file").exists()
    assert get() == CONTENT
    assert server.ranges() == [None, FROM_HALF]
    assert names(tmp_path) == ["file"]


def test_an_interrupt_leaves_a_part_that_is_continued(get, server, tmp_path):
    def interrupt(done: int, total: int | None) -> None:
        if done >= 300_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(progress=interrupt)
    size = (tmp_path / "file.part").stat().st_size
    assert 300_000 <= size < len(CONTENT)
    assert get() == CONTENT
    assert server.ranges() == [None, f"bytes={size}-"]


@pytest.mark.parametrize(("fault", "more"), [(None, []), ("ignore_if-range", [None])])
def test_another_version_on_the_server_starts_over(get, server, fault, more):
    server.faults["/file"] = ["truncate", fault]
    with pytest.raises(DownloadError):
        get(tries=1)
    server.files["/file"] = CONTENT[::-1]
    assert get() == CONTENT[::-1]
    assert server.ranges() == [None, FROM_HALF, *more]


@pytest.mark.parametrize("options", [{}, BY_MD5])
@pytest.mark.parametrize("surplus", [b"", b"more"])
def test_a_complete_part_is_only_verified_and_one_too_long_starts_over(get, server, tmp_path, options, surplus):
    (tmp_path / "file.part").write_bytes(CONTENT + surplus)
    (tmp_path / "file.part.version").write_text(ETAG)
    assert get(**options) == CONTENT
    assert server.ranges() == [f"bytes={len(CONTENT + surplus)}-", *[None] * bool(surplus)]
    assert names(tmp_path) == ["file"]


def test_progress(get, server):
    reported = []
    server.faults["/file"] = ["truncate"]
    get(progress=lambda done, total: reported.append((done, total)))
    assert reported[0] == (0, None)
    assert (HALF, None) in reported  # the second try
    assert reported[-1] == (len(CONTENT), len(CONTENT))


def test_two_at_the_same_file_do_not_mix_their_bytes(get, server):
    refused = []

    def fetch_at_the_same_time(done: int, total: int | None) -> None:
        with pytest.raises(DownloadError, match=r"file\.part") as caught:
            get()
        refused.append(caught.value)

    assert get(progress=fetch_at_the_same_time) == CONTENT
    assert refused
    assert len(server.asked) == 1


def test_mistakes_of_the_user(server, tmp_path):
    (tmp_path / "plain").write_text("")
    (tmp_path / "file.part").mkdir()
    for url, path, fact in (
        ("file:///etc/hostname", "file", "file:///etc/hostname"),
        (f"{server.url}/file", "plain/file", str(tmp_path / "plain")),
        (f"{server.url}/file", "file", "cannot write"),
    ):
        with pytest.raises(UserError, match=fact) as caught:
            fetch(url, tmp_path / path)
        assert not isinstance(caught.value, DownloadError)


def test_a_full_disk_is_the_users_to_mend(get, server, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, limits[1]))  # beyond it writing fails, as on a full disk
    try:
        with pytest.raises(UserError, match=r"cannot write .*file: File too large") as caught:
            get()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not isinstance(caught.value, DownloadError)
    assert names(tmp_path) == ["file.part", "file.part.version"]
    assert get() == CONTENT
    assert server.ranges() == [None, FROM_HALF]


def test_many(server, tmp_path, naps):
    server.files |= {f"/{number}": bytes([number]) * 1000 for number in range(20)}
    server.faults |= {"/3": ["500"], "/4": ["truncate"]}
    del server.files["/7"]
    remotes = {Path("-to", str(number)): Remote(f"{server.url}/{number}") for number in range(20)}
    downloader = Downloader(tmp_path, jobs=5, sleep=naps.append)
    assert remotes.keys() - downloader.fetch(remotes, "files") == {Path("-to", "7")}
    assert [line.split(" (")[0] for line in downloader.missing] == ["-to/7: 404 Not Found"]
    for number in set(range(20)) - {7}:
        assert (tmp_path / "-to" / str(number)).read_bytes() == bytes([number]) * 1000
    assert sorted(naps) == [1, 7]  # 7: Retry-After of the 500
    assert downloader.fetch({}, "nothing") == set()


def test_many_stop_when_going_on_is_useless(server, tmp_path, naps):
    (tmp_path / "plain").write_text("")
    remotes = {Path("plain", "first"): Remote(f"{server.url}/file")}
    remotes |= {Path(str(number)): Remote(f"{server.url}/file") for number in range(50)}
    with pytest.raises(UserError, match="plain"):
        Downloader(tmp_path, jobs=1).fetch(remotes, "files")
    assert len(server.asked) < 50
