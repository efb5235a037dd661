"""Predictions on the annotated boxes: scores beside the labels they belong to, and the numbers of both.

Files that do not fit together row for row are refused, as by the official tool; predictions on detected tracks are
for `core.evaluation.detected`.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute

from core.clip_utils import SPEAKING_THRESHOLD
from core.evaluation import metrics
from core.formats.ava import ANNOTATION_SUFFIX, LABEL_IDS, SPEAKING, annotation_files
from core.formats.official_csv import BOX_COLUMNS, COLUMNS, PREDICTION_COLUMNS, Rows, join, key_text
from core.runtime.errors import UserError
from core.runtime.provenance import check_outputs

BOX_TOLERANCE = 1e-9  # fraction of the frame; the official tool's
TIES_WORTH_A_NOTE = 1e-4  # of average precision: half of the second decimal of a percentage


@dataclass(frozen=True)
class Groundtruth:
    """Labelled rows. A row's key is (entity_id, frame_timestamp as a number), as in the official tool.

    Attributes:
        rows: of all files.
        left_out: how many annotated rows they lack, by the records of the postprocessing that wrote the files; 0 of
            AVA's annotations, None of other files without a record.
    """

    rows: Rows
    left_out: int | None = 0

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def speaking(self) -> np.ndarray:
        """(rows,) bool: SPEAKING_AUDIBLE; the two other labels are negatives."""
        return self.rows.is_text("label", [SPEAKING])

    @cached_property
    def video_ids(self) -> list[str]:
        return self.rows.names("video_id").to_pylist()

    @cached_property
    def keys(self) -> np.ndarray:
        """(rows,) int64, one number for each key."""
        return self.rows.keys(self.rows)

    def faces_per_frame(self) -> np.ndarray:
        """(rows,) int64, how many rows share the row's video and timestamp, itself included."""
        times = self.rows.times
        frames = self.rows.codes("video_id").astype(np.int64) * len(times.dictionary) + times.indices.to_numpy()
        frame = pa.array(frames).dictionary_encode().indices.to_numpy()
        return np.bincount(frame)[frame]

    def face_widths(self, frame_widths: Mapping[str, int]) -> np.ndarray:
        """(rows,) float64 pixels, from the width in pixels of each video id's frame."""
        pixels = np.array([frame_widths[video_id] for video_id in self.video_ids], dtype=np.float64)
        fraction = self.rows.numbers("entity_box_x2") - self.rows.numbers("entity_box_x1")
        return fraction * pixels[self.rows.codes("video_id")]


def read_groundtruth(sources: Sequence[str | Path]) -> Groundtruth:
    """Read ground truth: csvs in AVA's format or augmented ones, or folders of `<video_id>-activespeaker.csv`.

    Raises:
        UserError: a file is absent, empty, not of this form or not as its record says, a number is not finite, a label
            is not one of AVA's three, a key occurs twice, or no row is SPEAKING_AUDIBLE; with file and line.
    """
    files = []
    for source in map(Path, sources):
        files += annotation_files(source).values() if source.is_dir() else [source]
    rows = Rows(files, COLUMNS)
    rows.check_labels(list(LABEL_IDS), "rows without a label cannot be evaluated")
    left_out = [_left_out(path) for path in files]
    groundtruth = Groundtruth(rows, None if None in left_out else sum(left_out))
    if not groundtruth.speaking.any():
        raise UserError(
            f"{', '.join(map(str, files[:3]))}{', ...' if len(files) > 3 else ''}: none of {len(rows):,} rows has the "
            f"label {SPEAKING}, so average precision is not defined; give a ground truth with labels (those of a "
            "test split without labels cannot be evaluated)"
        )
    rows.check_unique("entity_id")
    return groundtruth


@dataclass(frozen=True)
class Categories:
    """Kinds of videos.

    Attributes:
        names: in the order of the file.
        of_videos: (video ids of the ground truth,) int64, index into `names`; -1 for a video of no category.
    """

    names: tuple[str, ...]
    of_videos: np.ndarray

    @property
    def note(self) -> list[str]:
        """How many videos are of no category, if any is."""
        without = np.count_nonzero(self.of_videos < 0)
        return [f"{without} of {len(self.of_videos)} videos are of no category"] * bool(without)


