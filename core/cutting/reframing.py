"""A video of another shape that shows who speaks: a window that cuts from speaker to speaker and rests between."""

import bisect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.boxes import area
from core.clip_utils import SAMPLE_RATE
from core.cutting.camera import STEP_S, along, follow, grid, inside, middles, smoothed
from core.cutting.results import SLACK_S, Results, SeenFace
from core.media.audio import decode_audio
from core.media.container import MediaFile, VideoInfo
from core.media.cropping import window_crop
from core.media.video import Frame, read_frames
from core.media.video_writer import audio_form, write_part
from core.runtime.errors import UserError

TURN_S = 1.0  # who speaks for less is not cut to, as with a "yes" in between
SILENCE_S = 2.0  # for which the speaker before stays in view
FREE = 0.1  # of the window's side, on either side of its middle: where a face may be without the camera moving
JUMP = 0.33  # of the window's side: a face that is nearer to its middle is not cut to, but followed
DRIFT = 0.2  # of the window's side a second, the fastest that the camera moves
EASING_S = 0.2  # over which a motion begins and ends


@dataclass(frozen=True)
class Take:
    """The window's way from one cut to the next.

    Attributes:
        start_s: when it begins, seconds, as a player shows them.
        times_s: (n,) float64.
        centres: (n, [x, y]) float64, the middle of the window in pixels at these times.
    """

    start_s: float
    times_s: np.ndarray
    centres: np.ndarray


@dataclass(frozen=True)
class View:
    """A span of time in one shot, and whom to show; None for all."""

    start_s: float
    end_s: float
    face: SeenFace | None


def window_of(info: VideoInfo, shape: tuple[int, int]) -> tuple[int, int]:
    """Width and height, even, of the largest window of a shape in a video, in its pixels.

    Args:
        info: the video's.
        shape: width and height in proportion, such as (9, 16).

    Raises:
        UserError: nothing would be left of the frame.
    """
    aspect = shape[0] / shape[1]
    width, height = min(info.width, info.height * aspect), min(info.height, info.width / aspect)
    if width < 2 or height < 2:
        raise UserError(f"--reframe {shape[0]}:{shape[1]}: nothing is left of {info.width} x {info.height} pixels")
    return round(width) // 2 * 2, round(height) // 2 * 2


def plan_takes(results: Results, info: VideoInfo, window: tuple[int, int]) -> list[Take]:
    """Where the window is throughout a video.

    A take begins at each cut of the source, unless it shows the same person at about the same place, and where somebody
    is to be shown who is not in the middle of the window already. The tracks of a person count as one face. Within a
    take the window moves slowly, and only where its face would leave the middle; a face that outruns it is cut to.

    Args:
        results: of detection.
        info: the video's.
        window: width and height, pixels.
    """
    parts: list[list[tuple[np.ndarray, np.ndarray]]] = []  # times and positions, of each take
    before = np.zeros(2), None
    for number, (start_s, end_s) in enumerate(results.shots_s):
        faces = by_person([face for face in results.faces if face.shot == number])
        before = _add_shot(parts, faces, plan_views(faces, start_s, end_s), info, window, before)
    takes = []
    for part in parts:
        times_s, path = (np.concatenate(values) for values in zip(*part, strict=True))
        takes.append(Take(float(times_s[0]), times_s, smoothed(path, EASING_S)))
    return takes


def by_person(faces: list[SeenFace]) -> list[SeenFace]:
    """The tracks of each person in a shot as one face; until it is seen again it counts as where it was seen last."""
    tracks: dict[int, list[SeenFace]] = {}
    for face in sorted(faces, key=lambda face: face.times_s[0]):
        tracks.setdefault(face.number, []).append(face)
    return [_as_one(same) if len(same) > 1 else same[0] for same in tracks.values()]


def _as_one(tracks: list[SeenFace]) -> SeenFace:
    rows = [np.column_stack([face.times_s, face.boxes, face.scores, face.probabilities]) for face in tracks]
    for before, after in itertools.pairwise(tracks):
        if (time_s := after.times_s[0] - STEP_S) > before.times_s[-1]:
            rows.append(np.array([[time_s, *before.boxes[-1], np.nan, np.nan]]))
    every = np.concatenate(rows)
    every = every[np.unique(every[:, 0], return_index=True)[1]]
    return replace(
        tracks[0],
        times_s=every[:, 0],
        boxes=every[:, 1:5],
        scores=every[:, 5],
        probabilities=every[:, 6],
        end_s=max(face.end_s for face in tracks),
        speech=sorted((part for face in tracks for part in face.speech), key=lambda part: part.start_s),
    )


def plan_views(faces: list[SeenFace], start_s: float, end_s: float) -> list[View]:
    """Whom to show in a shot, from its start to its end.

    Who speaks is shown; of several the one who speaks already, else the surest. In silences of up to `SILENCE_S` it is
    whoever spoke before, at the shot's beginning who speaks next; in longer ones all faces. Turns of less than `TURN_S`
    change nothing, unless no one in the shot speaks for longer.
    """
    bounds = {time_s for face in faces for part in face.speech for time_s in (part.start_s, part.end_s)}
    edges = sorted({start_s, end_s, *(time_s for time_s in bounds if start_s < time_s < end_s)})
    views, speaker = [], None
    for begin_s, until_s in itertools.pairwise(edges):
        speaking = {
            face: part.probability for face in faces for part in face.speech if part.start_s <= begin_s < part.end_s
        }
        if speaker not in speaking:
            speaker = max(speaking, key=speaking.get, default=None)
        views.append(View(begin_s, until_s, speaker))
    views = _filled(views, lambda before, after: before if before is after else None)
    least_s = min(TURN_S, max((view.end_s - view.start_s for view in views if view.face), default=TURN_S))
    views = [view if view.end_s - view.start_s >= least_s else replace(view, face=None) for view in views]
    return _filled(_joined(views), lambda before, after: before or after)


