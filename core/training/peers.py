"""The processes of one training: they end together, and say why once on each machine.

torchrun ends the processes of its own machine with the first that fails. Those of other machines it does not know:
left alone, they would wait in their next exchange of gradients, for half an hour or for ever. So each process writes a
sign of life into torchrun's key-value store each second and reads those of the others, in threads beside the training.
"""

import contextlib
import functools
import itertools
import json
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NoReturn

from accelerate.utils import broadcast_object_list, gather_object
from torch.distributed import PrefixStore
from torch.distributed.rendezvous import rendezvous

from core.runtime.errors import EXIT_ORPHANED, UserError, ending, exit_at_once

BEAT_S = 1.0  # between signs of life
SILENCE_S = (
    40.0  # without one, after which a process counts as lost; a busy disk or a long garbage collection is shorter
)
SUSPICION_S = 6.0  # the same, once an exchange with the others has failed
START_S = 300.0  # without the first sign: libraries are read from a slow disk perhaps
FAREWELL_S = 5.0  # that a process which ends waits for the others to have read why
REMEDY = "what was finished is kept; go on with --resume, with as many processes as you like"

_calls = itertools.count()  # of `ends_together`, the same in all processes


def same_everywhere(value: Any) -> Any:
    """The main process's value, in every process of a training."""
    return broadcast_object_list([value])[0]


def check_same(what: str, values: Mapping[str, Any]) -> None:
    """Check that all processes of a training have the same values; waits until all have come here.

    Args:
        what: that is compared, for the message.
        values: of this process, which can be pickled.

    Raises:
        UserError: in all processes, where one has others than the main process.
    """
    (_, expected), *others = gather_object([(socket.gethostname(), dict(values))])
    for rank, (host, found) in enumerate(others, start=1):
        if differing := [key for key in expected | found if expected.get(key) != found.get(key)]:
            lines = [f"  - {key}: {expected.get(key)!r} in process 0, {found.get(key)!r} there" for key in differing]
            raise UserError(f"process {rank}, on {host}, has other {what} than process 0:\n" + "\n".join(lines))