def read_categories(path: str | Path, groundtruth: Groundtruth) -> Categories:
    """Read a csv of `video_id,category` with this header, as `data/import_dataset.py` writes it.

    Raises:
        UserError: the file is absent or not of this form, a video is there twice, or none is of the ground truth.
    """
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}): expected a csv of video_id,category") from error
    if header != ["video_id", "category"]:
        raise UserError(f"{path}: the header is {','.join(header)[:80]!r}; expected video_id,category")
    of_video: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != 2 or row[0] in of_video:
            raise UserError(f"{path}, line {number}: {','.join(row)[:80]!r}; expected video_id,category, a video once")
        of_video[row[0]] = row[1]
    names = tuple(dict.fromkeys(of_video.values()))
    numbers = {name: number for number, name in enumerate(names)}
    of_videos = np.array([numbers.get(of_video.get(video_id), -1) for video_id in groundtruth.video_ids])
    if (of_videos < 0).all():
        raise UserError(f"{path}: none of its {len(of_video)} videos is in the ground truth")
    return Categories(names, of_videos)


def _left_out(path: Path) -> int | None:
    if path.name.endswith(ANNOTATION_SUFFIX):
        return 0
    record = check_outputs(path.parent, path.stem, [path.name])
    return None if record is None else record["made_of"].get("left_out", 0)


def read_predictions(path: str | Path) -> Rows:
    """Read predictions in the official format: AVA's eight columns, then the score, in any order of rows.

    With a header they may be in any order and others beside them, as in other groups' `val_res.csv`.

    Raises:
        UserError: the file is absent, empty or not of this form, a number is not finite, or a label is not
            SPEAKING_AUDIBLE; with file and line.
    """
    rows = Rows([Path(path)], PREDICTION_COLUMNS)
    rows.check_labels([SPEAKING], "a prediction is the score of that label")
    return rows


def scores_of(groundtruth: Groundtruth, predictions: Rows) -> np.ndarray:
    """The scores in the order of the ground truth, (rows,) float64.

    Raises:
        UserError: a row is missing, extra or twice there, or its video or box differs; with file and line.
    """
    position = _positions(groundtruth, predictions)
    truth = groundtruth.rows
    video = pa.compute.index_in(predictions.names("video_id"), truth.names("video_id")).fill_null(-1).to_numpy()
    wrong = {"video_id": video[predictions.codes("video_id")[position]] != truth.codes("video_id")}
    for name in BOX_COLUMNS:
        wrong[name] = np.abs(predictions.numbers(name)[position] - truth.numbers(name)) > BOX_TOLERANCE
    for name, bad in wrong.items():
        if bad.any():
            at = np.flatnonzero(bad)
            row = at[position[at].argmin()]  # the first in the file of the predictions
            found, expected = predictions.table[name][int(position[row])], truth.table[name][int(row)]
            more = f" ({len(at):,} such rows)" if len(at) > 1 else ""
            raise UserError(
                f"{predictions.line(int(position[row]))}: {name} is {found}; in the ground truth "
                f"({truth.line(int(row))}) it is {expected}{more}; copy videos and boxes from the ground truth"
            )
    return predictions.numbers("score")[position]


def _positions(groundtruth: Groundtruth, predictions: Rows) -> np.ndarray:
    """(rows of the ground truth,) the predictions' row of each; a UserError unless they match one to one."""
    wanted, keys = groundtruth.keys, predictions.keys(groundtruth.rows)
    positions = join(wanted, keys)
    if positions is None:
        remedy = "predict exactly the rows of the ground truth, each once"
        predictions.check_unique("entity_id")
        extra, missing = ~np.isin(keys, wanted), ~np.isin(wanted, keys)
        predictions.refuse(extra, lambda row: f"{key_text(row)} is not in the ground truth", remedy)
        groundtruth.rows.refuse(missing, lambda row: f"{key_text(row)} has no row in {predictions.sources[0]}", remedy)
    return positions


