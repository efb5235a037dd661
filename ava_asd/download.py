"""Fetch AVA-ActiveSpeaker: the annotations, and the videos that are annotated.

    ava-download annotations configs/config.yaml ava_data
    ava-download videos      configs/config.yaml ava_data --jobs 4

(or `python -m ava_asd.download ...`). The annotations go to train_ann_dir and test_ann_dir (AVA's validation split),
the videos to vid_save_path; the archives and lists that they come from stay in download_path.

What is there is skipped, what is half there (`*.part`) is continued: after an interrupt run the same command again.
What could not be fetched is listed at the end, and the exit status is 1. `--mirror http://host:8000/ava` asks another
server: it takes the place of scheme and host of every address.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from ava_asd.arguments import add_arguments
from ava_asd.config import Config, read_config
from ava_asd.layout import ANNOTATION_KEYS, annotated_videos
from core.download.ava_release import AVA, Sources, at_mirror, name_of, read_md5s, read_video_names, unpack_annotations
from core.download.many import Downloader, Remote, report_missing
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import make_folder

ARCHIVES = {"train": "train", "test": "val"}  # split here -> split of the release


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    for name, text in (("annotations", "the csvs of both splits"), ("videos", "the annotated videos")):
        command = commands.add_parser(name, help=text)
        add_arguments(command)
        command.add_argument("--jobs", type=int, default=4, help="files at a time (default 4)")
        command.add_argument("--mirror", metavar="URL", help="takes the place of scheme and host of every address")
        command.add_argument("--no-md5", action="store_true", help="check sizes alone, for a server with other files")
    return parser.parse_args(argv)


@exits_cleanly
def main(
    argv: Sequence[str] | None = None, *, sources: Sources = AVA, sleep: Callable[[float], object] | None = None
) -> int:
    arguments = parse_arguments(argv)
    config, data = read_config(arguments.config), arguments.data  # the folder may be new
    if arguments.jobs < 1:
        raise UserError(f"--jobs {arguments.jobs}: expected 1 or more")
    if arguments.mirror is not None:
        sources = at_mirror(sources, arguments.mirror)
    lists = Downloader(make_folder(config.path(data, "download_path")), arguments.jobs, sleep)
    if arguments.what == "annotations":
        download_annotations(lists, config, data, sources, use_md5=not arguments.no_md5)
        missing = lists.missing
    else:
        videos = Downloader(make_folder(config.path(data, "vid_save_path")), arguments.jobs, sleep)
        download_videos(lists, videos, config, data, sources, use_md5=not arguments.no_md5)
        missing = lists.missing + videos.missing
    return report_missing(missing)


def download_annotations(
    downloader: Downloader, config: Config, data: Path, sources: Sources, *, use_md5: bool
) -> None:
    """Fetch the archives and unpack each to the folder of its split."""
    remotes = {split: sources.annotations[release] for split, release in ARCHIVES.items()}
    if not use_md5:
        remotes = {split: Remote(remote.url) for split, remote in remotes.items()}
    there = downloader.fetch({Path(name_of(remote)): remote for remote in remotes.values()}, "annotations")
    for split, remote in remotes.items():
        archive = Path(name_of(remote))
        if archive in there:
            folder = config.path(data, ANNOTATION_KEYS[split])
            count = unpack_annotations(downloader.folder / archive, folder)
            print(f"{split}: {count} annotated videos in {folder}")


def download_videos(
    lists: Downloader, videos: Downloader, config: Config, data: Path, sources: Sources, *, use_md5: bool
) -> None:
    """Fetch the videos that the annotations of both splits are of.

    Args:
        lists: fetches the lists of names and checksums.
        videos: fetches the videos.
        config, data: settings, and the folder that their paths are under.
        sources: where everything lies.
        use_md5: whether the videos are checked by the list of checksums, not by their sizes alone.

    Raises:
        UserError: the annotations are not there.
    """
    ids = annotated_videos(config, data)
    remotes = [sources.video_names, *([sources.video_md5s] if use_md5 else [])]
    there = lists.fetch({Path(name_of(remote)): remote for remote in remotes}, "lists of videos")
    if len(there) < len(remotes):
        lists.missing.append("all videos: without the lists none is fetched (--no-md5: do without the checksums)")
        return
    names = read_video_names(lists.folder / name_of(sources.video_names))
    md5s = read_md5s(lists.folder / name_of(sources.video_md5s)) if use_md5 else {}
    files = {PurePosixPath(name).stem: name for name in names if PurePosixPath(name).stem in ids}
    for video_id in sorted(ids.keys() - files.keys()):
        videos.missing.append(f"{video_id}: annotated, but not listed in {sources.video_names.url}")
    wanted = {Path(name): Remote(f"{sources.video_folder}/{quote(name)}", md5s.get(name)) for name in files.values()}
    fetched = videos.fetch(wanted, "videos")
    print(f"{len(fetched)} of {len(ids)} annotated videos in {videos.folder}")


if __name__ == "__main__":
    main()
