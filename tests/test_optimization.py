"""The training loop: it learns, goes on after an interrupt bit for bit, and is the same on two machines."""

import functools
import itertools
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from ava_asd_set import write_config
from hosts import two_hosts
from test_dataset import contexts, make_features
from tiny import CROP_SIZE, as_options, encoder_paths, exit_status
from torch import nn
from torchvision.models.resnet import BasicBlock

import ASC_train
import STE_train
from ava_asd import models as static_models
from ava_asd import train as ava_train
from core import models, track_dataset
from core.dataset import ClipDataset, ContextBatch
from core.formats import ava
from core.formats.feature_store import FeatureStore
from core.inputs.sampling import ShuffledBatches
from core.inputs.transforms import Draws
from core.models import ASC_Net, resnet18_two_streams
from core.models.two_stream import EMBEDDING_SIZE, TwoStreamResNet
from core.optimization import EpochTotals, Training, make_accelerator, make_criterion, make_optimizer
from core.runtime.errors import UserError
from core.settings import CRITERIA, OPTIMIZERS
from core.training.losses import BatchLoss, ContextLoss, EncoderLoss, LossFunction
from core.training.runs import Run

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ["train_seconds", "clips_per_s", "contexts_per_s", "frames_per_s"]
LABELS = ("NOT_SPEAKING", "SPEAKING_AUDIBLE", "SPEAKING_NOT_AUDIBLE")
FACES = [("v", f"v:{n}", 3 * n, 20, LABELS[n:] + LABELS[:n]) for n in range(3)]


