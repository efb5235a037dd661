"""Evaluate predictions: the official average precision, and what lies behind it.

    python evaluate.py --groundtruth gt.csv --predictions ASC.csv
    python evaluate.py --groundtruth gt.csv --predictions ASC.csv STE.csv --plot pr.png
    python evaluate.py --groundtruth annotations/val --predictions ASC.csv --videos videos --json -

The ground truth is a csv in the official format, several, or a folder of `<video_id>-activespeaker.csv`. The first
line printed for a file is the number of ActivityNet's get_ava_active_speaker_performance.py.

--json FILE (or - for standard output, in place of the text) writes an object with the results of the first
prediction file at the top level and those of every file in the list `files`:

    groundtruth                               the paths given (top level only)
    predictions, rows, positives, chance      chance = positives / rows, the average precision of random scores
    average_precision                         the official number, 0 to 1
    accuracy, threshold                       score >= threshold counts as speaking
    roc_auc                                   null when every row is positive
    by_faces, by_face_width                   group -> rows, positives, average_precision (null without positives);
                                              by_face_width is null when the size of the frames is not given
    ties                                      share of rows tied with a row of the other label, and the lowest and
                                              highest average precision over all orders of equal scores
    notes                                     sentences, empty when there is nothing to add
"""

import argparse
import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from core import metrics
from core.ava import SPLITS
from core.errors import UserError, exits_cleanly
from core.evaluation import Groundtruth, read_groundtruth, read_predictions, scores_of
from core.files import write_json, written_whole

THRESHOLD = 0.5  # of the accuracy: two classes, the surer one wins
TIES_WORTH_A_NOTE = 1e-4  # of average precision: half of the second decimal of a percentage
PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groundtruth", nargs="+", required=True, metavar="CSV", help="csv files or folders")
    parser.add_argument("--predictions", nargs="+", required=True, metavar="CSV", help="one or several systems")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--frame-size", metavar="WxH", help="of all videos, in pixels, for the face widths: 1280x720")
    size.add_argument("--videos", metavar="DIR", help="take it from DIR/[train|val/]<video_id>.<extension> instead")
    parser.add_argument("--json", metavar="FILE", help="write the results as JSON; - prints them in place of the text")
    parser.add_argument("--plot", metavar="FILE", help=f"draw precision against recall ({', '.join(PLOT_SUFFIXES)})")
    return parser.parse_args(argv)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    if arguments.plot and Path(arguments.plot).suffix.lower() not in PLOT_SUFFIXES:
        raise UserError(f"--plot {arguments.plot}: the name must end with one of {', '.join(PLOT_SUFFIXES)}")
    fixed_width = parse_frame_size(arguments.frame_size)[0] if arguments.frame_size else None

    groundtruth = read_groundtruth(arguments.groundtruth)
    widths = None
    if fixed_width:
        widths = dict.fromkeys(groundtruth.video_ids, fixed_width)
    elif arguments.videos:
        widths = read_frame_widths(arguments.videos, groundtruth.video_ids)

    scores = {path: scores_of(groundtruth, read_predictions(path)) for path in dict.fromkeys(arguments.predictions)}
    results = evaluate(groundtruth, scores, widths)

    if arguments.plot:
        plot_precision_recall(arguments.plot, groundtruth, scores)
    document = {**results[0], "groundtruth": arguments.groundtruth, "files": results}
    if arguments.json == "-":
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return
    print("\n\n".join(as_text(result) for result in results))
    if arguments.json:
        write_json(arguments.json, document)


def evaluate(
    groundtruth: Groundtruth, scores: Mapping[str, np.ndarray], frame_widths: Mapping[str, int] | None = None
) -> list[dict]:
    """Results as the module's docstring lists them, one for each column of scores.

    Args:
        groundtruth: the labelled rows.
        scores: name of the predictions -> (rows,) float64 in the order of the ground truth.
        frame_widths: video id -> width of its frames in pixels; None leaves the face widths out.
    """
    face_counts = metrics.face_count_groups(groundtruth.faces_per_frame())
    face_widths = None if frame_widths is None else metrics.face_width_groups(groundtruth.face_widths(frame_widths))
    labels = groundtruth.speaking
    return [evaluate_one(name, labels, column, face_counts, face_widths) for name, column in scores.items()]


