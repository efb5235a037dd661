"""The streams of a file: what it says of them, which are read, the clock that they share, what of them is damaged."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.stream import Disposition, Stream

from core.runtime.errors import NoStreamError

DECLARE_LENGTH = ("mp4", "matroska")  # in FFmpeg's names of containers whose header has it; of others it is estimated
ALL = "all"  # the audio streams, mixed
BACK_S = {"video": 0.1, "audio": 1.0}  # that rounding, careless muxers and audio stored twice let time go back by
ON_S = 0.5  # what time goes on by at once; more is to be borne out by what comes next
IN_A_PACKET = 32  # frames of audio, at most, of which a transport stream keeps the first one's time alone
HELD = 200  # packets that wait for what comes next, at most

StreamNumber = int | str | None  # among the streams of a kind, from 0 as in FFmpeg's 0:V:1; or ALL; None: by default


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
        lost = f"{self.packets:,} packet(s) cannot be decoded, {'the first ' * (self.packets > 1)}{self._lost}"
        part = f"{self.frames:,} frame(s) can be decoded only in part, {'the first ' * (self.frames > 1)}{self._faulty}"
        return "; ".join([lost] * bool(self.packets) + [part] * bool(self.frames))


@dataclass(frozen=True)
class AudioInfo:
    """What a file says of the audio that is read of it.

    Attributes:
        codec: FFmpeg's name of the decoder; empty where it has none.
        sample_rate: samples per second; 0 without a decoder.
        channels: how many; 0 without a decoder.
        start_s: where the stream begins, seconds, not before the file.
        stream: its number among the file's audio streams, from 0; or "all".
        streams: how many audio streams the file has.
    """

    codec: str
    sample_rate: int
    channels: int
    start_s: float
    stream: int | str = 0
    streams: int = 1


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself.

    Attributes:
        width, height: pixels, after the rotation in the metadata.
        fps: average frames per second.
        duration_s: seconds as the container claims, or FFmpeg estimates; None where neither says.
        audio: the audio that is read; None where there is none.
        rotation: degrees counterclockwise that turn a stored frame, mirrored where its metadata say so, into the
            displayed one: 0, 90, 180 or 270.
        declared_s: seconds that the file should at least last by its own header; None where that does not say.
        codec: FFmpeg's name of the video's decoder.
        pixel_format: FFmpeg's name of it.
        pixel_aspect: width of a displayed pixel over its height; None where they are square, or the file does not say.
        stream: the number of its video among the file's video streams, from 0; cover art does not count.
        streams: how many video streams the file has.
        recordings: how many were joined byte by byte to make the file, each with a header of its own.
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
    stream: int = 0
    streams: int = 1
    recordings: int = 1


def streams_of(container: av.container.InputContainer, kind: str) -> list[Stream]:
    """The streams of a kind, "video" or "audio"; cover art is no video."""
    return [stream for stream in getattr(container.streams, kind) if not stream.disposition & Disposition.attached_pic]


def orientation(frame: av.VideoFrame) -> tuple[bool, int]:
    """Whether a stored frame is to be mirrored, left to right, and then how often to be turned by a quarter,
    counterclockwise, to be displayed; by the display matrix, as FFmpeg and browsers do.

    Of its numbers the first two rows say where a step to the right, and one down, lead: (right, down) each.
    """
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return False, 0
    right, down, _, right_of_down, down_of_down = np.frombuffer(bytes(side_data), np.int32)[:5].astype(float)
    mirrored = right * down_of_down < down * right_of_down
    sign = -1 if mirrored else 1
    return bool(mirrored), round(-math.degrees(math.atan2(sign * down, sign * right)) / 90) % 4


def choose(streams: Sequence[Stream], number: StreamNumber, name: str) -> list[Stream]:
    """The streams of a kind that are read: one, or none where there is none, or several where all are asked for.

    By default it is the one that FFmpeg and players take: one that is flagged as default before others, of those the
    one with the largest frames, or the most channels, of those the first. One that no decoder knows comes last.

    Args:
        streams: of the kind.
        number: which.
        name: of file and kind, for the message.

    Raises:
        NoStreamError: the number is none of theirs.
    """
    if number == ALL:
        return [stream for stream in streams if stream.codec_context is not None] or list(streams[:1])
    if number is None:
        return [max(streams, key=_rank)] if streams else []
    if number not in range(len(streams)):
        raise NoStreamError(f"{name} stream {number}: the file has {_numbers(len(streams))}")
    return [streams[number]]


def _rank(stream: Stream) -> tuple[bool, bool, int]:
    context = stream.codec_context
    if context is None:
        return False, False, 0
    size = context.width * context.height if stream.type == "video" else context.layout.nb_channels
    return True, bool(stream.disposition & Disposition.default), size


def _numbers(count: int) -> str:
    return {0: "none", 1: "one, number 0"}.get(count, f"{count}, numbers 0 to {count - 1}")


def audio_info(every: Sequence[Stream], chosen: Sequence[Stream], start_s: float, offset_s: float) -> AudioInfo | None:
    """What a file says of the audio that is read of it; None where there is none.

    Args:
        every: the audio streams of the file.
        chosen: those of them that are read.
        start_s: where the file begins.
        offset_s: what to take off the streams' own times.
    """
    if not chosen:
        return None
    contexts = [stream.codec_context for stream in chosen]
    begins_s = [
        start_s if not stream.start_time else float(stream.start_time * stream.time_base) - offset_s
        for stream in chosen
    ]
    return AudioInfo(
        codec="" if contexts[0] is None else contexts[0].name,
        sample_rate=max(0 if context is None else context.sample_rate for context in contexts),
        channels=max(0 if context is None else context.layout.nb_channels for context in contexts),
        start_s=max(start_s, min(begins_s)),
        stream=every.index(chosen[0]) if len(chosen) == 1 else ALL,
        streams=len(every),
    )


class SharedClock:
    """Carries the clock on where time goes back, as where recordings were joined byte by byte.

    A recording is put behind the end of the one before, all its streams by as much. Whoever reads a stream of the file
    has to pass the packets of the others through as well: then all come to the same clock.
    """

    def __init__(self) -> None:
        self.end: Fraction | None = None  # of the file so far
        self._offset = Fraction(0)  # what is added to times
        self._latest: dict[int, Fraction] = {}  # of each stream, when its last packet is decoded

    def begin(self, start: Fraction) -> float:
        """Another recording begins, whose own clock begins at `start`; where that is on this one, seconds."""
        self.end = start if self.end is None else self.end
        self._offset = self.end - start
        self._latest.clear()
        return float(self.end)

    def carry(self, packets: Iterable[av.Packet]) -> Iterator[tuple[av.Packet, float | None]]:
        """Put the packets of a file, of all streams that are read, on the clock.

        Yields:
            each; and where another recording begins with it, the time on the clock, seconds, else None.
        """
        for packet in steadied(packets, _decoded_s, _decode_at, IN_A_PACKET):
            yield packet, self._carried(packet)

    def _carried(self, packet: av.Packet) -> float | None:
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            return None
        stream, base, joined_s = packet.stream, packet.time_base, None
        if packet.dts is not None:
            decoded = packet.dts * base + self._offset
            if decoded < self._latest.get(stream.index, decoded) - Fraction(BACK_S[stream.type]):
                joined_s = self.begin(stamp * base)
            self._latest[stream.index] = packet.dts * base + self._offset
        if self._offset:
            ticks = round(self._offset / base)
            packet.pts = None if packet.pts is None else packet.pts + ticks
            packet.dts = None if packet.dts is None else packet.dts + ticks
        end = (stamp + (packet.duration or 0)) * base + self._offset
        self.end = end if self.end is None else max(self.end, end)
        return joined_s


@dataclass
class _Pace:
    """The latest time of a stream, and items, with their times, that are far off it, but go on from each other."""

    back_s: float  # what time may go back by
    most: int  # doubtful items
    put_right: Callable[[Any, float], object]
    latest_s: float | None = None
    doubtful: list[tuple[Any, float]] = field(default_factory=list)

    def add(self, item: Any, time_s: float) -> None:
        back_s, latest_s = self.back_s, self.latest_s
        if self.doubtful:
            first_s, last_s = self.doubtful[0][1], self.doubtful[-1][1]
            least_s = min(first_s, time_s) if latest_s is None else latest_s
            if -back_s <= time_s - last_s <= ON_S:  # it goes on from them, as behind a gap, if they get many
                if latest_s is not None and len(self.doubtful) < self.most:
                    self.doubtful.append((item, time_s))
                    return
            elif least_s - back_s <= time_s and not least_s - back_s <= first_s <= time_s:  # it is back
                shift_s = (least_s + time_s - first_s - last_s) / 2  # into the middle
                for one, at_s in self.doubtful:
                    self.put_right(one, at_s + shift_s)
                last_s += shift_s
            self.latest_s = last_s
        goes_on = self.latest_s is not None and -back_s <= time_s - self.latest_s <= ON_S
        self.doubtful = [] if goes_on else [(item, time_s)]
        self.latest_s = time_s if goes_on else self.latest_s


def steadied(
    items: Iterable[Any],
    stamp_of: Callable[[Any], tuple[int, str, float] | None],
    put_right: Callable[[Any, float], object],
    most: int = 1,
) -> Iterator[Any]:
    """Packets or frames in their order; times of a few that are far off those before and behind them are put right.

    So they are where a bit is flipped, as in a recorded broadcast. Where time goes on far and stays there, or goes back
    as where recordings were joined, it is left alone.

    Args:
        items: of one or several streams, in each of which time goes on.
        stamp_of: number and kind of the stream, and the time, seconds; None for what has none.
        put_right: gives one another time.
        most: how many there may be in succession, which depend on one stored time.
    """
    paces: dict[int, _Pace] = {}
    held: deque[Any] = deque()
    try:
        for item in items:
            held.append(item)
            if (stamp := stamp_of(item)) is not None:
                stream, kind, time_s = stamp
                if stream not in paces:
                    paces[stream] = _Pace(BACK_S[kind], most, put_right)
                paces[stream].add(item, time_s)
            doubtful = [pace.doubtful[0][0] for pace in paces.values() if pace.doubtful]
            while held and (len(held) > HELD or not any(held[0] is one for one in doubtful)):
                yield held.popleft()
    except av.FFmpegError:
        yield from held  # what came before the fault
        raise
    yield from held


def _decoded_s(packet: av.Packet) -> tuple[int, str, float] | None:
    has_time = packet.size and packet.dts is not None
    return (packet.stream.index, packet.stream.type, float(packet.dts * packet.time_base)) if has_time else None


def _decode_at(packet: av.Packet, time_s: float) -> None:
    before, packet.dts = packet.dts, round(time_s / packet.time_base)
    if packet.pts is not None and abs(packet.pts - before) < abs(packet.pts - packet.dts):
        packet.pts += packet.dts - before  # the file has one time for both


def declared_length(container: av.container.InputContainer, streams: Sequence[Stream], start_s: float) -> float | None:
    """Seconds that video or audio should at least last by the file's own header; None where it does not say.

    Other streams, as subtitles or a second language, may well be longer than those that are read.

    Args:
        container: the file.
        streams: those that are read.
        start_s: the container's start time.
    """
    if not container.duration or not any(name in container.format.name for name in DECLARE_LENGTH):
        return None
    ends = [declared_end(stream) for stream in streams]
    if not ends:
        return None
    end_s = max(ends) if None not in ends else container.duration / av.time_base
    return end_s - max(0.0, start_s)  # Matroska counts from its clock's zero


def declared_end(stream: Stream) -> float | None:
    """Where a stream ends by the header: mp4 has it in the stream, Matroska in a tag, as 00:01:23.400000000."""
    if stream.duration is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    try:
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    except (KeyError, ValueError):
        return None


def _at(time_s: float | None) -> str:
    return "at an unknown time" if time_s is None else f"at {time_s:.2f} s"
