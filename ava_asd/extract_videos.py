"""One video's frames, face crops and audio, from the first to the last annotated time; frames are decoded once."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa

from ava_asd.config import Config
from ava_asd.layout import VideoFolder, crop_settings
from ava_asd.stores import open_crops, read_audio, read_faces
from ava_asd.tracks import ROUNDING, face_grid, frame_numbers
from core.boxes import pixel_edges
from core.formats import ava
from core.media.audio import extract_audio
from core.media.container import MediaFile
from core.media.video import Frame, read_frames
from core.media.video_files import find_video
from core.runtime.errors import MediaError, UserError
from core.runtime.files import atomic_write, fingerprint

STEP = "videos"
JPEG_QUALITY = 90
JPEG_BEGIN, JPEG_END = b"\xff\xd8", b"\xff\xd9"


def extract_video(folder: VideoFolder, config: Config, annotations: Path, videos: Path) -> None:
    """Write frames, audio, start_ts, the table of the faces and their crops, unless they are there, whole.

    MFCCs made before count as unfinished afterwards, since the audio may have changed.

    Args:
        folder: where everything goes, named as the video.
        config: settings.
        annotations: csv of the video.
        videos: folder of the videos.

    Raises:
        MediaError: the video is absent, unreadable or has no audio, or a face lies outside its frames' time; or the
            folder holds frames or audio from elsewhere.
        UserError: the annotations are faulty.
    """
    made_with = settings_of(config, annotations)
    if is_whole(folder, config, made_with, videos):
        return
    if not folder.record(STEP).is_file() and (folder.audio.is_file() or folder.frame(1).is_file()):
        raise MediaError(
            f"{folder.path} holds frames or audio that this ava-extract did not write, and would replace them: set "
            "another extracted_path, or move the folder away"
        )
    video = find_video(videos, folder.path.name)
    identity = identity_of(video)
    faces = face_grid(ava.read_annotations(annotations), config.fps)
    start_s = max(0.0, float(faces["time_s"].min()) - config.eps)
    end_s = float(faces["time_s"].max()) + config.eps
    faces["frame"] = frame_numbers(faces["time_s"].to_numpy(), start_s, config.fps)

    folder.begin(STEP)
    folder.begin("mfccs")
    with MediaFile(video) as media:
        extract_audio(media, folder.audio, start_s=start_s, end_s=end_s, sample_rate=None)
        sizes, frames = extract_frames(media, faces, folder, config, start_s=start_s, end_s=end_s)
    write_faces(folder.faces, faces, sizes)
    with atomic_write(folder.start_ts) as temporary:
        temporary.write_text(f"{start_s!r}\n", encoding="utf-8")
    folder.finish(STEP, {**made_with, "video": identity, "frames": frames})


def settings_of(config: Config, annotations: Path) -> dict[str, Any]:
    """What a video's frames, audio and faces depend on, beside the video itself."""
    return {**crop_settings(config), "eps": config.eps, "annotations": fingerprint(annotations)}


def identity_of(video: Path) -> list[int]:
    """What distinguishes videos of the same name: size in bytes, and time of change in nanoseconds."""
    return [video.stat().st_size, video.stat().st_mtime_ns]


def is_whole(folder: VideoFolder, config: Config, made_with: Mapping[str, Any], videos: Path) -> bool:
    """Whether a video is finished, with these settings, from the video that is there now, and all can be read.

    The video itself may have been removed since.
    """
    found = folder.made_with(STEP)
    if found is None or any(found[name] != value for name, value in made_with.items()):
        return False
    try:
        video = find_video(videos, folder.path.name)
    except MediaError:
        video = None
    if video is not None and found["video"] != identity_of(video):
        return False
    try:
        folder.start_s()
        read_audio(folder.audio)
        open_crops(folder, config, len(read_faces(folder.faces)))
    except UserError:
        return False
    return all(is_jpeg(folder.frame(number)) for number in range(1, found["frames"] + 1))


def is_jpeg(path: Path) -> bool:
    """Whether a file begins and ends as a jpg does; there are many, so they are not decoded."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(JPEG_BEGIN))
            file.seek(-len(JPEG_END), os.SEEK_END)
            return begin == JPEG_BEGIN and file.read() == JPEG_END
    except OSError:  # absent, or shorter than that
        return False


def extract_frames(
    media: MediaFile, faces: pd.DataFrame, folder: VideoFolder, config: Config, *, start_s: float, end_s: float
) -> tuple[np.ndarray, int]:
    """Write the frames of a time span as jpg files and cut the faces from them.

    Returns:
        (face, [width, height]) int32, pixels of the video; and how many frames there are.

    Raises:
        MediaError: the video is unreadable, or its frames do not span all faces.
    """
    count = math.floor((end_s - start_s) * config.fps + ROUNDING) + 1
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
    surplus = number
    while folder.frame(surplus := surplus + 1).is_file():  # of an extraction with more frames
        folder.frame(surplus).unlink()
    return sizes, number


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
