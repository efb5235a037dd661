"""Which items make up which batch, in which process: a function of seed, epoch and rank, and of nothing else."""

from collections.abc import Iterator

import numpy as np

Key = tuple[int, int]  # (epoch, number of the item)


class ShuffledBatches:
    """All numbers below `items`, in an order drawn anew each epoch, in batches; the share of one process.

    A global batch is the same for any number of processes: process r of n takes its items r, r + n, ... A last batch
    too small to give every process an item is left out when there are several.

    Args:
        items: how many items an epoch has.
        batch_size: items of a global batch.
        seed: of the order.
        rank, world: this process and how many there are.
        shuffle: False keeps the order of the numbers.
    """

    def __init__(
        self, items: int, batch_size: int, seed: int = 0, rank: int = 0, world: int = 1, *, shuffle: bool = True
    ):
        self.items, self.batch_size, self.seed, self.rank, self.world = items, batch_size, seed, rank, world
        self.shuffle = shuffle
        self.epoch = 0

    def global_sizes(self) -> list[int]:
        """The sizes of the global batches of an epoch."""
        sizes = [self.batch_size] * (self.items // self.batch_size) + [self.items % self.batch_size]
        return [size for size in sizes if size >= self.world]

    def __len__(self) -> int:
        return len(self.global_sizes())

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.arange(self.items)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        for number in range(len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(self.epoch, int(item)) for item in batch[self.rank :: self.world]]


class TrackBatches:
    """All rows in order, whole tracks together, so that a crop shared by neighbouring windows is decoded once.

    Args:
        starts, lengths: (tracks,) int, where each track's rows begin and how many they are.
        rows: how many rows a batch has at least (the last one excepted) ...
        at_most: ... and at most; a longer track is cut.
    """

    def __init__(self, starts: np.ndarray, lengths: np.ndarray, rows: int, at_most: int = 1024):
        self.batches: list[tuple[int, int]] = []
        begin = end = int(starts[0]) if len(starts) else 0
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            if start != end or (end > begin and end + length - begin > at_most):  # a gap, or full
                self.batches.append((begin, end))
                begin = start
            end = start + length
            while end - begin > at_most:
                self.batches.append((begin, begin + at_most))
                begin += at_most
            if end - begin >= rows:
                self.batches.append((begin, end))
                begin = end
        if end > begin:
            self.batches.append((begin, end))
        self.batches = [(a, b) for a, b in self.batches if b > a]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Key]]:
        for begin, end in self.batches:
            yield [(0, row) for row in range(begin, end)]
