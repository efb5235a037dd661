"""Average precision under corrupted audio and video, of an encoder alone and with a context network.

    python benchmarks/robustness.py DIR                              # DIR/videos/val, DIR/annotations/val
    python benchmarks/robustness.py DIR --split train --encoder lr_asd --context none
    python benchmarks/robustness.py DIR --context FILE --plot robustness.png --jobs 2

DIR is any data set in AVA layout with 25 rows a second; its annotated tracks are scored. `benchmarks/corruptions.py`
says what each corruption does, all to whole videos: babble, music and noise are drawn, their level is that of the
video's audio over its whole length less the dB given; audio shifted by +5 frames comes 0.2 s late; the second of two
voices is another video's audio. The same seed gives the same numbers, however many --jobs.
"""

import argparse
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import annotated, corruptions
from benchmarks.measure import plot_file
from core import parallel
from core.clip_utils import GRID_FPS
from core.detection.encoders import Encoder
from core.detection.face_tracks import TrackScorer
from core.detection.options import DEFAULT_ENCODER, SHIPPED, WHOLE_TRACK_ENCODERS
from core.evaluation import metrics
from core.formats import ava
from core.media.container import MediaFile
from core.media.video_audio import VideoAudio, audio_on_disk
from core.media.video_files import find_video
from core.runtime.errors import MediaError, UserError, exits_cleanly
from core.runtime.files import atomic_write

CLEAN = "clean"
ALL = (CLEAN, *corruptions.ON_AUDIO, *corruptions.ON_FACES)
SYSTEMS = ("encoder alone", "with context")


@dataclass(frozen=True)
class Task:
    """One video to corrupt and score; picklable.

    Attributes:
        video, annotations: files.
        other: the video whose audio is the second voice.
        out: npz to write: speaking (row,) bool and probabilities (corruption of `ALL`, system, row) float64.
        encoder, weights, context, cache: as `core.detection.ActiveSpeakerDetector` has them.
        seed: of this video's random choices.
    """

    video: Path
    annotations: Path
    other: Path
    out: Path
    encoder: str
    weights: str | None
    context: str
    cache: Path | None
    seed: int

    def open_encoder(self) -> Encoder:
        """The encoder with its context network."""
        return annotated.encoder_of(self.encoder, self.weights, self.context, "auto", self.cache)


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DIR", help="data set in AVA layout, of two videos or more")
    parser.add_argument("--split", choices=ava.SPLITS, default="val")
    parser.add_argument("--encoder", choices=WHOLE_TRACK_ENCODERS, default=DEFAULT_ENCODER)
    parser.add_argument("--weights", metavar="NAME|FILE", help="of the encoder; by default those of detect.py")
    parser.add_argument("--context", metavar="shipped|none|FILE", default=SHIPPED, help="default shipped")
    parser.add_argument("--jobs", type=int, default=1, help="videos worked on side by side (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default 0)")
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help="draw the table")
    parser.add_argument("--cache", type=Path, help="folder with the networks' weights; by default the user's")
    arguments = parser.parse_args(argv)
    # As in the processes of --jobs, so that the numbers are the same; most of the work are small recurrent networks,
    # which more threads do not make faster.
    parallel.one_thread_each()
    with tempfile.TemporaryDirectory() as temporary:
        precisions = measure_all(arguments, Path(temporary))
    print_table(precisions)
    if arguments.plot:
        title = f"{arguments.encoder} on annotated tracks of {arguments.data.name}, {arguments.split}"
        plot(precisions, title, arguments.plot)


def measure_all(arguments: argparse.Namespace, out: Path) -> dict[str, list[float]]:
    """The average precision of each system, by corruption.

    Raises:
        UserError: the data or the networks cannot be used.
    """
    annotations = ava.annotation_files(arguments.data / "annotations" / arguments.split)
    videos = {name: find_video(arguments.data / "videos" / arguments.split, name) for name in annotations}
    if len(videos) < 2:
        raise UserError(f"{arguments.data}: two voices at once need two videos, {arguments.split} has {len(videos)}")
    tasks = {}
    for name, path in annotations.items():
        seed = zlib.crc32(f"{arguments.seed} {name}".encode())
        other = str(np.random.default_rng(seed).choice([another for another in videos if another != name]))
        tasks[name] = Task(
            *(videos[name], path, videos[other], out / f"{name}.npz"),
            *(arguments.encoder, arguments.weights, arguments.context, arguments.cache, seed),
        )
    next(iter(tasks.values())).open_encoder()  # what is wrong with the networks is said before any video is read
    broken = parallel.map_videos(corrupt_and_score, tasks, arguments.jobs, "robustness")
    if broken:
        raise UserError("; ".join(f"{name}: {message}" for name, message in broken.items()))
    results = [dict(np.load(task.out)) for task in tasks.values()]
    speaking = np.concatenate([result["speaking"] for result in results])
    if not speaking.any():
        raise UserError(f"{arguments.data}: nobody speaks in {arguments.split}, average precision is not defined")
    scores = np.concatenate([result["probabilities"] for result in results], axis=2)
    return {
        name: [metrics.average_precision(speaking, system) for system in systems]
        for name, systems in zip(ALL, scores, strict=True)
    }


