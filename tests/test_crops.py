"""Crops are cut from the nearest frame, of the right box, and no file is left half."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from tiny import BOXES, CROP_SIZE, FPS, HEIGHT, WIDTH, annotation_row, brightness, picture

from core.formats import ava
from core.formats.crop_store import Crops, is_extracted
from core.media.cropping import cut_crops, extract_crops
from core.media.video import read_frames
from core.media.video_writer import write_video
from core.runtime.errors import MediaError, UserError

FRAMES = 50
SIZE = 16


def tracks(times: dict[str, list[str]], video: str = "v", boxes=BOXES) -> pd.DataFrame:
    """Augmented rows of entities that stand in `tiny.BOXES`: entity id -> timestamps."""
    lines = [
        annotation_row(video, time, np.array(box) / (WIDTH, HEIGHT, WIDTH, HEIGHT), "NOT_SPEAKING", entity).split(",")
        for (entity, texts), box in zip(times.items(), boxes, strict=False)
        for time in texts
    ]
    return ava.augment(pd.DataFrame(lines, columns=list(ava.COLUMNS)))


def grid(*numbers: int) -> list[str]:
    return [f"{number / FPS:.2f}" for number in numbers]


def number_of(pixels: np.ndarray, face: int) -> int:
    """The frame number that the brightness of a square tells; `pixels` (height, width, [r, g, b])."""
    mean = pixels[2:-2, 2:-2].mean()
    number = int(np.abs(mean - np.array([brightness(number, face) for number in range(FRAMES)])).argmin())
    assert abs(mean - brightness(number, face)) < 2, "not the square of this face"
    return number


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)


def cut(video: Path, rows: pd.DataFrame, size: int = SIZE) -> dict[tuple[str, str], np.ndarray]:
    """Cut crops by their keys."""
    keys = list(zip(rows["entity_id"], rows["frame_timestamp"], strict=True))
    return {keys[row]: decoded(jpeg) for row, jpeg in cut_crops(video, rows, size)}


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    """50 frames at 25 fps whose squares tell their number, hardly compressed."""
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    write_video(path, (picture(number) for number in range(FRAMES)), FPS, crf=1)
    return path


# Which frame, which part of it


def test_every_row_gets_its_own_frame_and_box(video):
    rows = tracks({"v:1": grid(*range(FRAMES)), "v:2": grid(*range(3, 47, 4)), "v:3": grid(49, 0, 20)})
    crops = cut(video, rows)
    assert len(crops) == len(rows)
    for (entity, timestamp), pixels in crops.items():
        face = int(entity[-1]) - 1
        assert pixels.shape == (SIZE, SIZE, 3)
        assert number_of(pixels, face) == round(float(timestamp) * FPS), (entity, timestamp)


def test_the_native_size_is_the_box_in_pixels(video):
    rows = tracks({"v:1": grid(5), "v:2": grid(5), "v:3": grid(5)})
    shapes = [pixels.shape[:2] for pixels in cut(video, rows, size=0).values()]
    assert shapes == [(y2 - y1, x2 - x1) for x1, y1, x2, y2 in BOXES]


def test_rows_are_cut_in_order_of_time(video):
    rows = tracks({"v:2": grid(30, 10), "v:1": grid(20, 40)})
    order = [row for row, _ in cut_crops(video, rows, SIZE)]
    assert rows["frame_timestamp"].iloc[order].tolist() == grid(10, 20, 30, 40)


@pytest.mark.parametrize(
    ("timestamp", "number"),
    [("0.39", 10), ("0.4199", 10), ("0.4201", 11), ("0.441", 11), ("1.9799", 49), ("2.01", 49), ("0.001", 0)],
)
def test_between_two_frames_the_nearer_one_is_taken(video, timestamp, number):
    (pixels,) = cut(video, tracks({"v:1": [timestamp]})).values()
    assert number_of(pixels, 0) == number


def test_rows_of_one_frame_share_it_whatever_their_number(video):
    """Three annotations nearest one frame, then none for a second: nothing is off by one afterwards."""
    rows = tracks({"v:1": ["0.39", "0.40", "0.41", "1.60"], "v:2": ["0.40", "1.61"]})
    numbers = {key: number_of(pixels, int(key[0][-1]) - 1) for key, pixels in cut(video, rows).items()}
    assert list(numbers.values()) == [10, 10, 10, 10, 40, 40]


def test_boxes_are_clamped_to_the_frame(video):
    over_the_edge = ((-20, -15, 20, 30), (44, 15, 90, 70))
    rows = tracks({"v:1": grid(5), "v:2": grid(5)}, boxes=over_the_edge)
    assert [pixels.shape for pixels in cut(video, rows, size=0).values()] == [(30, 20, 3), (33, 20, 3)]


def test_a_face_of_less_than_a_pixel_gives_a_crop(video):
    rows = tracks({"v:1": grid(5)}, boxes=((10.2, 20.2, 10.4, 20.4),))
    (pixels,) = cut(video, rows).values()
    assert pixels.shape == (SIZE, SIZE, 3)
    np.testing.assert_allclose(pixels, brightness(5, face=0), atol=2)


@pytest.mark.parametrize("times", [["1.96", "2.10"], ["2.10"], ["900.00"]])
def test_a_time_beyond_the_end_is_refused(video, times):
    rows = tracks({"v:1": grid(10) if len(times) > 1 else [], "v:2": times})
    with pytest.raises(MediaError, match=r"the picture ends at 1\.96 s, but entity v:2 is annotated at (2\.1|900\.0)0"):
        cut(video, rows)


def test_a_time_before_the_beginning_is_refused(tmp_path):
    """Sound from 0 on, picture from 0.6 s on: a row at 0.2 s has no frame."""
    path = _encode(tmp_path / "late.mkv", [0.6 + number / FPS for number in range(20)], sound=True)
    with pytest.raises(MediaError, match=r"the picture begins at 0\.60 s, but entity v:1 is annotated at 0\.20"):
        cut(path, tracks({"v:1": ["0.20", "0.80"]}))


def _encode(path: Path, times_s: list[float], sound: bool = False, codec: str = "libx264") -> Path:
    """`tiny.picture` frames at given container times, with silence from 0 on if asked for."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"crf": "1", "g": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        silence = container.add_stream("pcm_s16le", rate=16000, layout="mono") if sound else None
        packets = []
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        if silence is not None:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            packets += silence.encode(frame)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path


