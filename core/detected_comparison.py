"""Predictions on detected tracks beside the annotated faces: read, checked, and matched with them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute

from core import metrics
from core.ava import BOX_COLUMNS
from core.errors import UserError
from core.evaluation import Groundtruth, read_predictions, refuse_duplicates
from core.matching import MIN_OVERLAP, Appearances, Faces, match
from core.official_csv import Rows

NAMED_VIDEOS = 5  # in a message; the results list all


def read_detections(path: str | Path) -> Rows:
    """Read predictions on detected tracks: the official format, boxes 0 to 1, entity ids unique within a video.

    Raises:
        UserError: as `core.evaluation.read_predictions`, a box is empty or outside the frame, or an entity stands
            twice at one time of a video; with file and line.
    """
    rows = read_predictions(path)
    refuse_boxes(rows)
    entity = rows.codes("video_id").astype(np.int64) * len(rows.names("entity_id")) + rows.codes("entity_id")
    times = rows.table["frame_timestamp"].chunk(0).dictionary_encode()
    keys = entity * len(times.dictionary) + times.indices.to_numpy()
    refuse_duplicates(rows, keys, np.argsort(keys))
    return rows


def refuse_boxes(rows: Rows) -> None:
    """Raise a UserError at the first box that is empty or, taken as fractions, outside the frame."""
    x1, y1, x2, y2 = (rows.numbers(name) for name in BOX_COLUMNS)

    def box_text(row: dict) -> str:
        return "box " + ",".join(f"{row[name]:g}" for name in BOX_COLUMNS)

    rows.refuse((x2 <= x1) | (y2 <= y1), lambda row: f"{box_text(row)} is empty", "expected x1 < x2 and y1 < y2")
    rows.refuse(
        (x1 >= 1) | (y1 >= 1) | (x2 <= 0) | (y2 <= 0),
        lambda row: f"{box_text(row)} lies outside the frame",
        "expected fractions of width and height from 0 to 1, not pixels",
    )


@dataclass(frozen=True)
class Comparison:
    """Predictions on detected tracks beside the annotated faces.

    Attributes:
        groundtruth: the annotated faces.
        predictions: as `read_detections` gives them.
        videos: (predictions,) int64, index into the ground truth's video ids; -1 for a video that is not annotated.
        shown: the predictions at annotated times.
        matches: (shown,) int64, the annotated row that each is matched with; -1 for a false face.
        min_overlap: intersection over union that made a match.
    """

    groundtruth: Groundtruth
    predictions: Rows
    videos: np.ndarray
    shown: Appearances
    matches: np.ndarray
    min_overlap: float

    @cached_property
    def scores(self) -> np.ndarray:
        """(shown,) float64."""
        return self.predictions.numbers("score")[self.shown.rows]

    @cached_property
    def matched(self) -> np.ndarray:
        """(shown,) bool."""
        return self.matches >= 0

    @cached_property
    def hits(self) -> np.ndarray:
        """(shown,) bool: matched with a SPEAKING_AUDIBLE face."""
        return self.matched & self.groundtruth.speaking[self.matches]

    @cached_property
    def missed(self) -> np.ndarray:
        """(annotated,) bool."""
        missed = np.ones(len(self.groundtruth), dtype=bool)
        missed[self.matches[self.matched]] = False
        return missed

    @cached_property
    def annotated_scores(self) -> np.ndarray:
        """(annotated,) float64: the matched prediction's score; for missed faces one below all predictions'."""
        scores = np.full(len(self.groundtruth), np.nextafter(self.scores.min(), -np.inf))
        scores[self.matches[self.matched]] = self.scores[self.matched]
        return scores

    def precision_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Recall and precision, each (hits,) float64: the steps whose area is the detection-style average precision.

        As `core.metrics.precision_recall`, but recall ends at the share of the speaking faces that were found; one
        step of no width where none was.
        """
        if not self.hits.any():
            return np.zeros(1), np.zeros(1)
        ranked = self.hits[np.lexsort((self.hits, -self.scores))]
        recall, precision = metrics.precision_recall(ranked, -np.arange(len(ranked)))
        return recall * len(recall) / np.count_nonzero(self.groundtruth.speaking), precision


def compare(groundtruth: Groundtruth, predictions: Rows, min_overlap: float = MIN_OVERLAP) -> Comparison:
    """Match predictions on detected tracks with the annotated faces.

    Raises:
        UserError: no prediction is of an annotated video or at an annotated time, or an annotated box is empty or
            outside the frame.
    """
    refuse_boxes(groundtruth.rows)
    source = predictions.sources[0]
    number = pa.compute.index_in(predictions.names("video_id"), groundtruth.rows.names("video_id"))
    videos = number.fill_null(-1).to_numpy().astype(np.int64)[predictions.codes("video_id")]
    if (videos < 0).all():
        raise UserError(
            f"{source}: its videos ({some_of(predictions.names('video_id').to_pylist())}) are none of the ground "
            f"truth's ({some_of(groundtruth.video_ids)}); expected the same video_id in both"
        )
    annotated = _faces(groundtruth.rows, groundtruth.rows.codes("video_id").astype(np.int64))
    shown, matches = match(annotated, _faces(predictions, videos), min_overlap)
    if not len(shown.rows):
        raise UserError(
            f"{source}: none of {len(predictions):,} predictions is at an annotated time; expected frame_timestamp in "
            "seconds from the start of the video, as in the ground truth"
        )
    return Comparison(groundtruth, predictions, videos, shown, matches, min_overlap)


def _faces(rows: Rows, videos: np.ndarray) -> Faces:
    boxes = np.stack([rows.numbers(name) for name in BOX_COLUMNS], axis=1)
    return Faces(videos, rows.numbers("frame_timestamp"), boxes)


def some_of(videos: list[str]) -> str:
    """The first few video ids, for messages."""
    return ", ".join(sorted(videos)[:NAMED_VIDEOS]) + (", ..." if len(videos) > NAMED_VIDEOS else "")
