"""Forwarding faces through the encoder, as STE_forward.py does: from packed crops and wavs to the feature store.

Random weights: the speed does not depend on them. Decoding, MFCC and writing are included; batch size and workers are
those of core/config.py.
"""

import time
from pathlib import Path

import torch

from benchmarks import material
from benchmarks.measure import Result
from core.config import STE_forward_params
from core.dataset import ClipDataset
from core.formats.feature_store import write_features
from core.inference.clips import Encode, encode_videos
from core.inference.engine import DTYPES, in_pytorch
from core.models import resnet18_two_streams

CPU = torch.device("cpu")
VIDEO_S = 8  # 600 faces
CLIP_LENGTH = 11
PUBLISHED_FACES_PER_S = 17.8
PUBLISHED_BYTES = 10_900  # a row of the published csv
TARGET_FACES_PER_S = 3 * PUBLISHED_FACES_PER_S
TARGET_BYTES = 2_200


def results(folder: Path, repeats: int = 2, threads: int = 2) -> list[Result]:
    """The benchmark's lines; the data set and the features are made in `folder`."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows = material.prepared(folder / "short", VIDEO_S)
    dataset = ClipDataset(
        rows, folder / "short" / "crops", folder / "short" / "audio", clip_length=CLIP_LENGTH, random_centres=False
    )
    model = resnet18_two_streams(rgb_stack_size=CLIP_LENGTH)

    lines = []
    for precision, target in (("fp32", TARGET_FACES_PER_S), ("bf16", None)):
        encode = in_pytorch(model, CPU, precision)
        name = f"crops to features, {DTYPES[precision]}, {threads} threads, faces/s"
        runs = [_forward(encode, dataset, folder / "features") for _ in range(repeats)]
        lines.append(Result(name, runs, PUBLISHED_FACES_PER_S, target))
    size = (folder / "features" / "textured.arrow").stat().st_size / len(rows)
    return [
        *lines,
        Result("bytes on disk per row of features", [size], PUBLISHED_BYTES, TARGET_BYTES, at_most=True),
    ]


def _forward(encode: Encode, dataset: ClipDataset, folder: Path) -> float:
    """Faces per second, everything included."""
    params = STE_forward_params
    options = {name: params[name] for name in ("batch_size", "threads", "feature_type")}
    start = time.perf_counter()
    for video in encode_videos(encode, dataset, dataset.rows["video_id"].unique(), device=CPU, **options):
        write_features(folder, video)
    return len(dataset) / (time.perf_counter() - start)
