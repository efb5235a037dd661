"""Scoring faces with the context network, as ASC_forward.py does: from the feature store to csv files of logits.

Random weights: the speed does not depend on them. Opening the features and writing are included; contexts of 11
time steps, every 4th row, 3 speakers; the batch size is that of core/config.py.
"""

import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import material
from benchmarks.measure import Result
from core.config import ASC_forward_params
from core.dataset import ContextDataset
from core.formats.context_logits import write_logits
from core.formats.feature_store import FeatureStore
from core.inference.contexts import score_contexts
from core.models import ASC_Net
from core.models.fast_context import ContextScorer

ROWS, VIDEOS = 20_000, 4
SHAPE = {"clip_length": 11, "skip_frames": 4, "speakers": 3}
COMPARED = 512  # contexts that the plain network scores as well
PUBLISHED_ROWS_PER_S = 228
TARGET_ROWS_PER_S = 30 * PUBLISHED_ROWS_PER_S
TARGET_DEVIATION = 1e-4
CPU = torch.device("cpu")


def results(folder: Path, repeats: int = 3, threads: int = 2, rows: int = ROWS) -> list[Result]:
    """The benchmark's lines; the features and the logits are made in `folder`."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    features = folder / f"features-{rows}"
    material.feature_store(features, rows, VIDEOS)
    network = ASC_Net(SHAPE["clip_length"], SHAPE["speakers"])
    deviation = _deviation(network, FeatureStore(features))
    scorer = ContextScorer(network)
    runs = [_forward(scorer, features, folder / "logits") for _ in range(repeats)]
    name = f"features to logits, {threads} threads, rows/s"
    return [
        Result(name, runs, PUBLISHED_ROWS_PER_S, TARGET_ROWS_PER_S),
        Result("largest deviation from the plain network", [deviation], None, TARGET_DEVIATION, at_most=True),
    ]


def _contexts(store: FeatureStore) -> ContextDataset:
    return ContextDataset.of(store, SHAPE, random_speakers=False)


def _forward(scorer: ContextScorer, features: Path, out: Path) -> float:
    """Rows per second, everything included."""
    start = time.perf_counter()
    store = FeatureStore(features)
    dataset = _contexts(store)
    for video, rows in store.videos.items():
        logits = score_contexts(scorer, dataset, rows, batch_size=ASC_forward_params["batch_size"], device=CPU)
        write_logits(out, video, store.entity_ids[rows], store.timestamps[rows], logits)
    return len(store) / (time.perf_counter() - start)


def _deviation(network: nn.Module, store: FeatureStore) -> float:
    """Largest difference of logits; the batch norms first get the statistics of what they see."""
    dataset, first = _contexts(store), next(iter(store.videos.values()))
    targets = np.linspace(first.start, first.stop - 1, COMPARED).astype(int)
    batch = dataset.__getitems__([(0, int(target)) for target in targets])
    x = batch.features[batch.index].permute(0, 3, 1, 2).float()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(x)
        plain = network.eval()(x).numpy()
    logits = score_contexts(ContextScorer(network), dataset, first, batch_size=1024, device=CPU)
    return float(np.abs(logits[targets] - plain).max())
