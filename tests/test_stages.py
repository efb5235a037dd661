"""The stage scripts, one after the other on the tiny set; what they leave behind; what they refuse."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from test_dataset import contexts, make_features
from tiny import CROP_SIZE, as_options, encoder_paths, exit_status, refusal, tree

import ASC_forward
import ASC_prediction_postprocessing
import ASC_train
import evaluate
import STE_forward
import STE_postprocessing
import STE_train
from core.dataset import ClipDataset
from core.evaluation.metrics import average_precision
from core.evaluation.scores import speaking_probability
from core.formats import ava
from core.formats.context_logits import read_logits
from core.formats.feature_store import FeatureStore
from core.inputs.clip_mfcc import clip_mfcc
from core.inputs.transforms import stack
from core.models import ASC_Net, resnet18_two_streams

ROOT = Path(__file__).resolve().parents[1]
CLIP = 3
CONTEXT = (11, 4, 3)  # the published one: the checkpoint has the published shapes


def configuration(prepared: Path, out: Path) -> str:
    """The Python file of all stages' dictionaries."""
    inputs, predictions = encoder_paths(prepared), {"predictions_out": out / "predictions"}
    tables = {key: path for key, path in inputs.items() if key.startswith("csv")}
    features = {f"features_{split}_full": out / "features" / split for split in ava.SPLITS}
    paths = {
        "STE_inputs": inputs | predictions | {"models_out": out / "ste_models", "features_out": out / "features"},
        "ASC_inputs": features | {"models_out": out / "asc_models"},
        "ASC_inputs_forward": features | tables | predictions | {"logits_out": out / "logits"},
    }
    clips = {"threads": 0, "crop_size": CROP_SIZE}
    dictionaries = {name: {key: str(path) for key, path in keys.items()} for name, keys in paths.items()} | {
        "STE_optimization_params": {"pretrained": False, "epochs": 1, "batch_size": 5, **clips},
        # 12 clips at once: some batches hold the end of one video and the beginning of the next.
        "STE_forward_params": {"batch_size": 12, **clips},
        "ASC_optimization_params": {"epochs": 1, "batch_size": 32, "learning_rate": 1e-4},
        "ASC_forward_params": {"batch_size": 20},
    }
    return "".join(f"{name} = {values!r}\n" for name, values in dictionaries.items())


@dataclass(frozen=True)
class Pipeline:
    """What the stages left behind in `out`, by the configuration `config`."""

    prepared: Path
    out: Path

    @property
    def config(self) -> list[str]:
        return ["--config", str(self.out / "my_config.py")]

    def weights(self, stage: str) -> Path:
        return self.out / f"{stage}_models" / "first" / "best.pth"

    def rows(self, split: str) -> pd.DataFrame:
        return ava.read_augmented(self.prepared / "csv" / f"{split}.csv")


def run_stages(
    prepared: Path, out: Path, clip_length: int, context: tuple[int, int, int], *options: str, full_val: bool = False
) -> Pipeline:
    """Both stages trained, forwarded and written in the official format."""
    done = Pipeline(prepared, out)
    (out / "my_config.py").write_text(configuration(prepared, out))
    stages = [
        (STE_train, clip_length, "cpu", "--name", "first", *["--full-val"] * full_val),
        (STE_forward, clip_length, "cpu"),
        (STE_postprocessing, "--split", "both"),
        (ASC_train, *context, "cpu", "--name", "first"),
        (ASC_forward, *context, "cpu", "--split", "both"),
        (ASC_prediction_postprocessing, "--split", "both"),
    ]
    for script, *arguments in stages:
        assert exit_status(script.main, *arguments, *done.config, *options) == 0, script.__name__
    return done


@pytest.fixture(scope="module")
def pipeline(prepared, tmp_path_factory) -> Iterator[Pipeline]:
    """The published networks; their checkpoints weigh half a gigabyte."""
    done = run_stages(prepared, tmp_path_factory.mktemp("pipeline"), CLIP, CONTEXT, full_val=True)
    yield done
    shutil.rmtree(done.out, ignore_errors=True)


