"""The face crops of every annotated row, cut in one sequential pass over each video.

    python data/extract_face_crops_time.py videos/train csv/train_augmented.csv crops/train --jobs 2

Writes OUT/<video_id>.arrow (or, with --layout folders, OUT/<entity_id>/<timestamp>.jpg as the published preparation
does); videos whose crops are there, cut from the same video by the same boxes, are skipped. Folders may hold crops that
others cut, by any naming that core/formats/crop_store.py knows: those stay, and what is missing is cut into the same
folders. Of several video streams the one is taken that FFmpeg and players choose.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import pandas as pd

from core import parallel
from core.clip_utils import CROP_SIZE
from core.formats import ava
from core.formats.crop_store import LAYOUTS, STEP, fingerprint_of_boxes, rows_to_cut
from core.media.container import MediaFile
from core.media.cropping import extract_crops
from core.media.video import check_streams
from core.media.video_files import find_video, present_videos, video_source
from core.runtime import elsewhere
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.provenance import Record


def extract(task: tuple[Path, pd.DataFrame, Path, int, str, int | None]) -> None:
    """Cut one video's crops; `task` is (folder of videos, the video's rows, folder to write, size, layout, stream)."""
    videos, rows, out, size, layout, stream = task
    video_id = rows["video_id"].iloc[0]
    chosen = {} if stream is None else {"video_stream": stream}
    made_of = {
        "video": video_source(videos, video_id),
        "boxes": fingerprint_of_boxes(rows),
        "size": size,
        "layout": layout,
        **chosen,
    }
    record = Record(out, video_id, STEP, made_of)
    rows, names = rows_to_cut(rows, record, layout)
    if len(rows):
        with record.making(names), MediaFile(find_video(videos, video_id), **chosen) as media:
            extract_crops(media, rows, out, size=size, layout=layout)


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=elsewhere.place, help="folder of the split's videos")
    parser.add_argument("csv", type=elsewhere.fetched, help="augmented csv of the split")
    parser.add_argument("out", type=elsewhere.place, help="folder for the crops")
    parser.add_argument("--size", type=int, default=CROP_SIZE, help="side in pixels; 0: as in the video (default 144)")
    parser.add_argument("--layout", choices=LAYOUTS, default="packed", help="one file a video, or published folders")
    parser.add_argument("--video-stream", type=int, metavar="N", help="of several, from 0")
    parallel.add_arguments(parser)
    arguments = parser.parse_args(argv)
    if arguments.size < 0:
        raise UserError(f"--size {arguments.size}: expected pixels, or 0 for the size in the video")
    if arguments.layout != "packed" and elsewhere.url_of(arguments.out):
        raise UserError(f"--layout {arguments.layout} needs a folder of this machine: in a bucket crops are packed")

    of_video = ava.read_augmented(arguments.csv).groupby("video_id")
    check_streams(present_videos(arguments.videos, of_video.groups), video_stream=arguments.video_stream)
    how = arguments.out, arguments.size, arguments.layout, arguments.video_stream
    tasks = parallel.Items(of_video.groups, lambda name: (arguments.videos, of_video.get_group(name), *how))
    return parallel.run(extract, tasks, arguments, "face crops")


if __name__ == "__main__":
    main()
