"""Average precision of published weights on a data set in AVA layout, on detected tracks and on the annotated ones: of
each encoder alone and with a context network, also by number of faces in the frame and by width of the face.

    python benchmarks/accuracy.py DIR                                  # DIR/videos/val, DIR/annotations/val
    python benchmarks/accuracy.py DIR --splits train val --jobs 2 --out predictions --cache WEIGHTS
    python benchmarks/accuracy.py DIR --encoders light_asd/ava --context none shipped FILE --plot reliability.png

Detected tracks are those of `detect.py`, judged as `evaluate.py --detected` does. On the annotated tracks each face is
cut as the weights ask and scored in one pass over its track, judged as `evaluate.py` does; their rows must come 25 a
second, as the networks were trained. Beside them stands the expected calibration error (ECE) of
`core.evaluation.metrics.Calibration`. With several splits their predictions are judged together, too. The csvs stay in
--out, and those that are there are not made again.
"""

import argparse
import functools
import itertools
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import annotated
from benchmarks.measure import plot_file
from benchmarks.people import EMBEDDERS, embedder_named
from core import parallel
from core.detection import ActiveSpeakerDetector
from core.detection.encoders import shipped_for
from core.detection.options import NONE, PRECISIONS, SHIPPED
from core.download.weights_catalogue import SHIPPED_CONTEXTS, WEIGHTS, find_weights
from core.evaluation import metrics
from core.evaluation.detected import compare, evaluate_detected, read_detections
from core.evaluation.metrics import Calibration
from core.evaluation.official import Groundtruth, evaluate_given, read_groundtruth, read_predictions, scores_of
from core.formats import ava
from core.media.container import MediaFile
from core.media.video_audio import audio_on_disk
from core.media.video_files import find_video
from core.outputs.tables import write_ava_predictions
from core.people.embedding import Likeness
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import atomic_write, fingerprint
from evaluate import read_frame_widths

PUBLISHED = tuple(f"{encoder}/{weights}" for encoder, published in WEIGHTS.items() for weights in published)
GROUPS = (("faces: ", "by_faces", metrics.FACE_COUNT_GROUPS), ("width: ", "by_face_width", metrics.FACE_WIDTH_GROUPS))


@dataclass(frozen=True)
class System:
    """What is measured.

    Attributes:
        encoder, weights, precision, cache: as `core.detection.ActiveSpeakerDetector` has them.
        context: "none", or the path of a context network.
        people: "none", or the name of the embedder by which voices are remembered from one detected track to the next.
    """

    encoder: str
    weights: str
    context: str
    precision: str
    cache: Path | None
    people: str = Likeness.name

    @property
    def published(self) -> str:
        return f"{self.encoder}, {self.weights}"

    @property
    def title(self) -> str:
        """What tables and plots call it."""
        if self.context == NONE:
            return self.published
        path = Path(self.context)
        by = {Likeness.name: "", NONE: ", voices by track"}.get(self.people, f", voices by {self.people}")
        return f"{self.published} + {'shipped context' if path.parent == SHIPPED_CONTEXTS else path.name}{by}"

    @property
    def folder(self) -> str:
        """The name of the folder of its predictions: another one for another content of the context's file."""
        parts = [self.encoder, self.weights, self.precision, *([] if self.people == Likeness.name else [self.people])]
        return "-".join(parts if self.context == NONE else [*parts, fingerprint(self.context)[:12]])


@dataclass(frozen=True)
class Task:
    """One video to predict on; picklable.

    Attributes:
        video, annotations, out: files.
        system: that predicts.
    """

    video: Path
    annotations: Path
    out: Path
    system: System


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR", help="data set in AVA layout")
    parser.add_argument("--splits", nargs="+", choices=ava.SPLITS, default=["val"])
    parser.add_argument("--encoders", nargs="+", choices=PUBLISHED, default=PUBLISHED, metavar="ENCODER/WEIGHTS")
    parser.add_argument(
        "--context",
        nargs="+",
        metavar="none|shipped|FILE",
        default=[NONE, SHIPPED],
        help="a line for each: the encoder alone, with the network that is shipped with it if one is, or with one's "
        "own (default none shipped)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="videos worked on side by side (default 1)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keep the predictions here")
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help="reliability diagrams of the annotated tracks")
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the encoders (default auto)")
    parser.add_argument(
        "--people",
        choices=(NONE, Likeness.name, *EMBEDDERS),
        default=Likeness.name,
        help="what says which detected tracks are of one person, whose voice the context then remembers from one to "
        "the next (default likeness, which detect.py takes where SFace's weights are not in its cache)",
    )
    parser.add_argument("--cache", type=Path, help="folder with the networks' weights; by default the user's")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as temporary:
        measure_all(arguments, arguments.out or Path(temporary))