def corrupt_and_score(task: Task) -> None:
    """Decode a video once and score it clean and with each corruption."""
    rows = annotated.read_tracks(task.annotations)
    encoder = task.open_encoder()
    faces = None
    with MediaFile(task.video) as media:
        audio = _audio(media)
        for row, face in annotated.cut_faces(media, rows, encoder.crop):
            if faces is None:
                faces = np.empty((len(rows), *face.shape), np.uint8)
            faces[row] = face
    with MediaFile(task.other) as media:
        other = _audio(media).samples

    tracks = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(annotated.track_numbers(rows))) + 1)
    times = rows["time_s"].to_numpy()
    steps = np.round(times * GRID_FPS).astype(np.int64)

    def scorers(corrupt: corruptions.OnFaces) -> list[TrackScorer]:
        started = [encoder.start(audio, float(times[own[0]])) for own in tracks]
        for scorer, own in zip(started, tracks, strict=True):
            for face in corrupt(faces[own], steps[own], np.random.default_rng(task.seed)):
                scorer.push(face)
        return started

    def results() -> Iterator[tuple[np.ndarray, ...]]:
        clean = scorers(lambda faces, steps, rng: faces)
        yield annotated.probabilities(encoder, rows, clean)
        for corrupt in corruptions.ON_AUDIO.values():
            heard = corrupt(audio.samples, other, np.random.default_rng(task.seed))
            for scorer in clean:
                scorer.audio = replace(audio, samples=heard)
            yield annotated.probabilities(encoder, rows, clean)
        for corrupt in corruptions.ON_FACES.values():
            yield annotated.probabilities(encoder, rows, scorers(corrupt))

    np.savez(task.out, speaking=(rows["label"] == ava.SPEAKING).to_numpy(), probabilities=np.array(list(results())))


def _audio(media: MediaFile) -> VideoAudio:
    """A video's audio, in memory."""
    with audio_on_disk(media) as audio:
        if audio is None:
            raise MediaError(f"{media.path} has no audio")
        return replace(audio, samples=audio.samples[:])


def print_table(precisions: dict[str, list[float]]) -> None:
    """Markdown; and where the context is worse than the encoder alone."""
    with_context = len(precisions[CLEAN]) == len(SYSTEMS)
    print(f"| average precision | {SYSTEMS[0]} |{f' {SYSTEMS[1]} | difference |' * with_context}")
    print(f"|---|---:|{'---:|---:|' * with_context}")
    for name, (alone, *context) in precisions.items():
        print(f"| {name} | {alone:.4f} |", *(f"{value:.4f} | {value - alone:+.4f} |" for value in context))
    if with_context:
        worse = [name for name, (alone, context) in precisions.items() if context < alone]
        print(f"\nwith context below the encoder alone: {'; '.join(worse) or 'nowhere'}")


def plot(precisions: dict[str, list[float]], title: str, path: Path) -> None:
    """Draw the table: a row for each corruption, a point for each system."""
    from matplotlib.figure import Figure  # slow to load

    figure = Figure(figsize=(7.5, 1.5 + 0.26 * len(precisions)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(precisions))
    columns = np.array(list(precisions.values())).T
    axes.hlines(places, columns.min(0), columns.max(0), color="0.7", linewidth=1.5, zorder=1)
    for system, values, colour in zip(SYSTEMS, columns, ("tab:blue", "tab:orange"), strict=False):
        axes.axvline(values[0], color=colour, linestyle=":", linewidth=1, zorder=0)
        axes.scatter(values, places, color=colour, s=28, label=system, zorder=2)
    axes.set(xlabel="average precision (dotted: clean)", title=title, yticks=places)
    axes.set_yticklabels(precisions)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, loc="lower left")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)


if __name__ == "__main__":
    main()
