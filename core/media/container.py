"""Media files as PyAV opens them: what they say of themselves, and the decoded frames of their streams.

Times are seconds from the container's start time, for video and audio alike, so that a file whose streams begin at
a non-zero timestamp stays aligned with annotations that count from its beginning.
"""

import contextlib
import functools
import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.stream import Stream

from core.runtime.errors import MediaError

AVI = "avi"  # FFmpeg's name
DECLARE_LENGTH = ("mp4", "matroska")  # in FFmpeg's names of containers whose header has it; of others it is estimated
REORDERED = 16  # frames that a decoder holds back at most to bring them in order (H.264, max_dec_frame_buffering)
MEND = {
    "video": "re-encode it, for example to H.264 in mp4",
    "audio": "re-encode it, for example to AAC",
}


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


@dataclass(frozen=True)
class AudioInfo:
    """What a file says of its first audio stream.

    Attributes:
        codec: FFmpeg's name of the decoder; empty where it has none.
        sample_rate: samples per second; 0 without a decoder.
        channels: how many; 0 without a decoder.
        start_s: where the stream begins, seconds, not negative.
    """

    codec: str
    sample_rate: int
    channels: int
    start_s: float


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself.

    Attributes:
        width, height: pixels, after the rotation in the metadata.
        fps: average frames per second.
        duration_s: seconds as the container claims, or FFmpeg estimates; None where neither says.
        audio: its first audio stream; None where there is none.
        rotation: degrees counterclockwise that turn a stored frame into the displayed one: 0, 90, 180 or 270.
        declared_s: seconds that the file should at least last by its own header; None where that does not say.
        codec: FFmpeg's name of the video's decoder.
        pixel_format: FFmpeg's name of it.
        pixel_aspect: width of a displayed pixel over its height; None where the file does not say.
    """

    width: int
    height: int
    fps: float
    duration_s: float | None
    audio: AudioInfo | None
    rotation: int
    declared_s: float | None = None
    codec: str = ""
    pixel_format: str = ""
    pixel_aspect: Fraction | None = None


class MediaFile:
    """A media file, open for as long as a job needs it.

    with MediaFile("interview.mp4") as media:
        print(media.info.width)
        for frame in read_frames(media):  # core.media.video
            ...

    A demuxer of FFmpeg is at one position of the file, and cannot be rewound where there is no index. So each stream is
    read through a demuxer of its own: the first goes on with the one that read the header, another is opened anew.

    Args:
        path: the file.
        tolerant: packets that cannot be decoded are left out and noted in `damage`; else they are an error.

    Attributes:
        damage: "video" and "audio" -> what of the stream has turned out to be damaged.
        start_s: the container's start time, seconds, which is time 0 for video and audio.
        audio: what the file says of its first audio stream; None where there is none.
        declared_s: how long video or audio should at least last by the file's header, seconds; None where it does not
            say.
        declared_audio_end_s: where the audio ends by its stream's header, seconds of the container's clock, or None.

    Raises:
        MediaError: the file is absent, empty or of no known format; FFmpeg's own words are kept.
    """

    def __init__(self, path: str | Path, *, tolerant: bool = False):
        self.path = Path(path)
        self.tolerant = tolerant
        self.damage = {"video": Damage(), "audio": Damage()}
        container = _open(self.path)
        self.start_s = (container.start_time or 0) / av.time_base
        self.audio = _audio_info(container, self.start_s)
        self.declared_s = _declared_length(container, self.start_s)
        self.declared_audio_end_s = _declared_end(container.streams.audio[0]) if container.streams.audio else None
        self._unread = [container]  # until a stream is read through it
        self._begun: tuple[av.VideoFrame, Iterator[av.VideoFrame]] | None = None  # the video after its first frame

    def __enter__(self) -> "MediaFile":
        return self

    def __exit__(self, *error: object) -> None:
        self._begun = None
        while self._unread:
            self._unread.pop().close()

    @functools.cached_property
    def info(self) -> VideoInfo:
        """Size, frame rate and streams; decodes a frame, for the rotation is stored there.

        Raises:
            MediaError: the file has no video, or none of it can be decoded.
        """
        container, stream = self._demuxer("video")
        frames = self._frames(container, stream)
        try:
            first = next(frames)
        except (av.FFmpegError, StopIteration) as error:
            if not self.tolerant:  # what begins with damage may be whole from a later time on
                with MediaFile(self.path, tolerant=True) as tolerant:
                    return tolerant.info
            reason = str(error) or str(self.damage["video"] or "it holds no frame")
            raise MediaError(
                f"{self.path}: no frame can be decoded ({reason}); the file is damaged or cut off"
            ) from error
        self._begun = first, frames
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise MediaError(f"{self.path}: the file has no frame rate; {MEND['video']}")
        rotation = round(first.rotation / 90) * 90 % 360
        sideways = rotation in (90, 270)
        aspect = stream.sample_aspect_ratio or None
        return VideoInfo(
            width=first.height if sideways else first.width,
            height=first.width if sideways else first.height,
            fps=float(rate),
            duration_s=container.duration / av.time_base if container.duration else None,
            audio=self.audio,
            rotation=rotation,
            declared_s=self.declared_s,
            codec=stream.codec_context.name,
            pixel_format=stream.codec_context.pix_fmt or "",
            pixel_aspect=1 / aspect if aspect and sideways else aspect,
        )

    def decoded(self, kind: str, seek_s: float = 0.0) -> Iterator[av.VideoFrame | av.AudioFrame]:
        """The frames of the first stream of a kind, in the order they are shown or heard, with their times in `pts`.

        AVI has a frame a tick, in the order of decoding. What FFmpeg guesses of their times is out of order for H.264
        with B-frames; here the n-th frame shown has the n-th tick of those that hold a frame.

        Args:
            kind: "video" or "audio".
            seek_s: seconds; where positive, frames come from about the last key frame before it, if the file can seek.

        Raises:
            MediaError: there is no stream of that kind, or no decoder for it.
            av.FFmpegError: the file cannot be read on; or, where it is not read tolerantly, a packet not be decoded.
        """
        if kind == "video" and seek_s <= 0 and self._begun is not None:
            (first, frames), self._begun = self._begun, None
            yield first
            yield from frames
            return
        yield from self._frames(*self._demuxer(kind), seek_s)

    def _demuxer(self, kind: str) -> tuple[av.container.InputContainer, Stream]:
        """A container at the file's beginning, and its first stream of a kind."""
        try:
            container = self._unread.pop()  # atomic: streams may be read in threads of their own
        except IndexError:
            container = _open(self.path)
        streams = getattr(container.streams, kind)
        if not streams:
            raise MediaError(f"{self.path} has no {kind} stream")
        if streams[0].codec_context is None:
            raise MediaError(f"{self.path}: no decoder knows its {kind}; {MEND[kind]}")
        return container, streams[0]

    def _frames(
        self, container: av.container.InputContainer, stream: Stream, seek_s: float = 0.0
    ) -> Iterator[av.VideoFrame | av.AudioFrame]:
        """See `decoded`; closes the container."""
        keeps_no_times = stream.type == "video" and container.format.name == AVI
        # Several videos are decoded side by side; FFmpeg's frame threads can end a damaged file without a word.
        stream.codec_context.thread_count = 1
        with container:
            # Where a file keeps no times, a frame's time follows from all frames before it.
            if seek_s > 0 and not keeps_no_times:
                with contextlib.suppress(av.FFmpegError):  # a file that cannot seek is decoded from its beginning
                    container.seek(int((seek_s + self.start_s) * av.time_base), backward=True)
            frames = self._decoded(container, stream, keeps_no_times)
            yield from _in_order(frames) if keeps_no_times else frames

    def _decoded(
        self, container: av.container.InputContainer, stream: Stream, in_ticks: bool
    ) -> Iterator[av.VideoFrame | av.AudioFrame]:
        damage = self.damage[stream.type]
        begun = False  # with a whole frame
        for packet in container.demux(stream):
            if in_ticks:
                packet.pts = packet.dts
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if not self.tolerant:
                    raise
                damage.add_packet(self._seconds(packet.dts if packet.pts is None else packet.pts, stream), error)
                continue
            for frame in frames:
                begun = begun or not frame.is_corrupt
                if begun and frame.is_corrupt:
                    damage.add_frame(self._seconds(frame.pts, stream))
                yield frame

    def _seconds(self, tick: int | None, stream: Stream) -> float | None:
        return None if tick is None else float(tick * stream.time_base) - self.start_s


