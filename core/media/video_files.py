"""Which files of a folder are videos, which is the video of an id, and a video fetched from an address."""

from pathlib import Path

from core.runtime.errors import MediaError, UserError
from core.runtime.files import atomic_write
from core.runtime.provenance import Files

VIDEO_EXTENSIONS = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"),
    *(".mts", ".m2ts", ".3gp", ".ogv", ".vob"),
)
TIMEOUT_S = 30.0  # that a server may be silent


def is_video(path: str | Path) -> bool:
    """Whether a file's name ends as those of videos do, in small letters or capitals."""
    return Path(path).suffix.lower() in VIDEO_EXTENSIONS


def videos_in(folder: Path) -> list[Path]:
    """The videos of a folder, by name; those of folders in it are not among them.

    Raises:
        UserError: there is none.
    """
    found = sorted(path for path in folder.iterdir() if is_video(path) and path.is_file())
    if not found:
        raise UserError(f"no video in the folder {folder}: expected files that end in {', '.join(VIDEO_EXTENSIONS)}")
    return found


def fetch_video(address: str, path: Path) -> None:
    """Copy the video and audio streams at an address that FFmpeg can read into a Matroska file, as they are.

    Raises:
        MediaError: it cannot be read, or has no streams that Matroska can hold.
    """
    import av  # slow to load, and seldom needed

    try:
        with (
            atomic_write(path) as temporary,
            av.open(address, timeout=TIMEOUT_S) as source,
            av.open(str(temporary), "w", format="matroska") as out,
        ):
            chosen = [stream for stream in source.streams if stream.type in ("video", "audio") and stream.codec_context]
            copies = {stream.index: out.add_stream_from_template(stream) for stream in chosen}
            for packet in source.demux(*chosen):
                if packet.dts is not None:  # else it marks the end
                    packet.stream = copies[packet.stream.index]
                    out.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(f"{address} cannot be fetched ({error}); download it by other means") from error


def find_video(folder: str | Path, video_id: str) -> Path:
    """The file `<video_id>.<extension>` of a folder; of several, the first in the order of `VIDEO_EXTENSIONS`.

    Extensions may be in capitals.

    Raises:
        MediaError: there is none.
    """
    for extension in VIDEO_EXTENSIONS:
        for path in (Path(folder) / f"{video_id}{spelt}" for spelt in (extension, extension.upper())):
            if path.is_file():
                return path
    raise MediaError(f"no video {video_id} in {folder}: expected {video_id}{{{','.join(VIDEO_EXTENSIONS)}}}")


def video_source(folder: str | Path, video_id: str) -> Files:
    """The video of an id as something that outputs are made of; no file where there is none."""
    try:
        return Files.one(find_video(folder, video_id))
    except MediaError:
        return Files(Path(folder), [])
