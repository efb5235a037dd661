"""What a delay costs: average precision of faces scored as they come, and the work for a second of video.

    python benchmarks/live.py work/ava --plot live.png
    python benchmarks/live.py --work VIDEO

Scores the annotated tracks of a split of a data set in AVA layout as `core.live.LiveDetector` does, in the same
windows, with delays from the camera to the score of some tenths of a second, and offline; the boxes are given, so that
the whole delay is left to the encoder and the context network. Prints a table in Markdown for each encoder. With --work
it pushes a video through `LiveDetector`, and prints what a second of it takes.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import annotated
from benchmarks.measure import plot_file
from core import settings
from core.clip_utils import GRID_FPS
from core.detection.encoders import Encoder
from core.detection.options import SHIPPED, WHOLE_TRACK_ENCODERS
from core.evaluation.metrics import average_precision
from core.formats import ava
from core.inference.track_embedding import TrackEmbedder
from core.inputs.shots import seen_together
from core.live.detector import LEAST_DELAY_S, LiveDetector
from core.live.tracks import LiveShot, scored_together
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_audio import audio_on_disk
from core.media.video_files import find_video
from core.runtime.errors import MediaError, exits_cleanly
from core.runtime.files import atomic_write

DELAYS_S = (0.04, 0.2, 0.5, 1.0, 2.0)
OFFLINE = "offline"
SYSTEMS = ("encoder", "context")
Precisions = dict[tuple[str, float | str], float]  # system, delay -> average precision
AT_ONCE = 16  # ends of tracks in the visual encoder
BLOCK_S = 0.1  # of audio, as a microphone gives it


class KnownFaces:
    """Embeddings of a track's faces as of each of its beginnings, in place of `GrowingEmbeddings`.

    Args:
        encoder: embeds them.
        faces: (time, 112, 112) uint8.
    """

    def __init__(self, encoder: TrackEmbedder, faces: np.ndarray):
        self.context, self.whole = encoder.visual_context, encoder.visual(faces[None])[0]
        # Of the last frames before each end; those need as many frames before them.
        size = 2 * self.context
        self.ends = [
            encoder.visual(faces[None, :end])[0][-self.context :] for end in range(1, min(size, 1 + len(faces)))
        ]
        if len(faces) >= size:
            windows = sliding_window_view(faces, size, axis=0).transpose(0, 3, 1, 2)
            for start in range(0, len(windows), AT_ONCE):
                self.ends += list(
                    encoder.visual(np.ascontiguousarray(windows[start : start + AT_ONCE]))[:, -self.context :]
                )
        self.begin = self.count = 0

    def push(self, values: np.ndarray) -> None:
        """Some more of the faces have come."""
        self.count += len(values)

    def since(self, begin: int) -> np.ndarray:
        """As `GrowingEmbeddings.since`."""
        self.begin = begin
        end = self.ends[self.count - 1]
        return np.concatenate((self.whole[: self.count - len(end)], end))[begin:]


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, metavar="DIR", help="data set in AVA layout")
    parser.add_argument("--split", choices=ava.SPLITS, default="val")
    parser.add_argument("--videos", type=settings.at_least_one, help="the first so many of it; default all")
    parser.add_argument(
        "--encoders", nargs="+", choices=WHOLE_TRACK_ENCODERS, default=WHOLE_TRACK_ENCODERS, help="default all"
    )
    parser.add_argument("--delays", type=float, nargs="+", default=DELAYS_S, metavar="S", help="default %(default)s")
    parser.add_argument("--plot", type=plot_file, metavar="FILE", help="draw the tables")
    parser.add_argument("--work", type=Path, metavar="VIDEO", help="measure the work for a second of it")
    parser.add_argument("--cache", type=Path, help="folder with the networks' weights; by default the user's")
    arguments = parser.parse_args(argv)
    if arguments.data is None and arguments.work is None:
        parser.error("give DIR, or --work VIDEO")
    if arguments.data is not None:
        precisions = {name: measured(name, arguments) for name in arguments.encoders}
        if arguments.plot:
            plot(precisions, f"annotated tracks of {arguments.data.name}, {arguments.split}", arguments.plot)
    if arguments.work is not None:
        print(f"\nwork for a second of {arguments.work.name}, with context")
        for name, delay_s in itertools.product(arguments.encoders, arguments.delays):
            if delay_s >= LEAST_DELAY_S:
                live = LiveDetector(name, delay_s=delay_s, cache=arguments.cache)
                worked_s, processor_s = work_per_second(live, arguments.work)
                print(f"{name}, {delay_s:g} s: {worked_s:.2f} s, of processors {processor_s:.2f} s", flush=True)


def measured(name: str, arguments: argparse.Namespace) -> Precisions:
    """Print an encoder's table."""
    encoder = annotated.encoder_of(name, None, SHIPPED, "auto", arguments.cache)
    annotations = list(ava.annotation_files(arguments.data / "annotations" / arguments.split).items())
    speaking, scores = [], {}
    for video, path in annotations[: arguments.videos]:
        rows = annotated.read_tracks(path)
        speaking.append((rows["label"] == ava.SPEAKING).to_numpy())
        played = find_video(arguments.data / "videos" / arguments.split, video)
        for system, odds in score_video(encoder, played, rows, arguments.delays):
            scores.setdefault(system, []).append(odds)
        print(f"{name}, {video}: {len(rows)} faces", file=sys.stderr)
    truth = np.concatenate(speaking)
    precisions = {system: average_precision(truth, np.concatenate(odds)) for system, odds in scores.items()}
    print_table(name, precisions)
    return precisions


