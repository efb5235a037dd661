"""What outputs were made of: what is there is known by contents, over edits and interrupts; what is foreign stays."""

import contextlib
import json
import os
import shutil

import pytest
from tiny import tree

from core.runtime.errors import UserError
from core.runtime.provenance import FOLDER, Files, Record, check_outputs, checksums, declare, declared, recorded

KEEP = {"kept.txt": b"the user's own"}


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "v.mp4").write_bytes(b"video 1")
    return tmp_path / "in" / "v.mp4"


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "kept.txt").write_bytes(KEEP["kept.txt"])
    return tmp_path / "out"


def made(folder, source, names=("a.txt", "b.txt"), **settings) -> list[str]:
    """Make what is missing, each output its name and the source's text; gives the names that were missing."""
    record = Record(folder, "v", "copies", {"video": Files.one(source), **settings})
    missing = record.missing(names)
    if missing:
        with record.making(missing):
            for name in missing:
                (folder / name).write_bytes(name.encode() + source.read_bytes())
    return missing


BOTH = ["a.txt", "b.txt"]


@pytest.mark.parametrize(
    ("edit", "again"),
    [
        (lambda source, out: None, []),
        (lambda source, out: os.utime(source), []),
        (lambda source, out: os.utime(out / "a.txt"), []),
        (lambda source, out: source.write_bytes(b"video 1"), []),
        (lambda source, out: source.write_bytes(b"video 2"), BOTH),  # as long as before
        (lambda source, out: (out / "b.txt").unlink(), ["b.txt"]),
        (lambda source, out: (out / "b.txt").write_bytes(b"b.txtvideo 9"), ["b.txt"]),
    ],
)
def test_only_what_changed_is_made_again(source, out, edit, again):
    assert made(out, source) == BOTH
    state = source.stat()
    edit(source, out)
    if source.read_bytes() == b"video 2":  # a replacement that claims to be as old as what it replaces
        os.utime(source, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert made(out, source) == again
    assert tree(out) == KEEP | {name: name.encode() + source.read_bytes() for name in BOTH}
    assert made(out, source) == []


def test_outputs_of_other_settings_or_of_another_version_are_replaced(source, out):
    assert made(out, source, size=1) == BOTH
    assert made(out, source, names=["a.txt"], size=2) == ["a.txt"]
    assert set(tree(out)) == {"a.txt", "kept.txt"}
    newer = Record(out, "v", "copies", {"video": Files.one(source), "size": 2}, version=2)
    assert newer.missing(["a.txt"]) == ["a.txt"]
    assert newer.differences() == ["version"]


def test_a_source_that_is_gone_or_comes_later(source, out):
    made(out, source)
    source.rename(source.with_suffix(".away"))
    record = Record(out, "v", "copies", {"video": Files.one(source)})
    assert record.missing(BOTH) == BOTH
    with pytest.raises(FileNotFoundError), record.making(BOTH):
        source.read_bytes()
    assert tree(out) == KEEP
    source.with_suffix(".away").rename(source)
    assert made(out, source) == BOTH


def test_what_was_made_of_a_source_that_has_no_name_any_more_stays_valid(source, out):
    made(out, source, size=1)
    gone = Files(source.parent, [])
    assert Record(out, "v", "copies", {"video": gone, "size": 1}).missing(BOTH) == []
    assert Record(out, "v", "copies", {"video": gone, "size": 2}).differences() == ["size"]
    source.write_bytes(b"video 2")
    assert made(out, source, size=1) == BOTH


def test_an_interrupt_leaves_nothing_that_is_taken_for_finished(source, out):
    made(out, source, size=1)
    record = Record(out, "v", "copies", {"video": Files.one(source), "size": 2})
    with contextlib.suppress(KeyboardInterrupt), record.making(BOTH):
        (out / "a.txt").write_bytes(b"new")
        raise KeyboardInterrupt
    assert tree(out) == KEEP | {"a.txt": b"new"}
    with pytest.raises(UserError, match=r"a\.txt"):
        check_outputs(out, "v", ["a.txt"])
    assert made(out, source, size=1) == BOTH
    check_outputs(out, "v", BOTH)


def test_what_another_wrote_is_neither_replaced_nor_removed(source, out):
    (out / "a.txt").write_bytes(b"somebody else's")
    with pytest.raises(UserError, match=r"a\.txt"):
        made(out, source)
    assert tree(out) == KEEP | {"a.txt": b"somebody else's"}


def test_a_step_does_not_take_over_the_items_of_another(source, out):
    made(out, source)
    before = tree(out)
    with pytest.raises(UserError, match="copies of v"):
        Record(out, "v", "other step", {})
    assert tree(out) == before


ENTRY = '{"step": "copies", "version": 1, "made_of": {}, "begun": [], "notes": {}, "outputs": {"a.txt": %s}}'


@pytest.mark.parametrize(
    "text", ["", "[]", '{"step"', '{"step": 1}', "\xff", ENTRY % 5, ENTRY % "[1, 2, 3, 4]", "[" * 100_000]
)
def test_a_damaged_record_is_named_and_nothing_removed(source, out, text):
    made(out, source)
    before = tree(out)
    (out / FOLDER / "v.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"v\.json"):
        made(out, source)
    assert tree(out) == before


@pytest.mark.parametrize("name", ["../in/v.mp4", "/etc/passwd", "x/../../in/v.mp4"])
def test_a_record_names_no_file_outside_its_folder(source, out, name):
    made(out, source)
    path = out / FOLDER / "v.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"begun": [name]}))
    with pytest.raises(UserError, match=r"v\.json"):
        made(out, source, size=2)
    assert source.is_file()


def test_files_are_read_again_only_where_they_changed(source, out, monkeypatch):
    made(out, source)
    copied = shutil.copytree(out, out.parent / "copied")  # of another time
    reads = []
    read = Record.__init__.__globals__["fingerprint"]
    monkeypatch.setattr("core.runtime.provenance.fingerprint", lambda path: reads.append(path) or read(path))
    for folder, expected in ((out, 0), (copied, 2), (copied, 0)):
        reads.clear()
        assert made(folder, source) == []
        assert checksums(Files(folder, BOTH, "v")).keys() == set(BOTH)
        assert len(reads) == expected


def test_many_files_count_by_name_and_content(source, out):
    made(out, source)
    both = recorded([Files(out, BOTH, "v")])
    assert both == recorded([Files(out, ["a.txt"], "v"), Files(out, ["b.txt"], "v")])
    assert both != recorded([Files(out, ["a.txt"], "v")])
    assert recorded([Files(out, BOTH, "v"), Files(source.parent, [source.name], "v")]) is None
    swapped = {name: (out / name).read_bytes() for name in BOTH}
    record = Record(out / "s", "s", "sets", {"files": Files(out, BOTH)})
    with record.making([]):
        pass
    for name, other in zip(BOTH, reversed(BOTH), strict=True):
        (out / name).write_bytes(swapped[other])
    assert Record(out / "s", "s", "sets", {"files": Files(out, BOTH)}).differences() == ["files"]


def test_what_makes_up_a_folder(out):
    assert declared(out, "copies") is None
    declare(out, "copies", ["w", "v"])
    assert declared(out, "copies") == ["v", "w"]
    assert declared(out, "others") is None
    (out / FOLDER / ".copies.json").write_text("{}")
    with pytest.raises(UserError, match="copies"):
        declared(out, "copies")
