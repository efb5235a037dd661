"""Who speaks, while people speak: a line of JSON for each frame, a stated time after it.

    python scripts/live.py interview.mp4 --delay 0.5 | your-program
    python scripts/live.py rtsp://192.168.1.20/stream --page   # a stream, and a page in the browser to look at
    python scripts/live.py --camera 0 --record talk   # a camera of this machine, and all that detect.py writes
    python scripts/live.py --page   # the browser's own camera and microphone

A file is played in real time, as a camera and a microphone would give it. A line is
{"time": 1.04, "faces": [{"id": 1, "box": [x1, y1, x2, y2], "probability": 0.93}]}; see core/live/live.schema.json. When
the machine is too slow frames are left out, and standard error says how many. Ctrl-C ends it. More: docs/live.md.
"""

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

from core.detection.options import DEFAULT_DETECTOR, DEFAULT_ENCODER, NONE, SHIPPED, WHOLE_TRACK_ENCODERS
from core.live.detector import LEAST_DELAY_S, LiveDetector
from core.live.inbox import Inbox, scored_frames
from core.live.lines import as_line
from core.live.recording import Recording
from core.live.server import BrowserSource, Page
from core.live.sources import DEVICES, CameraSource, FileSource, Source, StreamSource, playing
from core.media.container import MediaFile
from core.media.video_audio import audio_on_disk
from core.runtime import elsewhere
from core.runtime.checks import as_number, as_path, as_whole
from core.runtime.errors import EXIT_BROKEN_ITEMS, EXIT_INTERRUPTED, exits_cleanly
from core.runtime.files import printable

NO_MICROPHONE = "none"
SAID_EVERY_S = 5.0
MOST_NOTES = 100  # that are kept for the recording
MOST_PORT = 65535


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    with contextlib.ExitStack() as stack:
        source = open_source(arguments, stack)
        live = LiveDetector(
            arguments.encoder,
            arguments.weights,
            delay_s=arguments.delay,
            context=arguments.context,
            people=arguments.people,
            detector=arguments.detector,
            fps=source.fps,
            audio=source.has_audio,
            cache=arguments.cache,
        )
        recording = Recording(arguments.record, live) if arguments.record else None
        inbox, page = Inbox(), None
        if arguments.page:
            takes_camera = isinstance(source, BrowserSource)
            page = stack.enter_context(
                Page(arguments.port, source.name, arguments.delay, inbox, takes_camera=takes_camera)
            )
            note(f"the page is at {page.address}")
        told = Notes(page)
        if not source.has_audio:
            told("Nothing can be heard: faces have no probability.")
        interrupted = stack.enter_context(ends_on_interrupt(inbox))
        stack.enter_context(playing(source, inbox, told))
        fault = None
        try:
            try:
                for scored, seen in scored_frames(live, inbox):
                    print(as_line(scored), flush=True)
                    if page is not None:
                        page.show(scored, seen)
                    if recording is not None:
                        recording.add(scored, seen)
                    told.count(inbox)
            except Exception as error:  # what was recorded before is kept
                fault = error
                told.notes.append(f"It ended early: {printable(str(error)).removesuffix('.')}.")
            told.count(inbox, at_end=True)
            for damage in source.faults:
                told(printable(damage))
            if recording is not None:
                told.written(recording.finish(told.notes, complete=fault is None and not source.faults))
        except KeyboardInterrupt:  # the second
            if recording is not None:
                recording.abandon()
                note("interrupted at once: what of the recording was not finished is lost.")
            return EXIT_INTERRUPTED
        if fault is not None:
            raise fault
        if interrupted and source.ends:
            return EXIT_INTERRUPTED
        return EXIT_BROKEN_ITEMS if source.faults else 0


@contextlib.contextmanager
def ends_on_interrupt(inbox: Inbox) -> Iterator[list[int]]:
    """In a `with` block Ctrl-C closes the inbox, and what it holds is worked through; a second one ends the program.

    Gives the signals that came.
    """
    came = []

    def close(number: int, frame: object) -> None:
        came.append(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        inbox.close()

    if threading.current_thread() is not threading.main_thread():  # which signals are for
        yield came
        return
    before = signal.signal(signal.SIGINT, close)
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)


def open_source(arguments: argparse.Namespace, stack: contextlib.ExitStack) -> Source:
    """What the command line names, open until the stack is closed."""
    if arguments.camera is not None:
        microphone = arguments.microphone
        if microphone is None:
            microphone = DEVICES[sys.platform].microphone if sys.platform in DEVICES else ""
        return CameraSource(arguments.camera, "" if microphone == NO_MICROPHONE else microphone)
    if arguments.source is None:
        return BrowserSource()
    if elsewhere.is_address(arguments.source):
        return StreamSource(arguments.source)
    media = stack.enter_context(MediaFile(as_path(arguments.source), tolerant=True, as_played=True))
    return FileSource(media, stack.enter_context(audio_on_disk(media)))


