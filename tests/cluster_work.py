"""What the nodes of a test's cluster do; apart, so that they find it and load nothing else for it."""

import os
import time
from collections.abc import Callable
from pathlib import Path


def node_id() -> str:
    import ray  # an optional extra

    return ray.get_runtime_context().get_node_id()


def end_the_worker(item: tuple[Path, int]) -> None:
    """End the worker at the first attempt; with number 2 at every attempt, with number 3 not."""
    folder, number = item
    begun = folder / f"{number}.begun"
    if number == 2 or (number != 3 and not begun.exists()):
        begun.touch()
        os._exit(1)
    (folder / str(number)).touch()


def divide(item: int) -> float:
    return 1 / item


def where(item: Path) -> None:
    item.write_text(node_id())


def meet(item: Path) -> None:
    """Write on which node this is, and wait up to a minute until another has, too: of nodes with a CPU each, two."""
    item.parent.mkdir(exist_ok=True)
    item.write_text(node_id())
    end = time.monotonic() + 60
    while len(list(item.parent.iterdir())) < 2 and time.monotonic() < end:
        time.sleep(0.05)


def begin_and_wait(item: tuple[Path, str, str]) -> None:
    """Say on which node an item is begun; end when there is a file "go", on the node that will be lost never."""
    folder, name, doomed = item
    here = node_id()
    (folder / f"{name}.{here}").touch()
    while here == doomed or not (folder / "go").exists():
        time.sleep(0.05)
    (folder / f"{name}.done").touch()


def with_number(kept: Callable[[], str], item: Path) -> None:
    item.write_text(kept())


def own_number() -> str:
    return f"{os.getpid()} {time.monotonic_ns()}"
