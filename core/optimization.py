"""The training loop of both stages: a stage passes its network, its data and the loss of a batch.

Everything drawn at random depends on the seed, the epoch and the batch, so a run that goes on after an interrupt takes
the same steps as one that was never interrupted, and several processes take those of one (up to rounding, and but for
networks with dropout).
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm import tqdm

from core.evaluation.metrics import average_precision
from core.evaluation.scores import speaking_probability
from core.inputs.loading import BatchDataset, load_batches
from core.inputs.sampling import Batches
from core.inputs.transforms import Draws
from core.runtime.errors import UserError
from core.training.distributed import synchronise_batch_norms
from core.training.losses import BatchLoss, LossFunction
from core.training.runs import Run


@dataclass
class EpochTotals:
    """Sums over the items of an epoch, of this process."""

    items: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    logits: dict[str, list[np.ndarray]] = field(default_factory=dict)
    labels: list[np.ndarray] = field(default_factory=list)

    def add(self, result: BatchLoss) -> float:
        """Count a batch; returns its loss."""
        items = len(result.labels)
        if not torch.isfinite(result.loss):
            raise UserError(
                "the loss is no finite number any more: the training has diverged; lower the learning_rate, or resume "
                "from an earlier checkpoint with another one"
            )
        self.items += items
        values = {"loss": result.loss, **result.parts}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach()) * items
        for head, logits in result.logits.items():
            self.logits.setdefault(head, []).append(logits.detach().float().cpu().numpy())
        self.labels.append(result.labels.cpu().numpy())
        return float(result.loss.detach())

    def summary(self) -> dict[str, float]:
        """Means over the items of all processes; average precision and accuracy of each head."""
        parts = gather_object([self])
        items = sum(part.items for part in parts)
        values = {name: sum(part.sums.get(name, 0.0) for part in parts) / items for name in parts[0].sums}
        labels = np.concatenate([array for part in parts for array in part.labels]) == 1
        for number, head in enumerate(self.logits):
            logits = np.concatenate([array for part in parts for array in part.logits[head]])
            prefix = "" if number == 0 else f"{head}_"
            scores = speaking_probability(logits, np.zeros(len(logits), np.int64))
            values[f"{prefix}ap"] = average_precision(labels, scores) if labels.any() else float("nan")
            if number == 0:
                values["accuracy"] = float(np.mean((scores >= 0.5) == labels))
        return values


def make_accelerator(device: torch.device, precision: str) -> Accelerator:
    """Device, precision and processes: of `device`, or under torchrun of each process's own.

    Args:
        device: where one process trains; its type also decides for torchrun.
        precision: "auto" (bf16 where the CUDA device has it, else fp32), "fp32", "bf16" or "fp16".
    """
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return Accelerator(cpu=device.type == "cpu", mixed_precision="no" if precision == "fp32" else precision)


def process_share(accelerator: Accelerator) -> dict[str, int]:
    """Which process this is and how many there are, as `core.inputs.sampling` takes it."""
    return {"rank": accelerator.process_index, "world_size": accelerator.num_processes}


def make_optimizer(name: str | type, model: nn.Module, learning_rate: float, weight_decay: float):
    """An optimizer of torch.optim by name, or the class or callable itself as old configurations have it."""
    constructor = getattr(torch.optim, name) if isinstance(name, str) else name
    options = {"weight_decay": weight_decay} if weight_decay else {}
    return constructor(model.parameters(), lr=learning_rate, **options)


def make_criterion(name: str | type | nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss of torch.nn by name, or the class or object itself as old configurations have it."""
    criterion = getattr(nn, name) if isinstance(name, str) else name
    return criterion() if isinstance(criterion, type) else criterion


