"""The evaluation of the static models: numbers against hand-made ones and other ways to them, and the command."""

import csv
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from ava_asd_set import write_config
from tiny import exit_status

from ava_asd import evaluate, keras_metrics, models
from ava_asd.config import read_config
from ava_asd.evaluation import evaluate_output, nearest_windows, predict
from ava_asd.windows import WindowBatch, scaled
from core.evaluation.official import read_groundtruth
from core.runtime.errors import EXIT_USER_ERROR

PUBLISHED_COLUMNS = """weights audio_accuracy video_accuracy main_accuracy audio_map video_map main_map
    audio_ap_sp video_ap_sp main_ap_sp audio_ap_ns video_ap_ns main_ap_ns audio_auc video_auc main_auc
    orig_main_map orig_video_map orig_audio_map"""
AUDIO, VIDEO = (1, 13, 20), (1, 1, 8, 8)


CLASSES = {"SPEAKING_AUDIBLE": 0, "NOT_SPEAKING": 1, "SPEAKING_NOT_AUDIBLE": 1}  # published
CLASSES_OTHERWISE = {label: 1 - number for label, number in CLASSES.items()}


@dataclass
class ToyWindows:
    """Windows in memory, with random audio and faces."""

    entity_id: np.ndarray
    timestamp: np.ndarray
    class_id: np.ndarray
    without_audio: int = 0

    def __len__(self) -> int:
        return len(self.class_id)

    @property
    def video_id(self) -> np.ndarray:
        return np.array([entity.split(":")[0] for entity in self.entity_id])

    def __getitems__(self, keys):
        rows = [row for _, row in keys]
        generator = torch.Generator().manual_seed(3)
        audio = torch.randn(len(self), *AUDIO, generator=generator)
        video = torch.randint(256, (len(self), *VIDEO), dtype=torch.uint8, generator=generator)
        return WindowBatch(audio[rows], video[rows], torch.from_numpy(self.class_id)[rows])

    def all(self):
        """Audio, video and classes of all windows, as a network takes them."""
        batch = self.__getitems__([(0, row) for row in range(len(self))])
        return batch.audio, scaled(batch.video), batch.labels


def write_annotations(folder: Path, rows: list[tuple[str, float, bool]]) -> Path:
    """Annotations of rows (entity, time, speaking), a file a video; the video is the entity's name up to a colon."""
    folder.mkdir()
    for entity, time, speaking in rows:
        video, label = entity.split(":")[0], "SPEAKING_AUDIBLE" if speaking else "NOT_SPEAKING"
        with (folder / f"{video}-activespeaker.csv").open("a") as file:
            file.write(f"{video},{time},0.1,0.1,0.5,0.5,{label},{entity}\n")
    return folder


@pytest.fixture
def annotated(tmp_path):
    return lambda rows: read_groundtruth([write_annotations(tmp_path / "annotations", rows)])


def test_each_face_takes_its_nearest_window(annotated):
    truth = annotated(
        [
            ("v:1", 900.0, True),  # before its first window
            ("v:1", 901.2, True),
            ("v:1", 901.3, True),  # as near to both: the earlier
            ("v:1", 901.31, True),
            ("v:1", 990.0, True),  # behind its last one
            ("v:2", 901.0, True),  # never evaluated
            ("v:3", 901.0, True),
        ]
    )
    windows = ["v", "w", "v", "v"], ["v:1", "w:9", "v:3", "v:1"], np.array([901.6, 901.2, 1500.0, 901.0])
    assert nearest_windows(*windows, truth).tolist() == [3, 3, 3, 0, 0, -1, 2]


