"""Face crops on disk: stored packed (Arrow) or in folders of JPEG files, read back by row.

Packed: one `<video_id>.arrow` (Arrow IPC file), rows sorted by entity then time: entity_id, frame_timestamp (text),
jpeg (bytes).

Folders: `<entity_id>/` or `<video_id>/<entity_id>/`, whichever is there, with a file for each row, which is named by
its time: as the csv writes it (ours), as Python prints the number (fuankarion/active-speakers-context: 0.2.jpg at
"0.20"), or with two decimals (TalkNet, Light-ASD, LR-ASD, LoCoNet, WASD, UniTalk: 0.20.jpg at "0.2").
"""

import os
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from core.clip_utils import run_lengths
from core.formats import ava
from core.formats.arrow_file import is_text, open_arrow
from core.formats.official_csv import BOX_COLUMNS, key_text
from core.runtime import elsewhere
from core.runtime.errors import MediaError, UserError
from core.runtime.files import atomic_write, first_existing
from core.runtime.provenance import Files, Record, check_outputs, read_record

LAYOUTS = ("packed", "folders")
NAMINGS = (str, lambda text: str(float(text)), lambda text: f"{float(text):.2f}")  # of a crop, by its timestamp's text
CROP_SUFFIX = ".jpg"
ROWS_PER_BATCH = 4096
MOST_PIXELS = 7680 * 4320  # of a crop, those of a whole frame of 8K video: what claims more is not decoded
COLUMNS = {"entity_id": is_text, "frame_timestamp": is_text, "jpeg": pa.types.is_binary}
SCHEMA = pa.schema(
    [("entity_id", pa.dictionary(pa.int32(), pa.string())), ("frame_timestamp", pa.string()), ("jpeg", pa.binary())]
)


STEP = "face crops"  # of the records in a folder of crops (core.runtime.provenance)


def fingerprint_of_boxes(rows: pd.DataFrame) -> str:
    """SHA-256 of what crops are cut by: the rows' keys and boxes, as text."""
    return ava.digest(rows, ["entity_id", "frame_timestamp", *BOX_COLUMNS])


def rows_to_cut(rows: pd.DataFrame, record: Record, layout: str) -> tuple[pd.DataFrame, list[str]]:
    """A video's rows whose crops are to be cut, and the files to write, below the record's folder.

    In folders, crops that others cut stay, by whatever naming; packed, it is all rows or none.
    """
    if layout == "packed":
        missing = record.missing([f"{rows['video_id'].iloc[0]}.arrow"])
        return rows if missing else rows[:0], missing
    there = CropFolders(record.folder, rows)
    others = [there.there[row] and there.name(row) not in record.written for row in range(len(rows))]
    rows = rows[~np.array(others)]
    names = dict(zip(rows.index, (str(crop_path(record.folder, row)) for row in rows.itertuples()), strict=True))
    missing = record.missing(names.values())
    wanted = set(missing)
    return rows[[names[row] in wanted for row in rows.index]], missing


def crop_path(folder: Path, row: Any) -> Path:
    """Where the crop of a row is written in folders, below `folder`: that of the entity, wherever it is already."""
    return _entity_folder(folder, row.video_id, row.entity_id) / (row.frame_timestamp + CROP_SUFFIX)


def _entity_folder(folder: Path, video_id: str, entity_id: str) -> Path:
    """Where the crops of an entity are, or are to be, below `folder`."""
    return first_existing(folder / video_id / entity_id, folder / entity_id).relative_to(folder)


def check_names(folder: Path, rows: pd.DataFrame) -> None:
    """See that videos have crops, by a look at the names in their folder alone.

    Raises:
        UserError: some have none.
    """
    names = set(os.listdir(_there(folder)))
    keys = rows[["video_id", "entity_id"]].drop_duplicates()
    videos = keys["video_id"].unique()
    lacking = [video for video in videos if f"{video}.arrow" not in names]
    if len(lacking) == len(videos):
        with_folder = keys["entity_id"].isin(names) | keys["video_id"].isin(names)
        lacking = sorted(set(lacking) - set(keys["video_id"][with_folder]))
    if lacking:
        raise _no_crops(lacking, folder)


