"""One video's frames, face crops and audio, from the first to the last annotated time; frames are decoded once."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from ava_asd.config import Config
from ava_asd.layout import VideoFolder
from ava_asd.tracks import ROUNDING, face_grid, frame_numbers
from core.boxes import pixel_edges
from core.formats import ava
from core.media.audio import extract_audio
from core.media.container import MediaFile
from core.media.video import Frame, read_frames
from core.media.video_files import find_video
from core.runtime.errors import MediaError
from core.runtime.files import atomic_write

JPEG_QUALITY = 90


def extract_video(folder: VideoFolder, config: Config, annotations: Path, videos: Path) -> None:
    """Write frames, audio, start_ts, the table of the faces and their crops, unless they are there already.

    Args:
        folder: where everything goes, named as the video.
        config: settings.
        annotations: csv of the video.
        videos: folder of the videos.

    Raises:
        MediaError: the video is absent, unreadable or has no audio, or a face lies outside its frames' time.
        UserError: the annotations are faulty, or the folder holds frames or audio from elsewhere.
    """
    record, frames = (folder.video_record(config, annotations.parent, videos, item) for item in ("videos", "frames"))
    if frames.written and not record.missing(folder.outputs) and not frames.missing(frames.written):
        return
    video = find_video(videos, folder.path.name)
    faces = face_grid(ava.read_annotations(annotations), config.fps)
    start_s = max(0.0, float(faces["time_s"].min()) - config.eps)
    end_s = float(faces["time_s"].max()) + config.eps
    faces["frame"] = frame_numbers(faces["time_s"].to_numpy(), start_s, config.fps)
    count = math.floor((end_s - start_s) * config.fps + ROUNDING) + 1
    names = [folder.frame(number).name for number in range(1, count + 1)]

    with record.making(folder.outputs), frames.making(names), MediaFile(video) as media:
        extract_audio(media, folder.audio, start_s=start_s, end_s=end_s, sample_rate=None)
        sizes = extract_frames(media, faces, folder, config, start_s=start_s, end_s=end_s, count=count)
        write_faces(folder.faces, faces, sizes)
        with atomic_write(folder.start_ts) as temporary:
            temporary.write_text(f"{start_s!r}\n", encoding="utf-8")


def extract_frames(
    media: MediaFile,
    faces: pd.DataFrame,
    folder: VideoFolder,
    config: Config,
    *,
    start_s: float,
    end_s: float,
    count: int,
) -> np.ndarray:
    """Write the frames of a time span, `count` at most, as jpg files and cut the faces from them.

    Returns:
        (face, [width, height]) int32, pixels of the video.

    Raises:
        MediaError: the video is unreadable, or its frames do not span all faces.
    """
    boxes, sizes = ava.boxes(faces), np.zeros((len(faces), 2), np.int32)
    waiting = faces.groupby("frame").indices  # number of a frame -> its faces
    shape = (len(faces), config.channels, config.height, config.width)
    with atomic_write(folder.crops) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        header = file.tell()
        frames = sampled(read_frames(media, start_s, end_s), start_s=start_s, fps=config.fps, count=count)
        for number, frame in frames:
            if number in waiting and frame.time_s > start_s + (number + 0.5) / config.fps:
                raise MediaError(
                    f"{media.path}: the frames begin at {frame.time_s:.2f} s, after a face that is annotated"
                )
            with atomic_write(folder.frame(number), sync=False) as temporary_jpeg:
                temporary_jpeg.write_bytes(_jpeg(frame))
            for face in waiting.pop(number, ()):
                crop, sizes[face] = cut_face(frame, boxes[face], config)
                file.seek(header + int(face) * crop.nbytes)  # faces are stored by track, frames come by time
                file.write(crop.tobytes())
        if waiting:
            face = faces.iloc[waiting[min(waiting)][0]]
            raise MediaError(
                f"{media.path}: the frames end before {face['time_s']:.2f} s, where entity {face['entity_id']} is "
                "annotated"
            )
    return sizes


def sampled(frames: Iterable[Frame], *, start_s: float, fps: float, count: int) -> Iterator[tuple[int, Frame]]:
    """Thin frames out, or repeat them, to `fps` a second, as FFmpeg's filter of that name does.

    Frame n, from 1, is the last one shown before the middle of the time from start_s + (n - 1) / fps to the next.

    Args:
        frames: in order of time.
        start_s: time of frame 1 in seconds.
        fps: frames per second to give.
        count: how many to give; fewer where the frames end before.
    """
    number, latest = 1, None
    for frame in frames:
        while latest is not None and number <= count and frame.time_s >= start_s + (number - 0.5) / fps:
            yield number, latest
            number += 1
        latest = frame
    while latest is not None and number <= count and latest.time_s >= start_s + (number - 1.5) / fps:
        yield number, latest
        number += 1


def cut_face(frame: Frame, box: np.ndarray, config: Config) -> tuple[np.ndarray, tuple[int, int]]:
    """A face at network size, and its size in the video.

    Args:
        frame: that shows the face.
        box: ([x1, y1, x2, y2],) float64 fractions of the frame.
        config: width, height and channels.

    Returns:
        (channel, row, column) uint8, grey or blue, green, red; and (width, height) in pixels of the video.
    """
    x1, y1, x2, y2 = pixel_edges(box * np.tile([frame.width, frame.height], 2), frame.width, frame.height)
    region = frame.grey_region if config.channels == 1 else frame.bgr_region
    # Bilinear, and blue before red, as in the published loader.
    crop = cv2.resize(region(x1, y1, x2, y2), (config.width, config.height))
    return np.ascontiguousarray(np.moveaxis(np.atleast_3d(crop), 2, 0)), (x2 - x1, y2 - y1)


def write_faces(path: Path, faces: pd.DataFrame, sizes: np.ndarray) -> None:
    """Write the table of a video's faces, a row for each stored crop.

    Columns: entity_id, frame_timestamp (text), entity_box_x1 ... y2 (float64 fractions), label, time_s (float64), track
    (int64), frame (int64), width, height (int32 pixels in the video).
    """
    columns = {name: faces[name].to_numpy() for name in ("entity_id", "frame_timestamp", "label", "time_s", "track")}
    columns |= dict(zip(ava.BOX_COLUMNS, ava.boxes(faces).T, strict=True))
    columns |= {"frame": faces["frame"].to_numpy(), "width": sizes[:, 0], "height": sizes[:, 1]}
    table = pa.table({name: np.ascontiguousarray(values) for name, values in columns.items()})
    with atomic_write(path) as temporary, pa.ipc.new_file(str(temporary), table.schema) as writer:
        writer.write_table(table)


def _jpeg(frame: Frame) -> bytes:
    return cv2.imencode(".jpg", frame.bgr(), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
