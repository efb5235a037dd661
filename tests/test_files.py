"""Files appear whole or not at all: on an error, a full disk or an interrupt nothing half-written is left."""

import contextlib
import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from core.models.weights import write_torch_file
from core.runtime import files
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import atomic_write, finished_files, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_half(path: Path, error: BaseException) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error


def test_the_file_appears_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "folder" / "-out.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
        assert temporary.parent == path.parent  # a rename across file systems would not be atomic
        assert temporary.suffix == ".txt"  # writers that choose a format by the extension choose the right one
    assert path.read_text() == "whole"
    assert names(path.parent) == ["-out.txt"]


FULL = [OSError(code, os.strerror(code)) for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(1), FileNotFoundError(), *FULL])
@pytest.mark.parametrize("old", ["old text", None])
def test_an_exception_leaves_the_old_file_or_none(tmp_path, error, old):
    path = tmp_path / "out.txt"
    if old is not None:
        path.write_text(old)
    expected, match = (UserError, r"no space left to write .*out\.txt") if error in FULL else (type(error), None)
    with pytest.raises(expected, match=match):
        write_half(path, error)
    assert names(tmp_path) == ([] if old is None else ["out.txt"])
    assert old is None or path.read_text() == old


def interrupted_at(moment: int, path: Path) -> bool:
    """Write a file, with Ctrl-C at a bytecode (counted from 0) of its writing; whether it came to that moment."""
    left = moment

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code.co_filename not in (files.__file__, contextlib.__file__):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == -1:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    try:
        sys.settrace(trace)
        with atomic_write(path) as temporary:
            temporary.write_text("whole")
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_at_any_moment_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # slow on a busy disk
    path, moment, seen = tmp_path / "out.txt", 0, set()
    while True:
        path.write_text("old")
        if not interrupted_at(moment, path):
            break
        assert names(tmp_path) == ["out.txt"], moment
        seen.add(path.read_text())
        moment += 1
    assert path.read_text() == "whole"
    assert seen == {"old", "whole"}  # it came before the rename and after it


def test_a_disk_that_is_full_at_the_rename(tmp_path, monkeypatch):
    def full(source, target):
        raise FULL[0]

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="no space left"), atomic_write(tmp_path / "out.txt") as temporary:
        temporary.write_text("all")
    assert names(tmp_path) == []


def with_torch(path: Path) -> None:
    with atomic_write(path) as temporary:
        torch.save({"a": torch.zeros(300_000)}, temporary)


def with_numpy(path: Path) -> None:
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.zeros(300_000))


def as_weights(path: Path) -> None:
    write_torch_file(path, {"a": torch.zeros(300_000)})


@pytest.mark.parametrize("room", [0, 3000, 800_000])
@pytest.mark.parametrize("write", [with_torch, with_numpy, as_weights])
def test_a_full_disk_is_named_whatever_the_writer_makes_of_it(tmp_path, write, room):
    """No file may become larger than `room` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(UserError) as caught:
            write(tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value).startswith(f"no space left to write {tmp_path / 'out'}")
    assert names(tmp_path) == []


def test_another_fault_of_a_writer_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="broken"):
        write_half(tmp_path / "out.txt", RuntimeError("broken"))


def test_what_killed_writers_left_is_removed_and_what_living_ones_write_is_not(tmp_path):
    code = (
        "import sys, time; from core.runtime.files import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary: temporary.write_text('half'); print(flush=True); time.sleep(60)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / name], stdout=subprocess.PIPE) for name in ("a", "b")
    ]
    try:
        for writer in writers:
            writer.stdout.readline()
        assert len(names(tmp_path)) == 2
        writers[0].kill()
        writers[0].wait()
        assert len(names(tmp_path)) == 2
        with atomic_write(tmp_path / "c"):
            assert len(names(tmp_path)) == 2  # b's and c's
        assert sum(name.startswith(".part-") for name in names(tmp_path)) == 1
    finally:
        for writer in writers:
            writer.kill()
            writer.communicate()


@pytest.mark.parametrize("sync", [True, False])
def test_content_is_on_the_disk_before_its_name(tmp_path, monkeypatch, sync):
    steps, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (steps.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (steps.append("replace"), replace(*paths)))
    with atomic_write(tmp_path / "out", sync=sync) as temporary:
        temporary.write_text("all")
    assert steps == ["fsync"] * sync + ["replace"]


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    with atomic_write(tmp_path / "ours"):
        pass
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_an_output_path_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for path, fact in (
        (tmp_path / "file" / "below", "cannot create the folder"),
        (tmp_path, "folder"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / ("a." + "x" * 240), "File name too long"),  # its own would do, that of the unfinished file not
    ):
        with pytest.raises(UserError, match=fact) as caught, atomic_write(path):
            pass
        assert str(path.parent) in str(caught.value)
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write into")
def test_a_folder_that_takes_no_files_is_refused():
    with pytest.raises(UserError, match="cannot write into /proc"), atomic_write("/proc/out.txt"):
        pass


def test_json_round_trip(tmp_path):
    write_json(tmp_path / "value.json", {"a": [1, 2.5, None], "é": "×"})
    text = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [1, 2.5, None], "é": "×"}
    assert "×" in text


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (None, 0, ""),
        (1, 1, ""),
        (UserError("what to do"), 2, "error: what to do"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_scripts_end_with_a_status_and_no_traceback(capsys, outcome, status, message):
    with pytest.raises(SystemExit) as end:
        ending_with(outcome)()
    assert end.value.code == status
    assert capsys.readouterr().err.strip().startswith(message)


def ending_with(outcome: int | BaseException | None) -> Callable[[], None]:
    @exits_cleanly
    def main() -> int | None:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return main


def test_a_fault_of_the_program_is_not_hidden():
    with pytest.raises(ZeroDivisionError):
        ending_with(ZeroDivisionError())()


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_goes_away_ends_a_script_quietly(lines):
    code = (
        "import sys; from core.runtime.errors import exits_cleanly\n"
        "@exits_cleanly\n"
        "def main():\n"
        "    sys.stdin.read()\n"
        f"    for number in range({lines}): print(number)\n"
        "main()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as script:
        script.stdout.close()
        script.stdin.close()  # now it begins to write
        errors = script.stderr.read()
    assert (script.returncode, errors) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full stands for a full disk")
def test_standard_output_that_finds_no_room_is_one_message():
    code = (
        "from core.runtime.errors import exits_cleanly\n"
        "@exits_cleanly\n"
        "def main():\n"
        "    for number in range(100_000): print(number)\n"
        "main()\n"
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "standard output" in line


def test_what_a_killed_process_left_is_not_taken_for_finished(tmp_path):
    for name in ("b.csv", "a.csv", ".part-x.csv", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in finished_files(tmp_path, ".csv")] == ["a.csv", "b.csv"]
