"""Files downloaded once and checked always, and what is said where one could not be downloaded; servers are local."""

import hashlib
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from core.download.cache import NotDownloadedError, RemoteFile, cache_folder, cached
from core.download.weights_catalogue import WEIGHTS, YUNET, PublishedWeights, find_weights
from core.runtime.errors import UserError

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
UNREACHABLE = RemoteFile("the test file", "test.model", "http://127.0.0.1:9/test.model", SHA256, "MIT")


@pytest.fixture
def remote(server) -> RemoteFile:
    server.files["/test.model"] = CONTENT
    return RemoteFile("the test file", "test.model", f"{server.url}/test.model", SHA256, "MIT")


def test_a_file_is_downloaded_once(remote, server, tmp_path):
    for _ in range(2):
        assert cached(remote, tmp_path) == tmp_path / "test.model"
        assert (tmp_path / "test.model").read_bytes() == CONTENT
        assert server.paths() == ["/test.model"]


def test_two_at_once_download_once(remote, server, tmp_path):
    server.faults["/test.model"] = ["silent"]  # half of it, then nothing until told to go on
    with ThreadPoolExecutor(2) as pool:  # the lock is of an open file, so threads serve as well as processes
        first = pool.submit(cached, remote, tmp_path)
        assert server.half_sent.wait(5)
        second = pool.submit(cached, remote, tmp_path)
        assert not wait([first, second], timeout=0.2).done
        server.go_on.set()
        assert first.result() == second.result() == tmp_path / "test.model"
    assert server.ranges().count(None) == 1  # only one began at the beginning


def test_another_file_in_the_cache_is_refused(tmp_path):
    (tmp_path / "test.model").write_bytes(b"something else")
    with pytest.raises(UserError, match=f"is not the test file: .*{SHA256}"):
        cached(UNREACHABLE, tmp_path)


def test_what_could_not_be_downloaded_can_be_put_there_by_hand(tmp_path, monkeypatch):
    monkeypatch.setattr("core.download.cache.TRIES", 1)
    (tmp_path / "file").touch()
    for cache, facts in ((tmp_path, []), (tmp_path / "file" / "cache", ["--cache", "ASC_CACHE"])):
        with pytest.raises(NotDownloadedError) as caught:
            cached(UNREACHABLE, cache)
        assert all(fact in str(caught.value) for fact in (UNREACHABLE.url, SHA256, str(cache / "test.model"), *facts))


def test_the_folder_is_the_one_given_or_set_or_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("ASC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "active-speakers-in-context"
    monkeypatch.setenv("ASC_CACHE", str(tmp_path / "set"))
    assert cache_folder() == tmp_path / "set"
    assert cache_folder("given") == Path("given")


def test_published_weights_have_different_names_and_are_pinned():
    files = [weights.file for of_encoder in WEIGHTS.values() for weights in of_encoder.values()] + [YUNET]
    assert len({file.name for file in files}) == len({file.sha256 for file in files}) == len(files)
    assert all(len(file.sha256) == 64 and file.url.startswith("https://") for file in files)


def test_published_weights_fit_the_files_that_are_there(shared):
    for encoder, of_encoder in WEIGHTS.items():
        for name, weights in of_encoder.items():
            found = find_weights(encoder, name, shared / "models")
            assert found == (shared / "models" / weights.file.name, weights.crop)
    assert cached(YUNET, shared / "models").is_file()


def test_weights_given_by_their_path_have_the_crop_of_published_ones_or_none(tmp_path, monkeypatch):
    monkeypatch.setitem(WEIGHTS, "lr_asd", {"talkset": PublishedWeights(UNREACHABLE, "lower_face")})
    for name, content, crop in (("own.pth", b"", None), ("renamed.pth", CONTENT, "lower_face")):
        (tmp_path / name).write_bytes(content)
        assert find_weights("lr_asd", str(tmp_path / name)) == (tmp_path / name, crop)


def test_unknown_weights_list_what_there_is():
    with pytest.raises(UserError, match=r"imagenet: .*ava or talkset .*path of a state dict"):
        find_weights("lr_asd", "imagenet")
