"""Items made ahead and calls made behind by a thread: order, errors, stopping early."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from core.parallel.readahead import CallsBehind, read_ahead

ROOT = Path(__file__).parents[1]


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


def test_calls_are_made_in_order_by_another_thread_while_their_caller_goes_on():
    go, made = threading.Event(), []
    calls = CallsBehind(depth=9)
    calls.add(go.wait, 5)
    for number in range(4):
        calls.add(lambda number: made.append((number, threading.current_thread())), number)
    assert made == []
    go.set()
    calls.finish()
    calls.close()
    assert [number for number, _ in made] == [0, 1, 2, 3]
    assert threading.current_thread() not in dict(made).values()


def test_no_more_calls_wait_than_the_depth():
    go, added = threading.Event(), []
    calls = CallsBehind(depth=2)

    def add():
        for number in range(4):
            calls.add(go.wait, 5)
            added.append(number)

    adding = threading.Thread(target=add)
    adding.start()
    adding.join(0.2)
    assert added == [0, 1]
    go.set()
    adding.join(5)
    assert added == [0, 1, 2, 3]
    calls.close()


def test_an_error_of_a_call_is_raised_at_the_latest_in_the_end():
    go = threading.Event()
    calls = CallsBehind(depth=9)
    calls.add(go.wait, 5)
    calls.add(int, "broken")
    go.set()
    with pytest.raises(ValueError, match="broken"):
        calls.finish()
    calls.close()


def test_calls_that_have_not_begun_are_dropped_at_a_close():
    begun, go, made = threading.Event(), threading.Event(), []
    calls = CallsBehind(depth=9)
    calls.add(lambda: begun.set() or go.wait(5))
    calls.add(made.append, 1)
    begun.wait(5)
    threading.Timer(0.05, go.set).start()
    calls.close()
    assert made == []


def test_a_program_ends_whose_items_are_not_taken():
    program = "from core.parallel.readahead import read_ahead; ahead = read_ahead(iter(int, 1), 2); next(ahead); 1 / 0"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert b"ZeroDivisionError" in ended.stderr
