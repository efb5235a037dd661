"""The training loop: it learns, goes on after an interrupt bit for bit, and is the same for two processes."""

import csv
import functools
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_dataset import contexts, make_features
from tiny import CROP_SIZE, exit_status
from torch import nn

import ASC_train
import STE_train
from core import optimization
from core.dataset import ClipDataset
from core.formats import ava
from core.inputs.sampling import ShuffledBatches
from core.models import ASC_Net, resnet18_two_streams
from core.optimization import EpochTotals, Training, make_accelerator, make_criterion, make_optimizer
from core.runtime.errors import UserError
from core.training.losses import BatchLoss, ContextLoss, EncoderLoss
from core.training.runs import Run

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ("train_seconds", "clips_per_s", "contexts_per_s", "frames_per_s")  # what differs between two equal runs
LABELS = ("NOT_SPEAKING", "SPEAKING_AUDIBLE", "SPEAKING_NOT_AUDIBLE")
FACES = [("v", f"v:{n}", 3 * n, 20, LABELS[n:] + LABELS[:n]) for n in range(3)]


@pytest.fixture
def models(tmp_path) -> Iterator[Path]:
    """A folder for run folders, emptied after the test: a run of the encoder weighs hundreds of megabytes."""
    yield tmp_path / "models"
    shutil.rmtree(tmp_path / "models", ignore_errors=True)


def as_options(dictionary: str, **values: object) -> list[str]:
    return [option for key, value in values.items() for option in ("--set", f"{dictionary}.{key}={value}")]


def encoder_options(prepared: Path, models: Path, **params: object) -> list[str]:
    """STE_train.py's command line: clips of 3 frames of 32 pixels on the CPU, run `a`."""
    inputs = {
        "csv_train_full": prepared / "csv" / "train.csv",
        "csv_val_full": prepared / "csv" / "val.csv",
        "audio_dir": prepared / "audio",
        "video_dir": prepared / "crops",
        "models_out": models,
    }
    small = {"crop_size": CROP_SIZE, "pretrained": False, "threads": 0, "batch_size": 4}
    return [
        *("3", "cpu", "--name", "a"),
        *as_options("STE_inputs", **inputs),
        *as_options("STE_optimization_params", **(small | params)),
    ]


def context_options(features: Path, models: Path, shape: tuple[int, int, int], **params: object) -> list[str]:
    """ASC_train.py's command line on the CPU, run `a`."""
    inputs = {"features_train_full": features, "features_val_full": features, "models_out": models}
    return [
        *map(str, shape),
        *("cpu", "--name", "a"),
        *as_options("ASC_inputs", **inputs),
        *as_options("ASC_optimization_params", **({"batch_size": 16, "learning_rate": 1e-3} | params)),
    ]


def log_lines(run: Path) -> list[dict[str, float]]:
    with (run / "log.csv").open(newline="") as file:
        return [
            {name: float(value) for name, value in line.items() if name not in MEASURED}
            for line in csv.DictReader(file)
        ]


