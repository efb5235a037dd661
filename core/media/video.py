"""Video through PyAV: probe, frames with their times in one sequential pass, write a video.

Times are seconds from the container's start time, as `core.media.container` has them.
"""

import contextlib
import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from core.media.container import Damage, decoded, keeps_no_times, open_media, picture_stream, start_of, told_length
from core.runtime.errors import MediaError

VIDEO_EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv")
# FFmpeg's numbers: colour unspecified (taken as BT.601 there as in OpenCV), BT.470BG and SMPTE 170M; range unspecified
# (limited, for this pixel format) or limited.
BT601 = (2, 5, 6)
LIMITED = (0, 1)
# Formats whose first plane is brightness, a byte a pixel; the table stretches 16-235 to 0-255.
LUMA_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12")
FULL_RANGE = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
SEEK_BACK_S = 10.0  # more than the distance of two key frames in all but a few files
BACK_S = 0.1  # that rounding and careless muxers may let time go back by


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself.

    Attributes:
        width, height: pixels, after the rotation in the metadata; whether they are square is not told.
        fps: average frames per second.
        duration_s: seconds as the container claims, or FFmpeg estimates; None where neither says.
        told_s: seconds that the file should at least last by its own header; None where it does not tell.
        has_audio: whether there is a sound stream.
        rotation: degrees counterclockwise that turn a stored frame into the displayed one.
    """

    width: int
    height: int
    fps: float
    duration_s: float | None
    has_audio: bool
    rotation: int
    told_s: float | None = None


@dataclass(frozen=True)
class Frame:
    """One decoded frame; conversion to colour is done when asked for, since not every frame is looked at.

    Attributes:
        time_s: presentation time in seconds from the container's start.
    """

    time_s: float
    picture: av.VideoFrame

    @property
    def width(self) -> int:
        """Pixels, as displayed."""
        return self.picture.height if self._quarter_turns % 2 else self.picture.width

    @property
    def height(self) -> int:
        """Pixels, as displayed."""
        return self.picture.width if self._quarter_turns % 2 else self.picture.height

    def rgb(self) -> np.ndarray:
        """The displayed picture, (height, width, [r, g, b]) uint8."""
        return self._displayed("rgb24")

    def bgr(self) -> np.ndarray:
        """The displayed picture in OpenCV's order, (height, width, [b, g, r]) uint8."""
        return self._displayed_bgr

    def bgr_region(self, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
        """A part of `bgr()`, (y2 - y1, x2 - x1, 3) uint8, without converting the rest where that can be done.

        Args:
            x1, y1, x2, y2: pixels of the displayed picture, 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height.

        Returns:
            Values may differ by 3 of 255 from those of `bgr()`: two libraries round differently.
        """
        picture = self.picture
        plain = picture.format.name == "yuv420p" and picture.colorspace in BT601 and picture.color_range in LIMITED
        if not plain or self._quarter_turns or picture.width % 2 or picture.height % 2:
            return self.bgr()[y1:y2, x1:x2]
        left, top = x1 // 2 * 2, y1 // 2 * 2  # colour is kept for squares of two pixels
        right, bottom = (x2 + 1) // 2 * 2, (y2 + 1) // 2 * 2
        height, width = bottom - top, right - left
        region = np.empty((height * 3 // 2, width), np.uint8)
        luma, *chroma = (np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size) for plane in picture.planes)
        region[:height] = luma[top:bottom, left:right]
        colours = region[height:].reshape(2, height // 2, width // 2)
        for colour, plane in zip(colours, chroma, strict=True):
            colour[:] = plane[top // 2 : bottom // 2, left // 2 : right // 2]
        pixels = cv2.cvtColor(region, cv2.COLOR_YUV2BGR_I420)
        return pixels[y1 - top : y2 - top, x1 - left : x2 - left]

    def grey_region(self, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
        """A part of the displayed picture in grey, (y2 - y1, x2 - x1) uint8, 0 (black) to 255 (white).

        Grey is the brightness (luma) that the video itself stores, stretched to the full range: what a JPEG of the
        frame would hold, whatever the video's colour matrix.

        Args:
            x1, y1, x2, y2: as `bgr_region`.
        """
        picture = self.picture
        if picture.format.name not in LUMA_FORMATS or self._quarter_turns:
            return self._displayed_grey[y1:y2, x1:x2]
        plane = picture.planes[0]
        luma = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[y1:y2, x1:x2]
        full_range = picture.format.name.startswith("yuvj") or picture.color_range not in LIMITED
        return luma.copy() if full_range else cv2.LUT(np.ascontiguousarray(luma), FULL_RANGE)

    def scaled_bgr(self, longest: int) -> np.ndarray:
        """The whole displayed picture made smaller, in OpenCV's order, (height, width, [b, g, r]) uint8.

        Args:
            longest: pixels of its longer side; a picture that is not larger stays as it is.
        """
        picture = self.picture
        scale = min(1.0, longest / max(picture.width, picture.height))
        width, height = (max(1, round(side * scale)) for side in (picture.width, picture.height))
        small = picture.reformat(width, height, "bgr24", interpolation="AREA" if scale <= 0.5 else "BILINEAR")
        return self._turned(small.to_ndarray())

    @functools.cached_property
    def _displayed_bgr(self) -> np.ndarray:
        return self._displayed("bgr24")

    @functools.cached_property
    def _displayed_grey(self) -> np.ndarray:
        return self._displayed("gray")

    def _displayed(self, format: str) -> np.ndarray:
        return self._turned(self.picture.to_ndarray(format=format))

    def _turned(self, pixels: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.rot90(pixels, self._quarter_turns)) if self._quarter_turns else pixels

    @property
    def _quarter_turns(self) -> int:
        """Counterclockwise turns from the stored picture to the displayed one."""
        return round(self.picture.rotation / 90) % 4


def find_video(folder: str | Path, video_id: str) -> Path:
    """The file `<video_id>.<extension>` of a folder.

    Raises:
        MediaError: there is none.
    """
    for extension in VIDEO_EXTENSIONS:
        path = Path(folder) / f"{video_id}{extension}"
        if path.is_file():
            return path
    raise MediaError(f"no video {video_id} in {folder}: expected {video_id}{{{','.join(VIDEO_EXTENSIONS)}}}")


def probe(path: str | Path) -> VideoInfo:
    """Size, frame rate and streams of a video; decodes one frame, for the rotation is told there.

    Raises:
        MediaError: the file is absent, empty, unreadable or has no picture.
    """
    with open_media(path) as container:
        stream = picture_stream(container, path)
        damage = Damage()
        try:
            frame = next(decoded(container, stream, damage))
        except (av.FFmpegError, StopIteration) as error:
            reason = str(error) or str(damage) or "it holds no picture"
            raise MediaError(f"{path}: no frame can be decoded ({reason}); the file is damaged or cut off") from error
        rate = stream.average_rate or stream.guessed_rate
        if not rate:
            raise MediaError(f"{path}: the file tells no frame rate; re-encode it, for example to H.264 in mp4")
        rotation = round(frame.rotation / 90) * 90 % 360
        width, height = (frame.height, frame.width) if rotation in (90, 270) else (frame.width, frame.height)
        duration = container.duration / av.time_base if container.duration else None
        has_audio, told_s = bool(container.streams.audio), told_length(container)
        return VideoInfo(width, height, float(rate), duration, has_audio, rotation, told_s)


def read_frames(
    path: str | Path,
    start_s: float = 0.0,
    end_s: float = float("inf"),
    threads: int = 1,
    damage: Damage | None = None,
) -> Iterator[Frame]:
    """Decode a video once, in order, from the last frame at or before `start_s` to the first after `end_s`.

    Args:
        path: video file.
        start_s, end_s: seconds from the container's start; one seek brings the decoder near the start.
        threads: decoder threads; 1 where several videos are decoded side by side.
        damage: takes note of packets that cannot be decoded, which are left out; without it they are an error.

    Times rise from frame to frame. A picture whose size changes midway is scaled to that of its first frame.

    Raises:
        MediaError: the file is absent, unreadable or has no picture, decoding fails midway, or time goes back.
    """
    # MPEG streams, and files with B-frames whose index holds decoding times, can land behind the place asked for.
    for seek_s in (start_s, start_s - SEEK_BACK_S, 0.0):
        frames = _decode(path, seek_s, threads, damage)
        first = next(frames, None)
        if seek_s <= 0 or (first is not None and first.time_s <= start_s):
            break
    if first is None:
        return
    waiting = None  # the latest frame before start_s, given when the next one shows that it is the last
    for frame in itertools.chain([first], frames):
        if frame.time_s < start_s:
            waiting = frame
            continue
        if waiting is not None and frame.time_s > start_s:
            yield waiting
        waiting = None
        yield frame
        if frame.time_s > end_s:
            return
    if waiting is not None:
        yield waiting


def _decode(path: str | Path, seek_s: float, threads: int, damage: Damage | None) -> Iterator[Frame]:
    """All frames from about the last key frame before `seek_s` (from the first frame on, where that is not > 0)."""
    with open_media(path) as container:
        stream = picture_stream(container, path)
        stream.codec_context.thread_count = threads
        stream.thread_type = "AUTO" if threads != 1 else "SLICE"
        origin = start_of(container)
        # Without times in the file, a frame's time follows from all frames before it.
        if seek_s > 0 and not keeps_no_times(container):
            with contextlib.suppress(av.FFmpegError):  # a file that cannot seek is decoded from its beginning
                container.seek(int((seek_s + origin) * av.time_base), backward=True)
        time_s = size = None
        untimed = 0
        try:
            for picture in decoded(container, stream, damage):
                if picture.pts is None:
                    untimed += 1
                    continue
                time_s = _after(time_s, float(picture.pts * picture.time_base) - origin, path)
                size = size or (picture.width, picture.height)
                if (picture.width, picture.height) != size:  # as in recordings of broadcasts
                    picture = picture.reformat(*size)
                yield Frame(time_s, picture)
        except av.FFmpegError as error:
            where = "at its first frame" if time_s is None else f"after {time_s:.2f} s"
            raise MediaError(f"{path}: decoding fails {where} ({error}); the file is damaged or cut off") from error
        if untimed and time_s is None:
            raise MediaError(
                f"{path}: its frames have no times, as in a bare stream of H.264; "
                "make an mp4 of it, for example with FFmpeg: ffmpeg -r FRAMES_PER_SECOND -i IN -crf 18 OUT.mp4"
            )


def _after(last_s: float | None, time_s: float, path: str | Path) -> float:
    """A frame's time; one that is shown no later than the frame before it is put a millisecond behind that.

    Raises:
        MediaError: time goes back by more than rounding and careless muxers explain.
    """
    if last_s is None or time_s > last_s:
        return time_s
    if time_s < last_s - BACK_S:
        raise MediaError(
            f"{path}: after {last_s:.2f} s time goes back to {time_s:.2f} s, as where files were joined byte by byte; "
            "join them with FFmpeg's concat demuxer"
        )
    return last_s + 1e-3
