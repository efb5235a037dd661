"""Networks over whole splits: every row once, in batches that keep the processor busy."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from core.audio import batch_mfcc
from core.clip_utils import run_lengths
from core.dataset import ClipDataset, ContextDataset
from core.features import VideoFeatures
from core.loading import load_batches
from core.models.inference import ContextScorer
from core.sampling import TrackBatches
from core.transforms import stack

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


def encode_videos(
    encode: Encode,
    dataset: ClipDataset,
    rows: pd.DataFrame,
    device: torch.device,
    batch_size: int,
    threads: int = 0,
    feature_type: str = "float16",
    description: str = "",
) -> Iterator[VideoFeatures]:
    """The encoder's output for every row of a split, video by video.

    Args:
        encode: the network in evaluation: (audio, video) -> (logits, audio logits, video logits, features).
        dataset: clips around given rows of `rows`.
        rows: annotations, sorted by video, entity and time.
        device: where `encode` runs.
        batch_size: clips in the network at once.
        threads: loader threads.
        feature_type: NumPy's name of the type that features are kept in.
        description: what the progress bar says.
    """
    starts, lengths = run_lengths(rows["video_id"].to_numpy())
    batches = TrackBatches(dataset.track_starts, dataset.track_lengths, rows=8 * batch_size)
    waiting: list[list[np.ndarray]] = []
    with tqdm(total=len(rows), desc=description, unit=" faces", disable=None) as bar:
        video, given, held = 0, 0, 0
        for batch in load_batches(dataset, batches, threads, device):
            for window in torch.arange(len(batch.rows)).split(batch_size):
                audio = batch_mfcc(batch.sounds[0, window], batch.sound_lengths[0, window], dataset.mfcc_windows)
                outputs = encode(audio, stack(batch.frames[batch.windows[window]]))
                waiting.append([output.float().cpu().numpy() for output in outputs])
                held += len(window)
                bar.update(len(window))
            while video < len(starts) and given + held >= starts[video] + lengths[video]:
                av, audio_, video_, features = (np.concatenate(part) for part in zip(*waiting, strict=True))
                own = int(lengths[video])
                yield VideoFeatures(
                    rows.iloc[given : given + own],
                    av[:own],
                    audio_[:own],
                    video_[:own],
                    features[:own].astype(feature_type),
                )
                waiting = [[av[own:], audio_[own:], video_[own:], features[own:]]]
                video, given, held = video + 1, given + own, held - own


def score_contexts(
    scorer: ContextScorer, dataset: ContextDataset, rows: slice, batch_size: int, device: torch.device
) -> np.ndarray:
    """The context network's logits for every row of one video: (row, 2) float32.

    Each feature row is projected once, though it stands in up to clips x speakers contexts.

    Args:
        scorer: the context network in evaluation.
        dataset: contexts of the split.
        rows: the video's rows in the feature store; contexts never leave a video.
        batch_size: contexts at once.
        device: where the scorer runs.
    """
    projections = scorer.project(dataset.store.gather(np.arange(rows.start, rows.stop)).to(device))
    logits = []
    for start in range(rows.start, rows.stop, batch_size):
        targets = np.arange(start, min(start + batch_size, rows.stop))
        index = dataset.contexts(targets) - rows.start
        logits.append(scorer.logits(projections, torch.from_numpy(index).to(device)).float().cpu().numpy())
    return np.concatenate(logits)


def fingerprint(path: str | Path) -> str:
    """SHA-256 of a file, by which outputs remember the weights that made them."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
