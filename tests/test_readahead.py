"""Items made ahead by a thread: order, errors, stopping early."""

import threading
import time

import pytest

from core.runtime.readahead import read_ahead


@pytest.mark.parametrize(("count", "depth"), [(100, 3), (1, 3), (0, 1)])
def test_items_come_in_order(count, depth):
    assert list(read_ahead(range(count), depth)) == list(range(count))


def test_items_are_made_in_another_thread_before_they_are_asked_for():
    made = []

    def items():
        for number in range(9):
            made.append((number, threading.current_thread()))
            yield number

    ahead = read_ahead(items(), depth=2)
    assert next(ahead) == 0
    deadline = time.monotonic() + 5
    while len(made) < 3 and time.monotonic() < deadline:  # two wait, one is taken
        time.sleep(0.01)
    assert [number for number, _ in made] == [0, 1, 2]
    assert all(thread is not threading.current_thread() for _, thread in made)
    ahead.close()


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
