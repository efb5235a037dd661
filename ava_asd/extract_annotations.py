"""Windows of consecutive faces, which are the samples, from the faces that were extracted."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from ava_asd.config import Config
from ava_asd.extract_videos import STEP, settings_of
from ava_asd.layout import VideoFolder
from ava_asd.samples import ANNOTATIONS, SCHEMA, Samples, window_settings
from ava_asd.stores import read_faces
from ava_asd.tracks import window_starts
from core.runtime.errors import MediaError, UserError


def samples_of(tables: Iterable[pa.Table], config: Config, videos: Iterable[VideoFolder]) -> Samples:
    """The samples of several videos as one table.

    Args:
        tables: of `windows_of`, one for each video.
        config: that they were made with.
        videos: that they are of.
    """
    table = pa.concat_tables([SCHEMA.empty_table(), *tables]).unify_dictionaries().combine_chunks()
    return Samples(table, {**window_settings(config), ANNOTATIONS: {v.path.name: v.annotations() for v in videos}})


def windows_of(folder: VideoFolder, annotations: Path, config: Config) -> pa.Table:
    """The samples of a video, rows with `SCHEMA`, by entity and time.

    A sample is a window of vid_frame_size * sequence_size faces of a track, from one to the next ann_stride faces. Its
    label and time are those of the last face.

    Raises:
        MediaError: the video was not extracted, or with other settings or annotations.
    """
    try:
        folder.check(STEP, settings_of(config, annotations))
        folder.start_s()
        faces = read_faces(folder.faces)
    except UserError as error:
        raise MediaError(str(error)) from error
    length = config.video_window
    first = window_starts(faces["track"].to_numpy(), length, config.ann_stride)
    last = first + length - 1
    sides = np.minimum(faces["width"].to_numpy(), faces["height"].to_numpy())
    columns = [
        pa.array([folder.path.name] * len(first), pa.string()).dictionary_encode(),
        faces["entity_id"].combine_chunks().take(pa.array(last)).dictionary_encode(),
        faces["time_s"].to_numpy()[last],
        faces["label"].combine_chunks().take(pa.array(last)).dictionary_encode(),
        first.astype(np.int32),
        sides[first[:, None] + np.arange(length)].min(axis=1).astype(np.int32),
    ]
    return pa.table(columns, schema=SCHEMA)