# ---------------------------------------------------------------- end to end


@pytest.mark.parametrize("split", ava.SPLITS)
@pytest.mark.parametrize("stage", ["STE", "ASC"])
def test_predictions_have_the_keys_and_boxes_of_the_annotations(pipeline, stage, split):
    columns = [*ava.COLUMNS, "score"]
    folder = pipeline.out / "predictions" / split
    predictions = pd.read_csv(
        folder / f"{stage}.csv", header=None, names=columns, dtype=dict.fromkeys(columns[:-1], str)
    )
    truth = pd.read_csv(folder / "gt.csv", header=None, names=ava.COLUMNS, dtype=str)
    annotated = pipeline.rows(split)[list(ava.COLUMNS)]
    pd.testing.assert_frame_equal(truth, annotated, check_dtype=False)
    same = [name for name in ava.COLUMNS if name != "label"]
    pd.testing.assert_frame_equal(predictions[same], annotated[same], check_dtype=False)
    assert set(predictions["label"]) == {"SPEAKING_AUDIBLE"}
    assert predictions["score"].between(0, 1).all()
    assert predictions["score"].nunique() > len(annotated) / 2  # not rounded, not constant


def test_the_official_number_is_that_of_the_stored_logits(pipeline, tmp_path):
    store = FeatureStore(pipeline.out / "features" / "val")
    predictions = pipeline.out / "predictions" / "val"
    truth, json_file = predictions / "gt.csv", tmp_path / "result.json"
    arguments = ["--groundtruth", truth, "--predictions", predictions / "STE.csv", predictions / "ASC.csv"]
    assert exit_status(evaluate.main, *arguments, "--json", json_file) == 0
    result = json.loads(json_file.read_text())
    scores = speaking_probability(store.logits, store.entities)
    assert result["average_precision"] == pytest.approx(average_precision(store.labels == 1, scores), abs=1e-9)
    assert [Path(part["predictions"]).name for part in result["files"]] == ["STE.csv", "ASC.csv"]
    assert all(part["rows"] == 77 for part in result["files"])


def test_runs_keep_their_settings_and_log(pipeline):
    ste, asc = (json.loads((pipeline.weights(stage).parent / "settings.json").read_text()) for stage in ("ste", "asc"))
    assert (ste["full_val"], ste["clip_length"], ste["STE_optimization_params"]["batch_size"]) == (True, CLIP, 5)
    shape = tuple(asc[key] for key in ("clip_length", "skip_frames", "speakers"))
    assert (shape, asc["ASC_optimization_params"]["batch_size"]) == (CONTEXT, 32)
    log = pd.read_csv(pipeline.weights("ste").parent / "log.csv")
    names = {"epoch", "train_loss", "val_loss", "val_ap", "val_audio_ap", "val_video_ap", "clips_per_s"}
    assert names <= set(log.columns)
    assert log["val_ap"].between(0, 1).all()


def test_another_head_and_a_median_filter(pipeline):
    options = as_options("STE_inputs", predictions_out=pipeline.out / "other_predictions")
    options += as_options("STE_postprocessing_params", head="audio", median_window=5)
    assert exit_status(STE_postprocessing.main, *pipeline.config, *options) == 0
    scores = pd.read_csv(pipeline.out / "other_predictions" / "val" / "STE_audio.csv", header=None)[8]
    store = FeatureStore(pipeline.out / "features" / "val")
    np.testing.assert_allclose(scores, speaking_probability(store.audio_logits, store.entity_ids, 5), atol=1e-12)


# ---------------------------------------------------------------- the numbers, by the networks themselves


