"""ava-download against a server that holds a small AVA at the paths of the real one."""

from pathlib import Path

import pytest
from ava_asd_set import write_config
from faulty_server import IDS, MD5S, NAMES, VIDEO, VIDEOS, csv_of, serve_small_ava
from tiny import exit_status, tree

from ava_asd import download
from ava_asd.config import read_config
from core.download.ava_release import AVA
from core.runtime.errors import EXIT_BROKEN_ITEMS, EXIT_USER_ERROR

FOLDERS = {"train": "train_ann_dir", "val": "test_ann_dir"}


@pytest.fixture
def run(server, tmp_path):
    """Run the command in `tmp_path`/data; the exit status."""
    small_ava, config = serve_small_ava(server), write_config(tmp_path / "config.yaml")

    def run(what: str, *options: object, sources=small_ava) -> int:
        def main(arguments: list[str]) -> None:
            download.main(arguments, sources=sources, sleep=lambda seconds: None)

        return exit_status(main, what, config, tmp_path / "data", *options)

    return run


@pytest.fixture
def path(tmp_path):
    config = read_config(write_config(tmp_path / "config.yaml"))
    return lambda key: config.path(tmp_path / "data", key)


def test_everything_goes_where_the_configuration_says_into_a_new_folder(run, server, path):
    for _ in range(2):
        assert run("annotations") == run("videos", "--jobs", 2) == 0
        for split, key in FOLDERS.items():
            assert tree(path(key)) == {f"{name}-activespeaker.csv": csv_of(name) for name in IDS[split]}
        assert tree(path("vid_save_path")) == VIDEOS
        assert len(server.paths()) == len(set(server.paths())) == 7  # nothing is fetched twice


def test_what_is_missing_is_listed_and_fetched_by_the_next_run(run, server, path, capsys):
    assert run("annotations") == 0
    first = server.files.pop(VIDEO.format("-a_1.mkv"))
    server.files[NAMES] = b"-a_1.mkv\n--c3.webm\n"
    assert run("videos") == EXIT_BROKEN_ITEMS
    errors = capsys.readouterr().err
    assert all(fact in errors for fact in ("2 missing", "-a_1.mkv: 404", "b-2: annotated, but not listed"))
    assert tree(path("vid_save_path")) == {"--c3.webm": VIDEOS["--c3.webm"]}
    server.files |= {VIDEO.format("-a_1.mkv"): first, NAMES: "\n".join(VIDEOS).encode()}
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


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [("videos", "no annotation folder"), ("annotations --jobs 0", "--jobs 0"), ("annotations --mirror ftp://x", "ftp")],
)
def test_mistakes_of_the_user(run, capsys, arguments, fact):
    assert run(*arguments.split()) == EXIT_USER_ERROR
    assert fact in capsys.readouterr().err


def test_a_mirror_with_other_archives(run, server, path, capsys):
    server.files = {f"/mirror{name}": content for name, content in server.files.items()}
    arguments = ("annotations", "--mirror", f"{server.url}/mirror")
    assert run(*arguments, sources=AVA) == EXIT_BROKEN_ITEMS
    assert "its MD5 is" in capsys.readouterr().err
    assert run(*arguments, "--no-md5", sources=AVA) == 0
    assert len(tree(path("train_ann_dir"))) == 2
