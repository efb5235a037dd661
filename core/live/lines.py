"""Scored frames, and what they are as lines of JSON, for the next program."""

import json
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np

from core.clip_utils import SPEAKING_THRESHOLD
from core.detection.results import kept_apart

TIME_DECIMALS = 4
BOX_DECIMALS = 1
PROBABILITY_DECIMALS = 4


class ScoredFace(NamedTuple):
    """A face at a time.

    Attributes:
        id: 1, 2, ... of the track; a face that was away, or was in another shot, has a new one.
        box: x1, y1, x2, y2, pixels of the frame, clamped to it.
        probability: of speaking, 0 to 1; None where there was no audio.
        score: its log odds; as of silence where there was no audio.
    """

    id: int
    box: tuple[float, float, float, float]
    probability: float | None
    score: float


class ScoredFrame(NamedTuple):
    """A frame and who is in it.

    Attributes:
        time_s: that it was pushed with.
        faces: in order of id.
        begins_shot: whether a shot was found to begin with it, or all began anew.
    """

    time_s: float
    faces: tuple[ScoredFace, ...]
    begins_shot: bool = False


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a line."""
    return json.loads(files("core.live").joinpath("live.schema.json").read_text(encoding="utf-8"))


def as_plain(frame: ScoredFrame) -> dict[str, Any]:
    """A frame as `core/live/live.schema.json` describes it."""
    faces = [
        {
            "id": face.id,
            "box": [round(edge, BOX_DECIMALS) for edge in face.box],
            "probability": None if face.probability is None else _rounded(face.probability),
        }
        for face in frame.faces
    ]
    return {"time": round(frame.time_s, TIME_DECIMALS), "faces": faces}


def as_line(frame: ScoredFrame) -> str:
    """`as_plain` as JSON, without a newline."""
    return json.dumps(as_plain(frame), separators=(",", ":"))


def _rounded(probability: float) -> float:
    return kept_apart(np.array([probability]), SPEAKING_THRESHOLD, PROBABILITY_DECIMALS)[0]
