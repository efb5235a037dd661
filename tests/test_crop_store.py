"""Crops on disk: stored packed or in folders, read back by row; those that are damaged or of other rows are refused."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from tiny import annotated

from core.formats.crop_store import STEP, Crops, resize, rows_to_cut, write_packed
from core.runtime.errors import UserError
from core.runtime.provenance import Record

SIZE = 16
LAYOUTS = ("packed", "folders")


def annotations(times: dict[str, list[str]], video: str = "v") -> pd.DataFrame:
    """Rows of a video's entities: entity id -> timestamps."""
    return annotated((video, entity, time, "NOT_SPEAKING") for entity, texts in times.items() for time in texts)


def grey_of(row: int) -> int:
    return 10 + 9 * row


def jpeg_of(row: int, size: int = SIZE) -> bytes:
    """A crop of its row's grey; size 0 stands for a native size, 24 x 20."""
    shape = (size, size, 3) if size else (24, 20, 3)
    return cv2.imencode(".jpg", np.full(shape, grey_of(row), np.uint8))[1].tobytes()


def store(folder: Path, rows: pd.DataFrame, layout: str, size: int = SIZE) -> Path:
    """Write the crops of one video, last row first."""
    if layout == "packed":
        video = rows["video_id"].iloc[0]
        write_packed(folder / f"{video}.arrow", rows, ((n, jpeg_of(n, size)) for n in reversed(range(len(rows)))))
    else:
        for n, (entity, timestamp) in enumerate(zip(rows["entity_id"], rows["frame_timestamp"], strict=True)):
            (folder / entity).mkdir(parents=True, exist_ok=True)
            (folder / entity / f"{timestamp}.jpg").write_bytes(jpeg_of(n, size))
    return folder


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return annotations(
        {"v:1": [*(f"{n / 25:.2f}" for n in range(5, 15)), "0.9"], "v:2": ["0.12", "0.16"], "v:3": ["1.60"]}
    )


@pytest.fixture
def packed(rows, tmp_path) -> Path:
    return store(tmp_path / "packed", rows, "packed")


@pytest.fixture
def folders(rows, tmp_path) -> Path:
    return store(tmp_path / "folders", rows, "folders")


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [SIZE, 0])
def test_each_row_is_read_as_it_was_stored_and_resized(rows, tmp_path, layout, size):
    crops = Crops(store(tmp_path, rows, layout, size), rows)
    assert crops.packed == (layout == "packed")
    for row in range(len(rows)):
        assert bytes(crops.jpeg(row)) == jpeg_of(row, size)
        assert crops.decode(row).shape == ((SIZE, SIZE, 3) if size else (24, 20, 3))
        pixels = crops.decode(row, SIZE)
        assert (pixels.shape, pixels.dtype) == ((SIZE, SIZE, 3), np.uint8)
        np.testing.assert_allclose(pixels, grey_of(row), atol=1)


