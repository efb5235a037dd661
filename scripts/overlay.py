"""Look at predictions: a video with a box and the probability of speaking on every face, or one frame of it.

    python scripts/overlay.py videos/val/ID.mp4 predictions/val/ASC.csv overlay.mp4
    python scripts/overlay.py videos/val/ID.mp4 predictions/val/ASC.csv overlay.png --time 3.2

Boxes are green from a probability of 0.5 on, else red; the sound is kept. --start and --end cut out a part.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core import ava
from core.audio import SAMPLE_RATE, decode_audio
from core.errors import UserError, exits_cleanly
from core.evaluation import read_predictions
from core.files import written_whole
from core.overlay import draw_faces
from core.video import probe, read_frames, write_video


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("predictions", type=Path, help="csv in the official format, of this video and maybe others")
    parser.add_argument("out", type=Path, help=".mp4 or .mkv for a video, .png or .jpg for one frame")
    parser.add_argument("--time", type=float, help="seconds, for one frame; by default the first annotated one")
    parser.add_argument("--start", type=float, default=0.0, help="seconds, where the video begins")
    parser.add_argument("--end", type=float, default=float("inf"), help="seconds, where it ends")
    arguments = parser.parse_args(argv)

    faces = faces_of(arguments.predictions, arguments.video.stem)
    if arguments.out.suffix in (".png", ".jpg"):
        time_s = min(faces) if arguments.time is None else arguments.time
        frame = next(marked(arguments.video, faces, time_s, time_s))
        with written_whole(arguments.out) as temporary:
            cv2.imwrite(str(temporary), frame[:, :, ::-1])
    else:
        info = probe(arguments.video)
        sound = None
        if info.has_audio:
            sound = np.concatenate(list(decode_audio(arguments.video)))
            first, last = (min(time_s * SAMPLE_RATE, len(sound)) for time_s in (arguments.start, arguments.end))
            sound = sound[round(first) : round(last)]
        frames = marked(arguments.video, faces, arguments.start, arguments.end)
        with written_whole(arguments.out) as temporary:
            write_video(temporary, frames, info.fps, sound)
    print(arguments.out)


def faces_of(predictions: Path, video_id: str) -> dict[float, tuple[np.ndarray, np.ndarray]]:
    """Time in seconds -> boxes (face, 4) and probabilities (face,) of one video."""
    rows = read_predictions(predictions).table.to_pandas()
    rows = rows[rows["video_id"] == video_id]
    if rows.empty:
        raise UserError(
            f"{predictions} has no rows of the video {video_id}; the file name must be <video_id>.<extension>"
        )
    return {
        float(time_s): (part[list(ava.BOX_COLUMNS)].to_numpy(np.float64), part["score"].to_numpy(np.float64))
        for time_s, part in rows.groupby("frame_timestamp")
    }


def marked(video: Path, faces: dict, start_s: float, end_s: float) -> Iterator[np.ndarray]:
    """The frames of a video from start to end with the faces annotated nearest each, (height, width, 3) uint8."""
    times = np.array(sorted(faces))
    reach = 0.75 / probe(video).fps  # a face annotated further away than this belongs to another frame
    for frame in read_frames(video, start_s, end_s):
        nearest = times[np.abs(times - frame.time_s).argmin()]
        near = abs(nearest - frame.time_s) <= reach
        pixels = frame.rgb()
        pixels = draw_faces(pixels, *faces[nearest]) if near else pixels
        height, width = pixels.shape[:2]
        yield np.ascontiguousarray(pixels[: height // 2 * 2, : width // 2 * 2])  # the encoder takes even sides only


if __name__ == "__main__":
    main()
