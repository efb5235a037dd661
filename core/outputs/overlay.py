"""Draw who speaks: face boxes with their probability on frames, and whole videos of such frames."""

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import cv2
import numpy as np

from core.clip_utils import SPEAKING_THRESHOLD
from core.detection.results import DetectedVideo, Person
from core.media.audio import decode_audio
from core.media.container import MediaFile
from core.media.video import Frame, i420_planes, read_frames, region_of
from core.media.video_writer import OTHER_RATE, audio_form, write_part
from core.runtime.errors import UserError

SPEAKING_COLOUR = (40, 190, 70)  # r, g, b
SILENT_COLOUR = (215, 60, 50)
NO_SCORE_COLOUR = (128, 128, 128)
CRF = 25  # x264's constant rate factor


@dataclass(frozen=True)
class Faces:
    """The faces of one frame.

    Attributes:
        boxes: (face, [x1, y1, x2, y2]) float, fractions of width and height.
        probabilities: (face,) float, 0 to 1; NaN where it is not known.
        names: what precedes each probability; empty for nothing.
    """

    boxes: np.ndarray
    probabilities: np.ndarray
    names: Sequence[str] = ()


FacesAt = Callable[[int, float], Faces | None]


def draw_faces(pixels: np.ndarray, faces: Faces) -> np.ndarray:
    """A copy of a frame with its faces marked.

    A box is green where the probability of speaking is at least 0.5, else red, and has the probability on it; it is
    grey, without a probability, where that is not known.

    Args:
        pixels: (height, width, [r, g, b]) uint8.
        faces: of the frame.

    Returns:
        (height, width, 3) uint8.
    """
    marked = np.ascontiguousarray(pixels).copy()
    for mark in _marks(faces, marked.shape[1], marked.shape[0]):
        mark.draw(marked)
    return marked


def write_overlay(path: str | Path, video: DetectedVideo) -> None:
    """Write a video with the boxes of its tracks drawn on it: `Person 2: <probability>`, as `draw_faces` does.

    Where persons were not told apart it is the track's id; also the number of a person whose name OpenCV cannot draw.

    H.264 and AAC, in mp4 with the index first. Frames are displayed upright, at their own times also where the rate
    varies, with their audio; of a file that is cut off, the part that could be decoded.

    Raises:
        MediaError: the video cannot be read.
    """
    ends = {} if video.complete else {"end_s": video.end_of_frame(len(video.frame_times_s) - 1)}
    with video.open(tolerant=not video.complete) as media:
        write_marked_video(path, media, _faces_by_frame(video), **ends, with_audio=video.audio_s is not None)


def write_marked_video(
    path: str | Path,
    media: MediaFile,
    faces_at: FacesAt,
    start_s: float = 0.0,
    end_s: float = float("inf"),
    *,
    with_audio: bool = True,
) -> None:
    """Write a video, or a part of it, with faces drawn on its frames, in one pass and little memory.

    A frame with odd sides loses a row or a column: the encoder takes even ones only. Of a file that is read tolerantly
    the video ends, quietly, where decoding fails; else that is an error.

    Args:
        path: file to write, whole or not at all; the extension chooses the container.
        media: the open video.
        faces_at: gives the faces of each frame from its number, the first being 0, and its time in seconds; None
            where there is no face.
        start_s, end_s: the part, in seconds of the source; from `start_s` on, and before `end_s`.
        with_audio: keep the audio, where there is some.

    Raises:
        MediaError: as `core.media.video.read_frames` and `core.media.audio.decode_audio`.
        UserError: the part has no frame.
    """
    if not start_s < end_s:
        raise UserError(f"no frame from {start_s:g} to {end_s:g} s: expected a part that ends after its beginning")
    check_within(media, start_s)
    start_s = max(start_s, media.start_s)
    info = media.info
    sample_rate, audio = OTHER_RATE, iter(())
    if with_audio and info.audio is not None:
        sample_rate, channels = audio_form(info.audio)
        blocks = decode_audio(media, sample_rate, channels)
        audio = _between(blocks, sample_rate, start_s - media.start_s, end_s - media.start_s)
    frames = _marked(read_frames(media, start_s, end_s), faces_at, start_s, end_s)
    write_part(path, media, frames, audio, sample_rate=sample_rate, crf=CRF, quick=True)


def check_within(media: MediaFile, time_s: float) -> None:
    """Check that a time is one of a video's.

    Raises:
        UserError: it is negative or no number, or the video is known to end before it.
    """
    if not time_s >= 0:
        raise UserError(f"no frame at {time_s:g} s: expected seconds from the start of the video, 0 or more")
    length_s = media.info.duration_s
    if length_s is not None and time_s >= media.start_s + length_s:
        raise UserError(f"{media.path} lasts {length_s:.2f} s: there is no frame at {time_s:g} s")


