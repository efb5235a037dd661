"""The feature store: what is written is read back, by row, without reading the rest; damage is refused."""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tiny import annotated_tracks

from core.formats import ava, feature_store
from core.formats.feature_store import STEP, FeatureStore, VideoFeatures, write_features
from core.runtime import provenance
from core.runtime.errors import UserError


def annotations(video_id: str, lengths: dict[str, int]) -> pd.DataFrame:
    """Rows of a video's entities, from 1 s on, labels in turn."""
    return annotated_tracks((video_id, entity, 25, length, tuple(ava.LABEL_IDS)) for entity, length in lengths.items())


def video_features(rows: pd.DataFrame, size: int = 8, dtype: str = "float16", seed: int = 0) -> VideoFeatures:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((3, len(rows), 2)).astype(np.float32)
    return VideoFeatures(rows, *logits, rng.standard_normal((len(rows), size)).astype(dtype))


@pytest.fixture
def two_videos(tmp_path) -> tuple[Path, list[VideoFeatures]]:
    """A folder of two videos' features, and what was written."""
    videos = [
        video_features(annotations("-v1", {"-v1:1": 5, "-v1:2": 3}), seed=1),
        video_features(annotations("v2", {"v2:1": 4, "v2:10": 1}), seed=2),
    ]
    for video in videos:
        write_features(tmp_path / "train", video)
    return tmp_path / "train", videos


# ---------------------------------------------------------------- round trips


@pytest.mark.parametrize(("form", "dtype"), [("arrow", "float16"), ("arrow", "float32"), ("csv", "float16")])
def test_round_trip(tmp_path, form, dtype):
    video = video_features(annotations("v", {"v:1": 5, "v:2": 3}), dtype=dtype)
    write_features(tmp_path, video, form)
    store = FeatureStore(tmp_path)
    assert store.entity_ids.tolist() == video.rows["entity_id"].tolist()
    assert store.timestamps.tolist() == video.rows["frame_timestamp"].tolist()
    assert store.labels.tolist() == (video.rows["label"] == "SPEAKING_AUDIBLE").astype(int).tolist()
    np.testing.assert_array_equal(store.logits, video.logits)
    assert (len(store), store.feature_size) == (8, 8)
    gathered = store.gather(np.arange(8))
    assert gathered.dtype == (dtype if form == "arrow" else "float32")
    np.testing.assert_array_equal(gathered, video.features)
    if form == "arrow":
        np.testing.assert_array_equal(store.audio_logits, video.audio_logits)
        np.testing.assert_array_equal(store.video_logits, video.video_logits)
    else:
        assert store.audio_logits is None


def test_what_tells_whether_faces_are_in_step_is_kept_where_all_videos_have_it(tmp_path):
    videos = [video_features(annotations(name, {f"{name}:1": 5}), seed=seed) for seed, name in enumerate(("v1", "v2"))]
    told = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    for folder, values in (("all", (told, told + 1)), ("some", (told, None))):
        for video, own in zip(videos, values, strict=True):
            write_features(tmp_path / folder, replace(video, in_step=own))
    np.testing.assert_array_equal(FeatureStore(tmp_path / "all").in_step, np.concatenate([told, told + 1]))
    assert FeatureStore(tmp_path / "some").in_step is None
    told[3, 1] = np.nan
    with pytest.raises(UserError, match=r"in_step of entity v1:1 at 1\.12"):
        write_features(tmp_path / "none", replace(videos[0], in_step=told))


def test_the_csv_form_is_the_published_one(tmp_path):
    video = video_features(annotations("v", {"v:1": 5}))
    write_features(tmp_path, video, form="csv")
    with (tmp_path / "v.csv").open(newline="") as file:
        *key, logit0, logit1, features = next(csv.reader(file))
    assert key == ["v", "1.00", "v:1", "0.0"]
    assert [float(logit0), float(logit1)] == video.logits[0].tolist()
    assert json.loads(features) == video.features[0].tolist()
    labels = pd.read_csv(tmp_path / "v.csv", header=None, dtype=str)[3]
    assert labels.tolist() == ["0.0", "1.0", "0.0", "0.0", "1.0"]  # the third is SPEAKING_NOT_AUDIBLE


