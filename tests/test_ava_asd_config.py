"""The YAML configuration: the shipped file, helpers, and every fault in one message."""

from pathlib import Path

import pytest
import yaml

from ava_asd.config import read_config
from ava_asd.layout import VideoFolder
from core.runtime.errors import UserError

SHIPPED = Path(__file__).resolve().parents[1] / "configs" / "config.yaml"
PUBLISHED = {
    "start_ts": "start_ts",
    "fps": 10,
    "eps": 3.0,
    "ann_stride": 4,
    "mfcc_window_size": 0.025,
    "stride": 0.01,
    "nmfcc": 13,
    "apply_mean": True,
    "apply_stddev": True,
    "sequence_size": 1,
    "vid_frame_size": 5,
    "mfcc_frame_size": 20,
    "train_keep_ratio": 1.0,
    "valid_keep_ratio": 0.1,
    "test_keep_ratio": 1.0,
    "filter_out": False,
    "filter_classes": (),
    "remove_small_faces": False,
    "small_face_threshold": 100,
    "classes": {"SPEAKING_AUDIBLE": 0, "NOT_SPEAKING": 1, "SPEAKING_NOT_AUDIBLE": 1},
    "mode": "s_av",
    "epochs": 40,
    "batch_size": 16,
    "width": 100,
    "height": 100,
    "channels": 1,
    "learning_rate": 0.01,
    "main_out_weight": 1,
    "v_out_weight": 0.4,
    "a_out_weight": 0.4,
    "optimiser": "SGD",
    "annotation_type": "full",
    "resample": True,
    "save_best_only": False,
    "augment": False,
    "dtype": "float32",
    "use_earlystopping": False,
    "es_patience": 5,
}


@pytest.fixture
def write(tmp_path):
    """Write the shipped configuration with changes (None takes a key away)."""

    def written(**changes):
        values = {**yaml.safe_load(SHIPPED.read_text(encoding="utf-8")), **changes}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
        return path

    return written


def faults_of(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_config(path)
    return str(refused.value)


def test_the_shipped_configuration_has_the_published_values():
    config = read_config(SHIPPED)
    assert {key: getattr(config, key) for key in PUBLISHED} == PUBLISHED


def test_every_key_is_explained():
    for line in SHIPPED.read_text(encoding="utf-8").splitlines():
        key = line.split(":")[0]
        if key and not key.startswith("#") and key not in ("learning_rate", "classes"):
            assert "#" in line or key.endswith(("_full", "_subset")), key


def test_shapes_paths_and_weights(write):
    config = read_config(write(sequence_size=2, channels=3, width=64, height=80, extracted_path="a/b"))
    assert config.audio_shape == (1, 13, 40)
    assert config.video_shape == (3, 10, 80, 64)
    assert config.path("data", "extracted_path") == Path("data/a/b")
    assert config.loss_weights == {"audio": 0.4, "video": 0.4, "main": 1}


def test_an_absolute_path_stays(write):
    assert read_config(write(download_path="/elsewhere")).path("data", "download_path") == Path("/elsewhere")


@pytest.mark.parametrize(("mode", "output"), [("s_a", "audio"), ("s_v", "video")])
def test_a_single_output_has_weight_one(write, mode, output):
    assert read_config(write(mode=mode)).loss_weights == {output: 1.0}


@pytest.mark.parametrize("speaking", [0, 1])
def test_either_orientation(write, speaking):
    other = 1 - speaking
    classes = {"SPEAKING_AUDIBLE": speaking, "NOT_SPEAKING": other, "SPEAKING_NOT_AUDIBLE": other}
    assert read_config(write(classes=classes)).speaking_class == speaking


def test_labels_to_filter_may_be_a_list_or_a_mapping(write):
    assert read_config(write(filter_classes=["NOT_SPEAKING"])).filter_classes == ("NOT_SPEAKING",)
    assert read_config(write(filter_classes={"NOT_SPEAKING": 1})).filter_classes == ("NOT_SPEAKING",)
    assert read_config(write(filter_classes={})).filter_classes == ()


def test_a_number_in_scientific_notation(write, tmp_path):
    path = write()
    path.write_text(path.read_text().replace("learning_rate: 0.01", "learning_rate: 1e-3"))
    assert read_config(path).learning_rate == 0.001


def test_all_faults_in_one_message(write):
    path = write(mode="r_av", optimiser="Lion", fps=0, epochs=None, nmfcc=None, batchsize=16)
    lines = faults_of(path).splitlines()
    assert lines[0].startswith(f"{path} has faults")
    assert sorted(lines[1:]) == [
        "  - fps is 0: expected a number above 0",
        "  - missing key 'epochs'",
        "  - missing key 'nmfcc'",
        "  - mode is 'r_av': expected one of 's_a', 's_v', 's_av', 's_av_fc'",
        "  - optimiser is 'Lion': expected one of 'SGD', 'Adam', 'RMSprop', 'Adagrad', 'Adadelta', 'Adamax', 'Nadam'",
        "  - unknown key 'batchsize'",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("extracted_path", ""),
        ("extracted_path", 10),
        ("start_ts", "folder/start_ts"),
        ("start_ts", ".."),
        ("start_ts", ""),
        ("extracted_path", "a\0b"),
        ("fps", "ten"),
        ("fps", float("inf")),
        ("fps", float("nan")),
        ("fps", 10**400),
        ("eps", -1),
        ("eps", float("inf")),
        ("stride", 1e-5),
        ("mfcc_window_size", 1e-5),
        ("nmfcc", 129),
        ("a_out_weight", float("inf")),
        ("small_face_threshold", float("inf")),
        ("learning_rate", float("inf")),
        ("ann_stride", 0),
        ("ann_stride", 1.5),
        ("nmfcc", True),
        ("apply_mean", "yes"),
        ("train_keep_ratio", 0),
        ("valid_keep_ratio", 1.1),
        ("filter_classes", ["SHOUTING"]),
        ("filter_classes", "NOT_SPEAKING"),
        ("small_face_threshold", -5),
        ("classes", {"SPEAKING_AUDIBLE": 0, "NOT_SPEAKING": 1}),
        ("classes", {"SPEAKING_AUDIBLE": 0, "NOT_SPEAKING": 1, "SPEAKING_NOT_AUDIBLE": 2}),
        ("classes", {"SPEAKING_AUDIBLE": 0, "NOT_SPEAKING": 1, "SPEAKING_NOT_AUDIBLE": 0}),
        ("classes", {"SPEAKING_AUDIBLE": 0, "NOT_SPEAKING": 0, "SPEAKING_NOT_AUDIBLE": 1}),
        ("classes", {"SPEAKING_AUDIBLE": 0, "NOT_SPEAKING": 1, "SPEAKING_NOT_AUDIBLE": [1]}),
        ("classes", {"SPEAKING_AUDIBLE": 0.0, "NOT_SPEAKING": 1.0, "SPEAKING_NOT_AUDIBLE": 1.0}),
        ("channels", 2),
        ("channels", 1.0),
        ("channels", True),
        ("channels", [1]),
        ("learning_rate", 0),
        ("main_out_weight", -0.1),
        ("annotation_type", "half"),
        ("dtype", "float16"),
        ("es_patience", 0),
    ],
)
def test_a_bad_value_is_refused_alone(write, key, value):
    lines = faults_of(write(**{key: value})).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"  - {key} is ")
    assert "expected" in lines[1]