def test_variable_frame_intervals_give_the_frame_nearest_in_time(tmp_path):
    times = np.cumsum([0, 40, 30, 600, 20, 33, 300, 40, 40]) / 1000
    path = _encode(tmp_path / "vfr.mkv", times.tolist())
    asked = [f"{time_s:.2f}" for time_s in np.arange(0, 1.1, 0.04)]
    for (_, timestamp), pixels in cut(path, tracks({"v:1": asked})).items():
        distance = np.abs(times - float(timestamp))
        found = number_of(pixels, 0)
        assert distance[found] <= distance.min() + 1e-3, (timestamp, found)


@pytest.mark.parametrize("name", ["late.mkv", "late.ts", "late.mp4"])
def test_times_count_from_the_container_start(tmp_path, name):
    path = _encode(tmp_path / name, [100 + number / FPS for number in range(FRAMES)])
    rows = tracks({"v:1": grid(33, 34, 48), "v:2": grid(37)})  # begins between two key frames
    numbers = [number_of(pixels, int(key[0][-1]) - 1) for key, pixels in cut(path, rows).items()]
    assert numbers == [33, 34, 37, 48]


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
            extract_crops(video, rows, tmp_path, SIZE, layout)
    assert not is_extracted(rows, tmp_path, SIZE, layout)
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert bool(left) == (layout == "folders")
    assert all(path.suffix == ".jpg" and decoded(path.read_bytes()).shape == (SIZE, SIZE, 3) for path in left)
    extract_crops(video, rows, tmp_path, SIZE, layout)
    assert is_extracted(rows, tmp_path, SIZE, layout)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write into")
@pytest.mark.parametrize("layout", ["packed", "folders"])
def test_a_folder_that_takes_no_files_is_a_users_mistake(video, rows, layout):
    with pytest.raises(UserError, match="/proc"):
        extract_crops(video, rows, "/proc", SIZE, layout)


# Real crops


@pytest.mark.parametrize(
    ("name", "size"),
    [("variable-frame-rate.mp4", (480, 480)), ("fps-29.97.mp4", (512, 512)), ("rotation-90-metadata.mp4", (512, 512))],
)
def test_crops_of_real_unusual_files_come_from_the_nearest_displayed_frame(shared, name, size):
    path = shared / "mini-ava" / "unusual" / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    frames = [(frame.time_s, frame.rgb()) for frame in read_frames(path)]
    times = np.array([time_s for time_s, _ in frames])
    box = np.array((0.25, 0.1, 0.75, 0.5)) * (WIDTH, HEIGHT, WIDTH, HEIGHT)
    asked = [f"{time_s:.2f}" for time_s in np.arange(1.0, 3.0, 0.12)]
    for (_, timestamp), pixels in cut(path, tracks({"v:1": asked}, boxes=(box,)), size=0).items():
        shown = frames[int(np.abs(times - float(timestamp)).argmin())][1]
        assert shown.shape[:2] == size
        height, width = size
        expected = shown[int(0.1 * height) : int(0.5 * height), int(0.25 * width) : int(0.75 * width)]
        assert pixels.shape == expected.shape
        assert np.abs(pixels.astype(np.int16) - expected).mean() < 4  # JPEG


def test_truncated_real_video_leaves_no_crops(shared, tmp_path):
    path = shared / "mini-ava" / "unusual" / "truncated-middle.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with pytest.raises(MediaError, match="truncated-middle"):
        extract_crops(path, tracks({"v:1": grid(*range(0, 150, 10))}), tmp_path, SIZE)
    assert list(tmp_path.iterdir()) == []
    extract_crops(path, tracks({"v:1": grid(*range(0, 70, 10))}), tmp_path, SIZE)  # its good part can be used
    assert [path.name for path in tmp_path.iterdir()] == ["v.arrow"]


def test_prepared_crops_agree_with_their_csv(prepared):
    for split in ava.SPLITS:
        rows = ava.read_augmented(prepared / "csv" / f"{split}.csv")
        crops = Crops(prepared / "crops" / split, rows)
        for row in range(0, len(rows), 7):
            face = int(rows["entity_id"][row][-1]) - 1
            assert number_of(crops.decode(row, CROP_SIZE), face) == round(rows["time_s"][row] * FPS)
