"""The YAML configuration of the ava-* commands as checked, frozen settings; all faults in one message."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml

from ava_asd.mfcc import BANDS
from ava_asd.models import AUDIO_VISUAL_MODES, MODES
from ava_asd.optimisers import OPTIMISERS
from core.formats.ava import LABEL_IDS, SPEAKING
from core.runtime.checks import Check, flag, is_file_name, number, one_of, whole
from core.runtime.errors import UserError

LABELS = tuple(LABEL_IDS)
SAMPLES_KEYS = tuple(f"{split}_annotations_{kind}" for kind in ("full", "subset") for split in ("train", "test"))
# What ava-extract writes into a video's folder besides start_ts (`ava_asd.layout`).
OWN_FILES = r"\d+\.jpg|audio\.wav|mfcc\.npy|crops\.npy|faces\.arrow|videos\.json|mfccs\.json"
LEAST_SOUND_S = 0.001  # of MFCC windows and strides: some samples at any sample rate


@dataclass(frozen=True)
class Config:
    """The keys of configs/config.yaml, where each is explained, with their units.

    `filter_classes` is a tuple of labels; every other value is as it stands in the file.
    """

    test_ann_dir: str
    train_ann_dir: str
    extracted_path: str
    download_path: str
    vid_save_path: str
    start_ts: str
    fps: float
    eps: float
    ann_stride: int
    mfcc_window_size: float
    stride: float
    nmfcc: int
    apply_mean: bool
    apply_stddev: bool
    sequence_size: int
    vid_frame_size: int
    mfcc_frame_size: int
    train_annotations_full: str
    test_annotations_full: str
    train_annotations_subset: str
    test_annotations_subset: str
    train_keep_ratio: float
    valid_keep_ratio: float
    test_keep_ratio: float
    filter_out: bool
    filter_classes: tuple[str, ...]
    remove_small_faces: bool
    small_face_threshold: float
    classes: Mapping[str, int]
    mode: str
    epochs: int
    batch_size: int
    width: int
    height: int
    channels: int
    learning_rate: float
    main_out_weight: float
    v_out_weight: float
    a_out_weight: float
    load_weights: bool
    weights_file: str
    optimiser: str
    annotation_type: str
    resample: bool
    save_best_only: bool
    augment: bool
    dtype: str
    use_earlystopping: bool
    es_patience: int
    tb_logdir: str

    def path(self, data_dir: str | Path, key: str) -> Path:
        """The path that a key holds; a relative one is under the data folder."""
        return Path(data_dir) / getattr(self, key)

    @property
    def speaking_class(self) -> int:
        """The class of SPEAKING_AUDIBLE, 0 as published or 1; also the column of its score."""
        return self.classes[SPEAKING]

    @property
    def video_window(self) -> int:
        """Video frames in a sample."""
        return self.vid_frame_size * self.sequence_size

    @property
    def audio_window(self) -> int:
        """MFCC vectors in a sample."""
        return self.mfcc_frame_size * self.sequence_size

    @property
    def audio_shape(self) -> tuple[int, int, int]:
        """(1, coefficient, time), the sound of a sample."""
        return 1, self.nmfcc, self.audio_window

    @property
    def video_shape(self) -> tuple[int, int, int, int]:
        """(channel, frame, height, width), the faces of a sample."""
        return self.channels, self.video_window, self.height, self.width

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weight of each output's loss, by the name of the output; a network with one output has weight 1."""
        if self.mode not in AUDIO_VISUAL_MODES:
            return {MODES[self.mode][0]: 1.0}
        return {"audio": self.a_out_weight, "video": self.v_out_weight, "main": self.main_out_weight}


def read_config(path: str | Path) -> Config:
    """Read and check a configuration.

    Raises:
        UserError: the file is absent or no YAML mapping; or one message with all unknown keys, missing keys and bad
            values.
    """
    values = read_mapping(path)
    names = [field.name for field in fields(Config)]
    faults = [f"unknown key {key!r}" for key in values if key not in names]
    faults += [f"missing key {name!r}" for name in names if name not in values]
    for field in fields(Config):
        if field.name in values:
            value = _as_number(values[field.name]) if field.type is float else values[field.name]
            fault = _CHECKS[field.name](value)
            faults += [f"{field.name} is {value!r}: {fault}"] if fault else []
            values[field.name] = value
    faults = faults or _conflicts(values)
    if faults:
        raise UserError(
            f"{path} has faults (configs/config.yaml explains every key):\n" + "\n".join(f"  - {f}" for f in faults)
        )
    return Config(**{**values, "filter_classes": tuple(values["filter_classes"])})


