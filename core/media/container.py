"""Media files as PyAV opens them: containers, and the decoded frames of a stream of picture or sound.

Times are seconds from the container's start time, for picture and sound alike, so that a file whose streams begin at
a non-zero timestamp stays aligned with annotations that count from its beginning.
"""

import heapq
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import av
from av.stream import Stream

from core.runtime.errors import MediaError

AVI = "avi"  # FFmpeg's name
TELL_LENGTH = ("mp4", "matroska")  # in FFmpeg's names of containers whose header tells it; of others it is estimated
REORDERED = 16  # pictures that a decoder holds back at most to bring them in order (H.264, max_dec_frame_buffering)


class Damage:
    """What of a stream is damaged.

    Attributes:
        packets: how many could not be decoded, and were left out.
        frames: how many could be decoded in part only, and were kept; FFmpeg fills what is missing from their
            neighbours. Those before the first whole frame do not count: recordings may begin anywhere.
    """

    def __init__(self) -> None:
        self.packets = self.frames = 0
        self._lost = self._faulty = ""

    def __bool__(self) -> bool:
        return bool(self.packets or self.frames)

    def add_packet(self, time_s: float | None, error: av.FFmpegError) -> None:
        """Take note of a packet that cannot be decoded."""
        self._lost = self._lost or f"{_at(time_s)} ({error.strerror})"
        self.packets += 1

    def add_frame(self, time_s: float | None) -> None:
        """Take note of a frame that is decoded in part."""
        self._faulty = self._faulty or _at(time_s)
        self.frames += 1

    def __str__(self) -> str:
        parts = []
        if self.packets:
            parts.append(f"{self.packets:,} packet(s) cannot be decoded, {_first(self.packets)}{self._lost}")
        if self.frames:
            parts.append(f"{self.frames:,} frame(s) can be decoded only in part, {_first(self.frames)}{self._faulty}")
        return "; ".join(parts)


def open_media(path: str | Path) -> av.container.InputContainer:
    """Open a media file for reading.

    Raises:
        MediaError: the file is absent, empty or of no known format; FFmpeg's own words are kept.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"no file {path}")
    if path.stat().st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes)")
    try:
        # "file:" keeps names that begin with "-" or hold a ":" from being read as options or protocols. Titles of old
        # files are in the encoding of the machine they were made on; nothing here reads them.
        return av.open(f"file:{path}", metadata_errors="replace")
    except av.FFmpegError as error:
        raise MediaError(f"{path} cannot be opened ({error}); the file is damaged, cut off or not a video") from error


def start_of(container: av.container.InputContainer) -> float:
    """The container's start time in seconds, which is time 0 for picture and sound."""
    return (container.start_time or 0) / av.time_base


def told_length(container: av.container.InputContainer) -> float | None:
    """Seconds that picture or sound should at least last by the file's own header; None where it does not tell.

    Other streams, as subtitles or a second language, may well be longer than these.
    """
    if not container.duration or not any(name in container.format.name for name in TELL_LENGTH):
        return None
    ends = [_told_end(stream) for stream in (*container.streams.video[:1], *container.streams.audio[:1])]
    end_s = max(ends) if None not in ends else container.duration / av.time_base
    return end_s - max(0.0, start_of(container))  # Matroska counts from its clock's zero


def picture_stream(container: av.container.InputContainer, path: str | Path) -> av.VideoStream:
    """The first stream of pictures.

    Raises:
        MediaError: there is none, or no decoder for it.
    """
    if not container.streams.video:
        raise MediaError(f"{path} has no picture stream")
    return _with_decoder(container.streams.video[0], path, "picture; re-encode it, for example to H.264 in mp4")


def sound_stream(container: av.container.InputContainer, path: str | Path) -> av.AudioStream:
    """The first stream of sound.

    Raises:
        MediaError: there is none, or no decoder for it.
    """
    if not container.streams.audio:
        raise MediaError(f"{path} has no sound stream: active speakers cannot be told without sound")
    return _with_decoder(container.streams.audio[0], path, "sound; re-encode it, for example to AAC")


def keeps_no_times(container: av.container.InputContainer) -> bool:
    """Whether a container holds the order of decoding only: when a picture is shown follows from all before it."""
    return container.format.name == AVI


def decoded(
    container: av.container.InputContainer, stream: Stream, damage: Damage | None = None
) -> Iterator[av.VideoFrame | av.AudioFrame]:
    """The frames of a stream, in the order they are shown or heard, with their times in `pts`.

    AVI has a picture a tick, in the order of decoding. What FFmpeg guesses of their times is out of order for H.264
    with B-frames; here the n-th picture shown has the n-th tick of those that hold a picture.

    Args:
        container, stream: open; from where it was last sought.
        damage: takes note of packets that cannot be decoded, which are left out; without it they are an error.

    Raises:
        av.FFmpegError: the file cannot be read on; or, without `damage`, a packet cannot be decoded.
    """
    frames = _decoded(container, stream, damage)
    return _in_order(frames) if stream.type == "video" and keeps_no_times(container) else frames


def _with_decoder(stream: Stream, path: str | Path, what: str) -> Stream:
    if stream.codec_context is None:
        raise MediaError(f"{path}: no decoder knows its {what}")
    return stream


def _decoded(
    container: av.container.InputContainer, stream: Stream, damage: Damage | None
) -> Iterator[av.VideoFrame | av.AudioFrame]:
    in_ticks = stream.type == "video" and keeps_no_times(container)
    origin = start_of(container)
    begun = False  # with a whole frame
    for packet in container.demux(stream):
        if in_ticks:
            packet.pts = packet.dts
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            if damage is None:
                raise
            damage.add_packet(_seconds(packet.dts if packet.pts is None else packet.pts, stream, origin), error)
            continue
        for frame in frames:
            begun = begun or not frame.is_corrupt
            if damage is not None and begun and frame.is_corrupt:
                damage.add_frame(_seconds(frame.pts, stream, origin))
            yield frame


def _in_order(pictures: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same pictures, their ticks rising; those of `REORDERED` are in memory."""
    ticks: list[int] = []
    waiting: deque[av.VideoFrame] = deque()
    for picture in pictures:
        if picture.pts is not None:
            heapq.heappush(ticks, picture.pts)
            waiting.append(picture)
        if len(waiting) > REORDERED:
            yield _timed(heapq.heappop(ticks), waiting.popleft())
    while waiting:
        yield _timed(heapq.heappop(ticks), waiting.popleft())


def _timed(tick: int, picture: av.VideoFrame) -> av.VideoFrame:
    picture.pts = tick
    return picture


def _told_end(stream: Stream) -> float | None:
    """Where a stream ends by the header: mp4 has it in the stream, Matroska in a tag, as 00:01:23.400000000."""
    if stream.duration is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except (KeyError, ValueError):
        return None


def _seconds(tick: int | None, stream: Stream, origin: float) -> float | None:
    return None if tick is None else float(tick * stream.time_base) - origin


def _at(time_s: float | None) -> str:
    return "at an unknown time" if time_s is None else f"at {time_s:.2f} s"


def _first(count: int) -> str:
    return "" if count == 1 else "the first "
