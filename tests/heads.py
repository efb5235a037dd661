"""Videos of drawn heads on grounds that show the number of the frame, and what detect.py would write about them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from detections import HEIGHT, WIDTH, detected, track
from videos import encode, grey

from core.detection.results import Person, Track
from core.media.container import MediaFile
from core.media.video import read_frames
from core.outputs.files import write_outputs

RED, GREEN = (230, 30, 30), (20, 200, 20)
RADIUS = 30


def head_track(
    id: int, times_s: np.ndarray, first: int, scores: Sequence[float], middles: np.ndarray, shot: int = 0
) -> Track:
    """A track around a head, as `detections.track`; middles: ([x, y],) or one a frame."""
    made = track(id, times_s, first, list(scores), shot=shot)
    middles = np.broadcast_to(np.asarray(middles, np.float32), (len(scores), 2))
    made.boxes[:] = np.concatenate([middles - RADIUS, middles + RADIUS], axis=1)
    return made


def draw(number: int, heads: dict[tuple[int, int, int], tuple[float, float]], width: int = WIDTH) -> np.ndarray:
    """A frame with a disc of each colour: (HEIGHT, width, 3) uint8."""
    frame = grey(number, width, HEIGHT)
    for colour, (x, y) in heads.items():
        cv2.circle(frame, (round(x * 16), round(y * 16)), RADIUS * 16, colour, -1, cv2.LINE_AA, 4)
    return frame


def disc(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float, int]:
    """x and y of the middle of what has about a colour, and how many pixels have; (nan, nan, 0) for none."""
    rows, columns = np.nonzero(np.abs(pixels.astype(int) - colour).max(axis=2) < 60)
    return (columns.mean(), rows.mean(), len(rows)) if len(rows) else (np.nan, np.nan, 0)


def shown(path: Path) -> list[np.ndarray]:
    """The frames of a video, (height, width, 3) uint8."""
    with MediaFile(path) as media:
        return [frame.rgb() for frame in read_frames(media)]


def results_of(
    folder: Path,
    frames: list[np.ndarray],
    tracks: list[Track],
    times_s: np.ndarray,
    *,
    audio: np.ndarray | None,
    persons: list[Person] | None = None,
    cuts: tuple[int, ...] = (),
    suffix: str = ".mp4",
    **options: float,
) -> Path:
    """Write a video and its `talk.asd`, which is given; options of `encode`."""
    path = encode(folder / f"talk{suffix}", frames, times_s, audio=audio, crf="12", **options)
    audio_s = None if audio is None else (0.0, 10.0)
    video = detected(tracks, times_s, path, persons=persons, cuts=cuts, audio_s=audio_s)
    write_outputs(folder / "talk.asd", video, ["json"])
    return folder / "talk.asd"
