"""Which items make up which batch, in which process: a function of seed, epoch and rank, and of nothing else."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

Key = tuple[int, int]  # (epoch, number of the item)
TrackKey = tuple[int, int, int]  # (epoch, number of the track, frames of it)

LEAST_FRAMES = 2  # a batch of one frame has no variance for a batch norm
LEAST_SHARE = 0.5  # a track never loses more than half of its frames to a shorter one


class Batches(Protocol):
    """What a training is fed from: the keys of an epoch's batches, in the share of one process."""

    epoch: int

    def global_sizes(self) -> list[int]:
        """How much each batch of an epoch holds in all processes together, in what the loss is a mean over."""
        ...

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]: ...


class ShuffledBatches:
    """All numbers below `items`, in an order drawn anew each epoch, in batches; the share of one process.

    A global batch is the same for any number of processes: process r of n takes its items r, r + n, ... A last batch
    too small to give every process an item is left out when there are several.

    Args:
        items: how many items an epoch has.
        batch_size: items of a global batch.
        seed: of the order.
        rank, world_size: this process and how many there are.
        shuffle: False keeps the order of the numbers.
    """

    def __init__(
        self, items: int, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1, *, shuffle: bool = True
    ):
        self.items, self.batch_size, self.seed, self.rank, self.world_size = items, batch_size, seed, rank, world_size
        self.shuffle = shuffle
        self.epoch = 0

    def global_sizes(self) -> list[int]:
        """The sizes of the global batches of an epoch."""
        sizes = [self.batch_size] * (self.items // self.batch_size) + [self.items % self.batch_size]
        return [size for size in sizes if size >= self.world_size]

    def __len__(self) -> int:
        return len(self.global_sizes())

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.arange(self.items)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        for number in range(len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield [(self.epoch, int(item)) for item in batch[self.rank :: self.world_size]]


class EqualLengthBatches:
    """Pieces of tracks, equally long in a batch and about equally many frames a batch; the share of one process.

    Tracks are sorted by length and put together, longest first; each is cut to the shortest of its batch (published).
    Other than published, tracks of one length come together anew each epoch, none is cut to less than half for a
    shorter one, and one longer than a batch is cut to it, which bounds the memory a batch takes. Tracks of one frame
    are left out.

    A global batch is the same for any number of processes unless its tracks are so long that there would not be one
    for each; process r of n takes its tracks r, r + n, ... One with fewer tracks than processes is left out.

    Args:
        lengths: (tracks,) int, frames of each track.
        frames: that a global batch has at most.
        seed: of the order.
        rank, world_size: this process and how many there are.
    """

    def __init__(self, lengths: np.ndarray, frames: int, seed: int = 0, rank: int = 0, world_size: int = 1):
        self.lengths, self.seed, self.rank, self.world_size = np.minimum(lengths, frames), seed, rank, world_size
        self.epoch = 0
        self.usable = np.flatnonzero(self.lengths >= LEAST_FRAMES)
        self.groups = [group for group in self._groups(frames) if len(group) >= world_size]

    def _groups(self, frames: int) -> list[range]:
        """The tracks of each batch, as places in the order of falling length."""
        falling = np.sort(self.lengths[self.usable])[::-1].tolist()
        groups, begin = [], 0
        while begin < len(falling):
            end = min(begin + max(frames // falling[begin], self.world_size), len(falling))
            while falling[end - 1] < LEAST_SHARE * falling[begin]:
                end -= 1
            groups.append(range(begin, end))
            begin = end
        return groups

    def global_sizes(self) -> list[int]:
        """The frames of the global batches of an epoch, in its order."""
        return [len(tracks) * frames for tracks, frames in self._global_batches()]

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[list[TrackKey]]:
        for tracks, frames in self._global_batches():
            yield [(self.epoch, track, frames) for track in tracks[self.rank :: self.world_size]]

    def _global_batches(self) -> list[tuple[list[int], int]]:
        """The tracks of each batch and the frames that each is cut to."""
        rng = np.random.default_rng((self.seed, self.epoch))
        drawn = rng.permutation(self.usable)
        order = drawn[np.argsort(-self.lengths[drawn], kind="stable")]
        batches = [order[group.start : group.stop] for group in self.groups]
        return [
            (batches[number].tolist(), int(self.lengths[batches[number][-1]]))
            for number in rng.permutation(len(batches))
        ]


class WholeTracks:
    """Every track once, whole and in order, one at a time in each process.

    The last tracks are left out where they are too few to give every process one, as in `ShuffledBatches`.

    Args:
        lengths: (tracks,) int, frames of each track.
        rank, world_size: this process and how many there are; it has the tracks rank, rank + world_size, ...
    """

    def __init__(self, lengths: np.ndarray, rank: int = 0, world_size: int = 1):
        self.lengths, self.rank, self.world_size = (
            lengths[: len(lengths) // world_size * world_size].tolist(),
            rank,
            world_size,
        )
        self.epoch = 0

    def global_sizes(self) -> list[int]:
        """The frames that all processes together have at a time."""
        return [
            sum(self.lengths[start : start + self.world_size]) for start in range(0, len(self.lengths), self.world_size)
        ]

    def __len__(self) -> int:
        return len(self.lengths) // self.world_size

    def __iter__(self) -> Iterator[list[TrackKey]]:
        for track in range(self.rank, len(self.lengths), self.world_size):
            yield [(self.epoch, track, self.lengths[track])]


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
