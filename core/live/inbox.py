"""Frames and audio on their way to the detector, as time passes: few wait; those that find no room, or come too late,
are left out."""

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import av
import numpy as np

from core.clip_utils import SAMPLE_RATE
from core.live.detector import LiveDetector
from core.live.lines import ScoredFrame

MOST_FRAMES = 10  # that wait: 0.4 s of them; a camera goes on meanwhile
MOST_AUDIO_S = 10.0  # that waits, of which the detector keeps less
LATE_S = 0.2  # a frame that would be given so much after its time is left out
SINCE_1970_S = time.time() - time.monotonic()
STAYS_LATE_S = 1.0  # but not where all were so late for so long
JUMP_S = 1.0  # a time so far from when it would be due is on a clock that was set, or after a pause


class Seen(NamedTuple):
    """A frame that was seen.

    Attributes:
        time_s: when, seconds on the clock of the source.
        image: as decoded.
        jpeg: the same, where it came so.
    """

    time_s: float
    image: av.VideoFrame
    jpeg: bytes | None = None


class Heard(NamedTuple):
    """A block of audio, (n,) int16, 16 kHz, mono, and when its first sample was heard, seconds."""

    time_s: float
    samples: np.ndarray


class Inbox:
    """What comes from a camera and a microphone, in order, until it is taken.

    One thread gives, or several; one takes.

    Attributes:
        frames: how many came.
        left_out: how many of them found no room.
        closed: nothing is taken in any more.
    """

    def __init__(self) -> None:
        self.frames = self.left_out = 0
        self.closed = threading.Event()
        self._items: deque[Seen | Heard] = deque()
        self._changed = threading.Condition()
        self._fault: BaseException | None = None

    def put(self, item: Seen | Heard) -> bool:
        """Give a frame or a block of audio; whether there was room for it."""
        with self._changed:
            if self.closed.is_set():  # by who takes: what comes then is not missing
                return False
            is_frame = isinstance(item, Seen)
            self.frames += is_frame
            waiting = [one for one in self._items if isinstance(one, type(item))]
            room = MOST_FRAMES if is_frame else round(MOST_AUDIO_S * SAMPLE_RATE)
            taken = (1 if is_frame else len(item.samples)) + _size(waiting) <= room
            self.left_out += is_frame and not taken
            if taken:
                self._items.append(item)
                self._changed.notify()
        return taken

    def leave_out(self, frames: int = 1) -> None:
        """Count frames that came too late to be given."""
        with self._changed:
            if not self.closed.is_set():
                self.frames += frames
                self.left_out += frames

    def close(self, fault: BaseException | None = None) -> None:
        """Say that nothing will follow; a fault is raised where the next item would be taken."""
        with self._changed:
            self.closed.set()
            self._fault = self._fault or fault
            self._changed.notify()

    def __iter__(self) -> Iterator[Seen | Heard]:
        """What was given, as it comes, to the end."""
        while True:
            with self._changed:
                while not self._items and not self.closed.is_set():
                    self._changed.wait()
                if not self._items:
                    if self._fault is not None:
                        raise self._fault
                    return
                item = self._items.popleft()
            yield item


def now_s() -> float:
    """Seconds since 1970, by a clock that is never set."""
    return SINCE_1970_S + time.monotonic()


class Pace:
    """Lets time pass as it does for who watches a recording.

    Args:
        closed: set when nothing is waited for any more.
        may_jump: whether the clock may be set, as a stream's; that of a file may have long gaps, but no jumps.
    """

    def __init__(self, closed: threading.Event, *, may_jump: bool):
        self.closed, self.may_jump = closed, may_jump
        self.began_s: float | None = None  # on the clock of `now_s`, where the recording has time 0
        self._late_since_s: float | None = None

    def wait(self, time_s: float) -> bool:
        """Wait until a time of the recording has come; False where that is `LATE_S` ago.

        Where all were late for `STAYS_LATE_S`, as when a sender paused or its clock is slow, times are put off.
        """
        here_s = now_s()
        ahead_s = 0.0 if self.began_s is None else self.began_s + time_s - here_s
        jumped = ahead_s < -JUMP_S or (self.may_jump and ahead_s > JUMP_S)
        stays_late = self._late_since_s is not None and here_s - self._late_since_s > STAYS_LATE_S
        if self.began_s is None or jumped or (stays_late and ahead_s < -LATE_S):
            self.began_s, ahead_s = here_s - time_s, 0.0
        if ahead_s < -LATE_S:
            self._late_since_s = self._late_since_s or here_s
            return False
        self._late_since_s = None
        self.closed.wait(max(0.0, ahead_s))
        return True


def scored_frames(live: LiveDetector, inbox: Inbox) -> Iterator[tuple[ScoredFrame, Seen]]:
    """What the detector gives of what comes, to the end, with the frames themselves.

    Raises:
        UserError: as `LiveDetector`, or the source failed; what came before is given then.
    """
    waiting: deque[Seen] = deque()
    items, fault = iter(inbox), None
    while True:
        try:
            item = next(items)
        except StopIteration:
            break
        except Exception as error:
            fault = error
            break
        if isinstance(item, Seen):
            waiting.append(item)
            scored = live.push_frame(item.image, item.time_s)
        else:
            scored = live.push_audio(item.samples, item.time_s)
        yield from _with_frames(scored, waiting)
    yield from _with_frames(live.finish(), waiting)
    if fault is not None:
        raise fault


def _with_frames(scored: list[ScoredFrame], waiting: deque[Seen]) -> Iterator[tuple[ScoredFrame, Seen]]:
    for frame in scored:
        while waiting[0].time_s != frame.time_s:  # the detector left it out
            waiting.popleft()
        yield frame, waiting.popleft()


def _size(waiting: list[Seen | Heard]) -> int:
    """How many frames wait, or samples of audio."""
    return sum(1 if isinstance(item, Seen) else len(item.samples) for item in waiting)
