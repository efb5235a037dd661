"""Downloaded once, checked always, and plain words where a file cannot be had. All servers are local."""

import hashlib
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest
from faulty_server import FaultyServer

from core.download.cache import NotDownloadedError, RemoteFile, cache_folder, cached
from core.download.weights_catalogue import WEIGHTS, YUNET, PublishedWeights, find_weights
from core.runtime.errors import UserError

CONTENT = b"weights" * 1000


def remote(url: str, content: bytes = CONTENT) -> RemoteFile:
    return RemoteFile("the test file", "test.model", url, hashlib.sha256(content).hexdigest(), "MIT")


def test_a_file_is_downloaded_once(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with FaultyServer() as server:
        server.files["/test.model"] = CONTENT
        path = cached(remote(f"{server.url}/test.model"), tmp_path)
        assert path == tmp_path / "test.model"
        assert path.read_bytes() == CONTENT
        asked = len(server.asked)
        assert cached(remote(f"{server.url}/test.model"), tmp_path) == path
        assert len(server.asked) == asked


def test_two_at_once_download_once(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with FaultyServer() as server:
        server.files["/test.model"] = CONTENT
        server.faults["/test.model"] = ["silent"]  # half of it, then nothing until told to go on
        file = remote(f"{server.url}/test.model")
        with ThreadPoolExecutor(2) as pool:  # the lock is of an open file, so threads serve as well as processes
            first = pool.submit(cached, file, tmp_path)
            assert server.half_sent.wait(5)
            second = pool.submit(cached, file, tmp_path)
            assert not wait([first, second], timeout=0.2).done
            server.go_on.set()
            assert first.result() == second.result() == tmp_path / "test.model"
        assert server.ranges().count(None) == 1  # only one began at the beginning


def test_another_file_in_the_cache_is_refused(tmp_path):
    (tmp_path / "test.model").write_bytes(b"something else")
    with pytest.raises(UserError, match="is not the test file"):
        cached(remote("http://127.0.0.1:9/test.model"), tmp_path)


def test_a_cache_that_cannot_be_written_to_is_told_with_a_way_out(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotDownloadedError) as caught:
        cached(remote("http://127.0.0.1:9/test.model"), tmp_path / "file" / "cache")
    assert all(fact in str(caught.value) for fact in (str(tmp_path / "file" / "cache"), "--cache", "ASC_CACHE"))


def test_without_network_the_message_says_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr("core.download.cache.TRIES", 1)
    with pytest.raises(UserError) as caught:
        cached(remote("http://127.0.0.1:9/test.model"), tmp_path)
    message = str(caught.value)
    assert "http://127.0.0.1:9/test.model" in message
    assert hashlib.sha256(CONTENT).hexdigest() in message
    assert str(tmp_path / "test.model") in message


def test_the_folder_is_the_one_given_or_set_or_the_users(tmp_path, monkeypatch):
    monkeypatch.delenv("ASC_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("sys.platform", "linux")
    assert cache_folder() == tmp_path / "xdg" / "active-speakers-in-context"
    monkeypatch.setenv("ASC_CACHE", str(tmp_path / "set"))
    assert cache_folder() == tmp_path / "set"
    assert cache_folder("given") == Path("given")


def test_published_weights_are_named_apart_and_pinned():
    files = [weights.file for of_encoder in WEIGHTS.values() for weights in of_encoder.values()] + [YUNET]
    assert len({file.name for file in files}) == len(files)
    assert len({file.sha256 for file in files}) == len(files)
    assert all(len(file.sha256) == 64 and file.url.startswith("https://") for file in files)


def test_published_weights_fit_the_files_that_are_there(shared):
    for encoder, of_encoder in WEIGHTS.items():
        for name, weights in of_encoder.items():
            path, crop = find_weights(encoder, name, shared / "models")
            assert path == shared / "models" / weights.file.name
            assert crop == weights.crop
    assert cached(YUNET, shared / "models").is_file()


def test_own_weights_have_no_protocol(tmp_path):
    (tmp_path / "own.pth").write_bytes(b"")
    assert find_weights("lr_asd", tmp_path / "own.pth") == (tmp_path / "own.pth", None)


def test_published_weights_given_by_their_path_keep_their_protocol(tmp_path, monkeypatch):
    (tmp_path / "renamed.pth").write_bytes(CONTENT)
    published = {"talkset": PublishedWeights(remote("http://127.0.0.1:9/test.model"), "lower_face")}
    monkeypatch.setitem(WEIGHTS, "lr_asd", published)
    assert find_weights("lr_asd", str(tmp_path / "renamed.pth")) == (tmp_path / "renamed.pth", "lower_face")


def test_unknown_weights_list_what_there_is(tmp_path):
    with pytest.raises(UserError, match=r"ava or talkset .* or the path of a state dict"):
        find_weights("lr_asd", "imagenet")
