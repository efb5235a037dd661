"""The samples of a split: which ones, with which audio and faces, and ava-subset; what does not fit is refused."""

import numpy as np
import pyarrow as pa
import pytest
import scipy.io.wavfile
import torch

from ava_asd import subset
from ava_asd.samples import FACES, Samples, balanced, read_samples, share, write_samples
from ava_asd.stores import read_faces
from ava_asd.windows import scaled
from core.runtime.errors import EXIT_BROKEN_ITEMS, EXIT_USER_ERROR, UserError
from core.runtime.provenance import record_path

COMMAND = "ava-extract annotations"
OTHER_WAY = {"SPEAKING_AUDIBLE": 1, "NOT_SPEAKING": 0, "SPEAKING_NOT_AUDIBLE": 0}
HEARD_ONLY = {"filter_out": True, "filter_classes": ["SPEAKING_NOT_AUDIBLE"]}


def full(static, split: str) -> Samples:
    return read_samples(static.config, static.data, split, "full")


def subset_of(static, split: str) -> Samples:
    return read_samples(static.config, static.data, split, "subset")


def later(table: pa.Table) -> pa.Table:
    """A table with its times 100 s later."""
    moved = pa.array(table["time_s"].to_numpy() + 100)
    return table.set_column(table.column_names.index("time_s"), "time_s", moved)


def refused(static, *facts: object, split: str = "test", **changes) -> None:
    with pytest.raises(UserError) as error:
        static.windows(split, **changes)
    assert [fact for fact in map(str, facts) if fact not in str(error.value)] == [], error.value


def test_columns(extracted):
    windows, table = extracted.windows(), full(extracted, "test")
    # Of 35, 25 and 17 faces: 11, 7 and 5 windows of 5, 3 faces apart.
    assert len(windows) == len(table) == 23
    assert windows.without_audio == 0
    assert set(windows.video_id) == {"tinyVal_001"}
    assert windows.entity_id.tolist() == table.column("entity_id").tolist()
    assert windows.timestamp.tolist() == table.column("time_s").tolist()
    assert windows.class_id.tolist() == [extracted.config.classes[label] for label in table.column("label")]
    assert windows.class_id.dtype == np.int64


def test_classes_may_be_the_other_way_round(extracted):
    other = extracted.windows(classes=OTHER_WAY)
    assert (extracted.windows().class_id == 1 - other.class_id).all()
    assert (other.label[other.class_id == 1] == "SPEAKING_AUDIBLE").all()


