"""The training loop: it learns, goes on after an interrupt bit for bit, and is the same for two processes."""

import csv
import functools
import itertools
import json
import math
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
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
from core.dataset import ClipDataset, ContextBatch
from core.formats import ava
from core.formats.feature_store import FeatureStore
from core.inputs.sampling import ShuffledBatches
from core.inputs.transforms import Draws
from core.models import ASC_Net, resnet18_two_streams
from core.optimization import EpochTotals, Training, make_accelerator, make_criterion, make_optimizer
from core.runtime.errors import UserError
from core.settings import CRITERIA, OPTIMIZERS
from core.training.losses import BatchLoss, ContextLoss, EncoderLoss, LossFunction
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


def context_training(store: FeatureStore, loss: LossFunction | None = None, **arguments: object) -> Training:
    """A training of a context network on a handful of features, in batches of 16."""
    dataset = contexts(store, 3, 1, 2, random_speakers=True)
    torch.manual_seed(0)
    return Training(
        ASC_Net(3, 2, store.feature_size),
        loss or ContextLoss(nn.CrossEntropyLoss()),
        train=(dataset, ShuffledBatches(len(dataset), 16)),
        val=(dataset, ShuffledBatches(len(dataset), 16, shuffle=False)),
        accelerator=make_accelerator(torch.device("cpu"), "fp32"),
        **{"optimizer": "Adam", "learning_rate": 1e-3, "epochs": 3, "step_size": 1, "gamma": 0.1, **arguments},
    )


# ---------------------------------------------------------------- learning


def losses_on_one_batch(model: nn.Module, loss: LossFunction, batch, learning_rate: float, steps: int) -> list[float]:
    optimizer = make_optimizer("Adam", model.train().parameters(), learning_rate)
    values = []
    for _ in range(steps):
        result = loss(model, batch, None)
        optimizer.zero_grad()
        result.loss.backward()
        optimizer.step()
        values.append(result.loss.item())
    return values


def test_the_encoder_learns_a_batch_by_heart(prepared):
    rows = ava.read_augmented(prepared / "csv" / "train.csv")
    folders = prepared / "crops" / "train", prepared / "audio" / "train"
    dataset = ClipDataset(rows, *folders, clip_length=3, size=CROP_SIZE, random_centres=True, mismatched_sounds=1)
    torch.manual_seed(0)
    loss = EncoderLoss(nn.CrossEntropyLoss(), dataset.mfcc_windows)
    batch = dataset.__getitems__([(0, item) for item in range(6)])
    losses = losses_on_one_batch(resnet18_two_streams(rgb_stack_size=3), loss, batch, 1e-3, 6)
    assert losses[-1] < 0.7 * losses[0]


def test_the_context_network_learns_a_batch_by_heart(tmp_path):
    dataset = contexts(make_features(tmp_path, FACES, size=32), 3, 2, 3, random_speakers=True)
    torch.manual_seed(0)
    batch = dataset.__getitems__([(0, item) for item in range(0, 60, 5)])
    assert 0 < batch.labels.sum() < len(batch.labels)
    losses = losses_on_one_batch(ASC_Net(3, 3, 32), ContextLoss(nn.CrossEntropyLoss()), batch, 1e-2, 40)
    assert losses[-1] < 0.3 * losses[0]


def test_a_training_lowers_the_loss_and_keeps_its_log(tmp_path):
    store = make_features(tmp_path / "f", FACES)
    training = context_training(store, learning_rate=3e-3, epochs=4, gamma=0.5)
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


@pytest.mark.parametrize(
    ("optimizer", "criterion"),
    [*((name, "CrossEntropyLoss") for name in OPTIMIZERS), *(("Adam", name) for name in CRITERIA[1:])],
)
def test_every_optimizer_and_criterion_that_has_a_name_trains(tmp_path, optimizer, criterion):
    loss = ContextLoss(make_criterion(criterion))
    options = {"optimizer": optimizer, "learning_rate": 1e-2, "weight_decay": 1e-3, "epochs": 1}
    training = context_training(make_features(tmp_path / "f", FACES), loss, **options)
    before = training.weights.fc_final.weight.clone()
    assert math.isfinite(training.fit(Run(tmp_path / "run", {}, resume=False))["val_loss"])
    assert not torch.equal(training.weights.fc_final.weight, before)


def test_validation_trains_nothing_on_the_same_contexts_in_every_epoch(tmp_path):
    seen = {True: [], False: []}

    def loss(model: nn.Module, batch: ContextBatch, draws: Draws | None) -> BatchLoss:
        seen[draws is not None].append((batch.rows.tolist(), batch.index.tolist()))
        assert model.training == torch.is_grad_enabled() == (draws is not None)
        return ContextLoss(nn.CrossEntropyLoss())(model, batch, draws)

    context_training(make_features(tmp_path / "f", FACES), loss, epochs=2).fit(Run(tmp_path / "run", {}, resume=False))
    assert seen[False][:4] == seen[False][4:]
    assert [row for rows, _ in seen[False][:4] for row in rows] == list(range(60))
    assert seen[True][:4] != seen[True][4:]


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
    batches = itertools.count(1)

    def diverging(model: nn.Module, batch: ContextBatch, draws: Draws | None) -> BatchLoss:
        result = ContextLoss(nn.CrossEntropyLoss())(model, batch, draws)
        factor = 1.0 if next(batches) < 10 else math.nan  # 4 batches of training and 4 of validation an epoch
        return replace(result, loss=result.loss * factor)

    run = Run(tmp_path / "run", {}, resume=False)
    with pytest.raises(UserError, match="learning_rate"):
        context_training(make_features(tmp_path / "f", FACES), diverging).fit(run)
    assert [line["epoch"] for line in log_lines(run.folder)] == [1]
    assert all(torch.isfinite(value).all() for value in run.load_state()["model"].values())


