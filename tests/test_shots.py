"""Shots: cuts are found on the frame, moving pictures are none, all frames come through in order."""

import numpy as np

from core.detection.shots import find_shots
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_writer import write_video

FPS, WIDTH, HEIGHT = 25, 96, 64


def scene(seed: int) -> np.ndarray:
    """A picture of coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return np.kron(blocks, np.ones((HEIGHT // 4, WIDTH // 6, 1), np.uint8))


def shots_of(path) -> list:
    return list(find_shots(read_frames(MediaFile(path)), FPS))


def test_cuts_are_found_where_they_are(tmp_path):
    frames = [scene(0)] * 20 + [scene(1)] * 15 + [scene(2)] * 25
    write_video(tmp_path / "cuts.mp4", frames, FPS)
    shots = shots_of(tmp_path / "cuts.mp4")
    assert [frame.number for frame in shots] == list(range(60))
    np.testing.assert_allclose([frame.frame.time_s for frame in shots], np.arange(60) / FPS, atol=1e-3)
    assert [frame.number for frame in shots if frame.begins_shot] == [0, 20, 35]


def test_a_moving_camera_is_no_cut(tmp_path):
    wide = np.concatenate([scene(0), scene(0)], axis=1)
    frames = [wide[:, 4 * step % WIDTH :][:, :WIDTH] for step in range(23)]
    write_video(tmp_path / "pan.mp4", frames, FPS)
    assert [frame.number for frame in shots_of(tmp_path / "pan.mp4") if frame.begins_shot] == [0]


def test_a_flash_and_what_follows_it_are_one_shot(tmp_path):
    frames = [scene(0)] * 20 + [np.full((HEIGHT, WIDTH, 3), 255, np.uint8)] + [scene(0)] * 20
    write_video(tmp_path / "flash.mp4", frames, FPS)
    begins = [frame.number for frame in shots_of(tmp_path / "flash.mp4") if frame.begins_shot]
    assert begins == [0, 20]


def test_one_frame_is_one_shot(tmp_path):
    write_video(tmp_path / "one.mp4", [scene(0)], FPS)
    assert [(frame.number, frame.begins_shot) for frame in shots_of(tmp_path / "one.mp4")] == [(0, True)]
