"""Contexts for the context network's training: opening the features, and contexts per second from the data set.

100,000 rows of 1,024 float16 features in 20 videos; contexts of 11 time steps, every 4th row, 3 speakers drawn anew, in
shuffled batches of 64. What comes out is what goes to the device: each feature row once, and the contexts' indices.
"""

import itertools
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import psutil
import torch

from benchmarks import material, measure
from benchmarks.measure import Result
from core.dataset import ContextDataset
from core.formats.feature_store import FeatureStore
from core.inputs.loading import load_batches
from core.inputs.sampling import Key, ShuffledBatches

ROWS, VIDEOS = 100_000, 20
SHAPE = {"clip_length": 11, "skip_frames": 4, "speakers": 3}
BATCH = 64
PUBLISHED_ROWS_PER_S = 3_780  # when opening
PUBLISHED_BYTES_PER_ROW = 8_700  # of memory
PUBLISHED_ITEMS = 9_100  # contexts per second from __getitem__
CPU = torch.device("cpu")
PUBLISHED_LOADER = 3_700  # through a DataLoader
TARGET_S, TARGET_MB = 1.0, 100.0
TARGET_CONTEXTS = 30 * PUBLISHED_LOADER


def results(folder: Path, repeats: int = 3, rows: int = ROWS) -> list[Result]:
    """The benchmark's lines; the features are made in `folder`."""
    features = folder / f"features-{rows}"
    measure.in_child(material.feature_store, features, rows, VIDEOS)
    opened = [measure.in_child(_open, features) for _ in range(repeats)]
    opening_s, grown_mb = zip(*opened, strict=True)
    published_s, published_mb = rows / PUBLISHED_ROWS_PER_S, rows * PUBLISHED_BYTES_PER_ROW / measure.MB
    lines = [
        Result(f"opening {rows:,} rows of features, s", opening_s, published_s, TARGET_S, at_most=True),
        Result(f"memory of {rows:,} open rows, MB", grown_mb, published_mb, TARGET_MB, at_most=True),
    ]
    store = FeatureStore(features)
    dataset = ContextDataset.of(store, SHAPE, random_speakers=True)
    for epoch in range(2):  # the first reading of a file maps it
        for keys in _epoch(len(dataset), epoch):
            dataset.__getitems__(keys)
    runs = measure.rates(lambda: (len(dataset.__getitems__(keys).labels) for keys in _epochs(len(dataset))), repeats)
    lines.append(Result("from the data set, contexts/s", runs, PUBLISHED_ITEMS, TARGET_CONTEXTS))
    for threads, target in ((0, TARGET_CONTEXTS), (2, None)):

        def sizes(threads: int = threads) -> Generator[int, None, None]:
            return (len(batch.labels) for batch in load_batches(dataset, _epochs(len(dataset)), threads, CPU))

        runs = measure.rates(sizes, repeats)
        lines.append(Result(f"prepared ahead by {threads} threads, contexts/s", runs, PUBLISHED_LOADER, target))
    return lines


def _open(features: Path) -> tuple[float, float]:
    """Seconds, and megabytes that stay in memory."""
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    opened = []
    elapsed = measure.seconds(lambda: opened.append(FeatureStore(features)))
    return elapsed, (process.memory_info().rss - before) / measure.MB


def _epoch(items: int, epoch: int) -> ShuffledBatches:
    batches = ShuffledBatches(items, BATCH)
    batches.epoch = epoch
    return batches


def _epochs(items: int) -> Iterator[list[Key]]:
    """Batches without end, of one epoch after the other."""
    return (keys for epoch in itertools.count() for keys in _epoch(items, epoch))
