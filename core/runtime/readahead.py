"""Items made ahead by a thread, so that steps of a stream run side by side."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
