"""Faces cut by each protocol, from pictures whose pixels tell where they come from."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from core.media.cropping import OUTSIDE_GREY, box_crop, colour_crop, lower_face_crop, thumbnail
from core.media.video import Frame

WIDTH, HEIGHT = 320, 240


def frame_of(grey: np.ndarray) -> Frame:
    """A frame with the brightness given, (height, width), 0 to 255, without compression."""
    rows = np.full((grey.shape[0] * 3 // 2, grey.shape[1]), 128, np.uint8)
    rows[: grey.shape[0]] = np.round(16 + grey * (219 / 255))
    return Frame(0.0, av.VideoFrame.from_ndarray(rows, format="yuv420p"))


def ramp() -> Frame:
    """Brightness that grows from left to right, a value every two pixels."""
    return frame_of(np.tile(np.arange(WIDTH) / 2, (HEIGHT, 1)))


def test_grey_is_stretched_to_the_full_range():
    frame = frame_of(np.tile([0.0, 255.0], (HEIGHT, WIDTH // 2)))
    assert frame.grey_region(10, 5, 14, 7).tolist() == [[0, 255, 0, 255]] * 2


def test_a_box_is_cut_as_it_is():
    crop = box_crop(ramp(), np.array([100, 50, 212, 162]))
    assert crop.shape == (112, 112)
    assert crop[0] == pytest.approx(np.arange(100, 212) / 2, abs=1.5)


def test_a_box_over_the_edge_is_clamped():
    crop = box_crop(ramp(), np.array([-56, -10, 112, 60]))
    expected = cv2.resize(ramp().grey_region(0, 0, 112, 60), (112, 112))
    np.testing.assert_array_equal(crop, expected)


def test_a_box_outside_leaves_a_pixel():
    assert box_crop(ramp(), np.array([400, 300, 500, 400])).shape == (112, 112)


def test_the_lower_face_is_the_middle_of_the_published_square():
    """The published steps: a padded square, scaled to 224 x 224, of which the middle 112 x 112 is the input."""
    grey = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8)).astype(np.uint8)
    frame = frame_of(cv2.resize(grey, (WIDTH, HEIGHT)))
    box = np.array([120.0, 60.0, 200.0, 160.0])
    half, scale = 50.0, 0.4
    x, y = 160.0, 110.0
    pad = int(half * (1 + 2 * scale))
    picture = np.pad(frame.grey_region(0, 0, WIDTH, HEIGHT), pad, constant_values=OUTSIDE_GREY)
    top, bottom = int(y + pad - half), int(y + pad + half * (1 + 2 * scale))
    left, right = int(x + pad - half * (1 + scale)), int(x + pad + half * (1 + scale))
    published = cv2.resize(picture[top:bottom, left:right], (224, 224))[56:168, 56:168]
    found = lower_face_crop(frame, box)
    assert np.abs(found.astype(int) - published).mean() < 3  # edges are rounded to other pixels


def test_outside_the_picture_the_lower_face_is_grey():
    frame = frame_of(np.zeros((HEIGHT, WIDTH)))
    crop = lower_face_crop(frame, np.array([-40.0, 100.0, 40.0, 200.0]))
    assert (crop[:, :50] == OUTSIDE_GREY).all()
    assert (crop[:, 60:] == 0).all()
    below = lower_face_crop(frame, np.array([100.0, 150.0, 200.0, 250.0]))
    assert (below[:40] == 0).all()
    assert (below[-10:] == OUTSIDE_GREY).all()


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)


def test_colour_and_thumbnail_keep_red_red():
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0] = 200
    frame = Frame(0.0, av.VideoFrame.from_ndarray(red, format="rgb24").reformat(format="yuv420p"))
    box = np.array([10, 10, 60, 60])
    for crop, side in ((colour_crop(frame, box), 144), (decoded(thumbnail(frame, box)), 72)):
        assert crop.shape == (side, side, 3)
        assert crop.reshape(-1, 3).mean(0) == pytest.approx([200, 0, 0], abs=4)


def test_a_thumbnail_of_a_face_as_large_as_the_picture():
    assert decoded(thumbnail(ramp(), np.array([-100.0, -100.0, 500.0, 500.0]))).shape == (72, 72, 3)


@pytest.mark.parametrize("format", ["yuv444p", "yuvj420p", "rgb24", "gray", "yuv420p10le"])
def test_grey_of_other_pixel_formats(format):
    grey = np.tile(np.arange(WIDTH) / 2, (HEIGHT, 1)).astype(np.uint8)
    picture = av.VideoFrame.from_ndarray(np.repeat(grey[..., None], 3, axis=2), format="rgb24").reformat(format=format)
    region = Frame(0.0, picture).grey_region(100, 20, 140, 24)
    assert region.shape == (4, 40)
    assert region[0] == pytest.approx(grey[0, 100:140], abs=3)


def test_a_rotated_video_is_cut_as_displayed(shared):
    from core.media.video import read_frames

    path = Path(shared) / "mini-ava" / "unusual" / "rotation-90-metadata.mp4"
    frame = next(iter(read_frames(path)))
    assert (frame.width, frame.height) == frame.bgr().shape[1::-1]
    whole = cv2.cvtColor(frame.bgr(), cv2.COLOR_BGR2GRAY)
    part = frame.grey_region(40, 60, 140, 100)
    assert part.shape == (40, 100)
    assert np.abs(part.astype(int) - whole[60:100, 40:140]).mean() < 4
    small = frame.scaled_bgr(100)
    assert max(small.shape) == 100
    assert small.shape[0] / small.shape[1] == pytest.approx(frame.height / frame.width, rel=0.05)
