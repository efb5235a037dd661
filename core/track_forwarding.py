"""Encoders of whole tracks over whole splits: every track once, from end to end."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from core.features import VideoFeatures
from core.loading import load_batches
from core.models.track_encoder import TrackEncoder
from core.models.track_inference import FastTrackEncoder
from core.sampling import WholeTracks
from core.track_dataset import TrackDataset

EncodeTracks = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def track_encoder(model: TrackEncoder, device: torch.device, dtype: torch.dtype = torch.float32) -> EncodeTracks:
    """A network of whole tracks for evaluation: (mfcc, faces) -> (logits, video logits, features).

    Memory does not grow with the track but for the faces themselves, 12.5 kB each, and the results.

    Args:
        model: its weights are taken as they are now.
        device: where it runs.
        dtype: of the visual encoder, torch.float32 or torch.bfloat16.
    """
    fast = FastTrackEncoder(model, device, dtype)
    video_classifier = model.lossV.to(device).eval()

    @torch.inference_mode()
    def encode(mfcc: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        visual = fast.visual(faces)
        logits, features = fast.score(fast.audio(mfcc), visual)
        return logits, video_classifier.FC(visual), features

    return encode


def encode_tracks(
    encode: EncodeTracks,
    dataset: TrackDataset,
    rows: pd.DataFrame,
    device: torch.device,
    threads: int = 0,
    feature_type: str = "float16",
    description: str = "",
) -> Iterator[VideoFeatures]:
    """The encoder's output for every row of a split, video by video.

    Args:
        encode: the network in evaluation: (mfcc, faces) -> (logits, video logits, features), each (batch, time, ...).
        dataset: tracks of `rows`, not augmented.
        rows: annotations, sorted by video, entity and time.
        device: where `encode` runs.
        threads: loader threads.
        feature_type: NumPy's name of the type that features are kept in.
        description: what the progress bar says.
    """
    last_of_video = np.append(dataset.video_of_track[1:] != dataset.video_of_track[:-1], True)
    waiting: list[list[np.ndarray]] = []
    given = 0
    with tqdm(total=len(rows), desc=description, unit=" faces", disable=None) as bar:
        batches = load_batches(dataset, WholeTracks(dataset.lengths), threads, device)
        for batch, complete in zip(batches, last_of_video, strict=True):
            waiting.append([output[0].float().cpu().numpy() for output in encode(batch.mfcc, batch.faces)])
            bar.update(batch.labels.shape[1])
            if complete:
                joint, video, features = (np.concatenate(part) for part in zip(*waiting, strict=True))
                own = rows.iloc[given : given + len(joint)]
                yield VideoFeatures(own, joint, None, video, features.astype(feature_type))
                waiting, given = [], given + len(joint)
