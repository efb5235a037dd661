"""An encoder's outputs for all rows of a split, put together video by video; whole-track encoders over a split."""

from collections.abc import Callable, Collection, Iterable, Iterator

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from core.clip_utils import run_lengths
from core.formats.feature_store import VideoFeatures
from core.inference.track_embedding import TrackEmbedder
from core.inference.voices import in_step
from core.inputs.loading import load_batches
from core.inputs.mfcc import track_heard
from core.track_dataset import TrackDataset

# logits, audio logits, video logits, in step, heard, features
Outputs = tuple[np.ndarray, np.ndarray | None, np.ndarray, np.ndarray | None, np.ndarray, np.ndarray]
EncodeTrack = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]


def by_video(
    rows: pd.DataFrame, outputs: Iterable[Outputs], *, feature_type: str, description: str
) -> Iterator[VideoFeatures]:
    """Each video's features, as soon as the outputs for all its rows are there.

    Args:
        rows: annotations, sorted by video, entity and time.
        outputs: for all rows in this order, any number at a time: logits, audio logits (None where the encoder has no
            audio head) and video logits, each (row, [not speaking, speaking]), what `VideoFeatures` holds as
            `in_step`, or None, and as `heard`, and features (row, feature); float32.
        feature_type: NumPy's name of the type that features are kept in.
        description: label of the progress bar; "" for none.
    """
    outputs = iter(outputs)
    waiting: list[list[np.ndarray | None]] = []
    held = 0
    hidden = None if description else True  # None: shown where there is a terminal
    with tqdm(total=len(rows), desc=description, unit=" faces", disable=hidden, leave=False) as bar:
        for start, length in zip(*run_lengths(rows["video_id"].to_numpy()), strict=True):
            while held < length:
                waiting.append(list(next(outputs)))
                held += len(waiting[-1][0])
                bar.update(len(waiting[-1][0]))
            joined = [None if parts[0] is None else np.concatenate(parts) for parts in zip(*waiting, strict=True)]
            *logits, in_step, heard, features = (part if part is None else part[:length] for part in joined)
            own = rows.iloc[start : start + length]
            yield VideoFeatures(own, *logits, features.astype(feature_type), in_step, heard)
            waiting = [[part if part is None else part[length:] for part in joined]]
            held -= length


def track_encoder(embedder: TrackEmbedder) -> EncodeTrack:
    """A network of whole tracks for evaluation: mfcc (4 * time, 13) float32 and faces (time, 112, 112) uint8 of one ->
    (logits, video logits, in step, heard, features), each (time, ...) float32.

    Memory does not grow with the track but for the faces themselves, 12.5 kB each, and the results.
    """

    def encode(mfcc: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, ...]:
        audio, visual = embedder.audio(mfcc[None]), embedder.visual(faces[None])
        [logits], [features] = embedder.score(audio, visual)
        video_logits, heard = embedder.video_logits(visual[0]), track_heard(mfcc)
        fits = in_step(embedder.rescore, audio[0], visual[0], video_logits, heard[:, 0])
        return logits, video_logits, fits, heard, features

    return encode


def encode_tracks(
    encode: EncodeTrack,
    dataset: TrackDataset,
    videos: Collection[str],
    *,
    threads: int = 0,
    feature_type: str = "float16",
    description: str = "",
) -> Iterator[VideoFeatures]:
    """The encoder's output for every row of some videos of a split, video by video.

    Args:
        encode: the network in evaluation, see `track_encoder`.
        dataset: tracks, not augmented.
        videos: ids of those that are wanted.
        threads: loader threads.
        feature_type: NumPy's name of the type that features are kept in.
        description: label of the progress bar.
    """
    wanted = dataset.rows["video_id"].isin(videos).to_numpy()
    tracks = np.flatnonzero(wanted[dataset.starts])

    def outputs() -> Iterator[Outputs]:
        batches = ([(0, track, int(dataset.lengths[track]))] for track in tracks.tolist())
        for batch in load_batches(dataset, batches, threads, torch.device("cpu")):
            logits, *others = encode(batch.mfcc[0].numpy(), batch.faces[0].numpy())
            yield logits, None, *others

    return by_video(dataset.rows[wanted], outputs(), feature_type=feature_type, description=description)