def _faces_by_frame(video: DetectedVideo) -> FacesAt:
    size = np.tile([video.info.width, video.info.height], 2)
    first_frames = [shot.first_frame for shot in video.shots]
    person_of = video.person_of
    tracks = [[] for _ in video.shots]  # of each shot, with their names and probabilities
    for track in video.tracks:
        name = _drawable(person_of[track.id]) if person_of else str(track.id)
        tracks[track.shot].append((track, name, track.probabilities))

    def faces_at(number: int, time_s: float) -> Faces | None:
        shown = [
            (name, track.boxes[number - track.frames[0]], probabilities[number - track.frames[0]])
            for track, name, probabilities in tracks[bisect.bisect_right(first_frames, number) - 1]
            if track.frames[0] <= number <= track.frames[-1]
        ]
        if not shown:
            return None
        names, boxes, probabilities = zip(*shown, strict=True)
        return Faces(np.array(boxes) / size, np.array(probabilities), names)

    return faces_at


def _drawable(person: Person) -> str:
    """What a person is called, in the ASCII characters that OpenCV has."""
    return person.label if person.label.isascii() else replace(person, name=None).label


def _marked(
    frames: Iterable[Frame], faces_at: FacesAt, start_s: float, end_s: float
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Seconds after the start, and the frame with its faces."""
    for number, frame in enumerate(frames):
        if frame.time_s >= end_s:
            if number == 0:
                raise UserError(f"no frame from {start_s:g} to {end_s:g} s: the next is at {frame.time_s:.2f} s")
            return
        marked, faces = frame.yuv420(), faces_at(number, frame.time_s)
        if faces is not None:
            _mark(marked, faces)
        yield max(0.0, frame.time_s - start_s), marked


def _mark(frame: av.VideoFrame, faces: Faces) -> None:
    """Draw faces into a frame in yuv420p; only the parts around them are converted."""
    for mark in _marks(faces, frame.width, frame.height):
        region = region_of(frame, *mark.bounds)
        pixels = np.empty((len(region[0]) * 3 // 2, region[0].shape[1]), np.uint8)
        for part, plane in zip(i420_planes(pixels), region, strict=True):
            part[:] = plane
        rgb = cv2.cvtColor(pixels, cv2.COLOR_YUV2RGB_I420)
        mark.draw(rgb, mark.bounds[:2])
        for part, plane in zip(i420_planes(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)), region, strict=True):
            plane[:] = part


def _between(blocks: Iterable[np.ndarray], sample_rate: int, start_s: float, end_s: float) -> Iterator[np.ndarray]:
    """The samples from one time to another."""
    at = 0
    for block in blocks:
        if at >= end_s * sample_rate:
            return
        first, last = (round(min(max(time_s * sample_rate - at, 0), len(block))) for time_s in (start_s, end_s))
        at += len(block)
        yield block[first:last]


def _colour(probability: float) -> tuple[int, int, int]:
    if np.isnan(probability):
        return NO_SCORE_COLOUR
    return SPEAKING_COLOUR if probability >= SPEAKING_THRESHOLD else SILENT_COLOUR


class _Mark:
    """What is drawn around one face of a frame: a box and, on its upper edge, a text.

    Attributes:
        bounds: the part of the frame that it lies in, x1, y1, x2, y2, even pixels.
    """

    def __init__(self, corners: list[int], text: str, colour: tuple[int, int, int], width: int, height: int):
        self.corners, self.text, self.colour = corners, text, colour
        self.line = max(2, round(height / 240))
        self.scale = height / 720 * 0.9
        x1, y1 = corners[:2]
        self.label = corners
        if text:
            (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, self.scale, self.line)
            top = max(0, y1 - text_height - 3 * self.line)
            left = max(0, min(x1, width - text_width - 2 * self.line))
            self.label = [left, top, left + text_width + 2 * self.line, top + text_height + 3 * self.line]
        low = np.minimum(corners[:2], self.label[:2]) - self.line
        high = np.maximum(corners[2:], self.label[2:]) + self.line + 1
        even = np.clip(np.concatenate([low // 2, -(-high // 2)]), 0, [width // 2, height // 2] * 2) * 2
        self.bounds = tuple(even.tolist())

    def draw(self, pixels: np.ndarray, corner: Sequence[int] = (0, 0)) -> None:
        """Draw it into a frame, (height, width, [r, g, b]) uint8, or a part of one whose upper left corner is given."""
        x1, y1, x2, y2 = np.subtract(self.corners, [*corner, *corner]).tolist()
        cv2.rectangle(pixels, (x1, y1), (x2, y2), self.colour, self.line, cv2.LINE_AA)
        if not self.text:
            return
        left, top, right, bottom = np.subtract(self.label, [*corner, *corner]).tolist()
        cv2.rectangle(pixels, (left, top), (right, bottom), self.colour, -1)
        origin, font = (left + self.line, bottom - 2 * self.line), cv2.FONT_HERSHEY_SIMPLEX
        thickness = max(1, self.line - 1)
        cv2.putText(pixels, self.text, origin, font, self.scale, (255, 255, 255), thickness, cv2.LINE_AA)


def _marks(faces: Faces, width: int, height: int) -> Iterator[_Mark]:
    """The marks of a frame's faces."""
    names = faces.names or [""] * len(faces.boxes)
    for box, probability, name in zip(faces.boxes, faces.probabilities, names, strict=True):
        corners = np.round(box * (width, height, width, height)).astype(int).tolist()
        known = "" if np.isnan(probability) else f"{probability:.2f}"
        yield _Mark(corners, ": ".join(filter(None, [name, known])), _colour(probability), width, height)
