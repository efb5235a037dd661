"""core.download.fetch and core.download.many against a server that misbehaves."""

import hashlib
import resource
import socket
from pathlib import Path

import pytest
from faulty_server import FaultyServer

from core.download.fetch import DownloadError, check, fetch
from core.download.many import Downloader, Remote
from core.runtime.errors import UserError

CONTENT = bytes(range(256)) * 4000  # several blocks long
HALF = len(CONTENT) // 2
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with FaultyServer() as server:
        server.files["/file"] = CONTENT
        yield server


@pytest.fixture
def naps():
    """The seconds that were slept, in place of sleeping."""
    return []


@pytest.fixture
def get(server, tmp_path, naps):
    def get(**options) -> bytes:
        assert fetch(f"{server.url}/file", tmp_path / "file", sleep=naps.append, **options) == tmp_path / "file"
        return (tmp_path / "file").read_bytes()

    return get


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("checksums", [{}, {"md5": MD5}, {"sha256": SHA256.upper()}, {"md5": MD5, "sha256": SHA256}])
def test_plain(get, server, tmp_path, naps, checksums):
    assert get(**checksums) == CONTENT
    assert names(tmp_path) == ["file"]
    assert naps == []
    assert get(**checksums) == CONTENT
    assert server.paths() == ["/file"]  # the second call asked nobody


def test_check(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert check(path) is None
    assert check(path, md5=MD5.upper(), sha256=SHA256) is None
    assert check(path, md5=MD5, sha256="0" * 64) == f"its SHA256 is {SHA256}, expected {'0' * 64}"


@pytest.mark.parametrize("fault", ["500", "503", "429", "408", "hang up", "truncate", "chunks cut"])
def test_transient_faults_are_tried_again(get, server, tmp_path, fault):
    server.faults["/file"] = [fault, fault]
    assert get() == CONTENT
    assert len(server.asked) == 3
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("status", ["403", "404", "204", "410"])
def test_other_statuses_fail_at_once(get, server, tmp_path, status):
    server.faults["/file"] = [status]
    with pytest.raises(DownloadError, match=f"{server.url}/file .*: {status} "):
        get()
    assert len(server.asked) == 1
    assert names(tmp_path) == []


def test_back_off_doubles_and_tries_end(get, server, tmp_path, naps):
    server.faults["/file"] = ["hang up"] * 9
    with pytest.raises(DownloadError, match=r"tried 5 times") as caught:
        get()
    assert naps == [1, 2, 4, 8]
    assert len(server.asked) == 5
    assert caught.value.url == f"{server.url}/file"
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


def test_a_silent_server_is_given_up(get, server):
    server.faults["/file"] = ["silent"]
    assert get(timeout=0.2) == CONTENT
    assert server.ranges() == [None, f"bytes={HALF}-"]


def test_truncated_body_is_continued(get, server):
    server.faults["/file"] = ["truncate", "truncate"]
    assert get() == CONTENT
    assert server.ranges() == [None, f"bytes={HALF}-", f"bytes={HALF + HALF // 2}-"]
    assert server.asked[1].if_range == f'"{MD5}"'


def test_a_later_call_continues(get, server, tmp_path):
    server.faults["/file"] = ["truncate"]
    with pytest.raises(DownloadError, match=f"{HALF} of {len(CONTENT)} bytes came"):
        get(tries=1)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:HALF]
    assert not (tmp_path / "file").exists()
    assert get() == CONTENT
    assert server.ranges() == [None, f"bytes={HALF}-"]
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


@pytest.mark.parametrize("fault", ["ignore range", "other range"])
def test_a_server_without_ranges_starts_over(get, server, fault):
    server.faults["/file"] = ["truncate", fault]
    assert get() == CONTENT
    assert server.ranges()[:2] == [None, f"bytes={HALF}-"]


@pytest.mark.parametrize("fault", [None, "ignore if-range"])
def test_another_version_on_the_server_starts_over(get, server, tmp_path, fault):
    server.faults["/file"] = ["truncate", fault]
    with pytest.raises(DownloadError):
        get(tries=1)
    server.files["/file"] = CONTENT[::-1]
    assert get() == CONTENT[::-1]
    assert server.ranges()[1] == f"bytes={HALF}-"


