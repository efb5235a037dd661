"""A run folder: what a training writes, and what it needs to go on after an interrupt.

settings.json (all settings), log.csv (a line an epoch), N.pth (state dict of epoch N), best.pth (the one of the highest
average precision), last.pt (all that resuming needs), TensorBoard events. Every file appears whole or not at all.
"""

import csv
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import Accelerator

from core.runtime.errors import UserError
from core.runtime.files import atomic_write, make_folder, write_json

SETTINGS = "settings.json"
STATE = "last.pt"
# Settings that a resumed run may change: they alter no step.
MAY_CHANGE = (".epochs", ".threads", ".tb_logdir")


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
        self.log = self.folder / "log.csv"
        if resume:
            if not (self.folder / SETTINGS).is_file():
                raise UserError(f"--resume: {self.folder} holds no run; start one without --resume")
            then, now = _flat(_read_settings(self.folder)), _flat(json.loads(json.dumps(settings)))
            differing = [
                f"  - {key}: {then.get(key)!r} then, {now.get(key)!r} now"
                for key in sorted(then.keys() | now.keys())
                if then.get(key) != now.get(key) and not key.endswith(MAY_CHANGE)
            ]
            if differing:
                raise UserError(f"--resume: {self.folder} was made with other settings:\n" + "\n".join(differing))
        else:
            if has_state(self.folder):
                raise UserError(f"{self.folder} holds a run: give another --name, or --resume to go on with it")
            write_json(make_folder(self.folder) / SETTINGS, settings)
            self.log.unlink(missing_ok=True)

    @classmethod
    def open(cls, folder: str | Path, settings: Mapping[str, Any], resume: bool, accelerator: Accelerator) -> Self:
        """The run, opened by every process of a training: the main one makes it, the others wait for that.

        Raises:
            UserError: as `Run`.
        """
        if not accelerator.is_main_process:
            accelerator.wait_for_everyone()
            return cls(folder, settings, resume=True)
        try:
            return cls(folder, settings, resume)
        finally:
            accelerator.wait_for_everyone()

    def load_state(self) -> dict[str, Any] | None:
        """The last state that was saved, on the CPU; None where no epoch was finished.

        Raises:
            UserError: it cannot be read, or the log cannot.
        """
        path = self.folder / STATE
        if not path.is_file():
            return None
        self.log_lines()  # now, before an epoch is trained that could not be logged
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can make torch.load raise anything
            raise UserError(
                f"{path} cannot be read ({type(error).__name__}): it is damaged or cut short; restore it, or delete it "
                "and start anew without --resume"
            ) from error

    def save(self, epoch: int, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any], best: bool) -> None:
        """Write an epoch's checkpoint, a copy as the best one if it is, then the state to resume from."""
        checkpoint = self.folder / f"{epoch}.pth"
        with atomic_write(checkpoint) as temporary:
            torch.save(dict(weights), temporary)
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
        with atomic_write(self.folder / STATE) as temporary:
            torch.save(dict(state), temporary)

    def append_log(self, values: Mapping[str, Any]) -> None:
        """Add an epoch's line to log.csv; lines of this epoch or later ones, from an interrupted run, are dropped."""
        kept = [line for line in self.log_lines() if int(line["epoch"]) < values["epoch"]]
        columns = list(dict.fromkeys([*values, *(kept[0] if kept else ())]))
        with atomic_write(self.log) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows([*kept, values])

    def log_lines(self) -> list[dict[str, str]]:
        """The lines of log.csv, an epoch each: column -> text; none where there is no log.

        Raises:
            UserError: it cannot be read, has a line of another length, or an epoch that is not a number.
        """
        if not self.log.is_file():
            return []
        try:
            with self.log.open(newline="", encoding="utf-8") as file:
                lines = list(csv.DictReader(file, strict=True))
            good = all(None not in line and None not in line.values() and int(line["epoch"]) > 0 for line in lines)
        except (OSError, KeyError, ValueError, csv.Error):
            good = False
        if not good:
            raise UserError(f"{self.log} is not the log of a run (an 'epoch' and its numbers in each line): restore it")
        return lines


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


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(settings, dict):
            raise ValueError("not a dictionary")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it, or move {folder} away") from error
    return settings


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