@pytest.mark.parametrize("split", ava.SPLITS)
def test_features_are_the_networks_on_all_clips_at_once(pipeline, split):
    rows, store = pipeline.rows(split), FeatureStore(pipeline.out / "features" / split)
    model = resnet18_two_streams(rgb_stack_size=CLIP)
    model.load_state_dict(torch.load(pipeline.weights("ste"), weights_only=True))
    model.eval()
    folders = pipeline.prepared / "crops" / split, pipeline.prepared / "audio" / split
    clips = ClipDataset(rows, *folders, clip_length=CLIP, size=CROP_SIZE, random_centres=False)
    batch = clips.__getitems__([(0, row) for row in range(len(rows))])
    mfcc = clip_mfcc(batch.audio[0], batch.audio_lengths[0], clips.mfcc_windows)
    with torch.inference_mode():
        av, audio, video, features = model(mfcc, stack(batch.frames[batch.windows]))
    for ours, expected in ((store.logits, av), (store.audio_logits, audio), (store.video_logits, video)):
        np.testing.assert_allclose(ours, expected, atol=1e-3)
    np.testing.assert_allclose(store.gather(np.arange(len(rows))), features, atol=1e-3, rtol=1e-3)  # float16


def test_logits_are_the_context_networks_on_all_contexts_at_once(pipeline):
    length, stride, speakers = CONTEXT
    store = FeatureStore(pipeline.out / "features" / "val")
    model = ASC_Net(length, speakers)
    model.load_state_dict(torch.load(pipeline.weights("asc"), weights_only=True))
    logits = read_logits(pipeline.out / "logits" / "val")
    assert logits["entity_id"].tolist() == store.entity_ids.tolist()
    assert logits["frame_timestamp"].tolist() == store.timestamps.tolist()
    rows = np.arange(len(store))
    index = contexts(store, length, stride, speakers, random_speakers=False).contexts(rows)  # (row, clip, speaker)
    features = torch.from_numpy(store.gather(rows)).float()
    with torch.inference_mode():
        expected = model.eval()(features[index].permute(0, 3, 1, 2))
    np.testing.assert_allclose(logits[["logit0", "logit1"]].astype(float), expected, atol=1e-4)


# ---------------------------------------------------------------- finished work and interrupts


def times_of_files(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_running_again_does_nothing_again(pipeline):
    before = {name: times_of_files(pipeline.out / name) for name in ("features", "logits")}
    assert exit_status(STE_forward.main, CLIP, "cpu", *pipeline.config) == 0
    assert exit_status(ASC_forward.main, *CONTEXT, "cpu", "--split", "both", *pipeline.config) == 0
    assert {name: times_of_files(pipeline.out / name) for name in before} == before


def test_outputs_of_other_weights_are_made_anew(pipeline, tmp_path):
    shutil.copytree(pipeline.out / "logits", tmp_path / "logits")
    weights = torch.load(pipeline.weights("asc"), weights_only=True)
    weights["fc_final.bias"] += torch.tensor([0.0, 1.0])
    torch.save(weights, tmp_path / "other.pth")
    options = as_options("ASC_inputs_forward", logits_out=tmp_path / "logits")
    options += as_options("ASC_forward_params", weights=tmp_path / "other.pth")
    assert exit_status(ASC_forward.main, *CONTEXT, "cpu", *pipeline.config, *options) == 0
    before, after = read_logits(pipeline.out / "logits" / "val"), read_logits(tmp_path / "logits" / "val")
    np.testing.assert_allclose(after["logit0"], before["logit0"], atol=1e-5)
    np.testing.assert_allclose(after["logit1"], before["logit1"] + 1, atol=1e-5)


def interrupt_after_first(monkeypatch: pytest.MonkeyPatch, module, name: str) -> None:
    """Ctrl-C when the second video is about to be written."""
    write, calls = getattr(module, name), []

    def interrupted(*args, **kwargs) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*args, **kwargs)

    monkeypatch.setattr(module, name, interrupted)


FORWARDS = {
    "STE": (STE_forward, "write_features", [CLIP], "STE_inputs", "features_out"),
    "ASC": (ASC_forward, "write_logits", CONTEXT, "ASC_inputs_forward", "logits_out"),
}


