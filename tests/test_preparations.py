"""What other groups' programs prepared is used as it is, and gives the numbers of our own preparation.

The trees are drawn up from what those programs write: TaoRuijie/TalkNet-ASD `utils/tools.py`, which Light-ASD, LR-ASD,
LoCoNet, WASD and UniTalk keep to; fuankarion/active-speakers-context `data/`.
"""

import json
import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import CROP_SIZE, as_options, encoder_paths, exit_status, refusal, tree

import ASC_forward
import ASC_prediction_postprocessing
import ASC_train
import evaluate
import STE_forward
import STE_postprocessing
import STE_train
from core import models, track_dataset
from core.clip_utils import SAMPLE_RATE
from core.formats import ava
from core.formats.crop_store import Crops
from core.formats.feature_store import FeatureStore
from core.formats.wav import read_wav, write_wav
from core.inputs.annotated_tracks import AnnotatedTracks
from data import extract_face_crops_time, slice_audio_tracks

ENCODERS = ("resnet18_two_streams", "lr_asd")
CLIP = 3


@pytest.fixture(scope="module", autouse=True)
def small_faces():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(track_dataset, "FACE_SIZE", CROP_SIZE)
        yield


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, Path]:
    """Random weights of either kind of encoder."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    networks = {"resnet18_two_streams": models.resnet18_two_streams(rgb_stack_size=CLIP), "lr_asd": models.lr_asd()}
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in networks}


def write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def slice_audio(tracks: Path, rows: pd.DataFrame, out: Path, name: str) -> None:
    """Wavs from the first to the last of each entity's rows, with the rounding of those programs."""
    for (video, entity), own in rows.groupby(["video_id", "entity_id"]):
        start, end = (int(float(own["frame_timestamp"].iloc[row]) * SAMPLE_RATE) for row in (0, -1))
        path = out / name.format(video=video, entity=entity)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, read_wav(tracks / f"{video}.wav")[start:end])