def test_faces_of_one_name_in_two_videos_are_two(tmp_path):
    for line in ("v,900.0,1", "v,900.5,1", "w,50.0,1", "w,50.5,2"):
        video, time, entity = line.split(",")
        with (tmp_path / f"{video}-activespeaker.csv").open("a") as file:
            file.write(f"{video},{time},0.1,0.1,0.5,0.5,SPEAKING_AUDIBLE,{entity}\n")
    truth = read_groundtruth([tmp_path])
    assert nearest_windows(["v"], ["1"], np.array([900.0]), truth).tolist() == [0, 0, -1, -1]
    assert nearest_windows(["w", "v", "w"], ["2", "1", "1"], np.full(3, 900.0), truth).tolist() == [1, 1, 2, 0]


def test_nearest_windows_against_a_search_one_by_one(annotated):
    random = np.random.default_rng(4)
    keys = {(f"v:{random.integers(6)}", round(random.uniform(900, 910), 2)) for _ in range(300)}
    rows = [(entity, time, True) for entity, time in sorted(keys)]
    entities = np.array([f"v:{number}" for number in random.integers(1, 8, 50)], dtype=object)
    times = np.round(random.uniform(900, 910, 50), 2)
    found = nearest_windows(["v"] * len(entities), entities, times, annotated(rows))
    for (entity, time, _), position in zip(rows, found, strict=True):
        own = np.flatnonzero(entities == entity)
        assert (position >= 0) == bool(len(own))
        if len(own):
            assert entities[position] == entity
            assert abs(times[position] - time) == pytest.approx(np.abs(times[own] - time).min(), abs=1e-9)


def test_numbers_by_hand(annotated):
    truth = annotated([("v:1", 900.0, True), ("v:1", 900.1, False), ("v:1", 900.2, True), ("v:2", 900.0, True)])
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
    truth = annotated([("v:1", 900.0, True)])
    speaking, probability = np.array([False, True, True]), np.array([0.9, 0.8, 0.7])
    result = evaluate_output(speaking, probability, truth, np.array([0]))
    assert result.map == pytest.approx(2 / 3)
    assert result.ap_sp == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_predictions_are_the_softmax_of_each_output():
    windows = ToyWindows(np.array(["v:1"] * 7), np.arange(7.0), np.zeros(7, np.int64))
    model = models.StaticNetwork("s_av", AUDIO, VIDEO).train()
    scores = predict(model, windows, device=torch.device("cpu"), batch_size=3, weights="w")
    assert scores.shape == (7, 3, 2)
    audio, video, _ = windows.all()
    with torch.no_grad():
        expected = torch.stack(model.eval()(audio, video), dim=1).softmax(dim=2)
    np.testing.assert_allclose(scores, expected.numpy(), atol=1e-6)


