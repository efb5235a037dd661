"""The evaluation of the static models: numbers against hand-made ones and other ways to them, and the command."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ava_asd import evaluate, keras_metrics, models
from ava_asd.evaluation import evaluate_output, evaluate_outputs, nearest_windows, predict
from core.evaluation.official import read_groundtruth
from core.runtime.errors import EXIT_USER_ERROR

SHIPPED = Path(__file__).resolve().parents[1] / "configs" / "config.yaml"
AUDIO, VIDEO = (1, 13, 20), (1, 1, 8, 8)


@dataclass
class ToyWindows:
    """Windows in memory, with random sound and faces."""

    entity_id: np.ndarray
    timestamp: np.ndarray
    class_id: np.ndarray
    without_audio: int = 0

    def __len__(self) -> int:
        return len(self.class_id)

    @property
    def video_id(self) -> np.ndarray:
        return np.array([entity.split(":")[0] for entity in self.entity_id])

    def batches(self, batch_size):
        generator = torch.Generator().manual_seed(3)
        audio = torch.randn(len(self), *AUDIO, generator=generator)
        video = torch.rand(len(self), *VIDEO, generator=generator)
        for part in torch.arange(len(self)).split(batch_size):
            yield audio[part], video[part], torch.from_numpy(self.class_id)[part]


def write_annotations(folder: Path, rows: list[tuple[str, float, bool]]) -> Path:
    """Annotations of rows (entity, time, speaking), a file a video."""
    folder.mkdir(parents=True, exist_ok=True)
    for video in {entity.split(":")[0] for entity, _, _ in rows}:
        with (folder / f"{video}-activespeaker.csv").open("w") as file:
            for entity, time, speaking in rows:
                if entity.split(":")[0] == video:
                    label = "SPEAKING_AUDIBLE" if speaking else "NOT_SPEAKING"
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
    rows = {"v": [(900.0, "1"), (900.5, "1")], "w": [(50.0, "1"), (50.5, "2")]}
    for video, faces in rows.items():
        lines = [f"{video},{time},0.1,0.1,0.5,0.5,SPEAKING_AUDIBLE,{entity}\n" for time, entity in faces]
        (tmp_path / f"{video}-activespeaker.csv").write_text("".join(lines))
    truth = read_groundtruth([tmp_path])
    assert nearest_windows(["v"], ["1"], np.array([900.0]), truth).tolist() == [0, 0, -1, -1]
    found = nearest_windows(["w", "v", "w"], ["2", "1", "1"], np.array([900.0, 900.0, 900.0]), truth)
    assert found.tolist() == [1, 1, 2, 0]


def test_nearest_windows_against_a_search_one_by_one(annotated):
    random = np.random.default_rng(4)
    keys = {(f"v:{random.integers(6)}", round(random.uniform(900, 910), 2)) for _ in range(300)}
    rows = [(entity, time, True) for entity, time in sorted(keys)]
    entities = np.array([f"v:{number}" for number in random.integers(1, 8, 50)], dtype=object)
    times = np.round(random.uniform(900, 910, 50), 2)
    found = nearest_windows(["v"] * len(entities), entities, times, annotated(rows))
    for (entity, time, _), place in zip(rows, found, strict=True):
        own = np.flatnonzero(entities == entity)
        if not len(own):
            assert place == -1
            continue
        assert entities[place] == entity
        assert abs(times[place] - time) == pytest.approx(np.abs(times[own] - time).min(), abs=1e-9)


def test_numbers_by_hand(annotated):
    truth = annotated([("v:1", 900.0, True), ("v:1", 900.1, False), ("v:1", 900.2, True), ("v:2", 900.0, True)])
    speaking = np.array([True, False, True, False, False])
    probability = np.array([0.9, 0.8, 0.4, 0.3, 0.2])
    result = evaluate_output(speaking, probability, truth, np.array([0, 1, 2, -1]))
    assert result.accuracy == pytest.approx(3 / 5)
    assert result.map == pytest.approx((1 + 2 / 3) / 2)
    assert result.ap_sp == pytest.approx((1 + 2 / 3) / 2)
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


def test_both_orientations_give_the_same_numbers(annotated):
    truth = annotated([("v:1", 900.0, True), ("v:1", 900.1, False)])
    random = np.random.default_rng(8)
    speaking, scores = random.random(40) < 0.4, random.random((40, 3, 2))
    nearest = np.array([3, 17])
    model = models.build("s_av", AUDIO, VIDEO)
    results = [
        evaluate_outputs(model, columns, speaking, orientation, truth, nearest)
        for columns, orientation in ((scores, 0), (scores[:, :, ::-1], 1))
    ]
    assert list(results[0]) == ["audio", "video", "main"]
    for name, result in results[0].items():
        assert vars(result).keys() == vars(results[1][name]).keys()
        for key, value in vars(result).items():
            assert np.array_equal(value, vars(results[1][name])[key]), (name, key)
    alone = evaluate_output(speaking, scores[:, 1, 0], truth, nearest)
    assert results[0]["video"].map == alone.map


def test_predictions_are_the_softmax_of_each_output():
    windows = ToyWindows(np.array(["v:1"] * 7), np.arange(7.0), np.zeros(7, np.int64))
    model = models.build("s_av", AUDIO, VIDEO).train()
    scores = predict(model, windows, torch.device("cpu"), batch_size=3)
    assert scores.shape == (7, 3, 2)
    audio, video, _ = next(windows.batches(7))
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
    perfect = keras_metrics.count_at_thresholds(targets, np.array([1.0, 0.0, 0.9, 0.1]))
    assert keras_metrics.roc_area(*perfect) == keras_metrics.precision_recall_area(*perfect) == 1.0
    equal = keras_metrics.count_at_thresholds(targets, np.full(4, 0.5))
    assert keras_metrics.roc_area(*equal) == keras_metrics.precision_recall_area(*equal) == 0.5


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
    write_annotations(data / "annotations", rows)
    picked = rows[::2]
    windows = ToyWindows(
        np.array([entity for entity, _, _ in picked]),
        np.array([time for _, time, _ in picked]),
        np.array([0 if speaking else 1 for _, _, speaking in picked]),
    )
    monkeypatch.setattr(evaluate, "Windows", lambda config, data, split: windows)

    def run(*arguments: object, out: Path = tmp_path, **changes: object) -> int:
        values = {**yaml.safe_load(SHIPPED.read_text()), "test_ann_dir": "annotations", "mode": "s_av"}
        values |= {"vid_frame_size": 1, "width": 8, "height": 8, **changes}
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(values))
        with pytest.raises(SystemExit) as exit_:
            evaluate.main([str(config), str(data), *map(str, arguments), "--device", "cpu", "--out", str(out)])
        return exit_.value.code

    run.windows = windows
    return run


def save(path: Path, mode: str = "s_av") -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(models.build(mode, AUDIO, VIDEO).state_dict(), path)
    return path


def test_a_weights_file(command, tmp_path, capsys):
    assert command("--weights-file", save(tmp_path / "best.pth")) == 0
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
def test_a_folder_of_weights(command, tmp_path, mode):
    for name in ("e-10.pth", "e-2.pth"):
        save(tmp_path / "weights" / name, mode)
    assert command("--weights-path", tmp_path / "weights", mode=mode) == 0
    with (tmp_path / "evaluation-results.csv").open() as file:
        header, *lines = csv.reader(file)
    assert header == [
        "weights",
        "audio_accuracy",
        "video_accuracy",
        "main_accuracy",
        "audio_map",
        "video_map",
        "main_map",
        "audio_ap_sp",
        "video_ap_sp",
        "main_ap_sp",
        "audio_ap_ns",
        "video_ap_ns",
        "main_ap_ns",
        "audio_auc",
        "video_auc",
        "main_auc",
        "orig_main_map",
        "orig_video_map",
        "orig_audio_map",
    ]
    assert [Path(line[0]).name for line in lines] == ["e-2.pth", "e-10.pth"]
    for line in lines:
        for name, value in zip(header[1:], line[1:], strict=True):
            there = any(output in name for output in models.MODES[mode])
            assert (0 <= float(value) <= 1) if there else value == "", name


def test_the_csv_has_the_numbers_of_the_file(command, tmp_path):
    path = save(tmp_path / "weights" / "e-1.pth")
    command("--weights-path", path.parent)
    with (tmp_path / "evaluation-results.csv").open() as file:
        (line,) = csv.DictReader(file)
    model = models.build("s_av", AUDIO, VIDEO)
    models.load_weights(model, path)
    windows = command.windows
    scores = predict(model, windows, torch.device("cpu"), 16)
    truth = read_groundtruth([tmp_path / "data" / "annotations"])
    nearest = nearest_windows(windows.video_id, windows.entity_id, windows.timestamp, truth)
    results = evaluate_outputs(model, scores, windows.class_id == 0, 0, truth, nearest)
    for output, result in results.items():
        for name in ("accuracy", "map", "ap_sp", "ap_ns", "auc"):
            assert float(line[f"{output}_{name}"]) == pytest.approx(getattr(result, name)), (output, name)
        assert float(line[f"orig_{output}_map"]) == pytest.approx(result.orig_map)


def test_legacy_numbers(command, tmp_path, capsys):
    path = save(tmp_path / "best.pth")
    assert command("--weights-file", path, "--legacy") == 0
    said = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[3:])
    assert list(said) == [
        "total loss",
        "audio accuracy",
        "video accuracy",
        "main accuracy",
        "area under ROC",
        "area under precision-recall",
    ]
    model = models.build("s_av", AUDIO, VIDEO).eval()
    models.load_weights(model, path)
    audio, video, classes = next(command.windows.batches(18))
    with torch.no_grad():
        audio, video, main = (torch.nn.functional.cross_entropy(out, classes) for out in model(audio, video))
        expected = 0.4 * audio + 0.4 * video + main + model.penalty()
    assert math.isclose(float(said["total loss"]), expected.item(), abs_tol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--weights-path", "{tmp}/none"], "there is no such folder"),
        (["--weights-path", "{tmp}/data"], "it holds no weights"),
        (["--weights-file", "{tmp}/none.pth"], "there is no such file"),
        (["--weights-file", "{tmp}/s_v.pth"], "weights of mode s_v, and the network is of mode s_av"),
        (["--weights-path", "{tmp}/mixed"], "weights of mode s_a, and the network is of mode s_av"),
        (["--weights-path", "{tmp}", "--legacy"], "--legacy can only be used with --weights-file"),
        (["--weights-path", "{tmp}", "--show"], "--show can only be used with --weights-file"),
        (["--weights-file", "{tmp}/a.pth", "--legacy", "--show"], "and not with --legacy"),
        ([], "one of the arguments --weights-file --weights-path is required"),
    ],
)
def test_mistakes(command, tmp_path, capsys, arguments, words):
    if "{tmp}/s_v.pth" in arguments:
        save(tmp_path / "s_v.pth", "s_v")
    elif "{tmp}/mixed" in arguments:
        save(tmp_path / "mixed" / "1.pth")
        save(tmp_path / "mixed" / "2.pth", "s_a")
    assert command(*(argument.format(tmp=tmp_path) for argument in arguments)) == EXIT_USER_ERROR
    assert words in capsys.readouterr().err
    assert not (tmp_path / "evaluation-results.csv").exists()


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("options", [(), ("--legacy",)])
def test_weights_that_are_no_numbers(command, tmp_path, capsys, number, options):
    path = save(tmp_path / "diverged.pth")
    weights = torch.load(path, weights_only=True)
    weights["main_out.weight"][0, 0] = number
    torch.save(weights, path)
    assert command("--weights-file", path, *options) == EXIT_USER_ERROR
    assert "diverged.pth: its scores are not finite" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate, "load_weights", lambda *arguments: pytest.fail("the folder is looked at first"))
    path = save(tmp_path / "best.pth")
    assert command("--weights-file", path, out=path / "results") == EXIT_USER_ERROR
    assert "cannot create the folder" in capsys.readouterr().err


def test_samples_without_audio_are_counted(command, tmp_path, capsys):
    path = save(tmp_path / "best.pth")
    command("--weights-file", path)
    assert "left out" not in capsys.readouterr().out
    command.windows.without_audio = 1234
    for options in ((), ("--legacy",)):
        assert command("--weights-file", path, *options) == 0
        said = capsys.readouterr().out
        assert "left out: 1,234 samples whose audio would reach beyond their video's" in said


@pytest.mark.parametrize("option", ["--weights-file", "--weights-path"])
def test_weights_trained_with_the_classes_the_other_way_round(command, tmp_path, capsys, option):
    folder = save(tmp_path / "run" / "1.pth").parent
    save(folder / "2.pth")
    given = folder if option == "--weights-path" else folder / "1.pth"
    published = {"SPEAKING_AUDIBLE": 0, "NOT_SPEAKING": 1, "SPEAKING_NOT_AUDIBLE": 1}
    for text, warned in (
        (json.dumps({"config": {"classes": {label: 1 - number for label, number in published.items()}}}), 1),
        (json.dumps({"config": {"classes": published}}), 0),
        (json.dumps({"STE_optimization_params": {}}), 0),
        ("[]", 0),
        ("{", 0),
    ):
        (folder / "settings.json").write_text(text)
        assert command(option, given) == 0
        told = capsys.readouterr().err
        assert told.count(f"warning: the weights in {folder} were trained with the classes") == warned


def test_samples_of_one_class(command, tmp_path, capsys):
    command.windows.class_id[:] = 1
    assert command("--weights-file", save(tmp_path / "best.pth")) == EXIT_USER_ERROR
    assert "all 18 test samples are of one class" in capsys.readouterr().err


def test_annotations_of_other_videos(command, tmp_path, capsys):
    command.windows.entity_id[:] = "x:1"
    assert command("--weights-file", save(tmp_path / "best.pth")) == EXIT_USER_ERROR
    assert "no evaluated face is in the original annotations" in capsys.readouterr().err


def test_no_data_folder(command, tmp_path, capsys):
    path = save(tmp_path / "best.pth")
    (tmp_path / "data").rename(tmp_path / "moved")
    assert command("--weights-file", path) == EXIT_USER_ERROR
    assert "no data folder" in capsys.readouterr().err
