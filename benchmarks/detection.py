"""Speed and memory of detection in a video, stage by stage, beside the video's own length.

    python benchmarks/detection.py VIDEO                         # VIDEO repeated to one minute
    python benchmarks/detection.py VIDEO --runs 5 --plot stages.png --cache DIR
    python benchmarks/detection.py VIDEO --device 0              # the networks of speech on a GPU
    python benchmarks/detection.py VIDEO --seconds 7200 --whole  # two hours: detection as a whole only, for its memory

Needs a video with faces, and the networks' weights (downloaded once, or in --cache). Each line works through the whole
video, in a process of its own; "x real time" is its length over the time taken, and processor seconds are those of all
threads, which other programs on the machine lengthen less than the time. At the end stands `detect.py` on the first
ten seconds, from its start to its end, and what of it is starting up: the time of another run, which finds all done.
"""

import argparse
import functools
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from benchmarks.measure import Result
from core.detection import ActiveSpeakerDetector
from core.detection.faces import FaceFinder, detect_faces, find_detector, schedule
from core.detection.options import DEFAULT_ENCODER, ENCODERS, MIN_FACE_PX
from core.detection.shots import find_shots
from core.inference.engine import opencv_on_one_thread
from core.media.container import MediaFile
from core.media.video import read_frames
from core.outputs.files import write_outputs
from core.runtime import devices
from core.runtime.errors import exits_cleanly
from core.runtime.files import atomic_write

FILES = ("csv", "json", "rttm", "vtt", "report")
PAUSE_S = 0.2  # between two turns, so that the last packets of one come before the first of the next
CLIP_S = 10
SCRIPT = Path(__file__).resolve().parents[1] / "detect.py"
DECODING, SHOTS, FACES = "decoding", "decoding, shots", "decoding, shots, faces"
ALL, OVERLAY = "all but the overlay", "the overlay"
CLIP, STARTING = f"a clip of {CLIP_S} s from start to end, s", "of these, starting up, s"
REAL_TIME = {SHOTS: 30, FACES: 18, ALL: 9, OVERLAY: 9}  # targets, x real time, on two cores
REAL_TIME_GPU = {ALL: 20}
DECODINGS = 4.4  # that all but the overlay may take
CLIP_LIMIT_S = 3.5
Took = dict[str, tuple[float, float]]  # what -> seconds, and processor seconds of all threads


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--seconds", type=float, default=60, help="length that the video is repeated to (default 60)")
    parser.add_argument("--runs", type=int, default=1, help="runs of everything, in turn (default 1)")
    parser.add_argument("--whole", action="store_true", help="measure detection as a whole only, without single stages")
    parser.add_argument("--encoder", choices=ENCODERS, default=DEFAULT_ENCODER)
    parser.add_argument("--weights", help="as of detect.py")
    parser.add_argument("--device", default="cpu", help="as of detect.py")
    parser.add_argument("--cache", type=Path, help="folder with the networks' weights; by default the user's")
    parser.add_argument("--plot", type=measure.plot_file, metavar="FILE", help="bars of the time that stages take")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        video = repeated(arguments.video, Path(folder) / "video.mp4", arguments.seconds)
        info = MediaFile(video).info
        print(f"{info.width}×{info.height}, {info.fps:g} frames per second, {info.duration_s:.0f} s")
        device = devices.device_name(arguments.device)
        detecting = (Path(folder) / "out", arguments.encoder, arguments.weights, device, arguments.cache)
        measure.in_child(detection, repeated(video, Path(folder) / "warm.mp4", 1), *detecting)  # converts the networks
        runs: list[Took] = []
        peaks: list[tuple[float, float]] = []
        for number in range(arguments.runs):
            took, peak_mb = measure.in_child(detection, video, *detecting)
            if not arguments.whole:
                took = measure.in_child(stages, video, arguments.cache) | took
                took |= clip(repeated(video, Path(folder) / f"clip{number}.mp4", CLIP_S), arguments)
            runs.append(took)
            peaks.append(peak_mb)
    targets = REAL_TIME if device == "cpu" else REAL_TIME_GPU
    measure.print_table([*times(runs, info.duration_s, targets), *memory(peaks, info.height)])
    if arguments.plot:
        plot(arguments.plot, runs, 60 / info.duration_s)