def as_numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows as pandas reads and writes them: 0.20 s becomes 0.2."""
    numbers = ["frame_timestamp", *(name for name in ava.COLUMNS if name.startswith("entity_box"))]
    return rows[list(ava.AUGMENTED_COLUMNS)].astype(dict.fromkeys(numbers, float))


def tree_of_talknet(prepared: Path, out: Path) -> dict[str, Path]:
    """`clips_videos`, `clips_audios` and `csv/{train,val}_orig.csv`; the paths of STE_inputs."""
    for split in ava.SPLITS:
        rows = ava.read_augmented(prepared / "csv" / f"{split}.csv")
        crops = Crops(prepared / "crops" / split, rows)
        for row in rows.itertuples():
            name = f"{row.video_id}/{row.entity_id}/{row.time_s:.2f}.jpg"
            write_file(out / "clips_videos" / split / name, crops.jpeg(row.Index))
        slice_audio(prepared / "tracks" / split, rows, out / "clips_audios" / split, "{video}/{entity}.wav")
        (out / "csv").mkdir(exist_ok=True)
        as_numbers(rows).to_csv(out / "csv" / f"{split}_orig.csv", index=False)
    tables = {f"csv_{split}_full": out / "csv" / f"{split}_orig.csv" for split in ava.SPLITS}
    return {**tables, "audio_dir": out / "clips_audios", "video_dir": out / "clips_videos"}


def published_tree(prepared: Path, out: Path) -> dict[str, Path]:
    """Crops and wavs of all rows that are not SPEAKING_NOT_AUDIBLE, named by the number; the paths of STE_inputs."""
    for split in ava.SPLITS:
        rows = ava.read_augmented(prepared / "csv" / f"{split}.csv")
        crops = Crops(prepared / "crops" / split, rows)
        cut = rows[rows["label_id"] != ava.NOT_AUDIBLE_ID]
        for row in cut.itertuples():
            write_file(out / "crops" / split / row.entity_id / f"{row.time_s}.jpg", crops.jpeg(row.Index))
        slice_audio(prepared / "tracks" / split, cut, out / "audio" / split, "{entity}.wav")
    return encoder_paths(prepared) | {"audio_dir": out / "audio", "video_dir": out / "crops"}


def prepared_without_not_audible(prepared: Path, out: Path) -> dict[str, Path]:
    """Our own preparation of csvs that have no SPEAKING_NOT_AUDIBLE rows; the paths of STE_inputs."""
    for split in ava.SPLITS:
        rows = ava.read_augmented(prepared / "csv" / f"{split}.csv")
        crops, cut, table = Crops(prepared / "crops" / split, rows), rows["label_id"] != 2, out / "csv" / f"{split}.csv"
        ava.write_augmented(table, rows[cut])
        assert exit_status(slice_audio_tracks.main, prepared / "tracks" / split, table, out / "audio" / split) == 0
        for row in rows[cut].itertuples():
            write_file(out / "crops" / split / row.entity_id / f"{row.frame_timestamp}.jpg", crops.jpeg(row.Index))
    return encoder_paths(out)


@pytest.fixture(scope="module")
def talknet(prepared, tmp_path_factory) -> dict[str, Path]:
    return tree_of_talknet(prepared, tmp_path_factory.mktemp("talknet"))


@pytest.fixture(scope="module")
def published(prepared, tmp_path_factory) -> dict[str, Path]:
    return published_tree(prepared, tmp_path_factory.mktemp("published"))


def forward_options(inputs: dict[str, object], weights: dict[str, Path], encoder: str, out: Path) -> list[str]:
    params = {"backbone": encoder, "weights": weights[encoder], "crop_size": CROP_SIZE, "threads": 0}
    return [
        *(str(CLIP), "cpu"),
        *as_options("STE_inputs", **inputs, models_out=out, features_out=out / "features"),
        *as_options("STE_forward_params", **params),
    ]


def forwarded(*arguments: object) -> dict[str, FeatureStore]:
    """The features of both splits."""
    assert exit_status(STE_forward.main, *forward_options(*arguments)) == 0
    return {split: FeatureStore(arguments[-1] / "features" / split) for split in ava.SPLITS}


def check_same(ours: dict[str, FeatureStore], others: dict[str, FeatureStore]) -> None:
    for split, store in ours.items():
        other, rows = others[split], np.arange(len(store))
        assert other.entity_ids.tolist() == store.entity_ids.tolist()
        assert other.timestamps.astype(float).tolist() == store.timestamps.astype(float).tolist()
        np.testing.assert_array_equal(other.labels, store.labels)
        np.testing.assert_array_equal(other.logits, store.logits)
        np.testing.assert_array_equal(other.gather(rows), store.gather(rows))


# ---------------------------------------------------------------- TalkNet, Light-ASD, LR-ASD, LoCoNet, WASD, UniTalk


@pytest.mark.parametrize("encoder", ENCODERS)
def test_features_of_talknets_tree_are_those_of_our_own(prepared, talknet, weights, tmp_path, encoder):
    entity = "tinyVal_001/tinyVal_001_0000_0060:1"
    assert (talknet["video_dir"] / "val" / entity / "0.20.jpg").is_file()
    assert ",0.2,0.0," in talknet["csv_val_full"].read_text()
    ours = forwarded(encoder_paths(prepared), weights, encoder, tmp_path / "ours")
    check_same(ours, forwarded(talknet, weights, encoder, tmp_path / "talknet"))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_folders_of_crops_are_listed_where_they_are_worked_on(talknet, weights, tmp_path, monkeypatch, encoder):
    """Listing folders of crops takes long on a disk that holds millions."""
    whole = forwarded(talknet, weights, encoder, tmp_path)["train"]
    rows = np.arange(len(whole))
    expected = whole.logits[:].copy(), whole.gather(rows)
    (tmp_path / "features" / "train" / "tinyTrain_2.arrow").unlink()
    (tmp_path / "features" / "val" / "tinyVal_001.arrow").unlink()
    listed, list_folder = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: listed.append(Path(path)) or list_folder(path))
    again = forwarded(talknet, weights, encoder, tmp_path)["train"]
    folders = Counter(path for path in listed if path.is_relative_to(talknet["video_dir"]))
    assert {folder.parent.name: count for folder, count in folders.items()} == {
        talknet["video_dir"].name: 1,
        "-tinyTrain1": 2,  # the first of a split is looked at before
        "tinyTrain_2": 1,
        "tinyVal_001": 2,
    }
    assert len(folders) == 10  # splits and entities
    for found, value in zip((again.logits, again.gather(rows)), expected, strict=True):
        np.testing.assert_array_equal(found, value)


def test_training_on_talknets_tree_is_that_on_our_own(prepared, talknet, tmp_path):
    params = {"backbone": "lr_asd", "epochs": 1, "frames_per_batch": 60, "threads": 0}
    for name, inputs in (("ours", encoder_paths(prepared)), ("talknet", talknet)):
        options = as_options("STE_inputs", **inputs, models_out=tmp_path) + as_options(
            "STE_optimization_params", **params
        )
        assert exit_status(STE_train.main, CLIP, "cpu", "--name", name, *options) == 0
    ours, others = (torch.load(tmp_path / name / "1.pth", weights_only=True) for name in ("ours", "talknet"))
    torch.testing.assert_close(others, ours, rtol=0, atol=0)


# ---------------------------------------------------------------- the published preparation


def test_rows_without_crops_are_refused_with_their_number(published, weights, tmp_path, capsys):
    message = refusal(capsys, STE_forward.main, *forward_options(published, weights, "lr_asd", tmp_path))
    assert "10 of 70 rows have no crop" in message  # of the first video
    assert "-tinyTrain1_0000_0060:2 at 0.60" in message
    assert "10 SPEAKING_NOT_AUDIBLE" in message
    assert not (tmp_path / "features").exists()


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("audio", ["published", "ours"])
def test_without_rows_that_have_no_crops_all_is_as_if_the_annotations_lacked_them(
    prepared, published, weights, tmp_path, capsys, encoder, audio
):
    """Whichever audio goes with the crops: the published wavs begin later where an entity's first rows are left out."""
    ours = forwarded(prepared_without_not_audible(prepared, tmp_path / "filtered"), weights, encoder, tmp_path / "ours")
    inputs = published | {"rows_without_crops": "leave_out"}
    if audio == "ours":
        inputs |= {"audio_dir": prepared / "audio"}
    check_same(ours, forwarded(inputs, weights, encoder, tmp_path / "published"))
    printed = capsys.readouterr().out
    assert "train: 116 faces (15 of 131 annotated faces are left out" in printed