def assert_same_tensors(one: Any, other: Any, place: str = "") -> None:
    """Nested dictionaries and lists with equal tensors and numbers."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one.keys() - set(MEASURED):
            assert_same_tensors(one[key], other[key], f"{place}/{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same_tensors(*pair, f"{place}/{number}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place


def context_training(store, params: dict[str, Any] | None = None, loss: Any = None) -> Training:
    """A training of a context network on a handful of features."""
    dataset = contexts(store, 3, 1, 2, random_speakers=True)
    torch.manual_seed(0)
    model = ASC_Net(3, 2, store.feature_size)
    defaults = {"optimizer": "Adam", "learning_rate": 1e-3, "weight_decay": 0.0, "epochs": 3, "step_size": 1}
    defaults |= {"gamma": 0.1, "batch_size": 16, "threads": 0, "compile": False, "seed": 0}
    accelerator = make_accelerator(torch.device("cpu"), "fp32")
    params = defaults | (params or {})
    batches = (ShuffledBatches(len(dataset), params["batch_size"], shuffle=shuffle) for shuffle in (True, False))
    loss = loss or ContextLoss(nn.CrossEntropyLoss())
    return Training(model, loss, dataset, dataset, *batches, params, accelerator)


# ---------------------------------------------------------------- learning


def losses_on_one_batch(model: nn.Module, loss, batch, learning_rate: float, steps: int) -> tuple[float, float]:
    optimizer = make_optimizer("Adam", model, learning_rate, 0.0)
    model.train()
    values = []
    for _ in range(steps):
        result = loss(model, batch, None)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        values.append(result.loss.item())
    return values[0], values[-1]


def test_the_encoder_learns_a_batch_by_heart(prepared):
    rows = ava.read_augmented(prepared / "csv" / "train.csv")
    folders = prepared / "crops" / "train", prepared / "audio" / "train"
    dataset = ClipDataset(rows, *folders, 3, CROP_SIZE, random_centres=True, mismatched_sounds=1)
    torch.manual_seed(0)
    loss = EncoderLoss(nn.CrossEntropyLoss(), dataset.mfcc_windows)
    batch = dataset.__getitems__([(0, item) for item in range(6)])
    before, after = losses_on_one_batch(resnet18_two_streams(rgb_stack_size=3), loss, batch, 1e-3, 6)
    assert after < 0.7 * before


def test_the_context_network_learns_a_batch_by_heart(tmp_path):
    dataset = contexts(make_features(tmp_path, FACES, size=32), 3, 2, 3, random_speakers=True)
    torch.manual_seed(0)
    batch = dataset.__getitems__([(0, item) for item in range(0, 60, 5)])
    assert 0 < batch.labels.sum() < len(batch.labels)
    loss = ContextLoss(nn.CrossEntropyLoss())
    before, after = losses_on_one_batch(ASC_Net(3, 3, 32), loss, batch, 1e-2, 40)
    assert after < 0.3 * before


def test_a_training_lowers_the_loss_and_keeps_its_log(tmp_path):
    training = context_training(
        make_features(tmp_path / "f", FACES), {"learning_rate": 3e-3, "epochs": 4, "gamma": 0.5}
    )
    run = Run(tmp_path / "run", {}, resume=False)
    last = training.fit(run)
    lines = log_lines(run.folder)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["learning_rate"] for line in lines] == pytest.approx([3e-3, 1.5e-3, 7.5e-4, 3.75e-4])
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert {name: value for name, value in last.items() if name not in MEASURED} == lines[-1]
    best = 1 + int(np.argmax([line["val_ap"] for line in lines]))
    weights = [torch.load(run.folder / name, weights_only=True) for name in (f"{best}.pth", "best.pth")]
    assert_same_tensors(dict(weights[0]), dict(weights[1]))
    assert list(run.folder.glob("events.out.tfevents.*"))


def test_a_training_changes_nothing_in_validation(tmp_path):
    training = context_training(make_features(tmp_path, FACES))
    before = {name: value.clone() for name, value in training.weights.state_dict().items()}
    with torch.no_grad():
        first = training._epoch(1, training=False)
        assert training._epoch(2, training=False) == first  # the same contexts, too
    assert_same_tensors(dict(training.weights.state_dict()), before)


# ---------------------------------------------------------------- what is counted


def batch_loss(loss: float, logits: list[list[float]], labels: list[int]) -> BatchLoss:
    heads = {"av": torch.tensor(logits), "audio": -torch.tensor(logits)}
    return BatchLoss(torch.tensor(loss), {"av_loss": torch.tensor(loss / 2)}, heads, torch.tensor(labels))


def test_totals_weigh_every_item_the_same():
    totals = EpochTotals()
    assert totals.add(batch_loss(1.0, [[0.0, 2.0], [0.0, 1.0], [0.0, -1.0]], [1, 0, 1])) == 1.0
    totals.add(batch_loss(3.0, [[0.0, -2.0]], [0]))
    summary = totals.summary()
    assert (summary["loss"], summary["av_loss"]) == (1.5, 0.75)
    assert summary["accuracy"] == 0.5  # by the scores 0.88 0.73 0.27 0.12 and the labels 1 0 1 0
    assert summary["ap"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert summary["audio_ap"] == pytest.approx(0.5 * 0.5 + 0.5 * 0.5)  # the other way round: 0 1 0 1


def test_average_precision_without_a_speaking_face_is_no_number():
    totals = EpochTotals()
    totals.add(batch_loss(1.0, [[0.0, 2.0]], [0]))
    assert math.isnan(totals.summary()["ap"])


def test_a_loss_that_is_no_number_ends_the_training_and_keeps_the_epochs_before(tmp_path):
    class Diverging:
        batches = 0

        def __call__(self, model, batch, draws) -> BatchLoss:
            result = ContextLoss(nn.CrossEntropyLoss())(model, batch, draws)
            self.batches += 1
            factor = 1.0 if self.batches < 10 else float("nan")  # 4 batches of training and 4 of validation an epoch
            return BatchLoss(result.loss * factor, result.parts, result.logits, result.labels)

    run = Run(tmp_path / "run", {}, resume=False)
    with pytest.raises(UserError, match=r"the loss is no finite number any more: .*lower the learning_rate"):
        context_training(make_features(tmp_path / "f", FACES), loss=Diverging()).fit(run)
    assert [line["epoch"] for line in log_lines(run.folder)] == [1]
    assert all(torch.isfinite(value).all() for value in run.load_state()["model"].values())


# ---------------------------------------------------------------- old configurations


def test_optimizers_by_name_class_or_callable():
    model = nn.Linear(2, 2)
    by_name = make_optimizer("AdamW", model, 0.1, 0.5)
    assert type(by_name) is torch.optim.AdamW
    assert (by_name.param_groups[0]["lr"], by_name.param_groups[0]["weight_decay"]) == (0.1, 0.5)
    by_class = make_optimizer(torch.optim.Adam, model, 0.2, 0.0)
    assert (type(by_class), by_class.param_groups[0]["lr"]) == (torch.optim.Adam, 0.2)
    by_callable = make_optimizer(functools.partial(torch.optim.SGD, momentum=0.9), model, 0.3, 0.0)
    assert by_callable.param_groups[0]["momentum"] == 0.9


def test_criteria_by_name_class_or_object():
    logits, labels = torch.tensor([[1.0, 2.0]]), torch.tensor([1])
    own = nn.CrossEntropyLoss(label_smoothing=0.1)
    assert make_criterion(own) is own
    for criterion in ("CrossEntropyLoss", nn.CrossEntropyLoss):
        torch.testing.assert_close(make_criterion(criterion)(logits, labels), nn.CrossEntropyLoss()(logits, labels))


# ---------------------------------------------------------------- interrupts


def interrupt_at_batch(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C after the number-th batch from now, training and validation counted together."""
    add, seen = EpochTotals.add, []

    def interrupted(self: EpochTotals, result: BatchLoss) -> float:
        seen.append(result)
        if len(seen) == number:
            raise KeyboardInterrupt
        return add(self, result)

    monkeypatch.setattr(optimization.EpochTotals, "add", interrupted)