def ends_together(main: Callable[..., int | None]) -> Callable[..., int | None]:
    """Wrap a script's main function, within `core.runtime.errors.exits_cleanly`, for trainings of several processes.

    A process that fails or is lost ends all others within a minute, with one message on each machine and, for a mistake
    of the user, exit status 2 in all of them. What is printed to standard output is the main process's.
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> int | None:
        if int(os.environ.get("WORLD_SIZE", 1)) == 1:
            return main(*args, **kwargs)
        peers = Peers(f"training {next(_calls)}")
        try:
            with contextlib.ExitStack() as stack:
                if peers.rank > 0:
                    stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
                status = main(*args, **kwargs)
        except (UserError, KeyboardInterrupt) as error:
            peers.end(*ending(error, f"{peers.name}: "))
        except SystemExit as error:  # argparse has said why
            if error.code:
                peers.end(
                    f"error: {peers.name}: ended with status {error.code}, as it says", int(error.code), said=True
                )
            raise
        except Exception as error:
            if isinstance(error, RuntimeError):  # as an exchange raises it whose other side is gone
                peers.suspect()
            traceback.print_exc()
            peers.end(f"error: {peers.name}: {type(error).__name__}, see its traceback", 1)
        peers.leave()
        return status

    return wrapper


class Peers:
    """This process among those of a training, as torchrun's environment variables describe them.

    Args:
        purpose: tells the store's keys from those of others.
    """

    def __init__(self, purpose: str):
        self.rank, self.world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.machine = os.environ.get("GROUP_RANK", "0")
        self.name = f"process {self.rank} of {self.world_size}, on {socket.gethostname()}"
        self.address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        self.silence_s, self.left, self.last_word = SILENCE_S, threading.Event(), threading.RLock()
        self.parent = os.getppid()
        self.answered_s = time.monotonic()
        self.signs = dict.fromkeys(range(self.world_size), ("", self.answered_s))  # the last one, and when it came
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        try:
            store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=SILENCE_S)))
            self.store = PrefixStore(f"{purpose}, attempt {attempt}", store)
            self._exchange(0)
        except RuntimeError:
            self._end_without_store()
        for work in (self._beat, self._watch):
            threading.Thread(target=work, daemon=True, name=work.__name__).start()

    def end(self, message: str, status: int, *, said: bool = False) -> NoReturn:
        """End this process and all others, with the message and status of the first that calls this.

        Args:
            message: printed once on each machine.
            status: of all processes.
            said: this machine has been told.
        """
        self.last_word.acquire()  # for good: another thread that has it ends the process
        try:
            message, status = json.loads(self.store.compare_set("end", "", json.dumps([message, status])))
            if self.store.add(f"told {self.machine}", 1) == 1 and not said:
                print(message, file=sys.stderr)
        except RuntimeError:
            self._end_without_store()
        self.leave()
        begun_s = time.monotonic()
        living = [rank for rank, (_, since_s) in self.signs.items() if begun_s - since_s < self.silence_s]
        with contextlib.suppress(RuntimeError):  # the store has ended with its process, which waited for this one
            while time.monotonic() - begun_s < FAREWELL_S and any(self._signs().get(rank) != "left" for rank in living):
                time.sleep(BEAT_S / 10)
        exit_at_once(status)

    def leave(self) -> None:
        """Give no more signs of life, and say so."""
        self.left.set()
        with contextlib.suppress(RuntimeError):  # the store has ended with the main process
            self.store.set(str(self.rank), "left")

    def suspect(self) -> None:
        """Wait for as long as it takes to find out that a process is lost; ends this one if so."""
        self.silence_s = SUSPICION_S
        time.sleep(SUSPICION_S + 3 * BEAT_S)
        self.last_word.acquire()

    def _beat(self) -> None:
        for number in itertools.count(1):
            if self.left.wait(BEAT_S):
                return
            try:
                self._exchange(number)
            except RuntimeError:
                self._end_without_store()

    def _exchange(self, number: int) -> None:
        """Give a sign of life, and read those of the others."""
        if not self.left.is_set():
            self.store.set(str(self.rank), f"{number} {socket.gethostname()}")
        if self.store.check(["end"]):
            self.end("", 0)
        now_s = self.answered_s = time.monotonic()
        for rank, sign in self._signs().items():
            if sign != self.signs[rank][0]:
                self.signs[rank] = sign, now_s
        for rank, (sign, since_s) in self.signs.items():
            limit_s = self.silence_s if sign else START_S
            if sign != "left" and now_s - since_s > limit_s:
                fate = f", on {sign.partition(' ')[2]}, was lost" if sign else " has not begun"
                silence = f"no sign of life for {limit_s:.0f} s"
                self.end(f"error: process {rank} of {self.world_size}{fate} ({silence}); {REMEDY}", EXIT_ORPHANED)

    def _signs(self) -> dict[int, str]:
        """The last sign of each process that has given one."""
        there = [rank for rank in self.signs if self.signs[rank][0] or self.store.check([str(rank)])]
        values = self.store.multi_get([str(rank) for rank in there])
        return dict(zip(there, (value.decode() for value in values), strict=True))

    def _watch(self) -> None:
        """End this process where its torchrun is gone, or where the store does not answer."""
        while not self.left.wait(BEAT_S):
            if time.monotonic() - self.answered_s > SILENCE_S:
                self._end_without_store()
            if os.getppid() != self.parent:
                self.end(f"error: {self.name}, was left by its torchrun; {REMEDY}", EXIT_ORPHANED)

    def _end_without_store(self) -> NoReturn:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            print(
                f"error: {self.name}: {self.address}, where process 0 is, does not answer any more; {REMEDY}",
                file=sys.stderr,
            )
        else:
            time.sleep(BEAT_S)  # torchrun ends the other with this one
        exit_at_once(EXIT_ORPHANED)
