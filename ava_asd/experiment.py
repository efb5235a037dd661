"""The folder of a training: <data>/experiments/<name>, with checkpoints named as published."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ava_asd.telegram import TelegramBot
from core.models.weights import write_torch_file
from core.runtime.checks import as_number
from core.runtime.errors import UserError
from core.training.runs import Run

FOLDER = "experiments"


class Experiment(Run):
    """A run folder with checkpoints <name>-<mode>-weights-<epoch>-<validation accuracy>.pth.

    Args:
        folder, resume: as in `core.training.runs.Run`.
        settings: with the configuration as "config".

    Attributes:
        bot: gets each epoch's numbers, if there is one.
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any], resume: bool):
        super().__init__(folder, settings, resume)
        self.mode, self.best_only = settings["config"]["mode"], settings["config"]["save_best_only"]
        self.bot: TelegramBot | None = None

    def logged(self, name: str, before: float = math.inf) -> list[float]:
        """The values of a column of the log, of the epochs before one: after an interrupt there may be later ones.

        Raises:
            UserError: the log cannot be read, or has no such numbers.
        """
        try:
            return [as_number(line[name]) for line in self.log_lines() if int(line["epoch"]) < before]
        except (KeyError, ValueError) as error:
            raise UserError(f"{self.log} lacks the numbers of {name}: restore it, or start another --name") from error

    def load_state(self) -> dict[str, Any] | None:
        """The last state that was saved, as `core.training.runs.Run.load_state`.

        Raises:
            UserError: it cannot be read, or the log lacks epochs before it, on which early stopping and
                save_best_only depend.
        """
        state = super().load_state()
        if state is not None:
            logged = len(self.logged("val_accuracy", before=state["epoch"] + 1))
            if logged != state["epoch"]:
                raise UserError(
                    f"{self.log} has {logged} of {state['epoch']} finished epochs: restore it, or start another --name"
                )
        return state

    def append_log(self, values: Mapping[str, Any]) -> None:
        """Add an epoch's line to the log, and report it."""
        super().append_log(values)
        if self.bot is not None:
            measured = {name: value for name, value in values.items() if name != "train_seconds"}
            self.bot.report_epoch(self.folder.name, values["epoch"], measured)

    def save(self, epoch: int, weights: Mapping[str, torch.Tensor], state: Mapping[str, Any], best: bool) -> None:
        """Write an epoch's checkpoint, then the state to resume from.

        With save_best_only the checkpoint is written where the validation accuracy, the log's last, has risen;
        `best`, which goes by average precision, is not used.
        """
        *before, accuracy = self.logged("val_accuracy")
        if not self.best_only or accuracy > max(before, default=-1.0):
            name = f"{self.folder.name}-{self.mode}-weights-{epoch:02d}-{accuracy:.4f}.pth"
            write_torch_file(self.folder / name, dict(weights))
        self.save_state(state)


def stalled(losses: list[float], patience: int) -> bool:
    """Whether the least of some losses, an epoch each, is `patience` epochs old."""
    return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience
