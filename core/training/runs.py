"""A run folder: what a training leaves behind, and what it needs to go on after an interrupt.

settings.json (all settings, whole), log.csv (a line an epoch), N.pth (state dict of epoch N), best.pth (a copy of the
best one), last.pt (all that resuming needs), TensorBoard events. Every file appears whole or not at all.
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
from core.runtime.files import make_folder, write_json, written_whole

STATE = "last.pt"  # all that resuming needs
# Settings that a resumed run may change: they alter no step.
MAY_CHANGE = (".epochs", ".threads", ".cuda_device", ".tb_logdir")


def has_state(folder: Path) -> bool:
    """Whether a run folder holds what a training can be resumed from."""
    return (folder / STATE).is_file()


class Run:
    """A run folder that a training writes.

    Args:
        folder: made if absent.
        settings: what the run depends on, kept as settings.json.
        resume: go on with the run that the folder holds; otherwise it must not hold one.

    Raises:
        UserError: the folder holds a run and `resume` is not asked for, or it is asked for and there is none, or it
            was made with other settings, or they cannot be read.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], resume: bool):
        self.folder = Path(folder)
        self.log = self.folder / "log.csv"
        written = self.folder / "settings.json"
        plain = json.loads(json.dumps(settings))
        if not resume:
            if has_state(self.folder):
                raise UserError(f"{self.folder} holds a run: give another --name, or --resume to go on with it")
            make_folder(self.folder)
            write_json(written, settings)
            self.log.unlink(missing_ok=True)
        elif not written.is_file():
            raise UserError(f"--resume: {self.folder} holds no run; start one without --resume")
        else:
            found = _differing(_read_settings(self.folder), plain)
            differing = [line for line in found if not line.split(":")[0].endswith(MAY_CHANGE)]
            if differing:
                raise UserError(f"--resume: {self.folder} was made with other settings:\n" + "\n".join(differing))

    @classmethod
    def open(cls, folder: str | Path, settings: Mapping[str, Any], resume: bool, accelerator: Accelerator) -> Self:
        """The run, opened by every process of a training: the main one makes it, then the others look at it.

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
        """What `save` was given last, on the CPU; None where no epoch was finished.

        Raises:
            UserError: it cannot be read, or the log cannot.
        """
        path = self.folder / STATE
        if not has_state(self.folder):
            return None
        self.log_lines()  # now, before an epoch is trained that could not be logged
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever the bytes of a damaged file lead torch.load into
            raise UserError(
                f"{path} cannot be read ({type(error).__name__}): it is damaged or cut short; restore it, or delete it "
                "and start anew without --resume"
            ) from error

    def save(self, epoch: int, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any], best: bool) -> None:
        """Write an epoch's checkpoint, mark it as the best one if it is, then the state to resume from."""
        checkpoint = self.folder / f"{epoch}.pth"
        with written_whole(checkpoint) as temporary:
            torch.save(dict(weights), temporary)
        if best:
            with written_whole(self.folder / "best.pth") as temporary:
                temporary.unlink()
                try:
                    os.link(checkpoint, temporary)  # no second copy where the file system can do without
                except OSError:
                    shutil.copyfile(checkpoint, temporary)
        self.save_state(state)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the state to resume from."""
        with written_whole(self.folder / STATE) as temporary:
            torch.save(dict(state), temporary)

    def append_log(self, values: Mapping[str, Any]) -> None:
        """Add an epoch's line to log.csv; lines of this epoch or later ones, from an interrupted run, are dropped."""
        kept = [line for line in self.log_lines() if int(line["epoch"]) < values["epoch"]]
        columns = list(dict.fromkeys([*values, *(kept[0] if kept else ())]))
        with written_whole(self.log) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows([*kept, values])

    def log_lines(self) -> list[dict[str, str]]:
        """The lines of log.csv, an epoch each, as text by the names of the columns; none where there is no log.

        Raises:
            UserError: it cannot be read, has a line of another length, or an epoch that is no number.
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
            raise UserError(f"{self.log} is no log of a run (an 'epoch' and its numbers in each line): restore it")
        return lines


def find_checkpoint(weights: str | Path, models_out: str | Path, stage: str) -> Path:
    """The checkpoint that a forward script's 'weights' names.

    Args:
        weights: "best" or "last" of the newest run of the stage, or the path of a file or of a run folder (its best).
        models_out: folder of run folders.
        stage: "STE" or "ASC"; both may have their runs in one folder.

    Raises:
        UserError: there is none.
    """
    if str(weights) not in ("best", "last"):
        path = Path(weights)
        path = path / "best.pth" if path.is_dir() else path
        if not path.is_file():
            raise UserError(f"no {stage} weights {path}: give 'best', 'last' or the path of a .pth file")
        return path
    runs = [path for path in Path(models_out).glob(f"*/{STATE}") if _is_of_stage(path.parent, stage)]
    runs.sort(key=lambda path: path.stat().st_mtime)
    if not runs:
        raise UserError(f"no finished epoch of any run in {models_out}: run {stage}_train.py, or give a .pth file")
    folder = runs[-1].parent
    if weights == "best":
        if not (folder / "best.pth").is_file():
            raise UserError(
                f"{folder} has no best epoch: nobody speaks in its validation clips, so they have no average "
                "precision; give 'last' or the path of a .pth file"
            )
        return folder / "best.pth"
    return max(folder.glob("[0-9]*.pth"), key=lambda path: int(path.stem))


def _is_of_stage(folder: Path, stage: str) -> bool:
    """Whether a run folder is of a stage, told by the settings it keeps."""
    return f"{stage}_optimization_params" in _read_settings(folder)


def _read_settings(folder: Path) -> dict[str, Any]:
    path = folder / "settings.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it, or move {folder} away") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no settings: restore it, or move {folder} away")
    return settings


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differing(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"  - {prefix}{key}: {old!r} then, {new!r} now")
    return lines