def assert_resumed_run_is_the_uninterrupted_one(main, whole: list[str], parts: list[str], models: Path, patch) -> None:
    """Train 3 epochs at once in models/whole, and in models/parts with an interrupt in the middle of the third."""
    assert exit_status(main, *whole) == 0
    expected, state = log_lines(models / "whole" / "a"), models / "parts" / "a" / "last.pt"
    with patch.context() as context:
        interrupt_at_batch(context, 2 * 5 + 2)  # epochs have 3 batches of training and 2 of validation
        assert exit_status(main, *parts) == 130
    assert torch.load(state, weights_only=True)["epoch"] == 2
    assert log_lines(models / "parts" / "a") == expected[:2]
    assert exit_status(main, *parts, "--resume") == 0

    assert len(expected) == 3
    assert log_lines(models / "parts" / "a") == expected
    for name in ("1.pth", "2.pth", "3.pth", "best.pth", "last.pt"):
        one, other = (torch.load(models / part / "a" / name, weights_only=True) for part in ("whole", "parts"))
        assert_same_tensors(one, other, name)


def test_an_interrupted_encoder_training_goes_on_bit_for_bit(prepared, models, monkeypatch):
    params = {"epochs": 3, "clips_per_entity": 2, "step_size": 2, "mismatched_sounds": 1}  # 10 clips and 6
    whole, parts = (encoder_options(prepared, models / part, **params) for part in ("whole", "parts"))
    assert_resumed_run_is_the_uninterrupted_one(STE_train.main, whole, parts, models, monkeypatch)


def test_an_interrupted_context_training_goes_on_bit_for_bit(models, tmp_path, monkeypatch):
    make_features(tmp_path / "train", FACES)  # 60 contexts
    make_features(tmp_path / "val", FACES[:2])  # 40
    params = {"epochs": 3, "batch_size": 24, "step_size": 2}
    features = as_options("ASC_inputs", features_val_full=tmp_path / "val")
    whole, parts = (
        [*context_options(tmp_path / "train", models / part, (3, 2, 2), **params), *features]
        for part in ("whole", "parts")
    )
    assert_resumed_run_is_the_uninterrupted_one(ASC_train.main, whole, parts, models, monkeypatch)


