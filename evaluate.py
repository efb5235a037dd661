"""Evaluate predictions: the official average precision, and what lies behind it.

    python evaluate.py --groundtruth gt.csv --predictions ASC.csv
    python evaluate.py --groundtruth gt.csv --predictions ASC.csv STE.csv --plot pr.png
    python evaluate.py --groundtruth annotations/val --predictions ASC.csv --videos videos --json -
    python evaluate.py --groundtruth annotations/val --predictions ASC.csv --categories categories.csv
    python evaluate.py --groundtruth annotations/val --predictions STE.csv ASC.csv --intervals
    python evaluate.py --groundtruth annotations/val --predictions detected.csv --detected
    python evaluate.py --groundtruth annotations/val --predictions out --people people_val.csv
    python evaluate.py --columbia col_labels/fusion --predictions columbia.csv

The ground truth is a csv in the official format, several, or a folder of `<video_id>-activespeaker.csv`. Predictions
are csvs in the official format. Both may have a header, and then other columns besides: others' val_orig.csv and
val_res.csv are read as they are. Predictions are on the boxes of the ground truth, row for row; or on detected tracks
(--detected), then a box is matched with the annotated one that it overlaps (`core.evaluation.detected` says what
counts as what); or on detected tracks of the Columbia video, against its labels (--columbia; the protocol is in
`core.evaluation.columbia`). With --people they are folders of detect.py's outputs, and what is judged is who is who.
The first line printed for a file is its main number; on given boxes that of ActivityNet's
get_ava_active_speaker_performance.py.

--json FILE (or - for standard output, in place of the text) writes an object with the results of the first
prediction file at the top level and those of every file in the list `files`:

    groundtruth                               the paths given (top level only)
    predictions, rows, positives, chance      chance = positives / rows, the average precision of random scores
    average_precision                         the official number, 0 to 1
    accuracy, threshold                       score >= threshold counts as speaking
    roc_auc                                   null when every row is positive
    by_faces, by_face_width, by_category      group -> rows, positives, average_precision (null without positives);
                                              by_face_width is null when the size of the frames is not given,
                                              by_category without --categories
    ties                                      share of rows tied with a row of the other label, and the lowest and
                                              highest average precision over all orders of equal scores
    left_out                                  annotated rows that the ground truth lacks, for want of crops; null where
                                              no record beside it says
    intervals                                 with --intervals: of average_precision, by_faces, by_face_width and
                                              by_category value, margin, videos (null where one video has all
                                              positives); difference: the same of the average precision less that of
                                              the first file, whose name is `from` (null for that file)
    notes                                     sentences, empty when there is nothing to add

With --detected:

    predictions, min_overlap, chance          chance: the average precision of random scores on these boxes
    average_precision                         of every prediction at an annotated time, missed faces never found
    average_precision_matched                 of the matched faces alone; null when none of them speaks
    average_precision_annotated               of the annotated faces, missed ones scored lowest
    faces                                     annotated, predicted, matched; recall, precision
    speaking_faces                            annotated, matched, recall
    accuracy, roc_auc                         of the matched faces; null where undefined
    accuracy_annotated, threshold             missed faces count as not speaking
    by_faces, by_face_width, by_category      group -> annotated, speaking, predicted, matched, recall, precision,
                                              average_precision; a group by the number of annotated faces in the
                                              frame, by the width of the annotated face (of a false one: its own)
    average_precision_ego4d                   with --ego4d: the mAP of that benchmark
                                              (`core.evaluation.detected.ego4d_average_precision`)
    ties                                      as above, of the ranking of all predictions
    at_other_times, of_other_videos           predictions that do not count
    missed_videos, other_videos               video ids without any prediction, and without ground truth
    left_out, intervals                       as above
    notes                                     sentences

With --people:

    predictions, videos, tracks, matched      matched: tracks that overlap an annotated face; the others do not count
    pairs                                     pairs of matched tracks of a video: same (of one person in truth), found
                                              (put together), both; f1, precision, recall (null where undefined)
    diarisation                               the diarisation error rate of the RTTM files (no collar, overlapping
                                              speech counts) and its parts, seconds: total, missed, false_alarm,
                                              confusion; null where there is no RTTM file
    missed_videos, other_videos, notes        as above

With --columbia (`columbia` in place of `groundtruth`):

    predictions, mean_f1, averaged            the mean, and the speakers that it is over
    speakers                                  speaker -> labels, speaking, matched, accuracy, f1 (null if undefined)
    scores                                    what they were taken for: probabilities or log odds
    fps, frame_size                           of the labels
    notes                                     sentences
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from core.evaluation import columbia, metrics
from core.evaluation.as_text import columbia_as_text, detected_as_text, given_as_text, people_as_text
from core.evaluation.columbia import evaluate_columbia, read_labels
from core.evaluation.detected import (
    compare,
    ego4d_average_precision,
    evaluate_detected,
    rankings_detected,
    read_detections,
)
from core.evaluation.matching import MIN_OVERLAP
from core.evaluation.official import (
    Categories,
    Groundtruth,
    evaluate_given,
    rankings_given,
    read_categories,
    read_groundtruth,
    read_predictions,
    scores_of,
)
from core.formats.ava import SPLITS
from core.people.evaluation import evaluate_people, read_outputs, read_people
from core.runtime.checks import as_path
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import atomic_write, write_json

PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument("--groundtruth", nargs="+", metavar="CSV", help="csv files or folders")
    truth.add_argument("--columbia", metavar="DIR", help="the Columbia data set's labels, one <speaker>.txt each")
    parser.add_argument("--predictions", nargs="+", required=True, metavar="CSV", help="one or several systems")
    parser.add_argument("--detected", action="store_true", help="predictions are on detected tracks, not given ones")
    parser.add_argument("--iou", type=float, metavar="X", help=f"overlap of a match, for --detected ({MIN_OVERLAP})")
    parser.add_argument("--ego4d", action="store_true", help="Ego4D's mAP of --detected, too")
    parser.add_argument(
        "--people",
        metavar="CSV",
        help="who is who: video_id,entity_id,person below this header; --predictions are folders",
    )
    parser.add_argument("--categories", metavar="CSV", help="of the videos: video_id,category below this header")
    parser.add_argument(
        "--intervals",
        action="store_true",
        help="95 %% confidence intervals over videos, of average precision and of how far each file is from the first",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--frame-size",
        metavar="WxH",
        help="of all videos, in pixels, for the face widths: 1280x720; with --columbia of the frames that the labels "
        "are in pixels of ({}x{})".format(*columbia.FRAME_SIZE),
    )
    size.add_argument("--videos", metavar="DIR", help="take it from DIR/[train|val/]<video_id>.<extension> instead")
    parser.add_argument("--fps", type=float, help=f"of the frame numbers in the Columbia labels ({columbia.FPS})")
    parser.add_argument(
        "--json", type=as_path, metavar="FILE", help="write the results as JSON; - prints them in place of the text"
    )
    parser.add_argument(
        "--plot", type=as_path, metavar="FILE", help=f"draw precision against recall ({', '.join(PLOT_SUFFIXES)})"
    )
    return parser.parse_args(argv)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    check_arguments(arguments)
    arguments.predictions = list(dict.fromkeys(arguments.predictions))
    frame_size = parse_frame_size(arguments.frame_size) if arguments.frame_size else None
    if arguments.columbia:
        results, as_text = on_columbia(arguments, frame_size), columbia_as_text
    elif arguments.people:
        results, as_text = on_people(arguments), people_as_text
    elif arguments.detected:
        results, as_text = on_detected_tracks(arguments, frame_size), detected_as_text
    else:
        results, as_text = on_given_boxes(arguments, frame_size), given_as_text

    source = {"columbia": arguments.columbia} if arguments.columbia else {"groundtruth": arguments.groundtruth}
    report(results, as_text, source, arguments.json)


def check_arguments(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be meant; all before any file is read."""
    if arguments.plot and Path(arguments.plot).suffix.lower() not in PLOT_SUFFIXES:
        raise UserError(f"--plot {arguments.plot}: the name must end with one of {', '.join(PLOT_SUFFIXES)}")
    if arguments.iou is not None and not arguments.detected:
        raise UserError("--iou is the overlap of boxes on detected tracks: give --detected, too")
    if arguments.iou is not None and not 0 < arguments.iou <= 1:
        raise UserError(f"--iou {arguments.iou:g}: expected an overlap above 0, at most 1")
    if arguments.fps is not None and not arguments.columbia:
        raise UserError("--fps is of the frame numbers in the Columbia labels: give --columbia too, or omit --fps")
    if arguments.fps is not None and not 0 < arguments.fps < float("inf"):
        raise UserError(f"--fps {arguments.fps:g}: expected frames per second, above 0")
    if arguments.ego4d and not arguments.detected:
        raise UserError(
            "--ego4d is the mAP of detected tracks: give --detected, too; on given boxes it is the first line"
        )
    refused = {
        "columbia": ("detected", "videos", "plot", "categories", "people", "intervals"),
        "people": ("detected", "videos", "plot", "categories", "frame_size", "intervals"),
    }
    for kind, option in ((kind, option) for kind, options in refused.items() for option in options):
        if getattr(arguments, kind) and getattr(arguments, option):
            raise UserError(f"--{option.replace('_', '-')} is not accepted with --{kind}: omit it")


