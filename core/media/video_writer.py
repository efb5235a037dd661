"""Encode videos: H.264 frames at any times, and AAC audio. Memory grows by the container's index only.

For mp4 that is 10 to 20 MB an hour of video, until the file is closed; for mkv nothing.
"""

import contextlib
import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from core.clip_utils import SAMPLE_RATE
from core.media.container import MediaFile
from core.media.streams import AudioInfo
from core.media.video import until_failure, yuv420_of
from core.parallel.readahead import read_ahead
from core.runtime.files import atomic_write

CLOCK = 90_000  # ticks per second, MPEG's own: whole for 25, 29.97 and 30 frames per second
KEY_FRAME_S = 2.0  # a player that jumps decodes from the key frame before
# x264's presets, and its parameters besides. The second takes half the work of "superfast": files as large, with the
# same signal-to-noise ratio, where the rate factor is greater by one (docs/speed.md).
USUAL, QUICK = ("veryfast", {}), ("ultrafast", {"cabac": 1, "subme": 1, "bframes": 2, "b-adapt": 0})
MP4_LIKE = (".mp4", ".m4v", ".mov")
LAYOUTS = {1: "mono", 2: "stereo"}
AAC_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000)
FRAMES_AHEAD = 8
OTHER_RATE = 48_000  # where AAC does not have the audio's own


def audio_form(audio: AudioInfo) -> tuple[int, int]:
    """Samples per second and channels as near to a file's own as AAC and `write_timed_video` have them."""
    return audio.sample_rate if audio.sample_rate in AAC_RATES else OTHER_RATE, min(2, audio.channels)


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: float,
    audio: np.ndarray | None = None,
    sample_rate: int = SAMPLE_RATE,
    crf: int = 20,
    *,
    repeatable: bool = False,
) -> None:
    """Encode frames at a constant rate, and audio, that begin together at time 0.

    Args:
        path: file to write; the extension chooses the container. The caller makes the writing atomic.
        frames: (height, width, [r, g, b]) uint8, all of one size with even sides.
        fps: frames per second.
        audio: mono samples, (samples,) int16, or None for a video without audio.
        sample_rate: samples per second of `audio`.
        crf: x264's constant rate factor, 0 (lossless) to 51.
        repeatable: equal frames give equal files, a third larger: without x264's macroblock tree, which now and then
            weighs blocks otherwise.
    """
    timed = ((number / fps, pixels) for number, pixels in enumerate(frames))
    blocks = () if audio is None else (audio[at : at + sample_rate] for at in range(0, len(audio), sample_rate))
    write_timed_video(path, timed, fps, blocks, sample_rate=sample_rate, crf=crf, repeatable=repeatable)


def write_part(
    path: str | Path,
    media: MediaFile,
    frames: Iterable[tuple[float, np.ndarray | av.VideoFrame]],
    audio: Iterable[np.ndarray],
    **options: object,
) -> None:
    """Encode what is made of an open video, whole or not at all; frames are made ahead by a thread.

    Of a file that is read tolerantly it ends, quietly, where decoding fails; else that is an error.

    Args:
        path: file to write.
        media: the video.
        frames, audio: as `write_timed_video` takes them.
        options: of `write_timed_video`.

    Raises:
        MediaError: the video cannot be decoded.
    """
    if media.tolerant:
        frames, audio = until_failure(frames), until_failure(audio)
    options |= {"index_first": True, "pixel_aspect": media.info.pixel_aspect}
    with atomic_write(path) as temporary, contextlib.closing(read_ahead(frames, FRAMES_AHEAD)) as ahead:
        write_timed_video(temporary, ahead, media.info.fps, audio, **options)


