"""The protocol of the Columbia data set: F1 of each speaker of a panel discussion, on detected tracks.

Chakravarty and Tuytelaars, Cross-modal supervision for learning active speaker detection in video, ECCV 2016. The
labels' layout and the protocol are those of the published evaluation of TalkNet, Light-ASD and LR-ASD (TalkNet:
TaoRuijie/TalkNet-ASD, demoTalkNet.py, evaluate_col_ASD; labels in col_labels/fusion): one `<speaker>.txt` for each
speaker, its lines `frame, x, y, size, label` with tabs between, whole numbers.

Kept from the published evaluation:

- Frames count from 0 at 29.97 per second. The box is a square from (x, y) to (x + size, y + size), in pixels of a
  frame half as wide and high as the video that it downloads (640x360 for 1280x720). Label 1 speaks, 0 does not.
- A predicted box is made square about its centre, its side the larger one. It fits a label if more than half of ITS
  OWN area lies in the label's box; not intersection over union, although the published code calls it so. Of several
  the one with the largest share counts, then the one with the highest score. One prediction may fit two labels.
- A score is the mean of its track's over 5 frames, two before to two after; above 0 speaks.
- A label without a fitting prediction counts as not speaking.
- Every label counts. F1 = 2 TP / (2 TP + FP + FN) of each speaker, and the mean over speakers, `abbas` left out.

Different here:

- A label's time is frame / 29.97 seconds, and the predictions nearest in time count
  (`core.evaluation.matching.appearances`); the published code converts the video to 25 frames per second and takes
  frame int(frame / 29.97 * 25), up to 0.04 s early.
- The score is the log odds of speaking, log(p / (1 - p)) of probabilities; in the published code it is the logit of
  the speaking class alone, averaged over several passes and rounded to 0.1.
- Five frames are the video's own, not of 25 per second; at a track's end there are fewer (the published mean leaves
  out the track's last frame there). Boxes are not filtered and not rounded to pixels again.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.boxes import area, intersection
from core.evaluation.detected import some_of
from core.evaluation.matching import Faces, appearances
from core.formats.official_csv import Rows
from core.runtime.checks import as_whole
from core.runtime.errors import UserError

FPS = 29.97  # of the labels' frame numbers
FRAME_SIZE = (640, 360)  # pixels, width and height of the frame that the labels' boxes are in
PUBLISHED_SPEAKERS = ("bell", "boll", "lieb", "long", "sick")
NOT_IN_MEAN = ("abbas",)
MIN_SHARE = 0.5  # of a predicted box that lies in the label's; more than this fits
SMOOTHED_FRAMES = 2  # to either side
SURE = 1e-12  # probabilities of 0 and 1 have no finite log odds: they are taken this far inside
LABEL_COLUMNS = ("frame", "x", "y", "size", "label")
LARGEST = 2**31  # of a number in a label: no frame and no pixel has a greater one


@dataclass(frozen=True)
class Labels:
    """The labels of one speaker, in the order of the file.

    Attributes:
        source: the file.
        frames: (labels,) int64, from 0.
        boxes: (labels, [x1, y1, x2, y2]) float64, pixels of the labels' frame.
        speaking: (labels,) bool.
    """

    source: Path
    frames: np.ndarray
    boxes: np.ndarray
    speaking: np.ndarray


def read_labels(folder: str | Path) -> dict[str, Labels]:
    """The labels of a folder: speaker -> labels, sorted by name.

    Raises:
        UserError: the folder is absent or holds no .txt, a file is empty, or a line is not of the layout; with file
            and line.
    """
    folder = Path(folder)
    expected = f"expected one <speaker>.txt for each speaker, lines of {', '.join(LABEL_COLUMNS)} with tabs between"
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: {expected}")
    files = sorted(folder.glob("*.txt"))
    if not files:
        inside = sorted(path.parent.name for path in folder.glob("*/*.txt"))
        hint = f" (there are some in its folder {inside[0]})" if inside else ""
        raise UserError(f"no .txt in {folder}{hint}: {expected}")
    return {path.stem: _read_speaker(path) for path in files}


def evaluate_columbia(
    labels: dict[str, Labels],
    name: str,
    predictions: Rows,
    frame_size: tuple[int, int] = FRAME_SIZE,
    fps: float = FPS,
) -> dict:
    """F1 of each speaker.

    Args:
        labels: speaker -> labels.
        name: what the results call the predictions.
        predictions: as `core.evaluation.detected.read_detections` gives them, of one video; probabilities, or log
            odds if any score lies outside 0 to 1.
        frame_size: width and height in pixels of the frame that the labels' boxes are in.
        fps: of the labels' frame numbers.

    Returns:
        results as the docstring of `evaluate.py` lists them.

    Raises:
        UserError: the predictions are of several videos, or none of them fits any label.
    """
    videos = predictions.names("video_id").to_pylist()
    if len(videos) > 1:
        raise UserError(
            f"{name} has predictions of {len(videos)} videos ({some_of(videos)}); the labels are of one: give a file "
            "of that video alone"
        )
    scores, are_probabilities = log_odds(predictions.numbers("score"))
    times_s = predictions.numbers("frame_timestamp")
    scores = smoothed(scores, predictions.codes("entity_id"), times_s)
    boxes = squares(predictions.boxes() * np.tile(frame_size, 2))

    everyone = np.concatenate([speaker.boxes for speaker in labels.values()])
    frames = np.concatenate([speaker.frames for speaker in labels.values()])
    best = fitting_predictions(_one_video(frames / fps, everyone), _one_video(times_s, boxes), scores)
    if (best < 0).all():
        raise UserError(
            f"{name}: none of {len(scores):,} predictions fits any of {len(best):,} labels in time and position; they "
            f"were taken as of {fps:g} frames per second and frames of {frame_size[0]}x{frame_size[1]}: give "
            "--fps and --frame-size if they are of another"
        )
    believed = (best >= 0) & (scores[best] > 0)
    ends = np.cumsum([len(speaker.frames) for speaker in labels.values()])
    speakers = {
        speaker: _counts(labels[speaker].speaking, believed[part], best[part] >= 0)
        for speaker, part in zip(labels, map(slice, ends - np.diff(ends, prepend=0), ends), strict=True)
    }
    averaged = [speaker for speaker in speakers if speaker not in NOT_IN_MEAN and speakers[speaker]["f1"] is not None]
    return {
        "predictions": name,
        "mean_f1": float(np.mean([speakers[speaker]["f1"] for speaker in averaged])) if averaged else None,
        "speakers": speakers,
        "averaged": averaged,
        "scores": "probabilities" if are_probabilities else "log odds",
        "fps": fps,
        "frame_size": list(frame_size),
        "notes": _notes(labels, speakers, averaged, are_probabilities),
    }


def log_odds(scores: np.ndarray) -> tuple[np.ndarray, bool]:
    """Scores, (n,) float64, as log odds, and whether they were probabilities: they were if all lie in 0 to 1."""
    if scores.min() < 0 or scores.max() > 1:
        return scores, False
    inside = scores.clip(SURE, 1 - SURE)
    return np.log(inside / (1 - inside)), True


def smoothed(scores: np.ndarray, tracks: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Mean of each score with its track's two scores before and after, as far as there are any.

    Args:
        scores: (n,) float64.
        tracks: (n,) int, a number for each track.
        times_s: (n,) float64, which order a track's scores.
    """
    order = np.lexsort((times_s, tracks))
    ordered, track = scores[order], tracks[order]
    total, count = ordered.copy(), np.ones(len(scores))
    for step in range(1, SMOOTHED_FRAMES + 1):
        same = track[step:] == track[:-step]
        total[step:][same] += ordered[:-step][same]
        total[:-step][same] += ordered[step:][same]
        count[step:] += same
        count[:-step] += same
    means = np.empty(len(scores))
    means[order] = total / count
    return means


