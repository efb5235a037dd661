"""A tiny data set in AVA format: two training videos and one for validation, a second or two of 64 x 48 pixels.

Every face is a square, its brightness the frame number; the audio is noise while somebody is heard speaking.
Nothing can be learnt from it; everything can be run on it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from core.clip_utils import GRID_FPS as FPS
from core.clip_utils import SAMPLE_RATE
from core.formats import ava
from core.media.video_writer import write_video
from core.runtime import provenance

WIDTH, HEIGHT = 64, 48
CROP_SIZE = 32  # of the `prepared` crops
NOT_SPEAKING, AUDIBLE, NOT_AUDIBLE = ava.LABEL_IDS
# Of the first, second and third entity of a video, in pixels: x1, y1, x2, y2; exact fractions of the frame.
BOXES = ((0, 6, 20, 30), (22, 3, 42, 27), (44, 15, 64, 45))


Track = tuple[str, str, int, int, tuple[str, ...]]  # video, entity, first frame, rows, labels in turn


@dataclass(frozen=True)
class Face:
    """An entity that is annotated in the frames [first, last]; `labels` are repeated over its rows in runs of 5."""

    entity_id: str
    first: int
    last: int
    labels: tuple[str, ...]

    @property
    def numbered_labels(self) -> list[tuple[int, str]]:
        """Frame number and label of each row."""
        numbers = range(self.first, self.last + 1)
        return [(number, self.labels[(number - self.first) // 5 % len(self.labels)]) for number in numbers]


@dataclass(frozen=True)
class Clip:
    """A video of `frames` frames and its faces."""

    split: str
    video_id: str
    frames: int
    faces: tuple[Face, ...]


def make_clip(split: str, video_id: str, frames: int, *faces: tuple[int, int, tuple[str, ...]]) -> Clip:
    """A clip of faces (first, last, labels), its entities numbered from 1."""
    ids = (f"{video_id}_0000_0060:{number}" for number in range(1, len(faces) + 1))
    return Clip(split, video_id, frames, tuple(Face(entity, *face) for entity, face in zip(ids, faces, strict=True)))


# Ids may begin with "-" and entities hold ":", as in AVA; one entity has one row only.
CLIPS = (
    make_clip(
        *("train", "-tinyTrain1", 50),
        (5, 44, (NOT_SPEAKING, AUDIBLE, NOT_SPEAKING)),
        (10, 39, (AUDIBLE, NOT_AUDIBLE, NOT_SPEAKING)),
    ),
    make_clip(
        *("train", "tinyTrain_2", 40),
        (0, 34, (AUDIBLE, NOT_SPEAKING)),
        (5, 29, (NOT_SPEAKING, AUDIBLE, NOT_AUDIBLE)),
        (12, 12, (NOT_SPEAKING,)),
    ),
    make_clip(
        *("val", "tinyVal_001", 40),
        (2, 36, (NOT_SPEAKING, AUDIBLE)),
        (2, 26, (AUDIBLE, NOT_SPEAKING, NOT_AUDIBLE)),
        (20, 36, (NOT_AUDIBLE, AUDIBLE)),
    ),
)


def exit_status(main: Callable[[list[str]], None], *arguments: object) -> int:
    """Run a script's main function with command line arguments; its exit status, 0 for success."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def as_options(dictionary: str, **values: object) -> list[str]:
    """The --set options that give keys of one dictionary of the configuration their values."""
    return [option for key, value in values.items() for option in ("--set", f"{dictionary}.{key}={value}")]


def refusal(capsys, main: Callable[[list[str]], None], *arguments: object) -> str:
    """The message with which a script ends with status 2."""
    capsys.readouterr()
    assert exit_status(main, *arguments) == 2
    return capsys.readouterr().err


def encoder_paths(prepared: Path) -> dict[str, Path]:
    """The paths of STE_inputs that training reads, in the folder that `prepare` wrote."""
    tables = {f"csv_{split}_full": prepared / "csv" / f"{split}.csv" for split in ava.SPLITS}
    return {**tables, "audio_dir": prepared / "audio", "video_dir": prepared / "crops"}


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for records of what they were made of: relative path -> content."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != provenance.FOLDER)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def brightness(number: int, face: int) -> int:
    """How bright the square of the first, second or third face is in a frame, 0 <= number < 50: 40 to 240."""
    return (40 + 4 * number, 240 - 4 * number, 40 + 4 * ((number + 25) % 50))[face]


