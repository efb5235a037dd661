"""All files about what detection found, for people and for other programs."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from core.detection.results import DetectedVideo
from core.runtime.errors import MediaError, UserError
from core.runtime.files import printable
from core.runtime.provenance import Record

# Format -> file name, in the order of writing: the overlay before the report, which plays it where browsers do not play
# the video itself; AVA predictions last, as a video without audio has none.
FILE_NAMES = {
    "csv": "tracks.csv",
    "json": "speakers.json",
    "rttm": "{stem}.rttm",
    "vtt": "{stem}.vtt",
    "overlay": "overlay.mp4",
    "report": "report.html",
    "ava": "{stem}-predictions.csv",
    "embeddings": "embeddings.csv",
}
FORMATS = tuple(FILE_NAMES)
BIOMETRIC = "embeddings"  # written only where it is asked for by name


class MissingOutputsError(MediaError):
    """Some outputs cannot be made of a video.

    Args:
        reasons: file name -> why.
    """

    def __init__(self, reasons: dict[str, str]):
        super().__init__("; ".join(dict.fromkeys(reasons.values())))
        self.reasons = reasons


def record_of(folder: str | Path, made_of: Mapping[str, Any]) -> Record:
    """The record of the outputs in a folder, of what they are made: the video, settings and given names."""
    return Record(folder, "outputs", "detection", made_of, version=4)


def output_paths(folder: str | Path, video: Path, formats: Collection[str]) -> dict[str, Path]:
    """Format -> file that `write_outputs` writes, in the order of writing."""
    stem = printable(video.stem)
    return {name: Path(folder) / FILE_NAMES[name].format(stem=stem) for name in FORMATS if name in formats}


def write_outputs(folder: str | Path, video: DetectedVideo, formats: Collection[str]) -> list[Path]:
    """Write a video's results into a folder, which is made where it is absent.

    Args:
        folder: files of the same names in it are replaced.
        video: the results.
        formats: some of `FORMATS`, in any order.

    Returns:
        The files, in the order of writing.

    Raises:
        MissingOutputsError: some cannot be made, such as "ava" of a video without audio; all others are there then.
        UserError: a format is unknown, or a file cannot be written.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(f"unknown format {', '.join(unknown)}: expected some of {', '.join(FORMATS)}")
    paths = output_paths(folder, video.path, formats)
    writers = _writers(paths.get("overlay"))
    reasons = {}
    for name, path in paths.items():
        try:
            writers[name](path, video)
        except MediaError as error:
            reasons[path.name] = str(error)
    if reasons:
        raise MissingOutputsError(reasons)
    return list(paths.values())


def _writers(overlay: Path | None) -> dict[str, Callable[[Path, DetectedVideo], None]]:
    """Format -> what writes it. Imported here, so that `FORMATS` can be known without FFmpeg, OpenCV and pandas."""
    from core.outputs.overlay import write_overlay
    from core.outputs.report import write_report
    from core.outputs.speakers_json import write_speakers_json
    from core.outputs.speech import write_rttm, write_vtt
    from core.outputs.tables import write_ava_predictions, write_embeddings, write_tracks_csv

    return {
        "csv": write_tracks_csv,
        "json": write_speakers_json,
        "rttm": write_rttm,
        "vtt": write_vtt,
        "overlay": write_overlay,
        "report": lambda path, video: write_report(path, video, media=overlay),
        "ava": write_ava_predictions,
        "embeddings": write_embeddings,
    }
