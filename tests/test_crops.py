"""Crops: from the nearest frame, of the right box, stored and read back in both layouts."""

import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from tiny import BOXES, CROP_SIZE, FPS, HEIGHT, WIDTH, annotation_row, brightness, picture

from core.formats import ava
from core.formats.crop_store import Crops, is_extracted, resize
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


# Storing and reading


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return tracks({"v:1": [*grid(*range(5, 15)), "0.9"], "v:2": grid(3, 4), "v:3": grid(40)})


@pytest.fixture(scope="module")
def packed(video, rows, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("packed")
    extract_crops(video, rows, out, SIZE)
    return out


@pytest.fixture(scope="module")
def folders(video, rows, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("folders")
    extract_crops(video, rows, out, SIZE, "folders")
    return out


def test_packed_files_and_folders_hold_the_same_bytes(packed, folders, rows):
    assert [path.name for path in packed.iterdir()] == ["v.arrow"]
    assert sorted(path.name for path in folders.iterdir()) == ["v:1", "v:2", "v:3"]
    assert sorted(path.name for path in (folders / "v:2").iterdir()) == ["0.12.jpg", "0.16.jpg"]
    of_folders, of_file = Crops(folders, rows), Crops(packed, rows)
    assert (of_folders.packed, of_file.packed) == (False, True)
    for row in range(len(rows)):
        assert bytes(of_folders.jpeg(row)) == bytes(of_file.jpeg(row))
        np.testing.assert_array_equal(of_folders.decode(row, SIZE), of_file.decode(row, SIZE))


def test_the_packed_file_is_as_documented(packed, rows):
    table = pa.ipc.open_file(str(packed / "v.arrow")).read_all()
    assert table.column_names == ["entity_id", "frame_timestamp", "jpeg"]
    assert table["entity_id"].to_pylist() == rows["entity_id"].tolist()
    assert table["frame_timestamp"].to_pylist() == rows["frame_timestamp"].tolist()  # text: "0.9" stays
    assert "0.9" in table["frame_timestamp"].to_pylist()


def test_a_row_is_read_as_it_was_cut(packed, rows):
    crops = Crops(packed, rows)
    for row, (entity, time_s) in enumerate(zip(rows["entity_id"], rows["time_s"], strict=True)):
        pixels = crops.decode(row, SIZE)
        assert (pixels.shape, pixels.dtype) == ((SIZE, SIZE, 3), np.uint8)
        number = 22 if time_s == 0.9 else round(time_s * FPS)  # of two frames as near as each other, the earlier
        assert number_of(pixels, int(entity[-1]) - 1) == number


def test_many_batches_and_several_videos(video, tmp_path, monkeypatch):
    """Rows are found across Arrow batches and files."""
    monkeypatch.setattr("core.formats.crop_store.ROWS_PER_BATCH", 3)
    parts = [tracks({f"{name}:1": grid(*range(10)), f"{name}:2": grid(20, 21)}, name) for name in ("-u", "v")]
    for part in parts:
        extract_crops(video, part, tmp_path, SIZE)
    rows = pd.concat(parts, ignore_index=True)
    crops = Crops(tmp_path, rows)
    crops.decode(0, SIZE)
    for row in (13, 0, 23, 5, 11, 12, 2):
        face = int(rows["entity_id"][row][-1]) - 1
        assert number_of(crops.decode(row, SIZE), face) == round(rows["time_s"][row] * FPS)


@pytest.mark.parametrize("layout", ["packed", "folders"])
def test_native_size_is_resized_on_reading(video, rows, tmp_path, layout):
    extract_crops(video, rows, tmp_path, 0, layout)
    crops = Crops(tmp_path, rows)
    stored = decoded(crops.jpeg(0))
    assert stored.shape == (24, 20, 3)
    np.testing.assert_array_equal(crops.decode(0, SIZE), resize(stored, SIZE))
    assert crops.decode(0, 48).shape == (48, 48, 3)


def test_published_folder_names_are_found(folders, rows, tmp_path):
    """The published preparation names a file by the number: 0.2.jpg for 0.20; ours by the text. Both are read."""
    shutil.copytree(folders, tmp_path / "crops")
    for path in (tmp_path / "crops").rglob("*.jpg"):
        path.rename(path.with_name(f"{float(path.stem)}.jpg"))
    assert (tmp_path / "crops" / "v:1" / "0.2.jpg").is_file()
    ours, published = Crops(folders, rows), Crops(tmp_path / "crops", rows)
    for row in range(len(rows)):
        assert ours.jpeg(row) == published.jpeg(row)


def test_is_extracted(packed, folders, rows, tmp_path):
    assert is_extracted(rows, packed, SIZE, "packed")
    assert is_extracted(rows, folders, SIZE, "folders")
    assert not is_extracted(rows, packed, SIZE + 1, "packed")
    assert not is_extracted(rows.iloc[:-1], packed, SIZE, "packed")
    assert not is_extracted(rows, tmp_path, SIZE, "packed")
    shutil.copytree(folders, tmp_path / "crops")
    (tmp_path / "crops" / "v:2" / "0.12.jpg").unlink()
    assert not is_extracted(rows, tmp_path / "crops", SIZE, "folders")


# Crops that do not fit


def test_crops_of_other_annotations_are_refused(packed, rows):
    with pytest.raises(UserError, match=r"v\.arrow was cut for other annotations \(14 crops, 13 annotated faces\)"):
        Crops(packed, rows.iloc[:-1])
    other_text = rows.assign(frame_timestamp=rows["frame_timestamp"].str.replace("0.9", "0.90"))
    with pytest.raises(UserError, match=r"row 10 has frame_timestamp 0\.9, annotated is 0\.90"):
        Crops(packed, other_text)
    other_entity = rows.assign(entity_id=rows["entity_id"].str.replace("v:2", "v:4"))
    with pytest.raises(UserError, match=r"has entity_id v:2, annotated is v:4\); run data/extract_face_crops_time"):
        Crops(packed, other_entity)


def test_absent_crops_are_named(packed, folders, rows, tmp_path):
    with pytest.raises(UserError, match=r"no crop folder .*absent"):
        Crops(tmp_path / "absent", rows)
    with pytest.raises(UserError, match=r"no crops of entity v:1 \(video v\)"):
        Crops(tmp_path, rows)
    both = pd.concat([rows, tracks({"w:1": grid(1)}, "w")], ignore_index=True)
    with pytest.raises(UserError, match="no crops of video w"):
        Crops(packed, both)
    shutil.copytree(folders, tmp_path / "crops")
    (tmp_path / "crops" / "v:3" / "1.60.jpg").unlink()
    with pytest.raises(UserError, match=r"no crop .*v:3/1\.60\.jpg"):
        Crops(tmp_path / "crops", rows).decode(len(rows) - 1, SIZE)


@pytest.mark.parametrize("content", [b"", b"no picture"])
def test_a_crop_that_is_no_picture_is_named(folders, rows, tmp_path, content):
    shutil.copytree(folders, tmp_path / "crops")
    (tmp_path / "crops" / "v:3" / "1.60.jpg").write_bytes(content)
    with pytest.raises(UserError, match=r"crop of entity v:3 at 1\.60 s .* is not a readable image"):
        Crops(tmp_path / "crops", rows).decode(len(rows) - 1, SIZE)


@pytest.mark.parametrize("content", [b"", b"ARROW1 no more"])
def test_a_packed_file_that_is_broken_is_named(rows, tmp_path, content):
    (tmp_path / "v.arrow").write_bytes(content)
    with pytest.raises(UserError, match=r"v\.arrow is not a crop file .* delete it"):
        Crops(tmp_path, rows)


def test_a_packed_file_cut_in_the_middle_is_named(packed, rows, tmp_path):
    whole = (packed / "v.arrow").read_bytes()
    (tmp_path / "v.arrow").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"v\.arrow is not a crop file"):
        Crops(tmp_path, rows)


# Interrupts and full disks


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


def test_an_old_file_stays_until_the_new_one_is_whole(video, packed, rows, tmp_path, monkeypatch):
    shutil.copy(packed / "v.arrow", tmp_path)
    before = (tmp_path / "v.arrow").read_bytes()

    def ends(*arguments):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("core.media.cropping.read_frames", ends)
    with pytest.raises(KeyboardInterrupt):
        extract_crops(video, rows, tmp_path, 8)
    assert (tmp_path / "v.arrow").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["v.arrow"]


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody can write into")
@pytest.mark.parametrize("layout", ["packed", "folders"])
def test_a_folder_that_takes_no_files_is_a_users_mistake(video, rows, layout):
    with pytest.raises(UserError, match="/proc"):
        extract_crops(video, rows, "/proc", SIZE, layout)


# Published and real crops


def test_resizing_is_that_of_the_published_loader():
    """PIL's bicubic and torchvision's antialiased bicubic on uint8 differ by rounding only, up and down."""
    rng = np.random.default_rng(0)
    for height, width in ((40, 30), (200, 150), (144, 144), (300, 20)):
        pixels = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), (0, 0), 2)
        theirs = np.asarray(Image.fromarray(pixels).resize((144, 144), Image.Resampling.BICUBIC), np.int16)
        difference = np.abs(resize(pixels, 144).astype(np.int16) - theirs)
        assert difference.max() <= 2
        assert difference.mean() < 0.1