def score_video(
    encoder: Encoder, video: Path, rows: pd.DataFrame, delays_s: tuple[float, ...]
) -> Iterator[tuple[tuple[str, float | str], np.ndarray]]:
    """Decode a video once; for "encoder" and "context", and each delay, the log odds of its rows."""
    with MediaFile(video) as media, audio_on_disk(media) as audio:
        if audio is None:
            raise MediaError(f"{video} has no audio")
        crops = dict(annotated.cut_faces(media, rows, encoder.crop))
        shots = list(seen_together(annotated.track_numbers(rows), rows["time_s"].to_numpy()))
        known = [[KnownFaces(encoder.network, np.stack([crops[row] for row in own])) for own in shot] for shot in shots]
        for delay_s in (*delays_s, np.inf):
            for system, context in zip(SYSTEMS, (None, encoder.context), strict=True):
                odds = np.empty(len(rows))
                for shot, faces in zip(shots, known, strict=True):
                    live = LiveShot(encoder.network, context, audio)
                    for own, scored in zip(shot, score_shot(live, rows, shot, faces, delay_s), strict=True):
                        odds[own] = scored
                yield (system, OFFLINE if np.isinf(delay_s) else delay_s), odds


def score_shot(
    shot: LiveShot, rows: pd.DataFrame, tracks: list[np.ndarray], known: list[KnownFaces], delay_s: float
) -> Iterator[np.ndarray]:
    """Play a shot's tracks; the log odds of each of them, (time,)."""
    times = rows["time_s"].to_numpy()
    firsts = [round(times[own[0]] * GRID_FPS) for own in tracks]
    ends = [first + len(own) for first, own in zip(firsts, tracks, strict=True)]
    faces, scored, nothing = {}, [[] for _ in tracks], np.zeros((1, 1), np.uint8)
    together = scored_together(min(delay_s, 1e3))
    last = min(firsts) - 1
    for now in range(min(firsts), max(ends) + 1):
        for number, (first, end) in enumerate(zip(firsts, ends, strict=True)):
            if now == first:
                faces[number] = shot.begin(first, float(times[tracks[number][0]]))
                faces[number].track.visual = known[number]
                known[number].begin = known[number].count = 0
            if first <= now < end:
                faces[number].push(nothing)
            elif now == end:
                faces[number].ended = True
        due = now - delay_s * GRID_FPS
        if now == max(ends):
            last = now
        elif due > last + 1e-6:
            last = int(np.ceil(due - 1e-6)) + together - 1
        else:
            continue
        shot.advance(min(last, now))
        for number, face in faces.items():
            new = face.due - len(scored[number])
            scored[number] += face.odds[len(face.odds) - new :].tolist()
    yield from map(np.array, scored)


def print_table(name: str, precisions: Precisions) -> None:
    """Average precision, and how far it is from offline."""
    print(f"| delay | {name} | from offline | with context | from offline |\n|---|---:|---:|---:|---:|")
    for delay in dict.fromkeys(delay for _, delay in precisions):
        cells = []
        for system in SYSTEMS:
            value = precisions[system, delay]
            cells += [f"{value:.4f}", f"{value - precisions[system, OFFLINE]:+.4f}"]
        print(f"| {name_of(delay)} | {' | '.join(cells)} |")
    print(flush=True)


def plot(precisions: dict[str, Precisions], title: str, path: Path) -> None:
    """Draw the tables: average precision against delay, and dotted, as far as it would go, offline."""
    from matplotlib.figure import Figure  # slow to load

    figure = Figure(figsize=(6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    for (name, values), colour in zip(precisions.items(), ("tab:blue", "tab:orange"), strict=False):
        delays = [delay for system, delay in values if system == SYSTEMS[0] and delay != OFFLINE]
        for system, marker in zip(SYSTEMS, "os", strict=True):
            label = name if system == SYSTEMS[0] else f"{name} with context"
            fill = "white" if system == SYSTEMS[0] else colour
            odds = [values[system, delay] for delay in delays]
            axes.plot(delays, odds, color=colour, marker=marker, markerfacecolor=fill, label=label)
            axes.axhline(values[system, OFFLINE], color=colour, linestyle=":", linewidth=1)
    axes.set(xscale="log", xlabel="delay, seconds (dotted: offline)", ylabel="average precision", title=title)
    axes.set_xticks(delays, [f"{delay:g}" for delay in delays])
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)


def name_of(delay: float | str) -> str:
    return OFFLINE if delay == OFFLINE else f"{delay:g} s"


def work_per_second(live: LiveDetector, video: Path) -> tuple[float, float]:
    """Seconds of work for a second of a video that is pushed in as it would come, and processor seconds of all threads,
    which other programs on the machine lengthen less."""
    with MediaFile(video, as_played=True) as media, audio_on_disk(media) as audio:
        first_s, heard_s, worked = None, 0.0, np.zeros(2)
        for frame in read_frames(media):  # not all at once: a minute of them takes 2 GB
            if first_s is None:
                first_s = heard_s = frame.time_s
            begun = clocks()
            while audio is not None and heard_s < frame.time_s + BLOCK_S:
                live.push_audio(audio.part(heard_s, round(BLOCK_S * audio.sample_rate)), heard_s)
                heard_s += BLOCK_S
            live.push_frame(frame.raw, frame.time_s)
            worked += clocks() - begun
        begun = clocks()
        live.finish()
        return tuple((worked + clocks() - begun) / (frame.time_s - first_s))


def clocks() -> np.ndarray:
    """Seconds of the clock, and of processors in this process."""
    return np.array((time.perf_counter(), time.process_time()))


if __name__ == "__main__":
    main()
