"""data/download_ava.py and core.download.ava_release against a server that misbehaves."""

import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from faulty_server import (
    ARCHIVE,
    IDS,
    MD5S,
    NAMES,
    UTILITY,
    VIDEO,
    VIDEOS,
    FaultyServer,
    archive_of,
    csv_of,
    member,
    serve_small_ava,
    tree,
)

from core.download.ava_release import (
    AVA,
    at_mirror,
    read_archive,
    read_md5s,
    read_video_names,
    unpack_annotations,
)
from core.download.many import Remote
from core.runtime.errors import UserError
from data.download_ava import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with FaultyServer() as server:
        yield server


@pytest.fixture
def sources(server):
    return serve_small_ava(server)


@pytest.fixture
def run(sources):
    def run(*arguments: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments], sources=sources, sleep=lambda seconds: None)
        return ended.value.code

    return run


def csvs(split: str) -> dict[str, bytes]:
    return {f"{split}/{name}-activespeaker.csv": csv_of(name) for name in IDS[split]}


def videos(folder: Path) -> dict[str, bytes]:
    return {name: content for name, content in tree(folder).items() if "/" in name}


def test_annotations(run, server, tmp_path):
    assert run("annotations", tmp_path / "to") == 0
    archives = {Path(path).name: content for path, content in server.files.items() if path.endswith(".bz2")}
    assert tree(tmp_path / "to") == csvs("train") | csvs("val") | archives
    assert run("annotations", tmp_path / "to") == 0
    assert sorted(server.paths()) == [ARCHIVE.format("train"), ARCHIVE.format("val")]  # the second run asked nobody


def test_annotations_of_one_split(run, server, tmp_path):
    assert run("annotations", tmp_path, "--split", "val") == 0
    assert server.paths() == [ARCHIVE.format("val")]
    assert not (tmp_path / "train").exists()


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


def test_an_archive_that_is_missing_leaves_the_other(run, server, tmp_path, capsys):
    server.faults[ARCHIVE.format("train")] = ["404"]
    server.faults[ARCHIVE.format("val")] = ["truncate", "500", "hang up"]
    assert run("annotations", tmp_path) == 1
    assert videos(tmp_path) == csvs("val")
    shown = capsys.readouterr().err
    assert "1 missing" in shown
    assert f"  ava_activespeaker_train_v1.0.tar.bz2: 404 Not Found ({server.url}{ARCHIVE.format('train')})" in shown


def test_an_archive_with_wrong_bytes_is_never_unpacked(run, server, tmp_path, capsys):
    server.faults[ARCHIVE.format("train")] = ["wrong bytes"] * 5
    assert run("annotations", tmp_path, "--split", "train") == 1
    assert tree(tmp_path) == {}
    assert "its MD5 is" in capsys.readouterr().err


def test_videos_with_annotations_beside(run, server, tmp_path, capsys):
    assert run("annotations", tmp_path / "annotations") == 0
    server.asked.clear()
    assert run("videos", tmp_path / "videos", "--jobs", 2) == 0
    assert videos(tmp_path / "videos") == {
        "train/-a_1.mkv": VIDEOS["-a_1.mkv"],
        "train/b-2.mp4": VIDEOS["b-2.mp4"],
        "val/--c3.webm": VIDEOS["--c3.webm"],
    }
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


def test_videos_through_bad_weather(run, server, tmp_path):
    server.faults[VIDEO.format("-a_1.mkv")] = ["truncate", "wrong bytes", "hang up", "503"]
    server.faults[VIDEO.format("b-2.mp4")] = ["truncate", "ignore range"]
    assert run("videos", tmp_path) == 0
    assert videos(tmp_path) == {
        "train/-a_1.mkv": VIDEOS["-a_1.mkv"],
        "train/b-2.mp4": VIDEOS["b-2.mp4"],
        "val/--c3.webm": VIDEOS["--c3.webm"],
    }


def test_videos_that_are_missing_are_listed(run, server, tmp_path, capsys):
    for split, name in (("train", "nowhere"), ("train", "b-2"), ("val", "--c3")):
        (tmp_path / "csvs" / split).mkdir(parents=True, exist_ok=True)
        (tmp_path / "csvs" / split / f"{name}-activespeaker.csv").touch()
    server.faults[VIDEO.format("b-2.mp4")] = ["403"]
    server.faults[VIDEO.format("--c3.webm")] = ["wrong bytes"] * 5
    assert run("videos", tmp_path / "to", "--annotations", tmp_path / "csvs") == 1
    shown = capsys.readouterr().err
    assert "3 missing" in shown
    assert "  train/nowhere: annotated, but not listed in" in shown
    assert "  train/b-2.mp4: 403 Forbidden" in shown
    assert "  val/--c3.webm: its MD5 is" in shown
    assert videos(tmp_path / "to") == {}
    server.asked.clear()
    assert run("videos", tmp_path / "to", "--annotations", tmp_path / "csvs") == 1  # nowhere is still missing
    assert sorted(server.paths()) == [VIDEO.format("--c3.webm"), VIDEO.format("b-2.mp4")]


