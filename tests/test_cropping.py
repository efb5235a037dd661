"""Faces cut from videos: from the nearest frame, of the right box, by each protocol; no file is left half."""

from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from tiny import BOXES, CROP_SIZE, FPS, annotation_row, brightness, tiny_frame
from videos import encode

from core.formats import ava
from core.formats.crop_store import Crops
from core.media.container import MediaFile
from core.media.cropping import (
    OUTSIDE_GREY,
    box_crop,
    colour_crop,
    cut_crops,
    extract_crops,
    lower_face_crop,
    thumbnail,
    window_crop,
)
from core.media.video import Frame, read_frames
from core.runtime.errors import MediaError, UserError

FRAMES, SIZE = 50, 16
WIDTH, HEIGHT = 320, 240  # of frames for single crops


def tracks(times: dict[str, list[str]], video: str = "v", boxes=BOXES) -> pd.DataFrame:
    """Augmented rows of entities that stand in `tiny.BOXES`: entity id -> timestamps."""
    lines = [
        annotation_row(video, time, np.array(box) / (64, 48, 64, 48), "NOT_SPEAKING", entity).split(",")
        for (entity, texts), box in zip(times.items(), boxes, strict=False)
        for time in texts
    ]
    return ava.augment(pd.DataFrame(lines, columns=list(ava.COLUMNS)))


def grid(*numbers: int) -> list[str]:
    return [f"{number / FPS:.2f}" for number in numbers]


def number_of(pixels: np.ndarray, face: int) -> int:
    """The frame number that the brightness of a square shows; `pixels` (height, width, [r, g, b])."""
    mean = pixels[2:-2, 2:-2].mean()
    number = int(np.abs(mean - np.array([brightness(number, face) for number in range(FRAMES)])).argmin())
    assert abs(mean - brightness(number, face)) < 2, "not the square of this face"
    return number


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)


def cut(video: Path, rows: pd.DataFrame, size: int = SIZE) -> dict[tuple[str, str], np.ndarray]:
    """Crops by their keys."""
    keys = list(zip(rows["entity_id"], rows["frame_timestamp"], strict=True))
    return {keys[row]: decoded(jpeg) for row, jpeg in cut_crops(MediaFile(video), rows, size)}


def numbers(crops: dict[tuple[str, str], np.ndarray]) -> list[int]:
    """The frames that crops are from."""
    return [number_of(pixels, int(entity[-1]) - 1) for (entity, _), pixels in crops.items()]


def encode_at(path: Path, times_s: list[float] | np.ndarray, **options) -> Path:
    """`tiny.tiny_frame` frames at given container times, a key frame every 12."""
    return encode(path, map(tiny_frame, range(len(times_s))), times_s, crf="1", g="12", **options)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """50 frames at 25 fps whose squares show their number, hardly compressed."""
    return encode_at(tmp_path_factory.mktemp("video") / "v.mp4", np.arange(FRAMES) / FPS)


def test_every_row_gets_its_own_frame_and_box(video):
    rows = tracks({"v:1": grid(*range(FRAMES)), "v:2": grid(*range(3, 47, 4)), "v:3": grid(49, 0, 20)})
    crops = cut(video, rows)
    assert len(crops) == len(rows)
    assert {pixels.shape for pixels in crops.values()} == {(SIZE, SIZE, 3)}
    assert numbers(crops) == [round(float(timestamp) * FPS) for _, timestamp in crops]


OVER_THE_EDGE = ((-20, -15, 20, 30), (44, 15, 90, 70))


@pytest.mark.parametrize(
    ("boxes", "shapes"), [(BOXES, [(24, 20), (24, 20), (30, 20)]), (OVER_THE_EDGE, [(30, 20), (33, 20)])]
)
def test_the_native_size_is_the_part_of_the_box_in_the_frame(video, boxes, shapes):
    rows = tracks({"v:1": grid(5), "v:2": grid(5), "v:3": grid(5)}, boxes=boxes)
    assert [pixels.shape[:2] for pixels in cut(video, rows, size=0).values()] == shapes


def test_rows_are_cut_in_order_of_time(video):
    rows = tracks({"v:2": grid(30, 10), "v:1": grid(20, 40)})
    order = [row for row, _ in cut_crops(MediaFile(video), rows, SIZE)]
    assert rows["frame_timestamp"].iloc[order].tolist() == grid(10, 20, 30, 40)