@pytest.mark.parametrize("stage", FORWARDS)
def test_an_interrupted_forward_goes_on(pipeline, tmp_path, monkeypatch, stage):
    script, writer, shape, dictionary, key = FORWARDS[stage]
    options = [*pipeline.config, *as_options(dictionary, **{key: tmp_path})]
    command = [*shape, "cpu", "--split", "train", *options]
    with monkeypatch.context() as context:
        interrupt_after_first(context, script, writer)
        assert exit_status(script.main, *command) == 130
    assert {path.stem for path in (tmp_path / "train").glob("*.*")} == {"-tinyTrain1", ".made"}
    (first,) = (tmp_path / "train").glob("-tinyTrain1.*")
    before = first.stat().st_mtime_ns
    assert exit_status(script.main, *command) == 0
    assert first.stat().st_mtime_ns == before
    if stage == "ASC":
        pd.testing.assert_frame_equal(read_logits(tmp_path / "train"), read_logits(pipeline.out / "logits" / "train"))
    else:
        ours, whole = FeatureStore(tmp_path / "train"), FeatureStore(pipeline.out / "features" / "train")
        assert ours.timestamps.tolist() == whole.timestamps.tolist()
        np.testing.assert_array_equal(ours.logits, whole.logits)


@pytest.mark.parametrize("stage", FORWARDS)
def test_files_of_videos_are_opened_where_these_are_worked_on(pipeline, tmp_path, monkeypatch, stage):
    """Not before any work begins: of some ten thousand a process cannot map all into memory."""
    script, _, shape, dictionary, key = FORWARDS[stage]
    opened, handed_out, memory_map = set(), [], pa.memory_map
    monkeypatch.setattr(pa, "memory_map", lambda path: opened.add(Path(path).stem) or memory_map(path))
    monkeypatch.setattr("core.parallel.videos.map_videos", lambda _, items, *__, **___: handed_out.extend(items) or {})
    options = [*pipeline.config, *as_options(dictionary, **{key: tmp_path})]
    assert exit_status(script.main, *shape, "cpu", "--split", "train", *options) == 0
    assert handed_out == ["-tinyTrain1", "tinyTrain_2"]
    assert opened == {"-tinyTrain1"}  # by which it is found whether they go together with the rest


@pytest.mark.parametrize("stage", FORWARDS)
def test_a_damaged_video_does_not_stop_the_others(pipeline, tmp_path, capsys, stage):
    script, _, shape, dictionary, key = FORWARDS[stage]
    folder = tmp_path / "in" / "train"
    read, keys = {
        "STE": (pipeline.prepared / "crops" / "train", {"video_dir": folder.parent}),
        "ASC": (pipeline.out / "features" / "train", {"features_train_full": folder}),
    }[stage]
    shutil.copytree(read, folder)
    damaged = folder / "tinyTrain_2.arrow"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    options = as_options(dictionary, **keys, **{key: tmp_path / "out"})
    command = [*shape, "cpu", "--split", "train", *pipeline.config, *options]
    assert exit_status(script.main, *command) == 1
    assert capsys.readouterr().err.count(str(damaged)) == 1
    assert [path.stem for path in (tmp_path / "out" / "train").glob("*.*") if path.suffix] == ["-tinyTrain1"]


def test_features_in_the_published_form_lead_to_the_same_scores(pipeline, tmp_path):
    options = as_options("STE_inputs", features_out=tmp_path / "features")
    options += as_options("STE_forward_params", format="csv")
    assert exit_status(STE_forward.main, CLIP, "cpu", "--split", "val", *pipeline.config, *options) == 0
    assert list(tree(tmp_path / "features" / "val")) == ["tinyVal_001.csv"]
    paths = {"features_val_full": tmp_path / "features" / "val", "logits_out": tmp_path / "logits"}
    command = [*CONTEXT, "cpu", *pipeline.config, *as_options("ASC_inputs_forward", **paths)]
    assert exit_status(ASC_forward.main, *command) == 0
    ours, others = read_logits(tmp_path / "logits" / "val"), read_logits(pipeline.out / "logits" / "val")
    np.testing.assert_allclose(ours["logit1"], others["logit1"], atol=1e-6)