def on_given_boxes(arguments: argparse.Namespace, frame_size: tuple[int, int] | None) -> list[dict]:
    groundtruth = read_groundtruth(arguments.groundtruth)
    widths = frame_widths(arguments.videos, frame_size, groundtruth.video_ids)
    scores = {path: scores_of(groundtruth, read_predictions(path)) for path in arguments.predictions}
    categories = categories_of(arguments, groundtruth)
    results = [evaluate_given(groundtruth, path, column, widths, categories) for path, column in scores.items()]
    if arguments.intervals:
        rankings = {path: rankings_given(groundtruth, column, widths, categories) for path, column in scores.items()}
        add_intervals(results, rankings)
    if arguments.plot:
        curves = [metrics.precision_recall(groundtruth.speaking, column) for column in scores.values()]
        plot_precision_recall(arguments.plot, results, curves, chance=results[0]["chance"])
    return results


def on_detected_tracks(arguments: argparse.Namespace, frame_size: tuple[int, int] | None) -> list[dict]:
    groundtruth = read_groundtruth(arguments.groundtruth)
    widths = frame_widths(arguments.videos, frame_size, groundtruth.video_ids)
    categories, overlap = categories_of(arguments, groundtruth), arguments.iou or MIN_OVERLAP
    results, curves, rankings = [], [], {}
    for path in arguments.predictions:
        predictions = read_detections(path)
        comparison = compare(groundtruth, predictions, overlap)
        results.append(evaluate_detected(path, comparison, widths, categories))
        if arguments.ego4d:
            results[-1]["average_precision_ego4d"] = ego4d_average_precision(groundtruth, predictions, overlap)
        curves.append(comparison.precision_recall())
        if arguments.intervals:
            rankings[path] = rankings_detected(comparison, widths, categories)
    if arguments.intervals:
        add_intervals(results, rankings)
    if arguments.plot:
        plot_precision_recall(arguments.plot, results, curves)
    return results


