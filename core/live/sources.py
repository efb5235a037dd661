"""What frames and audio come from as time passes: a file that is played, a stream, or a camera and a microphone."""

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import av
from av.container import InputContainer

from core.clip_utils import GRID_FPS, SAMPLE_RATE
from core.live.audio import Resampler
from core.live.detector import AUDIO_AHEAD_S
from core.live.inbox import Heard, Inbox, Pace, Seen, now_s
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_audio import VideoAudio
from core.runtime.errors import MediaError, UserError
from core.runtime.files import printable

BLOCK = SAMPLE_RATE // 25  # samples of audio that are given at a time

OPENING_S, SILENT_S = 10.0, 5.0  # that a stream may take to be opened, and to give something
AGAIN_S = 2.0  # until what is lost is looked for again
STREAM_OPTIONS = {"rtsp_flags": "prefer_tcp"}  # of UDP packets get lost
ALSA_CONFIGURATION = Path("/usr/share/alsa/alsa.conf")


class Devices(NamedTuple):
    """How FFmpeg calls the devices of a platform.

    Attributes:
        video_format, audio_format: its names of their kinds.
        numbered, video, audio: addresses of a camera with a number, a camera, a microphone with a name.
        microphone: the usual one's name.
        names: a hint at what cameras are called.
        options: FFmpeg's, of a camera.
    """

    video_format: str
    audio_format: str
    numbered: str
    video: str
    audio: str
    microphone: str
    names: str
    options: Mapping[str, str] = MappingProxyType({})


DEVICES = {
    "linux": Devices("v4l2", "alsa", "/dev/video{}", "{}", "{}", "default", "give the number of a /dev/video*"),
    "darwin": Devices(
        *("avfoundation", "avfoundation", "{}:none", "{}:none", ":{}", "default"),
        "give a number from 0, or the camera's name",
        {"framerate": "30"},  # else it asks for 29.97, which few have
    ),
}

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


def opened(address: str, **options: Any) -> InputContainer:
    """What FFmpeg opens.

    Raises:
        MediaError: it cannot; or there is no video or audio.
    """
    try:
        container = av.open(address, timeout=(OPENING_S, SILENT_S), **options)
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(printable(getattr(error, "strerror", None) or str(error))) from error
    if not container.streams.video and not container.streams.audio:
        container.close()
        raise MediaError("it has neither video nor audio")
    return container


def decoded(container: InputContainer, inbox: Inbox) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """The frames of the best video and of the best audio, in the order in which they come, until the inbox is closed.

    Raises:
        MediaError: nothing comes any more, before the end.
    """
    best = (container.streams.best(kind) for kind in ("video", "audio"))
    try:
        for packet in container.demux(*filter(None, best)):
            if inbox.closed.is_set():
                return
            with contextlib.suppress(av.InvalidDataError):  # what was lost on the way
                yield from packet.decode()
    except av.FFmpegError as error:
        raise MediaError(error.strerror or "no data") from error


def again_and_again(
    open_it: Callable[[], InputContainer],
    play: Callable[[InputContainer], object],
    what: str,
    inbox: Inbox,
    note: Note,
) -> None:
    """Play what is opened, and whenever it is lost open it again, until the inbox is closed; losses are noted."""
    lost = False
    while not inbox.closed.is_set():
        try:
            with open_it() as container:
                if lost:
                    note(f"{what} is there again.")
                lost = False
                play(container)
            fault = "it ended"
        except MediaError as error:
            fault = str(error)
        if not lost and not inbox.closed.is_set():
            note(f"{what} gives nothing ({fault}); it is used when it is there again.")
        lost = True
        inbox.closed.wait(AGAIN_S)