def measure_all(arguments: argparse.Namespace, out: Path) -> None:
    """Predict, evaluate, print markdown tables with a line for each encoder and context, plot."""
    annotations = {split: arguments.data / "annotations" / split for split in arguments.splits}
    columns = {split: [folder] for split, folder in annotations.items()}
    if len(columns) > 1:
        columns["together"] = list(annotations.values())
    truths = {name: read_groundtruth(folders) for name, folders in columns.items()}
    widths = read_frame_widths(arguments.data / "videos", list(truths.values())[-1].video_ids)
    by_group, calibrations = [], {}
    print(f"| encoder, weights |{''.join(f' {name}: detected tracks | annotated | ECE |' for name in columns)}")
    print(f"|---|{'---:|---:|---:|' * len(columns)}")
    for system in systems(arguments):
        files = {
            tracks: {
                split: predictions(tracks, arguments, folder, system, out) for split, folder in annotations.items()
            }
            for tracks in TRACKS
        }
        cells = []
        for name, truth in truths.items():
            for tracks, (_, judge) in TRACKS.items():
                parts = files[tracks].get(name) or list(itertools.chain(*files[tracks].values()))
                result = judge(truth, joined(parts, out / f"{system.folder}-{tracks}" / f"{name}.csv"), widths)
                cells.append(result["average_precision"])
                by_group.append((f"{system.title} | {name}, {tracks}", result))
                if tracks == "annotated":
                    calibrations.setdefault(system.published, {})[system.title] = result["calibration"]
                    cells.append(result["calibration"].expected_error)
        print(f"| {system.title} |", *(f"{cell:.4f} |" for cell in cells), flush=True)
    print("| chance |", *(f"| {np.mean(truth.speaking):.4f} | |" for truth in truths.values()))
    print_groups(by_group)
    if arguments.plot:
        plot_reliability(calibrations, arguments.plot)


def print_groups(results: list[tuple[str, dict]]) -> None:
    """A markdown table of average precision by group; a line for each of `results`, its first cells and its numbers."""
    names = [f"{title}{name}" for title, _, names in GROUPS for name in names]
    print(f"\n| encoder, weights | tracks | {' | '.join(names)} |\n|---|---|{'---:|' * len(names)}")
    for line, result in results:
        values = (result[key][name]["average_precision"] for _, key, names in GROUPS for name in names)
        print(f"| {line} |", *("– |" if value is None else f"{value:.4f} |" for value in values))


def systems(arguments: argparse.Namespace) -> list[System]:
    """What the options ask for: each encoder with each context that there is for it.

    Raises:
        UserError: there is none.
    """
    found, given = [], (arguments.precision, arguments.cache, arguments.people)
    for encoder, weights in (name.split("/") for name in arguments.encoders):
        for context in dict.fromkeys(arguments.context):
            if context == SHIPPED:
                context = shipped_for(encoder, fingerprint(find_weights(encoder, weights, arguments.cache)[0]))
            if context is not None:
                found.append(System(encoder, weights, str(context), *given))
    if not found:
        raise UserError(f"no context is shipped for {', '.join(arguments.encoders)}: give --context none or a file")
    return found


def predictions(tracks: str, arguments: argparse.Namespace, annotations: Path, system: System, out: Path) -> list[Path]:
    """The csv of each annotated video, made if it is not there.

    Raises:
        UserError: a video cannot be used.
    """
    videos, folder = arguments.data / "videos" / annotations.name, out / f"{system.folder}-{tracks}"
    files = {name: folder / annotations.name / f"{name}.csv" for name in ava.annotation_files(annotations)}
    tasks = {
        name: Task(find_video(videos, name), path, files[name], system)
        for name, path in ava.annotation_files(annotations).items()
        if not files[name].is_file()
    }
    broken = parallel.map_videos(TRACKS[tracks][0], tasks, arguments.jobs, folder.name)
    if broken:
        raise UserError("; ".join(f"{name}: {message}" for name, message in broken.items()))
    return list(files.values())