def read_mapping(path: str | Path) -> dict[Any, Any]:
    """The keys and values of a YAML file.

    Raises:
        UserError: the file is absent, no YAML, has a key twice, or holds something else than keys and values.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no file {path}: give a YAML file of 'key: value' lines")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as YAML: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; give a file that you may read") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds {type(content).__name__}, expected 'key: value' lines")
    return content


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, and says in which line a value is that cannot be had."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in names:
                problem = f"the key {key.value!r} stands there twice: take one of them out"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            names.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # what looks like a date or a number, and is none
            raise yaml.constructor.ConstructorError(
                problem=f"{error}; put a text between quotes", problem_mark=node.start_mark
            ) from error


def _conflicts(values: Mapping[str, Any]) -> list[str]:
    """The faults of values that are good alone, and not together."""
    faults = [
        f"{first} and {second} are both {values[first]!r}: expected a file for each, or one would replace the other"
        for first, second in combinations(SAMPLES_KEYS, 2)
        if os.path.normpath(values[first]) == os.path.normpath(values[second])
    ]
    if values["augment"] and not values["apply_stddev"] and "audio" in MODES[values["mode"]]:
        faults.append(
            "augment is True and apply_stddev False: noise and gain are in standard deviations of the coefficients, "
            "expected 'apply_stddev: True' (run 'ava-extract mfccs' again) or 'augment: False'"
        )
    return faults


def _as_number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 (without a point) for text; it is a number to everybody else."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _path(value: Any) -> str | None:
    return None if isinstance(value, str) and value and "\0" not in value else "expected a path"


def _start_ts(value: Any) -> str | None:
    if not is_file_name(value):
        return "expected the name of a file in each video's folder, without a slash"
    taken = re.fullmatch(OWN_FILES, value, re.IGNORECASE)
    return "expected another name: ava-extract writes something else to that file" if taken else None


def _labels(value: Any) -> str | None:
    good = isinstance(value, list | dict) and all(label in LABELS for label in value)
    return None if good else f"expected a list, empty or with some of {', '.join(LABELS)}"


def _classes(value: Any) -> str | None:
    if not isinstance(value, dict) or sorted(map(str, value)) != sorted(LABELS):
        return f"expected a class for each of {', '.join(LABELS)}"
    if any(type(number) is not int or number not in (0, 1) for number in value.values()):
        return "expected the classes 0 and 1"
    if any(value[label] == value[SPEAKING] for label in LABELS if label != SPEAKING):
        return f"expected one class for {SPEAKING} and the other for the other labels"
    return None


_ratio = number(0, 1)
_weight = number(0, or_equal=True)
_size = whole(1)

_CHECKS: dict[str, Check] = {
    "test_ann_dir": _path,
    "train_ann_dir": _path,
    "extracted_path": _path,
    "download_path": _path,
    "vid_save_path": _path,
    "start_ts": _start_ts,
    "fps": number(0),
    "eps": number(0, or_equal=True),
    "ann_stride": _size,
    "mfcc_window_size": number(LEAST_SOUND_S, or_equal=True),
    "stride": number(LEAST_SOUND_S, or_equal=True),
    "nmfcc": whole(1, BANDS),
    "apply_mean": flag,
    "apply_stddev": flag,
    "sequence_size": _size,
    "vid_frame_size": _size,
    "mfcc_frame_size": _size,
    "train_annotations_full": _path,
    "test_annotations_full": _path,
    "train_annotations_subset": _path,
    "test_annotations_subset": _path,
    "train_keep_ratio": _ratio,
    "valid_keep_ratio": _ratio,
    "test_keep_ratio": _ratio,
    "filter_out": flag,
    "filter_classes": _labels,
    "remove_small_faces": flag,
    "small_face_threshold": number(0, or_equal=True),
    "classes": _classes,
    "mode": one_of(*MODES),
    "epochs": _size,
    "batch_size": _size,
    "width": _size,
    "height": _size,
    "channels": one_of(1, 3),
    "learning_rate": number(0),
    "main_out_weight": _weight,
    "v_out_weight": _weight,
    "a_out_weight": _weight,
    "load_weights": flag,
    "weights_file": _path,
    "optimiser": one_of(*OPTIMISERS),
    "annotation_type": one_of("full", "subset"),
    "resample": flag,
    "save_best_only": flag,
    "augment": flag,
    "dtype": one_of("float32", "bfloat16"),
    "use_earlystopping": flag,
    "es_patience": _size,
    "tb_logdir": _path,
}