class CameraSource:
    """A camera of this machine, and a microphone, as FFmpeg's devices give them.

    Args:
        camera: its number or, as `DEVICES` of the platform have it, its name.
        microphone: its name; empty for none.

    Raises:
        UserError: there is no such camera, or PyAV cannot use one on this platform.
    """

    fps, ends = float(GRID_FPS), False
    faults: tuple[str, ...] = ()

    def __init__(self, camera: str, microphone: str):
        devices = DEVICES.get(sys.platform)
        formats = set(",".join(av.formats_available).split(","))
        if devices is None or not {devices.video_format, devices.audio_format} <= formats:
            raise UserError(
                f"--camera: this PyAV has no cameras on {sys.platform}; use --page alone, for the browser's camera"
            )
        if ALSA_CONFIGURATION.is_file():  # PyAV's own is not where it looks for it
            os.environ.setdefault("ALSA_CONFIG_PATH", str(ALSA_CONFIGURATION))
        self.name, self.has_audio = f"Camera {camera}", bool(microphone)
        address = (devices.numbered if camera.isdecimal() else devices.video).format(camera)
        self._open_camera = functools.partial(
            opened, address, format=devices.video_format, options=dict(devices.options)
        )
        self._open_microphone = functools.partial(opened, devices.audio.format(microphone), format=devices.audio_format)
        try:
            self._open_camera().close()
        except MediaError as error:
            raise UserError(
                f"--camera {camera}: there is no such camera, or it cannot be used ({error}); {devices.names}, or "
                "use --page alone, for the browser's camera"
            ) from error

    def play(self, inbox: Inbox, note: Note) -> None:
        """As `Source.play`; a device that is lost is used again when it is back."""
        resampler = Resampler()

        def see(container: InputContainer) -> None:
            for frame in decoded(container, inbox):
                if isinstance(frame, av.VideoFrame):
                    inbox.put(Seen(now_s(), frame))

        def hear(container: InputContainer) -> None:
            for frame in decoded(container, inbox):
                if isinstance(frame, av.AudioFrame):
                    inbox.put(Heard(*resampler.push_frame(frame, now_s() - frame.samples / frame.sample_rate)))

        microphone = threading.Thread(
            target=again_and_again,
            args=(self._open_microphone, hear, "The microphone", inbox, note),
            daemon=True,
        )
        if self.has_audio:
            microphone.start()
        again_and_again(self._open_camera, see, "The camera", inbox, note)
        if self.has_audio:
            microphone.join()


class StreamSource:
    """A stream that FFmpeg reads from an address: RTSP, HTTP and others.

    Args:
        address: of it. One that says how long it is ends; another is opened again when it is lost.

    Raises:
        UserError: it cannot be opened, or has no video.
    """

    faults: tuple[str, ...] = ()

    def __init__(self, address: str):
        self.name = printable(address)
        # Opened anew to be played: networks are loaded meanwhile, and what came while they were would be late for good.
        self._open = functools.partial(opened, address, options=STREAM_OPTIONS)
        try:
            with self._open() as container:
                if not container.streams.video:
                    raise MediaError("it has no video")
                rate = container.streams.best("video").average_rate
                self.fps = float(rate) if rate else float(GRID_FPS)
                self.has_audio, self.ends = bool(container.streams.audio), container.duration is not None
        except MediaError as error:
            raise UserError(f"{self.name} cannot be opened ({error}): give an address that FFmpeg reads") from error

    def play(self, inbox: Inbox, note: Note) -> None:
        """As `Source.play`.

        Raises:
            MediaError: a stream that ends could not be read to its end.
        """
        if not self.ends:
            again_and_again(self._open, lambda container: self._play(container, inbox), self.name, inbox, note)
            return
        try:
            with self._open() as container:
                self._play(container, inbox)
        except MediaError as error:
            raise MediaError(f"{self.name} broke off before its end ({error}): run it again") from error

    def _play(self, container: InputContainer, inbox: Inbox) -> None:
        pace, resampler = Pace(inbox.closed, may_jump=True), Resampler()
        for frame in decoded(container, inbox):
            if frame.pts is None:
                continue
            time_s = float(frame.pts * frame.time_base)
            if isinstance(frame, av.VideoFrame):
                in_time = pace.wait(time_s)
                inbox.put(Seen(pace.began_s + time_s, frame)) if in_time else inbox.leave_out()
            elif pace.began_s is not None:
                inbox.put(Heard(*resampler.push_frame(frame, pace.began_s + time_s)))


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
        pace, blocks, first_s, frame = Pace(inbox.closed, may_jump=False), 0, None, None

        def hear(until_s: float) -> None:
            nonlocal blocks
            while self.audio is not None and (time_s := first_s + blocks * BLOCK / SAMPLE_RATE) <= until_s:
                inbox.put(Heard(time_s, self.audio.part(time_s, BLOCK)))
                blocks += 1

        for frame in read_frames(self.media):
            if inbox.closed.is_set():
                return
            in_time = pace.wait(frame.time_s)
            first_s = frame.time_s if first_s is None else first_s
            hear(frame.time_s)
            if in_time:
                inbox.put(Seen(frame.time_s, frame.raw))
            else:
                inbox.leave_out()
        if frame is not None:
            hear(frame.time_s + AUDIO_AHEAD_S)