def squares(boxes: np.ndarray) -> np.ndarray:
    """Boxes, (n, [x1, y1, x2, y2]) in pixels, made square about their centres, the side the larger of the two."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, keepdims=True) / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def fitting_predictions(labelled: Faces, predicted: Faces, scores: np.ndarray) -> np.ndarray:
    """The prediction that fits each label best: (labels,) int64 rows of predictions, -1 where none fits."""
    shown = appearances(labelled, predicted)
    rows, label = shown.rows[shown.pairs[:, 0]], shown.pairs[:, 1]
    boxes = predicted.boxes[rows]
    share = intersection(boxes, labelled.boxes[label]) / area(boxes)
    fits = np.flatnonzero(share > MIN_SHARE)
    ascending = fits[np.lexsort((scores[rows[fits]], share[fits]))]
    best = np.full(len(labelled.times_s), -1)
    best[label[ascending]] = rows[ascending]  # of several assignments to one position the last one stays
    return best


def _one_video(times_s: np.ndarray, boxes: np.ndarray) -> Faces:
    return Faces(np.zeros(len(times_s), dtype=np.int64), times_s, boxes)


def _counts(speaking: np.ndarray, believed: np.ndarray, fitted: np.ndarray) -> dict:
    """Numbers of one speaker; F1 is None where nobody speaks and nobody is believed to."""
    right = int(np.count_nonzero(speaking & believed))
    either = int(np.count_nonzero(speaking)) + int(np.count_nonzero(believed))
    return {
        "labels": len(speaking),
        "speaking": int(np.count_nonzero(speaking)),
        "matched": int(np.count_nonzero(fitted)),
        "accuracy": float(np.mean(speaking == believed)),
        "f1": 2 * right / either if either else None,
    }


def _notes(labels: dict[str, Labels], speakers: dict[str, dict], averaged: list[str], probabilities: bool) -> list[str]:
    notes = [
        f"no prediction fits any of the {counts['labels']:,} labels of {labels[name].source}: all of them count as "
        "not speaking"
        for name, counts in speakers.items()
        if not counts["matched"]
    ]
    notes += [
        f"{labels[name].source} has no label that speaks, and none is predicted: its F1 is not defined"
        for name, counts in speakers.items()
        if counts["f1"] is None
    ]
    if tuple(averaged) != PUBLISHED_SPEAKERS:
        notes.append(
            f"the mean is over {', '.join(averaged) or 'nobody'}; the published one is over "
            f"{', '.join(PUBLISHED_SPEAKERS)}"
        )
    if not probabilities:
        notes.append("scores beyond 0 and 1 are there, so they were taken as log odds: above 0 speaks")
    return notes


def _read_speaker(path: Path) -> Labels:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if line.strip():
            rows.append(_read_line(path, number, line))
    if not rows:
        raise UserError(f"{path} is empty: expected lines of {', '.join(LABEL_COLUMNS)} with tabs between")
    frames, x, y, size, label = np.array(rows, dtype=np.int64).T
    return Labels(path, frames, np.stack([x, y, x + size, y + size], axis=1).astype(np.float64), label == 1)


def _read_line(path: Path, number: int, line: str) -> tuple[int, ...]:
    try:
        values = tuple(map(as_whole, line.split("\t")))
    except ValueError:
        values = ()
    valid = len(values) == len(LABEL_COLUMNS) and max(map(abs, values)) < LARGEST
    if not valid or values[0] < 0 or values[3] <= 0 or values[4] not in (0, 1):
        raise UserError(
            f"{path}, line {number}: {line[:80]!r}; expected {', '.join(LABEL_COLUMNS)} as whole numbers with tabs "
            "between, frame from 0, size above 0, label 0 or 1"
        )
    return values
