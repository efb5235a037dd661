"""The YAML configuration: the shipped file, what is derived from it, and every fault in one message."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from ava_asd_set import SHIPPED

from ava_asd.config import SAMPLES_KEYS, read_config
from ava_asd.layout import VideoFolder
from core.runtime import elsewhere
from core.runtime.errors import UserError

# The published config.yaml, but for its comments.
PUBLISHED = yaml.safe_load("""{
test_ann_dir: download/ava_activespeaker_test_v1.0, train_ann_dir: download/ava_activespeaker_train_v1.0,
extracted_path: extracted/10fps, download_path: download, vid_save_path: download/trainval,
start_ts: start_ts, fps: 10, eps: 3.0, ann_stride: 4,
mfcc_window_size: 0.025, stride: 0.01, nmfcc: 13, apply_mean: true, apply_stddev: true,
sequence_size: 1, vid_frame_size: 5, mfcc_frame_size: 20,
train_annotations_full: extracted/10fps/train_annotations.pkl,
test_annotations_full: extracted/10fps/test_annotations.pkl,
train_annotations_subset: extracted/10fps/train_annotations_subset.pkl,
test_annotations_subset: extracted/10fps/test_annotations_subset.pkl,
train_keep_ratio: 1.0, valid_keep_ratio: 0.1, test_keep_ratio: 1.0,
filter_out: false, filter_classes: {}, remove_small_faces: false, small_face_threshold: 100,
classes: {SPEAKING_AUDIBLE: 0, NOT_SPEAKING: 1, SPEAKING_NOT_AUDIBLE: 1},
mode: s_av, epochs: 40, batch_size: 16, width: 100, height: 100, channels: 1,
learning_rate: 0.01, main_out_weight: 1, v_out_weight: 0.4, a_out_weight: 0.4,
load_weights: true, weights_file: last.hdf5, optimiser: SGD,
annotation_type: full, resample: true, save_best_only: false, augment: false, dtype: float32,
use_earlystopping: false, es_patience: 5, tb_logdir: /tmp/Graph,
}""")
INFINITE = float("inf")


def classes(speaking: object, *others: object) -> dict[str, object]:
    return dict(zip(("SPEAKING_AUDIBLE", "NOT_SPEAKING", "SPEAKING_NOT_AUDIBLE"), (speaking, *others), strict=False))


@pytest.fixture
def write(tmp_path):
    """Write the shipped configuration with changes (None takes a key away)."""

    def written(**changes) -> Path:
        values = {**yaml.safe_load(SHIPPED.read_text(encoding="utf-8")), **changes}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
        return path

    return written


def faults_of(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_config(path)
    assert str(path) in str(refused.value)
    return str(refused.value)


def lines_of(path: Path) -> list[str]:
    """The faults of values, a line each."""
    return [line.removeprefix("  - ") for line in faults_of(path).splitlines()[1:]]


def test_the_shipped_configuration_has_the_published_values(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(PUBLISHED))
    tables = {key: PUBLISHED[key].replace(".pkl", ".arrow") for key in SAMPLES_KEYS}
    assert read_config(SHIPPED) == replace(read_config(tmp_path / "config.yaml"), load_weights=False, **tables)


def test_every_key_is_explained():
    for line in SHIPPED.read_text(encoding="utf-8").splitlines():
        key = line.split(":")[0]
        if key and not key.startswith("#") and key not in ("learning_rate", "classes"):
            assert "#" in line or key.endswith(("_full", "_subset")), key


def test_shapes_paths_and_weights(write):
    changes = {"extracted_path": "a/b", "download_path": "/elsewhere"}
    config = read_config(write(sequence_size=2, channels=3, width=64, height=80, **changes))
    assert config.audio_shape == (1, 13, 40)
    assert config.video_shape == (3, 10, 80, 64)
    assert config.path("data", "extracted_path") == Path("data/a/b")
    assert config.path("data", "download_path") == Path("/elsewhere")
    url = read_config(write(vid_save_path="s3://bucket/videos")).path("data", "vid_save_path")
    assert elsewhere.url_of(url) == "s3://bucket/videos"
    assert config.loss_weights == {"audio": 0.4, "video": 0.4, "main": 1}


@pytest.mark.parametrize(
    ("changes", "name", "expected"),
    [
        ({"mode": "s_a"}, "loss_weights", {"audio": 1.0}),
        ({"mode": "s_v"}, "loss_weights", {"video": 1.0}),
        ({"classes": classes(0, 1, 1)}, "speaking_class", 0),
        ({"classes": classes(1, 0, 0)}, "speaking_class", 1),
        ({"filter_classes": ["NOT_SPEAKING"]}, "filter_classes", ("NOT_SPEAKING",)),
        ({"filter_classes": {"NOT_SPEAKING": 1}}, "filter_classes", ("NOT_SPEAKING",)),
        ({"filter_classes": {}}, "filter_classes", ()),
        ({"learning_rate": "1e-3"}, "learning_rate", 0.001),  # text in YAML 1.1
        ({"start_ts": "start.json"}, "start_ts", "start.json"),
        ({"augment": True, "apply_stddev": False, "mode": "s_v"}, "augment", True),
        ({"augment": False, "apply_stddev": False}, "apply_stddev", False),
    ],
)
def test_values_that_are_accepted(write, changes, name, expected):
    assert getattr(read_config(write(**changes)), name) == expected


def test_all_faults_in_one_message(write):
    lines = lines_of(write(mode="r_av", optimiser="Lion", fps=0, epochs=None, nmfcc=None, batchsize=16))
    assert sorted(lines) == [
        "fps is 0: expected a number above 0",
        "missing key 'epochs'",
        "missing key 'nmfcc'",
        "mode is 'r_av': expected one of 's_a', 's_v', 's_av', 's_av_fc'",
        "optimiser is 'Lion': expected one of 'SGD', 'Adam', 'RMSprop', 'Adagrad', 'Adadelta', 'Adamax', 'Nadam'",
        "unknown key 'batchsize'",
    ]


FOLDER = VideoFolder(Path("v"), "start_ts")
OWN_FILES = (FOLDER.audio, FOLDER.mfccs, FOLDER.faces, FOLDER.crops, FOLDER.frame(12))
BAD_VALUES = {
    "extracted_path": ["", 10, "a\0b", "s3://bucket/extracted"],
    "start_ts": ["", "..", "folder/start_ts", ".made", "Audio.WAV", *(f.name for f in OWN_FILES)],
    "fps": ["ten", INFINITE, float("nan"), 10**400],
    "eps": [-1, INFINITE],
    "stride": [1e-5],
    "mfcc_window_size": [1e-5],
    "nmfcc": [129, True],
    "a_out_weight": [INFINITE],
    "small_face_threshold": [INFINITE, -5],
    "learning_rate": [INFINITE, 0],
    "ann_stride": [0, 1.5],
    "apply_mean": ["yes"],
    "train_keep_ratio": [0],
    "valid_keep_ratio": [1.1],
    "filter_classes": [["SHOUTING"], "NOT_SPEAKING"],
    "classes": [
        *(classes(0, 1), classes(0, 1, 2), classes(0, 1, 0), classes(0, 0, 1)),
        *(classes(0, 1, [1]), classes(0.0, 1.0, 1.0)),
    ],
    "channels": [2, 1.0, True, [1]],
    "main_out_weight": [-0.1],
    "annotation_type": ["half"],
    "dtype": ["float16"],
    "es_patience": [0],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key in BAD_VALUES for value in BAD_VALUES[key]])
def test_a_bad_value_is_refused_alone(write, key, value):
    (line,) = lines_of(write(**{key: value}))
    assert line.startswith(f"{key} is ")
    assert "expected" in line


def test_values_that_are_no_good_together(write):
    (line,) = lines_of(write(train_annotations_full="a/x", test_annotations_full="a/./x"))
    assert line.startswith("train_annotations_full and test_annotations_full are both 'a/x': expected a file for each")
    subsets = {"train_annotations_subset": "x", "test_annotations_subset": "x"}
    assert len(lines_of(write(test_annotations_full="x", **subsets))) == 3
    (line,) = lines_of(write(augment=True, apply_stddev=False))
    assert "expected 'apply_stddev: True' (run 'ava-extract mfccs' again) or 'augment: False'" in line


@pytest.mark.parametrize(
    ("old", "new", "fact"),
    [
        *(("start_ts: start_ts", f"start_ts: {text}", "between quotes") for text in ("2020-13-45", "0x_", "9" * 5000)),
        ("start_ts: start_ts", "start_ts: start_ts\nfps: 12", "'fps' is given twice"),
        ("classes:\n", "classes:\n  NOT_SPEAKING: 0\n", "'NOT_SPEAKING' is given twice"),
    ],
)
def test_lines_that_cannot_be_read(write, old, new, fact):
    path = write()
    path.write_text(path.read_text().replace(old, new))
    message = faults_of(path)
    assert all(part in message for part in ("YAML", "line ", fact))


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (None, "there is no file"),
        (b"mode: [s_av\nepochs: 3", "YAML"),
        (b"\xff\xfe\x00", "YAML"),
        (b"- mode\n- epochs", "holds list"),
        (b"", "holds NoneType"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, content, fact):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    assert fact in faults_of(path)


def test_a_file_that_may_not_be_read(write, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    path = write()
    monkeypatch.setattr(Path, "read_text", refuse)
    assert "Permission denied" in faults_of(path)
