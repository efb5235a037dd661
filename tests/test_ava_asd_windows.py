"""The samples of a split: which ones, with which sound and faces, and ava-subset; what was not extracted is refused."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import scipy.io.wavfile
import torch
from ava_asd_set import run_extract, write_config
from matplotlib.axes import Axes
from tiny import exit_status

from ava_asd import subset
from ava_asd.config import read_config
from ava_asd.samples import Samples, balanced, read_samples, share, write_samples
from ava_asd.stores import read_faces
from ava_asd.windows import Windows
from core.runtime.errors import EXIT_USER_ERROR, UserError
from core.runtime.files import atomic_write
from scripts import visualise_dataset

COMMAND = "ava-extract annotations"
OTHER_WAY = {"SPEAKING_AUDIBLE": 1, "NOT_SPEAKING": 0, "SPEAKING_NOT_AUDIBLE": 0}


@pytest.fixture
def config(static_set):
    return read_config(static_set / "config.yaml")


@pytest.fixture
def data(static_set):
    return static_set / "data"


@pytest.fixture
def copied(static_set, tmp_path):
    """A data folder that may be changed, and its configuration."""
    return shutil.copytree(static_set / "data", tmp_path / "data"), write_config(tmp_path / "config.yaml")


def later(table: pa.Table, seconds: float = 100.0) -> pa.Table:
    """A table with its times moved."""
    return table.set_column(
        table.column_names.index("time_s"), "time_s", pa.array(table["time_s"].to_numpy() + seconds)
    )


def test_columns(config, data):
    windows = Windows(config, data, "test")
    table = read_samples(config.path(data, "test_annotations_full"), config, COMMAND)
    # Of 35, 25 and 17 faces: 11, 7 and 5 windows of 5, 3 faces apart.
    assert len(windows) == len(table) == 23
    assert windows.without_audio == 0
    assert set(windows.video_id) == {"tinyVal_001"}
    assert windows.entity_id.tolist() == table.column("entity_id").tolist()
    assert windows.timestamp.tolist() == table.column("time_s").tolist()
    assert windows.class_id.tolist() == [config.classes[label] for label in table.column("label")]
    assert windows.class_id.dtype == np.int64


def test_classes_may_be_the_other_way_round(config, data):
    published, other = Windows(config, data, "test"), Windows(replace(config, classes=OTHER_WAY), data, "test")
    assert (published.class_id == 1 - other.class_id).all()
    assert (other.label[other.class_id == 1] == "SPEAKING_AUDIBLE").all()


def test_batches_hold_the_stored_faces_and_the_sound_before_the_label(config, data):
    windows = Windows(config, data, "train")
    audio, video, labels = (torch.cat(parts) for parts in zip(*windows.batches(8), strict=True))
    assert audio.shape == (len(windows), 1, 13, 8)
    assert video.shape == (len(windows), 1, 5, 18, 24)
    assert audio.dtype == video.dtype == torch.float32
    assert labels.tolist() == windows.class_id.tolist()
    for row in (0, len(windows) // 2, len(windows) - 1):
        folder = windows.folder(row)
        crops, mfccs, times = (
            np.load(folder.crops),
            np.load(folder.mfccs),
            read_faces(folder.faces)["time_s"].to_numpy(),
        )
        first = windows.first[row]
        assert times[first + 4] == windows.timestamp[row]
        np.testing.assert_allclose(video[row, 0], crops[first : first + 5, 0] / 255, atol=1e-6)
        # 4 frames of 0.04 s after the first face: vectors count from 0.025 s after start_ts, 0.01 s each.
        end = int((windows.timestamp[row] - folder.start_s() - 0.025) / 0.01 + 1e-6)
        np.testing.assert_array_equal(audio[row, 0], mfccs[:, end - 8 : end])


def test_sound_stays_with_the_faces_where_the_stride_is_no_whole_number_of_samples(copied):
    data, path = copied
    folder = Windows(read_config(path), data, "test").folder(0)
    config = read_config(write_config(path, apply_mean=False, apply_stddev=False))
    # The faces as they would be 100 s later in the video, and a click in silence.
    samples, faces = config.path(data, "test_annotations_full"), later(read_faces(folder.faces))
    full = read_samples(samples, config, COMMAND)
    write_samples(samples, Samples(later(full.table), full.made_with))
    with atomic_write(folder.faces) as temporary, pa.ipc.new_file(str(temporary), faces.schema) as writer:
        writer.write_table(faces)
    sound = np.zeros(103 * 22050, np.int16)
    sound[10036 * 220] = 32767
    scipy.io.wavfile.write(folder.audio, 22050, sound)
    assert run_extract(path, data, "mfccs") == [0]

    # A vector each 220 samples, not 220.5. Of the first sample, at 100.24 s in a video from 0.04 s on, the vectors end
    # with floor((100.24 - 0.04 - 0.025) / 0.0099773) = floor(10040.27); they begin with 10032.
    assert np.load(folder.mfccs)[0].argmax() == 10036
    windows = Windows(config, data, "test")
    assert windows.timestamp[0] == pytest.approx(100.24)
    assert windows.hop_s(0) == 220 / 22050
    assert windows.load([0]).audio[0, 0, 0].argmax() == 4


def test_batches_do_not_depend_on_their_size_or_the_threads(config, data):
    windows = Windows(config, data, "test")
    for batch_size, threads in ((5, 2), (64, 0)):
        found = [torch.cat(parts) for parts in zip(*windows.batches(batch_size, threads=threads), strict=True)]
        for part, expected in zip(found, zip(*windows.batches(1), strict=True), strict=True):
            assert torch.equal(part, torch.cat(expected))


def test_samples_without_enough_sound_are_left_out(config, data):
    longer = replace(config, mfcc_frame_size=14)
    windows = Windows(longer, data, "train")
    whole = Windows(config, data, "train")
    # Of tinyTrain_2, which begins at 0 s, the windows that end at 0.16 s have vectors -1 to 13.
    assert windows.without_audio == len(whole) - len(windows) == 1
    with pytest.raises(UserError, match="no train sample has 400 vectors of audio"):
        Windows(replace(config, mfcc_frame_size=400), data, "train")


def test_shares_of_the_test_samples(config, data):
    whole = Windows(config, data, "test")
    few = Windows(replace(config, valid_keep_ratio=0.25, test_keep_ratio=0.5), data, "valid")
    assert len(few) == 5
    again = Windows(replace(config, valid_keep_ratio=0.25), data, "valid")
    assert again.timestamp.tolist() == few.timestamp.tolist()
    assert set(zip(few.entity_id, few.timestamp, strict=True)) < set(zip(whole.entity_id, whole.timestamp, strict=True))
    assert len(Windows(replace(config, test_keep_ratio=0.5), data, "test")) == 11


def test_filters_of_the_training_samples(config, data):
    whole = Windows(config, data, "train")
    loud = Windows(replace(config, filter_out=True, filter_classes=("SPEAKING_NOT_AUDIBLE",)), data, "train")
    assert len(loud) == np.sum(whole.label != "SPEAKING_NOT_AUDIBLE") < len(whole)
    assert "SPEAKING_NOT_AUDIBLE" not in loud.label
    unused = replace(config, filter_classes=("SPEAKING_NOT_AUDIBLE",))  # filter_out is False
    assert len(Windows(unused, data, "train")) == len(whole)
    # The first faces are 20 x 24, the second 20 x 24, the third 20 x 30 pixels.
    assert len(Windows(replace(config, remove_small_faces=True, small_face_threshold=20), data, "train")) == len(whole)
    with pytest.raises(UserError, match=f"the filters leave none of {len(whole)} training samples"):
        Windows(replace(config, remove_small_faces=True, small_face_threshold=21), data, "train")


def test_balanced_draws():
    classes = np.array([0] * 3 + [1] * 50)
    rows = balanced(classes, 1.0, np.random.default_rng(0))
    assert rows[:3].tolist() == [0, 1, 2]
    assert len(np.unique(rows)) == 6
    assert len(balanced(classes, 0.7, np.random.default_rng(0))) == 4
    assert len(balanced(classes, 0.01, np.random.default_rng(0))) == 2
    drawn = {tuple(balanced(classes, 1.0, np.random.default_rng(seed))) for seed in range(20)}
    assert len(drawn) > 15


def test_share():
    assert share(10, 1.0, np.random.default_rng(0)).tolist() == list(range(10))
    rows = share(10, 0.35, np.random.default_rng(0))
    assert len(np.unique(rows)) == 3
    assert share(2, 0.1, np.random.default_rng(0)).size == 1


def test_subset_is_filtered_and_balanced(copied):
    data, path = copied
    write_config(path, filter_out=True, filter_classes=["SPEAKING_NOT_AUDIBLE"], annotation_type="subset")
    config = read_config(path)
    with pytest.raises(UserError, match=r"no samples .*train_annotations_subset.arrow: run 'ava-subset'"):
        Windows(config, data, "train")
    assert exit_status(subset.main, path, data) == 0
    for split in ("train", "test"):
        samples = read_samples(config.path(data, f"{split}_annotations_subset"), config, "ava-subset")
        classes = samples.classes(config)
        full = read_samples(config.path(data, f"{split}_annotations_full"), config, COMMAND)
        counts = [np.sum(full.column("label") == label) for label in ("SPEAKING_AUDIBLE", "NOT_SPEAKING")]
        assert (classes == 0).sum() == (classes == 1).sum() == min(counts)
        assert "SPEAKING_NOT_AUDIBLE" not in samples.column("label")
        assert len(Windows(config, data, split)) == len(samples)


def test_subset_keeps_a_share(copied):
    data, path = copied
    write_config(path, train_keep_ratio=0.5)
    config = read_config(path)
    assert exit_status(subset.main, path, data) == 0
    full = read_samples(config.path(data, "train_annotations_full"), config, COMMAND).classes(config)
    samples = read_samples(config.path(data, "train_annotations_subset"), config, "ava-subset")
    assert len(samples) == 2 * int((full == 0).sum() / 2)
    # What the subset was drawn with is not applied once more.
    assert len(Windows(replace(config, annotation_type="subset"), data, "train")) == len(samples)


@pytest.mark.parametrize(
    ("split", "changes", "told"),
    [
        ("train", {"filter_out": False}, "filter_classes ['SPEAKING_NOT_AUDIBLE'], configured is []"),
        ("test", {"filter_classes": ()}, "filter_classes ['SPEAKING_NOT_AUDIBLE'], configured is []"),
        ("test", {"remove_small_faces": True, "small_face_threshold": 20}, "small_face_threshold 0, configured is 20"),
        ("train", {"train_keep_ratio": 0.5}, "train_keep_ratio 1.0, configured is 0.5"),
        ("test", {"test_keep_ratio": 0.5}, "test_keep_ratio 1.0, configured is 0.5"),
        ("valid", {"test_keep_ratio": 0.5}, "test_keep_ratio 1.0, configured is 0.5"),
        ("train", {"ann_stride": 2}, "ann_stride 3, configured is 2"),
    ],
)
def test_a_subset_chosen_with_other_settings_is_refused(copied, split, changes, told):
    data, path = copied
    write_config(path, filter_out=True, filter_classes=["SPEAKING_NOT_AUDIBLE"], annotation_type="subset")
    config = read_config(path)
    assert exit_status(subset.main, path, data, "--seed", 3) == 0
    of = "train" if split == "train" else "test"
    samples = config.path(data, f"{of}_annotations_subset")
    assert read_samples(samples, config, "ava-subset").made_with["seed"] == 3
    with pytest.raises(UserError) as error:
        Windows(replace(config, **changes), data, split)
    assert str(error.value) == f"{samples} was made with {told}: run 'ava-subset'"
    # Settings of the other split, and those that have no effect, do not matter.
    other = "test" if of == "train" else "train"
    assert len(Windows(replace(config, small_face_threshold=7, **{f"{other}_keep_ratio": 0.5}), data, split)) > 0


def test_a_bad_seed_of_a_subset(copied, capsys):
    data, path = copied
    assert exit_status(subset.main, path, data, "--seed", -1) == EXIT_USER_ERROR
    assert "--seed: -1: expected a whole number from 0 to" in capsys.readouterr().err


def test_an_empty_subset_is_refused(copied, capsys):
    data, path = copied
    write_config(path, filter_out=True, filter_classes=["SPEAKING_AUDIBLE"])
    assert exit_status(subset.main, path, data) == EXIT_USER_ERROR
    told = capsys.readouterr().err
    assert "no train subset: of 39 samples the filters leave 0 speaking and 25 others; change filter_classes" in told
    assert not read_config(path).path(data, "train_annotations_subset").exists()


def refused(config, data, *words: str) -> None:
    with pytest.raises(UserError) as error:
        Windows(config, data, "test")
    assert all(word in str(error.value) for word in words), error.value


def test_what_is_not_extracted_is_refused(copied):
    data, path = copied
    config = read_config(path)
    folder = Windows(config, data, "test").folder(0)

    refused(replace(config, nmfcc=12), data, "nmfcc 13 instead of 12", "run 'ava-extract mfccs' again")
    refused(replace(config, height=20), data, "height 18 instead of 20", "run 'ava-extract videos' again")
    refused(replace(config, vid_frame_size=6), data, "made with window 5, configured is 6", f"run '{COMMAND}'")
    refused(replace(config, ann_stride=1), data, "made with ann_stride 3, configured is 1", f"run '{COMMAND}'")
    made_with = json.loads((folder.path / "mfccs.json").read_text())
    (folder.path / "mfccs.json").write_text(json.dumps({**made_with, "start_ts": 7}))
    refused(config, data, "mfcc.npy is of another extraction: run 'ava-extract mfccs' again")
    (folder.path / "mfccs.json").unlink()
    refused(config, data, "1 of 1 videos cannot be used:", "'ava-extract mfccs' has not finished there")
    (folder.path / "mfccs.json").write_text(json.dumps(made_with))

    for content in ("{}", "[]", '"text"', json.dumps({**made_with, "hop_s": None}).replace("hop_s", "hop"), "{"):
        (folder.path / "mfccs.json").write_text(content)
        refused(config, data, "'ava-extract mfccs' has not finished there; run it")
    (folder.path / "mfccs.json").write_text(json.dumps(made_with))

    folder.crops.write_bytes(b"no array")
    refused(config, data, f"{folder.crops} cannot be read", "run 'ava-extract videos' again")
    (folder.path / "start_ts").unlink()
    refused(config, data, "start_ts, which holds the time of the first frame: run 'ava-extract videos'")
    shutil.rmtree(folder.path)
    refused(config, data, f"{folder.path}: 'ava-extract videos' has not finished there")

    samples = config.path(data, "test_annotations_full")
    samples.write_bytes(b"no table")
    refused(config, data, f"{samples} is no table of samples", f"delete it and run '{COMMAND}'")
    samples.unlink()
    refused(config, data, f"no samples {samples}: run '{COMMAND}'")


def test_labels_that_were_corrected_are_noticed(copied):
    data, path = copied
    config = read_config(path)
    before = Windows(config, data, "test")
    csv = config.path(data, "test_ann_dir") / "tinyVal_001-activespeaker.csv"
    csv.write_text(csv.read_text().replace("SPEAKING_AUDIBLE", "SPEAKING_NOT_AUDIBLE"))
    refused(config, data, f"{csv} has changed since", "run 'ava-extract videos'")
    assert run_extract(path, data, "videos", "mfccs") == [0, 0]
    refused(config, data, "was extracted with other annotations than the samples are from", f"run '{COMMAND}'")
    assert run_extract(path, data, "annotations") == [0]
    after = Windows(config, data, "test")
    assert after.timestamp.tolist() == before.timestamp.tolist()
    assert set(after.label) == {"SPEAKING_NOT_AUDIBLE", "NOT_SPEAKING"}
    assert after.digest() != before.digest()
    csv.rename(csv.with_name("README"))  # annotations are needed for extraction and evaluation only
    assert Windows(config, data, "test").digest() == after.digest()


def test_a_subset_of_samples_that_were_made_anew_is_refused(copied):
    data, path = copied
    assert exit_status(subset.main, path, data) == 0
    config = replace(read_config(path), annotation_type="subset")
    assert len(Windows(config, data, "train")) > 0
    full = config.path(data, "train_annotations_full")
    samples = read_samples(full, config, COMMAND)
    # As after the repair of a video that was left out.
    more = {**samples.made_with, "annotations": {**samples.made_with["annotations"], "repaired": "f00d"}}
    write_samples(full, Samples(samples.table, more))
    with pytest.raises(UserError, match=r"was chosen from others than .* holds now: run 'ava-subset' again"):
        Windows(config, data, "train")
    full.unlink()
    assert len(Windows(config, data, "train")) > 0


def test_faces_that_are_not_those_of_the_samples(copied):
    data, path = copied
    config = read_config(path)
    folder = Windows(config, data, "test").folder(0)
    faces = read_faces(folder.faces)
    with atomic_write(folder.faces) as temporary, pa.ipc.new_file(str(temporary), faces.schema) as writer:
        writer.write_table(later(faces))
    refused(config, data, "has other faces than the samples", f"run '{COMMAND}'")


def test_faces_that_were_extracted_anew_are_noticed(copied):
    data, path = copied
    config = read_config(path)
    csv = config.path(data, "test_ann_dir") / "tinyVal_001-activespeaker.csv"
    csv.write_text("".join(csv.read_text().splitlines(keepends=True)[1:]))
    assert run_extract(path, data, "videos", "mfccs") == [0, 0]
    refused(config, data, "was extracted with other annotations than the samples are from", f"run '{COMMAND}'")
    assert run_extract(path, data, "annotations") == [0]
    assert len(Windows(config, data, "test")) == 22  # 10 of the first 34 faces


@pytest.mark.parametrize("name", ["sample", "s.txt", "s.", ".png"])
def test_a_picture_of_a_sample_needs_a_suffix(static_set, tmp_path, capsys, name):
    status = exit_status(
        visualise_dataset.main, static_set / "config.yaml", static_set / "data", "--out", tmp_path / name
    )
    assert status == EXIT_USER_ERROR
    assert f"--out {tmp_path / name}: the name must end with one of .png, .jpg, .pdf, .svg" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", visualise_dataset.IMAGE_SUFFIXES)
def test_pictures_of_a_sample(static_set, tmp_path, suffix):
    out = tmp_path / f"sample{suffix}"
    assert exit_status(visualise_dataset.main, static_set / "config.yaml", static_set / "data", "--out", out) == 0
    assert list(tmp_path.iterdir()) == [out]
    assert out.stat().st_size > 1000


@pytest.mark.parametrize("content", [None, b"", b"\xff\xd8 no picture \xff\xd9"])
def test_a_frame_that_cannot_be_shown(copied, tmp_path, capsys, content):
    data, path = copied
    out, folder = tmp_path / "sample.png", Windows(read_config(path), data, "test").folder(0)
    for frame in folder.path.glob("*.jpg"):
        frame.unlink()
        if content is not None:
            frame.write_bytes(content)
    assert exit_status(visualise_dataset.main, path, data, "--out", out) == EXIT_USER_ERROR
    told = capsys.readouterr().err
    assert "is no readable image" in told
    assert ("delete it and run" in told) == (content is not None)
    if content is not None:
        for frame in folder.path.glob("*.jpg"):
            frame.unlink()
    assert run_extract(path, data, "videos", "mfccs") == [0, 0]
    assert exit_status(visualise_dataset.main, path, data, "--out", out) == 0


@pytest.mark.parametrize(("apply_stddev", "unit"), [(True, "standard deviations"), (False, "decibels")])
def test_the_colour_bar_tells_the_unit_of_the_mfccs(copied, apply_stddev, unit):
    data, path = copied
    config = read_config(write_config(path, apply_stddev=apply_stddev))
    assert run_extract(path, data, "mfccs") == [0]
    figure = visualise_dataset.draw(Windows(config, data, "test"), 0)
    labels = {axes.get_ylabel() for axes in figure.findobj(Axes)}
    assert unit in labels
    assert len(labels & {"standard deviations", "decibels"}) == 1
