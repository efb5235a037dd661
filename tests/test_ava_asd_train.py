"""Training of the static models: draws, loss, and ava-train on the tiny set."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from ava_asd_set import write_config
from tiny import exit_status

from ava_asd import evaluate, models, subset, train
from ava_asd.config import read_config
from ava_asd.experiment import Experiment, stalled
from ava_asd.training import StaticLoss, TrainingSet
from ava_asd.windows import WindowBatch, Windows
from core.inputs.transforms import Draws
from core.runtime.errors import EXIT_USER_ERROR, UserError


@pytest.fixture
def config(static_set):
    return read_config(static_set / "config.yaml")


@pytest.fixture
def run(static_set, tmp_path):
    """Run ava-train with changes of the configuration; the exit status, and the experiment's folder."""

    data = tmp_path / "data"
    data.mkdir()
    for part in ("download", "extracted"):
        (data / part).symlink_to(static_set / "data" / part)

    def run(name: str | None, *options: object, **changes) -> tuple[int, Path]:
        path = write_config(tmp_path / "config.yaml", **{"mode": "s_a", "learning_rate": 0.001, **changes})
        named = [] if name is None else ["--name", name]
        return exit_status(train.main, path, data, *named, "--device", "cpu", *options), data / f"experiments/{name}"

    return run


@pytest.fixture
def refused(run, capsys):
    """Run ava-train, as `run`, to its refusal; the message."""

    def refused(name: str | None, *options: object, **changes) -> str:
        capsys.readouterr()
        assert run(name, *options, **changes)[0] == EXIT_USER_ERROR
        return capsys.readouterr().err

    return refused


def log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- draws


def test_each_epoch_has_as_many_samples_of_either_class(config, static_set):
    windows = Windows(config, static_set / "data", "train")
    fewer = min(np.bincount(windows.class_id))
    samples = TrainingSet(windows, seed=3)
    assert samples.items == 2 * fewer
    epochs = [samples.draw(epoch) for epoch in range(1, 5)]
    for rows in epochs:
        assert np.bincount(windows.class_id[rows]).tolist() == [fewer, fewer]
    assert len({tuple(rows) for rows in epochs}) == 4
    assert TrainingSet(windows, seed=3).draw(2).tolist() == epochs[1].tolist()
    assert TrainingSet(windows, seed=4).draw(2).tolist() != epochs[1].tolist()
    batch = samples.__getitems__([(2, 0), (2, 5)])
    assert torch.equal(batch.video, windows.load(epochs[1][[0, 5]]).video)
    half = Windows(replace(config, train_keep_ratio=0.5), static_set / "data", "train")
    assert TrainingSet(half).items == 2 * int(fewer / 2)


def test_without_resampling_all_samples_are_used(config, static_set):
    windows = Windows(replace(config, resample=False), static_set / "data", "train")
    assert TrainingSet(windows).draw(7).tolist() == list(range(len(windows)))
    third = Windows(replace(config, resample=False, train_keep_ratio=0.34), static_set / "data", "train")
    assert TrainingSet(third).items == int(0.34 * len(windows))


def test_one_class_alone_cannot_be_balanced(config, static_set):
    labels = ("NOT_SPEAKING", "SPEAKING_NOT_AUDIBLE")
    windows = Windows(replace(config, filter_out=True, filter_classes=labels), static_set / "data", "train")
    with pytest.raises(UserError, match="samples are of one class, so that no balanced draw"):
        TrainingSet(windows)


# ---------------------------------------------------------------- loss