def test_the_numbers_of_keras():
    """Areas from Keras 3.15's AUC with its 200 thresholds; entropy and accuracy by hand."""
    first = np.array([0.9, 0.2, 0.7, 0.55, 0.1, 0.3, 0.55, 0.4])
    scores = np.stack([first, 1 - first], axis=1)[:, None]
    classes = np.array([0, 1, 1, 0, 1, 0, 0, 1])
    values = keras_metrics.evaluate_keras(("main",), scores, classes, {"main": 2.0}, 0.25)
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


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run ava-evaluate on toy windows; returns its exit status."""
    rows = [
        (f"{video}:{face}", 900 + step / 10, step % 3 == face) for video in "vw" for face in (0, 1) for step in range(9)
    ]
    data = tmp_path / "data"
    data.mkdir()
    write_annotations(data / "annotations", rows)
    entities, times, speaking = map(np.array, zip(*rows[::2], strict=True))
    windows = ToyWindows(entities, times, 1 - speaking.astype(np.int64))
    monkeypatch.setattr(evaluate, "Windows", lambda config, data, split: windows)

    def run(*arguments: object, out: Path = tmp_path, **changes: object) -> int:
        values = {"test_ann_dir": "annotations", "vid_frame_size": 1, "width": 8, "height": 8, **changes}
        config = write_config(tmp_path / "config.yaml", mfcc_frame_size=20, **values)
        return exit_status(evaluate.main, config, data, *arguments, "--device", "cpu", "--out", out)

    run.windows, run.config = windows, lambda: read_config(tmp_path / "config.yaml")
    return run


def save(path: Path, mode: str = "s_av") -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(models.StaticNetwork(mode, AUDIO, VIDEO).state_dict(), path)
    return path


@pytest.fixture
def weights(tmp_path):
    return save(tmp_path / "weights" / "best.pth")


def test_a_weights_file(command, weights, tmp_path, capsys):
    assert command("--weights-file", weights) == 0
    said = capsys.readouterr().out
    for part in ("18 test samples, 8 of them speaking", "audio    video     main", "ROC AUC", "report, video"):
        assert part in said
    for name in ("audio", "video", "main"):
        assert (tmp_path / f"best-confusion-{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_matrices_are_shown(command, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    from matplotlib import pyplot

    shown = []
    monkeypatch.setattr(pyplot, "show", lambda: shown.extend(pyplot.get_figlabels()))
    assert command("--weights-file", save(tmp_path / "best.pth", "s_a"), "--show", mode="s_a") == 0
    pyplot.close("all")
    assert shown == ["best, audio"]
    assert (tmp_path / "best-confusion-audio.png").is_file()


@pytest.mark.parametrize("mode", models.MODES)
def test_a_folder_of_weights_as_csv(command, tmp_path, mode):
    for name in ("e-10.pth", "e-2.pth"):
        save(tmp_path / "weights" / name, mode)
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
def test_the_csv_has_the_numbers_of_the_file(command, weights, tmp_path, speaking_class, classes):
    windows, speaking = command.windows, command.windows.class_id == 0
    windows.class_id = np.where(speaking, speaking_class, 1 - speaking_class)
    command("--weights-path", weights.parent, classes=classes)
    with (tmp_path / "evaluation-results.csv").open() as file:
        (line,) = csv.DictReader(file)
    model = models.StaticNetwork("s_av", AUDIO, VIDEO)
    models.load_weights(model, weights)
    scores = predict(model, windows, device=torch.device("cpu"), batch_size=16, weights=weights)
    truth = read_groundtruth([tmp_path / "data" / "annotations"])
    nearest = nearest_windows(windows.video_id, windows.entity_id, windows.timestamp, truth)
    for position, output in enumerate(("audio", "video", "main")):
        result = evaluate_output(speaking, scores[:, position, speaking_class], truth, nearest)
        for name in ("accuracy", "map", "ap_sp", "ap_ns", "auc"):
            assert float(line[f"{output}_{name}"]) == pytest.approx(getattr(result, name)), (output, name)
        assert float(line[f"orig_{output}_map"]) == pytest.approx(result.orig_map)


def test_legacy_numbers(command, weights, capsys):
    assert command("--weights-file", weights, "--legacy") == 0
    said = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[-6:])
    accuracies = ["audio accuracy", "video accuracy", "main accuracy"]
    assert list(said) == ["total loss", *accuracies, "area under ROC", "area under precision-recall"]
    model = models.StaticNetwork("s_av", AUDIO, VIDEO).eval()
    models.load_weights(model, weights)
    audio, video, classes = command.windows.all()
    with torch.no_grad():
        audio, video, main = (torch.nn.functional.cross_entropy(out, classes) for out in model(audio, video))
        expected = 0.4 * audio + 0.4 * video + main + model.penalty()
    assert math.isclose(float(said["total loss"]), expected.item(), abs_tol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--weights-path", "{tmp}/none"], ["{tmp}/none", "no such folder"]),
        (["--weights-path", "{tmp}/data"], ["{tmp}/data", "no weights", ".hdf5"]),
        (["--weights-file", "{tmp}/none.pth"], ["{tmp}/none.pth", "no such file"]),
        (["--weights-file", "{tmp}/mixed/2.pth"], ["{tmp}/mixed/2.pth", "mode s_v", "mode s_av"]),
        (["--weights-path", "{tmp}/mixed"], ["{tmp}/mixed/2.pth", "mode s_v", "mode s_av"]),
        (["--weights-path", "{tmp}", "--legacy"], ["--legacy", "--weights-file"]),
        (["--weights-path", "{tmp}", "--show"], ["--show", "--weights-file"]),
        (["--weights-file", "{tmp}/mixed/1.pth", "--legacy", "--show"], ["--show", "--legacy"]),
        (["--weights-file", "{tmp}/mixed/nan.pth"], ["{tmp}/mixed/nan.pth", "not finite"]),
        (["--weights-file", "{tmp}/mixed/inf.pth"], ["{tmp}/mixed/inf.pth", "not finite"]),
        (["--weights-file", "{tmp}/mixed/nan.pth", "--legacy"], ["{tmp}/mixed/nan.pth", "not finite"]),
        (["--weights-file", "{tmp}/mixed/inf.pth", "--legacy"], ["{tmp}/mixed/inf.pth", "not finite"]),
        ([], ["--weights-file", "--weights-path"]),
    ],
)
def test_mistakes(command, tmp_path, capsys, arguments, facts):
    weights = torch.load(save(tmp_path / "mixed" / "1.pth"), weights_only=True)
    save(tmp_path / "mixed" / "2.pth", "s_v")
    for number in ("nan", "inf"):
        weights["main_out.bias"][0] = float(number)
        torch.save(weights, tmp_path / "mixed" / f"{number}.pth")
    assert command(*(argument.format(tmp=tmp_path) for argument in arguments)) == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert [fact for fact in facts if fact.format(tmp=tmp_path) not in message] == [], message
    assert not (tmp_path / "evaluation-results.csv").exists()


def test_an_output_folder_that_cannot_be(command, weights, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "load_weights", lambda *arguments: pytest.fail("the folder is checked first"))
    assert command("--weights-file", weights, out=weights / "results") == EXIT_USER_ERROR
    assert str(weights / "results") in capsys.readouterr().err


def test_samples_without_audio_are_counted(command, weights, capsys):
    for count, options in ((0, ()), (1234, ()), (1234, ("--legacy",))):
        command.windows.without_audio = count
        assert command("--weights-file", weights, *options) == 0
        assert ("left out: 1,234 samples" in capsys.readouterr().out) == bool(count)


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
def test_weights_of_a_run_with_other_inputs_or_classes_are_refused(command, weights, capsys, option, changes, fact):
    option = option, weights.parent if option == "--weights-path" else weights
    for text in (None, "[]", "{", '{"STE_optimization_params": {}}'):
        if text is not None:
            (weights.parent / "settings.json").write_text(text)
        assert command(*option) == 0
        assert f"note: no settings of ava-train beside the weights in {weights.parent}" in capsys.readouterr().out
    trained = asdict(command.config())
    (weights.parent / "settings.json").write_text(json.dumps({"config": trained | {"epochs": 7}}))
    assert command(*option) == 0
    assert "note:" not in capsys.readouterr().out
    (weights.parent / "settings.json").write_text(json.dumps({"config": trained | changes}))
    assert command(*option) == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert str(weights.parent) in message
    assert fact in message


def test_data_that_cannot_be_evaluated(command, weights, tmp_path, capsys):
    def refused(*facts: object) -> None:
        assert command("--weights-file", weights) == EXIT_USER_ERROR
        message = capsys.readouterr().err
        assert all(str(fact) in message for fact in facts), message

    command.windows.entity_id[:] = "x:1"
    refused("no evaluated face", tmp_path / "data" / "annotations")
    command.windows.class_id[:] = 1
    refused("all 18 test samples are of one class")
    (tmp_path / "data").rename(tmp_path / "moved")
    refused("no data folder", tmp_path / "data")