@pytest.mark.parametrize(
    ("timestamp", "number"),
    [("0.39", 10), ("0.4199", 10), ("0.4201", 11), ("0.441", 11), ("1.9799", 49), ("2.01", 49), ("0.001", 0)],
)
def test_between_two_frames_the_nearer_one_is_taken(video, timestamp, number):
    assert numbers(cut(video, tracks({"v:1": [timestamp]}))) == [number]


def test_rows_of_one_frame_share_it_whatever_their_number(video):
    """Three annotations nearest one frame, then none for a second: nothing is off by one afterwards."""
    rows = tracks({"v:1": ["0.39", "0.40", "0.41", "1.60"], "v:2": ["0.40", "1.61"]})
    assert numbers(cut(video, rows)) == [10, 10, 10, 10, 40, 40]


def test_a_face_of_less_than_a_pixel_gives_a_crop(video):
    (pixels,) = cut(video, tracks({"v:1": grid(5)}, boxes=((10.2, 20.2, 10.4, 20.4),))).values()
    np.testing.assert_allclose(pixels, np.full((SIZE, SIZE, 3), brightness(5, face=0)), atol=2)


@pytest.mark.parametrize("times", [{"v:1": grid(10), "v:2": ["1.96", "2.10"]}, {"v:2": ["2.10"]}, {"v:2": ["900.00"]}])
def test_a_time_beyond_the_end_is_refused(video, times):
    rows = tracks(times)
    with pytest.raises(MediaError, match=r"v\.mp4.* ends at 1\.96 s.*v:2.* (2\.1|900\.0)0"):
        cut(video, rows)


def test_a_time_before_the_beginning_is_refused(tmp_path):
    """Audio from 0 on, video from 0.6 s on: a row at 0.2 s has no frame."""
    silence = np.zeros(16_000, np.int16)
    path = encode_at(tmp_path / "late.mkv", 0.6 + np.arange(20) / FPS, audio=silence, audio_codec="pcm_s16le")
    with pytest.raises(MediaError, match=r"late\.mkv.* begins at 0\.60 s.*v:1.* 0\.20"):
        cut(path, tracks({"v:1": ["0.20", "0.80"]}))


def test_variable_frame_intervals_give_the_frame_nearest_in_time(tmp_path):
    times = np.cumsum([0, 40, 30, 600, 20, 33, 300, 40, 40]) / 1000
    path = encode_at(tmp_path / "vfr.mkv", times)
    asked = [f"{time_s:.2f}" for time_s in np.arange(0, 1.1, 0.04)]
    for (_, timestamp), pixels in cut(path, tracks({"v:1": asked})).items():
        distance = np.abs(times - float(timestamp))
        found = number_of(pixels, 0)
        assert distance[found] <= distance.min() + 1e-3, (timestamp, found)


@pytest.mark.parametrize(
    ("name", "size"),
    [("variable-frame-rate.mp4", (480, 480)), ("fps-29.97.mp4", (512, 512)), ("rotation-90-metadata.mp4", (512, 512))],
)
def test_crops_of_real_unusual_files_come_from_the_nearest_displayed_frame(unusual, name, size):
    path = unusual / name
    frames = [(frame.time_s, frame.rgb()) for frame in read_frames(MediaFile(path))]
    times = np.array([time_s for time_s, _ in frames])
    box = np.array((0.25, 0.1, 0.75, 0.5)) * (64, 48, 64, 48)
    asked = [f"{time_s:.2f}" for time_s in np.arange(1.0, 3.0, 0.12)]
    for (_, timestamp), pixels in cut(path, tracks({"v:1": asked}, boxes=(box,)), size=0).items():
        shown = frames[int(np.abs(times - float(timestamp)).argmin())][1]
        assert shown.shape[:2] == size
        height, width = size
        expected = shown[int(0.1 * height) : int(0.5 * height), int(0.25 * width) : int(0.75 * width)]
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(np.int16) - expected).mean() < 4  # JPEG


# Interrupts and full disks


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return tracks({"v:1": [*grid(*range(5, 15)), "0.9"], "v:2": grid(3, 4), "v:3": grid(40)})