def write_reframed(path: str | Path, media: MediaFile, window: tuple[int, int], takes: list[Take]) -> None:
    """Write a whole video as its window shows it, with its audio: H.264 and AAC in mp4, frames at their own times.

    Args:
        path: written, whole or not at all.
        media: the open video.
        window: width and height, even, pixels.
        takes: the window's way.

    Raises:
        MediaError: the video cannot be decoded.
    """
    info = media.info
    starts_s = [take.start_s - SLACK_S for take in takes]

    def seen(frame: Frame) -> np.ndarray:
        take = takes[max(0, bisect.bisect_right(starts_s, frame.time_s) - 1)]
        centre = np.round(along(take.centres, take.times_s, np.array([frame.time_s]))[0])
        return window_crop(frame, centre, window, window)

    frames = ((frame.time_s - media.start_s, seen(frame)) for frame in read_frames(media))
    audio, rate = iter(()), SAMPLE_RATE
    if info.audio is not None:
        rate, channels = audio_form(info.audio)
        audio = decode_audio(media, rate, channels)
    write_part(path, media, frames, audio, sample_rate=rate)


def _joined(views: list[View]) -> list[View]:
    """Neighbours of one face as one view."""
    return [
        View(same[0].start_s, same[-1].end_s, face)
        for face, group in itertools.groupby(views, key=lambda view: view.face)
        for same in [list(group)]
    ]


def _filled(views: list[View], choose: Callable[[SeenFace | None, SeenFace | None], SeenFace | None]) -> list[View]:
    """Views whose short silences show whom `choose` names of the faces before and after."""
    views = _joined(views)
    faces = [None, *(view.face for view in views), None]
    return _joined(
        [
            replace(view, face=choose(before, after))
            if view.face is None and view.end_s - view.start_s <= SILENCE_S
            else view
            for view, before, after in zip(views, faces[:-2], faces[2:], strict=True)
        ]
    )


def _add_shot(
    parts: list[list[tuple[np.ndarray, np.ndarray]]],
    faces: list[SeenFace],
    views: list[View],
    info: VideoInfo,
    window: tuple[int, int],
    before: tuple[np.ndarray, int | None],
) -> tuple[np.ndarray, int | None]:
    """Add a shot's times and positions to those of the takes so far.

    The take goes on over a cut of the source where the same person is near the middle of the window after it.

    Args:
        before: where the camera was at the end of the shot before, and on whom.

    Returns:
        the same of this shot.
    """
    size = np.array(window, np.float64)
    camera = shown = None
    last, person = before
    for number, view in enumerate(views):
        times_s = grid(view.start_s, view.end_s)
        what = view.face or _group(view, faces, info, size, camera)
        if isinstance(what, SeenFace):
            targets = along(middles(what.boxes), what.times_s, times_s)
            reach = (size - np.median(what.boxes[:, 2:] - what.boxes[:, :2], axis=0)) / 2
        else:
            targets, reach = np.tile(what, (len(times_s), 1)), size
        targets, reach = inside(targets, window, info), np.maximum(reach, JUMP * size)
        near = bool((np.abs(targets[0] - last) <= FREE * size).all())
        who = what.number if isinstance(what, SeenFace) else None
        stays = (near or what is shown) if number > 0 else (near and who is not None and who == person)
        for first, path in follow(targets, reach, FREE * size, DRIFT * STEP_S * size, last if stays else None):
            if first > 0 or not stays:
                parts.append([])
            parts[-1].append((times_s[first : first + len(path)], path))
        camera = last = path[-1]
        shown, person = what, who
    return last, person


def _group(
    view: View, faces: list[SeenFace], info: VideoInfo, size: np.ndarray, camera: np.ndarray | None
) -> SeenFace | np.ndarray:
    """A face, where it is the only one; else where the window shows all, ([x, y],).

    That is where it is, if it shows them already or they do not fit. Where it is nowhere yet and they do not fit, it is
    the largest face; where there is none, the middle of the frame.
    """
    seen = {face: face.boxes[(face.times_s >= view.start_s) & (face.times_s < view.end_s)] for face in faces}
    seen = {face: boxes for face, boxes in seen.items() if len(boxes)}
    if len(seen) == 1:
        return next(iter(seen))
    if not seen:
        return np.array([info.width, info.height]) / 2 if camera is None else camera
    together = np.concatenate(list(seen.values()))
    low, high = together[:, :2].min(axis=0), together[:, 2:].max(axis=0)
    fits = bool((high - low <= size).all())
    if camera is not None and (not fits or ((low >= camera - size / 2) & (high <= camera + size / 2)).all()):
        return camera
    return (low + high) / 2 if fits else max(seen, key=lambda face: area(seen[face]).mean())