def check_boxes(folder: Path, rows: pd.DataFrame) -> dict[str, Any] | None:
    """The record of a video's crops, after a check that they were cut by these rows; None where there is no record.

    Raises:
        UserError: they were cut by others.
    """
    video_id = rows["video_id"].iloc[0]
    record = read_record(folder, video_id)
    if record is not None and record["made_of"].get("boxes") != fingerprint_of_boxes(rows):
        raise UserError(
            f"the crops of video {video_id} in {folder} were cut by other annotations (times or boxes): "
            "run data/extract_face_crops_time.py again with the csv that is used here"
        )
    return record


class Crops:
    """Reads the crops of one split, packed or in folders, by row number of its annotation table.

    Args:
        folder: `video_dir/<split>`; packed crops that are elsewhere are fetched.
        rows: the split's annotations, sorted by video, entity and time.
        rows_without_crops: "refuse" rows that have no crop in folders, or "leave_out": then row numbers are those of
            `rows[there]`.

    Attributes:
        there: (row,) bool, the rows that have a crop.

    Raises:
        UserError: there are no crops, rows without one are to be refused, the keys of packed ones are not those of
            `rows`, or crops are not as they were written, or were cut by other boxes.
    """

    def __init__(self, folder: str | Path, rows: pd.DataFrame, rows_without_crops: str = "refuse"):
        self.folder = Path(folder)
        self._video = rows["video_id"].to_numpy()
        starts, lengths = run_lengths(self._video)
        videos = [rows.iloc[start : start + length] for start, length in zip(starts, lengths, strict=True)]
        self.packed = any(self._packed_file(video).is_file() for video in videos)
        _there(self.folder)
        if self.packed:
            chunks = [chunk for video in videos for chunk in self._open_packed(video)["jpeg"].chunks]
            self._jpegs = pa.chunked_array(chunks, pa.binary())  # mapped, not read
            self.there = np.ones(len(rows), bool)
        else:
            self._files = CropFolders(self.folder, rows)
            self.there = self._files.there
            self._check_there(rows, rows_without_crops)
        for video in videos:
            if record := check_boxes(self.folder, video):
                check_outputs(self.folder, video["video_id"].iloc[0], [*record["outputs"], *record["begun"]])
        self._rows = np.flatnonzero(self.there)
        kept = rows[self.there]
        self._entity, self._timestamp = kept["entity_id"].to_numpy(), kept["frame_timestamp"].to_numpy()

    def decode(self, row: int, size: int | None = None) -> np.ndarray:
        """One crop as (size, size, [r, g, b]) uint8; resized (bicubic) where it is stored at another size.

        Without a size it is (height, width, [r, g, b]), as stored.

        Raises:
            MediaError: the crop is absent, no JPEG, cut short or too large.
        """
        jpeg = self.jpeg(row)
        pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) if _is_jpeg(jpeg) else None
        if pixels is None:
            raise MediaError(
                f"crop of entity {self._entity[row]} at {self._timestamp[row]} s in {self.folder} is not a readable "
                "image; delete the file and extract its video again"
            )
        return pixels if size is None or pixels.shape[:2] == (size, size) else resize(pixels, size)

    def jpeg(self, row: int) -> bytes | pa.Buffer:
        """The stored bytes of one crop, without copying where it is packed."""
        number = int(self._rows[row])
        return self._jpegs[number].as_buffer() if self.packed else self._files.path(number).read_bytes()

    def sources(self, rows: slice) -> Files:
        """The stored crops of a video's rows, as something that features are made of."""
        numbers = self._rows[rows]
        video_id = self._video[numbers[0]]
        names = [f"{video_id}.arrow"] if self.packed else [self._files.name(number) for number in numbers]
        return Files(self.folder, names, video_id)

    def _check_there(self, rows: pd.DataFrame, rows_without_crops: str) -> None:
        without = sorted(set(rows["video_id"]) - set(rows["video_id"][self.there]))
        if without:
            raise _no_crops(without, self.folder)
        if rows_without_crops == "refuse" and not self.there.all():
            lacking = rows[~self.there]
            labels = ", ".join(f"{count:,} {label}" for label, count in lacking["label"].value_counts().items())
            raise UserError(
                f"{ava.examples(lacking, f'of {len(rows):,} rows have no crop in {self.folder}')}: {labels}. Cut what "
                "is missing with data/extract_face_crops_time.py --layout folders, or set "
                "STE_inputs['rows_without_crops'] to 'leave_out': without these rows, which every result then counts"
            )

    def _packed_file(self, rows: pd.DataFrame) -> Path:
        return elsewhere.bring(self.folder / f"{rows['video_id'].iloc[0]}.arrow")

    def _open_packed(self, rows: pd.DataFrame) -> pa.Table:
        """The packed crops of one video; checks that their keys are those of its rows."""
        path = self._packed_file(rows)
        if not path.is_file():
            raise _no_crops([path.stem], self.folder)
        table = _open_table(path)
        difference = _first_difference(table, rows)
        if difference is not None:
            raise UserError(
                f"{path} was cut for other annotations ({difference}); run data/extract_face_crops_time.py again "
                "with the csv that is used here"
            )
        return table


