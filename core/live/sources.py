"""What frames and audio come from as time passes: a file that is played, or the camera of a browser."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import av
import numpy as np

from core.clip_utils import GRID_FPS, SAMPLE_RATE
from core.live.inbox import Heard, Inbox, Seen
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_audio import VideoAudio
from core.runtime.files import printable

BLOCK = SAMPLE_RATE // 25  # samples of audio that are given at a time
LATE_S = 0.2  # a frame that would be given so much after its time is left out
JUMP_S = 1.0  # a time so far from when it would be due is on a clock that was set, or after a pause

Note = Callable[[str], object]  # takes a sentence for people


class Source(Protocol):
    """Gives frames and audio.

    Attributes:
        name: for people.
        fps: about how many frames come in a second.
        has_audio: whether a microphone is waited for.
        ends: whether it has an end of its own; else people end it.
        faults: sentences on what of it could not be decoded, known at its end.
    """

    name: str
    fps: float
    has_audio: bool
    ends: bool
    faults: Sequence[str]

    def play(self, inbox: Inbox, note: Note) -> None:
        """Give all there is, as time passes, until its end or until the inbox is closed."""
        ...


@contextlib.contextmanager
def playing(source: Source, inbox: Inbox, note: Note) -> Iterator[None]:
    """Let a source play in a thread for the length of a `with` block; the inbox is closed when it ends."""

    def play() -> None:
        fault = None
        try:
            source.play(inbox, note)
        except BaseException as error:  # it is raised where the inbox is emptied
            fault = error
        inbox.close(fault)

    thread = threading.Thread(target=play, name="source", daemon=True)
    thread.start()
    try:
        yield
    finally:
        inbox.close()
        thread.join()


class Pace:
    """Lets time pass as it does for who watches a recording."""

    def __init__(self) -> None:
        self._began_s: float | None = None

    def wait(self, time_s: float) -> bool:
        """Wait until a time of the recording has come; False where that is `LATE_S` ago."""
        now_s = time.monotonic()
        if self._began_s is None or abs(self._began_s + time_s - now_s) > JUMP_S:
            self._began_s = now_s - time_s
        early_s = self._began_s + time_s - now_s
        time.sleep(max(0.0, early_s))
        return early_s >= -LATE_S


class Resampler:
    """Makes blocks of audio that follow each other 16 kHz, mono."""

    def __init__(self) -> None:
        self._form = self._inner = None
        self._held_s = 0.0  # of audio that it holds back

    def push(self, samples: np.ndarray, rate: int, time_s: float) -> Heard:
        """Take a block, (n,) int16 of one channel, and when its first sample was heard; give what is ready."""
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = rate
        return self.push_frame(frame, time_s)

    def push_frame(self, frame: av.AudioFrame, time_s: float) -> Heard:
        """Likewise a block as it was decoded, of any form."""
        form = frame.sample_rate, frame.format.name, frame.layout.name
        if form != self._form:
            self._form, self._held_s = form, 0.0
            self._inner = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        frame.pts = None  # it keeps its own count
        ready = [block.to_ndarray()[0] for block in self._inner.resample(frame)]
        heard = Heard(time_s - self._held_s, np.concatenate([np.zeros(0, np.int16), *ready]))
        self._held_s += frame.samples / frame.sample_rate - len(heard.samples) / SAMPLE_RATE
        return heard


class BrowserSource:
    """The camera and the microphone of a browser, which its page puts into the inbox."""

    name, fps, has_audio, ends = "Camera of the browser", float(GRID_FPS), True, False
    faults: tuple[str, ...] = ()

    def play(self, inbox: Inbox, note: Note) -> None:
        """As `Source.play`: wait for the end."""
        inbox.closed.wait()


class FileSource:
    """A file, played as fast as it was recorded.

    Args:
        media: the open file, read as players show it.
        audio: of it; None for none.
    """

    ends = True

    def __init__(self, media: MediaFile, audio: VideoAudio | None):
        self.media, self.audio = media, audio
        self.name, self.fps, self.has_audio = printable(media.path.name), media.info.fps, audio is not None

    @property
    def faults(self) -> list[str]:
        """As `Source.faults`."""
        damage = self.media.damage["video"]
        return [*(self.audio.faults if self.audio is not None else ()), *([f"Video: {damage}."] if damage else [])]

    def play(self, inbox: Inbox, note: Note) -> None:
        """As `Source.play`.

        Raises:
            MediaError: as `core.media.video.read_frames`.
        """
        pace, heard_s = Pace(), None
        for frame in read_frames(self.media):
            if inbox.closed.is_set():
                return
            in_time = pace.wait(frame.time_s)
            heard_s = frame.time_s if heard_s is None else heard_s
            while self.audio is not None and heard_s <= frame.time_s:
                inbox.put(Heard(heard_s, self.audio.part(heard_s, BLOCK)))
                heard_s += BLOCK / SAMPLE_RATE
            if in_time:
                inbox.put(Seen(frame.time_s, frame.raw))
            else:
                inbox.leave_out()
