"""Which items make up which batch, in which process: a function of seed, epoch and rank, and of nothing else."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np

Key = tuple[int, int]  # (epoch, number of the item)
TrackKey = tuple[int, int, int]  # (epoch, number of the track, frames of it)

LEAST_FRAMES = 2  # a batch of one frame has no variance for a batch norm
LEAST_SHARE = 0.5  # a track never loses more than half of its frames to a shorter one


class Batches(ABC):
    """What a training is fed from: the keys of an epoch's batches, in the share of one process.

    Process r of n has the items r, r + n, ... of each global batch. In training there are no batches that have fewer
    items than there are processes, since each must take part in each step; a validation has all items, and no process
    is given a batch without any.

    Args:
        seed: of the order.
        rank, world_size: this process and how many there are.

    Attributes:
        epoch: that the next iteration is for.
    """

    def __init__(self, seed: int, rank: int, world_size: int):
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0

    @abstractmethod
    def _global_batches(self) -> Iterator[list[tuple[int, ...]]]:
        """The keys of all processes' batches, without the epoch."""

    @abstractmethod
    def global_sizes(self) -> list[int]:
        """How much each batch of an epoch holds in all processes together, in what the loss is a mean over."""

    def __len__(self) -> int:
        return len(self.global_sizes())

    def __iter__(self) -> Iterator[list[tuple[int, ...]]]:
        for batch in self._global_batches():
            if mine := batch[self.rank :: self.world_size]:
                yield [(self.epoch, *key) for key in mine]


class ShuffledBatches(Batches):
    """All numbers below `items`, in an order drawn anew each epoch, in batches; sizes are in items.

    A global batch is the same for any number of processes. A last batch too small to give every process an item is
    left out of shuffled ones.

    Args:
        items: how many items an epoch has.
        batch_size: items of a global batch.
        seed, rank, world_size: as `Batches`.
        shuffle: False, for validation, keeps the order of the numbers, and all of them.
    """

    def __init__(
        self, items: int, batch_size: int, seed: int = 0, rank: int = 0, world_size: int = 1, *, shuffle: bool = True
    ):
        super().__init__(seed, rank, world_size)
        self.items, self.batch_size, self.shuffle = items, batch_size, shuffle

    def global_sizes(self) -> list[int]:
        sizes = [self.batch_size] * (self.items // self.batch_size) + [self.items % self.batch_size]
        return [size for size in sizes if size >= (self.world_size if self.shuffle else 1)]

    def _global_batches(self) -> Iterator[list[tuple[int]]]:
        order = np.arange(self.items)
        if self.shuffle:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(order)
        for number, size in enumerate(self.global_sizes()):
            yield [(item,) for item in order[number * self.batch_size :][:size].tolist()]


class TrackBatches(Batches):
    """Batches of whole tracks or of pieces of them; sizes are in frames."""

    def global_sizes(self) -> list[int]:
        return [sum(frames for _, frames in batch) for batch in self._global_batches()]


class EqualLengthBatches(TrackBatches):
    """Pieces of tracks, equally long in a batch and about equally many frames a batch.

    Tracks are sorted by length and put together, longest first; each is cut to the shortest of its batch (published).
    Other than published, tracks of one length come together anew each epoch, none is cut to less than half for a
    shorter one, and one longer than a batch is cut to it, which bounds the memory a batch takes. Tracks of one frame
    are left out.

    A global batch is the same for any number of processes unless its tracks are so long that there would not be one
    for each. One with fewer tracks than processes is left out.

    Args:
        lengths: (track,) int, frames of each track.
        frames: that a global batch has at most.
        seed, rank, world_size: as `Batches`.
    """

    def __init__(self, lengths: np.ndarray, frames: int, seed: int = 0, rank: int = 0, world_size: int = 1):
        super().__init__(seed, rank, world_size)
        self.lengths = np.minimum(lengths, frames)
        self.usable = np.flatnonzero(self.lengths >= LEAST_FRAMES)
        self.groups = [group for group in self._groups(frames) if len(group) >= world_size]

    def _groups(self, frames: int) -> list[range]:
        """The tracks of each batch, as positions in the order of falling length."""
        falling = np.sort(self.lengths[self.usable])[::-1].tolist()
        groups, begin = [], 0
        while begin < len(falling):
            end = min(begin + max(frames // falling[begin], self.world_size), len(falling))
            while falling[end - 1] < LEAST_SHARE * falling[begin]:
                end -= 1
            groups.append(range(begin, end))
            begin = end
        return groups

    def _global_batches(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        drawn = rng.permutation(self.usable)
        order = drawn[np.argsort(-self.lengths[drawn], kind="stable")]
        for number in rng.permutation(len(self.groups)):
            tracks = order[self.groups[number].start : self.groups[number].stop].tolist()
            yield [(track, int(self.lengths[tracks[-1]])) for track in tracks]


class WholeTracks(TrackBatches):
    """Every track once, whole and in order, one at a time in each process; for validation.

    Args:
        lengths: (track,) int, frames of each track.
        rank, world_size: as `Batches`.
    """

    def __init__(self, lengths: np.ndarray, rank: int = 0, world_size: int = 1):
        super().__init__(0, rank, world_size)
        self.lengths = lengths

    def _global_batches(self) -> Iterator[list[tuple[int, int]]]:
        keys = enumerate(self.lengths.tolist())
        while batch := list(itertools.islice(keys, self.world_size)):
            yield batch


def row_batches(lengths: np.ndarray, rows: int, at_most: int = 1024) -> Iterator[list[Key]]:
    """All rows in order, whole tracks together, so that a crop shared by neighbouring windows is decoded once.

    Args:
        lengths: (track,) int, rows of each track.
        rows: how many rows a batch has at least (the last one excepted, and one before a track that does not fit) ...
        at_most: ... and at most; a longer track is cut.
    """
    cuts, end = [0], 0
    for length in lengths.tolist():
        if end + length - cuts[-1] > at_most:
            cuts.append(end)
        end += length
        cuts += range(cuts[-1] + at_most, end, at_most)
        if end - cuts[-1] >= rows:
            cuts.append(end)
    for first, stop in itertools.pairwise(sorted({*cuts, end})):
        yield [(0, row) for row in range(first, stop)]
