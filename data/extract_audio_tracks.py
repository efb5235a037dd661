"""The audio of every annotated video as 16 kHz mono wav, one file per video, aligned with its frames.

    python data/extract_audio_tracks.py videos/train csv/train_augmented.csv tracks/train --jobs 2

Writes OUT/<video_id>.wav; videos whose wav is there, made of the same video, are skipped. Of several audio streams the
one is taken that FFmpeg and players choose.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

from core import parallel
from core.formats import ava
from core.media.audio import extract_audio
from core.media.container import MediaFile
from core.media.video import check_streams
from core.media.video_files import find_video, present_videos, video_source
from core.runtime import elsewhere
from core.runtime.checks import as_stream
from core.runtime.errors import exits_cleanly
from core.runtime.provenance import Record


def extract(task: tuple[Path, str, Path, int | str | None]) -> None:
    """Extract one video's audio; `task` is (folder of videos, video id, folder to write, audio stream)."""
    videos, video_id, out, stream = task
    chosen = {} if stream is None else {"audio_stream": stream}
    record = Record(out, video_id, "audio", {"video": video_source(videos, video_id), **chosen})
    wav = f"{video_id}.wav"
    if record.missing([wav]):
        with record.making([wav]), MediaFile(find_video(videos, video_id), **chosen) as media:
            extract_audio(media, out / wav)


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=elsewhere.place, help="folder of the split's videos")
    parser.add_argument("csv", type=elsewhere.fetched, help="augmented csv of the split")
    parser.add_argument("out", type=elsewhere.place, help="folder for the wavs")
    parser.add_argument("--audio-stream", type=as_stream, metavar="N|all", help="of several, from 0; all are mixed")
    parallel.add_arguments(parser)
    arguments = parser.parse_args(argv)

    video_ids = ava.read_augmented(arguments.csv)["video_id"].unique()
    check_streams(present_videos(arguments.videos, video_ids), audio_stream=arguments.audio_stream)
    tasks = {name: (arguments.videos, name, arguments.out, arguments.audio_stream) for name in video_ids}
    return parallel.run(extract, tasks, arguments, "audio of videos")


if __name__ == "__main__":
    main()
