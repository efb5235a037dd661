"""Items made ahead by a thread, and calls made behind by one, so that steps of a stream run side by side."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
END = object()


def read_ahead(items: Iterable[Item], depth: int) -> Iterator[Item]:
    """The items of an iterable, in order, up to `depth` of them made by a thread before they are asked for.

    An exception of the iterable is raised here, after the items before it. When the caller stops early, the thread
    ends after the item that it is making.
    """
    iterator = iter(items)
    thread = ThreadPoolExecutor(1, "read ahead")
    waiting = deque(thread.submit(next, iterator, END) for _ in range(depth))
    try:
        while (item := waiting.popleft().result()) is not END:
            waiting.append(thread.submit(next, iterator, END))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)


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
