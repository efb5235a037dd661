"""Which items make up which batch, for any number of processes."""

import itertools

import numpy as np
import pytest

from core.inputs.sampling import EqualLengthBatches, ShuffledBatches, WholeTracks, row_batches


def numbers(sampler: ShuffledBatches) -> list[list[int]]:
    return [[number for _, number in batch] for batch in sampler]


def chain(batches: list[list[int]]) -> list[int]:
    return list(itertools.chain.from_iterable(batches))


def of_all_processes(world_size: int, **arguments) -> list[list[int]]:
    """The global batches: each process's share, the items of a batch put together in the order of one process."""
    samplers = [ShuffledBatches(rank=rank, world_size=world_size, **arguments) for rank in range(world_size)]
    shares = [numbers(sampler) for sampler in samplers]
    assert len({*map(len, shares), *map(len, samplers)}) == 1  # else a process would wait for ever
    assert all(map(all, shares))  # and none gets an empty share
    batches = []
    for parts in zip(*shares, strict=True):
        batch = [None] * sum(map(len, parts))
        for rank, part in enumerate(parts):
            batch[rank::world_size] = part
        batches.append(batch)
    assert all(sampler.global_sizes() == [len(batch) for batch in batches] for sampler in samplers)
    return batches


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize(("items", "batch_size"), [(64, 16), (67, 16), (70, 13), (5, 8), (2, 8), (22, 5), (23, 5)])
def test_the_same_global_batches_for_any_number_of_processes(world_size, items, batch_size):
    alone = of_all_processes(1, items=items, batch_size=batch_size, seed=3)
    assert sorted(chain(alone)) == list(range(items))
    shared = of_all_processes(world_size, items=items, batch_size=batch_size, seed=3)
    assert shared == [batch for batch in alone if len(batch) >= world_size]


def test_order_depends_on_seed_and_epoch_alone():
    sampler = ShuffledBatches(items=40, batch_size=10, seed=1)
    first = numbers(sampler)
    assert numbers(sampler) == first
    sampler.epoch = 1
    second = numbers(sampler)
    assert second != first
    assert sorted(chain(second)) == list(range(40))
    again = ShuffledBatches(items=40, batch_size=10, seed=1)
    again.epoch = 1  # without an epoch 0 before, as after an interrupt
    assert numbers(again) == second
    assert numbers(ShuffledBatches(items=40, batch_size=10, seed=2)) != first


def test_keys_carry_the_epoch_and_order_can_be_kept():
    sampler = ShuffledBatches(items=5, batch_size=3, shuffle=False)
    sampler.epoch = 7
    assert list(sampler) == [[(7, 0), (7, 1), (7, 2)], [(7, 3), (7, 4)]]


# ---------------------------------------------------------------- whole tracks


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([3, 3, 3, 5, 1], [6, 8, 1]),  # together until the batch is large enough
        ([4, 9], [4, 9]),  # a track that does not fit begins a batch
        ([2, 25, 2], [2, 10, 10, 7]),  # a long one is cut
        ([], []),
    ],
)
def test_batches_of_rows_keep_tracks_together(lengths, sizes):
    assert [len(batch) for batch in row_batches(np.array(lengths), rows=6, at_most=10)] == sizes


def test_every_row_once_in_order_and_no_track_cut_without_need():
    rng = np.random.default_rng(0)
    for _ in range(200):
        lengths = rng.integers(1, rng.integers(2, 60), size=rng.integers(1, 20))
        rows, at_most = int(rng.integers(1, 40)), int(rng.integers(10, 50))
        batches = numbers(row_batches(lengths, rows, at_most))
        assert chain(batches) == list(range(lengths.sum()))
        assert max(map(len, batches)) <= at_most
        track = np.repeat(np.arange(len(lengths)), lengths)
        for before, after in itertools.pairwise(batches):
            cut = track[before[-1]] == track[after[0]]
            assert not cut or lengths[track[after[0]]] > at_most
            if not cut:  # then it was large enough, or the next track would not have fitted
                assert len(before) >= rows or len(before) + lengths[track[after[0]]] > at_most


