"""Predictions on detected tracks beside the annotated faces: read, checked, and matched with them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute

from core.clip_utils import SPEAKING_THRESHOLD
from core.evaluation import metrics
from core.evaluation.matching import MIN_OVERLAP, Appearances, Faces, match, match_in_turn
from core.evaluation.official import TIES_WORTH_A_NOTE, Categories, Groundtruth, caveats, read_predictions
from core.formats.official_csv import Rows
from core.runtime.errors import UserError

NAMED_VIDEOS = 5  # in a message; the results list all
EGO4D_FPS = 30  # frames a second of the annotations


def read_detections(path: str | Path) -> Rows:
    """Read predictions on detected tracks: the official format, boxes 0 to 1, entity ids unique within a video.

    Raises:
        UserError: as `core.evaluation.official.read_predictions`, a box is empty or outside the frame, or an entity
            occurs twice at one time of a video; with file and line.
    """
    rows = read_predictions(path)
    rows.check_boxes()
    rows.check_unique("video_id", "entity_id")
    return rows


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
    def order(self) -> np.ndarray:
        """(shown,) int64, by descending score; the false come first among equal scores."""
        return np.lexsort((self.hits, -self.scores))

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

        As `core.evaluation.metrics.precision_recall`, but recall ends at the share of the speaking faces that were
        found; one step of no width where none was.
        """
        if not self.hits.any():
            return np.zeros(1), np.zeros(1)
        ranked = self.hits[self.order]
        recall, precision = metrics.precision_recall(ranked, -np.arange(len(ranked)))
        return recall * len(recall) / np.count_nonzero(self.groundtruth.speaking), precision


def compare(groundtruth: Groundtruth, predictions: Rows, min_overlap: float = MIN_OVERLAP) -> Comparison:
    """Match predictions on detected tracks with the annotated faces.

    Raises:
        UserError: no prediction is of an annotated video or at an annotated time, or an annotated box is empty or
            outside the frame.
    """
    groundtruth.rows.check_boxes()
    source = predictions.sources[0]
    videos = _video_numbers(groundtruth, predictions)
    annotated = _faces(groundtruth.rows, groundtruth.rows.codes("video_id").astype(np.int64))
    shown, matches = match(annotated, _faces(predictions, videos), min_overlap)
    if not len(shown.rows):
        raise UserError(
            f"{source}: none of {len(predictions):,} predictions is at an annotated time; expected frame_timestamp in "
            "seconds from the start of the video, as in the ground truth"
        )
    return Comparison(groundtruth, predictions, videos, shown, matches, min_overlap)


def _video_numbers(groundtruth: Groundtruth, predictions: Rows) -> np.ndarray:
    """(predictions,) int64, index into the ground truth's video ids; -1 for a video that is not annotated."""
    number = pa.compute.index_in(predictions.names("video_id"), groundtruth.rows.names("video_id"))
    videos = number.fill_null(-1).to_numpy().astype(np.int64)[predictions.codes("video_id")]
    if (videos < 0).all():
        raise UserError(
            f"{predictions.sources[0]}: its videos ({some_of(predictions.names('video_id').to_pylist())}) are none of "
            f"the ground truth's ({some_of(groundtruth.video_ids)}); expected the same video_id in both"
        )
    return videos


def _faces(rows: Rows, videos: np.ndarray) -> Faces:
    return Faces(videos, rows.numbers("frame_timestamp"), rows.boxes())


def some_of(videos: list[str]) -> str:
    """The first few video ids, for messages."""
    return ", ".join(sorted(videos)[:NAMED_VIDEOS]) + (", ..." if len(videos) > NAMED_VIDEOS else "")


def ego4d_average_precision(groundtruth: Groundtruth, predictions: Rows, min_overlap: float = MIN_OVERLAP) -> float:
    """The mAP of Ego4D's active speaker detection, at an overlap of 0.5 there.

    Only the speaking faces are annotated: a prediction that overlaps a silent one is as false as one in a frame where
    nobody is annotated. By descending score each prediction stands for the speaking face of its frame that it overlaps
    most, if by enough and if no other stands for it. Times are frames, 30 a second, as in the annotations. Published in
    github.com/EGO4D/audio-visual, active_speaker_evaluation/mAP_talknet, after github.com/Cartucho/mAP, where
    boxes are of whole pixels, with one added to each side, and equal scores are taken in the order of the files; here
    the false come first among equal scores.

    Raises:
        UserError: no prediction is of an annotated video.
    """
    videos = _video_numbers(groundtruth, predictions)
    own = np.flatnonzero(videos >= 0)
    scores = predictions.numbers("score")[own]
    faces, shown = (
        _faces(groundtruth.rows, groundtruth.rows.codes("video_id").astype(np.int64)),
        _faces(predictions, videos),
    )
    hits = match_in_turn(_in_frames(faces, groundtruth.speaking), _in_frames(shown, own), scores, min_overlap)
    found = np.count_nonzero(hits) / np.count_nonzero(groundtruth.speaking)
    return metrics.ties(hits, scores).lowest * found if found else 0.0


