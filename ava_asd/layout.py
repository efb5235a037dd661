"""The folder of a video's frames, audio, MFCCs and face crops, and which of them are finished.

    <extracted_path>/<video_id>/1.jpg, 2.jpg, ...   frames, `fps` a second; frame n is that of start_ts + (n - 1) / fps
                                audio.wav           audio from start_ts on, mono, at the video's own sample rate
                                start_ts            the time of the first frame and the first sample, in seconds
                                mfcc.npy            (coefficient, vector) float32
                                faces.arrow         the faces of the stored crops, by track and time
                                crops.npy           (face, channel, row, column) uint8
                                videos.json         what frames, audio and faces were made with
                                mfccs.json          what the MFCCs were made with

Frames, audio and start_ts are the published layout. Each json file is empty ({}) while its step is unfinished.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ava_asd.config import Config
from ava_asd.mfcc import VERSION
from core.formats.ava import annotation_files
from core.runtime.checks import as_number, number, whole
from core.runtime.errors import MediaError, UserError
from core.runtime.files import write_json

SPLITS = ("train", "test")
ANNOTATION_KEYS = {"train": "train_ann_dir", "test": "test_ann_dir"}  # of the configuration
CROP_SETTINGS = ("fps", "width", "height", "channels")
MFCC_SETTINGS = ("mfcc_window_size", "stride", "nmfcc", "apply_mean", "apply_stddev")
# What the json files must hold; and of it how many frames there are, or the seconds from one MFCC vector to the next.
RECORDED = {
    "videos": {*CROP_SETTINGS, "eps", "annotations", "video", "frames"},
    "mfccs": {*MFCC_SETTINGS, "start_ts", "audio", "hop_s"},
}
COUNTED = {"videos": ("frames", whole(1)), "mfccs": ("hop_s", number(0))}


class VideoFolder:
    """The folder of one video.

    Args:
        path: `<extracted_path>/<video_id>`.
        start_ts: name of the file with the time of the first frame.

    Attributes:
        path: the folder.
        start_ts, audio, mfccs, faces, crops: its files, as listed above.
    """

    def __init__(self, path: Path, start_ts: str):
        self.path, self.start_ts = path, path / start_ts
        self.audio, self.mfccs = path / "audio.wav", path / "mfcc.npy"
        self.faces, self.crops = path / "faces.arrow", path / "crops.npy"

    def record(self, step: str) -> Path:
        """What a step of ava-extract, "videos" or "mfccs", was made with."""
        return self.path / f"{step}.json"

    def frame(self, number: int) -> Path:
        """The image of a frame, counted from 1."""
        return self.path / f"{number}.jpg"

    def start_s(self) -> float:
        """The time of the first frame and the first sample in seconds of the video.

        Raises:
            MediaError: the file is absent or holds no such number.
        """
        if not self.start_ts.is_file():
            raise MediaError(f"no {self.start_ts}, which holds the time of the first frame: run 'ava-extract videos'")
        text = self.start_ts.read_text(encoding="utf-8", errors="replace").strip()
        try:
            return as_number(text)
        except ValueError as error:
            raise MediaError(
                f"{self.start_ts} holds {text[:40]!r}, expected seconds: delete it and run 'ava-extract videos'"
            ) from error

    def made_with(self, step: str) -> dict[str, Any] | None:
        """What a step was finished with, `RECORDED`; None where it was not."""
        counted, check = COUNTED[step]
        try:
            found = json.loads(self.record(step).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        good = isinstance(found, dict) and found.keys() >= RECORDED[step] and check(found[counted]) is None
        return found if good else None

    def check(self, step: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """What a step was finished with, `RECORDED`, which must be as wanted.

        Raises:
            UserError: it was not finished, or with other settings.
        """
        found = self.made_with(step)
        if found is None:
            raise UserError(f"{self.path} is not finished: run 'ava-extract {step}'")
        other = [
            f"{key} {found.get(key)} instead of {value}" for key, value in wanted.items() if found.get(key) != value
        ]
        if other:
            raise UserError(f"{self.path} was made with {', '.join(other)}: run 'ava-extract {step}' again")
        return found

    def begin(self, step: str) -> None:
        """Mark a step as unfinished."""
        write_json(self.record(step), {})

    def finish(self, step: str, made_with: Mapping[str, Any]) -> None:
        """Mark a step as finished."""
        write_json(self.record(step), made_with)


def video_folder(config: Config, data: Path, video_id: str) -> VideoFolder:
    """The folder of a video."""
    return VideoFolder(config.path(data, "extracted_path") / video_id, config.start_ts)


def annotated_videos(config: Config, data: Path) -> dict[str, Path]:
    """The annotations of both splits: video id -> csv.

    Raises:
        UserError: a folder is absent or has no annotations, or a video is in both.
    """
    of_split = {split: annotation_files(config.path(data, key)) for split, key in ANNOTATION_KEYS.items()}
    both = sorted(of_split["train"].keys() & of_split["test"].keys())
    if both:
        raise UserError(
            f"{len(both)} video(s) are in train_ann_dir and in test_ann_dir, {both[0]} for one: a video is for "
            "training or for testing"
        )
    return of_split["train"] | of_split["test"]


def crop_settings(config: Config) -> dict[str, Any]:
    """What the stored faces depend on, as far as a training must find it as it is configured."""
    return {name: getattr(config, name) for name in CROP_SETTINGS}


def mfcc_settings(config: Config) -> dict[str, Any]:
    """What the stored MFCCs depend on."""
    return {"version": VERSION, **{name: getattr(config, name) for name in MFCC_SETTINGS}}
