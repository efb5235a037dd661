"""The frames of a video with their times, in one sequential pass.

Times are seconds on the clock of `core.media.container`.
"""

import contextlib
import functools
import itertools
import math
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from core.media.container import MEND, MediaFile
from core.media.streams import BACK_S, StreamNumber, orientation
from core.runtime.errors import MediaError, NoStreamError, UserError

# FFmpeg's numbers: colour unspecified (taken as BT.601 there as in OpenCV), BT.470BG and SMPTE 170M; range unspecified
# (limited, for this pixel format) or limited.
BT601 = (2, 5, 6)
LIMITED = (0, 1)
SMPTE_170M, LIMITED_RANGE = 6, 1  # what OpenCV makes of RGB: BT.601, 16 to 235
# Formats whose first plane is brightness, a byte a pixel; the table stretches 16-235 to 0-255.
LUMA_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "nv12")
FULL_RANGE = np.clip(np.round((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
SEEK_BACK_S = 10.0  # more than the distance of two key frames in all but a few files
Item = TypeVar("Item")
_of_thread = threading.local()


@dataclass(frozen=True)
class Frame:
    """One decoded frame; conversion to colour is done when asked for, since most frames need none.

    Attributes:
        time_s: presentation time in seconds, on the file's clock (see `core.media.container`).
        raw: as decoded, not yet rotated.
    """

    time_s: float
    raw: av.VideoFrame

    @property
    def width(self) -> int:
        """Pixels, as displayed."""
        return self.raw.height if self._quarter_turns % 2 else self.raw.width

    @property
    def height(self) -> int:
        """Pixels, as displayed."""
        return self.raw.width if self._quarter_turns % 2 else self.raw.height

    def rgb(self) -> np.ndarray:
        """The displayed frame, (height, width, [r, g, b]) uint8."""
        return self._displayed("rgb24")

    def bgr(self) -> np.ndarray:
        """The displayed frame in OpenCV's order, (height, width, [b, g, r]) uint8."""
        return self._displayed_bgr

    def bgr_region(self, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
        """A part of `bgr()`, (y2 - y1, x2 - x1, 3) uint8, without converting the rest where that can be done.

        Args:
            x1, y1, x2, y2: pixels of the displayed frame, 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height.

        Returns:
            Values may differ by 3 of 255 from those of `bgr()`: two libraries round differently.
        """
        raw = self.raw
        plain = raw.format.name == "yuv420p" and raw.colorspace in BT601 and raw.color_range in LIMITED
        if not plain or self._is_turned or raw.width % 2 or raw.height % 2:
            return self.bgr()[y1:y2, x1:x2]
        left, top = x1 // 2 * 2, y1 // 2 * 2  # colour is kept for squares of two pixels
        right, bottom = (x2 + 1) // 2 * 2, (y2 + 1) // 2 * 2
        height, width = bottom - top, right - left
        region = np.empty((height * 3 // 2, width), np.uint8)
        for part, plane in zip(i420_planes(region), region_of(raw, left, top, right, bottom), strict=True):
            part[:] = plane
        pixels = cv2.cvtColor(region, cv2.COLOR_YUV2BGR_I420)
        return pixels[y1 - top : y2 - top, x1 - left : x2 - left]

    def grey_region(self, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
        """A part of the displayed frame in grey, (y2 - y1, x2 - x1) uint8, 0 (black) to 255 (white).

        Grey is the brightness (luma) that the video itself stores, stretched to the full range: what a JPEG of the
        frame would hold, whatever the video's colour matrix.

        Args:
            x1, y1, x2, y2: as `bgr_region`.
        """
        if self._luma is None:
            return self._displayed_grey[y1:y2, x1:x2]
        luma, full_range = self._luma
        part = luma[y1:y2, x1:x2]
        return part.copy() if full_range else cv2.LUT(np.ascontiguousarray(part), FULL_RANGE)

    def scaled_bgr(self, longest: int) -> np.ndarray:
        """The whole displayed frame made smaller, in OpenCV's order, (height, width, [b, g, r]) uint8.

        Args:
            longest: pixels of its longer side; a frame that is not larger stays as it is.
        """
        raw = self.raw
        scale = min(1.0, longest / max(raw.width, raw.height))
        width, height = (max(1, round(side * scale)) for side in (raw.width, raw.height))
        how = "AREA" if scale <= 0.5 else "BILINEAR"
        return self._turned(_scaler().reformat(raw, width, height, "bgr24", interpolation=how).to_ndarray())

    def halved_bgr(self, longest: int) -> np.ndarray:
        """About what `scaled_bgr` gives, in a fraction of the time: the frame halved until it is no larger.

        Colours are converted by BT.601's matrix, whatever the video's own.

        Args:
            longest: pixels that the longer side must not exceed.

        Returns:
            (height, width, [b, g, r]) uint8, of even sides; of some pixel formats exactly what `scaled_bgr` gives.
        """
        raw = self.raw
        halvings = max(0, math.ceil(math.log2(max(raw.width, raw.height) / longest)))
        width, height = ((side >> halvings) // 2 * 2 for side in (raw.width, raw.height))
        if raw.format.name not in ("yuv420p", "yuvj420p") or not width or not height:
            return self.scaled_bgr(longest)
        small = np.empty((height * 3 // 2, width), np.uint8)
        for plane, out in zip(raw.planes, i420_planes(small), strict=True):
            pixels = _pixels(plane)
            for _ in range(halvings):
                pixels = cv2.resize(pixels, (pixels.shape[1] // 2, pixels.shape[0] // 2), interpolation=cv2.INTER_AREA)
            out[:] = pixels[: out.shape[0], : out.shape[1]]
        return self._turned(cv2.cvtColor(small, cv2.COLOR_YUV2BGR_I420))

    def scaled_to(self, width: int, height: int) -> "Frame":
        """The same frame, displayed with another width and height in pixels."""
        sides = (height, width) if self._quarter_turns % 2 else (width, height)
        return Frame(self.time_s, _scaler().reformat(self.raw, *sides))

    def yuv420(self) -> av.VideoFrame:
        """A copy of the displayed frame in yuv420p, with even sides: an odd last row or column is left out.

        Its tags say what colours its numbers are: the video's own tags where that is stored so, else BT.601.
        """
        raw = self.raw
        if raw.format.name != "yuv420p" or raw.color_range not in LIMITED or raw.width % 2 or raw.height % 2:
            pixels = np.ascontiguousarray(self.rgb()[: self.height // 2 * 2, : self.width // 2 * 2])
            return yuv420_of(pixels)
        copy = av.VideoFrame(self.width, self.height, "yuv420p")
        for target, plane in zip(copy.planes, raw.planes, strict=True):
            _pixels(target)[:] = self._turned(_pixels(plane))
        copy.colorspace, copy.color_range = raw.colorspace, raw.color_range
        return copy

    @functools.cached_property
    def _luma(self) -> tuple[np.ndarray, bool] | None:
        """A view of the brightness as displayed, and whether it uses the full range; None where it must be made."""
        raw, name = self.raw, self.raw.format.name
        if name not in LUMA_FORMATS or self._is_turned:
            return None
        return _pixels(raw.planes[0]), name.startswith("yuvj") or raw.color_range not in LIMITED

    @functools.cached_property
    def _displayed_bgr(self) -> np.ndarray:
        return self._displayed("bgr24")

    @functools.cached_property
    def _displayed_grey(self) -> np.ndarray:
        return self._displayed("gray")

    def _displayed(self, format: str) -> np.ndarray:
        return self._turned(_scaler().reformat(self.raw, format=format).to_ndarray())

    def _turned(self, pixels: np.ndarray) -> np.ndarray:
        mirrored, turns = self._orientation
        return (
            np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns))
            if self._is_turned
            else pixels
        )

    @property
    def _is_turned(self) -> bool:
        return any(self._orientation)

    @property
    def _quarter_turns(self) -> int:
        return self._orientation[1]

    @functools.cached_property
    def _orientation(self) -> tuple[bool, int]:
        return orientation(self.raw)


def _scaler() -> VideoReformatter:
    """FFmpeg's scaler of this thread: its tables take longer to make than most conversions, and each frame's own would
    make them anew."""
    if not hasattr(_of_thread, "scaler"):
        _of_thread.scaler = VideoReformatter()
    return _of_thread.scaler


def yuv420_of(pixels: np.ndarray) -> av.VideoFrame:
    """A frame in yuv420p, BT.601 of limited range, and tagged so, from (height, width, [r, g, b]) uint8, even sides."""
    # OpenCV converts ten times as fast as FFmpeg's scaler.
    frame = av.VideoFrame.from_ndarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420), format="yuv420p")
    # Untagged, players would take large frames for BT.709.
    frame.colorspace, frame.color_range = SMPTE_170M, LIMITED_RANGE
    return frame


def region_of(raw: av.VideoFrame, x1: int, y1: int, x2: int, y2: int) -> list[np.ndarray]:
    """A part of a frame in yuv420p: views of its three planes, those of colour half as high and wide.

    Args:
        raw: the frame.
        x1, y1, x2, y2: even pixels of it.
    """
    luma, *colours = map(_pixels, raw.planes)
    return [luma[y1:y2, x1:x2], *(colour[y1 // 2 : y2 // 2, x1 // 2 : x2 // 2] for colour in colours)]


def i420_planes(pixels: np.ndarray) -> list[np.ndarray]:
    """Views of the three planes that OpenCV has in one array, (height * 3 / 2, width)."""
    height, width = len(pixels) * 2 // 3, pixels.shape[1]
    return [pixels[:height], *pixels[height:].reshape(2, height // 2, width // 2)]


def _pixels(plane: av.video.plane.VideoPlane) -> np.ndarray:
    """A view of a plane, (height, width) uint8."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]


def read_frames(media: MediaFile, start_s: float = 0.0, end_s: float = float("inf")) -> Iterator[Frame]:
    """Decode a video once, in order, from the last frame at or before `start_s` to the first after `end_s`.

    Times rise from frame to frame. All have one size: that of the first, or where the file is read as played, that in
    which players show it.

    Args:
        media: the open file; damaged packets are left out where it is read tolerantly, else they are an error.
        start_s, end_s: seconds, on the file's clock; one seek brings the decoder near the start.

    Raises:
        MediaError: the file has no video, decoding fails midway, or time goes back.
    """
    # MPEG streams, and files with B-frames whose index holds decoding times, can land behind the position asked for.
    for seek_s in (start_s, start_s - SEEK_BACK_S, 0.0):
        frames = _decode(media, seek_s)
        first = next(frames, None)
        if seek_s <= 0 or (first is not None and first.time_s <= start_s):
            break
        frames.close()  # left to the garbage collector, an interrupt would be dropped while it is closed
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


def check_streams(paths: Iterable[Path], **numbers: StreamNumber) -> None:
    """See that a stream that is asked for is in one of the files that can be opened, if there are such.

    Args:
        paths: the files; one that is without it among others is reported when it is worked on.
        numbers: `video_stream`, `audio_stream` or both, as `MediaFile` takes them.

    Raises:
        UserError: none has it; the message says which there are.
    """
    faults = []
    for path in paths if any(number is not None for number in numbers.values()) else ():
        try:
            with MediaFile(path, **numbers):
                return
        except NoStreamError as error:
            faults.append(str(error))
        except MediaError:
            continue
    if faults:
        raise UserError("\n".join(faults))


def until_failure(items: Iterable[Item]) -> Iterator[Item]:
    """Frames or audio of a file that is read tolerantly, up to where it cannot be read on."""
    with contextlib.suppress(MediaError):
        yield from items


def _decode(media: MediaFile, seek_s: float) -> Iterator[Frame]:
    """All frames from about the last key frame before `seek_s` (from the first frame on, where that is not > 0)."""
    time_s = None
    size = (media.info.width, media.info.height) if media.as_played else None
    try:
        for raw in media.decoded("video", seek_s):
            if raw.pts is None:
                media.untimed += 1
                continue
            time_s = _after(time_s, media.time_of(raw), media.path)
            frame = Frame(time_s, raw)
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:  # as in recordings of broadcasts
                frame = frame.scaled_to(*size)
            yield frame
    except av.FFmpegError as error:
        where = "at its first frame" if time_s is None else f"after {time_s:.2f} s"
        raise MediaError(f"{media.path}: decoding fails {where} ({error}); the file is damaged or cut off") from error
    if media.untimed and time_s is None:
        raise MediaError(
            f"{media.path}: its frames have no times, as in a bare stream of H.264; "
            "make an mp4 of it, for example with FFmpeg: ffmpeg -r FRAMES_PER_SECOND -i IN -crf 18 OUT.mp4"
        )


def _after(last_s: float | None, time_s: float, path: str | Path) -> float:
    """A frame's time; one that is shown no later than the frame before it is put a millisecond behind that.

    Raises:
        MediaError: time goes back by more than rounding and careless muxers explain.
    """
    if last_s is None or time_s > last_s:
        return time_s
    if time_s < last_s - BACK_S["video"]:
        raise MediaError(
            f"{path}: after {last_s:.2f} s time goes back to {time_s:.2f} s: its frames are stored out of order; "
            f"{MEND['video']}"
        )
    return last_s + 1e-3
