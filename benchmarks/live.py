"""What a delay costs: average precision of faces scored as they come, and the work for a second of video.

    python benchmarks/live.py work/ava --plot live.png
    python benchmarks/live.py --work VIDEO

Scores the annotated tracks of a split of a data set in AVA layout as `core.live.LiveDetector` does, in the same
windows, with delays from the camera to the score of some tenths of a second, and offline; the boxes are given, so that
the whole delay is left to the encoder and the context network. Prints a table in Markdown for each encoder: alone; with
context, each track with its own voice, as benchmarks/accuracy.py has it offline; and with voices that go over cuts to
tracks that look alike, as where SFace's weights are not in the cache, or to those of the same person, as dlib tells
them apart (--people dlib; it needs pip install -e '.[people]'). With --work it pushes a video through `LiveDetector`,
and prints what a second of it takes.
"""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import annotated
from benchmarks.measure import plot_file
from benchmarks.people import embedder_named
from core import settings
from core.clip_utils import GRID_FPS
from core.detection.encoders import Encoder
from core.detection.options import SHIPPED, WHOLE_TRACK_ENCODERS
from core.evaluation.metrics import average_precision
from core.formats import ava
from core.inference.track_embedding import TrackEmbedder
from core.inference.voices import VoiceMemory
from core.inputs.shots import TrackFeatures, seen_together
from core.live.detector import LEAST_DELAY_S, LiveDetector
from core.live.tracks import LiveFace, LiveShot, memory_of, scored_together
from core.media.container import MediaFile
from core.media.video import Frame, read_frames
from core.media.video_audio import VideoAudio, audio_on_disk
from core.media.video_files import find_video
from core.people.embedding import FaceEmbedder, Likeness, normalised
from core.people.portraits import EVERY_S, PORTRAITS, aligned_face
from core.runtime.errors import MediaError, exits_cleanly
from core.runtime.files import atomic_write

DELAYS_S = (0.04, 0.2, 0.5, 1.0, 2.0)
OFFLINE = "offline"
ENCODER, OWN, SHARED = "encoder", "context", "voices over cuts"
SYSTEMS = {ENCODER: "{}", OWN: "with context", SHARED: "and voices over cuts"}  # and how the tables call them
Precisions = dict[tuple[str, float | str], float]  # system, delay -> average precision
NOTHING = np.zeros((1, 1), np.uint8)  # in place of crops whose embeddings are known
NO_LANDMARKS = np.zeros((5, 2), np.float32)  # neither likeness nor dlib, which finds its own, reads them
PORTRAIT_EVERY = round(EVERY_S * GRID_FPS)  # faces
BLOCK_S = 0.1  # of audio, as a microphone gives it


