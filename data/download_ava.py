"""Fetch AVA-ActiveSpeaker: annotations, videos, and the augmented csvs that the authors of the method host.

    python data/download_ava.py annotations ava/annotations
    python data/download_ava.py videos ava/videos --jobs 4
    python data/download_ava.py utility ava/utility

Files: ava/annotations/{train,val}/<video_id>-activespeaker.csv, ava/videos/{train,val}/<video_id>.{mkv,mp4,webm} and
ava/utility/ava_activespeaker_{train,val,test}_augmented.csv. The archives and lists they come from stay beside them.
A small variant, one archive:

    python data/download_ava.py annotations ava/annotations --split val

What is there is skipped, what is half there (`*.part`) is continued: after an interrupt run the same command again.
What could not be fetched is listed at the end, and the exit status is 1. `--mirror http://host:8000/ava` asks another
server: it takes the place of scheme and host, and the rest of each address is appended as it is
(https://s3.amazonaws.com/ava-dataset/trainval/X becomes http://host:8000/ava/ava-dataset/trainval/X).
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

from core.download.ava_release import AVA, Sources, at_mirror, fetch_annotations, find_videos, name_of
from core.download.many import Downloader, report_missing
from core.formats.ava import SPLITS, annotation_files
from core.runtime.checks import as_path
from core.runtime.errors import exits_cleanly
from core.runtime.files import make_folder


def download_videos(
    downloader: Downloader, splits: tuple[str, ...], sources: Sources, annotations: Path | None, *, use_md5: bool
) -> None:
    """Download the videos that are annotated, each to the folder of its split.

    `annotations` holds {train,val}/<video_id>-activespeaker.csv. None takes `annotations` beside the folder of the
    videos or, where that is absent, the ids in the archives, which are downloaded to a temporary folder for it.
    """
    beside = downloader.folder.resolve().parent / "annotations"
    if annotations is None and beside.is_dir():
        annotations = beside
    with contextlib.ExitStack() as stack:
        if annotations is None:
            annotations = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            archives = Downloader(annotations, downloader.jobs, downloader.sleep)
            there = fetch_annotations(archives, {split: annotations / split for split in splits}, sources)
            downloader.missing += archives.missing
            if len(there) < len(splits):
                return
        ids = {video_id: Path(split) for split in splits for video_id in annotation_files(annotations / split)}
    videos = find_videos(downloader, ids, sources, use_md5=use_md5)
    for split in splits:
        of_split = [remote for path, remote in videos.items() if path.parent == Path(split)]
        print(f"{split}: {len(of_split)} videos, {sum(remote.md5 is not None for remote in of_split)} with a known MD5")
    downloader.fetch(videos, "videos")


def parse(argv: list[str] | None) -> argparse.Namespace:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r}: give a number of at least 1")
        return int(text)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("destination", type=as_path, help="folder to write to")
    common.add_argument("--split", choices=[*SPLITS, "both"], default="both")
    common.add_argument("--jobs", type=count, default=4, help="files at a time (default 4)")
    common.add_argument("--mirror", metavar="URL", help="takes the place of scheme and host of every address")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("annotations", parents=[common], help="the csvs of all annotated videos")
    videos = commands.add_parser("videos", parents=[common], help="the annotated videos")
    videos.add_argument(
        "--annotations",
        type=as_path,
        metavar="DIR",
        help="folder with {train,val}/<video_id>-activespeaker.csv (default: annotations beside the destination, or "
        "else the archives, fetched for the purpose)",
    )
    videos.add_argument("--no-md5", action="store_true", help="check sizes alone, not the list of checksums")
    commands.add_parser("utility", parents=[common], help="the augmented csvs; with --split both the test one too")
    return parser.parse_args(argv)


@exits_cleanly
def main(
    argv: list[str] | None = None, *, sources: Sources = AVA, sleep: Callable[[float], object] | None = None
) -> int:
    args = parse(argv)
    if args.mirror is not None:
        sources = at_mirror(sources, args.mirror)
    splits = SPLITS if args.split == "both" else (args.split,)
    downloader = Downloader(make_folder(args.destination), args.jobs, sleep)
    if args.what == "annotations":
        folders = {split: downloader.folder / split for split in splits}
        for split, count in fetch_annotations(downloader, folders, sources).items():
            print(f"{split}: {count} annotated videos in {folders[split]}")
    elif args.what == "videos":
        download_videos(downloader, splits, sources, args.annotations, use_md5=not args.no_md5)
    else:  # with both splits comes the csv of the test split too
        keys = tuple(sources.utility) if set(splits) == set(SPLITS) else splits
        downloader.fetch({Path(name_of(sources.utility[key])): sources.utility[key] for key in keys}, "utility csvs")
    if not downloader.missing:
        print(f"complete: {args.destination}")
    return report_missing(downloader.missing)


if __name__ == "__main__":
    main()
