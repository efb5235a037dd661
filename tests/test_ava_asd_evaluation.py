"""The evaluation of the static models: numbers against hand-made ones and other ways to them, and the command."""

import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from ava_asd import evaluate, keras_metrics, models
from ava_asd.evaluation import evaluate_output, nearest_windows, predict
from ava_asd.windows import scaled
from core.evaluation.official import Groundtruth, read_groundtruth
from core.runtime.errors import EXIT_USER_ERROR, UserError

PUBLISHED_COLUMNS = """weights audio_accuracy video_accuracy main_accuracy audio_map video_map main_map
    audio_ap_sp video_ap_sp main_ap_sp audio_ap_ns video_ap_ns main_ap_ns audio_auc video_auc main_auc
    orig_main_map orig_video_map orig_audio_map"""
CLASSES = {"SPEAKING_AUDIBLE": 0, "NOT_SPEAKING": 1, "SPEAKING_NOT_AUDIBLE": 1}  # published
CLASSES_OTHERWISE = {label: 1 - number for label, number in CLASSES.items()}
CPU = torch.device("cpu")


@pytest.fixture
def annotated(tmp_path):
    """Ground truth of rows (video, entity, time, speaking)."""

    def read(rows: list[tuple[str, str, float, bool]]) -> Groundtruth:
        folder = tmp_path / "annotations"
        folder.mkdir()
        for video, entity, time, speaking in rows:
            label = "SPEAKING_AUDIBLE" if speaking else "NOT_SPEAKING"
            with (folder / f"{video}-activespeaker.csv").open("a") as file:
                file.write(f"{video},{time},0.1,0.1,0.5,0.5,{label},{entity}\n")
        return read_groundtruth([folder])

    return read


def test_each_face_takes_its_nearest_window(annotated):
    rows = [
        ("v", "1", 900.0),  # before its first window
        ("v", "1", 901.2),
        ("v", "1", 901.3),  # as near to both: the earlier
        ("v", "1", 901.31),
        ("v", "1", 990.0),  # behind its last one
        ("v", "2", 901.0),  # never evaluated
        ("v", "3", 901.0),
        ("w", "1", 901.6),  # another video's face of the same name
        ("w", "3", 902.0),
    ]
    truth = annotated([(*row, True) for row in rows])
    windows = ["v", "x", "v", "v", "w"], ["1", "1", "3", "1", "1"], np.array([901.6, 901.2, 1500.0, 901.0, 900.0])
    assert nearest_windows(*windows, truth).tolist() == [3, 3, 3, 0, 0, -1, 2, 4, -1]
    with pytest.raises(UserError, match=r"no evaluated face .*/annotations/v-activespeaker\.csv"):
        nearest_windows(["x", "v"], ["1", "9"], np.array([901.0, 901.0]), truth)


def test_numbers_by_hand(annotated):
    truth = annotated(
        [("v", "1", 900.0, True), ("v", "1", 900.1, False), ("v", "1", 900.2, True), ("v", "2", 900.0, True)]
    )
    speaking = np.array([True, False, True, False, False])
    probability = np.array([0.9, 0.8, 0.4, 0.3, 0.2])
    result = evaluate_output(speaking, probability, truth, np.array([0, 1, 2, -1]))
    assert result.accuracy == pytest.approx(3 / 5)
    assert result.map == result.ap_sp == pytest.approx((1 + 2 / 3) / 2)
    assert result.ap_ns == pytest.approx((1 + 1 + 3 / 4) / 3)  # ranked by the probability of not speaking
    assert result.auc == pytest.approx(5 / 6)
    # 0.9 +, 0.8 -, 0.4 +, and the face without a window last: 0 +
    assert result.orig_map == pytest.approx((1 + 3 / 4 + 3 / 4) / 3)
    assert result.confusion.tolist() == [[2, 1], [1, 1]]
    assert "not speaking" in result.report


def test_official_and_scikit_learn_differ_where_precision_rises_again(annotated):
    truth = annotated([("v", "1", 900.0, True)])
    speaking, probability = np.array([False, True, True]), np.array([0.9, 0.8, 0.7])
    result = evaluate_output(speaking, probability, truth, np.array([0]))
    assert result.map == pytest.approx(2 / 3)
    assert result.ap_sp == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_predictions_are_the_softmax_of_each_output(extracted):
    windows, config = extracted.windows(), extracted.config
    model = models.StaticNetwork("s_av", config.audio_shape, config.video_shape).train()
    scores = predict(model, windows, device=CPU, batch_size=7, weights="w")
    assert scores.shape == (23, 3, 2)
    batch = windows.load(range(23))
    with torch.no_grad():
        expected = torch.stack(model.eval()(batch.audio, scaled(batch.video)), dim=1).softmax(dim=2)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-6)


