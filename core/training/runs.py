"""A run folder: what a training writes, and what it needs to go on after an interrupt.

settings.json (all settings), log.csv (a line an epoch), N.pth (state dict of epoch N), best.pth (the one of the highest
average precision), last.pt (all that resuming needs), TensorBoard events. Every file appears whole or not at all.
"""

import csv
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from accelerate import Accelerator
from torch import Tensor

from core.models.weights import read_torch_file, write_torch_file
from core.runtime.checks import as_number, as_whole
from core.runtime.errors import UserError
from core.runtime.files import atomic_write, make_folder, read_json, write_json
from core.training.peers import check_same, same_everywhere

SETTINGS = "settings.json"
STATE = "last.pt"
STATE_REMEDY = "restore it, or delete it and start anew without --resume"
# Settings that a resumed run may change: they alter no step, or say where things are ("made_of" says what they are).
MAY_CHANGE = re.compile(r".*\.(epochs|threads|tb_logdir)|\w+_inputs\..*")
MAY_DIFFER = re.compile(r".*\.(threads|tb_logdir)|\w+_inputs\..*")  # between the processes of a training


def has_state(folder: Path) -> bool:
    """Whether a run folder holds what a training can be resumed from."""
    return (folder / STATE).is_file()


class Run:
    """A run folder that a training writes.

    Args:
        folder: made if absent.
        settings: what the run depends on, kept as settings.json.
        resume: go on with the run in the folder; otherwise there must be none.

    Raises:
        UserError: there is a run and `resume` is false; or `resume` is true and there is none, or it was made with
            other settings, or they cannot be read.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], resume: bool):
        self.folder = Path(folder)
        self.log, self.state = self.folder / "log.csv", self.folder / STATE
        if resume:
            if not (self.folder / SETTINGS).is_file():
                raise UserError(f"--resume: {self.folder} holds no run; start one without --resume")
            then = _read_settings(self.folder)
            if differing := _differences(then, settings):
                raise UserError(f"--resume: {self.folder} was made with other settings:\n" + "\n".join(differing))
            if then != json.loads(json.dumps(settings)):
                write_json(self.folder / SETTINGS, settings)
        else:
            if has_state(self.folder):
                raise UserError(f"{self.folder} holds a run: give another --name, or --resume to go on with it")
            write_json(make_folder(self.folder) / SETTINGS, settings)
            self.log.unlink(missing_ok=True)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        settings: Mapping[str, Any],
        resume: bool,
        accelerator: Accelerator,
        *,
        update: bool = False,
    ) -> Self:
        """The run, in every process of a training; the main one alone reads and writes its folder.

        Args:
            folder, settings, resume: as `Run`.
            accelerator: of the training.
            update: go on with the run in the folder where it was made with the same settings, for as many epochs at
                most; otherwise remove it and begin anew.

        Raises:
            UserError: as `Run`, or the processes differ in settings or data.
        """
        alike = {key: value for key, value in _flat(settings).items() if not MAY_DIFFER.fullmatch(key)}
        check_same("settings or data", alike)
        run = None
        if accelerator.is_main_process:
            run = cls(folder, settings, _keep_or_remove(Path(folder), settings) if update else resume)
        return same_everywhere(run)

    def load_state(self) -> dict[str, Any] | None:
        """The last state that was saved, on the CPU; None where no epoch was finished.

        Raises:
            UserError: it cannot be read, or the log cannot.
        """
        if not self.state.is_file():
            return None
        self.log_lines()  # now, before an epoch is trained that could not be logged
        state = read_torch_file(self.state, str(self.state), STATE_REMEDY)
        if not isinstance(state, dict) or not isinstance(state.get("epoch"), int):
            raise UserError(f"{self.state}: not the state of a training; {STATE_REMEDY}")
        return state

    def save(self, epoch: int, weights: Mapping[str, Tensor], state: Mapping[str, Any], best: bool) -> None:
        """Write an epoch's checkpoint, a copy as the best one if it is, then the state to resume from."""
        checkpoint = self.folder / f"{epoch}.pth"
        write_torch_file(checkpoint, dict(weights))
        if best:
            with atomic_write(self.folder / "best.pth") as temporary:
                temporary.unlink()
                try:
                    os.link(checkpoint, temporary)  # no second copy where the file system allows it
                except OSError:
                    shutil.copyfile(checkpoint, temporary)
        self.save_state(state)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the state to resume from."""
        write_torch_file(self.state, dict(state))

    def append_log(self, values: Mapping[str, Any]) -> None:
        """Add an epoch's line to log.csv; lines of this epoch or later ones, from an interrupted run, are dropped."""
        kept = [line for line in self.log_lines() if int(line["epoch"]) < values["epoch"]]
        columns = list(dict.fromkeys([*values, *(kept[0] if kept else ())]))
        with atomic_write(self.log) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows([*kept, values])

    def log_lines(self) -> list[dict[str, str]]:
        """The lines of log.csv, as `read_log`; none where there is no log."""
        return read_log(self.log) if self.log.is_file() else []


