"""Show predictions: a video with a box and the probability of speaking on every face, or one frame of it.

    python scripts/overlay.py videos/val/ID.mp4 predictions/val/ASC.csv overlay.mp4
    python scripts/overlay.py videos/val/ID.mp4 predictions/val/ASC.csv overlay.png --time 3.2

Boxes are green from a probability of 0.5 on, else red; the audio is kept. --start and --end cut out a part.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import cv2
import numpy as np

from core.evaluation.official import read_predictions
from core.formats import ava
from core.media.container import MediaFile
from core.media.video import read_frames
from core.outputs.overlay import Faces, FacesAt, check_within, draw_faces, write_marked_video
from core.runtime.checks import as_path
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import atomic_write

IMAGES = (".png", ".jpg", ".jpeg")
VIDEOS = (".mp4", ".mkv", ".mov")


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=as_path)
    parser.add_argument("predictions", type=as_path, help="csv in the official format, of this video and maybe others")
    parser.add_argument("out", type=as_path, help=f"{', '.join(VIDEOS)} for a video, {', '.join(IMAGES)} for one frame")
    parser.add_argument("--time", type=float, help="seconds, for one frame; by default the first annotated one")
    parser.add_argument("--start", type=float, default=0.0, help="seconds, where the video begins")
    parser.add_argument("--end", type=float, default=float("inf"), help="seconds, where it ends")
    arguments = parser.parse_args(argv)

    kind = arguments.out.suffix.lower()
    if kind not in IMAGES + VIDEOS:
        raise UserError(f"cannot write {arguments.out}: expected a name that ends in {', '.join(VIDEOS + IMAGES)}")
    faces = faces_of(arguments.predictions, arguments.video.stem)
    with MediaFile(arguments.video) as media:
        faces_at = nearest_faces(faces, media.info.fps)
        if kind in IMAGES:
            write_frame(arguments.out, media, faces_at, min(faces) if arguments.time is None else arguments.time)
        else:
            write_marked_video(arguments.out, media, faces_at, arguments.start, arguments.end)
    print(arguments.out)


def faces_of(predictions: Path, video_id: str) -> dict[float, Faces]:
    """Time in seconds -> faces of one video."""
    rows = read_predictions(predictions).table.to_pandas()
    rows = rows[rows["video_id"] == video_id]
    if rows.empty:
        raise UserError(
            f"{predictions} has no rows of the video {video_id}; the file name must be <video_id>.<extension>"
        )
    return {
        float(time_s): Faces(part[list(ava.BOX_COLUMNS)].to_numpy(np.float64), part["score"].to_numpy(np.float64))
        for time_s, part in rows.groupby("frame_timestamp")
    }


def nearest_faces(faces: dict[float, Faces], fps: float) -> FacesAt:
    """Function that gives the faces annotated nearest to a frame."""
    times = np.array(sorted(faces))
    reach = 0.75 / fps  # a face annotated further away than this belongs to another frame

    def faces_at(number: int, time_s: float) -> Faces | None:
        nearest = times[np.abs(times - time_s).argmin()]
        return faces[nearest] if abs(nearest - time_s) <= reach else None

    return faces_at


def write_frame(path: Path, media: MediaFile, faces_at: FacesAt, time_s: float) -> None:
    """Write the frame shown at a time as an image.

    Raises:
        UserError: the video does not last until then.
    """
    check_within(media, time_s)
    frame = next(read_frames(media, time_s, time_s))
    pixels, faces = frame.rgb(), faces_at(0, frame.time_s)
    with atomic_write(path) as temporary:
        cv2.imwrite(str(temporary), (pixels if faces is None else draw_faces(pixels, faces))[:, :, ::-1])


if __name__ == "__main__":
    main()
