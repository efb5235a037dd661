"""Cut the speakers out of videos: a clip of the face for each stretch of speech, or one video that follows who speaks.

    python scripts/export_clips.py interview.asd --speaking --min-seconds 2 --out clips/
    python scripts/export_clips.py interview.asd --all --persons "Person 2" --fps 25 --size 112
    python scripts/export_clips.py interview.asd --reframe 9:16
    python scripts/export_clips.py found/*.asd --jobs 4

Reads what detect.py has written (speakers.json) and the video. Clips are square and steady, have their audio, and are
listed in <video>-clips.csv; beside each is a csv of its frames. What is there already, made of the same files with the
same options, is not made again; what was made otherwise is removed first.
"""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

from tqdm import tqdm

from core import parallel
from core.cutting.face_clips import plan_clips, write_clip, write_clips_csv
from core.cutting.reframing import plan_takes, window_of, write_reframed
from core.cutting.results import Results, read_results
from core.media.video_audio import audio_on_disk
from core.media.video_writer import audio_form
from core.runtime import elsewhere
from core.runtime.checks import as_number, as_whole
from core.runtime.errors import UserError, exits_cleanly, of_one_video
from core.runtime.files import make_folder, printable
from core.runtime.provenance import Files, Record

LEAST_SIZE, LARGEST_SIZE = 16, 4096


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "results", type=elsewhere.place, nargs="+", help="folders that detect.py has written, such as interview.asd"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--speaking", action="store_true", help="a clip for each stretch of speech (default)")
    what.add_argument("--all", action="store_true", help="a clip for each face track, whether it speaks or not")
    what.add_argument("--reframe", metavar="W:H", help="one video of this shape, such as 9:16, that follows who speaks")
    parser.add_argument("--out", type=elsewhere.place, default=Path("clips"), help="folder to write to (default clips)")
    parser.add_argument(
        "--persons",
        action="append",
        default=[],
        metavar="NAME",
        help="whose clips, or whom to follow: a name, 'Person 2' or its number; may be repeated (default all)",
    )
    parser.add_argument("--min-seconds", default="1", metavar="S", help="of a clip (default 1)")
    parser.add_argument("--size", default="224", metavar="PX", help="side of a clip, even (default 224)")
    parser.add_argument("--fps", default="own", choices=("own", "25"), help="frames a second of clips (default own)")
    parser.add_argument("--video", type=elsewhere.place, help="where the video is, if it is not where it was")
    parallel.add_arguments(parser)
    arguments = parser.parse_args(argv)
    options = {
        "persons": arguments.persons,
        "min_s": least_seconds(arguments.min_seconds),
        "whole_tracks": arguments.all,
        "size": side(arguments.size),
        "fps": None if arguments.fps == "own" else float(arguments.fps),
        "shape": None if arguments.reframe is None else proportions(arguments.reframe),
    }
    cut = partial(cut_out, out=arguments.out, video=arguments.video, **options)
    if len(arguments.results) == 1 and arguments.cluster is None:
        cut(arguments.results[0])
        return 0
    if arguments.video is not None:
        raise UserError("--video says where one video is: give one folder of results with it")
    folders = {folder.resolve().name: folder for folder in arguments.results}
    if len(folders) < len(arguments.results):
        raise UserError(
            "two folders of results have one name, and would share the names of their clips: give one --out each"
        )
    make_folder(arguments.out)
    return parallel.run(partial(one_of_many, cut), folders, arguments, "videos")


def one_of_many(cut: Callable[[Path], None], folder: Path) -> None:
    """Cut the speakers out of one video; what is wrong with it does not stop the others."""
    with of_one_video():
        cut(folder)


