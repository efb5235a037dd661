"""AVA-AVD, audio-visual diarization of AVA's films: its face tracks, whose labels are for more videos than AVA's own.

    SOURCE/tracks/<video_id>-activespeaker.csv    AVA's eight columns and the speaker's id, no header
    SOURCE/split/{train,val,test}.list            <video_id>_c_<01 to 03>, a line a clip of five minutes
    SOURCE/videos/<video_id>.{mp4,mkv}            whole films, as AVA has them

SOURCE may also be the folder that holds `dataset`. From github.com/zcxu-eric/AVA-AVD at 4d597d9, 2022-02-14:
dataset/README.md, dataset/scripts/preprocessing.py, and the owner's word on the columns in issue 1, 2022-02-03. All
clips of a video are in one split. Speakers' ids, rttms and voice activity have no place in AVA layout and stay there.
"""

from pathlib import Path

import pandas as pd

from core.distributions.importing import Distribution, folder_of, link_videos, read_list, videos_of
from core.formats import ava
from core.runtime.errors import UserError
from core.runtime.provenance import Files

SPLITS = ("train", "val", "test")
CLIP = "_c_"  # between a video's id and the number of its clip


def read_ava_avd(source: Path, videos: Path | None) -> Distribution:
    """AVA-AVD, three splits.

    Args:
        source: the folder `dataset` of the owners' repository, or the repository.
        videos: of `<video_id>.<extension>`; None: `videos`.

    Raises:
        UserError: a list or a csv that it names is absent or not of this layout, clips of one video are in two splits,
            or there is no folder of videos.
    """
    root = folder_of(source, "tracks", "dataset/tracks", holds="<video_id>-activespeaker.csv files").parent
    videos = videos or folder_of(root, "videos", holds="the films (or give --videos)")
    split_of: dict[str, str] = {}
    for split in SPLITS:
        for clip in read_list(root / "split" / f"{split}.list"):
            video_id = clip.rpartition(CLIP)[0]
            if not video_id or split_of.setdefault(video_id, split) != split:
                fault = (
                    f"a clip of {video_id} is also in {split_of[video_id]}" if video_id else "expected <video_id>_c_01"
                )
                raise UserError(f"{root / 'split' / f'{split}.list'}: {clip!r}; {fault}")
    names = {video_id: f"tracks/{video_id}{ava.ANNOTATION_SUFFIX}" for video_id in split_of}
    tables = {video_id: ava.read_annotations(root / name, ("speaker_id",)) for video_id, name in names.items()}
    rows = {
        split: pd.concat([tables[video_id] for video_id in tables if split_of[video_id] == split], ignore_index=True)
        for split in dict.fromkeys(split_of.values())
    }
    links, missing = link_videos(videos_of(rows), videos)
    return Distribution(Files(root, list(names.values())), rows, links, missing=missing)
