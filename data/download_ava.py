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
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import quote

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.download.ava_release import (
    AVA,
    Sources,
    at_mirror,
    name_of,
    read_archive,
    read_md5s,
    read_video_names,
    unpack_annotations,
)
from core.download.many import Downloader, Remote, report_missing
from core.formats.ava import ANNOTATION_SUFFIX, SPLITS, annotation_files
from core.runtime.errors import exits_cleanly
from core.runtime.files import make_folder


def download_annotations(downloader: Downloader, splits: tuple[str, ...], sources: Sources) -> None:
    """Fetch the archives and unpack each to the folder of its split."""
    archives = {split: Path(name_of(sources.annotations[split])) for split in splits}
    there = downloader.fetch({archives[split]: sources.annotations[split] for split in splits}, "annotations")
    for split, archive in archives.items():
        if archive in there:
            count = unpack_annotations(downloader.folder / archive, downloader.folder / split)
            print(f"{split}: {count} annotated videos in {downloader.folder / split}")


def download_utility(downloader: Downloader, splits: tuple[str, ...], sources: Sources) -> None:
    """Fetch the augmented csvs of the splits; with both of them comes the one of the test split too."""
    keys = tuple(sources.utility) if set(splits) == set(SPLITS) else splits
    downloader.fetch({Path(name_of(sources.utility[key])): sources.utility[key] for key in keys}, "utility csvs")


def download_videos(
    downloader: Downloader,
    splits: tuple[str, ...],
    sources: Sources,
    annotations: Path | None = None,
    use_md5: bool = True,
) -> None:
    """Fetch the videos that are annotated, each to the folder of its split.

    `annotations` holds {train,val}/<video_id>-activespeaker.csv. None takes `annotations` beside the folder of the
    videos or, where that is absent, the ids in the archives, which are fetched to a temporary folder for it.
    """
    beside = downloader.folder.resolve().parent / "annotations"
    if annotations is None and beside.is_dir():
        annotations = beside
    if annotations is not None:
        ids = {split: set(annotation_files(annotations / split)) for split in splits}
    else:
        ids = archived_ids(downloader, splits, sources)

    lists = [sources.video_names, *([sources.video_md5s] if use_md5 else [])]
    there = downloader.fetch({Path(name_of(remote)): remote for remote in lists}, "lists of videos")
    names_path, md5s_path = Path(name_of(sources.video_names)), Path(name_of(sources.video_md5s))
    if use_md5 and md5s_path not in there:
        downloader.missing.append("all videos: without their checksums none is fetched (--no-md5: check sizes alone)")
    if len(there) < len(lists) or len(ids) < len(splits):
        return
    names = read_video_names(downloader.folder / names_path)
    md5s = read_md5s(downloader.folder / md5s_path) if use_md5 else {}

    remotes = {}
    for split in splits:
        files = {PurePosixPath(name).stem: name for name in names if PurePosixPath(name).stem in ids[split]}
        for name in files.values():
            remotes[Path(split, name)] = Remote(f"{sources.video_folder}/{quote(name)}", md5s.get(name))
        for video_id in sorted(ids[split] - files.keys()):
            downloader.missing.append(f"{split}/{video_id}: annotated, but not listed in {sources.video_names.url}")
        print(f"{split}: {len(files)} videos, {sum(name in md5s for name in files.values())} of them with a known MD5")
    downloader.fetch(remotes, "videos")


def archived_ids(downloader: Downloader, splits: tuple[str, ...], sources: Sources) -> dict[str, set[str]]:
    """The ids of the annotated videos of each split whose archive can be had."""
    with tempfile.TemporaryDirectory() as folder:
        temporary = Downloader(Path(folder), downloader.jobs, downloader.sleep)
        archives = {split: Path(name_of(sources.annotations[split])) for split in splits}
        there = temporary.fetch({archives[split]: sources.annotations[split] for split in splits}, "annotations")
        downloader.missing += temporary.missing
        return {
            split: {name.removesuffix(ANNOTATION_SUFFIX) for name, _ in read_archive(Path(folder, archive))}
            for split, archive in archives.items()
            if archive in there
        }


def parse(argv: list[str] | None) -> argparse.Namespace:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r}: give a number of at least 1")
        return int(text)

    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("destination", type=Path, help="folder to write to")
    common.add_argument("--split", choices=[*SPLITS, "both"], default="both")
    common.add_argument("--jobs", type=count, default=4, help="files at a time (default 4)")
    common.add_argument("--mirror", metavar="URL", help="takes the place of scheme and host of every address")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    commands.add_parser("annotations", parents=[common], help="the csvs of all annotated videos")
    videos = commands.add_parser("videos", parents=[common], help="the annotated videos")
    videos.add_argument(
        "--annotations",
        type=Path,
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
        download_annotations(downloader, splits, sources)
    elif args.what == "videos":
        download_videos(downloader, splits, sources, args.annotations, use_md5=not args.no_md5)
    else:
        download_utility(downloader, splits, sources)
    if not downloader.missing:
        print(f"complete: {args.destination}")
    return report_missing(downloader.missing)


if __name__ == "__main__":
    main()
