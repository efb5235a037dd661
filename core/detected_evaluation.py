"""Detector, tracker and encoder judged as a whole: predictions on tracks of one's own against annotated faces.

What counts as what:

- Only annotated times count (AVA annotates some minutes of a video). The predictions there are those of the predicted
  frame nearest in time, see `core.matching.appearances`. All other predictions are left out, and counted.
- A predicted face and an annotated one match if their intersection over union is at least the given one; at each time
  one to one, for the largest sum. Scores and entities have no say.
- Annotated faces without a match are missed; predicted faces without one are false, also where there is a face that
  nobody annotated. All faces of a video without any prediction are missed, and the video is named.
- Average precision, detection style: every prediction at an annotated time is ranked by its score. Those matched with
  a SPEAKING_AUDIBLE face are right, all others wrong; there are as many positives as annotated SPEAKING_AUDIBLE faces.
  Missed ones are never reached: recall ends below 1, and from there on precision is 0. All else is the arithmetic of
  `core.metrics.average_precision`: with the annotated boxes as predictions, and no equal scores, it is that number.
- Beside it, the average precision of the matched faces alone (the encoder, detector aside), and that of the annotated
  faces, where a missed one scores below all others (the official number of a file that is completed so).
- Among equal scores the wrong ones come first: each number is the lowest that any order of them gives. `ties` holds
  the highest, too. Only of two predictions that overlap a face exactly alike is the earlier row matched.
"""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from core import metrics
from core.detected_comparison import Comparison, some_of
from core.evaluation import THRESHOLD, TIES_WORTH_A_NOTE, caveats


def evaluate_detected(name: str, comparison: Comparison, frame_widths: Mapping[str, int] | None = None) -> dict:
    """Results of one file of predictions, as the docstring of `evaluate.py` lists them.

    Args:
        name: what the results call the predictions.
        comparison: the predictions beside the annotated faces.
        frame_widths: video id -> width of its frames in pixels; None leaves the face widths out.
    """
    groundtruth, shown, speaking = comparison.groundtruth, comparison.shown, comparison.groundtruth.speaking
    scores, hits, matched, missed = comparison.scores, comparison.hits, comparison.matched, comparison.missed
    labels, matched_scores = hits[matched], scores[matched]
    found = np.count_nonzero(hits) / np.count_nonzero(speaking)
    tied = metrics.ties(hits, scores) if hits.any() else metrics.Ties(share=0.0, lowest=0.0, highest=0.0)
    believed = np.zeros(len(groundtruth), dtype=bool)
    believed[comparison.matches[matched]] = matched_scores >= THRESHOLD
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
        "accuracy": metrics.accuracy(labels, matched_scores, THRESHOLD) if len(labels) else None,
        "accuracy_annotated": float(np.mean(believed == speaking)),
        "threshold": THRESHOLD,
        "roc_auc": metrics.roc_auc(labels, matched_scores) if labels.any() and not labels.all() else None,
        "by_faces": _by_group(
            comparison,
            metrics.face_count_groups(groundtruth.faces_per_frame()),
            metrics.face_count_groups(shown.faces),
            metrics.FACE_COUNT_GROUPS,
        ),
        "by_face_width": None if frame_widths is None else _by_face_width(comparison, frame_widths),
        "ties": ties,
        **left_out,
        "notes": _notes(left_out, len(groundtruth.video_ids), ties) + caveats(scores, frame_widths),
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


def _by_face_width(comparison: Comparison, frame_widths: Mapping[str, int]) -> dict:
    """Group -> counts; a matched prediction belongs to its annotated face's group, a false one has its own width."""
    annotated = comparison.groundtruth.face_widths(frame_widths)
    rows, matched = comparison.shown.rows, comparison.matched
    pixels = np.array([frame_widths[name] for name in comparison.groundtruth.video_ids], dtype=np.float64)
    left, right = (comparison.predictions.numbers(name)[rows] for name in ("entity_box_x1", "entity_box_x2"))
    shown = (right - left) * pixels[comparison.videos[rows]]
    shown[matched] = annotated[comparison.matches[matched]]
    groups = (metrics.face_width_groups(widths) for widths in (annotated, shown))
    return _by_group(comparison, *groups, metrics.FACE_WIDTH_GROUPS)


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