def test_batches_hold_the_stored_faces_and_the_audio_before_the_label(extracted):
    windows = extracted.windows("train")
    batch = windows.__getitems__([(1, row) for row in range(len(windows))])
    audio, video, labels = batch.audio, scaled(batch.video), batch.labels
    assert audio.shape == (len(windows), 1, 13, 8)
    assert video.shape == (len(windows), 1, 5, 18, 24)
    assert audio.dtype == video.dtype == torch.float32
    assert labels.tolist() == windows.class_id.tolist()
    for row in (0, len(windows) // 2, len(windows) - 1):
        folder, first = windows.store(row).folder, windows.first[row]
        crops, mfccs = np.load(folder.crops), np.load(folder.mfccs)
        assert read_faces(folder.faces)["time_s"][int(first) + 4].as_py() == windows.timestamp[row]
        np.testing.assert_allclose(video[row, 0], crops[first : first + 5, 0] / 255, atol=1e-6)
        # 4 frames of 0.04 s after the first face: vectors count from 0.025 s after start_ts, 0.01 s each.
        end = int((windows.timestamp[row] - windows.store(row).start_s - 0.025) / 0.01 + 1e-6)
        np.testing.assert_array_equal(audio[row, 0], mfccs[:, end - 8 : end])


def test_audio_stays_with_the_faces_where_the_stride_is_no_whole_number_of_samples(copied):
    folder = copied.folder()
    copied.configure(apply_mean=False, apply_stddev=False)
    # The faces as they would be 100 s later in the video, and a click in silence.
    copied.change_faces(later)
    audio = np.zeros(103 * 22050, np.int16)
    audio[10036 * 220] = 32767
    with copied.rewriting(folder.audio):
        scipy.io.wavfile.write(folder.audio, 22050, audio)
    assert copied.extract("mfccs", "annotations") == [0, 0]

    # A vector each 220 samples, not 220.5. Of the first sample, at 100.24 s in a video from 0.04 s on, the vectors end
    # with floor((100.24 - 0.04 - 0.025) / 0.0099773) = floor(10040.27); they begin with 10032.
    assert np.load(folder.mfccs)[0].argmax() == 10036
    windows = copied.windows()
    assert windows.timestamp[0] == pytest.approx(100.24)
    assert windows.store(0).hop_s == 220 / 22050
    assert windows.load([0]).audio[0, 0, 0].argmax() == 4


def test_samples_without_enough_audio_are_left_out(extracted):
    windows = extracted.windows("train", mfcc_frame_size=14)
    # Of tinyTrain_2, which begins at 0 s, the windows that end at 0.16 s have vectors -1 to 13.
    assert windows.without_audio == len(extracted.windows("train")) - len(windows) == 1
    refused(extracted, "no train sample has 400 vectors of audio", split="train", mfcc_frame_size=400)


def test_shares_of_the_test_samples(extracted):
    few = extracted.windows("valid", valid_keep_ratio=0.25, test_keep_ratio=0.5)
    assert len(few) == 5
    again = extracted.windows("valid", valid_keep_ratio=0.25)
    assert again.timestamp.tolist() == few.timestamp.tolist()
    whole = extracted.windows()
    assert set(zip(few.entity_id, few.timestamp, strict=True)) < set(zip(whole.entity_id, whole.timestamp, strict=True))
    assert len(extracted.windows(test_keep_ratio=0.5)) == 11


def test_filters_of_the_training_samples(extracted):
    whole, heard = extracted.windows("train"), extracted.windows("train", **HEARD_ONLY)
    assert len(heard) == np.sum(whole.label != "SPEAKING_NOT_AUDIBLE") < len(whole)
    assert "SPEAKING_NOT_AUDIBLE" not in heard.label
    assert len(extracted.windows("train", **{**HEARD_ONLY, "filter_out": False})) == len(whole)
    # The first faces are 20 x 24, the second 20 x 24, the third 20 x 30 pixels.
    assert len(extracted.windows("train", remove_small_faces=True, small_face_threshold=20)) == len(whole)
    facts = (f"none of {len(whole)} training samples", "small_face_threshold")
    refused(extracted, *facts, split="train", remove_small_faces=True, small_face_threshold=21)


def test_balanced_draws():
    classes = np.array([0] * 3 + [1] * 50)
    rows = balanced(classes, 1.0, np.random.default_rng(0))
    assert rows[:3].tolist() == [0, 1, 2]
    assert len(np.unique(rows)) == 6
    assert [len(balanced(classes, ratio, np.random.default_rng(0))) for ratio in (0.7, 0.01)] == [4, 2]
    drawn = {tuple(balanced(classes, 1.0, np.random.default_rng(seed))) for seed in range(20)}
    assert len(drawn) > 15


def test_share():
    assert share(10, 1.0, np.random.default_rng(0)).tolist() == list(range(10))
    assert len(np.unique(share(10, 0.35, np.random.default_rng(0)))) == 3
    assert share(2, 0.1, np.random.default_rng(0)).size == 1


# ---------------------------------------------------------------- ava-subset


def test_a_subset_is_filtered_and_balanced(copied):
    copied.configure(**HEARD_ONLY, annotation_type="subset")
    refused(copied, copied.at("train_annotations_subset"), "run 'ava-subset'", split="train")
    assert copied.run(subset.main) == 0
    for split in ("train", "test"):
        samples, labels = subset_of(copied, split), full(copied, split).column("label")
        fewer = min(np.sum(labels == label) for label in ("SPEAKING_AUDIBLE", "NOT_SPEAKING"))
        assert np.bincount(samples.classes(copied.config)).tolist() == [fewer, fewer]
        assert "SPEAKING_NOT_AUDIBLE" not in samples.column("label")
        assert len(copied.windows(split)) == len(samples)


def test_a_subset_keeps_a_share(copied):
    config = copied.configure(train_keep_ratio=0.5)
    assert copied.run(subset.main) == 0
    samples = subset_of(copied, "train")
    assert len(samples) == 2 * int((full(copied, "train").classes(config) == 0).sum() / 2)
    # What the subset was drawn with is not applied once more.
    assert len(copied.windows("train", annotation_type="subset")) == len(samples)


@pytest.mark.parametrize(
    ("split", "changes", "facts"),
    [
        ("train", {"filter_out": False}, "filter_classes than []"),
        ("test", {"filter_classes": ()}, "filter_classes than []"),
        ("test", {"remove_small_faces": True, "small_face_threshold": 20}, "small_face_threshold than 20"),
        ("train", {"train_keep_ratio": 0.5}, "train_keep_ratio than 0.5"),
        ("test", {"test_keep_ratio": 0.5}, "test_keep_ratio than 0.5"),
        ("valid", {"test_keep_ratio": 0.5}, "test_keep_ratio than 0.5"),
        ("train", {"ann_stride": 2}, "ann_stride than 2"),
    ],
)
def test_a_subset_chosen_with_other_settings_is_refused(copied, split, changes, facts):
    copied.configure(**HEARD_ONLY, annotation_type="subset")
    assert copied.run(subset.main, "--seed", 3) == 0
    of, other = ("train", "test") if split == "train" else ("test", "train")
    assert subset_of(copied, of).made_of["seed"] == 3
    refused(copied, copied.at(f"{of}_annotations_subset"), facts, "run 'ava-subset'", split=split, **changes)
    # Settings of the other split, and those that have no effect, do not matter.
    assert len(copied.windows(split, small_face_threshold=7, **{f"{other}_keep_ratio": 0.5})) > 0


def test_mistakes_with_a_subset(copied, capsys):
    assert copied.run(subset.main, "--seed", -1) == EXIT_USER_ERROR
    assert "--seed: -1" in capsys.readouterr().err
    copied.configure(filter_out=True, filter_classes=["SPEAKING_AUDIBLE"])
    assert copied.run(subset.main) == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert "train subset: of 39 samples the filters leave 0 speaking and 25 others" in message
    assert "filter_classes" in message
    assert not copied.at("train_annotations_subset").exists()


def test_a_subset_of_samples_that_were_made_anew_is_refused(copied):
    assert copied.run(subset.main) == 0
    assert len(copied.windows("train", annotation_type="subset")) > 0
    samples, path = full(copied, "train"), copied.at("train_annotations_full")
    # As after the repair of a video that was left out.
    more = {**samples.made_of, FACES: {**samples.made_of[FACES], "repaired": "f00d"}}
    write_samples(path, Samples(samples.table, more))
    facts = (copied.at("train_annotations_subset"), "run 'ava-subset' again")
    refused(copied, *facts, split="train", annotation_type="subset")
    path.unlink()
    assert len(copied.windows("train", annotation_type="subset")) > 0


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"nmfcc": 12}, ("nmfcc than 12", "run 'ava-extract mfccs' again")),
        ({"height": 20}, ("height than 20", "run 'ava-extract videos' again")),
        ({"vid_frame_size": 6}, ("window than 6", f"run '{COMMAND}'")),
        ({"ann_stride": 1}, ("ann_stride than 1", f"run '{COMMAND}'")),
    ],
)
def test_what_was_extracted_with_other_settings_is_refused(extracted, changes, facts):
    refused(extracted, *facts, **changes)


