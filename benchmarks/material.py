"""Made-up input for the benchmarks: a textured video with faces, its preparation, a feature store.

Contents are random but of a real video's weight: noise with the spectrum of photographs, moving, encoded at a few
megabits per second with a key frame every 250 frames (x264's default).
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from core.clip_utils import GRID_FPS as FPS
from core.clip_utils import SAMPLE_RATE
from core.formats import ava
from core.formats.feature_store import VideoFeatures, write_features
from core.formats.wav import write_wav
from core.media.container import MediaFile
from core.media.cropping import extract_crops
from core.media.video_writer import write_video
from core.runtime.files import atomic_write

WIDTH, HEIGHT = 1280, 720
FACES = (180, 215, 250)  # pixels
CRF = 23  # x264's default
# How the amplitude of a frame's spectrum falls with the frequency, and the standard deviation of its grey levels.
# With these, crops of the textured faces measure as real ones do (17 faces, 140 pixels and more): a falloff of
# 1.87 and a deviation of 37.
FACE_FALLOFF = 1.8
GROUND_FALLOFF = 1.2
CONTRAST = 50


def textured_video(folder: Path, length_s: float) -> tuple[Path, pd.DataFrame]:
    """A 720p H.264 video in which three textured faces move over a panning ground, written unless it is there.

    Returns:
        The video, and augmented annotations (`ava.augment`) of all faces at every frame, in tracks of four seconds.
    """
    path = folder / "textured.mp4"
    places = _places(round(length_s * FPS), np.random.default_rng(0))
    if not path.is_file():
        with atomic_write(path) as temporary:
            write_video(temporary, _frames(places, np.random.default_rng(1)), FPS, crf=CRF)
    corners = np.concatenate([places, places + np.array(FACES)[:, None]], axis=2)  # (frame, face, [x1, y1, x2, y2])
    corners = corners / [WIDTH, HEIGHT, WIDTH, HEIGHT]
    labels = list(ava.LABEL_IDS)
    rows = [
        (
            path.stem,
            f"{frame / FPS:.2f}",
            *(f"{value:.6f}" for value in corners[frame, face]),
            labels[frame // 30 % len(labels)],
            f"{path.stem}_{frame // FPS // 4 * 4:04d}:{face}",
        )
        for frame, face in np.ndindex(corners.shape[:2])
    ]
    return path, ava.augment(pd.DataFrame(rows, columns=ava.COLUMNS))


def prepared(folder: Path, length_s: float) -> pd.DataFrame:
    """Crops and audio (noise) of a textured video, as the preparation leaves them: `folder`/crops, `folder`/audio."""
    video, rows = textured_video(folder, length_s)
    if not (folder / "crops" / f"{video.stem}.arrow").is_file():
        extract_crops(MediaFile(video), rows, folder / "crops")
    rng = np.random.default_rng(0)
    for entity, part in rows.groupby("entity_id"):
        samples = round(np.ptp(part["time_s"]) * SAMPLE_RATE) + 1
        write_wav(folder / "audio" / f"{entity}.wav", rng.normal(0, 3000, samples).astype(np.int16))
    return rows


def feature_store(folder: Path, rows: int, videos: int, width: int = 1024) -> None:
    """Write float16 features of scenes of 30 to 190 frames with one to four faces, 1.9 on average."""
    rng = np.random.default_rng(0)
    ends = np.linspace(0, rows, videos + 1).astype(int)
    values = rng.normal(0, 1, (4096, width)).astype(np.float16)
    for number, own in enumerate(np.diff(ends)):
        keys = _scenes(f"bench{number:04d}", int(own), rng)
        logits = rng.normal(0, 1, (own, 2)).astype(np.float32)
        features = values[rng.integers(len(values), size=own)]
        write_features(folder, VideoFeatures(keys, logits, logits, logits, features), {"weights": "random"})


def _scenes(video: str, rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """The keys of a video's rows, sorted by entity and time."""
    parts, left, start = [], rows, 900 * FPS
    while left:
        frames, faces = int(rng.integers(30, 191)), int(rng.choice([1, 2, 3, 4], p=[0.4, 0.35, 0.2, 0.05]))
        for face in range(faces):
            length = min(frames, left)
            entity = f"{video}_{start:06d}:{face}"
            stamps = [f"{n / FPS:.2f}" for n in range(start, start + length)]
            label = rng.integers(3, size=length).astype(np.int8)
            parts.append(pd.DataFrame({"entity_id": entity, "frame_timestamp": stamps, "label_id": label}))
            left -= length
            if not left:
                break
        start += frames
    return pd.concat(parts, ignore_index=True).assign(video_id=video)


def _places(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Left and top of the faces, (frame, face, [x, y]) pixels: each sways in its third of the frame."""
    time_s = np.arange(frames)[:, None, None] / FPS
    sway = np.sin(2 * np.pi * (time_s * rng.uniform(0.1, 0.4, (len(FACES), 2)) + rng.random((len(FACES), 2))))
    middle = np.stack([(np.arange(len(FACES)) + 0.5) * WIDTH / len(FACES), np.full(len(FACES), HEIGHT / 2)], axis=1)
    return middle - np.array(FACES)[:, None] / 2 + sway * [60, 120]


def _frames(places: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    ground = _texture(HEIGHT + 200, WIDTH + 200, GROUND_FALLOFF, rng)
    faces = [_texture(2 * size, 2 * size, FACE_FALLOFF, rng) for size in FACES]
    for number, corners in enumerate(places):
        shift = 100 + 100 * np.sin(number / FPS * np.array([0.3, 0.2]))
        frame = _moved(ground, -shift, (WIDTH, HEIGHT))
        for size, face, corner in zip(FACES, faces, corners, strict=True):
            x, y = corner.astype(int)
            wobble = 4 * np.sin(number / 3 + np.array([0, 1])) - size / 2
            frame[y : y + size, x : x + size] = _moved(face, wobble, (size, size))
        yield frame


def _moved(frame: np.ndarray, shift: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return cv2.warpAffine(frame, np.array([[1, 0, shift[0]], [0, 1, shift[1]]]), size)


def _texture(height: int, width: int, falloff: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose amplitude falls with the frequency to the power `falloff`: (height, width, 3) uint8."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    weight = 1 / np.maximum(frequency, 1 / max(height, width)) ** falloff
    grey = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(height, width))) * weight, (height, width))
    grey = 110 + CONTRAST * grey / grey.std()
    tint = rng.uniform(0.7, 1.2, 3)
    return np.clip(grey[..., None] * tint, 0, 255).astype(np.uint8)