def write_timed_video(
    path: str | Path,
    frames: Iterable[tuple[float, np.ndarray | av.VideoFrame]],
    fps: float,
    audio: Iterable[np.ndarray] = (),
    sample_rate: int = SAMPLE_RATE,
    crf: int = 20,
    *,
    quick: bool = False,
    index_first: bool = False,
    pixel_aspect: Fraction | None = None,
    repeatable: bool = False,
) -> None:
    """Encode frames (H.264), each at its own time, and audio (AAC) that begins at time 0.

    Frames and audio are taken in turns, as their times come, so that both can be streams of any length.

    Args:
        path, sample_rate, crf, repeatable: as `write_video`.
        frames: (time in seconds, pixels), by time; pixels as for `write_video`, or frames in yuv420p, whose tags say
            what colours they are.
        fps: average frames per second, which guides the spending of bits.
        audio: blocks that follow each other without gaps, (samples,) int16 of one channel or (samples, 2) of two;
            none for a video without audio.
        quick: much less work, for what is looked at rather than kept.
        index_first: in mp4, put the index before the rest ("fast start"), so that a player can begin before it has
            the whole file; the file is copied once for it.
        pixel_aspect: width of a pixel over its height; None for square ones.
    """
    options = {"movflags": "faststart"} if index_first and Path(path).suffix.lower() in MP4_LIKE else {}
    with av.open(str(path), "w", options=options) as container:
        video = _VideoStream(container, fps, crf, quick, pixel_aspect, repeatable)
        samples = _AudioStream(container, audio, sample_rate)
        for time_s, pixels in frames:
            video.encode(time_s, yuv420_of(pixels) if isinstance(pixels, np.ndarray) else pixels)
            samples.encode_until(time_s)
        video.finish()
        samples.finish()


class _VideoStream:
    def __init__(
        self,
        container: av.container.OutputContainer,
        fps: float,
        crf: int,
        quick: bool,
        pixel_aspect: Fraction | None,
        repeatable: bool,
    ):
        preset, parameters = QUICK if quick else USUAL
        parameters = parameters | ({"mbtree": 0} if repeatable else {})
        options = {"crf": str(crf), "preset": preset, "g": str(max(1, round(fps * KEY_FRAME_S)))}
        options["x264-params"] = ":".join(f"{name}={value}" for name, value in parameters.items())
        self.container = container
        self.stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        self.stream.pix_fmt = "yuv420p"
        self.stream.codec_context.time_base = Fraction(1, CLOCK)
        if pixel_aspect is not None:
            self.stream.codec_context.sample_aspect_ratio = pixel_aspect
        self.ticks = None

    def encode(self, time_s: float, frame: av.VideoFrame) -> None:
        if self.ticks is None:
            self.stream.height, self.stream.width = frame.height, frame.width
            codec = self.stream.codec_context
            codec.colorspace, codec.color_range = frame.colorspace, frame.color_range
            self.ticks = round(time_s * CLOCK) - 1
        self.ticks = max(self.ticks + 1, round(time_s * CLOCK))  # x264 takes no two frames at one time
        frame.pts, frame.time_base = self.ticks, Fraction(1, CLOCK)
        self.container.mux(self.stream.encode(frame))

    def finish(self) -> None:
        self.container.mux(self.stream.encode(None))


class _AudioStream:
    """Makes a stream only if there is audio."""

    def __init__(self, container: av.container.OutputContainer, blocks: Iterable[np.ndarray], sample_rate: int):
        self.container, self.sample_rate, self.given = container, sample_rate, 0
        self.blocks = (block for block in blocks if len(block))
        first = next(self.blocks, None)
        self.stream = None
        if first is not None:
            self.layout = LAYOUTS[1 if first.ndim == 1 else first.shape[1]]
            self.stream = container.add_stream("aac", rate=sample_rate, layout=self.layout)
            self.blocks = itertools.chain([first], self.blocks)

    def encode_until(self, time_s: float) -> None:
        while self.given <= time_s * self.sample_rate:
            block = next(self.blocks, None)
            if block is None:
                return
            self._encode(block)

    def finish(self) -> None:
        for block in self.blocks:
            self._encode(block)
        if self.stream is not None:
            self.container.mux(self.stream.encode(None))

    def _encode(self, block: np.ndarray) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block).reshape(1, -1), format="s16", layout=self.layout)
        frame.sample_rate, frame.pts, frame.time_base = self.sample_rate, self.given, Fraction(1, self.sample_rate)
        self.given += len(block)
        self.container.mux(self.stream.encode(frame))
