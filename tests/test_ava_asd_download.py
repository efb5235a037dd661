"""ava-download against a server that holds a small AVA at the paths of the real one."""

from pathlib import Path

import pytest
from ava_asd_set import write_config
from faulty_server import IDS, MD5S, NAMES, VIDEOS, FaultyServer, csv_of, serve_small_ava, tree

from ava_asd import download
from ava_asd.config import read_config
from core.runtime.errors import EXIT_BROKEN_ITEMS, EXIT_USER_ERROR

FOLDERS = {"train": "train_ann_dir", "val": "test_ann_dir"}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with FaultyServer() as server:
        serve_small_ava(server)
        yield server


@pytest.fixture
def run(server, tmp_path):
    """Run the command in `tmp_path`/data; the exit status."""
    sources = serve_small_ava(server)
    config = write_config(tmp_path / "config.yaml")

    def run(what: str, *options: object) -> int:
        arguments = [what, str(config), str(tmp_path / "data"), *map(str, options)]
        with pytest.raises(SystemExit) as ended:
            download.main(arguments, sources=sources, sleep=lambda seconds: None)
        return ended.value.code

    return run


@pytest.fixture
def path(tmp_path):
    config = read_config(write_config(tmp_path / "config.yaml"))
    return lambda key: config.path(tmp_path / "data", key)


def test_everything_goes_where_the_configuration_says_into_a_new_folder(run, server, path):
    assert run("annotations") == 0
    for split, key in FOLDERS.items():
        assert tree(path(key)) == {f"{name}-activespeaker.csv": csv_of(name) for name in IDS[split]}
    assert run("videos", "--jobs", 2) == 0
    assert tree(path("vid_save_path")) == VIDEOS
    asked = len(server.paths())
    assert run("annotations") == run("videos") == 0
    assert len(server.paths()) == asked  # nothing is fetched twice


def test_what_is_missing_is_told_and_fetched_by_the_next_run(run, server, path, capsys):
    assert run("annotations") == 0
    first = server.files.pop("/ava-dataset/trainval/-a_1.mkv")
    server.files[NAMES] = b"-a_1.mkv\n--c3.webm\n"
    assert run("videos") == EXIT_BROKEN_ITEMS
    told = capsys.readouterr().err
    assert "2 missing" in told
    assert "-a_1.mkv: 404" in told
    assert "b-2: annotated, but not listed" in told
    assert tree(path("vid_save_path")) == {"--c3.webm": VIDEOS["--c3.webm"]}
    server.files["/ava-dataset/trainval/-a_1.mkv"] = first
    server.files[NAMES] = "\n".join(VIDEOS).encode()
    (path("download_path") / Path(NAMES).name).unlink()
    assert run("videos") == 0
    assert tree(path("vid_save_path")) == VIDEOS


def test_without_checksums_no_video_is_fetched_unless_asked_for(run, server, path, capsys):
    assert run("annotations") == 0
    del server.files[MD5S]
    assert run("videos") == EXIT_BROKEN_ITEMS
    assert "--no-md5" in capsys.readouterr().err
    assert tree(path("vid_save_path")) == {}
    assert run("videos", "--no-md5") == 0
    assert tree(path("vid_save_path")) == VIDEOS


def test_user_mistakes(run, capsys):
    assert run("videos") == EXIT_USER_ERROR
    assert "no annotation folder" in capsys.readouterr().err
    assert run("annotations", "--jobs", 0) == EXIT_USER_ERROR
    assert "--jobs 0: expected 1 or more" in capsys.readouterr().err
    assert run("annotations", "--mirror", "ftp://x") == EXIT_USER_ERROR
    assert "--mirror ftp://x: give an address such as" in capsys.readouterr().err


def test_a_mirror_with_other_archives(server, tmp_path, path, capsys):
    command = ["annotations", str(write_config(tmp_path / "config.yaml")), str(tmp_path / "data")]
    command += ["--mirror", f"{server.url}/mirror"]
    server.files |= {f"/mirror{name}": content for name, content in server.files.items()}
    with pytest.raises(SystemExit) as ended:
        download.main(command, sleep=lambda seconds: None)
    assert ended.value.code == EXIT_BROKEN_ITEMS
    assert "its MD5 is" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        download.main([*command, "--no-md5"])
    assert ended.value.code == 0
    assert len(tree(path("train_ann_dir"))) == 2
    assert all(asked.startswith("/mirror/ava/download/") for asked in server.paths())
