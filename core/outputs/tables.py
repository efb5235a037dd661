"""Tables with a row for each face at each frame: tracks.csv, and predictions in the AVA format."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from core.detection.results import DetectedVideo
from core.runtime.errors import MediaError
from core.runtime.files import atomic_write, printable

PIXEL_DECIMALS = 2
TIME_DECIMALS = 6  # a microsecond, finer than any video's time base
FRACTION_DECIMALS = 6  # of AVA's boxes
AVA_TIME_DECIMALS = 2


@dataclass(frozen=True)
class FaceFrames:
    """All faces of a video at all their frames, track after track.

    Attributes:
        track_ids, frames: (n,) int64.
        times_s: (n,) float64.
        boxes: (n, [x1, y1, x2, y2]) float32, pixels of the displayed frame.
        scores, probabilities: (n,) float32; NaN without audio.
        speaking: (n,) bool.
    """

    track_ids: np.ndarray
    frames: np.ndarray
    times_s: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    speaking: np.ndarray


def face_frames(video: DetectedVideo) -> FaceFrames:
    """A video's tracks laid end to end, in order of id."""

    def joined(name: str, dtype: type, shape: tuple[int, ...] = (0,)) -> np.ndarray:
        return np.concatenate([np.empty(shape, dtype), *(getattr(track, name) for track in video.tracks)], dtype=dtype)

    return FaceFrames(
        track_ids=np.repeat(np.fromiter((track.id for track in video.tracks), np.int64), _lengths(video)),
        frames=joined("frames", np.int64),
        times_s=joined("times_s", np.float64),
        boxes=joined("boxes", np.float32, (0, 4)),
        scores=joined("scores", np.float32),
        probabilities=joined("probabilities", np.float32),
        speaking=joined("speaking", np.bool_),
    )


def write_tracks_csv(path: str | Path, video: DetectedVideo) -> None:
    """Write every face at every frame as a csv with header, sorted by track, then frame.

    Columns: frame (number of the video's own, from 0), time_s (presentation time), track_id, x1, y1, x2, y2 (pixels of
    the displayed frame), score (log odds of speaking; 0 is as likely as not), probability (1 / (1 + exp(-score))),
    speaking (1 from a probability of 0.5 on, else 0), context (file name of the network that corrected the score, in
    quotes; none where it is the encoder's own), person (the person's id; empty where persons were not told apart).
    Score and probability have as many digits as their float32 values need. Score, probability, speaking and context are
    empty where the video has no audio.
    """
    rows = face_frames(video)
    context = printable(video.settings["context"] or "none")
    unheard = np.isnan(rows.scores)
    person_of = video.person_of
    persons = np.array([person_of[track.id].id if person_of else 0 for track in video.tracks], np.int64)
    persons = np.repeat(persons, _lengths(video))
    columns = {
        "frame": _array(rows.frames),
        "time_s": _fixed(rows.times_s, TIME_DECIMALS),
        "track_id": _array(rows.track_ids),
        **{name: _fixed(rows.boxes[:, side], PIXEL_DECIMALS) for side, name in enumerate(("x1", "y1", "x2", "y2"))},
        "score": _array(rows.scores, unheard),
        "probability": _array(rows.probabilities, unheard),
        "speaking": _array(rows.speaking.astype(np.int8), unheard),
        "context": _repeated(context, unheard),
        "person": _array(persons, persons == 0),
    }
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        pa.csv.write_csv(pa.table(columns), file, pa.csv.WriteOptions(quoting_header="none"))


