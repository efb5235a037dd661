"""A function over items on the nodes of a Ray cluster.

Each worker is an actor with a CPU, or with a share of a GPU besides, that gets the function once and then item after
item. There are as many as the nodes have room for, also while nodes come and go; an item whose worker is lost is given
to another. Nodes see the same paths as this machine, and have the same version of Python, of Ray and of this project,
which each finds where it is installed, or in the folder that the command was given in.
"""

import contextlib
import logging
import os
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from core.parallel.processes import attempt, one_thread_each
from core.runtime import elsewhere
from core.runtime.errors import UserError
from core.runtime.provenance import Files, checksums

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Else a call after the head is lost would look for another cluster, or begin one.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
try:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    raise UserError("--cluster needs Ray: pip install 'active-speakers-in-context[cluster]'") from None

Item = TypeVar("Item")
Job = tuple[str, Any, int]  # an item's name, the item, and how many workers were lost over it
MOST_LOST = 3  # workers, before it is the item that is taken for broken
MOST_UNSTARTED = 3  # workers that end before they are ready, one after the other
ANSWERS_S = 10  # within which there is a connection
STARTS = 3  # of what ray:// is served by: its process at times ends as it begins
HEAD_SILENT_S = 30  # Ray itself ends the process after 60
NO_NODE_S = 600  # waited for nodes to come back
LOOK_S = 1.0  # how often nodes are counted
REMOVED_S = 30  # within which nodes have removed their temporary files
PROJECT = Path(__file__).parents[2]
PACKAGES = ("core", "ava_asd")
STORE_BYTES = 256 << 20  # shared memory for items on their way, which are small; by default it is 30 % of the machine's
AGAIN = "what was finished is kept; run the same command again to go on"
EXPECTED = "Expected: auto (the cluster of this machine, or of RAY_ADDRESS), ray://HOST:PORT, or local"


def outcomes(
    function: Callable[[Item], object],
    items: Mapping[str, Item],
    address: str,
    *,
    gpus: float = 0,
    paths: Iterable[Path] = (),
) -> Iterator[tuple[str, str | None]]:
    """Call a function for each item on a cluster.

    An item is sent when a worker is free for it, so that this process holds no more of them than there are workers.

    Args:
        function, items: as of `map_videos`.
        address: "auto", "ray://HOST:PORT" or "local": this machine alone.
        gpus: what each worker takes of a GPU; 0 for a CPU alone.
        paths: what each node has to hold, and the folder that the command was given in where there are any.

    Yields:
        The item's name, and what is wrong with it or None, as soon as it is done.

    Raises:
        UserError: there is no such cluster, its versions are others, a node lacks a path or this project, no node has
            a GPU where one is asked for, or the head or all nodes are lost. Another exception of the function than
            MediaError is raised as it is.
    """
    if not items:
        return
    _connect(address)
    nodes = _Nodes(gpus)
    start = _Worker.options(num_cpus=1, num_gpus=gpus)
    places = [str(path.absolute()) for path in paths]
    if places:  # else all is elsewhere, and a node need not have this disk
        places.insert(0, os.getcwd())
    source = _source()
    rest, again = iter(items.items()), deque[Job]()
    working: dict[ray.ObjectRef, tuple[ray.actor.ActorHandle, Job | None]] = {}  # the job is None until they are ready
    idle: list[ray.actor.ActorHandle] = []
    undone, unstarted = len(items), 0
    try:
        while undone:
            for _ in range(min(nodes.room(), undone) - len(working) - len(idle)):
                worker = start.remote(function)
                working[worker.prepare.remote(places, source)] = worker, None
            while idle:
                worker = idle.pop()
                if job := again.popleft() if again else _next(rest):
                    working[worker.attempt.remote(job[1])] = worker, job
                else:  # nothing is left: a worker that waited could be lost unseen
                    _end(worker)
            if not working:
                time.sleep(LOOK_S)
                continue
            for reference in ray.wait(list(working), timeout=LOOK_S)[0]:
                worker, job = working.pop(reference)
                try:
                    outcome = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    if isinstance(error.cause, UserError):
                        raise error.cause from None
                    raise error if job else _unstarted(error) from None
                except ray.exceptions.RayError as error:
                    _end(worker)
                    if job is None:
                        unstarted += 1
                        if unstarted == MOST_UNSTARTED:
                            raise _unstarted(error) from error
                    elif job[2] + 1 < MOST_LOST:
                        again.append((*job[:2], job[2] + 1))
                    else:
                        undone -= 1
                        yield job[0], f"{MOST_LOST} workers ended in the middle of it, as when memory runs out"
                else:
                    idle.append(worker)
                    unstarted = 0
                    if job is not None:
                        undone -= 1
                        yield job[0], outcome
    except (ConnectionError, ray.exceptions.RaySystemError) as error:  # of a head that was reached by ray://
        lost = isinstance(error, ConnectionError) or not ray.is_initialized()
        if isinstance(error, ray.exceptions.RayTaskError) or not lost:  # an item's own, or another one of Ray's
            raise
        nodes.disconnected = True
        raise UserError(f"the head of the cluster is lost: {AGAIN}") from error
    finally:
        nodes.close()
        if not nodes.head_lost:  # which would be waited for
            for worker in [*idle, *(worker for worker, _ in working.values())]:
                _end(worker)
            if (copies := elsewhere.scratch_folder()) is not None:
                _remove_on_each_node(copies)