# ---------------------------------------------------------------- old configurations


def test_optimizers_by_name_class_or_callable():
    parameters = list(nn.Linear(2, 2).parameters())
    by_name = make_optimizer("AdamW", parameters, 0.1, 0.5)
    assert type(by_name) is torch.optim.AdamW
    assert (by_name.param_groups[0]["lr"], by_name.param_groups[0]["weight_decay"]) == (0.1, 0.5)
    by_class = make_optimizer(torch.optim.Adam, parameters, 0.2)
    assert (type(by_class), by_class.param_groups[0]["lr"]) == (torch.optim.Adam, 0.2)
    by_callable = make_optimizer(functools.partial(torch.optim.SGD, momentum=0.9), parameters, 0.3)
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


def assert_resumed_run_is_the_uninterrupted_one(
    main, whole: list[str], parts: list[str], models: Path, patch: pytest.MonkeyPatch, interrupt: int = 2 * 5 + 2
) -> None:
    """Train at once in models/whole, and in models/parts with an interrupt in the middle of the last epoch.

    `interrupt` is the number of its batch: epochs have 3 batches of training and 2 of validation, if not given.
    """
    assert exit_status(main, *whole) == 0
    expected, run = log_lines(models / "whole" / "a"), models / "parts" / "a"
    with patch.context() as context:
        interrupt_at_batch(context, interrupt)
        assert exit_status(main, *parts) == 130
    assert torch.load(run / "last.pt", weights_only=True)["epoch"] == len(expected) - 1
    assert log_lines(run) == expected[:-1]
    assert exit_status(main, *parts, "--resume") == 0
    assert log_lines(run) == expected
    for name in (*(f"{line['epoch']:.0f}.pth" for line in expected), "best.pth", "last.pt"):
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
    assert "--resume" in capsys.readouterr().err
    other = as_options("ASC_optimization_params", batch_size=8)
    assert exit_status(ASC_train.main, *options, *other, "--resume") == 2
    assert "ASC_optimization_params.batch_size: 16 then, 8 now" in capsys.readouterr().err
    more = as_options("ASC_optimization_params", epochs=2)
    assert exit_status(ASC_train.main, *options, *more, "--resume") == 0
    assert [line["epoch"] for line in log_lines(models / "a")] == [1, 2]


# ---------------------------------------------------------------- several processes

RUNNER = """
import importlib, json, sys
import pytest
from test_optimization import without_batch_norms
from tiny import exit_status

without_batch_norms(pytest.MonkeyPatch())
for module, options in json.loads(sys.argv[1]):
    assert exit_status(importlib.import_module(module).main, *options) == 0
"""


class GroupNorm(nn.GroupNorm):
    """In place of a batch norm: on the CPU each process has batch statistics of its own, which would differ."""

    def __init__(self, channels: int, **_):
        super().__init__(1, channels)


def without_batch_norms(patch: pytest.MonkeyPatch) -> None:
    for axes in (1, 2, 3):
        patch.setattr(nn, f"BatchNorm{axes}d", GroupNorm)


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


def assert_same_run(alone: Path, together: Path, tolerance: float, losses: str = "_loss") -> None:
    """Two epochs with the same losses (of the names that hold `losses`), that end with the same weights."""
    one, other = (
        [[value for name, value in line.items() if losses in name] for line in log_lines(folder)]
        for folder in (alone, together)
    )
    assert len(one) == len(other) == 2
    assert np.size(one) > 0
    np.testing.assert_allclose(other, one, rtol=tolerance)
    weights = [torch.load(folder / "2.pth", weights_only=True) for folder in (alone, together)]
    for name, tensor in weights[0].items():
        torch.testing.assert_close(weights[1][name], tensor, rtol=tolerance, atol=1e-5)


def test_two_processes_train_as_one_does(prepared, models, tmp_path, monkeypatch):
    """Batches of odd sizes: a process has one item more."""
    # SGD: Adam would blow the rounding of a gradient that is nearly zero up to a whole step.
    clips = {"epochs": 2, "batch_size": 5, "clips_per_entity": 3, "mismatched_sounds": 1, "optimizer": "SGD"}
    # More faces than a context has speakers, so that they are drawn.
    faces = [("v", f"v:{n}", n, 13, LABELS[n % 3 :] + LABELS[: n % 3]) for n in range(5)]
    make_features(tmp_path / "f", faces, size=16)

    def trainings(models: Path) -> list[tuple[str, list[str]]]:
        encoder = encoder_options(prepared, models / "STE", **clips)
        context = context_options(tmp_path / "f", models / "ASC", (3, 2, 3), epochs=2, batch_size=13, optimizer="SGD")
        return [("STE_train", encoder), ("ASC_train", context)]

    without_batch_norms(monkeypatch)
    for script, (_, options) in zip((STE_train, ASC_train), trainings(models / "alone"), strict=True):
        assert exit_status(script.main, *options) == 0
    in_two_processes(tmp_path, trainings(models / "together"))
    for stage in ("STE", "ASC"):
        assert_same_run(models / "alone" / stage / "a", models / "together" / stage / "a", 1e-4)
