"""Shots: cuts are found on the frame, a moving camera makes none, all frames come through in order."""

import numpy as np
import pytest

from core.detection.shots import find_shots
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_writer import write_video

FPS, WIDTH, HEIGHT = 25, 96, 64


def scene(seed: int) -> np.ndarray:
    """A frame of coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return np.kron(blocks, np.ones((HEIGHT // 4, WIDTH // 6, 1), np.uint8))


def begins(folder, frames: list[np.ndarray]) -> list[int]:
    """The frames that begin a shot; all frames must come through, in order, at their times."""
    write_video(folder / "a.mp4", frames, FPS)
    found = list(find_shots(read_frames(MediaFile(folder / "a.mp4")), FPS))
    assert [frame.number for frame in found] == list(range(len(frames)))
    np.testing.assert_allclose([frame.frame.time_s for frame in found], np.arange(len(frames)) / FPS, atol=1e-3)
    return [frame.number for frame in found if frame.begins_shot]


def grey_scene(seed: int) -> np.ndarray:
    """Grey blocks of 90 to 150, as in an old film."""
    return np.repeat(scene(seed)[:, :, :1] // 4 + 90, 3, axis=2)


WIDE = np.concatenate([scene(0), scene(0)], axis=1)
WHITE = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([scene(0)] * 20 + [scene(1)] * 15 + [scene(2)] * 25, [0, 20, 35]),
        ([WIDE[:, 4 * step % WIDTH :][:, :WIDTH] for step in range(23)], [0]),  # a moving camera
        ([grey_scene(0)] * 20 + [grey_scene(1)] * 15 + [grey_scene(2)] * 25, [0, 20, 35]),
        ([scene(0)] * 20 + [WHITE] + [scene(0)] * 20, [0, 20]),  # a flash and what follows it are one shot
        ([scene(0)], [0]),
    ],
    ids=["cuts", "pan", "grey", "flash", "one frame"],
)
def test_shots_begin_at_cuts(tmp_path, frames, expected):
    assert begins(tmp_path, frames) == expected