def _open(path: Path) -> av.container.InputContainer:
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


def _audio_info(container: av.container.InputContainer, start_s: float) -> AudioInfo | None:
    if not container.streams.audio:
        return None
    stream = container.streams.audio[0]
    begin_s = float(stream.start_time * stream.time_base) if stream.start_time else start_s
    context = stream.codec_context
    described = ("", 0, 0) if context is None else (context.name, context.sample_rate, context.layout.nb_channels)
    return AudioInfo(*described, start_s=max(0.0, begin_s - start_s))


def _declared_length(container: av.container.InputContainer, start_s: float) -> float | None:
    """Seconds that video or audio should at least last by the file's own header; None where it does not say.

    Other streams, as subtitles or a second language, may well be longer than these.
    """
    if not container.duration or not any(name in container.format.name for name in DECLARE_LENGTH):
        return None
    ends = [_declared_end(stream) for stream in (*container.streams.video[:1], *container.streams.audio[:1])]
    if not ends:
        return None
    end_s = max(ends) if None not in ends else container.duration / av.time_base
    return end_s - max(0.0, start_s)  # Matroska counts from its clock's zero


def _declared_end(stream: Stream) -> float | None:
    """Where a stream ends by the header: mp4 has it in the stream, Matroska in a tag, as 00:01:23.400000000."""
    if stream.duration is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except (KeyError, ValueError):
        return None


def _in_order(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same frames, their ticks rising; those of `REORDERED` are in memory."""
    ticks: list[int] = []
    waiting: deque[av.VideoFrame] = deque()
    for frame in frames:
        if frame.pts is not None:
            heapq.heappush(ticks, frame.pts)
            waiting.append(frame)
        if len(waiting) > REORDERED:
            yield _at_tick(heapq.heappop(ticks), waiting.popleft())
    while waiting:
        yield _at_tick(heapq.heappop(ticks), waiting.popleft())


def _at_tick(tick: int, frame: av.VideoFrame) -> av.VideoFrame:
    frame.pts = tick
    return frame


def _at(time_s: float | None) -> str:
    return "at an unknown time" if time_s is None else f"at {time_s:.2f} s"


def _first(count: int) -> str:
    return "" if count == 1 else "the first "