def repeated(video: Path, out: Path, length_s: float) -> Path:
    """Write a video's packets again and again, without decoding them, until a length is reached."""
    period_s = MediaFile(video).info.duration_s + PAUSE_S
    with av.open(str(out), "w") as container:
        streams = None
        for turn in range(max(1, math.ceil(length_s / period_s))):
            with av.open(str(video)) as source:
                chosen = [*source.streams.video[:1], *source.streams.audio[:1]]
                streams = streams or {stream.index: container.add_stream_from_template(stream) for stream in chosen}
                for packet in source.demux(*chosen):
                    if packet.dts is None:  # marks the end
                        continue
                    shift = round(turn * period_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    if packet.dts * packet.time_base < length_s:
                        packet.stream = streams[packet.stream.index]
                        container.mux(packet)
    return out


def stages(video: Path, cache: Path | None) -> Took:
    """The first steps, each with those before it, one after the other in one thread."""
    info = MediaFile(video).info
    find, when = FaceFinder.of(find_detector(cache=cache), info, MIN_FACE_PX), schedule(info, None)
    shots = functools.partial(find_shots, fps=info.fps)
    steps = {
        DECODING: lambda: read_frames(MediaFile(video)),
        SHOTS: lambda: shots(read_frames(MediaFile(video))),
        FACES: lambda: detect_faces(shots(read_frames(MediaFile(video))), find, when),
    }
    with opencv_on_one_thread():
        return {what: timed(lambda: sum(1 for _ in step())) for what, step in steps.items()}  # noqa: B023


def detection(
    video: Path, folder: Path, encoder: str, weights: str | None, device: str, cache: Path | None
) -> tuple[Took, tuple[float, float]]:
    """Detection with all its outputs; the memory that it took at most, MB, before the overlay and in the end."""
    active = ActiveSpeakerDetector(encoder, weights, device=device, people=False, cache=cache)
    results = []
    took = {ALL: timed(lambda: write_outputs(folder, results.append(active.detect(video)) or results[0], FILES))}
    before = measure.peak_mb()
    took[OVERLAY] = timed(lambda: write_outputs(folder, results[0], ["overlay"]))
    faces = sum(len(track.frames) for track in results[0].tracks) / len(results[0].frame_times_s)
    print(f"{len(results[0].tracks)} tracks, {faces:.2f} faces a frame", flush=True)
    return took, (before, measure.peak_mb())


def clip(video: Path, arguments: argparse.Namespace) -> Took:
    """`detect.py` on a clip, in a process of its own, and once more."""
    command = [sys.executable, str(SCRIPT), str(video), "--no-people", "--encoder", arguments.encoder]
    command += ["--device", arguments.device]
    command += ["--weights", arguments.weights] if arguments.weights else []
    command += ["--cache", str(arguments.cache)] if arguments.cache else []
    run = functools.partial(subprocess.run, command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {CLIP: timed(run), STARTING: timed(run)}


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call, and processor seconds of all threads; those of a process that it starts are not known."""
    processor = time.process_time()
    return measure.seconds(call), time.process_time() - processor


def times(runs: list[Took], length_s: float, targets: dict[str, float]) -> list[Result]:
    """The lines of the table on time; `targets` says how many times real time a part shall reach."""
    lines = []
    for what in runs[0]:
        seconds, processor = zip(*(took[what] for took in runs), strict=True)
        if what in (CLIP, STARTING):
            lines.append(Result(what, seconds, target=CLIP_LIMIT_S if what == CLIP else None, at_most=True))
            continue
        speeds = [length_s / one for one in seconds]
        lines.append(Result(f"{what}, x real time", speeds, target=targets.get(what)))
        minute = [60 / length_s * one for one in processor]
        lines.append(Result(f"{what}, processor seconds a minute of video", minute, at_most=True))
    if DECODING in runs[0]:
        factors = [took[ALL][0] / took[DECODING][0] for took in runs]
        lines.append(Result(f"{ALL}, times as long as {DECODING}", factors, target=DECODINGS, at_most=True))
    return lines


def memory(peaks: list[tuple[float, float]], height: int) -> list[Result]:
    """The lines of the table on memory."""
    before, after = zip(*peaks, strict=True)
    limit_mb = 800 if height < 1080 else 1000
    return [
        Result("peak memory without the overlay, MB", before, target=limit_mb, at_most=True),
        Result("peak memory, MB", after, target=limit_mb, at_most=True),
    ]


def plot(path: Path, runs: list[Took], scale: float) -> None:
    """Draw what each stage takes of a minute of video, in the best run."""
    from matplotlib.figure import Figure  # slow to load

    names = [what for what in runs[0] if what not in (CLIP, STARTING)]
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.subplots()
    for column, (label, colour) in enumerate((("time", "#2a6f97"), ("processor time", "#a9c9dd"))):
        values = [scale * min(took[what][column] for took in runs) for what in names]
        bars = axes.barh([row + 0.38 * column for row in range(len(names))], values, 0.36, label=label, color=colour)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=8)
    axes.set_yticks([row + 0.19 for row in range(len(names))], names)
    axes.invert_yaxis()
    axes.set_xlabel("seconds a minute of video")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=100)


if __name__ == "__main__":
    main()
