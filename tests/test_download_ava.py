"""data/download_ava.py and core.download.ava_release against a server that misbehaves."""

import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from faulty_server import ARCHIVE, IDS, MD5S, NAMES, UTILITY, VIDEO, VIDEOS, archive_of, csv_of, member
from faulty_server import serve_small_ava as serve
from tiny import exit_status, tree

from core.download.ava_release import AVA, at_mirror, read_archive, read_md5s, read_video_names, unpack_annotations
from core.download.many import Remote
from core.runtime.errors import UserError
from data import download_ava

ROOT = Path(__file__).resolve().parents[1]
VIDEO_FILES = {
    f"{split}/{name}": VIDEOS[name] for split in IDS for name in VIDEOS if name.partition(".")[0] in IDS[split]
}


@pytest.fixture
def run(server):
    """Run the script; its exit status."""
    small_ava = serve(server)

    def run(*arguments: object, sources=small_ava) -> int:
        def main(words: list[str]) -> None:
            download_ava.main(words, sources=sources, sleep=lambda seconds: None)

        return exit_status(main, *arguments)

    return run


def csvs(split: str) -> dict[str, bytes]:
    return {f"{split}/{name}-activespeaker.csv": csv_of(name) for name in IDS[split]}


def videos(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if "/" in name}


def test_annotations(run, server, tmp_path):
    archives = {Path(path).name: content for path, content in server.files.items() if path.endswith(".bz2")}
    for _ in range(2):  # the second run asks nobody
        assert run("annotations", tmp_path) == 0
        assert tree(tmp_path) == csvs("train") | csvs("val") | archives
        assert sorted(server.paths()) == [ARCHIVE.format("train"), ARCHIVE.format("val")]


def test_annotations_of_one_split(run, server, tmp_path):
    assert run("annotations", tmp_path, "--split", "val") == 0
    assert server.paths() == [ARCHIVE.format("val")]
    assert videos(tmp_path) == csvs("val")


def test_a_lost_csv_comes_back_and_an_edited_one_is_not_overwritten(run, server, tmp_path, capsys):
    assert run("annotations", tmp_path) == 0
    lost, edited = (tmp_path / name for name in csvs("train"))
    lost.unlink()
    assert run("annotations", tmp_path) == 0
    assert lost.is_file()
    edited.write_text("mine")
    assert run("annotations", tmp_path) == 2
    assert f"{edited} is not what" in capsys.readouterr().err
    assert edited.read_text() == "mine"


@pytest.mark.parametrize(("faults", "fact"), [(["404"], "404 Not Found ({url})"), (["wrong_bytes"] * 5, "its MD5 is")])
def test_an_archive_that_is_missing_or_wrong_leaves_the_other(run, server, tmp_path, capsys, faults, fact):
    train, val = (ARCHIVE.format(split) for split in IDS)
    server.faults |= {train: faults, val: ["truncate", "500", "hang_up"]}
    assert run("annotations", tmp_path) == 1
    assert videos(tmp_path) == csvs("val")
    errors = capsys.readouterr().err
    assert "1 missing" in errors
    assert f"  {Path(train).name}: {fact.format(url=server.url + train)}" in errors


def test_videos_with_annotations_beside(run, server, tmp_path, capsys):
    assert run("annotations", tmp_path / "annotations") == 0
    server.asked.clear()
    assert run("videos", tmp_path / "videos", "--jobs", 2) == 0
    assert videos(tmp_path / "videos") == VIDEO_FILES
    assert "train: 2 videos, 1 with a known MD5" in capsys.readouterr().out
    assert not any("test_split" in path or path.endswith(".bz2") for path in server.paths())
    server.asked.clear()
    assert run("videos", tmp_path / "videos") == 0
    assert server.asked == []


def test_videos_without_annotations_take_the_ids_of_the_archives(run, server, tmp_path):
    assert run("videos", tmp_path / "videos", "--split", "val") == 0
    assert videos(tmp_path / "videos") == {"val/--c3.webm": VIDEOS["--c3.webm"]}
    assert ARCHIVE.format("val") in server.paths()
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_videos_in_spite_of_faults(run, server, tmp_path):
    server.faults[VIDEO.format("-a_1.mkv")] = ["truncate", "wrong_bytes", "hang_up", "503"]
    server.faults[VIDEO.format("b-2.mp4")] = ["truncate", "ignore_range"]
    assert run("videos", tmp_path) == 0
    assert videos(tmp_path) == VIDEO_FILES