def cut_out(
    folder: Path,
    *,
    out: Path,
    video: Path | None,
    persons: list[str],
    min_s: float,
    whole_tracks: bool,
    size: int,
    fps: float | None,
    shape: tuple[int, int] | None,
) -> None:
    """Write what is asked for of one video."""
    results = read_results(folder, video).of_persons(persons)
    if not results.has_audio and not whole_tracks and shape is None:
        raise UserError(f"{results.video} has no audio, so nobody is known to speak: --all cuts out whole face tracks")
    make_folder(out)
    if shape is not None:
        reframe(results, out, shape, persons)
    else:
        export(results, out, {"persons": persons, "min_s": min_s, "whole_tracks": whole_tracks}, size, fps)


def export(results: Results, out: Path, options: dict, size: int, fps: float | None) -> None:
    """Write the clips of a video that are not there, and their table."""
    clips = plan_clips(results, options["min_s"], whole_tracks=options["whole_tracks"])
    table = f"{printable(results.video.stem)}-clips.csv"
    record = record_of(results, out, printable(results.video.name), {**options, "size": size, "fps": fps})
    missing = record.missing([table, *(name for clip in clips for name in clip.files)])
    with results.open() as media:
        if missing:
            rate, channels = audio_form(media.audio) if results.has_audio else (0, 0)
            with audio_on_disk(media, rate, channels) as audio:
                to_cut = [clip for clip in clips if not {*clip.files}.isdisjoint(missing)]
                for clip in tqdm(to_cut, unit="clip", leave=False, disable=None):
                    with record.making(clip.files):
                        write_clip(out, clip, media, audio, size, fps)
        if table in missing:
            with record.making([table]):
                write_clips_csv(out / table, clips, results.video)
    seconds = sum(clip.end_s - clip.start_s for clip in clips)
    print(printable(f"{out / table}: {len(clips)} clip(s), {seconds:.1f} s, {len(missing)} file(s) written"))


def reframe(results: Results, out: Path, shape: tuple[int, int], persons: list[str]) -> None:
    """Write the video in another shape, unless it is there."""
    name = f"{printable(results.video.stem)}-{shape[0]}x{shape[1]}.mp4"
    record = record_of(
        results,
        out,
        f"{printable(results.video.name)}-{shape[0]}x{shape[1]}",
        {"shape": list(shape), "persons": persons},
    )
    if record.missing([name]):
        with results.open() as media, record.making([name]):
            window = window_of(media.info, shape)
            takes = plan_takes(results, media.info, window)
            write_reframed(out / name, media, window, takes)
        print(printable(f"{out / name}: {window[0]} x {window[1]} pixels, {len(takes)} take(s)"))
    else:
        print(printable(f"{out / name}: done before"))


def record_of(results: Results, out: Path, item: str, settings: dict) -> Record:
    """The record of what is made of a video and its results with these settings."""
    made_of = {"video": Files.one(results.video), "results": Files.one(results.path), "settings": settings}
    return Record(out, item, "clips", made_of)


def least_seconds(text: str) -> float:
    """--min-seconds as a number; a UserError if it is none."""
    try:
        seconds = as_number(text)
    except ValueError:
        seconds = -1.0
    if seconds < 0:
        raise UserError(f"--min-seconds {text}: expected seconds, 0 or more")
    return seconds


def side(text: str) -> int:
    """--size as a number; a UserError if it is not even, or too small or large."""
    try:
        size = as_whole(text)
    except ValueError:
        size = 0
    if size % 2 or not LEAST_SIZE <= size <= LARGEST_SIZE:
        raise UserError(f"--size {text}: expected an even number of pixels, {LEAST_SIZE} to {LARGEST_SIZE}")
    return size


def proportions(text: str) -> tuple[int, int]:
    """--reframe as width and height; a UserError if it is not of that form."""
    try:
        width, height = map(as_whole, text.split(":"))
        if not (0 < width < 1000 and 0 < height < 1000):
            raise ValueError
    except ValueError:
        raise UserError(f"--reframe {text}: expected width:height, such as 9:16") from None
    return width, height


if __name__ == "__main__":
    main()
