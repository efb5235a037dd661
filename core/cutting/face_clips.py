"""Clips of faces, cut out of a video where they speak or all along: a steady square each, with its audio."""

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from core.clip_utils import SAMPLE_RATE
from core.cutting.camera import along, grid, inside, middles, smoothed
from core.cutting.results import SLACK_S, Results, SeenFace
from core.media.container import MediaFile
from core.media.cropping import nearest_frames, window_crop
from core.media.video_audio import VideoAudio
from core.media.video_writer import write_timed_video
from core.runtime.files import atomic_write, printable

MARGIN = 0.3  # of the face, on every side
LARGEST = 0.9  # the square holds the face with its margin in this share of the frames
SMOOTHING_S = 0.4
CRF = 16  # an encoder reads these faces again; at x264's 20 skin begins to smear
FRAME_COLUMNS = (
    *("frame", "time_s", "source_s", "x1", "y1", "x2", "y2", "clip_x1", "clip_y1", "clip_x2", "clip_y2"),
    *("score", "speaking"),
)
COLUMNS = ("clip", "track", "person", "start_s", "end_s", "source", "x1", "y1", "x2", "y2", "square", "probability")


@dataclass(frozen=True)
class Clip:
    """A face from one time to another.

    Attributes:
        name: of the file.
        face: whose.
        start_s: when its first frame appears in the source.
        end_s: when its last one gives way to the next.
    """

    name: str
    face: SeenFace
    start_s: float
    end_s: float

    @property
    def files(self) -> list[str]:
        """The names of the clip's files: the video, and the table of its frames."""
        return [self.name, str(Path(self.name).with_suffix(".csv"))]

    @property
    def rows(self) -> slice:
        """Which frames of the track are in it."""
        first, last = np.searchsorted(self.face.times_s, [self.start_s - SLACK_S, self.end_s - SLACK_S])
        return slice(int(first), int(last))


def plan_clips(results: Results, min_s: float, *, whole_tracks: bool) -> list[Clip]:
    """The clips to cut of a video, by track, then by time.

    Args:
        results: of detection.
        min_s: the least length, seconds.
        whole_tracks: each track is a clip; else each stretch of speech in one.
    """
    stem = Path(printable(results.video.stem))
    clips = []
    for face in results.faces:
        whole = [(float(face.times_s[0]), face.end_s)]
        spans = whole if whole_tracks else [(part.start_s, part.end_s) for part in face.speech]
        names = (f"{stem}_track{face.id:03d}_{number:03d}.mp4" for number in range(1, len(spans) + 1))
        made = (Clip(name, face, *span) for name, span in zip(names, spans, strict=True))
        clips += [clip for clip in made if clip.end_s - clip.start_s >= min_s - SLACK_S]
    return clips