def read_log(path: str | Path) -> list[dict[str, str]]:
    """The lines of a run's log.csv, an epoch each: column -> number as text, "nan" or nothing.

    Raises:
        UserError: it cannot be read, has a line of another length, or something else than numbers.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            lines = list(reader)
        for line in lines:
            if None in line or None in line.values() or as_whole(line["epoch"]) < 1:
                raise ValueError
            for text in line.values():
                if text not in ("", "nan"):
                    as_number(text)
        good = len(reader.fieldnames or ()) == len(set(reader.fieldnames or ()))
    except (OSError, KeyError, ValueError, csv.Error):
        good = False
    if not good:
        raise UserError(f"{path} is not the log of a run (an 'epoch' and its numbers in each line): restore it")
    return lines


def check_alike(found: Any, expected: Any, name: str = "state") -> None:
    """Check that two values of dictionaries, lists, tensors and plain values differ in finite numbers alone.

    An empty dictionary is like any other.

    Raises:
        ValueError: a type, a key, a length, a shape or a type of a tensor's numbers differs.
    """
    if type(found) is not type(expected):
        raise ValueError(f"{name} is {type(found).__name__}, expected {type(expected).__name__}")
    if isinstance(expected, Tensor):
        if (found.dtype, found.shape) != (expected.dtype, expected.shape):
            raise ValueError(
                f"{name} is {found.dtype}, {tuple(found.shape)}; expected {expected.dtype}, {tuple(expected.shape)}"
            )
        if not found.isfinite().all():
            raise ValueError(f"{name} is not finite")
    elif isinstance(expected, Mapping):
        if expected and found.keys() != expected.keys():
            raise ValueError(f"{name} has {', '.join(map(str, found))}; expected {', '.join(map(str, expected))}")
        for key in expected:
            check_alike(found[key], expected[key], f"{name}[{key!r}]")
    elif isinstance(expected, list | tuple):
        if len(found) != len(expected):
            raise ValueError(f"{name} has {len(found)} entries, expected {len(expected)}")
        for number, (one, other) in enumerate(zip(found, expected, strict=True)):
            check_alike(one, other, f"{name}[{number}]")
    elif isinstance(expected, float) and not math.isfinite(found):
        raise ValueError(f"{name} is {found}")


def find_checkpoint(weights: str | Path, models_out: str | Path, stage: str) -> Path:
    """The checkpoint that 'weights' of a forward script stands for.

    Args:
        weights: "best" or "last" of the newest run of the stage, or the path of a file or of a run folder (its best).
        models_out: folder of run folders, of both stages perhaps.
        stage: "STE" or "ASC".

    Raises:
        UserError: there is none.
    """
    if str(weights) not in ("best", "last"):
        path = Path(weights)
        path = path / "best.pth" if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"no {stage} weights {path}: give 'best', 'last' or the path of a .pth file")
        return path
    folders = [path.parent for path in Path(models_out).glob(f"*/{STATE}")]
    folders = [folder for folder in folders if f"{stage}_optimization_params" in _read_settings(folder)]
    if not folders:
        raise UserError(f"no finished epoch of any run in {models_out}: run {stage}_train.py, or give a .pth file")
    newest = max(folders, key=lambda folder: (folder / STATE).stat().st_mtime)
    if weights == "last":
        return max(newest.glob("[0-9]*.pth"), key=lambda path: int(path.stem))
    if not (newest / "best.pth").is_file():
        raise UserError(
            f"{newest} has no best epoch: nobody speaks in its validation clips, so they have no average precision; "
            "give 'last' or the path of a .pth file"
        )
    return newest / "best.pth"


def check_trained_with(weights: Path, stage: str, now: Mapping[str, Any]) -> str | None:
    """Check that weights are used as their run trained them; returns a note where no run's settings lie beside them.

    Args:
        weights: a checkpoint.
        stage: "STE" or "ASC".
        now: settings as now used, named as in settings.json, a dot between a dictionary and its key.

    Raises:
        UserError: some differ.
    """
    then = _flat(_read_settings(weights.parent)) if (weights.parent / SETTINGS).is_file() else {}
    if not any(key.startswith(f"{stage}_optimization_params.") for key in then):
        return f"note: no {SETTINGS} of a training beside {weights}: how it was trained is not known"
    now = json.loads(json.dumps(now))
    differing = [
        f"  - {key}: {then[key]!r} in training, {value!r} now"
        for key, value in now.items()
        if key in then and then[key] != value
    ]
    if differing:
        raise UserError(
            f"{weights} was trained with other settings ({weights.parent / SETTINGS}); use those, or other weights:\n"
            + "\n".join(differing)
        )
    return None


def _read_settings(folder: Path) -> dict[str, Any]:
    return read_json(folder / SETTINGS, f"restore it, or move {folder} away")


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of a run's settings is not the same now, a line each, but for what alters no step."""
    then, now = _flat(then), _flat(json.loads(json.dumps(now)))
    return [
        f"  - {key}: {then.get(key)!r} then, {now.get(key)!r} now"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and not MAY_CHANGE.fullmatch(key)
    ]


def _keep_or_remove(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder holds a run that can be gone on with; one that cannot is removed, but for what others wrote."""
    if not (folder / SETTINGS).is_file():
        return False
    then = _read_settings(folder)
    epochs = {key: value for key, value in _flat(then).items() if key.endswith(".epochs")}
    longer = any(value > _flat(settings).get(key, value) for key, value in epochs.items())
    if not longer and not _differences(then, settings):
        return True
    written = re.compile(rf"(\d+|best)\.pth|{STATE}|log\.csv|events\.out\.tfevents\..*|{SETTINGS}")
    for path in folder.iterdir():
        if written.fullmatch(path.name):
            path.unlink()
    return False


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