def write_ava_predictions(path: str | Path, video: DetectedVideo) -> None:
    """Write predictions in the official AVA-ActiveSpeaker format, fit for `evaluate.py`; no header.

    Columns as in `core.formats.official_csv.PREDICTION_COLUMNS`: the video's name without extension ("_" for characters
    that the format forbids), timestamp, box as fractions with 6 decimals, SPEAKING_AUDIBLE,
    `<video_id>_<start>_<end>:<track id>` with the whole seconds around the track's shot, the probability. Timestamps
    count from the file's beginning, as annotations do. They have AVA's 2 decimals where that is exact for all frames of
    the video and keeps them apart (25 or 50 frames per second, for example), else 6.

    Raises:
        MediaError: the video has no audio, so that there are no scores.
    """
    import pandas as pd  # here: it takes half a second to import

    from core.formats import ava
    from core.formats.official_csv import FORBIDDEN

    if video.audio_s is None:
        raise MediaError(f"{video.path} has no audio, so its faces have no scores to predict with: omit the format ava")
    rows, decimals = face_frames(video), _timestamp_decimals(video.frame_times_s - video.start_s)
    video_id = re.sub(FORBIDDEN, "_", printable(video.path.stem))
    entities = []
    for track in video.tracks:
        shot = video.shots[track.shot]
        start, end = math.floor(shot.start_s - video.start_s), math.ceil(shot.end_s - video.start_s)
        entities.append(f"{video_id}_{start:04d}_{end:04d}:{track.id}")
    fractions = rows.boxes.astype(np.float64) / np.tile([video.info.width, video.info.height], 2)
    columns = {
        "video_id": video_id,
        "frame_timestamp": _fixed_text(rows.times_s - video.start_s, decimals),
        **{name: _fixed_text(fractions[:, side], FRACTION_DECIMALS) for side, name in enumerate(ava.BOX_COLUMNS)},
        "label": ava.SPEAKING,
        "entity_id": np.repeat(np.array(entities, object), _lengths(video)),
    }
    ava.write_predictions(path, pd.DataFrame(columns), rows.probabilities)


def write_embeddings(path: str | Path, video: DetectedVideo) -> None:
    """Write the face embedding of each track, biometric data, as a csv with header: track_id, person, e0, e1, ...

    Each is a vector of length 1; the cosine of two says how likely they are of one person. A track that shows its face
    too badly has no row.

    Raises:
        MediaError: persons were not told apart.
    """
    if video.persons is None:
        raise MediaError(f"{video.path}: persons were not told apart, so there are no embeddings to write")
    person_of = video.person_of
    tracks = [track for track in video.tracks if track.embedding is not None]
    columns = {
        "track_id": pa.array([track.id for track in tracks], pa.int64()),
        "person": pa.array([person_of[track.id].id for track in tracks], pa.int64()),
        **{
            f"e{number}": pa.array(column)
            for number, column in enumerate(zip(*(t.embedding for t in tracks), strict=True))
        },
    }
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        pa.csv.write_csv(pa.table(columns), file, pa.csv.WriteOptions(quoting_header="none"))


def _timestamp_decimals(frame_times_s: np.ndarray) -> int:
    rounded = np.round(frame_times_s, AVA_TIME_DECIMALS)
    exact = np.allclose(rounded, frame_times_s, rtol=0, atol=0.5 * 10**-TIME_DECIMALS)
    return AVA_TIME_DECIMALS if exact else TIME_DECIMALS


def _fixed(values: np.ndarray, decimals: int) -> pa.Array:
    """Numbers as decimals, which Arrow writes with all their digits: 1.5 as 1.50."""
    return _array(values.astype(np.float64)).cast(pa.decimal128(18, decimals))


def _array(values: np.ndarray, unknown: np.ndarray | None = None) -> pa.Array:
    """Numbers (n,) in Arrow, null where they are unknown, (n,) bool. `pa.array` would load pandas."""
    known = None if unknown is None else _bits(~unknown)
    buffers = [known, pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), buffers)


def _repeated(text: str, unknown: np.ndarray) -> pa.Array:
    """A text in each of n rows in Arrow, null where it is unknown, (n,) bool."""
    encoded = text.encode()
    ends = len(encoded) * np.arange(len(unknown) + 1, dtype=np.int32)
    buffers = [_bits(~unknown), pa.py_buffer(ends), pa.py_buffer(encoded * len(unknown))]
    return pa.Array.from_buffers(pa.string(), len(unknown), buffers)


def _bits(known: np.ndarray) -> pa.Buffer:
    return pa.py_buffer(np.packbits(known, bitorder="little"))


def _fixed_text(values: np.ndarray, decimals: int) -> np.ndarray:
    return _fixed(values, decimals).cast(pa.string()).to_numpy(zero_copy_only=False)


def _lengths(video: DetectedVideo) -> np.ndarray:
    return np.fromiter((len(track.frames) for track in video.tracks), np.int64)
