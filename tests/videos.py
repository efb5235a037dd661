"""Videos made for tests: frames at any times, audio beside them, packets that can be changed."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.stream import Disposition
from tiny import FPS, HEIGHT, WIDTH, tiny_frame

from core.clip_utils import SAMPLE_RATE
from core.media.audio import decode_audio
from core.media.container import MediaFile
from core.media.video import read_frames

BRIGHTNESS_STEP = 3


def grey(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame whose brightness shows its number, 0 <= number < 78: (height, width, 3) uint8."""
    return np.full((height, width, 3), 20 + BRIGHTNESS_STEP * number, np.uint8)


def number_of(pixels: np.ndarray) -> int:
    """The number of a `grey` frame, whatever compression did to it."""
    return round((float(pixels.mean()) - 20) / BRIGHTNESS_STEP)


def encode(
    path: Path,
    frames: Iterable[np.ndarray],
    times_s: Iterable[float] | None = None,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    scale: int | None = None,
    *,
    audio: np.ndarray | None = None,
    rate: int = 16_000,
    audio_codec: str = "aac",
    audio_start_s: float = 0.0,
    gap: tuple[float, float] | None = None,
    aspect: Fraction | None = None,
    title: str = "",
    movflags: str = "",
    **options: str,
) -> Path:
    """Write a video with frames, and audio, at any container times.

    Args:
        path: its extension chooses the container.
        frames: (height, width, [r, g, b]) uint8.
        times_s: of the frames; by default 25 a second.
        scale: ticks a second of the video; by default 6,000 for H.264, else 25.
        audio: (samples,) or (channel, samples) int16.
        gap: (second of the audio at which it stops, seconds for which nothing is stored).
        aspect: width of a pixel over its height.
        movflags: of the muxer of mp4.
        options: of the video's codec.
    """
    scale = scale or (6000 if codec == "libx264" else FPS)
    packets = []
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        container.metadata["title"] = title
        video = container.add_stream(codec, rate=FPS, options=options)
        video.pix_fmt = pixel_format
        video.codec_context.time_base = Fraction(1, scale)
        if aspect is not None:
            video.codec_context.sample_aspect_ratio = aspect
        audio_stream = None
        if audio is not None:
            audio = np.atleast_2d(audio)
            layout = "mono" if len(audio) == 1 else "stereo"
            audio_stream = container.add_stream(audio_codec, rate=rate, layout=layout)
        for number, pixels in enumerate(frames):
            if number == 0:
                video.height, video.width = pixels.shape[:2]
                times = iter(times_s) if times_s is not None else None
            time_s = number / FPS if times is None else next(times)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time_s * scale), Fraction(1, scale)
            packets += video.encode(frame)
        packets += video.encode(None)
        if audio_stream is not None:
            for start in range(0, audio.shape[1], 1024):
                late_s = gap[1] if gap and start / rate >= gap[0] else 0.0
                block = audio_frame(audio[:, start : start + 1024].T, rate)
                block.pts = start + round((audio_start_s + late_s) * rate)
                packets += audio_stream.encode(block)
            packets += audio_stream.encode(None)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path


def frame_times(path: Path, **options) -> np.ndarray:
    """The times of a video's frames, (frames,) float64 seconds; options of `MediaFile`."""
    return np.array([frame.time_s for frame in read_frames(MediaFile(path, **options))])


def heard(path: Path, *form: int) -> np.ndarray:
    """A file's audio, (samples,) int16; form: of `decode_audio`."""
    return np.concatenate(list(decode_audio(MediaFile(path), *form)))


