"""What outputs were made of: what is done is not done again, what is outdated is made anew, what is foreign stays.

A step keeps one record for each item (a video, mostly) in its output folder, `.made/<item>.json`: the step, what it
made the outputs of, and the outputs, all by the SHA-256 of their contents. Sizes and times are kept beside each
checksum; only where they differ is a file read again. Files without a record are not the step's: it neither replaces
nor deletes them.

Files may be elsewhere (`core.runtime.elsewhere`): what outputs are made of is fetched when they begin to be made, and
they are put where they belong, with their record, when they are finished.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Self

from core.runtime import elsewhere
from core.runtime.errors import UserError
from core.runtime.files import fingerprint, read_json, write_json

FOLDER = ".made"
State = list[int]  # size in bytes, times of change of contents and of the file's entry in ns


@dataclass(frozen=True)
class Files:
    """Files that something is made of: their contents count, and their names below a folder where there are several.

    Args:
        folder: the names are relative to it.
        names: of the files; none where they are gone, and those count that the outputs were made of.
        item: the item of the step that wrote them, whose record holds their checksums; None where they are read.
    """

    folder: Path
    names: Sequence[str]
    item: str | None = None

    @classmethod
    def one(cls, path: str | Path) -> Self:
        """A single file."""
        return cls(Path(path).parent, [Path(path).name])


class Record:
    """What the outputs of one item were made of, and what they have to be made of now.

    Args:
        folder: of the outputs.
        item: names the record; a file's name without its ending, or alike.
        step: the step's name, for messages as well. Raise its version where its outputs change for the same inputs.
        version: see `step`.
        made_of: everything that the outputs depend on: plain values, and `Files`.

    Attributes:
        path: of the record.
        notes: what else is to be known of the outputs; plain values, kept with them.

    Raises:
        UserError: the record cannot be read, or is that of another step.
    """

    def __init__(self, folder: str | Path, item: str, step: str, made_of: Mapping[str, Any], *, version: int = 1):
        self.folder, self.step, self.version, self.made_of = Path(folder), step, version, made_of
        self.path = record_path(folder, item)
        if elsewhere.url_of(self.folder):
            elsewhere.list_folder(self.folder)
            elsewhere.list_folder(self.path.parent)
        before = read_record(folder, item) or {"step": step, "version": None, "made_of": {}, "outputs": {}, "begun": []}
        if before["step"] != step:
            raise UserError(
                f"{folder} holds the {before['step']} of {item}: choose another folder for its {step}, so that neither "
                "is taken for the other"
            )
        self._before = before
        self._now: dict[str, Any] | None = None
        self.notes: dict[str, Any] = dict(before.get("notes", {})) if not self.differences() else {}

    @property
    def written(self) -> set[str]:
        """Names of the files that are the step's own."""
        return {*self._before["outputs"], *self._before["begun"]}

    def differences(self) -> list[str]:
        """The names of what the outputs were made of that is not the same now; all, where there was no record."""
        then, now = self._before["made_of"], self.resolved
        different = [name for name in {**then, **now} if _digest(then.get(name)) != _digest(now.get(name))]
        return different or ["version"] * (self._before["version"] != self.version)

    def missing(self, outputs: Iterable[str]) -> list[str]:
        """Which of these outputs are not there as they were written, or would be made otherwise now.

        Args:
            outputs: names below the folder.

        Raises:
            UserError: a file of that name is there, and this step did not write it.
        """
        outputs, known = list(outputs), self._before["outputs"]
        self._refuse_foreign(outputs)
        if self.differences():
            return outputs
        checked = {name: _checked(self.folder / name, known[name]) for name in outputs if name in known}
        there = {name: state for name, state in checked.items() if state is not None}
        if self._before["version"] is not None:
            _refresh(self.path, self._before, {"made_of": self.resolved, "outputs": known | there})
        return [name for name in outputs if name not in there]

    @contextlib.contextmanager
    def making(self, outputs: Iterable[str]) -> Iterator[None]:
        """Write outputs in the block; afterwards the record holds those that are there.

        Outputs that were made otherwise are removed first, and whatever interrupts the block, nothing is taken for
        finished.

        Args:
            outputs: names below the folder.

        Raises:
            UserError: a file of that name is there, and this step did not write it.
        """
        outputs = list(outputs)
        for files in self.made_of.values():
            for name in files.names if isinstance(files, Files) else ():
                elsewhere.bring(files.folder / name)
        kept = {} if self.differences() else dict(self._before["outputs"])
        mine = self.written
        self._refuse_foreign(outputs)
        kept = {name: state for name, state in kept.items() if name not in outputs}
        self._write(kept, sorted({*mine - set(kept), *outputs}))
        for name in mine - set(kept):
            elsewhere.remove(self.folder / name)
        yield
        written = [name for name in outputs if (self.folder / name).is_file()]
        for name in written:
            elsewhere.put(self.folder / name)
        self._write(kept | {name: _observed(self.folder / name) for name in written}, [])

    def _refuse_foreign(self, outputs: Iterable[str]) -> None:
        for name in outputs:
            if name not in self.written and _state(self.folder / name) is not None:
                raise UserError(
                    f"{self.folder / name} is there, but {self.path} does not list it among the {self.step} written "
                    "there: move it away, or choose another folder to write to"
                )

    @property
    def resolved(self) -> dict[str, Any]:
        """What the outputs have to be made of now as the record keeps it, files by their checksums; another record may
        be given these, so that nothing is read twice."""
        if self._now is None:
            then = self._before["made_of"]
            self._now = {name: _resolved(value, then.get(name)) for name, value in self.made_of.items()}
        return self._now

    def _write(self, outputs: Mapping[str, list], begun: list[str]) -> None:
        self._before = {
            "step": self.step,
            "version": self.version,
            "made_of": self.resolved,
            "outputs": dict(outputs),
            "begun": begun,
            "notes": self.notes,
        }
        _save(self.path, self._before)