@ray.remote
class _Worker:
    """A process of a node."""

    def __init__(self, function: Callable[[Item], object]):
        self.function = function

    def prepare(self, places: list[str], source: dict[str, str]) -> None:
        """See that the node has this project as the command has it and holds some places, and go to the first, which
        the command was given in: its paths may be relative to it.

        Raises:
            UserError: the project is another, or the node does not hold a place.
        """
        _check_source(source)
        for path in places:
            if not os.path.exists(path):
                raise UserError(
                    f"the node {socket.gethostname()} does not hold {path}: the nodes of a cluster need the disk that "
                    "the command reads and writes, mounted at the same place"
                )
        if places:
            os.chdir(places[0])
        one_thread_each()

    def attempt(self, item: Item) -> str | None:
        """What is wrong with an item, or None."""
        return attempt(self.function, item)


class _Nodes:
    """How many workers the nodes of the cluster have room for, asked for in a thread: a lost head does not answer."""

    def __init__(self, gpus: float):
        self.gpus, self.count, self.disconnected = gpus, 0, False
        self.answered = self.there = time.monotonic()  # when the head answered, and when there was a node
        self.count = self._count()
        if gpus and not self.count:
            raise UserError(f"--gpus-per-task {gpus:g}: no node has so much of a GPU; add one, or give cpu as device")
        self._closed = threading.Event()
        threading.Thread(target=self._watch, daemon=True, name="nodes").start()

    @property
    def head_lost(self) -> bool:
        """Whether it is not asked any more, or has not answered for long."""
        return self.disconnected or time.monotonic() - self.answered > HEAD_SILENT_S

    def room(self) -> int:
        """How many workers there is room for.

        Raises:
            UserError: the head is lost, or there has been no node for long.
        """
        self.there = time.monotonic() if self.count else self.there
        if self.head_lost:
            raise UserError(f"the head of the cluster is lost: {AGAIN}")
        if time.monotonic() - self.there > NO_NODE_S:
            raise UserError(f"the cluster has had no node with a CPU for {NO_NODE_S} s: {AGAIN}")
        return self.count

    def close(self) -> None:
        """Ask no longer."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_S):
            with contextlib.suppress(Exception):  # of any kind, where the head is lost
                self.count, self.answered = self._count(), time.monotonic()

    def _count(self) -> int:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        limits = [node.get("GPU", 0) / self.gpus if self.gpus else float("inf") for node in nodes]
        return sum(int(min(node.get("CPU", 0), limit)) for node, limit in zip(nodes, limits, strict=True))


def _source() -> dict[str, str]:
    """SHA-256 of this project's files, by their names, as this process finds them."""
    paths = [path for package in PACKAGES for path in (PROJECT / package).rglob("*") if path.is_file()]
    names = [str(path.relative_to(PROJECT)) for path in paths if path.suffix != ".pyc"]
    return checksums(Files(PROJECT, names))


def _check_source(expected: dict[str, str]) -> None:
    """See that this node's files of the project are those of the command."""
    here = _source()
    others = sorted(name for name in {**expected, **here} if expected.get(name) != here.get(name))
    if others:
        raise UserError(
            f"the node {socket.gethostname()} has another version of this project in {PROJECT} ({len(others)} file(s) "
            f"differ, first {others[0]}): install the one of this command on all nodes"
        )


def _end(worker: ray.actor.ActorHandle) -> None:
    """End a worker, unless it has ended, or could not even be started."""
    with contextlib.suppress(ray.exceptions.RaySystemError):
        ray.kill(worker)


@ray.remote(num_cpus=0, max_retries=0)
def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _remove_on_each_node(folder: Path) -> None:
    """Remove a folder that workers have made, and this process."""
    elsewhere.forget()
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    places = [NodeAffinitySchedulingStrategy(node, soft=False) for node in nodes]
    removed = [_remove.options(scheduling_strategy=place).remote(folder) for place in places]
    ray.wait(removed, num_returns=len(removed), timeout=REMOVED_S)


def _next(rest: Iterator[tuple[str, Item]]) -> Job | None:
    """The next item that was not begun."""
    pair = next(rest, None)
    return None if pair is None else (*pair, 0)


def _connect(address: str) -> None:
    """Connect this process to a cluster, unless it is.

    Raises:
        UserError: there is none, or its versions are others.
    """
    if ray.is_initialized():
        return
    for part in ("logsclient", "dataclient"):  # of Ray Client, which sets levels anew: its errors are raised as well
        logging.getLogger(f"ray.util.client.{part}").disabled = True
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    if address == "local":
        options |= {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    elif address != "auto" and not address.startswith("ray://"):
        raise UserError(f"--cluster {address}: this is no address of a cluster. {EXPECTED}")
    meant = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    try:
        if meant not in ("auto", "local"):  # Ray would try for a minute
            place = urlsplit(meant if "://" in meant else f"//{meant}")
            socket.create_connection((place.hostname or "", place.port or 0), ANSWERS_S).close()
        for number in range(1, STARTS + 1):
            try:
                ray.init(address, **options)
                break
            except ConnectionAbortedError:
                if number == STARTS:
                    raise
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--cluster {address}: {meant}: {reason}; here is Ray {ray.__version__}. {EXPECTED}") from error


def _unstarted(error: Exception) -> UserError:
    """Why workers cannot even be started."""
    lines = [line.strip() for line in str(error).splitlines() if line and not line[0].isspace()]
    reason = " ".join(lines[-2:]) or type(error).__name__  # the last line alone says that it ended, but not why
    return UserError(
        f"workers of the cluster end before they begin ({reason}): install this project on each node, of the same "
        "version, with pip install 'active-speakers-in-context[cluster]'; give this command the cluster's token, or "
        "RAY_AUTH_MODE=disabled where it has none"
    )
