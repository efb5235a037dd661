"""Batches prepared ahead by threads: in order, each once, with errors as they were raised."""

import threading
import time
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from core.inputs.loading import Batch, load_batches
from core.runtime.errors import UserError

CPU = torch.device("cpu")


@dataclass
class Numbers(Batch):
    values: Tensor


class Slow:
    """Later batches are ready sooner."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.threads: set[int] = set()

    def __getitems__(self, keys: list[tuple[int, int]]) -> Numbers:
        self.asked.append(keys[0][1])
        self.threads.add(threading.get_ident())
        time.sleep(0.01 / (1 + keys[0][1]))
        if keys[0][1] == 13:
            raise UserError("crop 13 is not an image")
        return Numbers(torch.tensor([number for _, number in keys]))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_batches_come_in_order_and_once(threads: int) -> None:
    keys = [[(0, 2 * n), (0, 2 * n + 1)] for n in range(6)]
    batches = list(load_batches(Slow(), keys, threads, CPU))
    assert [batch.values.tolist() for batch in batches] == [[2 * n, 2 * n + 1] for n in range(6)]


def test_threads_work_ahead_but_not_without_bound() -> None:
    dataset = Slow()
    batches = load_batches(dataset, [[(0, n)] for n in range(12)], 2, CPU)
    next(batches)
    time.sleep(0.2)
    assert 2 <= len(dataset.asked) <= 5  # two ahead for each of two threads, and the one given
    assert threading.get_ident() not in dataset.threads
    batches.close()


def test_an_error_keeps_its_words() -> None:
    with pytest.raises(UserError, match=r"^crop 13 is not an image$"):
        list(load_batches(Slow(), [[(0, n)] for n in (1, 13, 2)], 2, CPU))
