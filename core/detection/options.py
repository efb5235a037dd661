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
SHIPPED, NONE = "shipped", "none"  # context networks, instead of a path
PRECISIONS = ("auto", "fp32", "bf16", "int8")  # of the encoder's products
MIN_TRACK_S = 0.4  # 10 frames at 25 fps, as in published pipelines
MIN_FACE_PX = 24  # median height; smaller ones are enlarged fivefold for the encoder and show it nothing

CHECKS = {
    "detect_every": checks.whole(1),
    "detection_size": checks.whole(32),
    "min_track_s": checks.number(0, or_equal=True),
    "min_face_px": checks.number(0, or_equal=True),
}


def context_shape(text: str) -> tuple[int, int, int]:
    """L,STRIDE,S as numbers.

    Raises:
        UserError: it is not of that form.
    """
    try:
        clip_length, stride, speakers = (int(part) for part in text.split(","))
        if clip_length < 1 or clip_length % 2 == 0 or stride < 1 or speakers < 1:
            raise ValueError
    except ValueError:
        raise UserError(
            f"--context-shape {text}: expected time steps (odd), stride in frames and speakers, such as 11,4,3"
        ) from None
    return clip_length, stride, speakers


def check_options(values: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """See that options can be used, None being the default.

    Args:
        values: name, as `core.detection.ActiveSpeakerDetector` has it -> value; not all of them are checked.
        names: what messages call them; by default as here.

    Raises:
        UserError: a value is out of range, or some do not go together.
    """
    for name, check in CHECKS.items():
        value = values.get(name)
        fault = None if value is None else check(value)
        if fault:
            raise UserError(f"{names.get(name, name)} {value}: {fault}")
    called = {name: names.get(name, name) for name in ("crop", "ensemble", "context")}
    if (encoder := values.get("encoder")) in CLIP_ENCODERS:
        given = [called[name] for name in ("crop", "ensemble") if values.get(name)]
        if given:
            known = " and ".join(WHOLE_TRACK_ENCODERS)
            raise UserError(
                f"the encoder {encoder} does not take {' and '.join(given)}, which only {known} do: omit it"
            )
    if values.get("ensemble") and values.get("context") not in (None, SHIPPED, NONE):
        raise UserError(
            f"a context network is trained on one pass of the encoder: give {called['context']} or {called['ensemble']}"
        )