@pytest.mark.parametrize("name", ["entity_id", "frame_timestamp", "jpeg"])
@pytest.mark.parametrize("fault", ["absent", "number", "null"])
def test_a_packed_file_of_another_schema_is_refused(packed, rows, name, fault):
    table = pa.ipc.open_file(str(packed / "v.arrow")).read_all()
    at = table.column_names.index(name)
    columns = {"absent": None, "number": pa.array(range(len(rows))), "null": pa.nulls(len(rows), table[name].type)}
    table = table.remove_column(at) if columns[fault] is None else table.set_column(at, name, columns[fault])
    (packed / "v.arrow").unlink()  # a mapped file must not be cut
    with pa.ipc.new_file(str(packed / "v.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match=rf"v\.arrow .*{name}"):
        Crops(packed, rows)


def test_the_packed_file_is_as_documented(packed, rows):
    table = pa.ipc.open_file(str(packed / "v.arrow")).read_all()
    keys = table.select(["entity_id", "frame_timestamp"]).to_pandas()
    assert table.column_names == [*keys.columns, "jpeg"]
    assert keys.to_numpy().tolist() == rows[keys.columns].to_numpy().tolist()
    assert "0.9" in keys["frame_timestamp"].tolist()  # text stays


def test_many_batches_and_several_videos(tmp_path, monkeypatch):
    monkeypatch.setattr("core.formats.crop_store.ROWS_PER_BATCH", 3)
    times = [f"{n / 25:.2f}" for n in range(10)]
    parts = [annotations({f"{name}:1": times, f"{name}:2": ["0.80", "0.84"]}, name) for name in ("-u", "v")]
    for part in parts:
        store(tmp_path, part, "packed")
    crops = Crops(tmp_path, pd.concat(parts, ignore_index=True))
    for row in (13, 0, 23, 5, 11, 12, 2):
        assert bytes(crops.jpeg(row)) == jpeg_of(row % 12)


def test_resizing_is_that_of_the_published_loader():
    """PIL's bicubic and torchvision's antialiased bicubic on uint8 differ by rounding only, up and down."""
    rng = np.random.default_rng(0)
    for height, width in ((40, 30), (200, 150), (144, 144), (300, 20)):
        pixels = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3)).astype(np.uint8), (0, 0), 2)
        theirs = np.asarray(Image.fromarray(pixels).resize((144, 144), Image.Resampling.BICUBIC), np.int16)
        difference = np.abs(resize(pixels, 144).astype(np.int16) - theirs)
        assert difference.max() <= 2
        assert difference.mean() < 0.1


@pytest.mark.parametrize(
    ("naming", "in_videos", "there"),
    [("{}", False, "v:1/0.2.jpg"), ("{:.2f}", True, "v/v:1/0.90.jpg"), ("{:.2f}", False, "v:1/0.90.jpg")],
)
def test_crops_of_other_preparations_are_found(folders, rows, naming, in_videos, there):
    """Named by the number, 0.2.jpg for 0.20, or with two decimals, 0.90.jpg for 0.9; in folders of their videos."""
    for path in list(folders.rglob("*.jpg")):
        parent = folders / "v" / path.parent.name if in_videos else path.parent
        parent.mkdir(parents=True, exist_ok=True)
        path.rename(parent / f"{naming.format(float(path.stem))}.jpg")
    assert (folders / there).is_file()
    crops = Crops(folders, rows)
    assert [crops.jpeg(row) for row in range(len(rows))] == [jpeg_of(row) for row in range(len(rows))]
    assert not len(rows_to_cut(rows, Record(folders, "v", STEP, {}), "folders")[0])


def test_a_name_that_could_be_of_two_rows_is_refused(tmp_path):
    rows = annotations({"v:1": ["0.20", "0.204", "0.24"]})
    folder = store(tmp_path, rows, "folders")
    assert Crops(folder, rows).there.all()
    (folder / "v:1" / "0.204.jpg").unlink()
    with pytest.raises(UserError, match=r"v:1/0\.20\.jpg .*v:1 at 0\.20 s.*v:1 at 0\.204 s"):
        Crops(folder, rows)


def test_rows_without_crops_are_counted_or_left_out(folders, rows):
    (folders / "v:1" / "0.9.jpg").unlink()
    shutil.rmtree(folders / "v:2")
    lacking = r"3 of 13 rows have no crop in .*\(v:1 at 0\.9, v:2 at 0\.12, v:2 at 0\.16\): 3 NOT_SPEAKING"
    with pytest.raises(UserError, match=lacking.replace("13", str(len(rows)))):
        Crops(folders, rows)
    crops = Crops(folders, rows, "leave_out")
    kept = [row for row in range(len(rows)) if row not in (10, 11, 12)]
    assert np.flatnonzero(crops.there).tolist() == kept
    assert [crops.jpeg(row) for row in range(len(kept))] == [jpeg_of(row) for row in kept]
    to_cut, names = rows_to_cut(rows, Record(folders, "v", STEP, {}), "folders")
    assert (to_cut.index.tolist(), len(names)) == ([10, 11, 12], 3)
    both = pd.concat([rows, annotations({"w:1": ["0.04"]}, "w")], ignore_index=True)
    with pytest.raises(UserError, match=r"no crops of 1 videos in .* w: "):
        Crops(folders, both, "leave_out")