# ---------------------------------------------------------------- whole tracks of equal length


def lengths_at_random(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(1, rng.integers(3, 400), size=rng.integers(1, 60))


def test_tracks_are_grouped_by_length_and_cut_to_the_shortest():
    lengths = np.array([10, 30, 12, 29, 11, 40])
    sampler = EqualLengthBatches(lengths, frames=60)
    batches = {tuple(sorted(track for _, track, _ in batch)): batch[0][2] for batch in sampler}
    assert batches == {(5,): 40, (1, 3): 29, (0, 2, 4): 10}  # of one track of 40, two of 30, up to five of 12
    assert sorted(sampler.global_sizes()) == [30, 40, 58]


def test_a_long_track_is_cut_to_the_batch_and_a_short_one_cuts_none_to_less_than_half():
    sampler = EqualLengthBatches(np.array([500, 9, 8, 4, 3, 1]), frames=100)
    batches = sorted([track for _, track, _ in batch] + [frames for *_, frames in batch[:1]] for batch in sampler)
    assert batches in ([[0, 100], [1, 2, 8], [3, 4, 3]], [[0, 100], [1, 2, 8], [4, 3, 3]])  # track 5 is one frame
    assert len(sampler) == 3


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_batches_of_tracks_are_equally_long_and_bounded(world_size):
    for seed in range(60):
        lengths, frames = lengths_at_random(seed), 150
        samplers = [EqualLengthBatches(lengths, frames, seed, rank, world_size) for rank in range(world_size)]
        seen = []
        sizes = samplers[0].global_sizes()
        for parts, size in zip(zip(*samplers, strict=True), sizes, strict=True):
            tracks = [track for part in parts for _, track, _ in part]
            (common,) = {frames for part in parts for *_, frames in part}
            assert all(parts)  # else a process would have nothing to do
            assert size == common * len(tracks)
            longest = min(lengths[tracks].max(), frames)
            assert common == min(lengths[tracks].min(), frames)
            assert common >= 2
            assert 2 * common >= longest
            assert len(tracks) <= max(frames // longest, world_size)
            seen += tracks
        assert len(set(seen)) == len(seen)
        if world_size == 1:
            assert sorted(seen) == np.flatnonzero(lengths >= 2).tolist()


def test_the_same_batches_of_tracks_for_any_number_of_processes():
    lengths = lengths_at_random(5)
    alone = [batch for batch in EqualLengthBatches(lengths, 2000, seed=1) if len(batch) >= 2]
    shares = [list(EqualLengthBatches(lengths, 2000, 1, rank, 2)) for rank in range(2)]
    assert sorted(sorted(one + other) for one, other in zip(*shares, strict=True)) == sorted(map(sorted, alone))


def test_tracks_of_one_length_meet_anew_in_each_epoch():
    sampler = EqualLengthBatches(np.full(12, 20), frames=80, seed=1)

    def groups(epoch: int) -> list[list[int]]:
        sampler.epoch = epoch
        keys = list(sampler)
        assert {key[::2] for batch in keys for key in batch} == {(epoch, 20)}
        return [[track for _, track, _ in batch] for batch in keys]

    first = groups(1)
    assert [len(group) for group in first] == [4, 4, 4]
    assert groups(2) != first
    assert groups(1) == first
    assert [[track for _, track, _ in batch] for batch in EqualLengthBatches(np.full(12, 20), 80, seed=2)] != first


def test_whole_tracks_come_in_order():
    lengths = np.array([5, 1, 7, 3, 4])
    assert list(WholeTracks(lengths)) == [[(0, track, length)] for track, length in enumerate(lengths)]
    assert WholeTracks(lengths).global_sizes() == [5, 1, 7, 3, 4]
    shares = [WholeTracks(lengths, rank, 2) for rank in range(2)]
    assert [list(share) for share in shares] == [[[(0, 0, 5)], [(0, 2, 7)], [(0, 4, 4)]], [[(0, 1, 1)], [(0, 3, 3)]]]
    assert shares[0].global_sizes() == shares[1].global_sizes() == [6, 10, 4]
