"""Which file of a folder is the video of an id."""

from pathlib import Path

from core.runtime.errors import MediaError
from core.runtime.provenance import Files

VIDEO_EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv")


def find_video(folder: str | Path, video_id: str) -> Path:
    """The file `<video_id>.<extension>` of a folder; of several, the first in the order of `VIDEO_EXTENSIONS`.

    Raises:
        MediaError: there is none.
    """
    for extension in VIDEO_EXTENSIONS:
        path = Path(folder) / f"{video_id}{extension}"
        if path.is_file():
            return path
    raise MediaError(f"no video {video_id} in {folder}: expected {video_id}{{{','.join(VIDEO_EXTENSIONS)}}}")


def video_source(folder: str | Path, video_id: str) -> Files:
    """The video of an id as something that outputs are made of; no file where there is none."""
    try:
        return Files.one(find_video(folder, video_id))
    except MediaError:
        return Files(Path(folder), [])
