"""What all distributions share: rows in AVA's format, files that are read, and AVA layout written with links."""

import contextlib
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from core.formats import ava
from core.formats.official_csv import COLUMNS, NO_FILE_NAME
from core.media.video_files import find_video
from core.runtime.errors import MediaError, UserError
from core.runtime.files import atomic_write, make_folder
from core.runtime.provenance import Files, Record

ITEM = "import"  # names the record of a folder: it holds one data set
CATEGORIES = "categories.csv"
NOT_SPEAKING = next(label for label, number in ava.LABEL_IDS.items() if number == 0)


@dataclass(frozen=True)
class Distribution:
    """What of a data set goes into AVA layout.

    Attributes:
        files: what the annotations were read from.
        rows: split -> annotations with `COLUMNS`, all text.
        links: path in AVA layout -> the folder or file that is linked there.
        categories: video id -> the owners' category, in the order in which categories are reported.
        missing: video id -> why its video could not be used.
        notes: sentences on what is left out.
    """

    files: Files
    rows: Mapping[str, pd.DataFrame]
    links: Mapping[str, Path]
    categories: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def write_layout(distribution: Distribution, name: str, out: Path) -> None:
    """Write `annotations/<split>/<video_id>-activespeaker.csv` and `categories.csv`, and link videos, crops and audio.

    Raises:
        UserError: `out` holds another data set, or a file or link that is not of this import stands where one is to be
            written, or a row repeats the key of another.
    """
    tables = {}
    for split, rows in distribution.rows.items():
        again = rows[rows.duplicated(["entity_id", "frame_timestamp"])]
        if len(again):
            raise UserError(f"{distribution.files.folder}, {split}: {ava.examples(again, 'faces are there twice')}")
        of_video = rows.groupby("video_id", sort=True)
        tables |= {f"annotations/{split}/{video}{ava.ANNOTATION_SUFFIX}": table for video, table in of_video}
    made_of = {
        "files": distribution.files,
        "rows": {split: ava.digest(rows, COLUMNS) for split, rows in distribution.rows.items()},
        "categories": list(distribution.categories.items()),
    }
    record = Record(out, ITEM, f"import of {name}", made_of)
    missing = record.missing([*tables, *[CATEGORIES] * bool(distribution.categories)])
    for place, target in distribution.links.items():
        _check_link(out / place, target)
    if missing:
        with record.making(missing):
            for path in missing:
                if path in tables:
                    ava.write_groundtruth(out / path, tables[path])
                else:
                    _write_categories(out / path, distribution.categories)
    for place, target in distribution.links.items():
        make_folder((out / place).parent)
        if not (out / place).is_symlink():
            (out / place).symlink_to(target.resolve())


def _check_link(place: Path, target: Path) -> None:
    """Refuse what stands in the place of a link and is not that link."""
    there = place.is_symlink() or place.exists()
    if there and not (place.is_symlink() and place.resolve() == target.resolve()):
        raise UserError(
            f"{place} is there and is no link to {target}: move it away, or choose another folder to write to"
        )


def _write_categories(path: Path, categories: Mapping[str, str]) -> None:
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("video_id", "category"), *categories.items()])


def track_rows(
    video_id: str, entity_id: str, times: Sequence[str], boxes: np.ndarray, speaking: np.ndarray
) -> pd.DataFrame:
    """Rows of one face track, without those whose box is empty or lies outside the frame.

    Args:
        times: (row,) seconds, as text.
        boxes: (row, [x1, y1, x2, y2]) float64, fractions of the frame's width and height.
        speaking: (row,) bool.

    Raises:
        ValueError: a number is not finite, or an id cannot name a file.
    """
    if any(re.search(NO_FILE_NAME, name) for name in (video_id, entity_id)):
        raise ValueError(f"{entity_id!r} cannot be the name of a file")
    if not np.isfinite(boxes).all():
        raise ValueError(f"a box of {entity_id} has a number that is not finite")
    text = np.char.mod("%.6f", boxes)
    columns = [video_id, times, *text.T, np.where(speaking, ava.SPEAKING, NOT_SPEAKING), entity_id]
    rows = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)), dtype=object)
    x1, y1, x2, y2 = text.astype(np.float64).T  # as they are read again
    return rows[(x1 < x2) & (y1 < y2) & (x1 < 1) & (y1 < 1) & (x2 > 0) & (y2 > 0)]


@contextlib.contextmanager
def of_layout(path: Path, layout: str) -> Iterator[None]:
    """Whatever a file of another layout makes fail while it is read becomes one message."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is not {layout} ({type(error).__name__}: {error})") from error


def read_list(path: Path) -> list[str]:
    """The lines of a text file, without spaces around them and without empty ones.

    Raises:
        UserError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); expected a list, a line an entry") from error
    return [line.strip() for line in lines if line.strip()]


def folder_of(source: Path, *names: str, holds: str) -> Path:
    """The first of some folders that is there.

    Raises:
        UserError: none is; the message says what it should hold.
    """
    for name in names:
        if (source / name).is_dir():
            return source / name
    raise UserError(f"no folder {' or '.join(str(source / name) for name in names)}: expected {holds}")


def link_videos(splits: Mapping[str, Sequence[str]], folder: Path | None) -> tuple[dict[str, Path], dict[str, str]]:
    """Links of videos that are in a folder, and those that are not there: video id -> why.

    Args:
        splits: split -> video ids.
        folder: of `<video_id>.<extension>`; None where there is none.
    """
    links, missing = {}, {}
    for split, video_ids in splits.items():
        for video_id in video_ids:
            try:
                video = find_video(folder, video_id) if folder else None
            except MediaError as error:
                missing[video_id] = str(error)
            else:
                links |= {f"videos/{split}/{video.name}": video} if video else {}
    return links, missing


def videos_of(rows: Mapping[str, pd.DataFrame]) -> dict[str, list[str]]:
    """Split -> ids of its videos, sorted."""
    return {split: sorted(table["video_id"].unique()) for split, table in rows.items()}