def write_clip(
    folder: Path, clip: Clip, media: MediaFile, audio: VideoAudio | None, size: int, fps: float | None
) -> None:
    """Write a clip as mp4 (H.264, AAC), video and audio beginning at 0 together, and a table with a row for each frame.

    Columns of the table: frame (of the clip, from 0), time_s (in the clip), source_s (of the source's frame, as players
    show it), x1, y1, x2, y2 (the face, pixels of the source), clip_x1 to clip_y2 (likewise, pixels of the clip), score
    (log odds of speaking) and speaking (1 or 0), both empty without audio.

    Args:
        folder: both are written into it, each whole or not at all.
        clip: what to cut.
        media: the open video.
        audio: all of its audio; None for a clip without.
        size: pixels of the square's side in the clip.
        fps: frames a second, each the one that is nearest in the source; None for its own frames at their own times.

    Raises:
        MediaError: the video cannot be decoded there.
    """
    times_s = clip.face.times_s[clip.rows]
    if fps is not None:
        frames = max(1, round((clip.end_s - clip.start_s) * fps))
        times_s = np.minimum(clip.start_s + np.arange(frames) / fps, times_s[-1])  # nothing of the shot after
    info = media.info
    centres, side = _square(clip, times_s)
    shape = (side, side)
    rows = pd.DataFrame({"time_s": times_s, "frame_timestamp": times_s, "entity_id": f"track {clip.face.id}"})
    centres = inside(centres, shape, info)
    found = nearest_frames(media, rows)
    first = next(found)
    begin_s = first[1].time_s  # all its digits, which speakers.json has not
    table: list[list[object]] = []

    def shown() -> Iterator[tuple[float, np.ndarray]]:
        for row, frame in itertools.chain([first], found):
            time_s = frame.time_s - begin_s if fps is None else row / fps
            table.append([row, f"{time_s:.6f}", *_row(clip, frame.time_s, centres[row], side, size)])
            yield time_s, window_crop(frame, centres[row], shape, (size, size))

    blocks, rate = (), SAMPLE_RATE
    if audio is not None:
        blocks, rate = _seconds_of(audio, begin_s, begin_s + clip.end_s - clip.start_s), audio.sample_rate
    video, frames = (folder / name for name in clip.files)
    with atomic_write(video) as temporary:
        write_timed_video(temporary, shown(), fps or info.fps, blocks, sample_rate=rate, crf=CRF, index_first=True)
    _write_csv(frames, FRAME_COLUMNS, table)


def write_clips_csv(path: str | Path, clips: Iterable[Clip], video: Path) -> None:
    """Write a table with a row for each clip.

    Columns: clip (file name), track, person, start_s and end_s (in the source, as a player shows it), source (file
    name), x1, y1, x2, y2 (the mean box of the face) and square (height of what is shown) in pixels of the source,
    probability (the mean; empty without audio).
    """
    table = []
    for clip in clips:
        face, rows = clip.face, clip.rows
        _, square = _square(clip, face.times_s[rows])
        probability = face.probabilities[rows].mean()
        box = [f"{side:.1f}" for side in face.boxes[rows].mean(axis=0)]
        sure = "" if np.isnan(probability) else f"{probability:.4f}"
        span = f"{clip.start_s:.4f}", f"{clip.end_s:.4f}"
        table.append([clip.name, face.id, face.person, *span, printable(video.name), *box, square, sure])
    _write_csv(path, COLUMNS, table)


def _row(clip: Clip, time_s: float, centre: np.ndarray, side: int, size: int) -> list[object]:
    """What the table has of a frame of the source: its time, the face there and in the clip, whether it speaks."""
    face = clip.face
    at = int(np.abs(face.times_s - time_s).argmin())
    box, score = face.boxes[at], face.scores[at]
    in_clip = (box - np.tile(centre - side / 2, 2)) * size / side
    boxes = [f"{edge:.1f}" for edge in (*box, *in_clip)]
    known = ["", ""] if np.isnan(score) else [f"{score:.3f}", int(score >= 0)]
    return [f"{time_s:.6f}", *boxes, *known]


def _write_csv(path: str | Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(columns)
        table.writerows(rows)


def _square(clip: Clip, times_s: np.ndarray) -> tuple[np.ndarray, int]:
    """The middle of the square at some times, (n, [x, y]), and its side, which stays; all in pixels."""
    known_s, boxes = clip.face.times_s[clip.rows], clip.face.boxes[clip.rows]
    side = (1 + 2 * MARGIN) * np.quantile((boxes[:, 2:] - boxes[:, :2]).max(axis=1), LARGEST)
    steps_s = grid(known_s[0], known_s[-1])
    path = smoothed(along(middles(boxes), known_s, steps_s), SMOOTHING_S)
    return along(path, steps_s, times_s), max(2, round(side))


def _seconds_of(audio: VideoAudio, start_s: float, end_s: float) -> Iterator[np.ndarray]:
    """The samples from one time to another, in blocks of at most a second."""
    samples = round((end_s - start_s) * audio.sample_rate)
    for first in range(0, samples, audio.sample_rate):
        yield audio.part(start_s + first / audio.sample_rate, min(audio.sample_rate, samples - first))
