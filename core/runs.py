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

from core.errors import UserError
from core.files import make_folder, write_json, written_whole

MAY_CHANGE = (".epochs", ".threads", ".cuda_device")  # settings that a resumed run may change: they alter no step


class Run:
    """A run folder that a training writes.

    Args:
        folder: made if absent.
        settings: what the run depends on, kept as settings.json.
        resume: go on with the run that the folder holds; otherwise it must not hold one.

    Raises:
        UserError: the folder holds a run and `resume` is not asked for, or it is asked for and there is none, or it
            was made with other settings.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], resume: bool):
        self.folder = make_folder(folder)
        self.log = self.folder / "log.csv"
        written = self.folder / "settings.json"
        plain = json.loads(json.dumps(settings))
        if not resume:
            if (self.folder / "last.pt").exists():
                raise UserError(f"{self.folder} holds a run: give another --name, or --resume to go on with it")
            write_json(written, settings)
            self.log.unlink(missing_ok=True)
        elif not written.is_file():
            raise UserError(f"--resume: {self.folder} holds no run; start one without --resume")
        else:
            before = json.loads(written.read_text(encoding="utf-8"))
            differing = [line for line in _differing(before, plain) if not line.split(":")[0].endswith(MAY_CHANGE)]
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
        """What `save` was given last, on the CPU; None where no epoch was finished."""
        path = self.folder / "last.pt"
        return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None

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
        with written_whole(self.folder / "last.pt") as temporary:
            torch.save(dict(state), temporary)

    def append_log(self, values: Mapping[str, Any]) -> None:
        """Add an epoch's line to log.csv; lines of this epoch or later ones, from an interrupted run, are dropped."""
        kept = []
        if self.log.is_file():
            with self.log.open(newline="", encoding="utf-8") as file:
                kept = [line for line in csv.DictReader(file) if int(line["epoch"]) < values["epoch"]]
        with written_whole(self.log) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(values))
            writer.writeheader()
            writer.writerows([*kept, values])


def find_weights(weights: str | Path, models_out: str | Path, stage: str) -> Path:
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
    runs = [path for path in Path(models_out).glob("*/last.pt") if _is_of_stage(path.parent, stage)]
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
    return f"{stage}_optimization_params" in json.loads((folder / "settings.json").read_text(encoding="utf-8"))


def _differing(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    lines = []
    for key in sorted(before.keys() | now.keys()):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            lines += _differing(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"  - {prefix}{key}: {old!r} then, {new!r} now")
    return lines