def test_resuming_with_another_batch_size_is_refused(models, tmp_path, capsys):
    make_features(tmp_path / "f", FACES)
    options = context_options(tmp_path / "f", models, (3, 1, 2), epochs=1)
    assert exit_status(ASC_train.main, *options) == 0
    assert exit_status(ASC_train.main, *options) == 2
    assert "holds a run: give another --name, or --resume" in capsys.readouterr().err
    other = as_options("ASC_optimization_params", batch_size=8)
    assert exit_status(ASC_train.main, *options, *other, "--resume") == 2
    assert "ASC_optimization_params.batch_size: 16 then, 8 now" in capsys.readouterr().err
    more = as_options("ASC_optimization_params", epochs=2)
    assert exit_status(ASC_train.main, *options, *more, "--resume") == 0
    assert [line["epoch"] for line in log_lines(models / "a")] == [1, 2]


# ---------------------------------------------------------------- several processes

RUNNER = """
import importlib, json, sys
from tiny import exit_status

for module, options in json.loads(sys.argv[1]):
    assert exit_status(importlib.import_module(module).main, *options) == 0
"""

# With 5 clips of 32 pixels the last batch norms see 5 values a channel and blow float32's rounding up to per cents in
# a few steps; in float64 nothing is left to hide behind.
IN_DOUBLE = """
from core.models import resnet18_two_streams

def in_double(pretrained, frames):
    network = resnet18_two_streams(pretrained, frames).double()
    network.register_forward_pre_hook(lambda module, inputs: tuple(tensor.double() for tensor in inputs))
    return network

STE_optimization_params = {"backbone": in_double}
"""


def in_two_processes(folder: Path, trainings: list[tuple[str, list[str]]]) -> None:
    """Run trainings one after the other under torchrun, once in each of two processes."""
    (folder / "runner.py").write_text(RUNNER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    environment = {
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "--master-port", str(port), folder / "runner.py", json.dumps(trainings)],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def assert_same_losses(alone: Path, together: Path, tolerance: float) -> None:
    one, other = log_lines(alone), log_lines(together)
    assert len(one) == len(other) == 2
    for lines in zip(one, other, strict=True):
        losses = [{name: value for name, value in line.items() if name.endswith("loss")} for line in lines]
        assert {"train_loss", "val_loss"} <= losses[0].keys()
        assert losses[0] == pytest.approx(losses[1], rel=tolerance)


def test_two_processes_train_as_one_does(prepared, models, tmp_path):
    """Batches of odd sizes: a process has one item more. Batch norms take their statistics over both processes."""
    (tmp_path / "in_double.py").write_text(IN_DOUBLE)
    params = {"epochs": 2, "batch_size": 5, "clips_per_entity": 3, "mismatched_sounds": 1}

    def encoder(models: Path) -> list[str]:
        return [*encoder_options(prepared, models, **params), "--config", str(tmp_path / "in_double.py")]

    # More faces than a context has places, so that its speakers are drawn.
    faces = [("v", f"v:{n}", n, 13, LABELS[n % 3 :] + LABELS[: n % 3]) for n in range(5)]
    make_features(tmp_path / "f", faces, size=16)
    context = functools.partial(context_options, tmp_path / "f", shape=(3, 2, 3), epochs=2, batch_size=13)

    kinds = ("STE_train", encoder), ("ASC_train", context)
    for (name, options), main in zip(kinds, (STE_train.main, ASC_train.main), strict=True):
        assert exit_status(main, *options(models=models / "alone" / name)) == 0
    in_two_processes(tmp_path, [(name, options(models=models / "together" / name)) for name, options in kinds])

    assert_same_losses(models / "alone" / "STE_train" / "a", models / "together" / "STE_train" / "a", 1e-7)
    assert_same_losses(models / "alone" / "ASC_train" / "a", models / "together" / "ASC_train" / "a", 1e-4)
    states = [
        torch.load(models / part / "STE_train" / "a" / "2.pth", weights_only=True) for part in ("alone", "together")
    ]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], rtol=1e-6, atol=1e-8)
