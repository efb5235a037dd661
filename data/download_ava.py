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
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, urlsplit

from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.ava import ANNOTATION_SUFFIX, SPLITS, annotation_files
from core.ava_release import read_archive, read_md5s, read_video_names, unpack_annotations
from core.download_many import Remote, fetch_all
from core.errors import EXIT_BROKEN_ITEMS, UserError, exits_cleanly
from core.files import make_folder


@dataclass(frozen=True)
class Sources:
    """Where everything lies; `AVA` below is the table that is used."""

    annotations: Mapping[str, Remote]  # split -> archive of csvs
    utility: Mapping[str, Remote]  # split, or "test" -> csv
    video_names: Remote  # one file name a line
    video_md5s: Remote  # csv with the header file_name,md5
    video_folder: str  # address of the videos, without the file name


AVA = Sources(
    annotations={
        "train": Remote(
            "https://research.google.com/ava/download/ava_activespeaker_train_v1.0.tar.bz2",
            "0e6ebaacfb3a554199e319e0c26a1ec0",
        ),
        "val": Remote(
            "https://research.google.com/ava/download/ava_activespeaker_val_v1.0.tar.bz2",
            "c00210f1d62caaf32759afb92b4562cc",
        ),
    },
    utility={
        split: Remote(
            "https://filedn.com/l0kNCNuXuEq70c3iUHsXxJ7/active-speakers-context/"
            f"ava_activespeaker_{split}_augmented.csv"
        )
        for split in ("train", "val", "test")
    },
    video_names=Remote("https://s3.amazonaws.com/ava-dataset/annotations/ava_speech_file_names_v1.txt"),
    # AVA itself gives no checksums of the videos; this list is another project's, and pinned by its own checksum.
    video_md5s=Remote(
        "https://raw.githubusercontent.com/tuanchien/asd/master/ava_speech_file_names_v1.csv",
        "aa990d3a628b7cb0c181572e600d79c0",
    ),
    video_folder="https://s3.amazonaws.com/ava-dataset/trainval",
)

FEW_FILES = 3  # up to here the progress bar counts bytes, beyond it files


def at_mirror(sources: Sources, mirror: str) -> Sources:
    """The same table with `mirror` in place of each address' scheme and host."""
    if urlsplit(mirror).scheme not in ("http", "https") or not urlsplit(mirror).netloc:
        raise UserError(f"--mirror {mirror}: give an address such as http://host:8000/folder")

    def moved(url: str) -> str:
        return mirror.rstrip("/") + urlsplit(url).path

    def all_moved(remotes: Mapping[str, Remote]) -> dict[str, Remote]:
        return {key: Remote(moved(url), md5) for key, (url, md5) in remotes.items()}

    return Sources(
        annotations=all_moved(sources.annotations),
        utility=all_moved(sources.utility),
        video_names=Remote(moved(sources.video_names.url), sources.video_names.md5),
        video_md5s=Remote(moved(sources.video_md5s.url), sources.video_md5s.md5),
        video_folder=moved(sources.video_folder),
    )


class Downloader:
    """Fetches remotes into one folder, with a bar, and remembers what is missing."""

    def __init__(self, folder: Path, jobs: int, sleep: Callable[[float], object] | None) -> None:
        self.folder = folder
        self.jobs = jobs
        self.sleep = sleep
        self.missing: list[str] = []  # a line each

    def fetch(self, remotes: Mapping[Path, Remote], title: str) -> set[Path]:
        """Fetch each remote to its path in the folder; the paths that are there in the end."""
        lock, seen = threading.Lock(), {}
        by_bytes = len(remotes) <= FEW_FILES
        unit = {"unit": "B", "unit_scale": True, "unit_divisor": 1024} if by_bytes else {"unit": "file"}
        with tqdm(desc=title, total=0 if by_bytes else len(remotes), disable=None, **unit) as bar:

            def on_bytes(path: Path, done: int, total: int | None) -> None:
                if by_bytes:
                    with lock:
                        seen[path] = (done, total or done)
                        bar.total = sum(total for _, total in seen.values())
                        bar.update(sum(done for done, _ in seen.values()) - bar.n)

            errors = fetch_all(
                {self.folder / path: remote for path, remote in remotes.items()},
                jobs=self.jobs,
                on_bytes=on_bytes,
                on_file=lambda path: None if by_bytes else bar.update(),
                sleep=self.sleep,
            )
        for path, error in errors.items():
            self.missing.append(f"{path.relative_to(self.folder)}: {error.reason} ({error.url})")
        return {path for path in remotes if self.folder / path not in errors}


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


def name_of(remote: Remote) -> str:
    """The file name in an address."""
    return PurePosixPath(urlsplit(remote.url).path).name


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
        return 0
    print(f"{len(downloader.missing)} missing; to try again run the same command:", file=sys.stderr)
    for line in downloader.missing:
        print(f"  {line}", file=sys.stderr)
    return EXIT_BROKEN_ITEMS


if __name__ == "__main__":
    main()
