"""The training loop of both stages: a stage passes its network, its data and the loss of a batch.

Everything drawn at random depends on the seed, the epoch and the batch, so that a run resumed after an interrupt takes
the same steps as one that was never interrupted, with another number of processes perhaps. Several processes take the
same batches, batch norms' statistics and the mean of their gradients, as one process does; but for what networks draw
themselves (dropout), which depends on the process.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from torch.optim import Optimizer
from tqdm import tqdm

from core.evaluation.metrics import accuracy, average_precision
from core.evaluation.scores import speaking_probability
from core.inputs.loading import BatchDataset, load_batches
from core.inputs.sampling import Batches
from core.inputs.transforms import Draws
from core.runtime.errors import UserError
from core.runtime.files import make_folder
from core.training.batch_norm import share_batch_norms
from core.training.losses import BatchLoss, Criterion, LossFunction
from core.training.peers import check_same, same_everywhere
from core.training.runs import STATE_REMEDY, Run, check_alike


@dataclass
class EpochTotals:
    """Sums over what is labelled in an epoch's batches, of this process."""

    items: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    logits: dict[str, list[np.ndarray]] = field(default_factory=dict)
    labels: list[np.ndarray] = field(default_factory=list)

    def add(self, result: BatchLoss) -> float:
        """Count a batch; returns its loss."""
        items = len(result)
        if not torch.isfinite(result.loss):
            raise UserError(
                "the loss is not finite any more: the training has diverged; lower the learning_rate, or resume "
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
        """Means over what is labelled in all processes' batches; average precision and accuracy of each head."""
        parts = gather_object([self])
        items = sum(part.items for part in parts)
        values = {name: sum(part.sums.get(name, 0.0) for part in parts) / items for name in parts[0].sums}
        labels = np.concatenate([array for part in parts for array in part.labels]) == 1
        for number, head in enumerate(parts[0].logits):
            logits = np.concatenate([array for part in parts for array in part.logits.get(head, [])])
            prefix = "" if number == 0 else f"{head}_"
            scores = speaking_probability(logits, np.zeros(len(logits), np.int64))
            values[f"{prefix}ap"] = average_precision(labels, scores) if labels.any() else float("nan")
            if number == 0:
                values["accuracy"] = accuracy(labels, scores)
        return values


def make_accelerator(device: torch.device, precision: str) -> Accelerator:
    """Device, precision and processes of a training.

    Args:
        device: where to train; under torchrun each process has a device of its own, of the same type.
        precision: "auto" (bf16 where the CUDA device has it, else fp32), "fp32", "bf16" or "fp16".
    """
    if precision == "auto":
        precision = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return Accelerator(cpu=device.type == "cpu", mixed_precision="no" if precision == "fp32" else precision)


def process_share(accelerator: Accelerator) -> dict[str, int]:
    """The keyword arguments by which `core.inputs.sampling` gives this process its share of each batch."""
    return {"rank": accelerator.process_index, "world_size": accelerator.num_processes}


def make_optimizer(
    name: str | Callable[..., Optimizer],
    parameters: Iterable[nn.Parameter],
    learning_rate: float,
    weight_decay: float = 0.0,
) -> Optimizer:
    """An optimizer of torch.optim by name, or made by the class or callable itself as old configurations have it."""
    constructor = getattr(torch.optim, name) if isinstance(name, str) else name
    options = {"weight_decay": weight_decay} if weight_decay else {}
    return constructor(parameters, lr=learning_rate, **options)


def make_criterion(name: str | type | Criterion) -> Criterion:
    """A loss of torch.nn by name, or the class or callable itself as old configurations have it."""
    criterion = getattr(nn, name) if isinstance(name, str) else name
    return criterion() if isinstance(criterion, type) else criterion


class Training:
    """A network in training: its data, its loss and its optimizer.

    Args:
        model: moved to the accelerator's device.
        loss_function: called as (model, batch on the device, random numbers for augmentation or None in
            validation).
        train, val: a data set that makes whole batches (`core.dataset`, `core.track_dataset`), and which items make up
            a batch, in the share of this process (`core.inputs.sampling`).
        accelerator: from `make_accelerator`.
        optimizer: see `make_optimizer`.
        learning_rate: of the first epoch.
        weight_decay: 0 leaves the optimizer's default.
        epochs: in all, those before a resume included.
        step_size: epochs between cuts of the learning rate.
        gamma: factor of a cut.
        threads: make batches ahead; 0 makes each when it is needed.
        seed: of augmentation and dropout.
        compile: torch.compile the network.
        item: what a batch's labels belong to, in the progress bar and the log.

    Raises:
        UserError: there are not enough items to give every process one, or processes differ in how many there are.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_function: LossFunction,
        *,
        train: tuple[BatchDataset, Batches],
        val: tuple[BatchDataset, Batches],
        accelerator: Accelerator,
        optimizer: str | Callable[..., Optimizer],
        learning_rate: float,
        weight_decay: float = 0.0,
        epochs: int,
        step_size: int = 1,
        gamma: float = 1.0,
        threads: int = 0,
        seed: int = 0,
        compile: bool = False,
        item: str = "clips",
    ):
        for (_, batches), purpose in ((train, "train"), (val, "validate")):
            if not batches.global_sizes():
                raise UserError(
                    f"too few {item} to {purpose} on: not one batch has a share for each of "
                    f"{accelerator.num_processes} process(es); give more data, or start fewer processes"
                )
        sizes = {f"{name} batches": part[1].global_sizes() for name, part in (("train", train), ("val", val))}
        found = {name: f"{len(each)}, of {sum(each)} {item}" for name, each in sizes.items()}
        check_same(
            "data or devices", {**found, "device": accelerator.device.type, "precision": accelerator.mixed_precision}
        )
        self.train, self.val = train, val
        self.accelerator, self.loss_function, self.item = accelerator, loss_function, item
        self.epochs, self.threads, self.seed = epochs, threads, seed
        if accelerator.num_processes > 1:
            model = share_batch_norms(model, accelerator.device)
        if accelerator.device.type == "cuda":
            _use_channels_last(model)
        self.weights = model.to(accelerator.device)
        self._make_optimizer = lambda parameters: make_optimizer(optimizer, parameters, learning_rate, weight_decay)
        self.optimizer = self._make_optimizer(model.parameters())
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, step_size, gamma)
        self.model, self.optimizer = accelerator.prepare(model, self.optimizer)
        if compile:
            self.model = torch.compile(self.model)

    def describe(self) -> str:
        """The size of the network, the devices and the precision, in words."""
        precision = {"no": "fp32"}.get(self.accelerator.mixed_precision, self.accelerator.mixed_precision)
        return (
            f"{sum(parameter.numel() for parameter in self.weights.parameters()):,} parameters on "
            f"{self.accelerator.num_processes} x {self.accelerator.device}, {precision}"
        )

    def fit(
        self, run: Run, *, events: str | Path | None = None, ends_before: Callable[[int], bool] | None = None
    ) -> dict[str, float]:
        """Train to the last epoch, from the run's state if it has one; returns the last epoch's log line.

        Args:
            run: where checkpoints and the log are kept.
            events: folder of TensorBoard's files, by default the run's.
            ends_before: called with each epoch before it; whether the training ends early, without it.
        """
        first, best, line = self._resume(run)
        trains = first <= self.epochs and self.accelerator.is_main_process
        board = _summary_writer(events or run.folder) if trains else None
        for epoch in range(first, self.epochs + 1):
            # Asked of the main process, which alone has the log.
            if ends_before is not None and same_everywhere(self.accelerator.is_main_process and ends_before(epoch)):
                break
            started = time.perf_counter()
            train = self._epoch(epoch, training=True)
            seconds = time.perf_counter() - started
            with torch.no_grad():
                val = self._epoch(epoch, training=False)
            line = {"epoch": epoch, "learning_rate": self.scheduler.get_last_lr()[0]}
            line |= {f"train_{name}": value for name, value in train.items()}
            line |= {f"val_{name}": value for name, value in val.items()}
            rate = sum(self.train[1].global_sizes()) / seconds
            line |= {"train_seconds": seconds, f"{self.item}_per_s": rate}
            self.scheduler.step()
            better = val["ap"] > best
            best = max(best, val["ap"])
            if self.accelerator.is_main_process:
                state = {
                    "model": self.weights.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "scheduler": self.scheduler.state_dict(),
                    "scaler": self._scaler_state(),
                    "epoch": epoch,
                    "best": best,
                    "line": line,
                }
                run.append_log(line)
                run.save(epoch, self.weights.state_dict(), state, best=better)
                for name, value in list(line.items())[1:]:  # all but the epoch
                    board.add_scalar(name.replace("_", "/", 1), value, epoch)
                board.flush()
                self.accelerator.print(
                    f"epoch {epoch}: loss {train['loss']:.4f} train, {val['loss']:.4f} val; AP {train['ap']:.4f} "
                    f"train, {val['ap']:.4f} val; {rate:.1f}/s{'; best so far' if better else ''}"
                )
            self.accelerator.wait_for_everyone()
        return line

    def _resume(self, run: Run) -> tuple[int, float, dict[str, float]]:
        """Take up the run's state, if it has one: the next epoch, the best average precision, the last log line.

        Raises:
            UserError: it is not the state of this network, optimizer and scheduler.
        """
        state = same_everywhere(run.load_state() if self.accelerator.is_main_process else None)
        if state is None:
            return 1, -1.0, {}
        expected = {name: getattr(self, name).state_dict() for name in ("optimizer", "scheduler")}
        expected["scaler"] = self._scaler_state()
        moments = self._moments()
        try:
            # Parameters without a gradient have no moments.
            expected["optimizer"]["state"] = {key: moments[key] for key in state["optimizer"]["state"]}
            check_alike(state, {"model": self.weights.state_dict(), **expected, "epoch": 1, "best": 0.0, "line": {}})
            if state["epoch"] < 1 or state["line"].get("epoch") != state["epoch"]:
                raise ValueError("its epoch is not that of its log line")
            self.weights.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scheduler.load_state_dict(state["scheduler"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{run.state}: not a state of this training ({error}); {STATE_REMEDY}") from error
        return state["epoch"] + 1, state["best"], state["line"]

    def _scaler_state(self) -> dict[str, Any]:
        """The scale of the loss in fp16; empty in other precisions."""
        return {} if self.accelerator.scaler is None else self.accelerator.scaler.state_dict()

    def _moments(self) -> dict[int, dict[str, Any]]:
        """What the optimizer keeps of each parameter after a step."""
        parameters = [torch.zeros_like(p, device="cpu", requires_grad=True) for p in self.weights.parameters()]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer = self._make_optimizer(parameters)
        optimizer.step()
        return optimizer.state_dict()["state"]

    def _epoch(self, epoch: int, *, training: bool) -> dict[str, float]:
        model = self.model if training or self.accelerator.num_processes == 1 else self._with_shared_buffers()
        model.train(training)
        dataset, batches = self.train if training else self.val
        batches.epoch = epoch if training else 0
        sizes = batches.global_sizes()
        totals = EpochTotals()
        with self._bar(epoch, sum(sizes), training) as bar:
            loaded = load_batches(dataset, batches, self.threads, self.accelerator.device)
            # In validation the last batch may have no item for this process.
            for number, (batch, size) in enumerate(zip(loaded, sizes, strict=training)):
                draws = self._draws(epoch, number, size) if training else None
                with self.accelerator.autocast():
                    result = self.loss_function(model, batch, draws)
                if training:
                    # Processes hold more of a batch or less: each label weighs the same in the global mean.
                    labels = torch.tensor(len(result), device=self.accelerator.device)
                    share = labels * self.accelerator.num_processes / self.accelerator.reduce(labels)
                    self.optimizer.zero_grad(set_to_none=True)
                    self.accelerator.backward(result.loss * share)
                    self.optimizer.step()
                loss = totals.add(result)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                bar.update(size)
        return totals.summary()

    def _with_shared_buffers(self) -> nn.Module:
        """The network for a validation over several processes, which need not have equally many batches.

        Without the wrapper, which would wait for all processes in each batch; with the main process's batch norm
        statistics in all of them, which are those of its checkpoint.
        """
        for buffer in self.weights.buffers():
            torch.distributed.broadcast(buffer, src=0)
        return self.weights

    def _draws(self, epoch: int, number: int, size: int) -> Draws:
        """Random numbers for a batch of training; what the network itself draws (dropout) begins anew as well."""
        rank = self.accelerator.process_index
        sequence = np.random.SeedSequence((self.seed, epoch, number))
        seed = int(sequence.generate_state(1, np.uint64)[0]) >> 1
        torch.manual_seed(seed + rank)  # in each process another: they have different items
        return Draws(torch.Generator().manual_seed(seed), size, rank, self.accelerator.num_processes)

    def _bar(self, epoch: int, items: int, training: bool) -> tqdm:
        name = f"epoch {epoch}/{self.epochs} {'train' if training else 'val'}"
        hidden = not self.accelerator.is_main_process or None  # None: shown where there is a terminal
        return tqdm(total=items, desc=name, unit=f" {self.item}", disable=hidden, leave=False)


def _use_channels_last(model: nn.Module) -> None:
    """Lay out the weights of 2-d convolutions as cuDNN's fastest kernels need them."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def _summary_writer(folder: str | Path):
    from torch.utils.tensorboard import SummaryWriter  # here: it takes a second to import

    return SummaryWriter(str(make_folder(folder)), flush_secs=10)