def test_videos_that_are_missing_are_listed(run, server, tmp_path, capsys):
    for split, name in (("train", "nowhere"), ("train", "b-2"), ("val", "--c3")):
        (tmp_path / "csvs" / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / "csvs" / split / f"{name}-activespeaker.csv").touch()
    server.faults[VIDEO.format("b-2.mp4")] = ["403"]
    server.faults[VIDEO.format("--c3.webm")] = ["wrong_bytes"] * 5
    assert run("videos", tmp_path / "to", "--annotations", tmp_path / "csvs") == 1
    header, *missing = capsys.readouterr().err.splitlines()
    assert "3 missing" in header
    facts = ("train/nowhere: annotated, but not listed", "train/b-2.mp4: 403 Forbidden", "val/--c3.webm: its MD5 is")
    assert all(line.startswith(f"  {fact}") for line, fact in zip(missing, facts, strict=True))
    assert videos(tmp_path / "to") == {}
    server.asked.clear()
    assert run("videos", tmp_path / "to", "--annotations", tmp_path / "csvs") == 1  # nowhere is still missing
    assert sorted(server.paths()) == [VIDEO.format("--c3.webm"), VIDEO.format("b-2.mp4")]


@pytest.mark.parametrize("lost", [MD5S, NAMES, ARCHIVE.format("train")])
def test_no_video_comes_without_the_lists_or_the_annotations(run, server, tmp_path, capsys, lost):
    del server.files[lost]
    assert run("videos", tmp_path) == 1
    errors = capsys.readouterr().err
    assert f"{Path(lost).name}: 404" in errors
    assert ("--no-md5" in errors) == (lost == MD5S)
    assert videos(tmp_path) == {}
    assert run("videos", tmp_path, "--no-md5") == (0 if lost == MD5S else 1)
    assert videos(tmp_path) == (VIDEO_FILES if lost == MD5S else {})


def test_utility(run, server, tmp_path, capsys):
    files = {Path(UTILITY.format(split)).name: split.encode() for split in ("train", "val", "test")}
    assert run("utility", tmp_path / "both") == 0
    assert tree(tmp_path / "both") == files
    assert run("utility", tmp_path / "one", "--split", "val") == 0
    assert list(tree(tmp_path / "one").values()) == [b"val"]
    server.faults[UTILITY.format("test")] = ["html"]
    assert run("utility", tmp_path / "html") == 1
    errors = capsys.readouterr().err
    assert Path(UTILITY.format("test")).name in errors
    assert "web page" in errors


def test_mirror(run, server, tmp_path, capsys):
    moved = at_mirror(AVA, "http://host:8000/ava/")
    assert moved.video_folder == "http://host:8000/ava/ava-dataset/trainval"
    archive = "http://host:8000/ava/ava/download/ava_activespeaker_train_v1.0.tar.bz2"
    assert moved.annotations["train"] == Remote(archive, AVA.annotations["train"].md5)
    assert run("utility", tmp_path, "--mirror", server.url, sources=AVA) == 0
    assert len(tree(tmp_path)) == 3
    for wrong in ("host:8000", "ftp://host/", "/folder"):
        assert run("utility", tmp_path, "--mirror", wrong) == 2
        assert f"--mirror {wrong}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        ("annotations {0}/plain", "cannot create the folder {0}/plain"),
        ("videos {0}/to --annotations {0}/nowhere", "no annotation folder {0}/nowhere"),
        ("films to", "films"),
        ("videos", "destination"),
        ("videos to --split test", "--split"),
        ("videos to --jobs 0", "--jobs"),
    ],
)
def test_mistakes_of_the_user(run, server, tmp_path, capsys, arguments, fact):
    (tmp_path / "plain").write_text("")
    assert run(*arguments.format(tmp_path).split()) == 2
    assert fact.format(tmp_path) in capsys.readouterr().err
    assert server.asked == []


