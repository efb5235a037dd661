"""Items made ahead by a thread, and calls made behind by one, so that steps of a stream run side by side."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Event, Thread
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """The items of an iterable, in order, up to `depth` of them made by a thread before they are asked for.

    An exception of the iterable is raised here, after the items before it. When the caller stops early, the thread
    ends after the item that it is making.
    """
    # These queues take a fifth of the time of futures, which counts where items are many and quick.
    room, made, stopped = SimpleQueue(), SimpleQueue(), Event()

    def make() -> None:
        iterator = iter(items)
        try:
            while room.get() and not stopped.is_set():
                made.put((next(iterator), None))
        except BaseException as error:  # of the iterable; StopIteration at its end
            made.put((None, error))

    for _ in range(depth):
        room.put(True)
    # A caller who neither goes on nor closes this must not keep the program from ending.
    thread = Thread(target=make, name="read ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            room.put(True)
            yield item
    finally:
        stopped.set()
        room.put(False)
        thread.join()


class CallsBehind:
    """Calls made by a thread, one after the other, while their caller goes on.

    An exception of a call is raised by a later `add` or `finish`.

    Args:
        depth: calls that may wait; with more, `add` waits too.
    """

    def __init__(self, depth: int):
        self.depth = depth
        self._thread = ThreadPoolExecutor(1, "calls behind")
        self._waiting: deque[Future] = deque()

    def add(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function called, once all those before it are done."""
        self._waiting.append(self._thread.submit(function, *arguments))
        while len(self._waiting) > self.depth or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()

    def finish(self) -> None:
        """Wait for all calls."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Drop the calls that have not begun, and wait for the one that has."""
        self._thread.shutdown(cancel_futures=True)