class Training:
    """A training: the network, its data, and how the loss of a batch is had.

    Args:
        model: network; moved to the accelerator's device.
        loss_function: called as (model, batch on the device, random numbers for augmentation or None in
            validation).
        train_set, val_set: data sets of whole batches (`core.dataset`, `core.track_dataset`).
        train_batches, val_batches: which items make up a batch, in the share of this process (`core.inputs.sampling`).
        params: the stage's optimization parameters (`core/config.py`).
        accelerator: from `make_accelerator`.
        item: what a batch's labels are of, in the progress bar and the log.

    Raises:
        UserError: there are not enough items to give every process one.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_function: LossFunction,
        train_set: BatchDataset,
        val_set: BatchDataset,
        train_batches: Batches,
        val_batches: Batches,
        params: dict[str, Any],
        accelerator: Accelerator,
        item: str = "clips",
    ):
        self.accelerator, self.loss_function, self.params, self.item = accelerator, loss_function, params, item
        device, world_size = accelerator.device, accelerator.num_processes
        for batches, purpose in ((train_batches, "train"), (val_batches, "validate")):
            if not batches.global_sizes():
                raise UserError(
                    f"too few {item} to {purpose} on: not one batch has a share for each of {world_size} process(es); "
                    "give more data, or start fewer processes"
                )
        if world_size > 1:
            model = synchronise_batch_norms(model, device)
        if device.type == "cuda":
            _lay_out_channels_last(model)
        self.weights = model
        self.optimizer = make_optimizer(
            params["optimizer"], model.to(device), params["learning_rate"], params["weight_decay"]
        )
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, params["step_size"], params["gamma"])
        self.model, self.optimizer = accelerator.prepare(model, self.optimizer)
        if params["compile"]:
            self.model = torch.compile(self.model)
        self.train_set, self.val_set = train_set, val_set
        self.train_batches, self.val_batches = train_batches, val_batches

    def fit(self, run: Run) -> dict[str, float]:
        """Train to the last epoch, from the run's state if it has one; returns the last epoch's log line."""
        state = run.load_state()
        first, best, line = 1, -1.0, {}
        if state is not None:
            self.weights.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            first, best, line = state["epoch"] + 1, state["best"], state["line"]
        board = self._board(run)
        for epoch in range(first, self.params["epochs"] + 1):
            if self.ends_before(epoch):
                break
            started = time.perf_counter()
            train = self._epoch(epoch, training=True)
            seconds = time.perf_counter() - started
            with torch.no_grad():
                val = self._epoch(epoch, training=False)
            line = {"epoch": epoch, "learning_rate": self.scheduler.get_last_lr()[0]}
            line |= {f"train_{name}": value for name, value in train.items()}
            line |= {f"val_{name}": value for name, value in val.items()}
            line |= {"train_seconds": seconds, f"{self.item}_per_s": sum(self.train_batches.global_sizes()) / seconds}
            self.scheduler.step()
            better = val["ap"] > best
            best = max(best, val["ap"])
            if self.accelerator.is_main_process:
                state = {
                    "model": self.weights.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scheduler": self.scheduler.state_dict(),
                    "epoch": epoch,
                    "best": best,
                    "line": line,
                }
                run.append_log(line)
                run.save(epoch, self.weights.state_dict(), state, best=better)
                _write_scalars(board, line)
                self.accelerator.print(_sentence(line, better))
            self.accelerator.wait_for_everyone()
        return line

    def ends_before(self, epoch: int) -> bool:
        """Whether training ends early, without this epoch; for subclasses that have a reason to."""
        return False

    def _epoch(self, epoch: int, *, training: bool) -> dict[str, float]:
        self.model.train(training)
        dataset, batches = (self.train_set, self.train_batches) if training else (self.val_set, self.val_batches)
        batches.epoch = epoch if training else 0
        sizes = batches.global_sizes()
        totals = EpochTotals()
        world_size = self.accelerator.num_processes
        with self._bar(epoch, sum(sizes), training) as bar:
            loaded = load_batches(dataset, batches, self.params["threads"], self.accelerator.device)
            for number, (batch, size) in enumerate(zip(loaded, sizes, strict=True)):
                draws = None
                if training:
                    draws = self._draws(epoch, number, size)
                with self.accelerator.autocast():
                    result = self.loss_function(self.model, batch, draws)
                if training:
                    # Processes may hold one item more or less: each item weighs the same in the global mean.
                    share = len(result.labels) * world_size / size
                    self.optimizer.zero_grad(set_to_none=True)
                    self.accelerator.backward(result.loss * share)
                    self.optimizer.step()
                loss = totals.add(result)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update(size)
        return totals.summary()

    def _draws(self, epoch: int, number: int, size: int) -> Draws:
        """Random numbers for a batch of training; what the network itself draws (dropout) begins anew as well."""
        rank = self.accelerator.process_index
        sequence = np.random.SeedSequence((self.params["seed"], epoch, number))
        seed = int(sequence.generate_state(1, np.uint64)[0]) >> 1
        torch.manual_seed(seed + rank)  # in each process another: they have different items
        return Draws(torch.Generator().manual_seed(seed), size, rank, self.accelerator.num_processes)

    def _bar(self, epoch: int, items: int, training: bool) -> tqdm:
        name = f"epoch {epoch}/{self.params['epochs']} {'train' if training else 'val'}"
        hidden = None if self.accelerator.is_main_process else True  # None: shown where there is a terminal
        return tqdm(total=items, desc=name, unit=f" {self.item}", disable=hidden, leave=False)

    def _board(self, run: Run):
        if not self.accelerator.is_main_process:
            return contextlib.nullcontext()
        from torch.utils.tensorboard import SummaryWriter  # here: it takes a second to import

        return SummaryWriter(str(run.folder), flush_secs=10)


def _lay_out_channels_last(model: nn.Module) -> None:
    """Lay out the weights of convolutions over pictures so that cuDNN has its fastest kernels."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def _write_scalars(board, line: dict[str, float]) -> None:
    for name, value in line.items():
        if name != "epoch":
            board.add_scalar(name.replace("_", "/", 1), value, line["epoch"])
    board.flush()


def _sentence(line: dict[str, float], better: bool) -> str:
    rate = next(value for name, value in line.items() if name.endswith("_per_s"))
    return (
        f"epoch {line['epoch']}: loss {line['train_loss']:.4f} train, {line['val_loss']:.4f} val; "
        f"AP {line['train_ap']:.4f} train, {line['val_ap']:.4f} val; {rate:.1f}/s{'; best so far' if better else ''}"
    )