def test_videos_without_the_checksums(run, server, tmp_path, capsys):
    del server.files[MD5S]
    assert run("videos", tmp_path) == 1
    shown = capsys.readouterr().err
    assert "ava_speech_file_names_v1.csv: 404" in shown
    assert "--no-md5" in shown
    assert videos(tmp_path) == {}
    assert run("videos", tmp_path, "--no-md5") == 0
    assert len(videos(tmp_path)) == 3


def test_videos_without_the_list_or_the_annotations(run, server, tmp_path, capsys):
    for lost in (NAMES, ARCHIVE.format("train")):
        server.faults[lost] = ["404"]
        assert run("videos", tmp_path) == 1
        assert f"{Path(lost).name}: 404" in capsys.readouterr().err
        assert videos(tmp_path) == {}


def test_utility(run, server, tmp_path, capsys):
    assert run("utility", tmp_path / "both") == 0
    name = "ava_activespeaker_{}_augmented.csv"
    assert tree(tmp_path / "both") == {name.format(split): split.encode() for split in ("train", "val", "test")}
    assert run("utility", tmp_path / "one", "--split", "val") == 0
    assert tree(tmp_path / "one") == {name.format("val"): b"val"}
    server.faults[UTILITY.format("test")] = ["html"]
    assert run("utility", tmp_path / "html") == 1
    assert f"  {name.format('test')}: the server answers with a web page" in capsys.readouterr().err


def test_mirror(run, server, sources, tmp_path, capsys):
    moved = at_mirror(AVA, "http://host:8000/ava/")
    assert moved.video_folder == "http://host:8000/ava/ava-dataset/trainval"
    assert moved.annotations["train"] == Remote(
        "http://host:8000/ava/ava/download/ava_activespeaker_train_v1.0.tar.bz2", AVA.annotations["train"].md5
    )
    assert len({remote.url for remote in moved.utility.values()}) == 3
    with pytest.raises(SystemExit) as ended:  # the real table, but at the test server
        main(["utility", str(tmp_path), "--mirror", server.url])
    assert ended.value.code == 0
    assert len(tree(tmp_path)) == 3
    for wrong in ("host:8000", "ftp://host/", "/folder"):
        assert run("utility", tmp_path, "--mirror", wrong) == 2
        assert "give an address such as" in capsys.readouterr().err


def test_mistakes_of_the_user(run, server, tmp_path, capsys):
    (tmp_path / "plain").write_text("")
    assert run("annotations", tmp_path / "plain") == 2
    assert "cannot create the folder" in capsys.readouterr().err
    assert run("videos", tmp_path / "to", "--annotations", tmp_path / "nowhere") == 2
    assert "no annotation folder" in capsys.readouterr().err
    for wrong in (["films", "to"], ["videos"], ["videos", "to", "--split", "test"], ["videos", "to", "--jobs", "0"]):
        assert run(*wrong) == 2
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


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no archive", "cannot be read"),
        (archive_of(*[member(f"{i}-activespeaker.csv", b"%d" % i * 9000) for i in range(9)])[:-40], "cannot be read"),
        (archive_of(member("a/README.txt")), "holds no <video_id>-activespeaker.csv"),
        (archive_of(member("a/x-activespeaker.csv"), member("b/x-activespeaker.csv")), "twice"),
    ],
)
def test_archives_of_another_kind(tmp_path, content, says):
    (tmp_path / "x.tar.bz2").write_bytes(content)
    with pytest.raises(UserError, match=says):
        list(read_archive(tmp_path / "x.tar.bz2"))


@pytest.mark.parametrize(
    "text", ["", "\n\n", "../../x.mkv\n", "a b.mkv\n", "<html>\n", "x\n", ".hidden\n", "a/b.mkv\n"]
)
def test_lists_of_another_kind(tmp_path, text):
    (tmp_path / "names.txt").write_text(text)
    with pytest.raises(UserError, match=r"names\.txt holds .*delete it and fetch it again"):
        read_video_names(tmp_path / "names.txt")


@pytest.mark.parametrize(
    "text", ["", "a,b\n1,2\n", "file_name,md5\nx.mkv,123\n", "file_name,md5\nx.mkv\n", "<html>\n<p>\n"]
)
def test_checksums_of_another_kind(tmp_path, text):
    (tmp_path / "md5s.csv").write_text(text)
    with pytest.raises(UserError, match=r"expected file_name,md5"):
        read_md5s(tmp_path / "md5s.csv")


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
