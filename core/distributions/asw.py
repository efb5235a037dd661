"""ASW, Active Speakers in the Wild ("Look Who's Talking"): faces labelled five times a second.

    SOURCE/json/<video_id>.json               track -> list of {"time", "bbox", "label", "eval"}
    SOURCE/split/{devset,valset,testset}.list     <video_id>.json, a line a video
    SOURCE/original/<video_id>.{mkv,mp4,webm}     from YouTube, or exps/original

From github.com/clovaai/lookwhostalking at 37fe9d6, 2023-08-24: README.md, run_convert.py, run_visualize.py and the data
itself. `time` is seconds, every 0.2 s; `bbox` is x1, y1, x2, y2 as fractions of the frame, beyond which it may reach;
`label` is 1 where the face is active. Faces with `eval` 0 are not evaluated by the owners, for they lie at boundaries
that are not certain: they are left out. As in run_visualize.py a label and its box hold for five frames at 25 a second,
two before to two after.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from core.clip_utils import GRID_FPS
from core.distributions.importing import (
    Distribution,
    folder_of,
    link_videos,
    of_layout,
    read_list,
    track_rows,
    videos_of,
)
from core.formats import ava
from core.runtime.errors import UserError
from core.runtime.files import read_json
from core.runtime.provenance import Files

SPLITS = {"train": "devset", "val": "valset", "test": "testset"}
AROUND = np.arange(-2, 3)  # frames for which a label holds


def read_asw(source: Path, videos: Path | None) -> Distribution:
    """ASW, three splits.

    Args:
        source: the owners' repository.
        videos: of `<video_id>.<extension>`; None: `original` or `exps/original`.

    Raises:
        UserError: a list or a file that it names is absent or not of this layout, or there is no folder of videos.
    """
    videos = videos or folder_of(source, "original", "exps/original", holds="the videos (or give --videos)")
    names = {split: read_list(source / "split" / f"{name}.list") for split, name in SPLITS.items()}
    tracks = {
        split: [table for name in of_split for table in _read_video(source / "json" / name)]
        for split, of_split in names.items()
    }
    rows = {
        split: pd.concat([kept for _, kept in tables], ignore_index=True) for split, tables in tracks.items() if tables
    }
    if not rows:
        raise UserError(f"{source / 'split'} names no video with tracks: expected <video_id>.json, a line a video")
    faces = sum(labelled for tables in tracks.values() for labelled, _ in tables)
    kept = sum(len(kept) for kept in rows.values()) / len(AROUND)
    links, missing = link_videos(videos_of(rows), videos)
    return Distribution(
        files=Files(source, [f"json/{name}" for of_split in names.values() for name in of_split]),
        rows=rows,
        links=links,
        missing=missing,
        notes=[f"of {faces:,} labelled faces those that the owners do not evaluate are left out ({faces - kept:,.0f})"],
    )


def _read_video(path: Path) -> list[tuple[int, pd.DataFrame]]:
    """(number of its labels, rows of those that are evaluated) of each track of a video."""
    if not path.is_file():
        raise UserError(f"no file {path}, which the lists in split name")
    tables = []
    with of_layout(path, "a file of ASW's json"):
        for track, faces in read_json(path, "take it from the owners' repository again").items():
            used = [face for face in faces if face["eval"] == 1]
            if not used:
                continue
            boxes = np.array([face["bbox"] for face in used], dtype=np.float64).reshape(len(used), 4)
            speaking = np.array([face["label"] == 1 for face in used])
            frames = np.rint(np.array([face["time"] for face in used], dtype=np.float64) * GRID_FPS).astype(np.int64)
            rows = track_rows(path.stem, f"{path.stem}:{track}", frames, boxes, speaking)
            frames = (rows.pop("frame_timestamp").to_numpy(np.int64)[:, None] + AROUND).ravel()
            rows = rows.loc[rows.index.repeat(len(AROUND))]
            rows["frame_timestamp"] = [f"{frame / GRID_FPS:.2f}" for frame in frames.tolist()]
            tables.append((len(faces), rows.loc[frames >= 0, list(ava.COLUMNS)]))
    return tables