def clicks(times_s: list[float], seconds: float, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Silence with bursts of 2 ms that begin at the given times: (samples,) int16."""
    samples = np.zeros(round(seconds * rate), np.int16)
    burst = (20_000 * np.sin(np.arange(rate // 500) / rate * 2 * np.pi * 1000)).astype(np.int16)
    for time_s in times_s:
        start = round(time_s * rate)
        samples[start : start + len(burst)] = burst
    return samples


def click_times(samples: np.ndarray, rate: int = SAMPLE_RATE) -> list[float]:
    """Where the bursts of decoded `clicks` begin, in seconds."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 6000) / rate
    return [float(loud[i]) for i in range(len(loud)) if i == 0 or loud[i] - loud[i - 1] > 0.05]


def audio_frame(samples: np.ndarray, rate: int, first: int = 0) -> av.AudioFrame:
    """(samples,) or (samples, channel) int16 as a frame that begins `first` samples after time 0."""
    samples = samples.reshape(len(samples), -1)
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.reshape(1, -1)), format="s16", layout=layout)
    frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first
    return frame


def audio_frames(samples: np.ndarray, rate: int, first: int = 0, step: int = 1152) -> Iterable[av.AudioFrame]:
    """Samples as frames of `step` samples."""
    return [audio_frame(samples[at : at + step], rate, first + at) for at in range(0, len(samples), step)]


def audio_file(path: Path, frames: Iterable[av.AudioFrame], codec: str = "pcm_s16le", rate: int = SAMPLE_RATE) -> Path:
    """Write a mono file without a video from `audio_frames`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        for frame in [*frames, None]:
            container.mux(stream.encode(frame))
    return path


def with_packets(source: Path, path: Path, edit: Callable[[int, bytes], bytes | None]) -> Path:
    """A copy of a file whose packets are changed, by their number in the file; None drops one."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for number, packet in enumerate(old.demux()):
            content = edit(number, bytes(packet)) if packet.size else None
            if content is not None:
                copy = av.Packet(content)
                copy.pts, copy.dts, copy.duration = packet.pts, packet.dts, packet.duration
                copy.time_base = packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, streams[packet.stream.index]
                new.mux(copy)
    return path


def with_empty_packets(source: Path, path: Path, numbers: Iterable[int]) -> Path:
    """A copy of an mp4 without audio in which some packets, by number, have 0 bytes; muxers would leave them out."""
    dropped = b"dropped!" * 5
    data = bytearray(with_packets(source, path, lambda n, old: dropped if n in numbers else old).read_bytes())
    content = data.index(b"mdat") - 4
    data[content : content + 4] = (int.from_bytes(data[content : content + 4]) - data.count(dropped) * 40).to_bytes(4)
    sizes = data.index(b"stsz") + 16  # after version and flags, the size of all, and their number
    for number in numbers:
        data[sizes + 4 * number : sizes + 4 * number + 4] = bytes(4)
    path.write_bytes(data.replace(dropped, b""))
    return path