def record_path(folder: str | Path, item: str) -> Path:
    """Where the record of an item is kept."""
    return Path(folder) / FOLDER / f"{item}.json"


def read_record(folder: str | Path, item: str) -> dict[str, Any] | None:
    """The record of an item: step, version, made_of, outputs, begun, notes; None where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = record_path(folder, item)
    if _state(path) is None:
        return None
    elsewhere.bring(path)
    remedy = f"delete this record together with the outputs of {item} in {folder}, and run the step that writes them"
    record = read_json(path, remedy)
    shapes = {"step": str, "version": int, "made_of": dict, "outputs": dict, "begun": list, "notes": dict}
    if not all(isinstance(record.get(key), shape) for key, shape in shapes.items()):
        raise UserError(f"{path} is not a record of outputs: {remedy}")
    states = [[type(value) for value in state] for state in record["outputs"].values() if isinstance(state, list)]
    if states != [[str, int, int, int]] * len(record["outputs"]):
        raise UserError(f"{path} does not say of each output what it was: {remedy}")
    for name in (*record["outputs"], *record["begun"]):
        if not isinstance(name, str) or PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise UserError(f"{path} lists {name!r}, which is no file below {folder}: {remedy}")
    return record


def checksums(files: Files) -> dict[str, str]:
    """SHA-256 by name; from the record of the step that wrote the files where they are as it left them."""
    record = (read_record(files.folder, files.item) if files.item is not None else None) or {"outputs": {}}
    sums = {}
    for name in files.names:
        path = files.folder / name
        known = record["outputs"].get(name)
        sums[name] = known[0] if known and known[1:] == _state(path) else fingerprint(elsewhere.bring(path))
    return sums


def recorded(sources: Iterable[Files]) -> str | None:
    """SHA-256 of many files, from the records of the steps that wrote them; None where one has no record.

    For what is too large to be read for it, as the crops of a training are.
    """
    sums = []
    for files in sources:
        if files.item is None or not record_path(files.folder, files.item).exists():
            return None
        sums += checksums(files).items()
    return digest_of(*zip(*sums, strict=True))


def check_outputs(folder: str | Path, item: str, names: Iterable[str]) -> dict[str, Any] | None:
    """The record of an item, after a check that outputs are as the step wrote them; None where there is no record.

    Raises:
        UserError: the step was interrupted, or an output is absent or not what was written.
    """
    record = read_record(folder, item)
    if record is None:
        return None
    checked = {}
    for name in names:
        path, known = Path(folder) / name, record["outputs"].get(name)
        if known is None or record["begun"]:
            raise UserError(f"{path} is not finished ({record['step']} of {item}): run the step that writes it again")
        checked[name] = _checked(path, known)
        if checked[name] is None:
            raise UserError(
                f"{path} is not the file that was written (its SHA-256 was {known[0][:12]}…): it is absent or damaged; "
                "run the step that writes it again"
            )
    _refresh(record_path(folder, item), record, {"outputs": record["outputs"] | checked})
    return record


def declare(folder: str | Path, step: str, items: Iterable[str]) -> None:
    """Say which items make up a folder now: what others are there besides is no longer part of it."""
    if declared(folder, step) != sorted(items):
        _save(Path(folder) / FOLDER / f".{step}.json", {"items": sorted(items)})


def declared(folder: str | Path, step: str) -> list[str] | None:
    """The items that make up a folder, sorted; None where nobody said.

    Raises:
        UserError: the list is damaged.
    """
    path = Path(folder) / FOLDER / f".{step}.json"
    if _state(path) is None:
        return None
    elsewhere.bring(path)
    remedy = f"delete it and run the step that writes {folder} again"
    items = read_json(path, remedy).get("items")
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise UserError(f"{path} is not a list of names: {remedy}")
    return items


def recorded_left_out(folder: str | Path, items: Iterable[str]) -> dict[str, int]:
    """Item -> how many annotated rows it was made without, by its record; 0 where there is none."""
    records = {item: read_record(folder, item) for item in items}
    return {item: record["made_of"].get("left_out", 0) if record else 0 for item, record in records.items()}


def digest_of(*texts: Iterable[object]) -> str:
    """SHA-256 of some columns of text, row by row; of a table that something is made of."""
    digest = hashlib.sha256()
    for row in zip(*texts, strict=True):
        digest.update("\0".join(map(str, row)).encode() + b"\n")
    return digest.hexdigest()


def _resolved(value: Any, before: Any) -> Any:
    """A value as the record keeps it; files by their checksum, which is that of `before` where they are unchanged."""
    if not isinstance(value, Files):
        return json.loads(json.dumps(value))
    if not value.names:
        return before
    states = {name: _state(value.folder / name) for name in value.names}
    if isinstance(before, dict) and before.get("files") == states and None not in states.values():
        return before
    if None in states.values():
        return {"sha256": None, "files": states}
    sums = checksums(value)
    if len(sums) == 1:
        return {"sha256": next(iter(sums.values())), "files": states}
    return {"sha256": digest_of(sorted(sums), [sums[name] for name in sorted(sums)]), "files": states}


def _digest(value: Any) -> Any:
    return value["sha256"] if isinstance(value, dict) and set(value) == {"sha256", "files"} else value


def _refresh(path: Path, record: dict[str, Any], now: Mapping[str, Any]) -> None:
    """Keep new times of unchanged files, as of a copied folder, so that they are not read each time."""
    if any(record[key] != value for key, value in now.items()):
        record.update(now)
        with contextlib.suppress(OSError, UserError):  # a folder that may only be read
            _save(path, record)


def _save(path: Path, record: dict[str, Any]) -> None:
    write_json(path, record)
    elsewhere.put(path)


def _state(path: Path) -> State | None:
    if elsewhere.url_of(path):
        return elsewhere.state(path)
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns]


def _observed(path: Path) -> list:
    """[SHA-256, size, times] of an output."""
    return [fingerprint(path), *_state(path)]


def _checked(path: Path, known: list) -> list | None:
    """What is known of an output, with the times it has now; None where it is absent or changed."""
    state = _state(path)
    if state == known[1:]:
        return known
    if state is None or state[0] != known[1] or fingerprint(elsewhere.bring(path)) != known[0]:
        return None
    return [known[0], *state]
