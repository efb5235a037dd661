"""Fetch AVA-ActiveSpeaker: the annotations, and the videos that are annotated.

    ava-download annotations configs/config.yaml ava_data
    ava-download videos      configs/config.yaml ava_data --jobs 4

(or `python -m ava_asd.download ...`). The annotations go to train_ann_dir and test_ann_dir (AVA's validation split),
the videos to vid_save_path; the archives and lists that they come from stay in download_path.

What is there is skipped, what is half there (`*.part`) is continued: after an interrupt run the same command again.
What could not be fetched is listed at the end, and the exit status is 1. `--mirror http://host:8000/ava` asks another
server: it takes the place of scheme and host of every address.
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from ava_asd.arguments import add_arguments
from ava_asd.config import read_config
from ava_asd.layout import ANNOTATION_KEYS, annotated_videos
from core.download.ava_release import AVA, Sources, at_mirror, fetch_annotations, find_videos
from core.download.many import Downloader, Remote, report_missing
from core.runtime import elsewhere
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
    if arguments.no_md5:  # the archives' own are left out too
        sources = dataclasses.replace(
            sources, annotations={split: Remote(remote.url) for split, remote in sources.annotations.items()}
        )
    videos = config.path(data, "vid_save_path")
    if arguments.what == "videos" and elsewhere.url_of(videos):
        raise UserError(f"vid_save_path {videos}: expected a path of this machine to download to")
    lists = Downloader(make_folder(config.path(data, "download_path")), arguments.jobs, sleep)
    if arguments.what == "annotations":
        folders = {release: config.path(data, ANNOTATION_KEYS[split]) for split, release in ARCHIVES.items()}
        for release, count in fetch_annotations(lists, folders, sources).items():
            print(f"{release}: {count} annotated videos in {folders[release]}")
        return report_missing(lists.missing)
    ids = dict.fromkeys(annotated_videos(config, data), Path())
    wanted = find_videos(lists, ids, sources, use_md5=not arguments.no_md5)
    videos = Downloader(make_folder(videos), arguments.jobs, sleep)
    fetched = videos.fetch(wanted, "videos")
    print(f"{len(fetched)} of {len(ids)} annotated videos in {videos.folder}")
    return report_missing(lists.missing + videos.missing)


if __name__ == "__main__":
    main()