def tiny_frame(number: int, faces: int = len(BOXES)) -> np.ndarray:
    """Frame `number`, (HEIGHT, WIDTH, [r, g, b]) uint8: dark, with a grey square a face."""
    pixels = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    for face, (x1, y1, x2, y2) in enumerate(BOXES[:faces]):
        pixels[y1:y2, x1:x2] = brightness(number, face)
    return pixels


def annotation_row(video_id: str, timestamp: str, box: Iterable[float], label: str, entity_id: str) -> str:
    """One line of an AVA csv; `box` as fractions of the frame."""
    return ",".join([video_id, timestamp, *(f"{side:.6f}" for side in box), label, entity_id])


def annotated(faces: Iterable[tuple[str, str, str, str]]) -> pd.DataFrame:
    """Augmented rows of (video, entity, timestamp, label), each with the same box."""
    rows = [(video, time, "0.1", "0.1", "0.5", "0.5", label, entity) for video, entity, time, label in faces]
    return ava.augment(pd.DataFrame(rows, columns=ava.COLUMNS))


def annotated_tracks(tracks: Iterable[Track]) -> pd.DataFrame:
    """Augmented rows of tracks, one every 0.04 s."""
    return annotated(
        (video, entity, f"{(first + n) / FPS:.2f}", labels[n % len(labels)])
        for video, entity, first, length, labels in tracks
        for n in range(length)
    )


def write_crop(folder: Path, entity: str, timestamp: str, pixels: np.ndarray) -> None:
    """Write a crop in the published layout, `folder/<entity>/<timestamp>.jpg`."""
    (folder / entity).mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(folder / entity / f"{timestamp}.jpg"), pixels)


def face_rows(clip: Clip) -> list[str]:
    """The lines of a clip's AVA csv."""
    rows = []
    for face, box in zip(clip.faces, BOXES, strict=False):
        fractions = np.array(box) / (WIDTH, HEIGHT, WIDTH, HEIGHT)
        for number, label in face.numbered_labels:
            rows.append(annotation_row(clip.video_id, f"{number / FPS:.2f}", fractions, label, face.entity_id))
    return rows


def audio_of(clip: Clip) -> np.ndarray:
    """(samples,) int16: noise in the frames where a face is heard, next to nothing elsewhere."""
    heard = np.zeros(clip.frames, bool)
    for face in clip.faces:
        for number, label in face.numbered_labels:
            heard[number] |= label == AUDIBLE
    loudness = np.repeat(np.where(heard, 3000.0, 30.0), SAMPLE_RATE // FPS)
    return (np.random.default_rng(0).standard_normal(len(loudness)) * loudness).clip(-32768, 32767).astype(np.int16)


def write_annotations(path: Path, rows: Iterable[str]) -> Path:
    """Write lines as a csv and give its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8", errors="surrogateescape")
    return path


def make_tiny_set(folder: Path) -> Path:
    """Write `videos/{train,val}/<video_id>.mp4` and `annotations/{train,val}/<video_id>-activespeaker.csv`."""
    for clip in CLIPS:
        video = folder / "videos" / clip.split / f"{clip.video_id}.mp4"
        video.parent.mkdir(parents=True, exist_ok=True)
        frames = (tiny_frame(number, len(clip.faces)) for number in range(clip.frames))
        write_video(video, frames, FPS, audio_of(clip), SAMPLE_RATE, crf=8)
        write_annotations(
            folder / "annotations" / clip.split / f"{clip.video_id}{ava.ANNOTATION_SUFFIX}", face_rows(clip)
        )
    return folder


def prepare(tiny_set: Path, folder: Path) -> Path:
    """Run the preparation scripts: `csv/<split>.csv`, `tracks/`, `audio/` and `crops/<split>/` (packed, 32 pixels)."""
    from data import augment_annotations, extract_audio_tracks, extract_face_crops_time, slice_audio_tracks

    for split in ava.SPLITS:
        csv, videos, tracks = folder / "csv" / f"{split}.csv", tiny_set / "videos" / split, folder / "tracks" / split
        crops = folder / "crops" / split
        assert exit_status(augment_annotations.main, tiny_set / "annotations" / split, csv) == 0
        assert exit_status(extract_audio_tracks.main, videos, csv, tracks) == 0
        assert exit_status(slice_audio_tracks.main, tracks, csv, folder / "audio" / split) == 0
        assert exit_status(extract_face_crops_time.main, videos, csv, crops, "--size", CROP_SIZE) == 0
    return folder
