"""The frames of a track from which its person is recognised."""

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from core.people.portraits import EVERY_S, PORTRAITS, Portraits

SIDE = 200  # of the frames
LANDMARKS = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)  # of a face of 100 x 100


@dataclass
class Still:
    """A frame of one pattern; `value` tells it from others."""

    time_s: float
    value: int = 100
    blurred: bool = False
    width: int = SIDE
    height: int = SIDE

    def bgr_region(self, x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
        pattern = np.random.default_rng(0).integers(0, 40, (SIDE, SIDE, 3)).astype(np.uint8) + np.uint8(self.value)
        return (cv2.GaussianBlur(pattern, (0, 0), 4) if self.blurred else pattern)[y1:y2, x1:x2]


class Mean:
    """An embedder of the brightness of the region: a direction in the plane; remembers what it was given."""

    name, max_distance = "mean", 0.5

    def __init__(self):
        self.aligned = []

    def align(self, pixels: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        self.aligned.append((pixels.shape[:2], box, landmarks))
        return pixels

    def embed(self, face: np.ndarray) -> np.ndarray:
        angle = face.mean() / 100
        return np.array([np.cos(angle), np.sin(angle)], np.float32)


def face(x: float = 40, y: float = 50, side: float = 100, score: float = 0.9, turned: float = 0.0) -> np.ndarray:
    """A detection; `turned` moves the nose aside, in distances of the eyes."""
    points = LANDMARKS.copy()
    points[2, 0] += turned * 40
    return np.concatenate([[x, y, x + side, y + side, score], (points * side / 100 + (x, y)).ravel()]).astype(
        np.float32
    )


def taken(candidates: list[tuple[Still, np.ndarray]]) -> list[int]:
    """The values of the frames kept."""
    portraits = Portraits(Mean())
    for frame, found in candidates:
        portraits.add(frame, found)
    return sorted(round(float(portrait.aligned.mean())) - 20 for portrait in portraits.kept)


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"score": 0.6}, {"score": 0.9}),  # sure
        ({"side": 60}, {"side": 100}),  # large
        ({"turned": 0.6}, {"turned": -0.1}),  # frontal
        ({"blurred": True}, {"blurred": False}),  # sharp
    ],
)
@pytest.mark.parametrize("better_first", [True, False])
def test_the_best_frames_are_kept(worse, better, better_first):
    def candidate(number: int, value: int, options: dict) -> tuple[Still, np.ndarray]:
        options = dict(options)
        return Still(number * EVERY_S, value, options.pop("blurred", False)), face(**options)

    qualities = [(150, better), (50, worse)] if better_first else [(50, worse), (150, better)]
    candidates = [(value, options) for value, options in qualities for _ in range(PORTRAITS)]
    kept = taken([candidate(number, *item) for number, item in enumerate(candidates)])
    assert kept == pytest.approx([150] * PORTRAITS, abs=2)


def test_neighbouring_frames_are_not_looked_at():
    portraits = Portraits(Mean())
    for number in range(26):  # 1.04 s
        portraits.add(Still(number * 0.04), face())
    assert len(portraits.embedder.aligned) == 5  # 0, 0.24, 0.48, 0.72, 0.96 s


@pytest.mark.parametrize(
    ("x", "y", "shape", "corner"),
    [(40.5, 50.5, (160, 160), (10, 20)), (0.5, -20.5, (109, 130), (0, 0)), (150.5, 150.5, (80, 80), (120, 120))],
)
def test_the_region_around_a_face_is_cut_with_its_landmarks(x, y, shape, corner):
    portraits = Portraits(Mean())
    portraits.add(Still(0.0), face(x, y))
    [(found, box, landmarks)] = portraits.embedder.aligned
    assert found == shape
    assert box == pytest.approx(np.array([x, y, x + 100, y + 100]) - np.tile(corner, 2))
    assert landmarks == pytest.approx(LANDMARKS + np.array([x, y]) - corner)


def test_a_face_is_embedded_once_however_often_it_is_asked_for():
    class Counted(Mean):
        embedded = 0

        def embed(self, face: np.ndarray) -> np.ndarray:
            self.embedded += 1
            return super().embed(face)

    portraits = Portraits(embedder := Counted())
    for number in range(PORTRAITS):
        portraits.add(Still(number, value=100 + number), face())
        for _ in range(3):
            before = portraits.embedding()
    assert embedder.embedded == PORTRAITS
    portraits.add(Still(PORTRAITS), face(score=1.0))  # takes the place of another
    assert not np.array_equal(portraits.embedding(), before)
    assert embedder.embedded == PORTRAITS + 1


def test_the_embedding_is_the_mean_direction():
    portraits = Portraits(Mean())
    assert portraits.embedding() is None
    portraits.add(Still(0.0), face()[:5])  # without landmarks it cannot be aligned
    assert portraits.embedding() is None
    for number, value in enumerate((50, 90)):
        portraits.add(Still(number * EVERY_S, value), face())
    vector = portraits.embedding()
    assert vector.dtype == np.float32
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert np.arctan2(vector[1], vector[0]) == pytest.approx((70 + 19.5) / 100, abs=0.01)