def turn(path: Path, clockwise_quarter_turns: int, *, mirrored: bool = False) -> None:
    """Write a rotation, after which what is displayed is mirrored left to right, into the header of an mp4 (its display
    matrix), which PyAV cannot do."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4  # version 0: flags 4, times and ids 20, reserved 8, layer to volume 8
    fixed = 1 << 16
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][clockwise_quarter_turns]
    across = -fixed if mirrored else fixed  # where right is
    matrix = [cosine * across, sine * fixed, 0, -sine * across, cosine * fixed, 0, 0, 0, 1 << 30]
    start = header + 4 + 20 + 8 + 8
    assert int.from_bytes(data[start : start + 4]) == fixed
    data[start : start + 36] = b"".join(value.to_bytes(4, signed=True) for value in matrix)
    path.write_bytes(data)


def joined(folder: Path, sizes: list[tuple[int, int]], starts_s: list[float]) -> Path:
    """`tiny.tiny_frame` in MPEG transport streams of one second each, one behind the other in one file."""
    with (folder / "joined.ts").open("wb") as out:
        for number, (size, start_s) in enumerate(zip(sizes, starts_s, strict=True)):
            part = folder / f"{number}.ts"
            with av.open(str(part), "w", options={"mpegts_copyts": "1"}) as container:
                stream = container.add_stream("libx264", rate=FPS, options={"crf": "8", "bf": "0"})
                (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
                stream.codec_context.time_base = Fraction(1, 90_000)
                for frame_number in range(FPS):
                    frame = av.VideoFrame.from_ndarray(cv2.resize(tiny_frame(frame_number, 1), size), format="rgb24")
                    frame.pts = round((start_s + frame_number / FPS) * 90_000)
                    frame.time_base = Fraction(1, 90_000)
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
            out.write(part.read_bytes())
    return folder / "joined.ts"


def stored_times(content: bytes, kind: str) -> list[list[int]]:
    """Where a transport stream (ISO/IEC 13818-1) has the times of each packet of its video, or audio: when it is shown
    and, where that is another, when it is decoded; five bytes each."""
    places = []
    for start in range(0, len(content), 188):
        head = content[start : start + 188]
        place = 5 + head[4] if head[3] & 0x20 else 4  # after the adaptation field
        packet = head[place:]
        begins = head[1] & 0x40 and head[3] & 0x10 and packet[:3] == b"\0\0\1"
        if begins and packet[3] >> 4 == {"video": 0xE, "audio": 0xC}[kind]:
            count = {2: 1, 3: 2}[packet[7] >> 6]
            places.append([start + place + 9 + 5 * number for number in range(count)])
    return places


def flip(content: bytes, place: int, bit: int) -> bytes:
    """Flip a bit, from 0 to 32, of a stored time."""
    parts = [(4, 1, 0), (3, 0, 7), (2, 1, 15), (1, 0, 22), (0, 1, 30)]  # byte, marker bits below it, its lowest bit
    byte, below, lowest = next(part for part in reversed(parts) if part[2] <= bit)
    changed = bytearray(content)
    changed[place + byte] ^= 1 << (bit - lowest + below)
    return bytes(changed)


def tone(amplitude: float, hertz: float = 300, seconds: float = 1.6) -> np.ndarray:
    """(samples,) int16."""
    times = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return np.round(amplitude * np.sin(2 * np.pi * hertz * times)).astype(np.int16)


def strength(samples: np.ndarray) -> float:
    """The amplitude of a tone."""
    return float(np.sqrt(2 * np.mean(np.square(samples[2000:-2000].astype(np.float64)))))


def of_streams(
    path: Path,
    videos: list[tuple[int, int, str]],
    audios: list[tuple[np.ndarray, str]],
    codec: str = "aac",
    frames: int = 40,
) -> Path:
    """A file of several streams.

    Args:
        videos: (width, number shown by all its `grey` frames, the name of a disposition or ""); as high as wide.
        audios: (samples of one or (channel, samples) of several channels, the name of a disposition or "").
    """
    layouts = {1: "mono", 2: "stereo", 6: "5.1"}
    with av.open(str(path), "w") as container:
        streams, packets = [], []
        for width, _, flag in videos:
            cover = flag == "attached_pic"
            stream = container.add_stream("mjpeg" if cover else "libx264", rate=FPS)
            stream.width = stream.height = width
            stream.pix_fmt = "yuvj420p" if cover else "yuv420p"
            stream.disposition = Disposition[flag] if flag else Disposition(0)
            streams.append(stream)
        for samples, flag in audios:
            stream = container.add_stream(codec, rate=SAMPLE_RATE, layout=layouts[len(np.atleast_2d(samples))])
            stream.disposition = Disposition[flag] if flag else Disposition(0)
            streams.append(stream)
        for stream, (width, number, flag) in zip(streams, videos, strict=False):
            for _ in range(1 if flag == "attached_pic" else frames):
                packets += stream.encode(av.VideoFrame.from_ndarray(grey(number, width, width), format="rgb24"))
            packets += stream.encode(None)
        for stream, (samples, _) in zip(streams[len(videos) :], audios, strict=True):
            samples = np.atleast_2d(samples)
            for first in range(0, samples.shape[1], 1024):
                packed = np.ascontiguousarray(samples[:, first : first + 1024].T).reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layouts[len(samples)])
                frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, first, Fraction(1, SAMPLE_RATE)
                packets += stream.encode(frame)
            packets += stream.encode(None)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path
