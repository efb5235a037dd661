"""Who speaks, while a file is played: a line of JSON for each frame, a stated time after it.

    python scripts/live.py interview.mp4 --delay 0.5 | your-program

The file is played in real time, as a camera and a microphone would give it. A line is
{"time": 1.04, "faces": [{"id": 1, "box": [x1, y1, x2, y2], "probability": 0.93}]}; see core/live/live.schema.json. When
the machine is too slow frames are left out, and standard error says how many. More: docs/live.md.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

from core.clip_utils import SAMPLE_RATE
from core.detection.options import DEFAULT_DETECTOR, DEFAULT_ENCODER, SHIPPED, WHOLE_TRACK_ENCODERS
from core.live.detector import LEAST_DELAY_S, LiveDetector
from core.live.lines import ScoredFrame, as_line
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_audio import VideoAudio, audio_on_disk
from core.runtime.checks import as_number, as_path
from core.runtime.errors import EXIT_BROKEN_ITEMS, EXIT_INTERRUPTED, exits_cleanly
from core.runtime.files import printable

BLOCK = SAMPLE_RATE // 25  # samples that are pushed at a time
LATE_S = 0.2  # a frame that would be taken so much after its time is left out
SAID_EVERY_S = 5.0


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    with MediaFile(arguments.file, tolerant=True, as_played=True) as media, audio_on_disk(media) as audio:
        if audio is None:
            note("nothing can be heard: faces have no probability")
        faults = list(audio.faults) if audio is not None else []
        live = LiveDetector(
            arguments.encoder,
            arguments.weights,
            delay_s=arguments.delay,
            context=arguments.context,
            detector=arguments.detector,
            fps=media.info.fps,
            audio=audio is not None,
            cache=arguments.cache,
        )
        try:
            for frame in played(live, media, audio, note):
                print(as_line(frame), flush=True)
        except KeyboardInterrupt:  # as a camera is ended: nothing is kept that could be gone on with
            return EXIT_INTERRUPTED
        if damage := media.damage["video"]:
            faults.append(f"Video: {damage}.")
    for fault in faults:
        note(printable(fault))
    return EXIT_BROKEN_ITEMS if faults else 0


def note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=as_path, metavar="FILE", help="a video, played as fast as it was recorded")
    parser.add_argument(
        "--delay", type=delay, default=1.0, metavar="S", help=f"seconds, at least {LEAST_DELAY_S} (default 1)"
    )
    parser.add_argument("--encoder", choices=WHOLE_TRACK_ENCODERS, default=DEFAULT_ENCODER)
    parser.add_argument("--weights", metavar="NAME|FILE", help="of the encoder; by default those of detect.py")
    parser.add_argument("--context", metavar="shipped|none|FILE", default=SHIPPED, help="default shipped")
    parser.add_argument(
        "--detector", metavar="NAME|FILE", default=DEFAULT_DETECTOR, help="yunet (default), haar or a file"
    )
    parser.add_argument(
        "--cache", type=as_path, help="folder for downloaded weights; by default the user's cache folder"
    )
    return parser.parse_args(argv)


def delay(text: str) -> float:
    """An argparse type: a delay in seconds."""
    seconds = as_number(text)
    if seconds < LEAST_DELAY_S:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds, at least {LEAST_DELAY_S}")
    return seconds


def played(
    live: LiveDetector, media: MediaFile, audio: VideoAudio | None, note: Callable[[str], object]
) -> Iterator[ScoredFrame]:
    """What the detector gives of a file that is played in real time.

    Args:
        live: is pushed into.
        media: the open file.
        audio: of it.
        note: is told, every few seconds at most, how many frames were left out.
    """
    began_s = heard_s = None
    count = left_out = 0
    said_s = 0.0
    for frame in read_frames(media):
        if began_s is None:
            heard_s, began_s = frame.time_s, time.monotonic() - frame.time_s
        early_s = began_s + frame.time_s - time.monotonic()
        time.sleep(max(0.0, early_s))
        while audio is not None and heard_s <= frame.time_s:
            yield from live.push_audio(audio.part(heard_s, BLOCK), heard_s)
            heard_s += BLOCK / SAMPLE_RATE
        count += 1
        if early_s >= -LATE_S:
            yield from live.push_frame(frame.raw, frame.time_s)
            continue
        left_out += 1
        if time.monotonic() - said_s >= SAID_EVERY_S:
            said_s = time.monotonic()
            note(f"this machine is too slow: {left_out} of {count} frames were left out so far")
    yield from live.finish()
    if left_out:
        note(f"this machine is too slow: {left_out} of {count} frames were left out")


if __name__ == "__main__":
    main()