class CropFolders:
    """The JPEG files of rows.

    Args:
        folder: of the split.
        rows: annotations, rows of an entity contiguous.

    Attributes:
        there: (row,) bool, whether the row has a crop.

    Raises:
        UserError: one file is named after two rows.
    """

    def __init__(self, folder: Path, rows: pd.DataFrame):
        self._folder = folder
        self._entity, self._timestamp = rows["entity_id"].to_numpy(), rows["frame_timestamp"].to_numpy()
        self._naming = np.full(len(rows), -1, np.int8)  # index into NAMINGS: takes less memory than five million paths
        self._folders: dict[str, Path] = {}  # of an entity, below the folder
        video = rows["video_id"].to_numpy()
        for start, length in zip(*run_lengths(self._entity), strict=True):
            entity = self._entity[start]
            self._folders[entity] = _entity_folder(folder, video[start], entity)
            self._find(range(start, start + length))
        self.there = self._naming >= 0

    def path(self, row: int) -> Path:
        """The crop of a row that has one."""
        return self._folder / self.name(row)

    def name(self, row: int) -> str:
        """Its path below the folder."""
        return f"{self._folders[self._entity[row]]}/{self._name(row, self._naming[row])}"

    def _name(self, row: int, naming: int) -> str:
        return NAMINGS[naming](self._timestamp[row]) + CROP_SUFFIX

    def _find(self, rows: range) -> None:
        """See how the crops of an entity's rows are named."""
        folder = self._folder / self._folders[self._entity[rows.start]]
        if not folder.is_dir():
            return
        names, row_of = set(os.listdir(folder)), {}
        for row in rows:
            naming = next((n for n in range(len(NAMINGS)) if self._name(row, n) in names), -1)
            if naming >= 0 and (other := row_of.setdefault(self._name(row, naming), row)) != row:
                keys = [{"entity_id": self._entity[r], "frame_timestamp": self._timestamp[r]} for r in (other, row)]
                raise UserError(
                    f"{self.path(other)} could be the crop of {' and of '.join(map(key_text, keys))}: its name has "
                    "fewer digits than their timestamps; cut the crops with data/extract_face_crops_time.py"
                )
            self._naming[row] = naming


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """Bicubic with antialiasing, as the published loader's: (height, width, 3) -> (size, size, 3), both uint8.

    Equal to Pillow's, which that loader uses, within two grey levels, and four to nine times as fast.
    """
    import torch  # here, since a command's --help need not wait for it

    # A view, whose strides tell PyTorch that channels come last: else the result is copied. As
    # torchvision.transforms.v2.functional.resize, whose import takes as long as PyTorch's.
    planes = torch.from_numpy(np.ascontiguousarray(pixels)).view(1, *pixels.shape).permute(0, 3, 1, 2)
    planes = torch.nn.functional.interpolate(planes, (size, size), mode="bicubic", antialias=True)
    return planes[0].permute(1, 2, 0).contiguous().numpy()


