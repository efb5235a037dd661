"""Speed and memory of detection in a video, stage by stage, beside the video's own length.

    python benchmarks/detection.py VIDEO                         # VIDEO repeated to one minute
    python benchmarks/detection.py VIDEO --seconds 7200 --whole  # two hours: detection as a whole only, for its memory
    python benchmarks/detection.py VIDEO --cache DIR --encoder lr_asd

Needs a video with faces, and the networks' weights (downloaded once, or in --cache). Each line works through the whole
video; "x real time" is its length over the time taken.
"""

import argparse
import functools
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
from core.media.container import MediaFile
from core.media.video import read_frames
from core.outputs.files import write_outputs
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import exits_cleanly

FILES = ("csv", "json", "rttm", "vtt", "report")
MEMORY_LIMIT_MB = 1.5 * 1024**3 / measure.MB
PAUSE_S = 0.2  # between two turns, so that the last packets of one come before the first of the next


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--seconds", type=float, default=60, help="length that the video is repeated to (default 60)")
    parser.add_argument("--whole", action="store_true", help="measure detection as a whole only, without single stages")
    parser.add_argument("--encoder", choices=ENCODERS, default=DEFAULT_ENCODER)
    parser.add_argument("--weights", help="as of detect.py")
    parser.add_argument("--cache", type=Path, help="folder with the networks' weights; by default the user's")
    arguments = parser.parse_args(argv)
    reuse_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        video = repeated(arguments.video, Path(folder) / "video.mp4", arguments.seconds)
        info = MediaFile(video).info
        print(f"{info.width}×{info.height}, {info.fps:g} frames per second, {info.duration_s:.0f} s")
        lines = [] if arguments.whole else stages(video, info.duration_s, arguments.cache)
        options = (arguments.encoder, arguments.weights, arguments.cache)
        lines += measure.in_child(detection, video, Path(folder) / "out", *options)
        measure.print_table(lines)


def repeated(video: Path, out: Path, length_s: float) -> Path:
    """Write a video's packets again and again, without decoding them, until a length is reached."""
    period_s = MediaFile(video).info.duration_s + PAUSE_S
    with av.open(str(out), "w") as container:
        streams = None
        for turn in range(max(1, round(length_s / period_s))):
            with av.open(str(video)) as source:
                chosen = [*source.streams.video[:1], *source.streams.audio[:1]]
                streams = streams or {stream.index: container.add_stream_from_template(stream) for stream in chosen}
                for packet in source.demux(*chosen):
                    if packet.dts is None:  # marks the end
                        continue
                    shift = round(turn * period_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    container.mux(packet)
    return out


def stages(video: Path, length_s: float, cache: Path | None) -> list[Result]:
    """The first steps, each with those before it, one after the other in one thread."""
    info = MediaFile(video).info
    find, when = FaceFinder.of(find_detector(cache=cache), info, MIN_FACE_PX), schedule(info, None)
    shots = functools.partial(find_shots, fps=info.fps)
    steps = {
        "decoding": lambda: read_frames(MediaFile(video)),
        "decoding, shots": lambda: shots(read_frames(MediaFile(video))),
        "decoding, shots, faces": lambda: detect_faces(shots(read_frames(MediaFile(video))), find, when),
    }
    return [speed(what, length_s, lambda: sum(1 for _ in step())) for what, step in steps.items()]  # noqa: B023


def detection(video: Path, folder: Path, encoder: str, weights: str | None, cache: Path | None) -> list[Result]:
    """Detection with all its outputs, and the memory that it took."""
    length_s = MediaFile(video).info.duration_s
    active = ActiveSpeakerDetector(encoder, weights, cache=cache)
    started = time.perf_counter()
    found = active.detect(video)
    detected = time.perf_counter() - started
    write_outputs(folder, found, FILES)
    written, peak_mb = time.perf_counter() - started, measure.peak_mb()
    write_outputs(folder, found, ["overlay"])
    overlaid = time.perf_counter() - started
    faces = sum(len(track.frames) for track in found.tracks) / len(found.frame_times_s)
    print(f"{len(found.tracks)} tracks, {faces:.2f} faces a frame")
    return [
        Result(f"detection with {encoder}, x real time", [length_s / detected]),
        Result("the same and all files but the overlay, x real time", [length_s / written], target=1),
        Result("the overlay, x real time", [length_s / (overlaid - written)]),
        Result("peak memory without the overlay, MB", [peak_mb], target=MEMORY_LIMIT_MB, at_most=True),
        Result("peak memory, MB", [measure.peak_mb()], target=MEMORY_LIMIT_MB, at_most=True),
    ]


def speed(what: str, length_s: float, call: Callable[[], object]) -> Result:
    """How many times faster than the video's own length something is."""
    return Result(f"{what}, x real time", [length_s / measure.seconds(call)])


if __name__ == "__main__":
    main()
