"""One way to fail: a message that says what was found, what is accepted and how to mend it; and how processes end."""

import contextlib
import errno
import functools
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import NoReturn

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
EXIT_BROKEN_ITEMS = 1  # some videos of many could not be used; the others are finished
EXIT_USER_ERROR = 2  # nothing to be done before the user has changed something
EXIT_INTERRUPTED = 130  # the shell's convention for Ctrl-C
EXIT_UNREAD = 141  # and for a reader that went away
EXIT_ORPHANED = 143  # and for a process that was terminated
COPIES = ".elsewhere"  # the folder of copies of `core.runtime.elsewhere`
PARENT = "PROCESS_PARENT_PIPE"  # environment variable: a file descriptor that ends when the parent process does


class UserError(Exception):
    """A mistake that the user can mend; its text is the whole message, one or several lines."""


def exits_cleanly(main: Callable[..., int | None]) -> Callable[..., None]:
    """Wrap a script's main function: user errors and interrupts become a message and an exit status.

    The wrapped function returns None or 0 for success, or an exit status of its own. A UserError is printed
    without a traceback and exits with 2; Ctrl-C exits with 130; with 141, silently, where the output's reader left.
    A script that another one started ends with it.
    """

    @functools.wraps(main)
    def wrapper(*args, **kwargs) -> None:
        if (pipe := os.environ.pop(PARENT, None)) is not None:  # not for the processes that this one starts
            end_after(functools.partial(os.read, int(pipe), 1))
        try:
            status = main(*args, **kwargs)
            sys.stdout.flush()
        except (UserError, KeyboardInterrupt) as error:
            message, status = ending(error)
            print(message, file=sys.stderr)
            sys.exit(status)
        except BrokenPipeError:  # whoever read the output, as `| head`, has seen enough
            _discard_output()
            sys.exit(EXIT_UNREAD)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            try:
                sys.stdout.flush()
            except OSError:
                _discard_output()
            where = error.filename or "standard output, or a temporary file"
            print(f"error: {where} cannot be written ({error.strerror}): make room and run this again", file=sys.stderr)
            sys.exit(EXIT_USER_ERROR)
        sys.exit(status or 0)

    return wrapper


def _discard_output() -> None:
    """What Python still flushes at its end goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def ending(error: UserError | KeyboardInterrupt, where: str = "") -> tuple[str, int]:
    """The message and the exit status of a script that ends by a user error or an interrupt.

    `where` comes before an error's own message.
    """
    if isinstance(error, UserError):
        return as_given(f"error: {where}{error}"), EXIT_USER_ERROR
    return "\ninterrupted: what was finished is kept; run the same command again to go on", EXIT_INTERRUPTED


def as_given(text: str) -> str:
    """A message with the URLs of what copies are of in place of their paths, and without what may be secret in URLs."""
    text = re.sub(rf"/\S*?/{re.escape(COPIES)}/(\w+)/", r"\1://", text)
    text = re.sub(r"(?<=://)[^\s/@]+@", "", text)  # user and password
    return re.sub(r"(://[^\s?]*)\?[^\s'\")]+", r"\1?…", text)  # a signature, among others


def report_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A `sys.excepthook` for what comes before a main function: Ctrl-C becomes a message and exit status 130."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print("\ninterrupted before anything was begun", file=sys.stderr, flush=True)
    os._exit(EXIT_INTERRUPTED)


def end_after(wait: Callable[[], object]) -> None:
    """End this process, whatever it does, once `wait` returns: when the process that it works for has gone.

    Signals that end a process alone, as SIGTERM and SIGKILL do, reach none of those that it has started. What they
    leave half written is removed by the next run (`core.runtime.files.atomic_write`).
    """

    def watch() -> None:
        wait()
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=watch, daemon=True, name="parent").start()


def exit_at_once(status: int) -> NoReturn:
    """End this process whatever its threads do or wait for; what it has printed is seen."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


class MediaError(UserError):
    """A video or audio file that cannot be used: absent, unreadable, truncated, or without the stream asked for."""


class NoStreamError(MediaError):
    """A file has no stream of the number that was asked for."""


@contextlib.contextmanager
def of_one_video() -> Iterator[None]:
    """Whatever is wrong in the block is wrong with one video's files, and does not stop the others."""
    try:
        yield
    except UserError as error:
        raise MediaError(str(error)) from error