def test_published_csv_whose_rows_come_in_order_of_time(tmp_path):
    """The published files are not sorted by entity; "10.0" comes after "9.96"."""
    lines = [
        'v,9.96,b,1,0.5,1.5,"[1.0, 2.0]"',
        'v,9.96,a,0.0,0.25,0.5,"[3.0, 4e-05]"',
        'v,10.0,b,1.0,1,2,"[np.float32(-5.0), np.float32(6e-05)]"',  # as under NumPy 2
        'v,10.04,b,2,1,2,"[7.0, 8.0]"',
    ]
    (tmp_path / "v.csv").write_text("\n".join(lines) + "\n")
    store = FeatureStore(tmp_path)
    assert store.entity_ids.tolist() == ["a", "b", "b", "b"]
    assert store.timestamps.tolist() == ["9.96", "9.96", "10.0", "10.04"]
    assert store.labels.tolist() == [0, 1, 1, 0]
    assert store.gather(np.arange(4)).tolist() == np.float32([[3, 4e-5], [1, 2], [-5, 6e-5], [7, 8]]).tolist()


@pytest.mark.parametrize(("pattern", "videos"), [("*.csv", ["v", "w"]), ("w*.csv", ["w"]), ("*.arrow", ["v"])])
def test_a_pattern_of_files_as_published_configurations_have_it(tmp_path, pattern, videos):
    """Only the files that it fits are read, also beside others."""
    video = video_features(annotations("v", {"v:1": 5}))
    write_features(tmp_path, video)
    for part in (video, video_features(annotations("w", {"w:1": 2}))):
        write_features(tmp_path, part, form="csv")
    assert list(FeatureStore(f"{tmp_path}/{pattern}").videos) == videos


def test_rows_of_several_files_and_batches_by_number(two_videos, monkeypatch):
    folder, videos = two_videos
    monkeypatch.setattr(feature_store, "ROWS_PER_BATCH", 2)
    for video in videos:
        write_features(folder, video)
    store = FeatureStore(folder)
    everything = np.concatenate([video.features for video in videos])
    for rows in ([0], [12], [1, 2, 3], [0, 4, 7, 8, 12], list(range(13)), [3, 3, 9]):
        np.testing.assert_array_equal(store.gather(np.array(rows)), everything[rows])
    assert store.gather(np.zeros(0, np.int64)).shape == (0, 8)


def test_tracks_time_steps_and_videos(two_videos):
    store = FeatureStore(two_videos[0])
    assert store.entities.tolist() == [0] * 5 + [1] * 3 + [2] * 4 + [3]
    assert store.videos == {"-v1": slice(0, 8), "v2": slice(8, 13)}
    keys = [(row < 8, timestamp) for row, timestamp in enumerate(store.timestamps)]
    together = [[a == b for b in keys] for a in keys]
    assert (store.time_steps[:, None] == store.time_steps).tolist() == together


def test_equal_times_written_differently_are_one_time_step(tmp_path):
    rows = annotations("v", {"v:1": 1, "v:2": 1}).assign(frame_timestamp=["1.0", "1.00"])
    write_features(tmp_path, video_features(rows))
    assert len(set(FeatureStore(tmp_path).time_steps)) == 1


def test_an_entity_of_many_rows_takes_little_room(tmp_path):
    rows = annotations("v", {"v:1": 2000})
    write_features(tmp_path, video_features(rows, size=1024))
    assert (tmp_path / "v.arrow").stat().st_size < 2200 * len(rows)


# ---------------------------------------------------------------- finished work


def forwarded(folder: Path, weights: dict[str, str], declared: list[str], form: str = "arrow") -> None:
    """Features of videos, each made by some weights, as STE_forward.py leaves them."""
    provenance.declare(folder, STEP, declared)
    for video_id, sha256 in weights.items():
        record = provenance.Record(folder, video_id, STEP, {"weights": sha256, "format": form})
        if record.missing([f"{video_id}.{form}"]):
            with record.making([f"{video_id}.{form}"]):
                write_features(folder, video_features(annotations(video_id, {f"{video_id}:1": 5})), form)


def test_the_videos_are_those_of_the_last_forward(tmp_path):
    forwarded(tmp_path, {"v": "abc", "w": "abc"}, ["v", "w"])
    assert list(FeatureStore(tmp_path).videos) == ["v", "w"]
    assert FeatureStore(tmp_path).encoder["weights"] == "abc"
    before = FeatureStore(tmp_path).fingerprint()
    forwarded(tmp_path, {}, ["w"])  # of annotations without v
    assert list(FeatureStore(tmp_path).videos) == ["w"]
    assert FeatureStore(tmp_path).fingerprint() != before
    forwarded(tmp_path, {"w": "abc"}, ["w"], "csv")
    assert [path.suffix for path in tmp_path.glob("w.*")] == [".csv"]
    assert list(FeatureStore(tmp_path).videos) == ["w"]


