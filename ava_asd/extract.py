"""Extract what a training reads: frames and audio, then MFCCs, then windows.

    ava-extract videos      configs/config.yaml ava_data --jobs 2
    ava-extract mfccs       configs/config.yaml ava_data --jobs 2
    ava-extract annotations configs/config.yaml ava_data

(or `python -m ava_asd.extract ...`), in this order. Each works on the annotated videos of both splits; a broken or
absent video does not stop the others, and is listed at the end. A video is skipped if it was finished before with
the same settings, annotations and video file, and all that was written can be read; else it is extracted again.

videos       writes <extracted_path>/<video_id>/: frames (jpg) and audio (wav) from the first to the last annotated
             time and eps seconds to either side, start_ts, and the faces at network size (see ava_asd/layout.py)
mfccs        writes the normalised MFCCs of each video's audio
annotations  writes train_annotations_full and test_annotations_full, the windows of both splits
"""

import argparse
from collections.abc import Sequence
from functools import partial
from operator import call
from pathlib import Path

from ava_asd.arguments import add_arguments, configuration
from ava_asd.config import Config
from ava_asd.extract_annotations import samples_of, windows_of
from ava_asd.extract_mfccs import extract_mfccs
from ava_asd.extract_videos import extract_video
from ava_asd.layout import ANNOTATION_KEYS, SPLITS, annotated_videos, video_folder
from ava_asd.samples import write_samples
from core.formats.ava import annotation_files
from core.runtime import parallel
from core.runtime.errors import MediaError, UserError, exits_cleanly


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    for name, text in (("videos", "frames, audio and faces"), ("mfccs", "MFCCs"), ("annotations", "windows")):
        command = commands.add_parser(name, help=text)
        add_arguments(command)
        if name != "annotations":
            parallel.add_arguments(command)
    return parser.parse_args(argv)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    config = configuration(arguments)
    arguments.out = config.path(arguments.data, "extracted_path")
    command = {"videos": extract_videos, "mfccs": extract_all_mfccs, "annotations": extract_annotations}
    return command[arguments.what](config, arguments)


def extract_videos(config: Config, arguments: argparse.Namespace) -> int:
    """Frames, audio and faces of all annotated videos; the exit status."""
    data, videos = arguments.data, config.path(arguments.data, "vid_save_path")
    if not videos.is_dir():
        raise UserError(f"no videos: there is no folder {videos}; run 'ava-download videos', or set vid_save_path")
    tasks = {
        name: partial(extract_video, video_folder(config, data, name), config, annotations, videos)
        for name, annotations in annotated_videos(config, data).items()
    }
    return parallel.run(call, tasks, arguments, "frames and audio")


def extract_all_mfccs(config: Config, arguments: argparse.Namespace) -> int:
    """MFCCs of all annotated videos; the exit status."""
    data = arguments.data
    tasks = {
        name: partial(extract_mfccs, video_folder(config, data, name), config)
        for name in annotated_videos(config, data)
    }
    return parallel.run(call, tasks, arguments, "MFCCs")


def extract_annotations(config: Config, arguments: argparse.Namespace) -> int:
    """The windows of both splits; the exit status."""
    annotated_videos(config, arguments.data)  # checks both splits before either is written
    statuses = [extract_split(config, arguments.data, split) for split in SPLITS]
    return max(statuses)


def extract_split(config: Config, data: Path, split: str) -> int:
    """The windows of a split; the exit status.

    Raises:
        UserError: the split has no window.
    """
    key = f"{split}_annotations_full"
    files = annotation_files(config.path(data, ANNOTATION_KEYS[split]))
    tables, videos, broken = [], [], {}
    for name, annotations in files.items():
        folder = video_folder(config, data, name)
        try:
            tables.append(windows_of(folder, annotations, config))
            videos.append(folder)
        except MediaError as error:
            broken[name] = str(error)
    samples = samples_of(tables, config, videos)
    if len(samples) == 0:
        why = next(iter(broken.values()), f"no face track has {config.video_window} faces at {config.fps:g} a second")
        raise UserError(f"no samples for {key}: {why}")
    write_samples(config.path(data, key), samples)
    print(f"{split}: {len(samples):,} samples of {config.video_window} faces")
    return parallel.report(broken, len(files), config.path(data, key))


if __name__ == "__main__":
    main()
