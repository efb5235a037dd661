"""Annotated tracks scored by an encoder, alone and with a context network: what benchmarks on given tracks share."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core.clip_utils import GRID_FPS
from core.detection.encoders import Encoder, open_encoder
from core.detection.face_tracks import TrackScorer
from core.evaluation.scores import speaking_probability
from core.formats import ava
from core.inputs.shots import TrackFeatures, seen_together
from core.media.container import MediaFile
from core.media.cropping import CropFunction, nearest_frames
from core.runtime.errors import UserError


@functools.cache
def encoder_of(name: str, weights: str | None, context: str, precision: str, cache: Path | None) -> Encoder:
    """An encoder, opened once in each process; arguments as `core.detection.ActiveSpeakerDetector` has them."""
    return open_encoder(
        name,
        weights,
        crop=None,
        ensemble=False,
        precision=precision,
        context=context,
        context_shape=(11, 4, 3),
        device="cpu",
        cache=cache,
    )


def read_tracks(annotations: Path) -> pd.DataFrame:
    """A video's annotations, sorted by entity and time, with time_s.

    Raises:
        UserError: the file cannot be used, or its rows are not 25 a second.
    """
    rows = ava.sort_tracks(ava.read_annotations(annotations))
    steps = np.diff(rows["time_s"])[np.diff(track_numbers(rows)) == 0] * GRID_FPS
    if (np.abs(steps - 1) > 0.5).any():
        raise UserError(f"{annotations}: faces are not annotated {GRID_FPS} times a second, as the networks need")
    return rows


def track_numbers(rows: pd.DataFrame) -> np.ndarray:
    """(row,) int64 number of each row's track, from 0, in order."""
    return pd.factorize(rows["entity_id"])[0]


def cut_faces(media: MediaFile, rows: pd.DataFrame, crop: CropFunction) -> Iterator[tuple[int, np.ndarray]]:
    """Decode a video once and give (row, its face as `crop` cuts it), in order of time.

    Raises:
        MediaError: the video cannot be decoded, or a row's time lies outside it.
    """
    boxes = ava.boxes(rows)
    for row, frame in nearest_frames(media, rows):
        yield row, crop(frame, boxes[row] * np.tile([frame.width, frame.height], 2))


def probabilities(encoder: Encoder, rows: pd.DataFrame, scorers: Sequence[TrackScorer]) -> tuple[np.ndarray, ...]:
    """The probability of speaking of each row: by the encoder alone and, where it has a context network, with that.

    Args:
        encoder: whose `start` made the scorers.
        rows: of one video, sorted.
        scorers: of its tracks in order, with all crops.

    Returns:
        One or two arrays, (row,) float64.
    """
    tracks, times = track_numbers(rows), rows["time_s"].to_numpy()
    logits, features = zip(*(scorer.finish() for scorer in scorers), strict=True)
    columns = [np.concatenate(logits)]
    if encoder.context is not None:
        columns.append(np.empty_like(columns[0]))
        for shot in seen_together(tracks, times):
            faces = [TrackFeatures(round(times[own[0]] * GRID_FPS), features[tracks[own[0]]]) for own in shot]
            for own, scored in zip(shot, encoder.context.scores(faces), strict=True):
                columns[1][own] = scored
    return tuple(speaking_probability(column, rows["entity_id"].to_numpy()) for column in columns)
