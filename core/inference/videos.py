"""An encoder's outputs for all rows of a split, put together video by video."""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from core.clip_utils import run_lengths
from core.formats.feature_store import VideoFeatures

# logits, audio logits, video logits, in step, features
Outputs = tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor]


def by_video(
    rows: pd.DataFrame, outputs: Iterable[Outputs], *, feature_type: str, description: str
) -> Iterator[VideoFeatures]:
    """Each video's features, as soon as the outputs for all its rows are there.

    Args:
        rows: annotations, sorted by video, entity and time.
        outputs: for all rows in this order, any number at a time: logits, audio logits (None where the encoder has no
            audio head) and video logits, each (row, [not speaking, speaking]), what `VideoFeatures.in_step` holds
            or None, and features (row, feature); on any device.
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
                waiting.append([None if part is None else part.float().cpu().numpy() for part in next(outputs)])
                held += len(waiting[-1][0])
                bar.update(len(waiting[-1][0]))
            joined = [None if parts[0] is None else np.concatenate(parts) for parts in zip(*waiting, strict=True)]
            *logits, in_step, features = (part if part is None else part[:length] for part in joined)
            own = rows.iloc[start : start + length]
            yield VideoFeatures(own, *logits, features.astype(feature_type), in_step)
            waiting = [[part if part is None else part[length:] for part in joined]]
            held -= length