def test_the_numbers_of_keras():
    """Areas from Keras 3.15's AUC with its 200 thresholds; entropy and accuracy by hand."""
    first = np.array([0.9, 0.2, 0.7, 0.55, 0.1, 0.3, 0.55, 0.4])
    scores = np.stack([first, 1 - first], axis=1)[:, None]
    classes = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    values = keras_metrics.evaluate_keras(("main",), scores, classes, weights={"main": 2.0}, penalty=0.25)
    entropy = -np.log([0.9, 0.8, 0.3, 0.55, 0.9, 0.3, 0.55, 0.6]).mean()
    assert values == pytest.approx(
        {"loss": 2 * entropy + 0.25, "main_accuracy": 6 / 8, "auroc": 0.75, "aupr": 0.7780902981758118}, rel=1e-6
    )


def test_keras_areas_of_perfect_and_of_equal_scores():
    targets = np.array([True, False, True, False])
    assert keras_metrics.areas_under_curves(targets, np.array([1.0, 0.0, 0.9, 0.1])) == (1.0, 1.0)
    assert keras_metrics.areas_under_curves(targets, np.full(4, 0.5)) == (0.5, 0.5)


def test_natural_order(tmp_path):
    names = ["a-10.pth", "a-9.pth", "b-1-0.70.hdf5", "a-9-2.pt", "9.h5", "last.pt", "log.csv", ".part-1.pth", "²-1.pth"]
    for name in names:
        (tmp_path / name).touch()
    found = [path.name for path in evaluate.weight_files(tmp_path)]
    assert found == ["9.h5", "a-9-2.pt", "a-9.pth", "a-10.pth", "b-1-0.70.hdf5", "²-1.pth"]


# ---------------------------------------------------------------- the command


@pytest.fixture
def command(copied, tmp_path):
    """Run ava-evaluate on the tiny set with changes of the configuration; the exit status."""

    def run(*arguments: object, **changes: object) -> int:
        copied.configure(**changes)
        return copied.run(evaluate.main, "--device", "cpu", "--out", tmp_path, *arguments)

    return run


@pytest.fixture
def save(copied, tmp_path):
    """Save random weights in `tmp_path`/weights."""

    def write(name: str = "best.pth", mode: str = "s_av", bias: float = 0.0, **changes) -> Path:
        config = copied.configure(mode=mode, **changes)
        model = models.StaticNetwork(mode, config.audio_shape, config.video_shape)
        model.main_out.bias.data[0] = bias
        (tmp_path / "weights").mkdir(exist_ok=True)
        torch.save(model.state_dict(), tmp_path / "weights" / name)
        return tmp_path / "weights" / name

    return write


