"""Detected videos made by hand, for the tests of what is written about them, and a detector of the tiny frames."""

from pathlib import Path

import cv2
import numpy as np
from tiny import BOXES

from core.detection.results import DetectedVideo, Person, Shot, Track
from core.media.streams import AudioInfo, VideoInfo

WIDTH, HEIGHT = 320, 240
SPEAKS, SILENT = 3.0, -3.0  # scores; probabilities 0.953 and 0.047


class Squares:
    """Finds the squares of `tiny.tiny_frame`, the first `faces` of them; counts the frames it was `asked` about."""

    name = "squares"
    least_face_px = 1

    def __init__(self, faces: int = 2):
        self.faces, self.asked = faces, 0

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        self.asked += 1
        scale = pixels.shape[1] / 64
        faces = [[*(side * scale for side in box), 0.9] for box in BOXES[: self.faces]]
        return np.array(faces, np.float32).reshape(-1, 5)


class SquaresWithLandmarks(Squares):
    """The squares with eyes, a nose and a mouth, all within them."""

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        faces = super().__call__(pixels)
        at = np.array([0.3, 0.4, 0.7, 0.4, 0.5, 0.6, 0.35, 0.8, 0.65, 0.8], np.float32)
        points = np.tile(faces[:, :2], 5) + at * np.tile(faces[:, 2:4] - faces[:, :2], 5)
        return np.concatenate([faces, points], axis=1)


class Brightness:
    """An embedder that takes all dark faces for one person, all bright ones for another."""

    name, max_distance = "brightness", 0.5

    def align(self, pixels: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        return pixels

    def embed(self, face: np.ndarray) -> np.ndarray:
        return np.eye(2, dtype=np.float32)[int(face.mean() > 128)]


class Mean:
    """In place of an encoder's networks: log odds are how bright the faces are, and how loud it is, in the mean."""

    visual_context, audio_context = 6, 5

    def visual(self, faces: np.ndarray) -> np.ndarray:
        return faces.mean((2, 3))[..., None] / 64

    def audio(self, mfcc: np.ndarray) -> np.ndarray:
        return mfcc[..., 0].reshape(1, -1, 4).mean(2)[..., None] / 16

    def score(self, audio: np.ndarray, visual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate((visual * 0, visual - audio + (visual - audio).mean()), 2), visual

    def rescore(self, audio: np.ndarray, visual: np.ndarray) -> np.ndarray:
        return self.score(audio, visual)[0]

    def video_logits(self, visual: np.ndarray) -> np.ndarray:
        return np.concatenate((visual * 0, visual), 1)


def track(
    id: int, times_s: np.ndarray, first: int, scores: list[float], box: tuple = (40, 60, 120, 180), shot: int = 0
) -> Track:
    """A face that stands still, from frame `first` on, with one score a frame."""
    frames = np.arange(first, first + len(scores))
    return Track(
        id=id,
        shot=shot,
        frames=frames,
        times_s=times_s[frames],
        boxes=np.tile(np.array(box, np.float32), (len(frames), 1)),
        scores=np.array(scores, np.float32),
        thumbnail=cv2.imencode(".jpg", np.full((72, 72, 3), (40 * id % 256, 150, 200), np.uint8))[1].tobytes(),
    )


def detected(
    tracks: list[Track],
    times_s: np.ndarray,
    path: str | Path = "talk.mp4",
    fps: float = 25.0,
    *,
    audio_s: tuple[float, float] | None = (0.0, 10.0),
    complete: bool = True,
    notes: tuple[str, ...] = (),
    cuts: tuple[int, ...] = (),
    context: str | None = None,
    persons: list[Person] | None = None,
) -> DetectedVideo:
    """A video with a shot from each cut to the next."""
    firsts = [0, *cuts]
    ends = [*cuts, len(times_s)]
    after = [*times_s, float(times_s[-1]) + 1 / fps]
    return DetectedVideo(
        path=Path(path),
        info=VideoInfo(
            width=WIDTH,
            height=HEIGHT,
            fps=fps,
            duration_s=len(times_s) / fps,
            audio=None if audio_s is None else AudioInfo("aac", 16_000, 1, 0.0),
            rotation=0,
            codec="h264",
            pixel_format="yuv420p",
        ),
        frame_times_s=times_s,
        audio_s=audio_s,
        shots=[Shot(a, b - 1, float(times_s[a]), float(after[b])) for a, b in zip(firsts, ends, strict=True)],
        tracks=tracks,
        notes=list(notes),
        complete=complete,
        persons=persons,
        settings={"encoder": "light_asd", "context": context, "threshold": 0.5},
    )


def steady(frames: int, fps: float = 25.0) -> np.ndarray:
    """Presentation times of a constant rate, (frames,) float64 seconds."""
    return np.arange(frames) / fps
