"""Ego4D's audio-visual diarization benchmark: faces of the clips, speaking where their person's voice is.

    SOURCE/annotations/av_{train,val}.json    by the download tool, or json/ as Ego4d_TalkNet_ASD has it
    SOURCE/clips/<clip_uid>.mp4               or videos/

Layout: ego4d-data.org/docs/benchmarks/av-diarization (annotation schema). Meaning, from the owners' scripts
github.com/EGO4D/audio-visual at da19e63, 2022-09-13, utils/ground_truth/extract_boxes_and_speakers.py, and
github.com/zcxu-eric/Ego4d_TalkNet_ASD at ab9f345, 2022-02-15, utils/preprocessing.py and dataLoader.py: `frame` counts
30 a second in the clip, boxes are pixels of the clip's frames, and a face speaks from `start_frame` to `end_frame` of
its person's voice segments, both inclusive. Tracks whose id holds `visual_anchor` and boxes without area are left out,
as in the latter. The camera wearer has a voice and no face. Nothing is annotated in the test set.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from core.distributions.importing import Distribution, folder_of, link_videos, of_layout, track_rows
from core.formats import ava
from core.media.container import MediaFile
from core.runtime.errors import MediaError, UserError
from core.runtime.files import read_json
from core.runtime.provenance import Files

FPS = 30  # of frame numbers
ANCHOR = "visual_anchor"


def read_ego4d(source: Path, videos: Path | None) -> Distribution:
    """Ego4D AV; clips whose video cannot be used are left out, for the size of their frames is not known.

    Args:
        source: the folder of a version, as `ego4d_data/v1`.
        videos: of `<clip_uid>.<extension>`; None: `clips` or `videos`.

    Raises:
        UserError: there are no annotations or no folder of clips, no clip's video can be used, or a file is not of the
            schema.
    """
    folder = folder_of(source, "annotations", "json", holds="av_train.json, av_val.json")
    videos = videos or folder_of(source, "clips", "videos", holds="<clip_uid>.mp4, for the sizes of their frames")
    paths = {split: folder / f"av_{split}.json" for split in ava.SPLITS}
    paths = {split: path for split, path in paths.items() if path.is_file()}
    if not paths:
        raise UserError(f"no av_train.json or av_val.json in {folder}: download the annotations of the AV benchmark")
    rows, links, missing, faces = {}, {}, {}, 0
    for split, path in paths.items():
        with of_layout(path, "of the schema av_<set>.json of Ego4D"):
            clips = [clip for video in read_json(path, "download it again")["videos"] for clip in video["clips"]]
            found, absent = link_videos({split: [clip["clip_uid"] for clip in clips]}, videos)
            missing |= absent
            sizes = {}
            for place, video in found.items():
                try:
                    with MediaFile(video) as media:
                        sizes[video.stem] = media.info.width, media.info.height
                    links[place] = video
                except MediaError as error:
                    missing[video.stem] = str(error)
            tracks = [table for clip in clips if clip["clip_uid"] in sizes for table in _tracks(clip, sizes)]
        faces += sum(annotated for annotated, _ in tracks)
        if tracks:
            rows[split] = pd.concat([table for _, table in tracks], ignore_index=True)
    kept = sum(map(len, rows.values()))
    if not kept:
        raise UserError(f"no face of {folder} can be imported: {next(iter(missing.values()), 'no clip has a track')}")
    notes = (
        [f"{faces - kept:,} of {faces:,} boxes have no area or lie outside the frame: left out"] if faces > kept else []
    )
    return Distribution(
        Files(folder, [path.name for path in paths.values()]), rows, links, missing=missing, notes=notes
    )


def _tracks(clip: dict, sizes: dict[str, tuple[int, int]]) -> list[tuple[int, pd.DataFrame]]:
    """(number of its boxes, rows that can be used) of each track of a clip."""
    uid, tables = clip["clip_uid"], []
    for person in clip["persons"]:
        voice = [(segment["start_frame"], segment["end_frame"]) for segment in person["voice_segments"]]
        for path in person["tracking_paths"]:
            if ANCHOR in path["track_id"] or not path["track"]:
                continue
            track = sorted(path["track"], key=lambda box: box["frame"])
            frames = np.array([box["frame"] for box in track], dtype=np.int64)
            if frames[0] < 0:
                raise ValueError(f"{path['track_id']} begins at frame {frames[0]}")
            x, y, width, height = np.array(
                [[box[name] for name in ("x", "y", "width", "height")] for box in track], dtype=np.float64
            ).T
            boxes = np.stack([x, y, x + width, y + height], axis=1) / np.tile(sizes[uid], 2)
            speaking = np.zeros(len(frames), bool)
            for first, last in voice:
                speaking |= (frames >= first) & (frames <= last)
            times = [f"{frame / FPS:.6f}" for frame in frames.tolist()]
            tables.append((len(track), track_rows(uid, f"{uid}:{path['track_id']}", times, boxes, speaking)))
    return tables