def add_intervals(results: list[dict], rankings: Mapping[str, metrics.Named[metrics.Ranking]]) -> None:
    """Add `core.evaluation.metrics.intervals` to the results of the files.

    Raises:
        UserError: all faces that speak are of one video.
    """
    for result, intervals in zip(results, metrics.intervals(rankings), strict=True):
        if intervals["average_precision"] is None:
            raise UserError("--intervals: they are over videos, and one video has all faces that speak; omit it")
        result["intervals"] = intervals


def categories_of(arguments: argparse.Namespace, groundtruth: Groundtruth) -> Categories | None:
    return read_categories(arguments.categories, groundtruth) if arguments.categories else None


def on_people(arguments: argparse.Namespace) -> list[dict]:
    groundtruth = read_groundtruth(arguments.groundtruth)
    people = read_people(arguments.people, groundtruth)
    return [evaluate_people(path, groundtruth, people, read_outputs(path)) for path in arguments.predictions]


def on_columbia(arguments: argparse.Namespace, frame_size: tuple[int, int] | None) -> list[dict]:
    labels = read_labels(arguments.columbia)
    size, fps = frame_size or columbia.FRAME_SIZE, arguments.fps or columbia.FPS
    return [
        evaluate_columbia(labels, path, read_detections(path), frame_size=size, fps=fps)
        for path in arguments.predictions
    ]


