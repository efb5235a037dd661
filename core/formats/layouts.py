"""Where an entity's crops and audio lie below a split's folder, and how crops are named, in the preparations there are.

- Ours: `<entity_id>/<timestamp as in the csv>.jpg`, or packed (`crop_store`), and `<entity_id>.wav`.
- The published one (fuankarion/active-speakers-context): the same, but crops are named by the timestamp as Python
  prints it, and rows that are SPEAKING_NOT_AUDIBLE have none; the audio runs from the first to the last other row.
- TalkNet's, Light-ASD's, LR-ASD's, LoCoNet's, WASD's and UniTalk's:
  `<video_id>/<entity_id>/<timestamp with two decimals>.jpg` and `<video_id>/<entity_id>.wav`; in WASD's,
  SPEAKING_NOT_AUDIBLE rows have no crop.

A crop at "0.20" is 0.20.jpg, 0.2.jpg and 0.20.jpg; one at "0.2" 0.2.jpg, 0.2.jpg and 0.20.jpg. Which of all this a
folder has is seen entity by entity.
"""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from core.clip_utils import run_lengths
from core.formats.official_csv import key_text
from core.runtime.errors import UserError

NAMINGS = (str, lambda text: str(float(text)), lambda text: f"{float(text):.2f}")  # of a crop, by its timestamp's text
CROP_SUFFIX = ".jpg"


def entity_path(folder: Path, video_id: str, name: str) -> Path:
    """The file or folder of an entity: in a folder of its video where it is there, otherwise in the split's own."""
    in_video = folder / video_id / name
    return in_video if in_video.exists() else folder / name


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
        self._entity, self._timestamp = rows["entity_id"].to_numpy(), rows["frame_timestamp"].to_numpy()
        self._naming = np.full(len(rows), -1, np.int8)  # index into NAMINGS: takes less memory than five million paths
        self._folders: dict[str, Path] = {}
        video = rows["video_id"].to_numpy()
        for start, length in zip(*run_lengths(self._entity), strict=True):
            entity = self._entity[start]
            self._folders[entity] = entity_path(folder, video[start], entity)
            self._find(range(start, start + length))
        self.there = self._naming >= 0

    def path(self, row: int) -> Path:
        """The crop of a row that has one."""
        return self._folders[self._entity[row]] / self._name(row, self._naming[row])

    def _name(self, row: int, naming: int) -> str:
        return NAMINGS[naming](self._timestamp[row]) + CROP_SUFFIX

    def _find(self, rows: range) -> None:
        """See how the crops of an entity's rows are named."""
        folder = self._folders[self._entity[rows.start]]
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
