"""Frames and audio on their way to the detector: few wait, and those that find no room are left out."""

import threading
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
            is_frame = isinstance(item, Seen)
            self.frames += is_frame
            waiting = [one for one in self._items if isinstance(one, type(item))]
            room = MOST_FRAMES if is_frame else round(MOST_AUDIO_S * SAMPLE_RATE)
            taken = not self.closed.is_set() and (1 if is_frame else len(item.samples)) + _size(waiting) <= room
            self.left_out += is_frame and not taken
            if taken:
                self._items.append(item)
                self._changed.notify()
        return taken

    def leave_out(self, frames: int = 1) -> None:
        """Count frames that came too late to be given."""
        with self._changed:
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


def scored_frames(live: LiveDetector, inbox: Inbox) -> Iterator[tuple[ScoredFrame, Seen]]:
    """What the detector gives of what comes, to the end, with the frames themselves.

    Raises:
        UserError: as `LiveDetector`, or the source failed.
    """
    waiting: deque[Seen] = deque()
    for item in inbox:
        if isinstance(item, Seen):
            waiting.append(item)
            scored = live.push_frame(item.image, item.time_s)
        else:
            scored = live.push_audio(item.samples, item.time_s)
        yield from _with_frames(scored, waiting)
    yield from _with_frames(live.finish(), waiting)


def _with_frames(scored: list[ScoredFrame], waiting: deque[Seen]) -> Iterator[tuple[ScoredFrame, Seen]]:
    for frame in scored:
        while waiting[0].time_s != frame.time_s:  # the detector left it out
            waiting.popleft()
        yield frame, waiting.popleft()


def _size(waiting: list[Seen | Heard]) -> int:
    """How many frames wait, or samples of audio."""
    return sum(1 if isinstance(item, Seen) else len(item.samples) for item in waiting)
