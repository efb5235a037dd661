"""The stage scripts with an encoder of whole tracks, one after the other on the tiny set, and what they refuse."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from test_stages import Pipeline, run_stages
from tiny import as_options, encoder_paths, exit_status, refusal

import STE_forward
import STE_postprocessing
import STE_train
from core import models, settings, track_dataset
from core.evaluation.metrics import average_precision
from core.evaluation.scores import speaking_probability
from core.formats import ava
from core.formats.feature_store import FeatureStore
from core.inference.engine import has_bfloat16
from core.inputs.sampling import EqualLengthBatches, WholeTracks
from core.optimization import Training, make_accelerator
from core.runtime.errors import UserError
from core.track_dataset import TrackDataset

ROOT = Path(__file__).resolve().parents[1]
CONTEXT = (3, 2, 2)
SMALL = 32  # pixels: the networks take faces of any size, and small ones take a tenth of the time
RECIPE = {"backbone": "lr_asd", "optimizer": "AdamW", "step_size": 1, "gamma": 0.95, "epochs": 2}
RECIPE |= {"frames_per_batch": 60, "threads": 0}


@pytest.fixture(scope="module", autouse=True)
def small_faces() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(track_dataset, "FACE_SIZE", SMALL)
        yield


@pytest.fixture(scope="module")
def pipeline(prepared, tmp_path_factory) -> Pipeline:
    """LR-ASD trained, and the context network on top of it; both forwarded and written in the official format."""
    ours = as_options("STE_optimization_params", **RECIPE) + as_options("STE_forward_params", backbone="lr_asd")
    return run_stages(prepared, tmp_path_factory.mktemp("tracks"), 11, CONTEXT, *ours)


def train_options(prepared: Path, models_out: Path, **params: object) -> list[str]:
    options = as_options("STE_inputs", **encoder_paths(prepared), models_out=models_out)
    options += as_options("STE_optimization_params", **RECIPE | params)
    return ["11", "cpu", "--name", "a", *options]


# ---------------------------------------------------------------- end to end


def test_features_are_the_networks_on_whole_tracks(pipeline):
    rows, store = pipeline.rows("val"), FeatureStore(pipeline.out / "features" / "val")
    assert store.feature_size == 128
    assert store.audio_logits is None
    assert store.timestamps.tolist() == rows["frame_timestamp"].tolist()
    model = models.lr_asd()
    model.load_state_dict(torch.load(pipeline.weights("ste"), weights_only=True))
    model.eval()
    folders = pipeline.prepared / "crops" / "val", pipeline.prepared / "audio" / "val"
    tracks = TrackDataset(rows, *folders, augment=False)
    for track, length in enumerate(tracks.lengths.tolist()):
        batch = tracks.__getitems__([(0, track, length)])
        with torch.inference_mode():
            logits, video_logits, features = (output[0] for output in model(batch.mfcc, batch.faces))
        own = batch.rows[0].numpy()
        np.testing.assert_allclose(store.logits[own], logits, atol=1e-3)
        np.testing.assert_allclose(store.video_logits[own], video_logits, atol=1e-3)
        stored = store.gather(own).astype(np.float32)  # float16
        np.testing.assert_allclose(stored, features, atol=2e-3, rtol=2e-3)
    assert tracks.lengths.sum() == len(rows) == 77


def test_the_log_is_of_every_frame_of_the_validation(pipeline):
    store, run = FeatureStore(pipeline.out / "features" / "val"), pipeline.weights("ste").parent
    log = pd.read_csv(run / "log.csv")
    assert {"train_video_loss", "val_video_ap", "frames_per_s"} <= set(log.columns)
    assert "val_audio_ap" not in log
    expected = average_precision(store.labels == 1, speaking_probability(store.logits, store.entities))
    assert log["val_ap"].max() == pytest.approx(expected, abs=1e-6)  # the best weights made the features
    settings_kept = json.loads((run / "settings.json").read_text())
    assert settings_kept["STE_optimization_params"]["backbone"] == "lr_asd"


def test_the_context_network_has_the_size_of_the_features(pipeline):
    weights = torch.load(pipeline.weights("asc"), weights_only=True)
    assert weights["sat.theta.weight"].shape == (128, 128, 1, 1)
    assert weights["lstm.weight_ih_l0"].shape == (4 * 128, 128)
    for stage, split in itertools.product(("STE", "ASC"), ava.SPLITS):
        scores = pd.read_csv(pipeline.out / "predictions" / split / f"{stage}.csv", header=None)[8]
        assert len(scores) == len(pipeline.rows(split))
        assert scores.between(0, 1).all()


def test_the_same_features_are_not_made_twice_whatever_the_clip_length(pipeline):
    options = as_options("STE_forward_params", backbone="lr_asd")
    before = {path: path.stat().st_mtime_ns for path in (pipeline.out / "features").rglob("*")}
    assert exit_status(STE_forward.main, 5, "cpu", *pipeline.config, *options) == 0
    assert {path: path.stat().st_mtime_ns for path in (pipeline.out / "features").rglob("*")} == before


def test_half_precision_says_nearly_the_same(pipeline, tmp_path):
    options = as_options("STE_forward_params", backbone="lr_asd", precision="bf16")
    options += as_options("STE_inputs", features_out=tmp_path)
    assert exit_status(STE_forward.main, 11, "cpu", "--split", "val", *pipeline.config, *options) == 0
    ours, exact = FeatureStore(tmp_path / "val"), FeatureStore(pipeline.out / "features" / "val")
    assert np.array_equal(ours.logits, exact.logits) == (not has_bfloat16())
    np.testing.assert_allclose(ours.logits, exact.logits, atol=0.05)


@pytest.mark.parametrize("backbone", ["lr_asd", "resnet18_two_streams"])
def test_8_bit_integers_are_not_for_ones_own_weights(pipeline, tmp_path, backbone, capsys):
    options = as_options("STE_forward_params", backbone=backbone, precision="int8")
    options += as_options("STE_inputs", features_out=tmp_path)
    assert "int8" in refusal(capsys, STE_forward.main, 11, "cpu", *pipeline.config, *options)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- training


@pytest.mark.parametrize(("backbone", "optimizer", "epochs"), [("lr_asd", "AdamW", 40), ("light_asd", "Adam", 30)])
def test_the_published_recipes_are_sound(backbone, optimizer, epochs):
    needed = {"STE_optimization_params": [], "STE_forward_params": []}
    recipe = settings.load(ROOT / "configs" / f"{backbone}.py", [], needed)
    params = recipe["STE_optimization_params"]
    assert params["backbone"] == recipe["STE_forward_params"]["backbone"] == backbone
    names = ("optimizer", "learning_rate", "step_size", "gamma", "epochs")
    assert [params[name] for name in names] == [optimizer, 1e-3, 1, 0.95, epochs]


def test_names_tell_encoders_of_tracks_from_those_of_clips():
    assert all(models.reads_whole_tracks(name) for name in ("lr_asd", "light_asd"))
    others = ("resnet18_two_streams", models.resnet18_two_streams, lambda pretrained, rgb_stack_size: None)
    assert not any(models.reads_whole_tracks(name) for name in others)


def test_what_does_not_count_is_said(prepared, tmp_path, capsys):
    assert exit_status(STE_train.main, *train_options(prepared, tmp_path, epochs=1, backbone="light_asd")) == 0
    printed = capsys.readouterr().out
    assert "light_asd reads whole tracks: the clip length 11 and the keys" in printed
    # 40 and 35 rows alone, 30 and 25 cut to 25; the fifth track has one row.
    assert "125 of 131 frames an epoch in 3 batches from 5 tracks, validation on 77 frames of 3 tracks" in printed
    assert "(video alone 0." in printed


def test_training_starts_from_weights_of_its_own(prepared, pipeline, tmp_path):
    frozen = {"epochs": 1, "learning_rate": 1e-12, "weight_decay": 0.0, "optimizer": "Adam"}
    options = train_options(prepared, tmp_path, pretrained=pipeline.weights("ste"), **frozen)
    assert exit_status(STE_train.main, *options) == 0
    files = pipeline.weights("ste"), tmp_path / "a" / "1.pth"
    before, after = (torch.load(path, weights_only=True) for path in files)
    torch.testing.assert_close(after["lossAV.FC.weight"], before["lossAV.FC.weight"])


# ---------------------------------------------------------------- bad input


def test_there_are_no_scores_of_the_audio_alone(pipeline, capsys):
    audio, video = (as_options("STE_postprocessing_params", head=head) for head in ("audio", "video"))
    message = refusal(capsys, STE_postprocessing.main, *pipeline.config, *audio)
    assert "features/val keeps no logits of the audio head" in message
    assert exit_status(STE_postprocessing.main, *pipeline.config, *video) == 0


def test_weights_of_another_encoder_are_refused(pipeline, tmp_path, capsys):
    options = as_options("STE_inputs", features_out=tmp_path)
    for backbone, lacking in (("light_asd", "model.visualEncoder"), ("resnet18_two_streams", "audio_conv1.weight")):
        other = as_options("STE_forward_params", backbone=backbone)
        message = refusal(capsys, STE_forward.main, 11, "cpu", *pipeline.config, *options, *other)
        assert f"another network: it lacks {lacking}" in message


def test_a_temperature_that_falls_below_zero_is_refused(prepared, tmp_path, capsys):
    options = train_options(prepared, tmp_path, temperature=1.3, temperature_drop=0.02, epochs=66)
    message = refusal(capsys, STE_train.main, *options)
    assert "temperature 1.3 less temperature_drop 0.02 an epoch comes to 0.00 in epoch 66" in message


def test_tracks_of_one_row_cannot_be_trained_on():
    batches = EqualLengthBatches(np.ones(3, np.int64), 100), WholeTracks(np.array([5]))
    data = {"train": (None, batches[0]), "val": (None, batches[1])}
    options = {"accelerator": make_accelerator(torch.device("cpu"), "fp32"), "optimizer": "Adam", "learning_rate": 1}
    with pytest.raises(UserError, match="too few frames to train on"):
        Training(torch.nn.Linear(1, 1), None, **data, **options, epochs=1, item="frames")