# ---------------------------------------------------------------- finished work


def test_an_interrupt_leaves_the_old_file(packed, rows):
    def ends():
        yield 0, jpeg_of(0)
        raise KeyboardInterrupt

    before = (packed / "v.arrow").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        write_packed(packed / "v.arrow", rows, ends())
    assert {path.name: path.read_bytes() for path in packed.iterdir()} == {"v.arrow": before}


# ---------------------------------------------------------------- crops that do not fit


@pytest.mark.parametrize(
    ("column", "old", "new", "facts"),
    [
        ("frame_timestamp", "0.9", "0.90", r"row 10 .*0\.9, .*0\.90"),
        ("entity_id", "v:2", "v:4", r"entity_id v:2, .*v:4\); run data/extract_face_crops_time"),
    ],
)
def test_crops_of_other_annotations_are_refused(packed, rows, column, old, new, facts):
    with pytest.raises(UserError, match=rf"v\.arrow.*{facts}"):
        Crops(packed, rows.assign(**{column: rows[column].str.replace(old, new)}))
    with pytest.raises(UserError, match=r"v\.arrow.*14 crops, 13 annotated faces"):
        Crops(packed, rows.iloc[:-1])


def test_absent_crops_are_named(packed, folders, rows, tmp_path):
    (tmp_path / "empty").mkdir()
    both = pd.concat([rows, annotations({"w:1": ["0.04"]}, "w")], ignore_index=True)
    for folder, of, facts in (
        (tmp_path / "none", rows, "none"),
        (tmp_path / "empty", rows, r"1 videos in .*, first video v: "),
        (packed, both, "video w"),
    ):
        with pytest.raises(UserError, match=rf"no crop.*{facts}"):
            Crops(folder, of)


def claiming(width: int, height: int) -> bytes:
    """A JPEG whose header claims another size."""
    jpeg = jpeg_of(0)
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[at + 4 :]


def test_a_jpeg_that_claims_a_huge_size_is_not_decoded(folders, rows, monkeypatch):
    """65500 x 65500 pixels would take 13 GB."""
    decoded = []
    monkeypatch.setattr(cv2, "imdecode", lambda content, flags: decoded.append(bytes(content)))
    for size in ((65500, 65500), (7681, 4320), (7680, 4320)):
        (folders / "v:3" / "1.60.jpg").write_bytes(claiming(*size))
        with pytest.raises(UserError, match=r"v:3 at 1\.60 s"):
            Crops(folders, rows).decode(len(rows) - 1)
    assert decoded == [claiming(7680, 4320)]


def test_an_absent_or_damaged_crop_is_named(folders, rows):
    crop = folders / "v:3" / "1.60.jpg"
    whole = jpeg_of(0)
    for content in (b"", b"no image", whole[:-2], whole[: len(whole) // 2] + whole[-2:], whole[:2] + whole[-2:]):
        crop.write_bytes(content)
        with pytest.raises(UserError, match=r"v:3 at 1\.60 s .*not a readable image"):
            Crops(folders, rows).decode(len(rows) - 1, SIZE)
    crop.unlink()
    with pytest.raises(UserError, match=r"1 of 14 rows .*v:3 at 1\.60"):
        Crops(folders, rows).decode(len(rows) - 1, SIZE)


def test_a_damaged_packed_file_is_named(packed, rows):
    whole = (packed / "v.arrow").read_bytes()
    shutil.rmtree(packed)  # a mapped file must not be cut
    packed.mkdir()
    for content in (b"", b"ARROW1 no more", whole[: len(whole) // 2]):
        (packed / "v.arrow").write_bytes(content)
        with pytest.raises(UserError, match=r"v\.arrow"):
            Crops(packed, rows)
