"""The folder of a video's frames, audio, MFCCs and face crops, and the records of what they were made of.

    <extracted_path>/<video_id>/1.jpg, 2.jpg, ...   frames, `fps` a second; frame n is that of start_ts + (n - 1) / fps
                                audio.wav           audio from start_ts on, mono, at the video's own sample rate
                                start_ts            the time of the first frame and the first sample, in seconds
                                mfcc.npy            (coefficient, vector) float32
                                faces.arrow         the faces of the stored crops, by track and time
                                crops.npy           (face, channel, row, column) uint8
                                .made/              records of what these are made of (`core.runtime.provenance`)

Frames, audio and start_ts are the published layout.
"""

from collections.abc import Iterable
from pathlib import Path

from ava_asd.config import Config
from ava_asd.mfcc import VERSION
from core.formats.ava import ANNOTATION_SUFFIX, annotation_files
from core.media.video_files import video_source
from core.runtime.errors import UserError
from core.runtime.provenance import Files, Record

SPLITS = ("train", "test")
ANNOTATION_KEYS = {"train": "train_ann_dir", "test": "test_ann_dir"}  # of the configuration
CROP_SETTINGS = ("fps", "width", "height", "channels")
MFCC_SETTINGS = ("mfcc_window_size", "stride", "nmfcc", "apply_mean", "apply_stddev")


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

    def frame(self, number: int) -> Path:
        """The image of a frame, counted from 1."""
        return self.path / f"{number}.jpg"

    @property
    def outputs(self) -> list[str]:
        """Names of what is extracted of the video, but for the frames."""
        return [path.name for path in (self.audio, self.faces, self.crops, self.start_ts)]

    def video_record(self, config: Config, annotations: Path, videos: Path | None, item: str = "videos") -> Record:
        """What audio and faces are made of.

        Args:
            config: settings.
            annotations, videos: folders of the video's annotations and of the video. Where either is absent, or
                `videos` is None, what was extracted counts.
            item: "frames" for these, whose record is too large for every training to read.
        """
        csv = annotations / f"{self.path.name}{ANNOTATION_SUFFIX}"
        made_of = {name: getattr(config, name) for name in (*CROP_SETTINGS, "eps", "start_ts")}
        made_of["csv"] = Files(annotations, [csv.name] if csv.is_file() else [])
        made_of["video"] = video_source(videos, self.path.name) if videos else Files(self.path, [])
        return Record(self.path, item, f"extracted {item}", made_of)

    def mfcc_record(self, config: Config) -> Record:
        """What the MFCCs are made of."""
        made_of = {name: getattr(config, name) for name in MFCC_SETTINGS}
        audio = Files(self.path, [self.audio.name], "videos")
        return Record(self.path, "mfccs", "MFCCs", made_of | {"audio": audio}, version=VERSION)


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


def check_made(record: Record, outputs: Iterable[str], command: str) -> None:
    """Check that outputs are there, as they would be made now.

    Args:
        record: of what they are made of.
        outputs: their names below the record's folder.
        command: makes them.

    Raises:
        UserError: some are not, or were written by something else.
    """
    missing = record.missing(outputs)
    if not missing:
        return
    if record.written and (differing := record.differences()):
        values = {name: f" than {now}" for name, now in record.made_of.items() if not isinstance(now, Files)}
        others = ", ".join(f"another {name}{values.get(name, '')}" for name in differing)
        raise UserError(f"{record.folder / missing[0]} was made with {others}: run '{command}' again")
    raise UserError(f"{record.folder / missing[0]} is absent, damaged or not finished: run '{command}'")