def evaluate_given(
    groundtruth: Groundtruth,
    name: str,
    scores: np.ndarray,
    frame_widths: Mapping[str, int] | None = None,
    categories: Categories | None = None,
) -> dict:
    """Results of one column of scores, as the docstring of `evaluate.py` lists them.

    Args:
        groundtruth: the labelled rows.
        name: what the results call the predictions.
        scores: (rows,) float64 in the order of the ground truth.
        frame_widths: video id -> width of its frames in pixels; None leaves the face widths out.
        categories: of the videos; None leaves them out.
    """
    speaking = groundtruth.speaking
    by_group = {
        key: {name: asdict(result) for name, result in metrics.by_group(speaking, scores, *groups).items()}
        for key, groups in _groups(groundtruth, frame_widths, categories).items()
    }
    positives = int(np.count_nonzero(speaking))
    ties = metrics.ties(speaking, scores)
    notes = []
    if ties.highest - ties.lowest >= TIES_WORTH_A_NOTE:
        notes.append(
            f"{ties.share:.1%} of the rows share their score with a row of the other label: the official number "
            "depends on the order of the ground truth's rows (and of the processor's sort); any value from "
            f"{ties.lowest:.6f} to {ties.highest:.6f} would be as right"
        )
    if categories is not None:
        notes += categories.note
    return {
        "predictions": name,
        "average_precision": metrics.average_precision(speaking, scores),
        "rows": len(scores),
        "positives": positives,
        "chance": positives / len(scores),
        "accuracy": metrics.accuracy(speaking, scores),
        "threshold": SPEAKING_THRESHOLD,
        "roc_auc": metrics.roc_auc(speaking, scores) if positives < len(scores) else None,
        **dict.fromkeys(metrics.GROUPINGS),
        **by_group,
        "ties": asdict(ties),
        "left_out": groundtruth.left_out,
        "notes": notes + caveats(groundtruth, scores, frame_widths),
    }


def rankings_given(
    groundtruth: Groundtruth,
    scores: np.ndarray,
    frame_widths: Mapping[str, int] | None = None,
    categories: Categories | None = None,
) -> metrics.Named[metrics.Ranking]:
    """What the average precisions of `evaluate_given` are of, with the same arguments."""
    videos = groundtruth.rows.codes("video_id").astype(np.int64)

    def ranking(chosen: np.ndarray) -> metrics.Ranking:
        rows = np.flatnonzero(chosen)
        ranked = rows[metrics.official_order(scores[rows])]  # of all rows it would have other equal scores first
        positives = np.bincount(videos[chosen & groundtruth.speaking], minlength=len(groundtruth.video_ids))
        return metrics.Ranking(groundtruth.speaking[ranked], videos[ranked], positives)

    groups = _groups(groundtruth, frame_widths, categories)
    return {"average_precision": ranking(np.ones(len(scores), bool)), **dict.fromkeys(metrics.GROUPINGS)} | {
        key: {name: ranking(of_rows == index) for index, name in enumerate(names)}
        for key, (of_rows, names) in groups.items()
    }


def _groups(
    groundtruth: Groundtruth, frame_widths: Mapping[str, int] | None, categories: Categories | None
) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    """`metrics.GROUPINGS` that are known -> (rows,) int64, index into the groups' names, and these."""
    faces = groundtruth.faces_per_frame()
    groups = {"by_faces": (metrics.face_count_groups(faces), metrics.FACE_COUNT_GROUPS)}
    if frame_widths is not None:
        widths = groundtruth.face_widths(frame_widths)
        groups["by_face_width"] = metrics.face_width_groups(widths), metrics.FACE_WIDTH_GROUPS
    if categories is not None:
        groups["by_category"] = categories.of_videos[groundtruth.rows.codes("video_id")], categories.names
    return groups


def caveats(groundtruth: Groundtruth, scores: np.ndarray, frame_widths: Mapping[str, int] | None) -> list[str]:
    """What to say of rows left out, of scores that are no probabilities, and of face widths that are not known."""
    notes = []
    if groundtruth.left_out is None:
        notes.append(
            "no record (.made) beside the ground truth says whether annotated faces without crops are left out of it"
        )
    elif groundtruth.left_out:
        notes.append(
            f"{groundtruth.left_out:,} of {groundtruth.left_out + len(groundtruth):,} annotated faces have no crops "
            "and are left out: no number here is that of all annotations"
        )
    if scores.min() < 0 or scores.max() > 1:
        notes.append(
            f"scores run from {scores.min():.6g} to {scores.max():.6g}, so they are not probabilities: the accuracy at "
            f"{SPEAKING_THRESHOLD} says little, the other numbers depend on their order alone"
        )
    if frame_widths is None:
        notes.append("no numbers by face width: give --frame-size WxH or --videos DIR")
    return notes