@pytest.mark.parametrize("speaking_class", [0, 1])
def test_the_loss_and_what_the_loop_sees(config, speaking_class):
    """The loss is weighted as configured; speaking is the second class, and the main output comes first."""
    classes = {label: int((label == "SPEAKING_AUDIBLE") == bool(speaking_class)) for label in config.classes}
    config = replace(config, classes=classes, a_out_weight=0.4, v_out_weight=0.25)
    network = models.StaticNetwork("s_av", config.audio_shape, config.video_shape)
    labels, video = torch.tensor([0, 1]), torch.full((2, *config.video_shape), 51, dtype=torch.uint8)
    logits = {"audio": [[2.0, 0.0], [0.0, 0.0]], "video": [[0.0, 0.0], [0.0, 0.1]], "main": [[0.0, 3.0], [0.0, 3.0]]}
    logits = {name: torch.tensor(values) for name, values in logits.items()}
    wrapped = Mock(return_value=tuple(logits.values()))  # as for several processes
    result = StaticLoss(network, config)(wrapped, WindowBatch(torch.zeros(2, 1, 13, 8), video, labels), None)
    (_, scaled), _ = wrapped.call_args
    assert (scaled == 51 / 255).all()

    audio = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    faces = (math.log(2) + math.log(1 + math.exp(-0.1))) / 2
    main = (math.log(1 + math.exp(3)) + math.log(1 + math.exp(-3))) / 2
    penalty = network.penalty().item()
    assert penalty > 0.1
    assert result.loss.item() == pytest.approx(0.4 * audio + 0.25 * faces + main + penalty)
    expected = {"audio_loss": audio, "video_loss": faces, "main_loss": main, "audio_accuracy": 0.5, "video_accuracy": 1}
    assert {name: value.item() for name, value in result.parts.items()} == pytest.approx(expected)
    assert list(result.logits) == ["main", "video", "audio"]
    assert all(torch.equal(found[:, 1], logits[name][:, speaking_class]) for name, found in result.logits.items())
    assert all(torch.equal(found[:, 0], logits[name][:, 1 - speaking_class]) for name, found in result.logits.items())
    assert result.labels.tolist() == [1 - speaking_class, speaking_class]


def test_augmentation_is_of_training_only_and_only_if_asked_for(config, static_set):
    batch = Windows(config, static_set / "data", "train").load(np.arange(4))
    model = models.StaticNetwork("s_v", config.audio_shape, config.video_shape).eval()
    draws = Draws(torch.Generator().manual_seed(0), 4)
    losses = [
        StaticLoss(model, replace(config, mode="s_v", augment=augment))(model, batch, given).loss.item()
        for augment, given in ((False, None), (False, draws), (True, None), (True, draws))
    ]
    assert losses[0] == losses[1] == losses[2] != losses[3]


# ---------------------------------------------------------------- the command


def test_a_training_leaves_published_names_a_log_and_events(run, tmp_path, capsys):
    status, folder = run("first", mode="s_av", augment=True)
    assert status == 0
    (line,) = log(folder)
    (weights,) = folder.glob("*.pth")
    assert weights.name == f"first-s_av-weights-01-{float(line['val_accuracy']):.4f}.pth"
    heads = {f"{part}_{name}" for part in ("train", "val") for name in ("loss", "main_loss", "audio_loss", "ap")}
    assert heads <= set(line)
    assert json.loads((folder / "settings.json").read_text())["config"]["mode"] == "s_av"
    assert list((tmp_path / "graph" / "first").glob("events.out.tfevents.*"))
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("training: 39 samples", "28 in an epoch", "validation: 23 samples"))

    options = ["--weights-path", folder, "--out", tmp_path]
    assert exit_status(evaluate.main, tmp_path / "config.yaml", tmp_path / "data", *options) == 0
    with (tmp_path / "evaluation-results.csv").open() as file:
        (found,) = csv.DictReader(file)
    # The samples of validation are those of the test, in this configuration.
    assert found["weights"] == str(weights)
    assert float(found["main_accuracy"]) == pytest.approx(float(line["val_accuracy"]))
    assert float(found["main_map"]) == pytest.approx(float(line["val_ap"]))


