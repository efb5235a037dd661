"""The YAML configuration of the ava-* commands as checked, frozen settings; all faults in one message."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import yaml

from ava_asd.mfcc import BANDS
from ava_asd.models import AUDIO_VISUAL_MODES, MODES
from ava_asd.optimisers import OPTIMISERS
from core.formats.ava import LABEL_IDS, SPEAKING
from core.runtime import elsewhere
from core.runtime.checks import flag, is_file_name, number, one_of, whole
from core.runtime.errors import UserError

LABELS = tuple(LABEL_IDS)
SAMPLES_KEYS = tuple(f"{split}_annotations_{kind}" for kind in ("full", "subset") for split in ("train", "test"))
# What ava-extract writes into a video's folder besides start_ts (`ava_asd.layout`).
OWN_FILES = r"\d+\.jpg|audio\.wav|mfcc\.npy|crops\.npy|faces\.arrow|\.made"
LEAST_DURATION_S = 0.001  # of MFCC windows and strides: some samples at any sample rate


def _path_or_url(value: Any) -> str | None:
    return None if isinstance(value, str) and value and "\0" not in value else "expected a path"


def _path(value: Any) -> str | None:
    return "expected a path of this machine" if "://" in str(value) else _path_or_url(value)


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


PathText = Annotated[str, _path]
Flag = Annotated[bool, flag]
Size = Annotated[int, whole(1)]
Ratio = Annotated[float, number(0, 1)]
Positive = Annotated[float, number(0)]
NotNegative = Annotated[float, number(0, or_equal=True)]
Duration = Annotated[float, number(LEAST_DURATION_S, or_equal=True)]


@dataclass(frozen=True)
class Config:
    """The keys of configs/config.yaml, where each is explained, with their units.

    Each annotation holds the check of its value. `filter_classes` is a tuple of labels; every other value is as in
    the file.
    """

    test_ann_dir: PathText
    train_ann_dir: PathText
    extracted_path: PathText
    download_path: PathText
    vid_save_path: Annotated[str, _path_or_url]
    start_ts: Annotated[str, _start_ts]
    fps: Positive
    eps: NotNegative
    ann_stride: Size
    mfcc_window_size: Duration
    stride: Duration
    nmfcc: Annotated[int, whole(1, BANDS)]
    apply_mean: Flag
    apply_stddev: Flag
    sequence_size: Size
    vid_frame_size: Size
    mfcc_frame_size: Size
    train_annotations_full: PathText
    test_annotations_full: PathText
    train_annotations_subset: PathText
    test_annotations_subset: PathText
    train_keep_ratio: Ratio
    valid_keep_ratio: Ratio
    test_keep_ratio: Ratio
    filter_out: Flag
    filter_classes: Annotated[tuple[str, ...], _labels]
    remove_small_faces: Flag
    small_face_threshold: NotNegative
    classes: Annotated[Mapping[str, int], _classes]
    mode: Annotated[str, one_of(*MODES)]
    epochs: Size
    batch_size: Size
    width: Size
    height: Size
    channels: Annotated[int, one_of(1, 3)]
    learning_rate: Positive
    main_out_weight: NotNegative
    v_out_weight: NotNegative
    a_out_weight: NotNegative
    load_weights: Flag
    weights_file: PathText
    optimiser: Annotated[str, one_of(*OPTIMISERS)]
    annotation_type: Annotated[str, one_of("full", "subset")]
    resample: Flag
    save_best_only: Flag
    augment: Flag
    dtype: Annotated[str, one_of("float32", "bfloat16")]
    use_earlystopping: Flag
    es_patience: Size
    tb_logdir: PathText

    def path(self, data_dir: str | Path, key: str) -> Path:
        """The path that a key holds, or of the copy of what its URL names; a relative one is under the data folder."""
        return Path(data_dir) / elsewhere.copy_of(getattr(self, key))

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
        """(1, coefficient, vector), the MFCCs of a sample."""
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
    hints = get_type_hints(Config, include_extras=True)
    faults = [f"unknown key {key!r}" for key in values if key not in hints]
    faults += [f"missing key {name!r}" for name in hints if name not in values]
    for name in (name for name in hints if name in values):
        kind, check = get_args(hints[name])
        values[name] = _as_number(values[name]) if kind is float else values[name]
        fault = check(values[name])
        faults += [f"{name} is {values[name]!r}: {fault}"] if fault else []
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
    """Refuses a key that is given twice in a mapping, and names the line of a value that cannot be read."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in names:
                problem = f"the key {key.value!r} is given twice: remove one of them"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            names.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:  # what looks like a date or a number, but is not one
            raise yaml.constructor.ConstructorError(
                problem=f"{error}; put text between quotes", problem_mark=node.start_mark
            ) from error


def _conflicts(values: Mapping[str, Any]) -> list[str]:
    """The faults of values that are valid alone, but not together."""
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
    """YAML 1.1 reads 1e-3 (without a point) as text; users mean a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