PUBLISHED_CONFIG = ROOT / "tests" / "fixtures" / "published_config.py"
STAGES = {
    STE_train.main: [CLIP, "cpu"],
    STE_forward.main: [CLIP, "cpu"],
    STE_postprocessing.main: [],
    ASC_train.main: [*CONTEXT, "cpu"],
    ASC_forward.main: [*CONTEXT, "cpu"],
    ASC_prediction_postprocessing.main: [],
}


def test_the_published_configuration_works_in_all_scripts(prepared, tmp_path):
    """Only what the published scripts had in their bodies is given by its key."""
    for folder in ("csv", "audio", "crops"):
        (tmp_path / folder).symlink_to(prepared / folder)
    config = tmp_path / "published.py"
    config.write_text(PUBLISHED_CONFIG.read_text().replace('".../', f'"{tmp_path}/'))
    small = {"crop_size": CROP_SIZE}
    options = as_options("STE_optimization_params", **small, pretrained=False, epochs=1)
    options += as_options("ASC_optimization_params", epochs=1) + as_options("STE_forward_params", **small, format="csv")
    options += as_options("STE_inputs", features_out=tmp_path / "features", predictions_out=tmp_path / "predictions")
    out = {"logits_out": tmp_path / "logits", "predictions_out": tmp_path / "predictions"}
    options += as_options("ASC_inputs_forward", **out, csv_val_full=tmp_path / "csv" / "val.csv")
    for main, arguments in STAGES.items():
        assert exit_status(main, *arguments, "--config", config, *options) == 0, main.__module__
    assert len(list((tmp_path / "features").glob("*/*.csv"))) == 3
    for name in ("STE.csv", "ASC.csv"):
        assert len((tmp_path / "predictions" / "val" / name).read_text().splitlines()) == 77


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("logit", ["nan", "-inf", "", "null", "1_0", "٣"])
def test_logits_that_are_no_numbers_are_named(pipeline, tmp_path, capsys, logit):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "v.csv").write_text(f"v:1,0.96,0.5,0.5\nv:1,1.00,0.5,{logit}\n", encoding="utf-8")
    options = [*pipeline.config, *as_options("ASC_inputs_forward", logits_out=tmp_path)]
    assert f"{tmp_path / 'val' / 'v.csv'}, line 2" in refusal(capsys, ASC_prediction_postprocessing.main, *options)


@pytest.mark.parametrize(
    ("main", "shape", "changes", "words"),
    [
        (STE_forward.main, [5], {}, ["clips of 3 frames", "5 were asked for"]),
        (STE_forward.main, [CLIP], {"STE_forward_params.backbone": "resnet34_two_streams"}, ["another network"]),
        (STE_forward.main, [CLIP], {"STE_forward_params.weights": "asc"}, ["another network: it lacks"]),
        (ASC_forward.main, CONTEXT, {"ASC_forward_params.weights": "ste"}, ["another network: it lacks"]),
        (ASC_forward.main, [11, 4, 2], {}, ["speakers: 3 in training, 2 now"]),
        (ASC_forward.main, [11, 2, 3], {}, ["skip_frames: 4 in training, 2 now"]),
        (STE_forward.main, [CLIP], {"STE_forward_params.crop_size": 48}, ["crop_size: 32 in training, 48 now"]),
        (STE_forward.main, [CLIP], {"STE_inputs.models_out": "empty"}, ["no finished epoch", "STE_train.py"]),
    ],
)
def test_weights_that_do_not_fit(pipeline, tmp_path, capsys, main, shape, changes, words):
    options = as_options("STE_inputs", features_out=tmp_path) + as_options("ASC_inputs_forward", logits_out=tmp_path)
    for key, value in changes.items():
        options += ["--set", f"{key}={pipeline.weights(value) if value in ('ste', 'asc') else value}"]
    message = refusal(capsys, main, *shape, "cpu", *pipeline.config, *options)
    assert all(word in message for word in words), message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("main", [STE_train.main, STE_forward.main])