@pytest.mark.parametrize("optimiser", ["SGD", "Adam"])
def test_a_resumed_training_takes_the_same_steps(run, refused, optimiser):
    """With dropout, augmentation and a draw for each epoch; of the second half nothing may depend on the first run."""
    options = {
        "mode": "s_av",
        "augment": True,
        "optimiser": optimiser,
        "train_keep_ratio": 0.4,
        "valid_keep_ratio": 0.4,
    }
    _, whole = run("whole", epochs=2, **options)
    _, parts = run("parts", epochs=1, **options)
    assert run("parts", "--resume", epochs=2, **options)[0] == 0
    assert [line["val_loss"] for line in log(whole)] == [line["val_loss"] for line in log(parts)]
    found, expected = (
        torch.load(next(folder.glob("*-weights-02-*.pth")), weights_only=True) for folder in (parts, whole)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert "--resume" in refused("parts", epochs=2, **options)
    message = refused("parts", "--resume", epochs=2, **options | {"optimiser": "Adagrad"})
    assert f"config.optimiser: {optimiser!r} then, 'Adagrad' now" in message


def test_a_training_begins_with_given_weights_and_goes_on_without_them(run, config, tmp_path):
    start = tmp_path / "start.pth"
    model = models.StaticNetwork("s_a", config.audio_shape, config.video_shape)
    torch.save(model.state_dict(), start)
    options = {"load_weights": True, "weights_file": str(start), "learning_rate": 1e-12}
    status, folder = run("on", **options)
    assert status == 0
    trained = torch.load(next(folder.glob("*.pth")), weights_only=True)
    assert all(torch.allclose(trained[name], value, atol=1e-6) for name, value in model.state_dict().items())
    start.unlink()
    assert run("on", "--resume", epochs=2, **options)[0] == 0


def test_a_training_without_its_weights_file_begins_at_random_and_says_so(run, capsys):
    """As published, whose configuration asks for `last.hdf5` before there is one."""
    options = {"load_weights": True, "weights_file": "last.hdf5"}
    status, folder = run("asked", **options)
    assert status == 0
    assert "note: no weights file last.hdf5" in capsys.readouterr().out
    run("plain")
    assert log(folder)[0]["val_loss"] == log(folder.parent / "plain")[0]["val_loss"]


def test_a_training_is_not_resumed_with_other_samples(run, refused, tmp_path):
    """As after `ava-subset --seed 7`: same settings, another choice."""
    subset_of = {f"{split}_annotations_subset": f"{split}.arrow" for split in ("train", "test")}
    options = {"annotation_type": "subset", **subset_of}

    def choose(seed: int) -> None:
        config = write_config(tmp_path / "config.yaml", **options)
        assert exit_status(subset.main, config, tmp_path / "data", "--seed", seed) == 0

    choose(0)
    assert run("subset", **options)[0] == 0
    choose(7)
    assert "samples.train: '" in refused("subset", "--resume", epochs=2, **options)


@pytest.mark.parametrize(
    ("losses", "patience", "expected"),
    [([], 1, False), ([3, 2, 1], 1, False), ([3, 1, 2], 1, True), ([3, 1, 2], 2, False), ([1, 1, 1], 2, True)],
)
def test_when_a_training_has_stalled(losses, patience, expected):
    assert stalled(losses, patience) is expected


def test_a_training_that_has_stalled_ends(run, capsys):
    # Steps too small to change a number: no epoch is better than the first.
    options = {"epochs": 9, "use_earlystopping": True, "es_patience": 2, "learning_rate": 1e-30}
    for resume in ([], ["--resume"]):
        status, folder = run("still", *resume, **options)
        assert status == 0
        assert [line["epoch"] for line in log(folder)] == ["1", "2", "3"]
        printed = capsys.readouterr().out
        assert all(fact in printed for fact in ("has not fallen for 2 epochs", "still: 3 epochs, validation accuracy"))


@pytest.fixture
def fresh_accelerator():
    """A process has one precision until its accelerator is forgotten."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("fresh_accelerator")
def test_bfloat16(run):
    status, folder = run("half", dtype="bfloat16", mode="s_v")
    assert status == 0
    weights = torch.load(next(folder.glob("*.pth")), weights_only=True)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert np.isfinite(float(log(folder)[0]["train_loss"]))


@pytest.mark.parametrize("reachable", [True, False])
def test_the_bot_gets_the_numbers_and_stops_nothing_if_it_cannot_be_reached(
    run, tmp_path, monkeypatch, capsys, reachable
):
    bot, sent = tmp_path / "bot.yaml", []
    bot.write_text("api_key: '1:a'\nchat_id: '2'\napi_url: 'http://127.0.0.1:9'\n")
    if reachable:
        monkeypatch.setattr("ava_asd.telegram.TelegramBot.send", lambda self, text: sent.append(text))
    status, folder = run("reported", "--bot-config", bot)
    assert (status, len(log(folder)), len(sent)) == (0, 1, int(reachable))
    assert ("no Telegram report" in capsys.readouterr().err) is not reachable
    for text in sent:
        training, validation = text.split("Validation:")
        assert "reported\nEpoch 1\n" in training
        assert all(f"\n{name}: " in part for part in (training, validation) for name in ("loss", "accuracy"))
        assert "seconds" not in text


# ---------------------------------------------------------------- the experiment's folder


def experiment(folder: Path, accuracies: tuple[float, ...], best_only: bool = False) -> Experiment:
    """An experiment of as many epochs as there are validation accuracies."""
    run = Experiment(folder / "x", {"config": {"mode": "s_a", "save_best_only": best_only}}, resume=False)
    for epoch, accuracy in enumerate(accuracies, start=1):
        run.append_log({"epoch": epoch, "val_accuracy": accuracy})
        run.save(epoch, {"w": torch.zeros(1)}, {"epoch": epoch}, best=True)
    return run


def test_best_only_keeps_epochs_whose_accuracy_has_risen(tmp_path):
    run = experiment(tmp_path, (0.5, 0.4, 0.5, 0.75), best_only=True)
    kept = ["x-s_a-weights-01-0.5000.pth", "x-s_a-weights-04-0.7500.pth"]
    assert sorted(path.name for path in run.folder.glob("*.pth")) == kept
    assert run.load_state() == {"epoch": 4}


@pytest.mark.parametrize(
    ("left", "facts"),
    [
        ("epoch,val_accuracy\n1,0.5\n", "has 1 of 2 finished epochs"),
        ("epoch,accuracy\n1,0.5\n2,0.4\n", "lacks the numbers of val_accuracy"),
    ],
)
def test_resuming_with_a_log_that_has_lost_epochs(tmp_path, left, facts):
    run = experiment(tmp_path, (0.5, 0.4))
    run.log.write_text(left)
    with pytest.raises(UserError, match=rf"log\.csv {facts}"):
        run.load_state()


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "options", "changes", "facts"),
    [
        *((name, [], {}, [f"--name {name!r}"]) for name in ("..", ".", "", "a/b", "a/", ".hidden")),
        ("../data", ["--resume"], {}, ["--name '../data'"]),
        *(("never", ["--seed", seed], {}, ["--seed"]) for seed in ("-1", str(2**63), "1.5", "x")),
        ("absent", ["--resume"], {}, ["absent holds no run"]),
        (None, ["--resume"], {}, ["--resume", "--name"]),
        ("never", [], {"annotation_type": "subset"}, ["train_annotations_subset.arrow", "'ava-subset'"]),
        ("never", [], {"nmfcc": 14}, ["another nmfcc than 14", "'ava-extract mfccs'"]),
        ("never", ["--bot-config", "none.yaml"], {}, ["none.yaml", "there is no file"]),
        ("never", [], {"load_weights": True, "weights_file": "video.pth"}, ["weights of mode s_v", "of mode s_a"]),
    ],
)
def test_user_mistakes(refused, tmp_path, monkeypatch, name, options, changes, facts):
    monkeypatch.chdir(tmp_path)
    torch.save(models.StaticNetwork("s_v", (1, 13, 8), (1, 5, 18, 24)).state_dict(), "video.pth")
    message = refused(name, *options, **changes)
    assert all(fact in message for fact in facts), message
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["download", "extracted"]


def test_all_processes_take_the_name_of_the_main_one(run, monkeypatch):
    monkeypatch.setattr(train, "same_everywhere", lambda name: f"main-{len(name)}")
    status, folder = run(None)
    assert status == 0
    assert (folder.parent / "main-8" / "log.csv").is_file()