def test_what_is_not_extracted_is_refused(copied):
    samples = copied.at("test_annotations_full")
    copied.folder().path.rename(copied.root / "moved")
    refused(copied, copied.folder().path, "run 'ava-extract videos'")
    samples.write_bytes(b"no table")
    refused(copied, samples, f"run '{COMMAND}'")
    samples.unlink()
    refused(copied, samples, f"run '{COMMAND}'")


def test_faces_that_are_not_those_of_the_samples(copied):
    copied.change_faces(later)
    refused(copied, copied.folder().path, "other faces", f"run '{COMMAND}'")


def test_labels_that_were_corrected_are_noticed(copied):
    before = copied.windows()
    csv = copied.at("test_ann_dir") / "tinyVal_001-activespeaker.csv"
    csv.write_text(csv.read_text().replace("SPEAKING_AUDIBLE", "SPEAKING_NOT_AUDIBLE"))
    refused(copied, copied.folder().path, "another csv", "run 'ava-extract videos'")
    assert copied.extract("videos", "mfccs") == [0, 0]
    refused(copied, copied.folder().path, "other faces", f"run '{COMMAND}'")
    assert copied.extract("annotations") == [0]
    after = copied.windows()
    assert after.timestamp.tolist() == before.timestamp.tolist()
    assert set(after.label) == {"SPEAKING_NOT_AUDIBLE", "NOT_SPEAKING"}
    assert after.digest() != before.digest()
    csv.rename(csv.with_name("README"))  # annotations are needed for extraction and evaluation only
    assert copied.windows().digest() == after.digest()


def test_a_video_that_moved_to_the_other_split_is_noticed(copied):
    train, test = copied.at("train_ann_dir"), copied.at("test_ann_dir")
    (train / "tinyTrain_2-activespeaker.csv").rename(test / "tinyTrain_2-activespeaker.csv")
    for split, folder in (("train", train), ("test", test)):
        refused(copied, folder, "tinyTrain_2", f"'{COMMAND}'", split=split)
    assert copied.extract("annotations") == [0]
    assert set(copied.windows("train").video_id) == {"-tinyTrain1"}


def test_a_video_that_could_not_be_used_is_left_out_and_asked_for_no_more(copied):
    record_path(copied.folder("tinyTrain_2").path, "videos").write_text("{}")
    assert copied.extract("annotations") == [EXIT_BROKEN_ITEMS]
    assert set(copied.windows("train").video_id) == {"-tinyTrain1"}


def test_faces_that_were_extracted_anew_are_noticed(copied):
    csv = copied.at("test_ann_dir") / "tinyVal_001-activespeaker.csv"
    csv.write_text("".join(csv.read_text().splitlines(keepends=True)[1:]))
    assert copied.extract("videos", "mfccs") == [0, 0]
    refused(copied, copied.folder().path, "other faces", f"run '{COMMAND}'")
    assert copied.extract("annotations") == [0]
    assert len(copied.windows()) == 22  # 10 of the first 34 faces


def test_mfccs_that_are_not_finite_are_named(copied):
    mfccs = copied.folder().mfccs
    values = np.load(mfccs)
    values[3, -12] = np.nan
    with copied.rewriting(mfccs):
        np.save(mfccs, values)
    windows = copied.windows()
    with pytest.raises(UserError, match=f"{mfccs}: the MFCCs of entity tinyVal"):
        windows.load(range(len(windows)))