@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("crops/train/tinyTrain_2.arrow", ["video tinyTrain_2", "data/extract_face_crops_time.py"]),
        ("audio/train/tinyTrain_2_0000_0060:3.wav", ["1 of 5 entities", "0060:3 of video tinyTrain_2"]),
    ],
)
def test_missing_media_are_named(pipeline, tmp_path, capsys, main, lost, words):
    for part in ("crops", "audio"):
        shutil.copytree(pipeline.prepared / part, tmp_path / part)
    (tmp_path / lost).unlink()
    paths = {"audio_dir": tmp_path / "audio", "video_dir": tmp_path / "crops"}
    paths |= dict.fromkeys(("models_out", "features_out"), tmp_path / "out")
    options = as_options("STE_inputs", **paths) + as_options("STE_forward_params", weights=pipeline.weights("ste"))
    message = refusal(capsys, main, CLIP, "cpu", *pipeline.config, *options)
    assert all(word in message for word in words), message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("main", "dictionary", "split", "words"),
    [
        (STE_train.main, "STE_inputs", "train", ["tinyTrain_2.arrow", "61 crops, 59 annotated faces"]),
        (STE_postprocessing.main, "STE_inputs", "val", ["2 rows", "tinyVal_001_0000_0060:3 at 1.40"]),
        (ASC_prediction_postprocessing.main, "ASC_inputs_forward", "val", ["2 rows", "0060:3 at 1.44"]),
    ],
)
def test_other_annotations(pipeline, tmp_path, capsys, main, dictionary, split, words):
    lines = (pipeline.prepared / "csv" / f"{split}.csv").read_text().splitlines()
    (tmp_path / "fewer.csv").write_text("\n".join(lines[:-2]) + "\n")
    paths = {f"csv_{split}_full": tmp_path / "fewer.csv", "predictions_out": tmp_path / "out"}
    options = as_options(dictionary, **paths) + as_options("STE_inputs", models_out=tmp_path / "out")
    arguments = [CLIP, "cpu"] if main is STE_train.main else []
    message = refusal(capsys, main, *arguments, *pipeline.config, *options)
    assert all(word in message for word in words), message
    assert not (tmp_path / "out").exists()


def test_features_of_two_encoders(tmp_path, capsys):
    faces = [("v", "v:1", 0, 4, ("NOT_SPEAKING",))]
    for split, size in (("train", 4), ("val", 8)):
        make_features(tmp_path / split, faces, size=size)
    paths = {f"features_{split}_full": tmp_path / split for split in ava.SPLITS}
    options = as_options("ASC_inputs", **paths, models_out=tmp_path)
    message = refusal(capsys, ASC_train.main, 3, 1, 2, "cpu", *options)
    assert f"size 4 in {tmp_path / 'train'}, 8 in {tmp_path / 'val'}" in message


@pytest.mark.parametrize(("main", "paths"), zip(STAGES, [5, 6, 3, 3, 3, 3], strict=True))
@pytest.mark.parametrize("config", [[], ["--config", PUBLISHED_CONFIG]])
def test_every_stage_lists_the_paths_left_open(capsys, main, paths, config):
    message = refusal(capsys, main, *STAGES[main], *config)
    assert message.count(": fill in a path") == paths
    assert message.count("is '...") == paths


def test_a_refusal_of_the_command_itself_has_no_traceback(tmp_path):
    command = [sys.executable, ROOT / "STE_postprocessing.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "STE_inputs['csv_val_full'] is '...'" in done.stderr
    assert "Traceback" not in done.stderr