def report(results: list[dict], as_text: Callable[[Mapping], str], source: Mapping, json_file: Path | None) -> None:
    """Print the results, as text or JSON, and write the JSON file."""
    document = {**results[0], **source, "files": results}
    if json_file == Path("-"):
        print(json.dumps(document, indent=2, ensure_ascii=False))
        return
    print("\n\n".join(map(as_text, results)))
    if json_file:
        write_json(json_file, document)


def parse_frame_size(text: str) -> tuple[int, int]:
    """`1280x720` -> (1280, 720) pixels."""
    sides = re.fullmatch(r"0*([1-9][0-9]{0,5})x0*([1-9][0-9]{0,5})", text.lower())
    if sides is None:
        raise UserError(f"--frame-size {text}: expected WIDTHxHEIGHT in pixels, for example 1280x720")
    return int(sides[1]), int(sides[2])


def frame_widths(
    videos: str | None, frame_size: tuple[int, int] | None, video_ids: Sequence[str]
) -> dict[str, int] | None:
    """Video id -> width in pixels: of the size given, or of the videos in a folder; None where neither is known."""
    if frame_size:
        return dict.fromkeys(video_ids, frame_size[0])
    return read_frame_widths(videos, video_ids) if videos else None


def read_frame_widths(folder: str | Path, video_ids: Sequence[str]) -> dict[str, int]:
    """Video id -> width in pixels, of the videos in a folder or in its train and val folders."""
    from core.media.container import MediaFile  # loads FFmpeg, which other evaluations do not need
    from core.media.video_files import find_video

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"--videos {folder}: no such folder; expected one of [train|val/]<video_id>.<extension>")
    folders = [split for split in (folder, *(folder / name for name in SPLITS)) if split.is_dir()]

    def find(video_id: str) -> Path:
        for directory in folders:
            with contextlib.suppress(UserError):
                return find_video(directory, video_id)
        raise UserError(
            f"no video {video_id} in {', '.join(map(str, folders))}; its size is needed for the face widths"
        )

    def width(path: Path) -> int:
        with MediaFile(path, tolerant=True) as media:
            return media.info.width

    return {video_id: width(find(video_id)) for video_id in video_ids}


def plot_precision_recall(
    path: str | Path,
    results: Sequence[Mapping],
    curves: Sequence[tuple[np.ndarray, np.ndarray]],
    chance: float | None = None,
) -> None:
    """Draw the steps whose area is the average precision, one line for each file of predictions.

    Args:
        path: image to write.
        results: of each file; its name and average precision make the legend.
        curves: recall and precision of each, as `core.evaluation.metrics.precision_recall` gives them.
        chance: average precision of random scores, where it is the same for all; drawn as a line.
    """
    from matplotlib.figure import Figure  # slow to load, and only this function needs it

    figure = Figure(figsize=(6.4, 5.2), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    names = [result["predictions"] for result in results]
    unique = len({Path(name).name for name in names}) == len(names)
    for name, result, (recall, precision) in zip(names, results, curves, strict=True):
        # A step needs its corners only.
        last = np.flatnonzero(np.append(precision[1:] != precision[:-1], True))
        recall, precision = np.append(0, recall[last]), np.append(precision[last[0]], precision[last])
        label = (Path(name).name if unique else name).replace("$", r"\$")  # a dollar would start a formula
        axes.step(recall, precision, where="pre", label=f"{result['average_precision']:.4f}  {label}")
    if chance is not None:
        axes.axhline(chance, color="0.5", linestyle="--", linewidth=1, label=f"{chance:.4f}  chance")
    axes.set(xlabel="Recall", ylabel="Precision (monotone)", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(color="0.9")
    axes.legend(loc="lower left", fontsize="small", title="average precision")
    with atomic_write(path) as temporary:
        figure.savefig(temporary)


if __name__ == "__main__":
    main()