def test_what_is_left_out_is_counted_in_every_number_made_of_the_rest(published, weights, tmp_path, capsys):
    """Features, predictions and ground truth, contexts, and the evaluation of both stages agree on the rows."""
    encoder = forward_options(published | {"rows_without_crops": "leave_out"}, weights, "lr_asd", tmp_path)
    features = {f"features_{split}_full": tmp_path / "features" / split for split in ava.SPLITS}
    tables = {name: path for name, path in published.items() if name.startswith("csv")}
    outputs = {"logits_out": tmp_path / "logits", "predictions_out": tmp_path / "predictions"}
    context = as_options("ASC_inputs", **features, models_out=tmp_path / "asc")
    context += as_options("ASC_inputs_forward", **features, **tables, **outputs)
    context += as_options("ASC_optimization_params", epochs=1)
    predictions = as_options("STE_inputs", predictions_out=tmp_path / "predictions")
    for script, *arguments in (
        (STE_forward, *encoder),
        (STE_postprocessing, *encoder[2:], *predictions),
        (ASC_train, 3, 2, 2, "cpu", "--name", "first", *context),
        (ASC_forward, 3, 2, 2, "cpu", *context),
        (ASC_prediction_postprocessing, *context),
    ):
        capsys.readouterr()
        assert exit_status(script.main, *arguments) == 0
        assert script is ASC_forward or "15 of 77 annotated faces are left out" in capsys.readouterr().out
    folder, result = tmp_path / "predictions" / "val", tmp_path / "result.json"
    for name in ("STE", "ASC"):
        groundtruth = "--groundtruth", folder / "gt.csv", "--predictions", folder / f"{name}.csv", "--json", result
        assert exit_status(evaluate.main, *groundtruth) == 0
        assert "15 of 77 annotated faces have no crops" in capsys.readouterr().out
        assert (json.loads(result.read_text())["rows"], json.loads(result.read_text())["left_out"]) == (62, 15)
        assert exit_status(evaluate.main, *groundtruth, "--detected") == 0
        assert json.loads(result.read_text())["left_out"] == 15
        copied = shutil.copy(folder / "gt.csv", tmp_path / "copied.csv")
        assert exit_status(evaluate.main, "--groundtruth", copied, *groundtruth[2:]) == 0
        assert json.loads(result.read_text())["left_out"] is None
        assert "no record (.made) beside the ground truth" in capsys.readouterr().out
    # Any other missing row is refused: here of a table that has one more than was left out.
    rows = ava.read_augmented(published["csv_val_full"])
    more = pd.concat([rows, rows[:1].assign(frame_timestamp="1.55")])
    ava.write_augmented(tmp_path / "more.csv", more)
    options = as_options("STE_inputs", csv_val_full=tmp_path / "more.csv")
    message = refusal(capsys, STE_postprocessing.main, *encoder[2:], *predictions, *options)
    assert "16 annotated rows are missing" in message