@pytest.mark.parametrize("layout", ["packed", "folders"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), MediaError("decoding fails")])
def test_an_end_in_the_middle_leaves_whole_files_and_the_next_run_completes(
    video, rows, tmp_path, monkeypatch, layout, error
):
    def ends_midway(*arguments):
        for position, frame in enumerate(read_frames(*arguments)):
            if position == 8:
                raise error
            yield frame

    with monkeypatch.context() as patch:
        patch.setattr("core.media.cropping.read_frames", ends_midway)
        with pytest.raises(type(error)):
            extract_crops(MediaFile(video), rows, tmp_path, SIZE, layout)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert bool(left) == (layout == "folders")
    assert all(path.suffix == ".jpg" and decoded(path.read_bytes()).shape == (SIZE, SIZE, 3) for path in left)
    extract_crops(MediaFile(video), rows, tmp_path, SIZE, layout)
    crops = Crops(tmp_path, rows)
    assert all(crops.decode(row).shape == (SIZE, SIZE, 3) for row in range(len(rows)))


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write into")
@pytest.mark.parametrize("layout", ["packed", "folders"])
def test_a_folder_that_takes_no_files_is_a_users_mistake(video, rows, layout):
    with pytest.raises(UserError, match="/proc"):
        extract_crops(MediaFile(video), rows, "/proc", SIZE, layout)


def test_truncated_real_video_leaves_no_crops(unusual, tmp_path):
    path = unusual / "truncated-middle.mp4"
    with pytest.raises(MediaError, match="truncated-middle"):
        extract_crops(MediaFile(path), tracks({"v:1": grid(*range(0, 150, 10))}), tmp_path, SIZE)
    assert list(tmp_path.iterdir()) == []
    good_part = tracks({"v:1": grid(*range(0, 70, 10))})
    extract_crops(MediaFile(path), good_part, tmp_path, SIZE)
    assert [path.name for path in tmp_path.iterdir()] == ["v.arrow"]


def test_prepared_crops_agree_with_their_csv(prepared):
    for split in ava.SPLITS:
        rows = ava.read_augmented(prepared / "csv" / f"{split}.csv")
        crops = Crops(prepared / "crops" / split, rows)
        for row in range(0, len(rows), 7):
            face = int(rows["entity_id"][row][-1]) - 1
            assert number_of(crops.decode(row, CROP_SIZE), face) == round(rows["time_s"][row] * FPS)


# One crop by each protocol, from frames with pixels that show where they come from


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


@pytest.mark.parametrize("x", [20.0, 20.5, 21.0])
def test_a_window_lies_between_pixels_too(x):
    """Of a ramp of half a value a pixel, whose value at the pixel that begins at x is x / 2; to a value."""
    pixels = window_crop(ramp(), np.array([x + 8, 24.0]), (16, 8), (16, 8)).astype(float)
    np.testing.assert_allclose(pixels.mean(axis=(0, 2)), (x + np.arange(16)) / 2, atol=1.1)


def test_a_window_is_black_beside_the_frame_and_scaled():
    frame = frame_of(np.full((HEIGHT, WIDTH), 200.0))
    pixels = window_crop(frame, np.array([0.0, 0.0]), (20, 20), (40, 40))
    assert pixels.shape == (40, 40, 3)
    assert pixels[24:, 24:].min() > 190
    assert pixels[:16].max() < 5
    assert pixels[:, :16].max() < 5


def test_a_box_is_cut_as_it_is_within_the_frame():
    assert box_crop(ramp(), np.array([100, 50, 212, 162]))[0] == pytest.approx(np.arange(100, 212) / 2, abs=1.5)
    over_the_edge = box_crop(ramp(), np.array([-56, -10, 112, 60]))
    np.testing.assert_array_equal(over_the_edge, cv2.resize(ramp().grey_region(0, 0, 112, 60), (112, 112)))
    assert box_crop(ramp(), np.array([400, 300, 500, 400])).shape == (112, 112)  # outside: one pixel, enlarged