@pytest.mark.parametrize("recorded", [True, False])
def test_one_video_is_opened_without_a_look_at_the_others(tmp_path, monkeypatch, recorded):
    if recorded:
        forwarded(tmp_path, {"v": "abc"}, ["v", "w"])
        (tmp_path / provenance.FOLDER / f".{STEP}.json").write_text("of a million videos")
    else:
        write_features(tmp_path, video_features(annotations("v", {"v:1": 5})))

    def listed(*arguments):
        raise AssertionError("the folder is listed")

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, listed)
    assert list(FeatureStore(tmp_path, only="v").videos) == ["v"]
    with pytest.raises(UserError, match="no features"):
        FeatureStore(tmp_path, only="w")


def test_features_of_two_weights_are_not_mixed(tmp_path):
    forwarded(tmp_path, {"v": "abc", "w": "abc"}, ["v", "w"])
    forwarded(tmp_path, {"v": "def"}, ["v", "w"])
    with pytest.raises(UserError, match=r"weights is def for video v and abc for video w"):
        FeatureStore(tmp_path)


def test_unfinished_or_changed_features_are_refused(tmp_path):
    forwarded(tmp_path, {"v": "abc"}, ["v", "w"])
    with pytest.raises(UserError, match="video w"):
        FeatureStore(tmp_path)
    forwarded(tmp_path, {"w": "abc"}, ["v", "w"])
    content = bytearray((tmp_path / "w.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "w.arrow").write_bytes(content)
    with pytest.raises(UserError, match=r"w\.arrow"):
        FeatureStore(tmp_path)


def test_two_files_of_one_video_are_refused(tmp_path):
    for form in feature_store.FORMATS:
        write_features(tmp_path, video_features(annotations("v", {"v:1": 5})), form)
    with pytest.raises(UserError, match=r"v\.csv.*v\.arrow|v\.arrow.*v\.csv"):
        FeatureStore(tmp_path)


def test_an_interrupt_while_writing_leaves_no_file(tmp_path, monkeypatch):
    video = video_features(annotations("v", {"v:1": 5}))

    def interrupted(file, schema):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pa.ipc, "new_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_features(tmp_path, video)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize("source", ["", "none", "none/*.csv", "*.csv", "*"])
def test_no_folder_or_nothing_in_it(tmp_path, source):
    with pytest.raises(UserError) as caught:
        FeatureStore(tmp_path / source)
    assert all(fact in str(caught.value) for fact in (str(tmp_path / source), "<video_id>.arrow", "STE_forward.py"))


@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_damaged_file_is_named(two_videos, share):
    path = two_videos[0] / "v2.arrow"
    whole = path.read_bytes()
    path.unlink()  # the file may be mapped into memory: it must not be cut under it
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=r"v2\.arrow"):
        FeatureStore(two_videos[0])


@pytest.mark.parametrize(
    ("videos", "size", "fault"),
    [
        ([annotations("v", {"v:1": 2, "v:2": 2}).iloc[order].reset_index(drop=True)], 8, "not sorted")
        for order in ([1, 0, 2, 3], [0, 2, 1, 3])
    ]
    + [
        ([annotations(name, {"same:1": 2}) for name in ("v1", "v2")], 8, "two videos"),
        ([annotations("v", {"v:1": 2}), annotations("w", {"w:1": 2})], 16, r"\[8, 16\]"),  # of two encoders
    ],
)
def test_features_that_do_not_go_together(tmp_path, videos, size, fault):
    write_features(tmp_path, video_features(videos[0]))
    for rows in videos[1:]:
        write_features(tmp_path, video_features(rows, size))
    with pytest.raises(UserError, match=fault):
        FeatureStore(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("number", [np.nan, -np.inf])
@pytest.mark.parametrize("head", ["logits", "audio_logits", "video_logits", "features"])
def test_numbers_that_are_not_finite_are_neither_written_nor_read(tmp_path, monkeypatch, head, number, dtype):
    video = video_features(annotations("v", {"v:1": 3, "v:2": 3}), dtype=dtype)
    getattr(video, head)[4, 1] = number
    time = video.rows["frame_timestamp"][4]
    with pytest.raises(UserError, match=f"v: the {head} of entity v:2 at {time} s"):
        write_features(tmp_path, video)
    assert not (tmp_path / "v.arrow").exists()
    with monkeypatch.context() as patch:  # written by others
        patch.setattr(feature_store, "check_finite", lambda *_: None)
        write_features(tmp_path, video)
    with pytest.raises(UserError, match=f"{tmp_path}, video v: the {head} of entity v:2 at {time} s"):
        FeatureStore(tmp_path).gather(np.arange(2, 6))


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('v,1.0,e,0,0.1,0.2,"[1.0, 2.0"', "line 2"),
        ("v,1.0,e,0,0.1,0.2", "line 2"),
        ('v,1.0,e,0,0.1,x,"[1.0, 2.0]"', "line 2.*'x'"),
        ('v,one,e,0,0.1,0.2,"[1.0, 2.0]"', "line 2.*'one'"),
        ('v,1.0,e,0,0.1,0.2,"[1.0]"', "line 2"),
        ('v,1.0,e,0,0.1,0.2,"[[1.0, 2.0]]"', "line 2"),
        ('v,1.0,e,0,0.1,0.2,"null"', "line 2"),
        ('v,1.0,e,0,nan,0.2,"[1.0, 2.0]"', "line 2.*'nan'"),
        ('v,1.0,e,0,0.1,0.2,"[1.0, 1e999]"', "features of entity e at 1.0 s"),
        ('v,1_0,e,0,0.1,0.2,"[1.0, 2.0]"', "line 2.*'1_0'"),
        ('v,1.0,e,9,0.1,0.2,"[1.0, 2.0]"', "line 2"),
        ('v,1.0,e,０,0.1,0.2,"[1.0, 2.0]"', "line 2.*'０'"),
        ('v,1.0,\udcff,0,0.1,0.2,"[1.0, 2.0]"', "line 0.*utf-8"),
        ('v,1.0,e,0,0.1,0.2,"[1.0, np.float32(2.0]"', "line 2"),
        *((f'v,1.0,e,{label},0.1,0.2,"[1.0, 2.0]"', "line 2") for label in ("3", "0.5", "nan", "-1", "inf")),
        ('w,1.0,e,0,0.1,0.2,"[1.0, 2.0]"', "line 2: video 'w'"),  # its time steps would be those of v
    ],
)
def test_a_damaged_csv_is_named_with_its_line(tmp_path, line, fault):
    text = f'v,0.96,e,0,0.1,0.2,"[1.0, 2.0]"\n{line}\n'
    (tmp_path / "v.csv").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(UserError, match=rf"v.*{fault}"):
        FeatureStore(tmp_path).gather(np.arange(2))


def with_column(table: pa.Table, name: str, values: pa.Array | None) -> pa.Table:
    """A table with another column in the place of one, or without it."""
    at = table.column_names.index(name)
    return table.remove_column(at) if values is None else table.set_column(at, name, values)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, None) for name in ("entity_id", "frame_timestamp", "label_id", "logits", "features")),
        ("label_id", pa.array([0, 1, None, 0, 1], pa.int8())),
        ("label_id", pa.array([0, 1, 7, 0, 1], pa.int8())),
        ("label_id", pa.array([0.0, 1.0, 0.0, 0.0, 1.0])),
        ("frame_timestamp", pa.array(["1", "2", "3", "4", "x"])),
        ("frame_timestamp", pa.array(["1", "2", "3", "4", "inf"])),
        ("frame_timestamp", pa.array(["1", "2", "3", "4", "1_0"])),
        ("features", pa.array([[1.0, 2.0]] * 5, pa.list_(pa.float32()))),
        ("features", pa.array([["a"]] * 5, pa.list_(pa.string(), 1))),
        ("video_logits", pa.array([[1.0]] * 5, pa.list_(pa.float32(), 1))),
        ("entity_id", pa.DictionaryArray.from_arrays(pa.array([0, 0, 5, 0, 0]), ["v:1"], safe=False)),
    ],
)
def test_another_schema_or_values_out_of_bounds_are_refused(tmp_path, name, values):
    write_features(tmp_path, video_features(annotations("v", {"v:1": 5})))
    table = with_column(pa.ipc.open_file(str(tmp_path / "v.arrow")).read_all(), name, values)
    (tmp_path / "v.arrow").unlink()
    with pa.ipc.new_file(str(tmp_path / "v.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match=str(tmp_path)):
        FeatureStore(tmp_path)
