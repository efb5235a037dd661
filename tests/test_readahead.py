"""Items made ahead by a thread: order, errors, stopping early."""

import threading
import time

import pytest

from core.runtime.readahead import read_ahead


def test_items_come_in_order():
    assert list(read_ahead(range(100), depth=3)) == list(range(100))


def test_no_items():
    assert list(read_ahead([], depth=1)) == []


def test_items_are_made_in_another_thread_before_they_are_asked_for():
    made = []

    def items():
        for number in range(5):
            made.append((number, threading.current_thread()))
            yield number

    ahead = read_ahead(items(), depth=2)
    assert next(ahead) == 0
    deadline = time.monotonic() + 5
    while len(made) < 4 and time.monotonic() < deadline:  # two in the queue, one waiting to be put, one taken
        time.sleep(0.01)
    assert [number for number, _ in made] == [0, 1, 2, 3]
    assert all(thread is not threading.current_thread() for _, thread in made)


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("broken")

    ahead = read_ahead(items(), depth=4)
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ahead)


def test_the_thread_ends_when_the_caller_stops():
    before = threading.active_count()
    ahead = read_ahead(iter(int, 1), depth=2)  # zeros without end
    assert next(ahead) == 0
    assert threading.active_count() == before + 1
    ahead.close()
    assert threading.active_count() == before