class Notes:
    """Sentences for people, on standard error and on the page.

    Attributes:
        notes: the last of them.
    """

    def __init__(self, page: Page | None):
        self.page, self.said_s, self.said_left_out = page, 0.0, 0
        self.notes: deque[str] = deque(maxlen=MOST_NOTES)

    def __call__(self, text: str) -> None:
        note(text)
        self.notes.append(text)
        if self.page is not None:
            self.page.note(text)

    def count(self, inbox: Inbox, *, at_end: bool = False) -> None:
        """Say how many frames were left out, every few seconds; the page shows it by itself."""
        text = f"This machine is too slow: {inbox.left_out:,} of {inbox.frames:,} frames were left out"
        if at_end and inbox.left_out:
            note(f"{text}.")
            self.notes.append(f"{text}.")
        elif inbox.left_out > self.said_left_out and time.monotonic() - self.said_s >= SAID_EVERY_S:
            self.said_s, self.said_left_out = time.monotonic(), inbox.left_out
            note(f"{text} so far.")

    def written(self, paths: Sequence[Path]) -> None:
        """Say what was recorded."""
        names = ", ".join(path.name for path in paths)
        self(f"Recorded in {paths[0].parent}: {names}." if paths else "Nothing was recorded: there was no frame.")


def note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "source",
        nargs="?",
        metavar="FILE|ADDRESS",
        help="a video, played as fast as it was recorded, or an address that FFmpeg reads (rtsp://, http://, …); by "
        "default, with --page, the browser's camera and microphone",
    )
    parser.add_argument("--camera", metavar="N|NAME", help="a camera of this machine")
    parser.add_argument("--microphone", metavar="NAME|none", help="beside --camera, as ALSA or AVFoundation calls it")
    parser.add_argument(
        "--delay", type=delay, default=1.0, metavar="S", help=f"seconds, at least {LEAST_DELAY_S} (default 1)"
    )
    parser.add_argument("--page", action="store_true", help="show it on a page in the browser, of this machine alone")
    parser.add_argument("--port", type=port, default=0, metavar="N", help="of the page; by default any that is free")
    parser.add_argument(
        "--record", type=as_path, metavar="DIR", help="write the video, and what detect.py writes, into this new folder"
    )
    parser.add_argument("--encoder", choices=WHOLE_TRACK_ENCODERS, default=DEFAULT_ENCODER)
    parser.add_argument("--weights", metavar="NAME|FILE", help="of the encoder; by default those of detect.py")
    parser.add_argument("--context", metavar="shipped|none|FILE", default=SHIPPED, help="default shipped")
    parser.add_argument(
        "--people",
        action=argparse.BooleanOptionalAction,
        help="remember voices over cuts and absences by persons, told apart by the embeddings of faces (biometric "
        "data; kept in memory only); by default so where SFace's weights are in the cache, which --people downloads "
        "once, else by faces that look nearly alike; with --no-people only as long as a face is seen",
    )
    parser.add_argument(
        "--detector", metavar="NAME|FILE", default=DEFAULT_DETECTOR, help="yunet (default), haar or a file"
    )
    parser.add_argument(
        "--cache", type=as_path, help="folder for downloaded weights; by default the user's cache folder"
    )
    arguments = parser.parse_args(argv)
    if arguments.source is not None and arguments.camera is not None:
        parser.error(f"{arguments.source} and --camera: give one of them")
    if arguments.source is None and arguments.camera is None and not arguments.page:
        parser.error("give a FILE, an ADDRESS, --camera, or --page for the browser's own camera")
    if arguments.microphone is not None and arguments.camera is None:
        parser.error("--microphone goes with --camera")
    if arguments.people and arguments.context == NONE:
        parser.error("--people: persons are for the voices that the context remembers; with --context none omit it")
    return arguments


def port(text: str) -> int:
    """An argparse type: the number of a port, 0 for any."""
    number = as_whole(text)
    if not 0 <= number <= MOST_PORT:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 0 to {MOST_PORT}")
    return number


def delay(text: str) -> float:
    """An argparse type: a delay in seconds."""
    seconds = as_number(text)
    if seconds < LEAST_DELAY_S:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds, at least {LEAST_DELAY_S}")
    return seconds


if __name__ == "__main__":
    main()
