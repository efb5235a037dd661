"""Batches prepared ahead of time by threads.

Threads, not processes: what a batch takes (JPEG decoding, copying features) runs outside Python's lock, nothing has to
be copied between processes, an error keeps its own words, and nothing depends on how a system starts processes.
"""

import collections
import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from typing import Protocol, Self

import torch

AHEAD = 2  # batches prepared ahead by each thread


class Batch:
    """A dataclass of tensors that moves as one."""

    def to(self, device: torch.device) -> Self:
        """The same batch on another device; from pinned memory the copy runs beside the computation."""
        moved = {field.name: getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)}
        return type(self)(**moved)

    def pin_memory(self) -> Self:
        """Called by the data loader where the batch goes to a CUDA device."""
        return type(self)(**{field.name: getattr(self, field.name).pin_memory() for field in fields(self)})


class BatchDataset(Protocol):
    """A data set that makes whole batches, from several threads at once."""

    def __getitems__(self, keys: list[tuple[int, ...]]) -> Batch: ...


def load_batches(
    dataset: BatchDataset, batches: Iterable[list[tuple[int, ...]]], threads: int, device: torch.device
) -> Iterator[Batch]:
    """The data set's batches on a device, in order.

    Args:
        dataset: makes a batch from the keys of its items.
        batches: keys of each batch.
        threads: how many batches are prepared at once, beside the caller's work; 0 prepares each on request.
        device: where batches go; to a CUDA device the copy runs beside the computation.
    """

    def make(keys: list[tuple[int, ...]]) -> Batch:
        batch = dataset.__getitems__(keys)
        return batch.pin_memory() if device.type == "cuda" else batch

    if threads == 0:
        for keys in batches:
            yield make(keys).to(device)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        rest = iter(batches)
        waiting = collections.deque(pool.submit(make, keys) for keys in itertools.islice(rest, AHEAD * threads))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(pool.submit(make, keys) for keys in itertools.islice(rest, 1))
            yield batch.to(device)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
