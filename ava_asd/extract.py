"""Extract what a training reads: frames and audio, then MFCCs, then windows.

    ava-extract videos      configs/config.yaml ava_data --jobs 2
    ava-extract mfccs       configs/config.yaml ava_data --jobs 2
    ava-extract annotations configs/config.yaml ava_data

(or `python -m ava_asd.extract ...`), in this order. Each works on the annotated videos of both splits; a broken or
absent video does not stop the others, and is listed at the end. What is there, made with the same settings of the same
annotations and video, is not made again; files that ava-extract did not write are not replaced.

videos       writes <extracted_path>/<video_id>/: frames (jpg) and audio (wav) from the first to the last annotated
             time and eps seconds to either side, start_ts, and the faces at network size (see ava_asd/layout.py)
mfccs        writes the normalised MFCCs of each video's audio
annotations  writes train_annotations_full and test_annotations_full, the windows of both splits
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
from collections.abc import Sequence
from functools import partial
from operator import call

from ava_asd.arguments import add_arguments, configuration
from ava_asd.extract_annotations import extract_samples
from ava_asd.extract_mfccs import extract_mfccs
from ava_asd.extract_videos import extract_video
from ava_asd.layout import SPLITS, annotated_videos, video_folder
from core import parallel
from core.runtime import elsewhere
from core.runtime.errors import UserError, exits_cleanly

TITLES = {"videos": "frames, audio and faces", "mfccs": "MFCCs", "annotations": "windows"}


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    for name, text in TITLES.items():
        command = commands.add_parser(name, help=text)
        add_arguments(command)
        if name != "annotations":
            parallel.add_arguments(command)
    return parser.parse_args(argv)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    config, data = configuration(arguments), arguments.data
    videos = config.path(data, "vid_save_path")
    if arguments.what == "videos" and not elsewhere.is_folder(videos):
        raise UserError(f"no videos: there is no folder {videos}; run 'ava-download videos', or set vid_save_path")
    annotated = annotated_videos(config, data)
    if arguments.what == "annotations":
        return max([extract_samples(config, data, split) for split in SPLITS])
    tasks = {}
    for name, annotations in annotated.items():
        folder = video_folder(config, data, name)
        video = partial(extract_video, folder, config, annotations, videos)
        tasks[name] = video if arguments.what == "videos" else partial(extract_mfccs, folder, config)
    arguments.out = config.path(data, "extracted_path")
    return parallel.run(call, tasks, arguments, TITLES[arguments.what])


if __name__ == "__main__":
    main()