def test_published_clip_frames(shared):
    """Every frame of the published loader's clips, from the published folders."""
    folder = shared / "reference"
    if not (folder / "clips.npz").is_file():
        pytest.skip(f"{folder / 'clips.npz'} is absent")
    arrays = np.load(folder / "clips.npz")
    example = folder / "clip_example" / "crops"
    for name, clip in json.loads((folder / "clips.json").read_text()).items():
        entity = name.rsplit("_", 1)[0]
        # Timestamps as AVA has them, with two decimals; the published files are named by the number.
        texts = sorted({f"{float(text):.2f}" for text in clip["timestamps"]}, key=float)
        crops = Crops(example, tracks({entity: texts}))
        for text, black, expected in zip(
            clip["timestamps"], clip["black_frames"], arrays[f"{name}_video_u8"], strict=True
        ):
            row = texts.index(f"{float(text):.2f}")
            if black:  # two crops of "miss" are absent
                assert not expected.any()
                with pytest.raises(UserError, match="no crop"):
                    crops.decode(row, 144)
                continue
            difference = np.abs(crops.decode(row, 144).astype(np.int16) - expected)
            # JPEG decoders round differently, and bicubic overshoots where they do
            assert difference.max() <= 4, name
            assert difference.mean() < 0.5, name


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
