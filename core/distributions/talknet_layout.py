"""WASD and UniTalk: the layout of TalkNet's preparation, with crops and audio, and each set's own categories.

    SOURCE/csv/{train,val}_orig.csv                              a header; AVA's columns, label_id, instance_id
    SOURCE/clips_videos/{train,val}/<video_id>/<entity_id>/<time>.jpg
    SOURCE/clips_audios/{train,val}/<video_id>/<entity_id>.wav   clip_audio after WASD's convert_dataset.py

WASD (github.com/Tiago-Roxo/WASD at 0c49f29, 2026-07-23: README.md, create_dataset.py, convert_dataset.py) has its
videos in orig_videos/trainval/<video_id>.mp4 where they were prepared from the source. Its five categories stand clip
by clip in eval/wasd_metadata.csv of that repository, columns Video and Category, 0 to 4 (eval/README.md). They are
those of its evaluation but for one video, B068jfKfC8A: eval/dataset_division.txt counts all its clips in two
categories, the metadata each in one.

UniTalk (github.com/plnguyen2908/UniTalk-ASD-code at 4052d8f, 2025-05-19: README.md, download_dataset.py,
trim_dataset.py) lists the videos of each subset of its test set, there called val, in sub_categories/test_<subset>.csv.
"""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from core.distributions.importing import Distribution, folder_of, link_videos, of_layout, read_list, videos_of
from core.formats import ava
from core.runtime.errors import UserError
from core.runtime.files import first_existing
from core.runtime.provenance import Files

WASD_CATEGORIES = (
    "Optimal Conditions",
    "Speech Impairment",
    "Face Occlusion",
    "Human Voice Noise",
    "Surveillance Settings",
)  # by number


def read_wasd(source: Path, videos: Path | None) -> Distribution:
    """WASD, with categories where `wasd_metadata.csv` lies in SOURCE or SOURCE/eval.

    Args:
        source: the folder `WASD`.
        videos: of `<video_id>.<extension>`; None: `orig_videos/trainval`, if it is there.

    Raises:
        UserError: there is no csv, a row is not as `ava.read_augmented` expects, or a category is none of the five.
    """
    metadata = first_existing(source / "wasd_metadata.csv", source / "eval" / "wasd_metadata.csv")
    categories = _wasd_categories(metadata) if metadata.is_file() else {}
    default = source / "orig_videos" / "trainval"
    return _read(source, videos or (default if default.is_dir() else None), categories, metadata)


def read_unitalk(source: Path, videos: Path | None) -> Distribution:
    """UniTalk, with its subsets where `sub_categories` lies in SOURCE.

    Args:
        source: the folder that download_dataset.py wrote.
        videos: of `<video_id>.<extension>`, which UniTalk does not ship; None: none.

    Raises:
        UserError: there is no csv, a row is not as `ava.read_augmented` expects, or a video is in two subsets.
    """
    lists, categories = source / "sub_categories", {}
    for path in sorted(lists.glob("test_*.csv")):
        for video_id in read_list(path):
            if video_id in categories:
                raise UserError(
                    f"{path}: video {video_id} is in the subset {categories[video_id]}, too; keep it in one"
                )
            categories[video_id] = path.stem.removeprefix("test_")
    return _read(source, videos, categories, lists)


def _wasd_categories(path: Path) -> dict[str, str]:
    with of_layout(path, "a csv"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    numbers = [str(number) for number in range(len(WASD_CATEGORIES))]
    named = {"Video", "Category"} <= set(table)
    if not named or not table["Category"].isin(numbers).all() or table["Video"].duplicated().any():
        raise UserError(f"{path}: expected columns Video and Category, each video once, of {', '.join(numbers)}")
    table = table.sort_values(["Category", "Video"])
    return {
        video: WASD_CATEGORIES[int(number)] for video, number in zip(table["Video"], table["Category"], strict=True)
    }


def _read(source: Path, videos: Path | None, categories: Mapping[str, str], listed: Path) -> Distribution:
    paths = {split: source / "csv" / f"{split}_orig.csv" for split in ava.SPLITS}
    paths = {split: path for split, path in paths.items() if path.is_file()}
    if not paths:
        raise UserError(f"no csv/train_orig.csv or csv/val_orig.csv in {source}: give the folder that holds csv")
    rows = {split: ava.read_augmented(path)[list(ava.COLUMNS)] for split, path in paths.items()}
    links, missing = link_videos(videos_of(rows), videos)
    notes = []
    for place, names in {"crops": ("clips_videos",), "audio": ("clips_audios", "clip_audio")}.items():
        for split in rows:
            try:
                links[f"{place}/{split}"] = folder_of(source, *(f"{name}/{split}" for name in names), holds=place)
            except UserError as error:
                notes.append(f"{error}; imported without")
    annotated = set().union(*videos_of(rows).values())
    if not categories:
        notes.append(f"no {listed}: imported without categories (copy it there from the owners' repository)")
    return Distribution(
        files=Files(source / "csv", [path.name for path in paths.values()]),
        rows=rows,
        links=links,
        categories={video: category for video, category in categories.items() if video in annotated},
        missing=missing,
        notes=notes,
    )