def write_packed(path: Path, rows: pd.DataFrame, crops: Iterator[tuple[int, bytes]]) -> None:
    """Write a video's crops, sorted by entity, as they come by time; memory does not grow with their number.

    Args:
        path: of the Arrow file, written whole or not at all.
        rows: the video's annotations, sorted by entity and time.
        crops: (row number, JPEG) of every row, in any order.
    """
    offsets = np.zeros((len(rows), 2), np.int64)  # start and length of each row's bytes in the unnamed file
    with atomic_write(path) as temporary, tempfile.TemporaryFile(dir=path.parent) as spill:
        for row, jpeg in crops:
            offsets[row] = spill.tell(), len(jpeg)
            spill.write(jpeg)
        entity = pa.array(rows["entity_id"].to_numpy(), pa.string()).dictionary_encode()
        timestamp = pa.array(rows["frame_timestamp"].to_numpy(), pa.string())
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
            for start in range(0, len(rows), ROWS_PER_BATCH):
                part = slice(start, start + ROWS_PER_BATCH)
                jpegs = []
                for offset, length in offsets[part]:
                    spill.seek(offset)
                    jpegs.append(spill.read(length))
                columns = [entity[part], timestamp[part], pa.array(jpegs, pa.binary())]
                writer.write_batch(pa.record_batch(columns, schema=SCHEMA))


def _there(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"no crop folder {folder}: run data/extract_face_crops_time.py first")
    return folder


def _no_crops(videos: Sequence[str], folder: Path) -> UserError:
    return UserError(
        f"no crops of {len(videos):,} videos in {folder}, first video {videos[0]}: neither <video_id>.arrow nor "
        "folders <entity_id> or <video_id>/<entity_id>; run data/extract_face_crops_time.py"
    )


def _open_table(path: Path) -> pa.Table:
    return open_arrow(path, COLUMNS, "delete this file of crops and run data/extract_face_crops_time.py again")


def _is_jpeg(content: bytes | pa.Buffer) -> bool:
    """Whether bytes are a whole JPEG of at most `MOST_PIXELS`, by its end and its header.

    A decoder fills a missing end with grey, and takes memory for the size that the header claims.
    """
    view = memoryview(content).cast("B")
    if view[:2] != b"\xff\xd8" or view[-2:] != b"\xff\xd9":
        return False
    at = 2
    while at + 9 <= len(view) and view[at] == 0xFF:
        marker = view[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame header: precision, height, width
            height, width = struct.unpack(">HH", view[at + 5 : at + 9])
            return height * width <= MOST_PIXELS
        at += 1 if marker == 0xFF else 2 + int.from_bytes(view[at + 2 : at + 4], "big")  # a byte may be repeated
    return False


def _first_difference(table: pa.Table, rows: pd.DataFrame) -> str | None:
    """Where the keys of a stored table and of annotation rows differ, in words; None where they agree."""
    if table.num_rows != len(rows):
        return f"{table.num_rows} crops, {len(rows)} annotated faces"
    for name in ("entity_id", "frame_timestamp"):
        stored, wanted = table[name].to_numpy(), rows[name].to_numpy()
        differs = stored != wanted
        if differs.any():
            row = int(differs.argmax())
            return f"row {row} has {name} {stored[row]}, annotated is {wanted[row]}"
    return None
