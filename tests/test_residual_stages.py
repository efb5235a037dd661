"""The stage scripts with the residual context network, behind encoders of both kinds; what they refuse."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_stages import Pipeline, configuration
from tiny import as_options, exit_status, refusal, tree
from track_models import hash_weights, used

import ASC_forward
import ASC_prediction_postprocessing
import ASC_train
import STE_forward
from core import settings, track_dataset
from core.formats import ava
from core.formats.context_logits import read_logits
from core.formats.feature_store import FeatureStore, VideoFeatures, write_features
from core.inference.residual_contexts import shots_of
from core.inference.voices import by_voice
from core.models import ResidualContext, light_asd, resnet18_two_streams
from core.models.residual_context import CUES
from core.runtime.files import fingerprint

ROOT = Path(__file__).resolve().parents[1]
CLIP = 3
RECIPE = {"network": "residual", "optimizer": "AdamW", "learning_rate": 0.01, "batch_size": 2, "epochs": 2}


@pytest.fixture(scope="module", autouse=True)
def small_faces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(track_dataset, "FACE_SIZE", 32)
        yield


@pytest.fixture(scope="module", params=["light_asd", "resnet18_two_streams"])
def pipeline(request, prepared, tmp_path_factory) -> Pipeline:
    """An encoder with random weights forwarded, the residual network trained on its features and forwarded."""
    done = Pipeline(prepared, tmp_path_factory.mktemp(request.param))
    torch.manual_seed(0)
    if request.param == "light_asd":
        model = light_asd()
        hash_weights(model)
    else:
        model = used(resnet18_two_streams(rgb_stack_size=CLIP))
    torch.save(model.state_dict(), done.out / "encoder.pth")
    (done.out / "my_config.py").write_text(configuration(prepared, done.out))
    encoder = as_options("STE_forward_params", backbone=request.param, weights=done.out / "encoder.pth")
    stages = [
        (STE_forward, CLIP, "cpu", *encoder),
        (ASC_train, "cpu", "--name", "first", *as_options("ASC_optimization_params", **RECIPE)),
        (ASC_forward, "cpu", "--split", "both"),
        (ASC_prediction_postprocessing, "--split", "both"),
    ]
    for script, *arguments in stages:
        assert exit_status(script.main, *arguments, *done.config) == 0, script.__name__
    return done


def features(pipeline: Pipeline, split: str) -> FeatureStore:
    return FeatureStore(pipeline.out / "features" / split)


@pytest.mark.parametrize("split", ava.SPLITS)
def test_every_annotated_face_is_scored(pipeline, split):
    predictions = pd.read_csv(pipeline.out / "predictions" / split / "ASC.csv", header=None, dtype={1: str})
    rows = pipeline.rows(split)
    assert predictions[7].tolist() == rows["entity_id"].tolist()
    assert predictions[1].tolist() == rows["frame_timestamp"].tolist()
    assert predictions[8].between(0, 1).all()
    assert predictions[8].nunique() > len(rows) / 2


def test_features_keep_what_the_network_reads(pipeline):
    """The mean over shifts is below the most of them; a track of one row has no other audio, and no course of time."""
    for split in ava.SPLITS:
        store = features(pipeline, split)
        assert store.in_step.shape == (len(store), 3)
        assert (store.in_step[:, 0] <= store.in_step[:, 1] + 1e-4).all()
        assert (np.abs(store.in_step[:, 2]) <= 1).all()
        assert np.ptp(store.in_step[:, 2]) > 0
    store = features(pipeline, "train")
    [row] = np.flatnonzero(store.entity_ids == "tinyTrain_2_0000_0060:3")
    odds = store.logits[row, 1] - store.logits[row, 0]
    np.testing.assert_allclose(store.in_step[row], [odds, odds, 0], rtol=0, atol=0.01 * max(1, abs(odds)))


def test_logits_are_the_networks_on_the_whole_shot(pipeline):
    network = ResidualContext()
    network.load_state_dict(torch.load(pipeline.weights("asc").with_name("2.pth"), weights_only=True))
    options = as_options("ASC_inputs_forward", logits_out=pipeline.out / "last")
    options += as_options("ASC_forward_params", weights="last")
    assert exit_status(ASC_forward.main, "cpu", *pipeline.config, *options) == 0
    logits = read_logits(pipeline.out / "last" / "val")
    assert logits["entity_id"].tolist() == features(pipeline, "val").entity_ids.tolist()
    [shot] = shots_of(features(pipeline, "val"))
    assert shot.cues.shape == (3, 35, len(CUES))
    with torch.inference_mode():
        odds = network.eval()(torch.from_numpy(shot.cues)[None], torch.from_numpy(shot.present)[None])[0].numpy()
    found = (logits["logit1"] - logits["logit0"]).to_numpy(float)
    odds += by_voice(odds, shot.present, shot.heard, slice(None))
    np.testing.assert_allclose(found[shot.rows], shot.at_rows(odds), rtol=0, atol=1e-3 * max(1, np.abs(odds).max()))
    np.testing.assert_allclose(logits["logit0"], -logits["logit1"], rtol=0, atol=1e-5)


def test_the_run_says_what_it_is_of(pipeline):
    kept = json.loads((pipeline.weights("asc").parent / "settings.json").read_text())
    assert kept["ASC_optimization_params"]["network"] == "residual"
    assert "clip_length" not in kept
    assert kept["made_of"]["encoder"]["weights"] == features(pipeline, "train").encoder["weights"]
    log = pd.read_csv(pipeline.weights("asc").parent / "log.csv")
    assert len(log) == 2
    assert np.isfinite(log["train_loss"]).all()


def test_nothing_is_done_twice(pipeline, capsys):
    before = tree(pipeline.out / "logits")
    assert exit_status(ASC_forward.main, "cpu", "--split", "both", *pipeline.config) == 0
    assert "77 faces" not in capsys.readouterr().out
    assert tree(pipeline.out / "logits") == before


def test_a_resumed_training_gives_what_an_uninterrupted_one_gives(pipeline):
    recipe = as_options("ASC_optimization_params", **RECIPE)
    words = ["cpu", "--name", "again", *pipeline.config, *recipe]
    assert exit_status(ASC_train.main, *words, *as_options("ASC_optimization_params", epochs=1)) == 0
    assert exit_status(ASC_train.main, *words, "--resume") == 0
    folder = pipeline.weights("asc").parent
    one, other = (torch.load(path / "2.pth", weights_only=True) for path in (folder, folder.with_name("again")))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_training_begins_with_given_weights(pipeline):
    """After an epoch of next to no steps the network is still the one that it began with."""
    begin = pipeline.weights("asc").with_name("2.pth")
    recipe = as_options("ASC_optimization_params", **RECIPE | {"learning_rate": 1e-9, "epochs": 1}, pretrained=begin)
    assert exit_status(ASC_train.main, "cpu", "--name", "tuned", *pipeline.config, *recipe) == 0
    folder = begin.parents[1] / "tuned"
    one, other = (torch.load(path, weights_only=True) for path in (begin, folder / "1.pth"))
    for name, values in one.items():
        torch.testing.assert_close(other[name], values, rtol=0, atol=1e-6)
    kept = json.loads((folder / "settings.json").read_text())
    assert kept["made_of"]["pretrained"] == fingerprint(begin)


def test_a_training_reads_the_features_of_several_encoders(pipeline, tmp_path, capsys):
    """The published network does not: their numbers mean different things."""
    store = features(pipeline, "train")
    for video_id in store.videos:
        folder = tmp_path / f"of {video_id}" / "train"
        folder.mkdir(parents=True)
        shutil.copy(store.folder / f"{video_id}.arrow", folder)
    inputs = as_options("ASC_inputs", features_train_full=f"{tmp_path}/*/train", models_out=tmp_path / "models")
    recipe = as_options("ASC_optimization_params", **RECIPE)
    assert exit_status(ASC_train.main, "cpu", "--name", "folds", *pipeline.config, *inputs, *recipe) == 0
    one, other = (
        torch.load(path, weights_only=True)
        for path in (pipeline.weights("asc").with_name("2.pth"), tmp_path / "models" / "folds" / "2.pth")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    kept = json.loads((tmp_path / "models" / "folds" / "settings.json").read_text())["made_of"]
    assert kept["encoder"] == features(pipeline, "val").encoder
    message = refusal(capsys, ASC_train.main, CLIP, 1, 2, "cpu", *pipeline.config, *inputs)
    assert "residual" in message


def test_the_recipe_is_sound():
    needed = {"ASC_optimization_params": []}
    params = settings.load(ROOT / "configs" / "residual_context.py", [], needed)["ASC_optimization_params"]
    assert params["network"] == "residual"
    assert params["learning_rate"] == 2e-3
    assert 0 < params["step_size"] < params["epochs"]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("main", [ASC_train.main, ASC_forward.main])
def test_a_shape_is_of_the_published_network_alone(pipeline, capsys, main):
    residual = as_options("ASC_optimization_params", **RECIPE)
    message = refusal(capsys, main, 11, 4, 3, "cpu", *pipeline.config, *residual)
    assert "11 4 3" in message
    assert "Traceback" not in message


@pytest.mark.parametrize("shape", [[], [11], [11, 4], [11, 4, 3, 2], [10, 4, 3]])
def test_the_published_network_needs_its_shape(pipeline, capsys, shape):
    message = refusal(capsys, ASC_train.main, *shape, "cpu", *pipeline.config)
    assert "clip_length" in message
    assert not (pipeline.out / "asc_models" / "ASC").exists()


def test_an_unknown_network_is_refused(pipeline, capsys):
    options = as_options("ASC_optimization_params", network="transformer")
    message = refusal(capsys, ASC_train.main, "cpu", *pipeline.config, *options)
    assert all(word in message for word in ("transformer", "ASC_Net", "residual"))


@pytest.mark.parametrize("kept", ["heard", "in_step"])
def test_features_that_do_not_tell_all_are_refused(pipeline, tmp_path, capsys, kept):
    """As csv files do not, nor those of networks of a user's own or of earlier versions."""
    for split in ava.SPLITS:
        rows, store = pipeline.rows(split), features(pipeline, split)
        for video_id, own in store.videos.items():
            gathered = store.gather(np.arange(own.start, own.stop))
            heads = store.logits[own], None, store.video_logits[own]
            video = VideoFeatures(rows[own], *heads, gathered, **{kept: getattr(store, kept)[own]})
            assert video.video_id == video_id
            write_features(tmp_path / "features" / split, video)
    paths = {f"features_{split}_full": tmp_path / "features" / split for split in ava.SPLITS}
    residual = as_options("ASC_optimization_params", **RECIPE)
    commands = [
        (ASC_train.main, [*as_options("ASC_inputs", **paths, models_out=tmp_path / "models"), *residual], "train"),
        (ASC_forward.main, as_options("ASC_inputs_forward", **paths, logits_out=tmp_path / "logits"), "val"),
    ]
    for main, own, split in commands:
        message = refusal(capsys, main, "cpu", *pipeline.config, *own)
        assert str(tmp_path / "features" / split) in message
        assert "STE_forward.py" in message
    assert not (tmp_path / "models").exists()
    assert not list((tmp_path / "logits").glob("*/*.csv"))


def test_weights_of_the_other_network_are_refused(pipeline, tmp_path, capsys):
    """By what their run's settings say; without these, by what they hold."""
    other = tmp_path / "other.pth"
    weights = torch.load(pipeline.weights("asc"), weights_only=True)
    torch.save({**weights, "more": torch.zeros(1)}, other)
    options = as_options("ASC_forward_params", weights=other)
    options += as_options("ASC_inputs_forward", logits_out=tmp_path / "logits")
    assert "it has more besides" in refusal(capsys, ASC_forward.main, "cpu", *pipeline.config, *options)
    encoder = as_options("ASC_forward_params", weights=pipeline.out / "encoder.pth")
    for shape in ([], [11, 4, 3]):
        refusal(capsys, ASC_forward.main, *shape, "cpu", *pipeline.config, *options, *encoder)
    assert not list((tmp_path / "logits").glob("*/*.csv"))