def test_start_ts_is_no_file_of_another_kind(write):
    folder = VideoFolder(Path("v"), "start_ts")
    own = (folder.audio, folder.mfccs, folder.faces, folder.crops, folder.frame(12))
    for name in (*(path.name for path in own), "videos.json", "mfccs.json", "Audio.WAV"):
        (line,) = faults_of(write(start_ts=name)).splitlines()[1:]
        assert (
            line == f"  - start_ts is {name!r}: expected another name: ava-extract writes something else to that file"
        )
    assert read_config(write(start_ts="start.json")).start_ts == "start.json"


def test_each_table_of_samples_has_a_file_of_its_own(write):
    (line,) = faults_of(write(train_annotations_full="a/x", test_annotations_full="a/./x")).splitlines()[1:]
    assert line.startswith(
        "  - train_annotations_full and test_annotations_full are both 'a/x': expected a file for each"
    )
    lines = faults_of(write(test_annotations_full="x", train_annotations_subset="x", test_annotations_subset="x"))
    assert len(lines.splitlines()) == 4


def test_sound_is_augmented_in_standard_deviations(write):
    (line,) = faults_of(write(augment=True, apply_stddev=False)).splitlines()[1:]
    assert "expected 'apply_stddev: True' (run 'ava-extract mfccs' again) or 'augment: False'" in line
    assert read_config(write(augment=True, apply_stddev=False, mode="s_v")).augment
    assert not read_config(write(augment=False, apply_stddev=False)).apply_stddev


@pytest.mark.parametrize("value", ["2020-13-45", "0x_", "9" * 5000])
def test_values_that_yaml_cannot_have(write, value):
    path = write()
    path.write_text(path.read_text().replace("start_ts: start_ts", f"start_ts: {value}"))
    told = faults_of(path)
    assert "cannot be read as YAML" in told
    assert "put text between quotes" in told
    assert "line " in told


def test_a_key_that_stands_there_twice(write):
    path = write()
    path.write_text(path.read_text() + "fps: 12\n")
    assert "the key 'fps' is given twice: remove one of them" in faults_of(path)
    path = write()
    path.write_text(path.read_text().replace("classes:\n", "classes:\n  NOT_SPEAKING: 0\n"))
    assert "the key 'NOT_SPEAKING' is given twice" in faults_of(path)


def test_a_file_that_may_not_be_read(write, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    path = write()
    monkeypatch.setattr(Path, "read_text", refuse)
    assert faults_of(path) == f"{path} cannot be read: Permission denied; give a file that you may read"


def test_files_that_are_no_configuration(tmp_path):
    assert "there is no file" in faults_of(tmp_path / "absent.yaml")
    path = tmp_path / "config.yaml"
    path.write_text("mode: [s_av\nepochs: 3")
    assert "cannot be read as YAML" in faults_of(path)
    path.write_text("- mode\n- epochs")
    assert "holds list, expected 'key: value' lines" in faults_of(path)
    path.write_text("")
    assert "holds NoneType" in faults_of(path)
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as YAML" in faults_of(path)
