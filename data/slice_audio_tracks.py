"""The audio of every entity, cut from its video's wav: from its first to its last timestamp.

    python data/slice_audio_tracks.py tracks/train csv/train_augmented.csv audio/train --jobs 2

Writes OUT/<entity_id>.wav; videos whose entities have theirs, cut from the same audio at the same times, are skipped.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import pandas as pd

from core import parallel
from core.clip_utils import SAMPLE_RATE
from core.formats import ava
from core.formats.wav import MISSING_END_S, read_wav, write_wav
from core.runtime import elsewhere
from core.runtime.errors import MediaError, exits_cleanly
from core.runtime.provenance import Files, Record, check_outputs


def slice_video(task: tuple[Path, str, pd.DataFrame, Path]) -> None:
    """Cut one video's entities; `task` is (folder of wavs, video id, entities with first and last second, folder)."""
    tracks, video_id, entities, out = task
    wav = tracks / f"{video_id}.wav"
    names = [f"{entity}.wav" for entity in entities["entity_id"]]
    made_of = {
        "audio": Files(tracks, [wav.name], video_id),
        "entities": ava.digest(entities, ["entity_id", "min", "max"]),
    }
    record = Record(out, video_id, "entity audio", made_of)
    missing = record.missing(names)
    if not missing:
        return
    with record.making(missing):
        if not wav.is_file():
            raise MediaError(f"no audio {wav}: data/extract_audio_tracks.py must have finished this video first")
        check_outputs(tracks, video_id, [wav.name])
        samples = read_wav(wav)
        length_s = len(samples) / SAMPLE_RATE
        for entity, first_s, last_s in entities.itertuples(index=False):
            if length_s < last_s - MISSING_END_S:
                raise MediaError(
                    f"{wav} ends at {length_s:.2f} s, but entity {entity} is annotated until {last_s:.2f} s"
                )
            if f"{entity}.wav" in missing:
                write_wav(out / f"{entity}.wav", samples[int(first_s * SAMPLE_RATE) : int(last_s * SAMPLE_RATE)])


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracks", type=elsewhere.place, help="folder of <video_id>.wav")
    parser.add_argument("csv", type=elsewhere.fetched, help="augmented csv of the split")
    parser.add_argument("out", type=elsewhere.place, help="folder for the entities' wavs")
    parallel.add_arguments(parser)
    arguments = parser.parse_args(argv)

    rows = ava.read_augmented(arguments.csv)
    spans = rows.groupby(["video_id", "entity_id"], sort=True)["time_s"].agg(["min", "max"]).reset_index()
    of_video = spans.groupby("video_id")[["entity_id", "min", "max"]]
    tasks = parallel.Items(
        of_video.groups, lambda name: (arguments.tracks, name, of_video.get_group(name), arguments.out)
    )
    return parallel.run(slice_video, tasks, arguments, "audio of entities")


if __name__ == "__main__":
    main()