def _in_frames(faces: Faces, chosen: np.ndarray) -> Faces:
    """Some of the faces, with times on the grid of Ego4D's frames."""
    times_s = np.rint(faces.times_s[chosen] * EGO4D_FPS) / EGO4D_FPS
    return Faces(faces.videos[chosen], times_s, faces.boxes[chosen])


def evaluate_detected(
    name: str,
    comparison: Comparison,
    frame_widths: Mapping[str, int] | None = None,
    categories: Categories | None = None,
) -> dict:
    """Results of one file of predictions, as the docstring of `evaluate.py` lists them.

    Args:
        name: what the results call the predictions.
        comparison: the predictions beside the annotated faces.
        frame_widths: video id -> width of its frames in pixels; None leaves the face widths out.
        categories: of the videos; None leaves them out.
    """
    groundtruth, speaking = comparison.groundtruth, comparison.groundtruth.speaking
    scores, hits, matched, missed = comparison.scores, comparison.hits, comparison.matched, comparison.missed
    labels, matched_scores = hits[matched], scores[matched]
    found = np.count_nonzero(hits) / np.count_nonzero(speaking)
    tied = metrics.ties(hits, scores) if hits.any() else metrics.Ties(share=0.0, lowest=0.0, highest=0.0)
    believed = np.zeros(len(groundtruth), dtype=bool)
    believed[comparison.matches[matched]] = matched_scores >= SPEAKING_THRESHOLD
    whole = _counts(speaking, missed, hits, matched, scores)
    ties = asdict(tied) | {"lowest": tied.lowest * found, "highest": tied.highest * found}
    left_out = _left_out(comparison)
    return {
        "predictions": name,
        "average_precision": whole["average_precision"],
        "average_precision_matched": metrics.ties(labels, matched_scores).lowest if labels.any() else None,
        "average_precision_annotated": metrics.ties(speaking, comparison.annotated_scores).lowest,
        "chance": found * float(hits.mean()),
        "faces": {key: whole[key] for key in ("annotated", "predicted", "matched", "recall", "precision")},
        "speaking_faces": {
            "annotated": whole["speaking"],
            "matched": int(np.count_nonzero(hits)),
            "recall": float(found),
        },
        "min_overlap": comparison.min_overlap,
        "accuracy": metrics.accuracy(labels, matched_scores) if len(labels) else None,
        "accuracy_annotated": float(np.mean(believed == speaking)),
        "threshold": SPEAKING_THRESHOLD,
        "roc_auc": metrics.roc_auc(labels, matched_scores) if labels.any() and not labels.all() else None,
        **dict.fromkeys(metrics.GROUPINGS),
        **{
            key: _by_group(comparison, *groups) for key, groups in _groups(comparison, frame_widths, categories).items()
        },
        "ties": ties,
        **left_out,
        "left_out": groundtruth.left_out,
        "notes": [
            *(categories.note if categories else []),
            *_notes(left_out, len(groundtruth.video_ids), ties),
            *caveats(groundtruth, scores, frame_widths),
        ],
    }


def _counts(
    speaking: np.ndarray, missed: np.ndarray, hits: np.ndarray, matched: np.ndarray, scores: np.ndarray
) -> dict:
    """Numbers of annotated faces (the first two arrays) and of predictions at their times (the others)."""
    found, positives = int(np.count_nonzero(~missed)), int(np.count_nonzero(speaking))
    right = int(np.count_nonzero(hits))
    value = metrics.ties(hits, scores).lowest * right / positives if right else 0.0
    return {
        "annotated": len(speaking),
        "speaking": positives,
        "predicted": len(scores),
        "matched": found,
        "recall": found / len(speaking) if len(speaking) else None,
        "precision": float(matched.mean()) if len(matched) else None,
        "average_precision": value if positives else None,
    }


def _by_group(
    comparison: Comparison, annotated_groups: np.ndarray, shown_groups: np.ndarray, names: tuple[str, ...]
) -> dict:
    """Group -> counts; the groups are (annotated,) and (shown,) indices into `names`."""
    results = {}
    for index, name in enumerate(names):
        annotated, shown = annotated_groups == index, shown_groups == index
        results[name] = _counts(
            comparison.groundtruth.speaking[annotated],
            comparison.missed[annotated],
            comparison.hits[shown],
            comparison.matched[shown],
            comparison.scores[shown],
        )
    return results


