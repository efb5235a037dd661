"""The context network on every row of a video, and on the tracks of one shot, in pieces of bounded memory."""

from collections.abc import Sequence

import numpy as np
import torch

from core.clip_utils import GRID_FPS
from core.dataset import ContextDataset
from core.inputs.shots import TrackFeatures
from core.models.fast_context import ContextScorer

PIECE = 600 * GRID_FPS  # time steps scored at once
BATCH_SIZE = 1024


def score_contexts(
    scorer: ContextScorer, dataset: ContextDataset, rows: slice, *, batch_size: int, device: torch.device
) -> np.ndarray:
    """The context network's logits for every row of one video: (row, [not speaking, speaking]) float32.

    Each feature row is projected once, though it is part of up to clip_length * speakers contexts.

    Args:
        scorer: the context network in evaluation.
        dataset: contexts of the split.
        rows: the video's rows in the data set; contexts never leave a video.
        batch_size: contexts at once.
        device: where the scorer runs.
    """
    projections = scorer.project(torch.from_numpy(dataset.gather(np.arange(rows.start, rows.stop))).to(device))
    logits = []
    for start in range(rows.start, rows.stop, batch_size):
        targets = np.arange(start, min(start + batch_size, rows.stop))
        index = dataset.contexts(targets) - rows.start
        logits.append(scorer.logits(projections, torch.from_numpy(index).to(device)).float().cpu().numpy())
    return np.concatenate(logits)


def score_shot(
    scorer: ContextScorer, tracks: Sequence[TrackFeatures], shape: tuple[int, int, int], device: torch.device
) -> list[np.ndarray]:
    """The context network's logits for every face and time step of a shot.

    Args:
        scorer: the network in evaluation.
        tracks: the shot's faces; contexts are made of those visible at the same time step, as in `ContextDataset`.
        shape: time steps of a context, stride between them, speakers.
        device: where the scorer runs.

    Returns:
        (time step, [not speaking, speaking]) float32 for each track, in their order.
    """
    clip_length, stride, speakers = shape
    margin = clip_length // 2 * stride  # time steps on either side that a context draws on
    logits: list[list[np.ndarray]] = [[] for _ in tracks]
    begin, end = min(track.first for track in tracks), max(track.end for track in tracks)
    for piece in range(begin, end, PIECE):
        inside = [_between(track, piece - margin, piece + PIECE + margin) for track in tracks]
        present = [number for number, track in enumerate(inside) if len(track.features)]
        if not present:
            continue
        entities = np.repeat(present, [len(inside[number].features) for number in present])
        time_steps = np.concatenate([np.arange(inside[number].first, inside[number].end) for number in present])
        features = np.concatenate([inside[number].features for number in present])
        dataset = ContextDataset(
            entities,
            time_steps,
            features.__getitem__,
            clip_length=clip_length,
            stride=stride,
            speakers=speakers,
            random_speakers=False,
        )
        scored = score_contexts(scorer, dataset, slice(0, len(features)), batch_size=BATCH_SIZE, device=device)
        own = (time_steps >= piece) & (time_steps < piece + PIECE)
        for number in present:
            logits[number].append(scored[own & (entities == number)])
    return [np.concatenate(parts) for parts in logits]


def _between(track: TrackFeatures, first: int, end: int) -> TrackFeatures:
    """The time steps `first` to `end` (exclusive) of a track, as far as it has them."""
    first, end = max(first, track.first), min(end, track.end)
    return TrackFeatures(first, track.features[first - track.first : max(first, end) - track.first])
