"""Cutting face crops from a 720p video with three faces: speed, disk and memory.

Everything runs in one process on one core, with one decoder thread. Each run decodes the video bare, then extracts its
crops, so that both see the same machine.
"""

import os
from fractions import Fraction
from pathlib import Path

import av
import pandas as pd

from benchmarks import material, measure
from benchmarks.measure import Result
from core.formats import ava
from core.media.container import MediaFile
from core.media.cropping import extract_crops
from core.media.video_files import find_video
from core.parallel import one_thread_each

VIDEO_S = 30
LONG_COPIES = 14  # of the video, one after the other: 31,500 rows
PUBLISHED_CROPS_PER_S = 5.7  # with a key frame every 250 frames
PUBLISHED_BYTES = 11_300
TARGET_SHARE = 60  # percent of the bare decoder's frame rate
TARGET_BYTES = 5 * 1024
TARGET_MB = 2**30 / measure.MB


def results(folder: Path, repeats: int = 5, mini_ava: Path | None = None, long: bool = False) -> list[Result]:
    """The benchmark's lines; videos and crops are made in `folder`."""
    video, rows = material.textured_video(folder, VIDEO_S)
    lines, peak = measure.in_child(_speed, video, rows, folder / "crops", repeats)
    lines.append(_size("textured video", folder / "crops", len(rows)))
    if mini_ava is not None:
        count = _extract_all(mini_ava, folder / "real")
        lines.append(_size(mini_ava.name, folder / "real", count))
    lines.append(_memory(f"{len(rows):,} crops", peak))
    if long:
        video, rows = _repeated(video, rows, folder / "long.mp4")
        lines.append(_memory(f"{len(rows):,} crops", measure.in_child(_extract_once, video, rows, folder / "long")))
    return lines


def _speed(video: Path, rows: pd.DataFrame, out: Path, repeats: int) -> tuple[list[Result], float]:
    _one_core()
    frames = rows["frame_timestamp"].nunique()
    bare, ours = [], []
    for _ in range(repeats):
        bare.append(frames / measure.seconds(lambda: _decode(video)))
        ours.append(frames / measure.seconds(lambda: _extract(video, rows, out)))
    share = [100 * mine / theirs for mine, theirs in zip(ours, bare, strict=True)]
    crops = [rate * len(rows) / frames for rate in ours]
    return [
        Result("bare decoding, frames/s", bare),
        Result("decoding and cutting, frames/s", ours),
        Result("cutting: % of the bare decoder's frame rate", share, target=TARGET_SHARE),
        Result("cutting, crops/s", crops, PUBLISHED_CROPS_PER_S),
    ], measure.peak_mb()


def _decode(video: Path) -> None:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass


def _one_core() -> None:
    """Keep this process to one core, where the system can, and to one thread."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    one_thread_each()


def _extract(video: Path, rows: pd.DataFrame, out: Path) -> None:
    with MediaFile(video) as media:
        extract_crops(media, rows, out)


def _extract_once(video: Path, rows: pd.DataFrame, out: Path) -> float:
    _one_core()
    _extract(video, rows, out)
    return measure.peak_mb()


def _extract_all(data: Path, out: Path) -> int:
    count = 0
    for video_id, path in ava.annotation_files(data / "annotations" / "val").items():
        rows = ava.augment(ava.read_annotations(path))
        _extract(find_video(data / "videos" / "val", video_id), rows, out)
        count += len(rows)
    return count


def _repeated(video: Path, rows: pd.DataFrame, long: Path) -> tuple[Path, pd.DataFrame]:
    """The video `LONG_COPIES` times over, its packets copied as they are, and the rows to match."""
    with av.open(str(long), "w") as target:
        stream = None
        for copy in range(LONG_COPIES):
            with av.open(str(video)) as source:
                old = source.streams.video[0]
                stream = stream or target.add_stream_from_template(old)
                shift = round(copy * VIDEO_S / Fraction(old.time_base))
                for packet in source.demux(old):
                    if packet.dts is not None:  # the empty packet at the end has none
                        packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                        target.mux(packet)
    parts = []
    for copy in range(LONG_COPIES):
        stamps = (rows["time_s"] + copy * VIDEO_S).map("{:.2f}".format)
        entities = rows["entity_id"] + f":{copy}"
        parts.append(rows.assign(frame_timestamp=stamps, entity_id=entities, video_id=long.stem))
    return long, ava.augment(pd.concat(parts, ignore_index=True)[list(ava.COLUMNS)])


def _size(name: str, folder: Path, crops: int) -> Result:
    size = sum(path.stat().st_size for path in folder.glob("*.arrow")) / crops
    return Result(f"bytes on disk per crop, {name}", [size], PUBLISHED_BYTES, TARGET_BYTES, at_most=True)


def _memory(name: str, peak: float) -> Result:
    return Result(f"peak memory cutting {name}, MB", [peak], target=TARGET_MB, at_most=True)
