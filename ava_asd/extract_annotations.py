"""Windows of consecutive faces, which are the samples, from the faces that were extracted."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from ava_asd.config import Config
from ava_asd.layout import ANNOTATION_KEYS, VideoFolder
from ava_asd.samples import FACES, SCHEMA, Samples, window_settings, write_samples
from ava_asd.stores import checked_folder, faces_digest, read_faces
from ava_asd.tracks import window_starts
from core import parallel
from core.formats.ava import annotation_files
from core.runtime.errors import UserError


def extract_samples(config: Config, data: Path, split: str) -> int:
    """Write the samples of a split, "train" or "test"; the exit status. Videos that were not extracted are left out.

    Raises:
        UserError: there are no annotations, or the split has no window.
    """
    path = config.path(data, f"{split}_annotations_full")
    files = annotation_files(config.path(data, ANNOTATION_KEYS[split]))
    tables, faces, broken = [SCHEMA.empty_table()], dict.fromkeys(files), {}
    for name in files:
        try:
            folder = checked_folder(config, data, split, name)
            tables.append(windows_of(folder, config))
            faces[name] = faces_digest(folder)
        except UserError as error:
            broken[name] = str(error)
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    if len(table) == 0:
        why = next(iter(broken.values()), f"no face track has {config.video_window} faces at {config.fps:g} a second")
        raise UserError(f"no samples for {split}_annotations_full: {why}")
    write_samples(path, Samples(table, {**window_settings(config), FACES: faces}))
    print(f"{split}: {len(table):,} samples of {config.video_window} faces")
    return parallel.report(broken, len(files), path)


def windows_of(folder: VideoFolder, config: Config) -> pa.Table:
    """The samples of a video, rows with `SCHEMA`, by entity and time.

    A sample is a window of vid_frame_size * sequence_size faces of a track, from one to the next ann_stride faces. Its
    label and time are those of the last face.
    """
    faces = read_faces(folder.faces)
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