def evaluate_one(
    name: str, speaking: np.ndarray, scores: np.ndarray, face_counts: np.ndarray, face_widths: np.ndarray | None
) -> dict:
    """Results of one column of scores; the groups are indices as in `core.metrics`."""

    def by_group(groups: np.ndarray, names: tuple[str, ...]) -> dict:
        return {group: asdict(result) for group, result in metrics.by_group(speaking, scores, groups, names).items()}

    positives = int(np.count_nonzero(speaking))
    ties = metrics.ties(speaking, scores)
    notes = []
    if ties.highest - ties.lowest >= TIES_WORTH_A_NOTE:
        notes.append(
            f"{ties.share:.1%} of the rows share their score with a row of the other label: the official number "
            "depends on the order of the ground truth's rows (and of the processor's sort); any value from "
            f"{ties.lowest:.6f} to {ties.highest:.6f} would be as right"
        )
    if scores.min() < 0 or scores.max() > 1:
        notes.append(
            f"scores run from {scores.min():.6g} to {scores.max():.6g}, so they are not probabilities: the accuracy at "
            f"{THRESHOLD} says little, the other numbers depend on their order alone"
        )
    if face_widths is None:
        notes.append("no numbers by face width: give --frame-size WxH or --videos DIR")
    return {
        "predictions": name,
        "average_precision": metrics.average_precision(speaking, scores),
        "rows": len(scores),
        "positives": positives,
        "chance": positives / len(scores),
        "accuracy": metrics.accuracy(speaking, scores, THRESHOLD),
        "threshold": THRESHOLD,
        "roc_auc": metrics.roc_auc(speaking, scores) if positives < len(scores) else None,
        "by_faces": by_group(face_counts, metrics.FACE_COUNT_GROUPS),
        "by_face_width": None if face_widths is None else by_group(face_widths, metrics.FACE_WIDTH_GROUPS),
        "ties": asdict(ties),
        "notes": notes,
    }


def as_text(result: Mapping) -> str:
    """One result for people to read; the official number, in full precision, first."""
    lines = [
        f"average precision: {result['average_precision']!r}",
        f"  of {result['predictions']}: {result['rows']:,} rows, {result['positives']:,} speaking; "
        f"chance {result['chance']:.4f}",
        f"accuracy at {result['threshold']}:   {result['accuracy']:.4f}",
        f"ROC AUC:           {_number(result['roc_auc'])}",
    ]
    for title, key in (("faces in the frame", "by_faces"), ("face width", "by_face_width")):
        if result[key]:
            lines.append(f"{title:<20}{'average precision':>18}{'chance':>9}{'rows':>11}")
        for name, group in (result[key] or {}).items():
            chance = group["positives"] / group["rows"] if group["rows"] else None
            value = _number(group["average_precision"])
            lines.append(f"  {name:<18}{value:>18}{_number(chance):>9}{group['rows']:>11,}")
    return "\n".join(lines + [f"note: {note}" for note in result["notes"]])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def parse_frame_size(text: str) -> tuple[int, int]:
    """`1280x720` -> (1280, 720) pixels."""
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UserError(f"--frame-size {text}: expected WIDTHxHEIGHT in pixels, for example 1280x720")
    return int(width), int(height)


def read_frame_widths(folder: str | Path, video_ids: Sequence[str]) -> dict[str, int]:
    """Video id -> width in pixels, of the videos in a folder or in its train and val folders."""
    from core.video import find_video, probe  # loads FFmpeg, which the other evaluations need not wait for

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--videos {folder}: no such folder; expected one of [train|val/]<video_id>.<extension>")
    folders = [split for split in (folder, *(folder / name for name in SPLITS)) if split.is_dir()]

    def find(video_id: str) -> Path:
        for place in folders:
            with contextlib.suppress(UserError):
                return find_video(place, video_id)
        raise UserError(
            f"no video {video_id} in {', '.join(map(str, folders))}; its size is needed for the face widths"
        )

    return {video_id: probe(find(video_id)).width for video_id in video_ids}


def plot_precision_recall(path: str | Path, groundtruth: Groundtruth, scores: Mapping[str, np.ndarray]) -> None:
    """Draw the steps whose area is the official number, one line for each column of scores."""
    from matplotlib.figure import Figure  # slow to load, and only this function needs it

    figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    file_names = [Path(name).name for name in scores]
    unique = len(set(file_names)) == len(file_names)
    for name, column in scores.items():
        recall, precision = metrics.precision_recall(groundtruth.speaking, column)
        value = metrics.average_precision(groundtruth.speaking, column)
        # A step needs its corners only.
        last = np.flatnonzero(np.append(precision[1:] != precision[:-1], True))
        recall, precision = np.append(0, recall[last]), np.append(precision[last[0]], precision[last])
        label = (Path(name).name if unique else name).replace("$", r"\$")  # a dollar would start a formula
        axes.step(recall, precision, where="pre", label=f"{value:.4f}  {label}")
    chance = float(groundtruth.speaking.mean())
    axes.axhline(chance, color="0.5", linestyle="--", linewidth=1, label=f"{chance:.4f}  chance")
    axes.set(xlabel="Recall", ylabel="Precision (monotone)", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(color="0.9")
    axes.legend(loc="lower left", fontsize="small", title="average precision")
    with written_whole(path) as temporary:
        figure.savefig(temporary)


if __name__ == "__main__":
    main()