def narrow_two_streams(pretrained: bool, rgb_stack_size: int) -> TwoStreamResNet:
    """A two-stream network of 8 channels instead of 512: its checkpoints are small."""
    model = TwoStreamResNet(BasicBlock, [1, 1, 1, 1], rgb_stack_size)
    for stream in "av":
        first = nn.Sequential(nn.Conv2d(64, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        for number, stage in enumerate((first, nn.Identity(), nn.Identity(), nn.Identity()), start=1):
            setattr(model, f"{stream}_layer{number}", stage)
        setattr(model, f"fc_128_{stream}", nn.Linear(8, EMBEDDING_SIZE))
    model.feature_size = 16
    return model


def make_small(patch: pytest.MonkeyPatch, dropout: bool = True) -> None:
    """Narrow encoders of clips, and small faces for those of whole tracks; without dropout if asked for."""
    patch.setitem(models.BACKBONES, "resnet18_two_streams", narrow_two_streams)
    patch.setattr(track_dataset, "FACE_SIZE", 32)
    if not dropout:  # which each process draws for itself
        patch.setattr(nn.Dropout, "forward", lambda self, x: x)
        patch.setattr(static_models, "DROPOUT", 0.0)


def encoder_options(prepared: Path, models_out: Path, **params: object) -> list[str]:
    """STE_train.py's command line: clips of 3 frames of 32 pixels on the CPU, run `a`."""
    small = {"crop_size": CROP_SIZE, "pretrained": False, "threads": 0, "batch_size": 4}
    options = as_options("STE_inputs", **encoder_paths(prepared), models_out=models_out)
    options += as_options("STE_optimization_params", **(small | params))
    return ["3", "cpu", "--name", "a", *options]


def context_options(features: Path, models_out: Path, shape: tuple[int, int, int], **params: object) -> list[str]:
    """ASC_train.py's command line on the CPU, run `a`; `features` holds train/ and val/."""
    paths = {f"features_{split}_full": features / split for split in ava.SPLITS}
    options = as_options("ASC_inputs", **paths, models_out=models_out)
    options += as_options("ASC_optimization_params", **({"batch_size": 16, "learning_rate": 1e-3} | params))
    return [*map(str, shape), "cpu", "--name", "a", *options]


def log(run: Path) -> pd.DataFrame:
    """A run's log, but for what differs between two equal runs."""
    return pd.read_csv(run / "log.csv", float_precision="round_trip").drop(columns=MEASURED, errors="ignore")


def saved(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, but for what differs between two equal runs."""
    content = torch.load(path, weights_only=True)
    for name in MEASURED:
        content.get("line", {}).pop(name, None)
    return content


def context_training(store: FeatureStore, loss: LossFunction | None = None, **arguments: object) -> Training:
    """A training of a context network on a handful of features, in batches of 16."""
    dataset = contexts(store, 3, 1, 2, random_speakers=True)
    torch.manual_seed(0)
    return Training(
        ASC_Net(3, 2, feature_size=store.feature_size),
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
    losses = losses_on_one_batch(ASC_Net(3, 3, feature_size=32), ContextLoss(nn.CrossEntropyLoss()), batch, 1e-2, 40)
    assert losses[-1] < 0.3 * losses[0]


def test_a_training_lowers_the_loss_and_keeps_its_log(tmp_path):
    store = make_features(tmp_path / "f", FACES)
    training = context_training(store, learning_rate=3e-3, epochs=4, gamma=0.5)
    run = Run(tmp_path / "run", {}, resume=False)
    last = training.fit(run)
    lines = log(run.folder)
    assert lines["epoch"].tolist() == [1, 2, 3, 4]
    assert lines["learning_rate"].tolist() == pytest.approx([3e-3, 1.5e-3, 7.5e-4, 3.75e-4])
    assert lines["train_loss"].iloc[-1] < lines["train_loss"][0]
    assert {name: value for name, value in last.items() if name not in MEASURED} == lines.iloc[-1].to_dict()
    best = lines["epoch"][lines["val_ap"].idxmax()]
    torch.testing.assert_close(saved(run.folder / "best.pth"), saved(run.folder / f"{best}.pth"), rtol=0, atol=0)
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
    assert log(run.folder)["epoch"].tolist() == [1]
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


TRACKS = {"backbone": "lr_asd", "optimizer": "AdamW", "step_size": 1, "gamma": 0.95, "frames_per_batch": 60}
# Script, parameters, and batches of an epoch, of training and of validation.
INTERRUPTED = {
    # 10 clips and 6
    "clips": (STE_train, {"epochs": 3, "clips_per_entity": 2, "step_size": 2, "mismatched_sounds": 1}, 3 + 2),
    "tracks": (STE_train, {"epochs": 2, **TRACKS}, 3 + 3),
    "contexts": (ASC_train, {"epochs": 3, "batch_size": 24, "step_size": 2}, 3 + 2),
}


def interrupt_at_batch(patch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C after the number-th batch from now, training and validation counted together."""
    add, seen = EpochTotals.add, []

    def interrupted(self: EpochTotals, result: BatchLoss) -> float:
        seen.append(result)
        if len(seen) == number:
            raise KeyboardInterrupt
        return add(self, result)

    patch.setattr(EpochTotals, "add", interrupted)


@pytest.mark.parametrize("kind", INTERRUPTED)
def test_an_interrupted_training_goes_on_bit_for_bit(prepared, tmp_path, monkeypatch, kind):
    script, params, batches = INTERRUPTED[kind]
    make_small(monkeypatch)
    make_features(tmp_path / "train", FACES)  # 60 contexts
    make_features(tmp_path / "val", FACES[:2])  # 40

    def options(name: str) -> list[str]:
        if script is STE_train:
            return encoder_options(prepared, tmp_path / name, **params)
        return context_options(tmp_path, tmp_path / name, (3, 2, 2), **params)

    whole, parts = tmp_path / "whole" / "a", tmp_path / "parts" / "a"
    assert exit_status(script.main, *options("whole")) == 0
    expected = log(whole)
    with monkeypatch.context() as context:
        interrupt_at_batch(context, (params["epochs"] - 1) * batches + 2)  # in the middle of the last epoch
        assert exit_status(script.main, *options("parts")) == 130
    assert saved(parts / "last.pt")["epoch"] == params["epochs"] - 1
    assert log(parts).equals(expected[:-1])
    assert exit_status(script.main, *options("parts"), "--resume") == 0
    assert log(parts).equals(expected)
    for name in (*(f"{epoch}.pth" for epoch in expected["epoch"]), "best.pth", "last.pt"):
        torch.testing.assert_close(saved(parts / name), saved(whole / name), rtol=0, atol=0, msg=name)


def test_a_resumed_fp16_training_goes_on_with_its_loss_scale(tmp_path):
    make_features(tmp_path / "features", FACES)
    store = FeatureStore(tmp_path / "features")
    for resume, begins_with, goes_on_with in ((False, 8.0, 8.0), (True, 65536.0, 8.0)):
        training = context_training(store, epochs=1 + resume)
        training.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=begins_with)
        training.fit(Run(tmp_path / "run", {}, resume=resume))
        assert training.accelerator.scaler.get_scale() == goes_on_with


# ---------------------------------------------------------------- several machines

RUNNER = """
import importlib, json, os, signal, sys, time
import pytest
from core.optimization import EpochTotals
from test_optimization import make_small
from tiny import exit_status

make_small(pytest.MonkeyPatch(), dropout=False)
time.strftime = lambda *arguments: os.environ["RANK"]  # of two processes, one sees the next second
trainings, last_batch = json.loads(sys.argv[1])
add, seen = EpochTotals.add, []

def killed(self, result):
    seen.append(result)
    if len(seen) == last_batch:
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return add(self, result)

EpochTotals.add = killed
for module, options in trainings:
    if status := exit_status(importlib.import_module(module).main, *options):
        sys.exit(status)
"""
Trainings = list[tuple[ModuleType, list[str]]]


def on_two_machines(folder: Path, machines: list[Trainings], last_batch: int | None = None) -> list[tuple[int, str]]:
    """Run trainings one after the other by two torchruns on two hosts, one process each; their exit statuses and
    messages.

    Args:
        folder: for the program that they run.
        machines: what either does.
        last_batch: of the second process, which is killed then.
    """
    (folder / "runner.py").write_text(RUNNER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    launched = []
    with two_hosts() as hosts:
        first = ["--master-addr", hosts[0].address, "--master-port", port]
        for rank, (host, trainings) in enumerate(zip(hosts, machines, strict=True)):
            launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank)]
            commands = json.dumps([[(script.__name__, options) for script, options in trainings], rank and last_batch])
            launched.append(
                subprocess.Popen(
                    [*host.begin, *launcher, *first, folder / "runner.py", commands],
                    cwd=folder,
                    env=os.environ | environment | {"GLOO_SOCKET_IFNAME": host.interface},
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        return outcomes(launched, timeout_s=300)


def outcomes(processes: Sequence[subprocess.Popen], timeout_s: float) -> list[tuple[int, str]]:
    """The exit status of each process and what it said on standard error; none is left running."""
    try:
        messages = [process.communicate(timeout=timeout_s)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, message) for process, message in zip(processes, messages, strict=True)]


def assert_trained_alike(one: Path, other: Path, last: int, numbers: str = "_.*loss|^val_.*ap$") -> None:
    """Two runs' numbers agree to five digits, and their last weights to four."""
    first, second = (log(run).filter(regex=numbers) for run in (one, other))
    assert len(first) == last
    assert len(first.columns) >= 3
    pd.testing.assert_frame_equal(second, first, rtol=1e-5, atol=0)
    states = [saved(run / "last.pt") for run in (other, one)]
    assert [state["epoch"] for state in states] == [last, last]
    torch.testing.assert_close(*(state["model"] for state in states), rtol=1e-4, atol=1e-5)


def test_two_machines_train_as_one_process_does(prepared, static_set, tmp_path, monkeypatch):
    """Batches of odd sizes: a process has one item more. Runs without a name get one, that of the main process, which
    goes on with one that a single process has begun. The second machine writes nothing, and need not see the runs."""
    # More faces than a context has speakers, so that they are drawn.
    for split in ava.SPLITS:
        tracks = [("v", f"v:{n}", n, 13, LABELS[n % 3 :] + LABELS[: n % 3]) for n in range(5)]
        make_features(tmp_path / split, tracks + [("w", f"w:{n}", 30 * n, 9 + n, LABELS) for n in range(4)])
    # SGD: Adam would blow the rounding of a gradient that is nearly zero up to a whole step.
    both = {"epochs": 2, "optimizer": "SGD"}
    clips = {"batch_size": 5, "clips_per_entity": 3, "mismatched_sounds": 1}
    tracks = {**TRACKS, "backbone": "light_asd", "frames_per_batch": 100}  # 2 x 35 and 2 x 25 frames
    static = write_config(tmp_path / "static.yaml", mode="s_a", epochs=2, optimiser="SGD", batch_size=7)

    def trainings(out: Path, **changes: object) -> Trainings:
        shots = context_options(tmp_path, out / "shots", (), network="residual", batch_size=3, **both)
        return [
            (STE_train, encoder_options(prepared, out / "clips", **clips, **both)),
            (STE_train, encoder_options(prepared, out / "tracks", **(tracks | both))),
            (ASC_train, context_options(tmp_path, out / "contexts", (3, 2, 3), batch_size=13, **(both | changes))),
            (ASC_train, shots),
            (ava_train, [str(static), str(out / "static"), "--name", "a", "--device", "cpu"]),
        ]

    make_small(monkeypatch, dropout=False)
    alone, together, elsewhere = (tmp_path / name for name in ("alone", "together", "elsewhere"))
    for out in (alone, together, elsewhere):
        (out / "static").mkdir(parents=True)
        for part in ("download", "extracted"):
            (out / "static" / part).symlink_to(static_set / "data" / part)
    for script, options in trainings(alone):
        assert exit_status(script.main, *options) == 0
    begun, options = trainings(together, epochs=1)[2]
    assert exit_status(begun.main, *options) == 0
    machines = [trainings(out) for out in (together, elsewhere)]
    for (_, unnamed), _, (_, resumed), *_ in machines:
        del unnamed[2:4]
        resumed.append("--resume")
    assert [status for status, _ in on_two_machines(tmp_path, machines)] == [0, 0]
    [clips] = (together / "clips").iterdir()
    assert clips.name.endswith("_0")
    assert_trained_alike(alone / "clips" / "a", clips, 2)
    for run in ("tracks/a", "contexts/a", "shots/a"):
        assert_trained_alike(alone / run, together / run, 2)
    run = "static/experiments/a"  # whose scores are tied, so that average precision depends on the order of samples
    assert_trained_alike(alone / run, together / run, 2, numbers="_.*loss")
    assert [path.name for path in elsewhere.rglob("*")] == ["static", "download", "extracted"]


def test_a_lost_process_ends_all_and_one_alone_goes_on(tmp_path):
    for split in ava.SPLITS:
        make_features(tmp_path / split, FACES)  # 60 contexts: 3 batches

    def training(name: str) -> Trainings:
        options = context_options(tmp_path, tmp_path / name, (3, 2, 2), batch_size=24, epochs=3, optimizer="SGD")
        return [(ASC_train, options)]

    kept, lost = on_two_machines(tmp_path, [training("parts")] * 2, last_batch=2 * 6 + 2)  # in the last epoch
    assert time.time() - (tmp_path / "killed").stat().st_mtime < 60
    assert kept[0] == lost[0] == 1  # of torchrun
    assert kept[1].count("error: ") == 1
    assert "process 1 of 2" in kept[1]
    assert socket.gethostname() in kept[1]
    assert "RuntimeError" not in kept[1]
    assert "SIGKILL" in lost[1]
    assert saved(tmp_path / "parts" / "a" / "last.pt")["epoch"] == 2
    for name, more in (("parts", ["--resume"]), ("whole", [])):
        [(script, options)] = training(name)
        assert exit_status(script.main, *options, *more) == 0
    assert_trained_alike(tmp_path / "whole" / "a", tmp_path / "parts" / "a", 3)
