"""The video in a report: whether browsers play it, and how the page gets it."""

import base64
import os
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.media.container import VideoInfo
from core.runtime import elsewhere
from core.runtime.errors import MediaError
from core.runtime.files import printable

EMBED_BYTES = 32 * 1024 * 1024  # a page of 43 MB, which browsers still open in a second or two
PART_BYTES = 3 << 20  # a multiple of three, so that the parts of base64 can be joined
# What Chrome, Firefox, Edge and Safari play of each kind of file; developer.mozilla.org, "Web video codec guide" and
# "Media container formats". Matroska is read as WebM, of which it is the general form.
MP4, WEBM = "video/mp4", "video/webm"
TYPES = {".mp4": MP4, ".m4v": MP4, ".mov": MP4, ".webm": WEBM, ".mkv": WEBM}
VIDEO_CODECS = ("h264", "vp8", "vp9", "av1", "libdav1d")
AUDIO_CODECS = ("aac", "mp3", "mp3float", "opus", "libopus", "vorbis", "flac")
PIXEL_FORMATS = ("yuv420p", "yuvj420p")  # 8 bits: all that H.264 decoders of browsers and phones know


@dataclass(frozen=True)
class Media:
    """How a page gets its video.

    Attributes:
        name: of the file, for people; empty where there is none to show.
        type: MIME type; empty where there is none to show.
        url: relative to the page; empty where the video is in the page.
        file: to be embedded in the page; None where it is only referred to, or there is none to show.
        has_boxes: boxes are drawn in its frames.
        fault: why the video itself is not shown, a sentence; empty where it is.
    """

    name: str = ""
    type: str = ""
    url: str = ""
    file: Path | None = None
    has_boxes: bool = False
    fault: str = ""


def find_media(page: Path, video: Path, info: VideoInfo, overlay: Path | None) -> Media:
    """The video where browsers play it, else the overlay where there is one, else nothing but the reason.

    Args:
        page: where the report will be.
        video: the video that was processed.
        info: what its file says of itself.
        overlay: the same with boxes drawn into it, in a form that browsers play; None where there is none.

    Raises:
        MediaError: the video is gone.
    """
    if not video.is_file():
        raise MediaError(f"no file {video}")
    fault = why_not_played(video, info) or why_not_reached(page, video)
    if not fault:
        return _media(page, video)
    if overlay is not None and overlay.is_file():
        return _media(page, overlay, has_boxes=True, fault=f"{fault} {overlay.name} is shown in its place.")
    return Media(fault=fault)


def why_not_played(path: Path, info: VideoInfo) -> str:
    """A sentence on why browsers do not play a file; empty where they do."""
    suffix = path.suffix.lower()
    if suffix not in TYPES:
        what = f"{suffix or 'such'} files"
    elif info.codec not in VIDEO_CODECS:
        what = f"{info.codec} video"
    elif info.codec == "h264" and info.pixel_format not in PIXEL_FORMATS:
        what = f"H.264 video of the pixel format {info.pixel_format}"
    elif info.audio is not None and info.audio.codec not in AUDIO_CODECS:
        what = f"{info.audio.codec or 'unknown'} audio"
    elif info.recordings > 1:
        what = "recordings joined byte by byte, but the first of them"
    # Browsers take the first stream of a kind, those of mp4 that are flagged as default before others.
    elif info.stream != 0:
        what = "the video stream that was used, but another"
    elif info.audio is not None and info.audio.stream != 0:
        what = "the audio that was used, but another stream"
    else:
        return ""
    return f"Browsers do not play {what}."


def why_not_reached(page: Path, video: Path) -> str:
    """A sentence on why a page cannot refer to a video; empty where it can, or need not."""
    buckets = {tuple((elsewhere.url_of(path) or "").split("/")[:3]) for path in (page, video)}
    if len(buckets) == 1 or video.stat().st_size <= EMBED_BYTES:
        return ""
    return "The video is not where this page is."


def in_base64(path: Path | None) -> Iterator[str]:
    """A file's bytes as base64, in parts; none where there is no file."""
    if path is not None:
        with path.open("rb") as file:
            while part := file.read(PART_BYTES):
                yield base64.b64encode(part).decode("ascii")


def _media(page: Path, path: Path, *, has_boxes: bool = False, fault: str = "") -> Media:
    name, kind = printable(path.name), TYPES[path.suffix.lower()]
    if path.stat().st_size <= EMBED_BYTES:
        return Media(name, kind, file=path, has_boxes=has_boxes, fault=fault)
    return Media(name, kind, url=_relative_url(page, path), has_boxes=has_boxes, fault=fault)


def _relative_url(page: Path, path: Path) -> str:
    try:
        relative = os.path.relpath(path.resolve(), page.parent.resolve())
    except ValueError:  # on another drive
        return path.resolve().as_uri()
    return urllib.parse.quote(os.fsencode(Path(relative).as_posix()))