def predict_detected(task: Task) -> None:
    """Predict on the tracks that detection finds."""
    write_ava_predictions(task.out, _detector(task.system).detect(task.video))


def predict_annotated(task: Task) -> None:
    """Predict on the annotated tracks.

    Raises:
        UserError: the annotations are not 25 a second, or the video cannot be used.
    """
    system = task.system
    encoder = annotated.encoder_of(system.encoder, system.weights, system.context, system.precision, system.cache)
    rows = annotated.read_tracks(task.annotations)
    tracks, times = annotated.track_numbers(rows), rows["time_s"].to_numpy()
    scorers = {}
    with MediaFile(task.video) as media, audio_on_disk(media) as audio:
        if audio is None:
            raise UserError(f"{task.video} has no audio")
        for row, face in annotated.cut_faces(media, rows, encoder.crop):
            if tracks[row] not in scorers:
                scorers[tracks[row]] = encoder.start(audio, float(times[row]))
            scorers[tracks[row]].push(face)
        *_, scores = annotated.probabilities(encoder, rows, [scorers[track] for track in sorted(scorers)])
    ava.write_predictions(task.out, rows, scores)


def judge_detected(truth: Groundtruth, predicted: Path, widths: dict[str, int]) -> dict:
    """Average precision of speaking, faces that were not found counted as missed."""
    return evaluate_detected(str(predicted), compare(truth, read_detections(predicted)), widths)


def judge_annotated(truth: Groundtruth, predicted: Path, widths: dict[str, int]) -> dict:
    """The official average precision, and the calibration."""
    scores = scores_of(truth, read_predictions(predicted))
    calibration = metrics.calibration(truth.speaking, scores)
    return evaluate_given(truth, str(predicted), scores, widths) | {"calibration": calibration}


TRACKS = {"detected": (predict_detected, judge_detected), "annotated": (predict_annotated, judge_annotated)}


def joined(files: Sequence[Path], path: Path) -> Path:
    """The csvs of videos, none of which has a header, as one."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"".join(file.read_bytes() for file in files))
    return path


def plot_reliability(calibrations: dict[str, dict[str, Calibration]], path: Path) -> None:
    """Draw how often faces speak against the probability given, and how many rows have each probability.

    Args:
        calibrations: encoder and weights -> a column; title -> a line in it.
        path: image to write.
    """
    from matplotlib.figure import Figure  # slow to load

    figure = Figure(figsize=(4 * len(calibrations), 5.5), layout="constrained")
    grid = figure.subplots(2, len(calibrations), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
    for (title, lines), reliability, shares in zip(calibrations.items(), *grid, strict=True):
        reliability.plot((0, 1), (0, 1), color="0.5", linestyle="--", linewidth=1)
        for name, calibration in lines.items():
            label = f"{name.removeprefix(title).removeprefix(' + ') or 'alone'}: ECE {calibration.expected_error:.3f}"
            reliability.plot(calibration.probability, calibration.speaking, marker="o", markersize=3, label=label)
            edges = np.linspace(0, 1, len(calibration.rows) + 1)
            shares.stairs(calibration.rows / calibration.rows.sum(), edges)
        reliability.set(title=title, ylabel="share of faces that speak", xlim=(0, 1), ylim=(0, 1))
        reliability.legend(frameon=False, fontsize="small", loc="upper left")
        shares.set(xlabel="probability of speaking", ylabel="share of rows", yscale="log")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)


@functools.cache
def _detector(system: System) -> ActiveSpeakerDetector:
    people = {NONE: False, Likeness.name: Likeness()}.get(system.people)
    return ActiveSpeakerDetector(
        *(system.encoder, system.weights),
        context=system.context,
        precision=system.precision,
        people=embedder_named(system.people, system.cache) if people is None else people,
        cache=system.cache,
    )


if __name__ == "__main__":
    main()