def test_labels_are_of_the_rows_that_stay_and_anybody_is_still_heard(published, tmp_path):
    rows = ava.read_augmented(published["csv_val_full"])
    speaker = rows[rows["label_id"] == ava.SPEAKING_ID].index[0]
    crops = shutil.copytree(published["video_dir"] / "val", tmp_path / "val")
    (crops / rows.at[speaker, "entity_id"] / f"{rows.at[speaker, 'time_s']}.jpg").unlink()
    tracks = AnnotatedTracks(rows, crops, published["audio_dir"] / "val", "leave_out")
    assert sorted(tracks.left_out.index) == sorted([speaker, *rows.index[rows["label_id"] == ava.NOT_AUDIBLE_ID]])
    assert tracks.labels.tolist() == (tracks.rows["label_id"] == ava.SPEAKING_ID).tolist()
    at_that_time = tracks.time_s == rows.at[speaker, "time_s"]
    assert at_that_time.any()
    assert tracks.audio_labels[at_that_time].all()


@pytest.mark.parametrize(("made_by", "missing"), [("published", 15), ("talknet", 1)])
def test_what_is_missing_is_cut_into_the_folders_and_the_rest_stays(
    tiny_set, prepared, tmp_path, request, made_by, missing
):
    inputs = request.getfixturevalue(made_by)
    table, crops = inputs["csv_train_full"], shutil.copytree(inputs["video_dir"] / "train", tmp_path / "train")
    if made_by == "talknet":
        (crops / "tinyTrain_2" / "tinyTrain_2_0000_0060:1" / "0.20.jpg").unlink()
    before, rows = tree(crops), ava.read_augmented(table)
    arguments = tiny_set / "videos" / "train", table, crops, "--layout", "folders", "--size", CROP_SIZE
    for _ in range(2):
        assert exit_status(extract_face_crops_time.main, *arguments) == 0
        after = tree(crops)
        assert {name: after[name] for name in before} == before
        assert len(after) == len(rows) == len(before) + missing
    assert {Path(name).parent for name in after} == {Path(name).parent for name in before}
    ours = Crops(prepared / "crops" / "train", ava.read_augmented(prepared / "csv" / "train.csv"))
    others = Crops(crops, rows)
    assert all(bytes(ours.jpeg(row)) == bytes(others.jpeg(row)) for row in range(len(rows)))