@pytest.mark.parametrize("mark", ["no mark", "weak mark"])
def test_without_a_mark_only_a_checksum_allows_to_continue(get, server, tmp_path, mark):
    server.faults["/file"] = [mark]  # and half a body
    assert get() == CONTENT
    assert server.ranges() == [None, None]
    (tmp_path / "file").unlink()
    server.asked.clear()
    server.faults["/file"] = [mark]
    assert get(md5=MD5) == CONTENT
    assert server.ranges() == [None, f"bytes={HALF}-"]
    assert server.asked[1].if_range is None


@pytest.mark.parametrize("checksum", [{"md5": MD5}, {"sha256": SHA256}])
def test_wrong_bytes_are_thrown_away(get, server, tmp_path, checksum):
    server.faults["/file"] = ["truncate", "wrong bytes"]
    assert get(**checksum) == CONTENT
    assert server.ranges() == [None, f"bytes={HALF}-", None]
    (tmp_path / "file").unlink()
    server.faults["/file"] = ["wrong bytes"] * 3
    with pytest.raises(DownloadError, match=r"its (MD5|SHA256) is \w+, expected \w+ \(tried 3 times\)"):
        get(tries=3, **checksum)
    assert names(tmp_path) == []


@pytest.mark.parametrize("options", [{}, {"md5": MD5}])
@pytest.mark.parametrize("surplus", [b"", b"more"])
def test_a_complete_part_is_only_verified_and_one_too_long_starts_over(get, server, tmp_path, options, surplus):
    (tmp_path / "file.part").write_bytes(CONTENT + surplus)
    (tmp_path / "file.part.version").write_text(f'"{MD5}"')
    assert get(**options) == CONTENT
    assert server.ranges() == [f"bytes={len(CONTENT + surplus)}-", *[None] * bool(surplus)]
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("fault", "says"), [("html", "web page"), ("no length", "does not state its size"), ("gzip", "sends it as gzip")]
)
def test_what_cannot_be_judged_is_refused(get, server, tmp_path, fault, says):
    server.faults["/file"] = [fault]
    with pytest.raises(DownloadError, match=says):
        get()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("fault", "options"),
    [("html", {"md5": MD5}), ("no length", {"md5": MD5}), ("chunked", {"md5": MD5}), ("chunked", {})],
)
def test_a_checksum_or_the_end_of_chunks_can_judge_it(get, server, fault, options):
    server.faults["/file"] = [fault]
    assert get(**options) == CONTENT
    assert len(server.asked) == 1


def test_progress_is_told(get, server):
    told = []
    server.faults["/file"] = ["truncate"]
    get(progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, None)
    assert (HALF, None) in told  # the second try
    assert told[-1] == (len(CONTENT), len(CONTENT))


def test_two_at_the_same_file_do_not_mix_their_bytes(get, server):
    refused = []

    def fetch_at_the_same_time(done: int, total: int | None) -> None:
        with pytest.raises(DownloadError, match=r"another process is writing .*file\.part") as caught:
            get()
        refused.append(caught.value)

    assert get(progress=fetch_at_the_same_time) == CONTENT
    assert refused
    assert len(server.asked) == 1


def test_mistakes_of_the_user(server, tmp_path):
    with pytest.raises(UserError, match="begins with http"):
        fetch("file:///etc/hostname", tmp_path / "file")
    (tmp_path / "plain").write_text("")
    with pytest.raises(UserError, match="cannot create the folder"):
        fetch(f"{server.url}/file", tmp_path / "plain" / "file")
    (tmp_path / "file.part").mkdir()
    with pytest.raises(UserError, match="cannot write") as caught:
        fetch(f"{server.url}/file", tmp_path / "file")
    assert not isinstance(caught.value, DownloadError)


def test_a_full_disk_is_the_users_to_mend(get, server, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, limits[1]))  # beyond it writing fails, as on a full disk
    try:
        with pytest.raises(UserError, match=r"cannot write .*file: File too large; free some space") as caught:
            get()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not isinstance(caught.value, DownloadError)
    assert names(tmp_path) == ["file.part", "file.part.version"]
    assert get() == CONTENT
    assert server.ranges() == [None, f"bytes={HALF}-"]


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


def test_many_stop_when_going_on_is_useless(server, tmp_path):
    (tmp_path / "plain").write_text("")
    server.files["/first"] = CONTENT
    remotes = {Path("plain", "first"): Remote(f"{server.url}/first")}
    remotes |= {Path(str(number)): Remote(f"{server.url}/file") for number in range(50)}
    with pytest.raises(UserError, match="cannot create the folder"):
        Downloader(tmp_path, jobs=1).fetch(remotes, "files")
    assert len(server.asked) < 50