def rankings_detected(
    comparison: Comparison, frame_widths: Mapping[str, int] | None = None, categories: Categories | None = None
) -> metrics.Named[metrics.Ranking]:
    """What the average precisions of `evaluate_detected` are of, with the same arguments but for the name."""
    groundtruth, hits, order = comparison.groundtruth, comparison.hits, comparison.order
    of_rows, of_shown = groundtruth.rows.codes("video_id").astype(np.int64), comparison.videos[comparison.shown.rows]

    def ranking(annotated: np.ndarray, shown: np.ndarray) -> metrics.Ranking:
        ranked = order[shown[order]]
        positives = np.bincount(of_rows[annotated & groundtruth.speaking], minlength=len(groundtruth.video_ids))
        return metrics.Ranking(hits[ranked], of_shown[ranked], positives)

    everything = ranking(np.ones(len(of_rows), bool), np.ones(len(of_shown), bool))
    return {"average_precision": everything, **dict.fromkeys(metrics.GROUPINGS)} | {
        key: {name: ranking(annotated == index, shown == index) for index, name in enumerate(names)}
        for key, (annotated, shown, names) in _groups(comparison, frame_widths, categories).items()
    }


def _groups(
    comparison: Comparison, frame_widths: Mapping[str, int] | None, categories: Categories | None
) -> dict[str, tuple[np.ndarray, np.ndarray, tuple[str, ...]]]:
    """`metrics.GROUPINGS` that are known -> (annotated,) and (shown,) indices into the groups' names, and these."""
    groundtruth = comparison.groundtruth
    faces = groundtruth.faces_per_frame(), comparison.shown.faces
    groups = {"by_faces": (*map(metrics.face_count_groups, faces), metrics.FACE_COUNT_GROUPS)}
    if frame_widths is not None:
        widths = _face_widths(comparison, frame_widths)
        groups["by_face_width"] = *map(metrics.face_width_groups, widths), metrics.FACE_WIDTH_GROUPS
    if categories is not None:
        annotated = categories.of_videos[groundtruth.rows.codes("video_id")]
        shown = categories.of_videos[comparison.videos[comparison.shown.rows]]
        groups["by_category"] = annotated, shown, categories.names
    return groups


def _face_widths(comparison: Comparison, frame_widths: Mapping[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of the annotated faces and of the shown ones: of a matched one its annotated face's, of a false one its
    own."""
    annotated = comparison.groundtruth.face_widths(frame_widths)
    rows, matched = comparison.shown.rows, comparison.matched
    pixels = np.array([frame_widths[name] for name in comparison.groundtruth.video_ids], dtype=np.float64)
    left, right = (comparison.predictions.numbers(name)[rows] for name in ("entity_box_x1", "entity_box_x2"))
    shown = (right - left) * pixels[comparison.videos[rows]]
    shown[matched] = annotated[comparison.matches[matched]]
    return annotated, shown


def _left_out(comparison: Comparison) -> dict:
    """What does not count, and which videos have no prediction."""
    used = np.zeros(len(comparison.predictions), dtype=bool)
    used[comparison.shown.rows] = True
    elsewhere = comparison.videos < 0
    annotated, predicted = comparison.groundtruth.video_ids, comparison.predictions.names("video_id").to_pylist()
    return {
        "at_other_times": int(np.count_nonzero(~used & ~elsewhere)),
        "of_other_videos": int(np.count_nonzero(elsewhere)),
        "missed_videos": sorted(set(annotated) - set(predicted)),
        "other_videos": sorted(set(predicted) - set(annotated)),
    }


def _notes(left_out: dict, videos: int, ties: dict) -> list[str]:
    notes = []
    if left_out["missed_videos"]:
        missed = left_out["missed_videos"]
        notes.append(
            f"{len(missed)} of {videos} videos have no prediction, all their faces are missed: {some_of(missed)}"
        )
    if left_out["at_other_times"]:
        notes.append(f"predictions at times that are not annotated are left out: {left_out['at_other_times']:,}")
    if left_out["of_other_videos"]:
        others = some_of(left_out["other_videos"])
        notes.append(f"predictions of other videos ({others}) are left out: {left_out['of_other_videos']:,}")
    if ties["highest"] - ties["lowest"] >= TIES_WORTH_A_NOTE:
        notes.append(
            f"{ties['share']:.1%} of the predictions share their score with one of the other kind: average precision "
            f"is the lowest that any order of them gives, the highest is {ties['highest']:.6f}"
        )
    return notes