class KnownFaces:
    """Embeddings of a track's faces as of each of its beginnings, in place of `GrowingEmbeddings`, and its portraits.

    Args:
        encoder: embeds them.
        faces: (time, 112, 112) uint8.
        aligned: the same as an embedder takes them.
        embedder: what tells who they show.
    """

    def __init__(
        self, encoder: TrackEmbedder, faces: np.ndarray, aligned: Sequence[np.ndarray], embedder: FaceEmbedder
    ):
        self.encoder, self.faces, self.whole = encoder, faces, encoder.visual(faces[None])[0]
        self.ends: dict[int, np.ndarray] = {}  # of the first so many faces the embeddings that more of them change
        self.portraits = [embedder.embed(face) for face in aligned[: PORTRAITS * PORTRAIT_EVERY : PORTRAIT_EVERY]]
        self.begin = self.count = 0

    def push(self, values: np.ndarray) -> None:
        """Some more of the faces have come."""
        self.count += len(values)

    def since(self, begin: int) -> np.ndarray:
        """As `GrowingEmbeddings.since`."""
        self.begin = begin
        changed = self.encoder.visual_context
        if self.count not in self.ends:  # those need as many frames before them
            last = self.faces[None, max(0, self.count - 2 * changed) : self.count]
            self.ends[self.count] = self.encoder.visual(np.ascontiguousarray(last))[0][-changed:]
        end = self.ends[self.count]
        return np.concatenate((self.whole[: self.count - len(end)], end))[begin:]

    def embedding(self) -> np.ndarray:
        """As `Portraits.embedding`, of the first of the faces that have come: annotations have no landmarks, by which
        the best are chosen."""
        return normalised(np.mean(self.portraits[: 1 + self.count // PORTRAIT_EVERY], axis=0))


class BothMemories:
    """In place of a `VoiceMemory`: that of a video, and one of a shot alone, as `detect.py --no-people` has it."""

    def __init__(self, shared: VoiceMemory, own: VoiceMemory):
        self.memories = (shared, own)
        self.by_own: dict[LiveFace, np.ndarray] = {}  # what the second gave when the first was asked

    def note(self, face: LiveFace, first: int, told: TrackFeatures, logits: np.ndarray, embedding: np.ndarray) -> None:
        """As `VoiceMemory.note`."""
        shared, own = self.memories
        shared.note(face, first, told, logits, embedding)
        own.note(face, first, told, logits, None)

    def scores(self, since: int) -> dict[LiveFace, np.ndarray]:
        """As `VoiceMemory.scores`."""
        shared, own = self.memories
        self.by_own = own.scores(since)
        return shared.scores(since)


class Shot(LiveShot):
    """The annotated tracks of a shot.

    Args:
        encoder: with a context network.
        audio: of the video.
        voices: what is remembered of its earlier shots.
        rows: of the video.
        tracks: the rows of each.
        known: the faces of each.

    Attributes:
        scores: of each track what `SYSTEMS` say, [(time,), ...] log odds of speaking, in order of time.
    """

    def __init__(
        self,
        encoder: Encoder,
        audio: VideoAudio,
        voices: VoiceMemory,
        rows: pd.DataFrame,
        tracks: list[np.ndarray],
        known: list[KnownFaces],
    ):
        self.both = BothMemories(voices, memory_of(encoder.context, None))
        super().__init__(encoder.network, encoder.context, audio, self.both)
        self.tracks, self.known = tracks, known
        self.firsts_s = [float(rows["time_s"].iloc[own[0]]) for own in tracks]
        self.numbers: dict[LiveFace, int] = {}
        self.scores: list[dict[str, list[np.ndarray]]] = [{system: [] for system in SYSTEMS} for _ in tracks]

    def start(self, number: int) -> LiveFace:
        """A track's face, whose first crop is to come."""
        known, first_s = self.known[number], self.firsts_s[number]
        face = self.begin(round(first_s * GRID_FPS), first_s)
        face.track.visual = face.portraits = known
        known.begin = known.count = 0
        self.numbers[face] = number
        return face

    def show(self) -> None:
        """All faces of all tracks at once."""
        for number, track in enumerate(self.tracks):
            face = self.start(number)
            for _ in track:
                face.push(NOTHING)
            face.ended = True

    def play(self, delay_s: float) -> None:
        """The faces as they come, scored with a delay."""
        firsts = [round(first_s * GRID_FPS) for first_s in self.firsts_s]
        ends = [first + len(own) for first, own in zip(firsts, self.tracks, strict=True)]
        faces, together, last = {}, scored_together(delay_s), min(firsts) - 1
        for now in range(min(firsts), max(ends) + 1):
            for number, (first, end) in enumerate(zip(firsts, ends, strict=True)):
                if now == first:
                    faces[number] = self.start(number)
                if first <= now < end:
                    faces[number].push(NOTHING)
                elif now == end:
                    faces[number].ended = True
            due = now - delay_s * GRID_FPS
            if now == max(ends):
                last = now
            elif due > last + 1e-6:
                last = int(np.ceil(due - 1e-6)) + together - 1
            else:
                continue
            self.advance(min(last, now))

    def settle(self, due: int) -> None:
        """As of a `LiveShot`; what became due is noted."""
        before = [(face, face.due, one) for face, one in zip(self.faces, self.scored, strict=False)]
        super().settle(due)
        for face, known, one in before:
            if new := face.due - known:
                own = self.scores[self.numbers[face]]
                own[SHARED].append(face.odds[-new:])
                for system, logits in ((ENCODER, one[0]), (OWN, self.both.by_own[face][-len(one[0]) :])):
                    own[system].append((logits[:, 1] - logits[:, 0])[:new])


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
    parser.add_argument("--people", choices=("likeness", "dlib"), default="likeness", help="default likeness")
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
                live = LiveDetector(name, delay_s=delay_s, people=embedder_of(arguments), cache=arguments.cache)
                worked_s, processor_s = work_per_second(live, arguments.work)
                print(f"{name}, {delay_s:g} s: {worked_s:.2f} s, of processors {processor_s:.2f} s", flush=True)


def measured(name: str, arguments: argparse.Namespace) -> Precisions:
    """Print an encoder's table."""
    encoder = annotated.encoder_of(name, None, SHIPPED, "auto", arguments.cache)
    embedder = embedder_of(arguments)
    annotations = list(ava.annotation_files(arguments.data / "annotations" / arguments.split).items())
    speaking, scores = [], {}
    for video, path in annotations[: arguments.videos]:
        rows = annotated.read_tracks(path)
        speaking.append((rows["label"] == ava.SPEAKING).to_numpy())
        played = find_video(arguments.data / "videos" / arguments.split, video)
        for system, odds in score_video(encoder, embedder, played, rows, arguments.delays):
            scores.setdefault(system, []).append(odds)
        print(f"{name}, {video}: {len(rows)} faces", file=sys.stderr)
    truth = np.concatenate(speaking)
    precisions = {system: average_precision(truth, np.concatenate(odds)) for system, odds in scores.items()}
    print_table(name, precisions)
    return precisions


def embedder_of(arguments: argparse.Namespace) -> FaceEmbedder:
    """What tells who a face shows."""
    return Likeness() if arguments.people == "likeness" else embedder_named(arguments.people, arguments.cache)


def score_video(
    encoder: Encoder, embedder: FaceEmbedder, video: Path, rows: pd.DataFrame, delays_s: tuple[float, ...]
) -> Iterator[tuple[tuple[str, float | str], np.ndarray]]:
    """Decode a video once; for each of `SYSTEMS` and each delay, the log odds of its rows."""
    with MediaFile(video) as media, audio_on_disk(media) as audio:
        if audio is None:
            raise MediaError(f"{video} has no audio")

        def both(frame: Frame, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return encoder.crop(frame, box), aligned_face(embedder, frame, box, NO_LANDMARKS)

        crops = dict(annotated.cut_faces(media, rows, both))
        tracks = list(seen_together(annotated.track_numbers(rows), rows["time_s"].to_numpy()))
        known = [[KnownFaces(encoder.network, *faces_of(crops, own), embedder) for own in shot] for shot in tracks]
        for delay in (*delays_s, OFFLINE):
            odds, voices = {system: np.empty(len(rows)) for system in SYSTEMS}, memory_of(encoder.context, embedder)
            shots = [Shot(encoder, audio, voices, rows, *faces) for faces in zip(tracks, known, strict=True)]
            for shot in shots:
                if delay == OFFLINE:
                    shot.show()
                    shot.look(sys.maxsize)
                else:
                    shot.play(delay)
            for shot in shots:
                shot.settle(sys.maxsize)  # what is left: offline all
                for rows_of, own in zip(shot.tracks, shot.scores, strict=True):
                    for system, scored in own.items():
                        odds[system][rows_of] = np.concatenate(scored)
            yield from (((system, delay), own) for system, own in odds.items())


def faces_of(crops: dict[int, tuple[np.ndarray, np.ndarray]], rows: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """The crops of a track, (time, 112, 112), and its aligned faces."""
    faces, aligned = zip(*(crops[row] for row in rows), strict=True)
    return np.stack(faces), list(aligned)


def print_table(name: str, precisions: Precisions) -> None:
    """Average precision, and how far it is from offline."""
    heads = " | from offline | ".join(title.format(name) for title in SYSTEMS.values())
    print(f"| delay | {heads} | from offline |\n|---|{'---:|' * 2 * len(SYSTEMS)}")
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
        delays = [delay for system, delay in values if system == ENCODER and delay != OFFLINE]
        for (system, how), marker in zip({ENCODER: "", SHARED: " with context"}.items(), "os", strict=True):
            fill = "white" if system == ENCODER else colour
            odds = [values[system, delay] for delay in delays]
            axes.plot(delays, odds, color=colour, marker=marker, markerfacecolor=fill, label=f"{name}{how}")
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
