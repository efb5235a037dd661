"""Media files as PyAV opens them: what they say of themselves, and the decoded frames of their streams.

Times are seconds on one clock, for video and audio alike. It counts from the container's start, so that a file whose
streams begin at a non-zero timestamp stays aligned with annotations that count from its beginning; or, where that is
asked for, it is the clock that players show: the container's own timestamps, from 0 on where those begin before 0.
"""

import contextlib
import functools
import heapq
import itertools
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.format import Flags
from av.stream import Stream

from core.media.streams import (
    Damage,
    SharedClock,
    StreamNumber,
    VideoInfo,
    audio_info,
    choose,
    declared_end,
    declared_length,
    orientation,
    steadied,
    streams_of,
)
from core.media.video_files import contents_of
from core.runtime.errors import MediaError

AVI = "avi"  # FFmpeg's name
MOST_FPS = 1000
REORDERED = 16  # frames that a decoder holds back at most to bring them in order (H.264, max_dec_frame_buffering)
MEND = {
    "video": "re-encode it, for example to H.264 in mp4",
    "audio": "re-encode it, for example to AAC",
}


class MediaFile:
    """A media file, open for as long as a job needs it.

    with MediaFile("interview.mp4") as media:
        print(media.info.width)
        for frame in read_frames(media): ...  # core.media.video

    A demuxer of FFmpeg is at one position of the file, and cannot be rewound where there is no index. So each stream is
    read through a demuxer of its own: the first goes on with the one that read the header, another is opened anew.
    Where recordings with headers of their own were joined byte by byte, each has demuxers of its own.

    Args:
        path: the file.
        tolerant: packets that cannot be decoded are left out and noted in `damage`; else they are an error.
        as_played: times are those that players show, and so are frames whose pixels are not square; else times count
            from the container's start, and frames have the pixels that are stored.
        video_stream: the number of the video stream to read, from 0; by default as FFmpeg and players choose.
        audio_stream: likewise; or "all", mixed.

    Attributes:
        damage: "video" and "audio" -> what of the stream has turned out to be damaged.
        joins_s: "video" and "audio" -> times, seconds, at which another recording turned out to begin, or the
            container's timestamps to go back, while the stream was read; there the clock goes on.
        unread_bytes: how many bytes at the file's end belong to no recording.
        cancelled_s: seconds of audio whose channels turned out to cancel each other when mixed.
        untimed: how many frames turned out to have no time, and were left out.
        offset_s: a container's timestamp less the time that is given for it, seconds.
        start_s: the time at which the container begins, seconds, not negative; 0 unless `as_played`.
        audio: what the file says of the audio that is read; None where there is none.
        declared_s: how long video or audio should at least last by the file's header, seconds; None where it does not
            say.
        declared_audio_end_s: where the audio ends by its stream's header, seconds of the container's clock, or None.

    Raises:
        MediaError: the file is absent, empty or of no known format; FFmpeg's own words are kept. Or it has no stream
            of the number.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        tolerant: bool = False,
        as_played: bool = False,
        video_stream: int | None = None,
        audio_stream: StreamNumber = None,
    ):
        self.path = Path(path)
        self.tolerant = tolerant
        self.damage = {"video": Damage(), "audio": Damage()}
        self.joins_s: dict[str, set[float]] = {"video": set(), "audio": set()}
        self.cancelled_s, self.untimed = 0.0, 0
        self._has_asked = False  # whether the first recording has the streams that are asked for
        self.as_played = as_played
        self._options = {"as_played": as_played, "video_stream": video_stream, "audio_stream": audio_stream}
        contents = contents_of(self.path)
        self._recordings, self.unread_bytes = contents.recordings, contents.unread
        container = self._open()
        container_start_s = float(_start(container))
        self.offset_s = min(0.0, container_start_s) if as_played else container_start_s
        self.start_s = container_start_s - self.offset_s
        videos, audios = streams_of(container, "video"), streams_of(container, "audio")
        video, audio = self._read_of(container, "video"), self._read_of(container, "audio")
        self._has_asked, self.audio_streams = True, len(audio)
        self._of_videos = {"stream": videos.index(video[0]) if video else 0, "streams": len(videos)}
        self.audio = audio_info(audios, audio, self.start_s, self.offset_s)
        self.declared_s = declared_length(container, [*video, *audio], container_start_s)
        self.declared_audio_end_s = declared_end(audio[0]) if len(audio) == 1 and len(self._recordings) == 1 else None
        self._duration_s = container.duration / av.time_base if container.duration else None
        self._add_lengths()
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
        container, stream = self._demuxer("video", 0)
        frames = self._frames(container, stream, 0.0, 0)
        try:
            first = next(frames)
        except (av.FFmpegError, StopIteration) as error:
            if not self.tolerant:  # what begins with damage may be whole from a later time on
                with MediaFile(self.path, tolerant=True, **self._options) as tolerant:
                    return tolerant.info
            reason = str(error) or str(self.damage["video"] or "it holds no frame")
            raise MediaError(
                f"{self.path}: no frame can be decoded ({reason}); the file is damaged or cut off"
            ) from error
        self._begun = first, frames
        rate = stream.average_rate or stream.guessed_rate
        if rate and rate > MOST_FPS:  # as of bare DV: the ticks of its clock
            rate = stream.guessed_rate
        if not rate:
            raise MediaError(f"{self.path}: the file has no frame rate; {MEND['video']}")
        rotation = 90 * orientation(first)[1]
        sideways = rotation % 180 > 0
        width, height = (first.height, first.width) if sideways else (first.width, first.height)
        aspect = stream.sample_aspect_ratio or None
        aspect = 1 / aspect if aspect and sideways else aspect
        if aspect and self.as_played:  # the shorter side of a pixel is drawn out
            width, height, aspect = round(width * max(aspect, 1)), round(height / min(aspect, 1)), None
        return VideoInfo(
            width=width,
            height=height,
            fps=float(rate),
            duration_s=self._duration_s,
            audio=self.audio,
            rotation=rotation,
            declared_s=self.declared_s,
            codec=stream.codec_context.name,
            pixel_format=stream.codec_context.pix_fmt or "",
            pixel_aspect=aspect,
            **self._of_videos,
            recordings=len(self._recordings),
        )

    def last_packet_end_s(self) -> float:
        """When the last packet of the streams that are read ends, in seconds; reads the file."""
        clock = SharedClock()
        for recording in range(len(self._recordings)):
            with self._open(recording) as container:
                if recording > 0:
                    clock.begin(_start(container))
                deque(clock.carry(container.demux(*self._all_read_of(container))), maxlen=0)  # to its end
        return self.start_s if clock.end is None else max(self.start_s, float(clock.end) - self.offset_s)

    def time_of(self, item: av.Packet | av.VideoFrame | av.AudioFrame) -> float | None:
        """When a frame or a packet is shown or heard, in seconds; None where it has no time."""
        stamp = item.dts if item.pts is None and isinstance(item, av.Packet) else item.pts
        return None if stamp is None else float(stamp * item.time_base) - self.offset_s

    def decoded(self, kind: str, seek_s: float = 0.0, position: int = 0) -> Iterator[av.VideoFrame | av.AudioFrame]:
        """The frames of a stream, in the order they are shown or heard, with their times in `pts`.

        AVI has a frame a tick, in the order of decoding. What FFmpeg guesses of their times is out of order for H.264
        with B-frames; here the n-th frame shown has the n-th tick of those that hold a frame.

        Args:
            kind: "video" or "audio".
            seek_s: seconds; where positive, frames come from about the last key frame before it, if the file can seek.
            position: which of the streams of that kind that are read.

        Raises:
            MediaError: there is no stream of that kind, or no decoder for it.
            av.FFmpegError: the file cannot be read on; or, where it is not read tolerantly, a packet not be decoded.
        """
        if kind == "video" and seek_s <= 0 and self._begun is not None:
            (first, frames), self._begun = self._begun, None
            yield first
            yield from frames
            return
        yield from self._frames(*self._demuxer(kind, position), seek_s, position)

    def _open(self, recording: int = 0) -> av.container.InputContainer:
        """A container at the beginning of one of the file's recordings."""
        # "file:" keeps names that begin with "-" or hold a ":" from being read as options or protocols.
        address = f"file:{self.path}"
        start, end = self._recordings[recording]
        if (start, end) != (0, self.path.stat().st_size):
            address = f"subfile,,start,{start},end,{end},,:{address}"
        try:
            # Titles of old files are in the encoding of the machine they were made on; nothing here reads them.
            return av.open(address, metadata_errors="replace")
        except av.FFmpegError as error:
            part = f": recording {recording + 1} of {len(self._recordings)} that were joined" if recording else ""
            raise MediaError(
                f"{self.path}{part} cannot be opened ({error}); the file is damaged, cut off or not a video"
            ) from error

    def _add_lengths(self) -> None:
        """Add what recordings after the first say of their lengths."""
        for recording in range(1, len(self._recordings)):
            with contextlib.suppress(MediaError), self._open(recording) as container:  # else: reported when it is read
                declared_s = declared_length(container, self._all_read_of(container), float(_start(container)))
                self.declared_s = None if None in (self.declared_s, declared_s) else self.declared_s + declared_s
                self._duration_s = (self._duration_s or 0) + (container.duration or 0) / av.time_base

    def _demuxer(
        self, kind: str, position: int, recording: int = 0
    ) -> tuple[av.container.InputContainer, Stream | None]:
        """A container at a recording's beginning, and a stream of it; None where a later recording has no such one."""
        container = None
        if recording == 0:
            with contextlib.suppress(IndexError):
                container = self._unread.pop()  # atomic: streams may be read in threads of their own
        container = container or self._open(recording)
        streams = self._read_of(container, kind)
        if recording == 0 and not streams:
            raise MediaError(f"{self.path} has no {kind} stream")
        stream = streams[position] if position < len(streams) else None
        if stream is not None and stream.codec_context is None:
            raise MediaError(f"{self.path}: no decoder knows its {kind}; {MEND[kind]}")
        return container, stream

    def _read_of(self, container: av.container.InputContainer, kind: str) -> list[Stream]:
        """The streams of a kind that are read; none where a later recording has no such one."""
        streams, number = streams_of(container, kind), self._options[f"{kind}_stream"]
        lacks = self._has_asked and isinstance(number, int) and number >= len(streams)
        return [] if lacks else choose(streams, number, f"{self.path}: {kind}")

    def _all_read_of(self, container: av.container.InputContainer) -> list[Stream]:
        """The streams that are read, of both kinds."""
        return [*self._read_of(container, "video"), *self._read_of(container, "audio")]

    def _frames(
        self, container: av.container.InputContainer, stream: Stream, seek_s: float, position: int
    ) -> Iterator[av.VideoFrame | av.AudioFrame]:
        """See `decoded`; closes the container."""
        kind, clock = stream.type, SharedClock()
        keeps_no_times = kind == "video" and container.format.name == AVI
        # Where a file keeps no times, or they go back, a frame's time follows from all frames before it.
        if seek_s > 0 and not keeps_no_times and not container.format.flags & Flags.ts_discont.value:
            with contextlib.suppress(av.FFmpegError):  # else it is decoded from its beginning
                container.seek(int((seek_s + self.offset_s) * av.time_base), backward=True)
        for recording in range(len(self._recordings)):
            if recording > 0:
                container, stream = self._demuxer(kind, position, recording)
                self.joins_s[kind].add(clock.begin(_start(container)) - self.offset_s)
            if stream is not None:
                # Several videos are decoded side by side; FFmpeg's frame threads can end a damaged file without a word.
                stream.codec_context.thread_count = 1
            with container:
                frames = self._decoded(self._packets(container, stream, clock, kind), kind, keeps_no_times)
                if keeps_no_times:
                    frames = _in_order(frames)
                elif kind == "video":
                    frames = steadied(frames, self._shown_s, self._show_at)
                yield from frames

    def _shown_s(self, frame: av.VideoFrame) -> tuple[int, str, float] | None:
        return None if frame.pts is None else (0, "video", self.time_of(frame))

    def _show_at(self, frame: av.VideoFrame, time_s: float) -> None:
        frame.pts = round((time_s + self.offset_s) / frame.time_base)

    def _decoded(
        self, packets: Iterator[av.Packet], kind: str, in_ticks: bool
    ) -> Iterator[av.VideoFrame | av.AudioFrame]:
        damage = self.damage[kind]
        begun = False  # with a whole frame
        for packet in packets:
            if in_ticks:
                packet.pts = packet.dts
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                if not self.tolerant:
                    raise
                damage.add_packet(self.time_of(packet), error)
                continue
            for frame in frames:
                begun = begun or not frame.is_corrupt
                if begun and frame.is_corrupt:
                    damage.add_frame(self.time_of(frame))
                yield frame

    def _packets(
        self, container: av.container.InputContainer, stream: Stream | None, clock: SharedClock, kind: str
    ) -> Iterator[av.Packet]:
        """The packets of a stream on a clock that goes on, and the empty one that makes its decoder give all.

        Packets of 0 bytes, which say "the same frame again" in Theora, VP8, AVI and others, are left out: a frame is
        shown until the next one, and a decoder would take them for the end.
        """
        last = None
        for packet, joined_s in clock.carry(container.demux(*self._all_read_of(container))):
            ours = stream is not None and packet.stream.index == stream.index
            if joined_s is not None:
                self.joins_s[kind].add(joined_s - self.offset_s)
            if ours and packet.size:
                yield packet
            elif ours:
                last = packet
        if last is not None:
            yield last


def _in_order(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    """The same frames, their ticks rising; those of `REORDERED` are in memory."""
    ticks: list[int] = []
    waiting: deque[av.VideoFrame] = deque()
    for frame in itertools.chain(frames, [None] * REORDERED):  # as many as wait at the end
        if frame is not None and frame.pts is not None:
            heapq.heappush(ticks, frame.pts)
            waiting.append(frame)
        if waiting and (frame is None or len(waiting) > REORDERED):
            waiting[0].pts = heapq.heappop(ticks)
            yield waiting.popleft()


def _start(container: av.container.InputContainer) -> Fraction:
    """When a container's clock begins, seconds."""
    return Fraction(container.start_time or 0, av.time_base)