def test_a_weights_file(command, save, copied, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    shown = []
    monkeypatch.setattr(pyplot, "show", lambda: shown.extend(pyplot.get_figlabels()))
    assert command("--weights-file", save(), "--show") == 0
    pyplot.close("all")
    said = capsys.readouterr().out
    speaking = int(np.sum(copied.windows().label == "SPEAKING_AUDIBLE"))
    for part in (f"23 test samples, {speaking} of them", "audio    video     main", "ROC AUC", "report, video"):
        assert part in said
    assert "left out" not in said
    assert shown == ["best, audio", "best, video", "best, main"]
    for name in ("audio", "video", "main"):
        assert (tmp_path / f"best-confusion-{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("mode", models.MODES)
def test_a_folder_of_weights_as_csv(command, save, tmp_path, mode):
    for name in ("e-10.pth", "e-2.pth"):
        save(name, mode)
    assert command("--weights-path", tmp_path / "weights", mode=mode) == 0
    with (tmp_path / "evaluation-results.csv").open() as file:
        header, *lines = csv.reader(file)
    assert header == PUBLISHED_COLUMNS.split()
    assert [Path(line[0]).name for line in lines] == ["e-2.pth", "e-10.pth"]
    for line in lines:
        for name, value in zip(header[1:], line[1:], strict=True):
            there = any(output in name for output in models.MODES[mode])
            assert (0 <= float(value) <= 1) if there else value == "", name


@pytest.mark.parametrize(("speaking_class", "classes"), enumerate([CLASSES, CLASSES_OTHERWISE]))
def test_the_csv_has_the_numbers_of_the_file(command, save, copied, tmp_path, speaking_class, classes):
    weights = save(classes=classes)
    command("--weights-path", weights.parent, classes=classes)
    with (tmp_path / "evaluation-results.csv").open() as file:
        (line,) = csv.DictReader(file)
    windows = copied.windows()
    model = models.StaticNetwork("s_av", copied.config.audio_shape, copied.config.video_shape)
    models.load_weights(model, weights)
    scores = predict(model, windows, device=CPU, batch_size=16, weights=weights)
    truth = read_groundtruth([copied.at("test_ann_dir")])
    nearest = nearest_windows(windows.video_id, windows.entity_id, windows.timestamp, truth)
    speaking = windows.label == "SPEAKING_AUDIBLE"
    for position, output in enumerate(("audio", "video", "main")):
        result = evaluate_output(speaking, scores[:, position, speaking_class], truth, nearest)
        for name in ("accuracy", "map", "ap_sp", "ap_ns", "auc"):
            assert float(line[f"{output}_{name}"]) == pytest.approx(getattr(result, name)), (output, name)
        assert float(line[f"orig_{output}_map"]) == pytest.approx(result.orig_map)


def test_legacy_numbers(command, save, copied, capsys):
    weights = save()
    assert command("--weights-file", weights, "--legacy") == 0
    said = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[-6:])
    accuracies = ["audio accuracy", "video accuracy", "main accuracy"]
    assert list(said) == ["total loss", *accuracies, "area under ROC", "area under precision-recall"]
    model = models.StaticNetwork("s_av", copied.config.audio_shape, copied.config.video_shape).eval()
    models.load_weights(model, weights)
    batch = copied.windows().load(range(23))
    with torch.no_grad():
        outputs = model(batch.audio, scaled(batch.video))
        audio, video, main = (torch.nn.functional.cross_entropy(logits, batch.labels) for logits in outputs)
        expected = 0.4 * audio + 0.4 * video + main + model.penalty()
    assert float(said["total loss"]) == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.parametrize("options", [(), ("--legacy",)])
def test_samples_without_audio_are_counted(command, save, copied, capsys, options):
    longer = {"mfcc_frame_size": 24}
    assert command("--weights-file", save(**longer), *options, **longer) == 0
    count = copied.windows().without_audio
    assert 0 < count < 23
    assert f"left out: {count} samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "changes", "facts"),
    [
        ("--weights-path {tmp}/none", {}, ["{tmp}/none", "no such folder"]),
        ("--weights-path {tmp}/data", {}, ["{tmp}/data", "no weights", ".hdf5"]),
        ("--weights-file {tmp}/none.pth", {}, ["{tmp}/none.pth", "no such file"]),
        ("--weights-path {tmp}/weights", {}, ["{tmp}/weights/2.pth", "mode s_v", "mode s_av"]),
        ("--weights-path {tmp} --legacy", {}, ["--legacy", "--weights-file"]),
        ("--weights-path {tmp} --show", {}, ["--show", "--weights-file"]),
        ("--weights-file {tmp}/weights/1.pth --legacy --show", {}, ["--show", "--legacy"]),
        ("--weights-file {tmp}/weights/3.pth", {}, ["{tmp}/weights/3.pth", "not finite"]),
        ("--weights-file {tmp}/weights/4.pth --legacy", {}, ["{tmp}/weights/4.pth", "not finite"]),
        ("--weights-file {tmp}/weights/1.pth --out {tmp}/config.yaml/x", {}, ["{tmp}/config.yaml/x"]),
        ("--weights-file {tmp}/weights/1.pth", {"test_keep_ratio": 0.01}, ["all 1 test samples are of one class"]),
        ("", {}, ["--weights-file", "--weights-path"]),
    ],
)
def test_mistakes(command, save, tmp_path, capsys, arguments, changes, facts):
    for name, of in (("1", {}), ("2", {"mode": "s_v"}), ("3", {"bias": float("nan")}), ("4", {"bias": float("inf")})):
        save(f"{name}.pth", **of)
    before = set(tmp_path.iterdir())

    assert command(*arguments.format(tmp=tmp_path).split(), **changes) == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert [fact for fact in facts if fact.format(tmp=tmp_path) not in message] == [], message
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("option", ["--weights-file", "--weights-path"])
@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"classes": CLASSES_OTHERWISE}, "'SPEAKING_AUDIBLE': 1"),
        ({"fps": 12.5}, "fps 12.5, configured is 25"),
        (
            {"stride": 0.02, "apply_mean": False},
            "stride 0.02, configured is 0.01; apply_mean False, configured is True",
        ),
    ],
)
def test_weights_of_a_run_with_other_inputs_or_classes_are_refused(
    command, save, copied, capsys, option, changes, fact
):
    weights = save()
    settings, option = (
        weights.parent / "settings.json",
        (option, weights if option.endswith("file") else weights.parent),
    )
    trained = asdict(copied.config)
    settings.write_text(json.dumps({"config": trained | {"epochs": 7}}))
    assert command(*option) == 0
    assert "note:" not in capsys.readouterr().out
    settings.write_text(json.dumps({"config": trained | changes}))
    assert command(*option) == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert str(weights.parent) in message
    assert fact in message


@pytest.mark.parametrize("settings", [None, "[]", "{", '{"STE_optimization_params": {}}'])
def test_a_note_where_nothing_says_how_weights_were_trained(command, save, capsys, settings):
    weights = save()
    if settings is not None:
        (weights.parent / "settings.json").write_text(settings)
    assert command("--weights-file", weights, "--legacy") == 0
    assert f"note: no settings of ava-train beside the weights in {weights.parent}" in capsys.readouterr().out
