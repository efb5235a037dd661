"""Names, defaults and checks of detection's options, without the libraries that detection itself needs."""

from collections.abc import Mapping
from typing import Any

from core.runtime import checks
from core.runtime.errors import UserError

WHOLE_TRACK_ENCODERS = ("light_asd", "lr_asd")
CLIP_ENCODERS = ("resnet18_two_streams", "resnet34_two_streams", "resnet50_two_streams")
ENCODERS = (*WHOLE_TRACK_ENCODERS, *CLIP_ENCODERS)
DEFAULT_ENCODER = "light_asd"
DEFAULT_DETECTOR = "yunet"
CROPS = ("box", "lower_face")  # how faces are cut for whole-track encoders
PRECISIONS = ("auto", "fp32", "bf16")  # of the encoder's products
MIN_TRACK_S = 0.4  # 10 frames at 25 fps, as in published pipelines
MIN_FACE_PX = 24  # median height; smaller ones are enlarged fivefold for the encoder and show it nothing

CHECKS = {
    "detect_every": checks.whole(1),
    "detection_size": checks.whole(32),
    "min_track_s": checks.number(0, or_equal=True),
    "min_face_px": checks.number(0, or_equal=True),
}


def check_options(values: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """See that options can be used, None being the default.

    Args:
        values: name in `CHECKS` -> value; others are not checked.
        names: what messages call them; by default as here.

    Raises:
        UserError: a value is out of range.
    """
    for name, check in CHECKS.items():
        value = values.get(name)
        fault = None if value is None else check(value)
        if fault:
            raise UserError(f"{names.get(name, name)} {value}: {fault}")
