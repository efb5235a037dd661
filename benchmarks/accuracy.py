"""Average precision of published weights on a data set in AVA layout, on detected tracks and on the annotated ones.

    python benchmarks/accuracy.py DIR                                  # DIR/videos/val, DIR/annotations/val
    python benchmarks/accuracy.py DIR --splits train val --jobs 2 --out predictions --cache WEIGHTS

Detected tracks are those of `detect.py`, judged as `evaluate.py --detected` does. On the annotated tracks each face is
cut as the weights ask and scored in one pass over its track, judged as `evaluate.py` does; their rows must come 25 a
second, as the networks were trained. With several splits their predictions are judged together, too. The csvs stay in
--out, and those that are there are not made again.
"""

import argparse
import functools
import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.clip_utils import GRID_FPS
from core.detection import ActiveSpeakerDetector
from core.detection.options import PRECISIONS
from core.download.weights_catalogue import WEIGHTS
from core.evaluation import metrics
from core.evaluation.detected import compare, evaluate_detected, read_detections
from core.evaluation.official import read_groundtruth, read_predictions, scores_of
from core.evaluation.scores import speaking_probability
from core.formats import ava
from core.media.container import MediaFile
from core.media.cropping import nearest_frames
from core.media.video_audio import audio_on_disk
from core.media.video_files import find_video
from core.outputs.tables import write_ava_predictions
from core.runtime import parallel
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import atomic_write


@dataclass(frozen=True)
class Task:
    """One video to predict on; picklable.

    Attributes:
        video, annotations, out: files.
        encoder, weights, precision, cache: as `core.detection.ActiveSpeakerDetector` has them.
    """

    video: Path
    annotations: Path
    out: Path
    encoder: str
    weights: str
    precision: str
    cache: Path | None


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR", help="data set in AVA layout")
    parser.add_argument("--splits", nargs="+", choices=ava.SPLITS, default=["val"])
    parser.add_argument("--jobs", type=int, default=1, help="videos worked on side by side (default 1)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the predictions here")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the encoders (default auto)")
    parser.add_argument("--cache", type=Path, help="folder with the networks' weights; by default the user's")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        measure_all(arguments, arguments.out or Path(temporary))


def measure_all(arguments: argparse.Namespace, out: Path) -> None:
    """Predict, evaluate, print a markdown table with a line for each encoder and weights."""
    annotations = {split: arguments.data / "annotations" / split for split in arguments.splits}
    columns = {split: [folder] for split, folder in annotations.items()}
    if len(columns) > 1:
        columns["together"] = list(annotations.values())
    print(f"| encoder, weights |{''.join(f' {name}: detected tracks | annotated |' for name in columns)}")
    print(f"|---|{'---:|---:|' * len(columns)}")
    for encoder, weights in [(name, key) for name, published in WEIGHTS.items() for key in published]:
        cells = {}
        for tracks, (predict, judge) in TRACKS.items():
            folder = out / f"{encoder}-{weights}-{arguments.precision}-{tracks}"
            files = {
                split: predictions(predict, arguments, folder / split, annotations[split], encoder, weights)
                for split in annotations
            }
            for name, truth in columns.items():
                parts = files[name] if name in files else list(itertools.chain(*files.values()))
                cells[name, tracks] = judge(truth, joined(parts, folder / f"{name}.csv"))
        print(f"| {encoder}, {weights} |", *(f"{cells[name, tracks]:.4f} |" for name in columns for tracks in TRACKS))
    chances = (np.mean(read_groundtruth(truth).speaking) for truth in columns.values())
    print("| chance |", *(f"| {chance:.4f} |" for chance in chances))


def predictions(
    predict: Callable[[Task], None],
    arguments: argparse.Namespace,
    folder: Path,
    annotations: Path,
    encoder: str,
    weights: str,
) -> list[Path]:
    """The csv of each annotated video, made if it is not there.

    Raises:
        UserError: a video cannot be used.
    """
    videos = arguments.data / "videos" / annotations.name
    files = {name: folder / f"{name}.csv" for name in ava.annotation_files(annotations)}
    tasks = {
        name: Task(find_video(videos, name), path, files[name], encoder, weights, arguments.precision, arguments.cache)
        for name, path in ava.annotation_files(annotations).items()
        if not files[name].is_file()
    }
    broken = parallel.map_videos(predict, tasks, arguments.jobs, str(folder.name))
    if broken:
        raise UserError("; ".join(f"{name}: {message}" for name, message in broken.items()))
    return list(files.values())


def predict_detected(task: Task) -> None:
    """Predict on the tracks that detection finds."""
    write_ava_predictions(
        task.out, _detector(task.encoder, task.weights, task.precision, task.cache).detect(task.video)
    )


def predict_annotated(task: Task) -> None:
    """Predict on the annotated tracks.

    Raises:
        UserError: the annotations are not 25 a second, or the video cannot be used.
    """
    encoder = _detector(task.encoder, task.weights, task.precision, task.cache).encoder
    rows = ava.sort_tracks(ava.read_annotations(task.annotations))
    tracks = pd.factorize(rows["entity_id"])[0]
    steps = np.diff(rows["time_s"])[np.diff(tracks) == 0] * GRID_FPS
    if (np.abs(steps - 1) > 0.5).any():
        raise UserError(f"{task.annotations}: faces are not annotated {GRID_FPS} times a second, as the networks need")
    boxes, times = ava.boxes(rows), rows["time_s"].to_numpy()
    scorers = {}
    logits = np.empty((len(rows), 2), np.float32)
    with MediaFile(task.video) as media, audio_on_disk(media) as audio:
        if audio is None:
            raise UserError(f"{task.video} has no audio")
        for row, frame in nearest_frames(media, rows):
            if tracks[row] not in scorers:
                scorers[tracks[row]] = encoder.start(audio, float(times[row]))
            pixels = boxes[row] * np.tile([frame.width, frame.height], 2)
            scorers[tracks[row]].push(encoder.crop(frame, pixels))
        for track, scorer in scorers.items():
            logits[tracks == track] = scorer.finish()[0]
    ava.write_predictions(task.out, rows, speaking_probability(logits, rows["entity_id"].to_numpy()))


def judge_detected(truth: Sequence[Path], predicted: Path) -> float:
    """Average precision of speaking, faces that were not found counted as missed."""
    comparison = compare(read_groundtruth(truth), read_detections(predicted))
    return evaluate_detected(str(predicted), comparison)["average_precision"]


def judge_annotated(truth: Sequence[Path], predicted: Path) -> float:
    """The official average precision."""
    groundtruth = read_groundtruth(truth)
    return metrics.average_precision(groundtruth.speaking, scores_of(groundtruth, read_predictions(predicted)))


TRACKS = {"detected": (predict_detected, judge_detected), "annotated": (predict_annotated, judge_annotated)}


def joined(files: Sequence[Path], path: Path) -> Path:
    """The csvs of videos, none of which has a header, as one."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"".join(file.read_bytes() for file in files))
    return path


@functools.cache
def _detector(encoder: str, weights: str, precision: str, cache: Path | None) -> ActiveSpeakerDetector:
    return ActiveSpeakerDetector(encoder, weights, precision=precision, cache=cache)


if __name__ == "__main__":
    main()