@pytest.mark.parametrize(
    "bad",
    [
        member("../../x-activespeaker.csv"),
        member("a/../../x-activespeaker.csv"),
        member("/tmp/x-activespeaker.csv"),
        member("../x.txt"),
        member("x-activespeaker.csv", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        member("x-activespeaker.csv", kind=tarfile.LNKTYPE, link="a-activespeaker.csv"),
        member("out", kind=tarfile.SYMTYPE, link=".."),
        member("x-activespeaker.csv", kind=tarfile.FIFOTYPE),
    ],
    ids=lambda bad: f"{bad[0].name} {bad[0].type.decode()}",
)
def test_an_archive_that_leads_out_is_refused(tmp_path, bad):
    (tmp_path / "a" / "b").mkdir(parents=True)
    path = tmp_path / "x.tar.bz2"
    path.write_bytes(archive_of(bad, member("out/y-activespeaker.csv")))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="a path out of it or no plain file"):
        unpack_annotations(path, tmp_path / "a" / "b")
    assert sorted(tmp_path.rglob("*")) == before


BROKEN_ARCHIVE = archive_of(*[member(f"{i}-activespeaker.csv", b"%d" % i * 9000) for i in range(9)])[:-40]
TWICE = archive_of(member("a/x-activespeaker.csv"), member("b/x-activespeaker.csv"))


@pytest.mark.parametrize(
    ("read", "content", "fact"),
    [
        *((read_archive, content, "cannot be read") for content in (b"no archive", BROKEN_ARCHIVE)),
        (read_archive, archive_of(member("a/README.txt")), "no <video_id>-activespeaker.csv"),
        (read_archive, TWICE, "x-activespeaker.csv twice"),
        *((read_video_names, text, "no file names") for text in (b"", b"\n\n")),
        *((read_video_names, name + b"\n", repr(name.decode())) for name in (b"../../x.mkv", b"a b.mkv", b"<html>")),
        *((read_video_names, name + b"\n", repr(name.decode())) for name in (b"x", b".hidden", b"a/b.mkv")),
        *((read_md5s, text, "None, None") for text in (b"", b"a,b\n1,2\n", b"<html>\n<p>\n")),
        (read_md5s, b"file_name,md5\nx.mkv,123\n", "'x.mkv', '123'"),
        (read_md5s, b"file_name,md5\nx.mkv\n", "'x.mkv', None"),
    ],
)
def test_files_of_another_kind(tmp_path, read, content, fact):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read(path))
    assert all(text in str(caught.value) for text in (str(path), fact, "delete it and fetch it again"))


def test_ctrl_c_leaves_parts_that_are_continued(run, server, tmp_path):
    """A real interrupt of the real script, while one server is silent; then `scripts/downloads.sh` goes on."""
    content = bytes(range(256)) * 2000
    path = UTILITY.format("val")
    server.files[path] = content
    server.faults[path] = ["silent"]
    arguments = [str(tmp_path), "--split", "val", "--mirror", server.url]
    script = subprocess.Popen(
        [sys.executable, ROOT / "data" / "download_ava.py", "utility", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        # A test runner in the background passes on that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    part = tmp_path / "ava_activespeaker_val_augmented.csv.part"
    assert server.half_sent.wait(timeout=30)
    for _ in range(3000):
        if part.stat().st_size == len(content) // 2:
            break
        server.go_on.wait(timeout=0.01)
    script.send_signal(signal.SIGINT)
    _, shown = script.communicate(timeout=30)
    assert script.returncode == 130
    assert "Traceback" not in shown
    assert "interrupted" in shown
    assert part.read_bytes() == content[: len(content) // 2]

    again = subprocess.run(["bash", ROOT / "scripts" / "downloads.sh", *arguments], capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert server.ranges() == [None, f"bytes={len(content) // 2}-"]
    assert tree(tmp_path) == {"ava_activespeaker_val_augmented.csv": content}


def test_the_wrapper_names_its_arguments():
    shown = subprocess.run(["bash", ROOT / "scripts" / "downloads.sh"], capture_output=True, text=True)
    assert shown.returncode == 2
    assert "DESTINATION" in shown.stderr