def test_the_lower_face_is_the_middle_of_the_published_square():
    """The published steps: a padded square, scaled to 224 x 224, of which the middle 112 x 112 is the input."""
    grey = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8)).astype(np.uint8)
    frame = frame_of(cv2.resize(grey, (WIDTH, HEIGHT)))
    box = np.array([120.0, 60.0, 200.0, 160.0])
    half, scale = 50.0, 0.4
    x, y = 160.0, 110.0
    pad = int(half * (1 + 2 * scale))
    padded = np.pad(frame.grey_region(0, 0, WIDTH, HEIGHT), pad, constant_values=OUTSIDE_GREY)
    top, bottom = int(y + pad - half), int(y + pad + half * (1 + 2 * scale))
    left, right = int(x + pad - half * (1 + scale)), int(x + pad + half * (1 + scale))
    published = cv2.resize(padded[top:bottom, left:right], (224, 224))[56:168, 56:168]
    found = lower_face_crop(frame, box)
    assert np.abs(found.astype(int) - published).mean() < 3  # edges are rounded to other pixels


def test_outside_the_frame_the_lower_face_is_grey():
    frame = frame_of(np.zeros((HEIGHT, WIDTH)))
    crop = lower_face_crop(frame, np.array([-40.0, 100.0, 40.0, 200.0]))
    assert (crop[:, :50] == OUTSIDE_GREY).all()
    assert (crop[:, 60:] == 0).all()
    below = lower_face_crop(frame, np.array([100.0, 150.0, 200.0, 250.0]))
    assert (below[:40] == 0).all()
    assert (below[-10:] == OUTSIDE_GREY).all()


def test_colour_and_thumbnail_keep_red_red():
    red = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    red[..., 0] = 200
    frame = Frame(0.0, av.VideoFrame.from_ndarray(red, format="rgb24").reformat(format="yuv420p"))
    box = np.array([10, 10, 60, 60])
    for crop, side in ((colour_crop(frame, box), 144), (decoded(thumbnail(frame, box)), 72)):
        assert crop.shape == (side, side, 3)
        assert crop.reshape(-1, 3).mean(0) == pytest.approx([200, 0, 0], abs=4)


def test_a_thumbnail_of_a_face_as_large_as_the_frame():
    assert decoded(thumbnail(ramp(), np.array([-100.0, -100.0, 500.0, 500.0]))).shape == (72, 72, 3)


@pytest.mark.parametrize("pixel_format", ["yuv444p", "yuvj420p", "rgb24", "gray", "yuv420p10le"])
def test_grey_of_other_pixel_formats(pixel_format):
    grey = np.tile(np.arange(WIDTH) / 2, (HEIGHT, 1)).astype(np.uint8)
    raw = av.VideoFrame.from_ndarray(np.repeat(grey[..., None], 3, axis=2), format="rgb24")
    region = Frame(0.0, raw.reformat(format=pixel_format)).grey_region(100, 20, 140, 24)
    assert region.shape == (4, 40)
    assert region[0] == pytest.approx(grey[0, 100:140], abs=3)


def test_a_rotated_video_is_cut_as_displayed(unusual):
    frame = next(read_frames(MediaFile(unusual / "rotation-90-metadata.mp4")))
    assert (frame.width, frame.height) == frame.bgr().shape[1::-1]
    whole = cv2.cvtColor(frame.bgr(), cv2.COLOR_BGR2GRAY)
    part = frame.grey_region(40, 60, 140, 100)
    assert part.shape == (40, 100)
    assert np.abs(part.astype(int) - whole[60:100, 40:140]).mean() < 4
    small = frame.scaled_bgr(100)
    assert max(small.shape) == 100
    assert small.shape[0] / small.shape[1] == pytest.approx(frame.height / frame.width, rel=0.05)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuvj420p", "yuv444p"])
@pytest.mark.parametrize(("width", "height"), [(320, 240), (321, 239), (64, 48), (640, 3), (3, 640)])
def test_a_frame_is_halved_until_it_is_small_enough(pixel_format, width, height):
    x, y = np.meshgrid(np.linspace(40, 200, width), np.linspace(40, 200, height))
    pixels = np.stack([x, y, 240 - x], axis=2).astype(np.uint8)
    frame = Frame(0.0, av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pixel_format))
    small = frame.halved_bgr(80)
    assert max(small.shape) <= 80
    expected = cv2.resize(pixels[:, :, ::-1], small.shape[1::-1], interpolation=cv2.INTER_AREA)
    if min(width, height) > 3:
        assert np.abs(small.astype(int) - expected).mean() < 6
    if max(width, height) <= 80:
        assert small.shape == (height, width, 3)
