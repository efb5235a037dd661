"""Which files of a folder are videos, which recordings are in a file, and a video fetched from an address."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.runtime import elsewhere
from core.runtime.errors import MediaError, UserError
from core.runtime.files import atomic_write
from core.runtime.provenance import Files

VIDEO_EXTENSIONS = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"),
    *(".mts", ".m2ts", ".3gp", ".ogv", ".vob"),
)
TIMEOUT_S = 30.0  # that a server may be silent
HEADER_BYTES = 16  # of the chunks that a file is made of, at most
BEGINS, HOLDS_MEDIA, OTHER = "begins", "holds media", "other"  # what a chunk is in a recording
# Top-level boxes of ISO base media (ISO/IEC 14496-12) that are known even if the file is cut off within them.
MEDIA_BOXES = (b"mdat", b"moof")
# Elements of Matroska (RFC 9559): the EBML header; segment and cluster; what else is beside or directly in them.
EBML_HEADER = "1a45dfa3"
MEDIA_ELEMENTS = ("18538067", "1f43b675")
ELEMENTS = (
    *("ec", "bf", "114d9b74", "1549a966", "1654ae6b", "1c53bb6b", "1941a469", "1043a770", "1254c367"),
    *("e7", "a7", "ab", "a3", "a0"),
)
MEDIA_TAGS, OTHER_TAGS = (8, 9), (18,)  # of FLV (Adobe, "Video File Format Specification", version 10)


def is_video(path: str | Path) -> bool:
    """Whether a file's name ends as those of videos do, in small letters or capitals."""
    return Path(path).suffix.lower() in VIDEO_EXTENSIONS


def videos_in(folder: Path) -> list[Path]:
    """The videos of a folder, by name; those of folders in it are not among them.

    Raises:
        UserError: there is none.
    """
    found = sorted(filter(is_video, elsewhere.files_in(folder)))
    if not found:
        raise UserError(f"no video in the folder {folder}: expected files that end in {', '.join(VIDEO_EXTENSIONS)}")
    return found


@dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        recordings: first byte and end of each; more than one where recordings were joined byte by byte, each with a
            header of its own, of which FFmpeg would read the first only (of Matroska two). The whole file in formats
            without such headers, as transport streams.
        unread: how many bytes come after them that are part of none.
    """

    recordings: tuple[tuple[int, int], ...]
    unread: int


def contents_of(path: str | Path) -> Contents:
    """Which recordings a file holds, by the headers of the chunks that it is made of: ISO media, Matroska, or FLV.

    Raises:
        MediaError: it is absent or empty, or cannot be read.
    """
    if not Path(path).is_file():
        raise MediaError(f"no file {path}")
    try:
        with Path(path).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            starts, end = _recordings(file, size)
    except OSError as error:
        raise MediaError(f"{path} cannot be opened ({error.strerror})") from error
    if size == 0:
        raise MediaError(f"{path} is empty (0 bytes)")
    if not starts:
        return Contents(((0, size),), 0)
    return Contents(tuple(zip(starts, [*starts[1:], end], strict=True)), size - end)


def _recordings(file: BinaryIO, size: int) -> tuple[list[int], int]:
    """Where the recordings of a file begin, and the last one ends; none where its format is another."""
    starts, position, holds_media = [], 0, False
    file.seek(0)
    head = file.read(HEADER_BYTES)
    read = next((read for magic, place, read in FORMATS if head[place : place + len(magic)] == magic), None)
    while read is not None and position < size:
        file.seek(position)
        chunk = read(file.read(HEADER_BYTES), size - position)
        if chunk is None:
            break
        what, length = chunk
        if what == BEGINS:
            starts = [*(starts if holds_media else starts[:-1]), position]  # headers alone are no recording
            holds_media = False
        holds_media |= what == HOLDS_MEDIA
        position += length
    return starts, min(position, size)


def _box(head: bytes, left: int) -> tuple[str, int] | None:
    """What a box of ISO media is, and its length; None where there is none. Those below read other formats."""
    length, name = int.from_bytes(head[:4]), head[4:8]
    if length == 1:
        length = int.from_bytes(head[8:16])
    elif length == 0:
        length = left
    known = name in (*MEDIA_BOXES, b"moov")
    if length < 8 or not (known or (length <= left and name.isascii() and name.decode().isprintable())):
        return None
    return BEGINS if name == b"ftyp" else HOLDS_MEDIA if name in MEDIA_BOXES else OTHER, length


def _element(head: bytes, left: int) -> tuple[str, int] | None:
    name_bytes = 9 - head[0].bit_length()
    name, rest = head[:name_bytes].hex(), head[name_bytes:]
    if name not in (EBML_HEADER, *MEDIA_ELEMENTS, *ELEMENTS) or not rest or not rest[0]:
        return None
    size_bytes = 9 - rest[0].bit_length()
    most = (1 << 7 * size_bytes) - 1
    length = int.from_bytes(rest[:size_bytes]) & most
    if length == most:  # unknown, as in live streams: what is in it comes next
        length = 0
    what = BEGINS if name == EBML_HEADER else HOLDS_MEDIA if name in MEDIA_ELEMENTS else OTHER
    return what, name_bytes + size_bytes + length


def _tag(head: bytes, left: int) -> tuple[str, int] | None:
    if head.startswith(b"FLV"):
        return BEGINS, int.from_bytes(head[5:9]) + 4
    kind = head[0] & 0x1F
    if kind not in (*MEDIA_TAGS, *OTHER_TAGS):
        return None
    return HOLDS_MEDIA if kind in MEDIA_TAGS else OTHER, 11 + int.from_bytes(head[1:4]) + 4


# How a file begins, at which byte, and what reads the headers of its chunks.
FORMATS: tuple[tuple[bytes, int, Callable[[bytes, int], tuple[str, int] | None]], ...] = (
    (b"ftyp", 4, _box),
    (bytes.fromhex(EBML_HEADER), 0, _element),
    (b"FLV", 0, _tag),
)


def fetch_video(address: str, path: Path) -> None:
    """Copy the video and audio streams at an address that FFmpeg can read into a Matroska file, as they are.

    Raises:
        MediaError: it cannot be read, or has no streams that Matroska can hold.
    """
    import av  # slow to load, and seldom needed

    from core.media.streams import SharedClock, streams_of

    try:
        with (
            atomic_write(path) as temporary,
            av.open(address, timeout=TIMEOUT_S, metadata_errors="replace") as source,
            av.open(str(temporary), "w", format="matroska") as out,
        ):
            chosen = [one for kind in ("video", "audio") for one in streams_of(source, kind) if one.codec_context]
            if not chosen:
                raise MediaError(f"{address} has neither video nor audio")
            copies, clock = {}, SharedClock()
            for stream in chosen:
                copies[stream.index] = out.add_stream_from_template(stream, opaque=True)
                copies[stream.index].disposition = stream.disposition  # by which one is chosen
            start_s = (source.start_time or 0) / av.time_base
            for packet, _ in clock.carry(source.demux(*chosen)):
                if packet.pts is not None:
                    # Audio that a decoder needs to begin, and players do not give, would make all later in Matroska.
                    ends_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    if packet.stream.type == "audio" and ends_s <= start_s:
                        continue
                elif not packet.size:
                    continue  # it marks the end
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MediaError(f"{address} cannot be fetched ({reason}); download it by other means") from error


def find_video(folder: str | Path, video_id: str) -> Path:
    """The file `<video_id>.<extension>` of a folder; of several, the first in the order of `VIDEO_EXTENSIONS`.

    Extensions may be in capitals.

    Raises:
        MediaError: there is none.
    """
    if elsewhere.url_of(folder):
        elsewhere.list_folder(folder)
    for extension in VIDEO_EXTENSIONS:
        for path in (Path(folder) / f"{video_id}{spelt}" for spelt in (extension, extension.upper())):
            if elsewhere.is_file(path):
                return path
    raise MediaError(f"no video {video_id} in {folder}: expected {video_id}{{{','.join(VIDEO_EXTENSIONS)}}}")


def present_videos(folder: str | Path, video_ids: Iterable[str]) -> Iterator[Path]:
    """The videos of some ids that are there, looked for as they are asked for."""
    for video_id in video_ids:
        source = video_source(folder, video_id)
        yield from (source.folder / name for name in source.names)


def video_source(folder: str | Path, video_id: str) -> Files:
    """The video of an id as something that outputs are made of; no file where there is none."""
    try:
        return Files.one(find_video(folder, video_id))
    except MediaError:
        return Files(Path(folder), [])
