"""Who speaks in any video, and when: faces tracked and scored, in formats for people and for other programs.

    python detect.py interview.mp4                  # -> interview.asd/: tracks.csv, speakers.json, report.html, ...
    python detect.py videos/*.mp4 --out results --jobs 2 --device 0
    python detect.py interview.mp4 --encoder resnet18_two_streams --weights STE.pth --context ASC.pth

A face's score at a frame is the log odds of speaking: 0 is as likely as not, +3 is 95 %, -3 is 5 %. Its probability is
1 / (1 + exp(-score)), and it counts as speaking from 0.5 on. A video is skipped if its outputs are there, made from
the same file with the same settings; outputs of other settings are removed before new ones are written.
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
import functools
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from core import detection
from core.detection.options import CROPS, DEFAULT_ENCODER, ENCODERS, MIN_FACE_PX, MIN_TRACK_S, PRECISIONS
from core.detection.results import DetectedVideo
from core.outputs.files import FORMATS, MissingOutputsError, output_paths, write_outputs
from core.outputs.speech import speaking_time, speech_segments
from core.runtime import parallel
from core.runtime.checks import as_stream
from core.runtime.errors import MediaError, UserError, exits_cleanly
from core.runtime.files import make_folder, printable
from core.runtime.provenance import Files, Record

DEFAULT_FORMATS = ("csv", "json", "rttm", "vtt", "report", "overlay")


@dataclass(frozen=True)
class Task:
    """One video to process; picklable, for other processes.

    Attributes:
        video: the file.
        folder: for its outputs.
        formats: which of them.
        options: arguments of `ActiveSpeakerDetector`.
        watched: show the progress; only where one video is processed at a time.
    """

    video: Path
    folder: Path
    formats: tuple[str, ...]
    options: tuple[tuple[str, Any], ...]
    watched: bool


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    formats = chosen_formats(arguments.format)
    shape = context_shape(arguments.context_shape)
    folders = output_folders(arguments.videos, arguments.out)
    from core import settings  # PyTorch takes seconds to load: only once the command line is known to be right

    options = {
        "encoder": arguments.encoder,
        "weights": arguments.weights,
        "context": arguments.context,
        "context_shape": shape,
        "crop": arguments.crop,
        "ensemble": arguments.ensemble,
        "precision": arguments.precision,
        "detector": arguments.detector_weights,
        "detect_every": arguments.detect_every,
        "min_track_s": arguments.min_track,
        "min_face_px": arguments.min_face,
        "people": arguments.people,
        "video_stream": arguments.video_stream,
        "audio_stream": arguments.audio_stream,
        "device": str(settings.device(arguments.device)),
        "cache": arguments.cache,
    }
    tasks = {
        str(video): Task(video, folder, formats, tuple(options.items()), watched=arguments.jobs == 1)
        for video, folder in folders.items()
    }
    # Wrong options, absent weights and folders that cannot be written to are reported before any work.
    detector = detector_of(tuple(options.items()))
    for folder in folders.values():
        check_writable(folder)
    for note in filter(None, (detector.detector_note, detector.people_note)):
        print(f"note: {note}", file=sys.stderr)
    broken = parallel.map_videos(work_through, tasks, arguments.jobs, "videos")
    return parallel.report(broken, len(tasks), arguments.out or "beside the videos")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+", metavar="VIDEO")
    parser.add_argument("--out", type=Path, help="folder for the <video>.asd folders; by default beside each video")
    parser.add_argument(
        "--format",
        action="append",
        metavar="NAME[,NAME]",
        help=f"what to write: {', '.join(FORMATS)}, or all; by default {','.join(DEFAULT_FORMATS)}",
    )
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, help=f"{', '.join(ENCODERS)} (default {DEFAULT_ENCODER})")
    parser.add_argument("--weights", help="ava, talkset (published, downloaded once) or the path of a state dict")
    parser.add_argument(
        "--context",
        default="shipped",
        metavar="FILE",
        help="a context network trained on the encoder, or none; by default the one that comes with published weights",
    )
    parser.add_argument(
        "--context-shape", default="11,4,3", metavar="L,STRIDE,S", help="of an ASC_Net's contexts (default 11,4,3)"
    )
    parser.add_argument("--crop", choices=CROPS, help="how faces are cut; by default as the weights were trained")
    parser.add_argument("--ensemble", action="store_true", help="average six passes, as the published scripts do")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="auto",
        help="of the encoder; by default bf16 for whole-track encoders on a processor that has it, else fp32",
    )
    parser.add_argument(
        "--detector-weights", type=Path, metavar="ONNX", help="YuNet weights; by default downloaded once"
    )
    parser.add_argument("--detect-every", type=int, metavar="N", help="frames; by default as many as fit into 0.12 s")
    parser.add_argument(
        "--min-track", type=float, default=MIN_TRACK_S, metavar="S", help=f"seconds (default {MIN_TRACK_S})"
    )
    parser.add_argument(
        "--min-face", type=float, default=MIN_FACE_PX, metavar="PX", help=f"median height (default {MIN_FACE_PX})"
    )
    parser.add_argument(
        "--people",
        action=argparse.BooleanOptionalAction,
        help="put tracks of one person together, by the embeddings of faces (biometric data; kept in memory only); by "
        "default where SFace's weights are in the cache, which --people downloads once",
    )
    parser.add_argument(
        "--video-stream", type=int, metavar="N", help="of several, from 0; by default as FFmpeg and players choose"
    )
    parser.add_argument("--audio-stream", type=as_stream, metavar="N|all", help="likewise; all are mixed")
    parser.add_argument("--device", default="cpu", help="cpu (default) or the index of a CUDA device")
    parser.add_argument("--jobs", type=int, default=1, help="videos processed side by side (default 1)")
    parser.add_argument("--cache", type=Path, help="folder for downloaded weights; by default the user's cache folder")
    return parser.parse_args(argv)


def chosen_formats(given: list[str] | None) -> tuple[str, ...]:
    """The formats that --format names.

    Raises:
        UserError: there is no format of a name.
    """
    if given is None:
        return DEFAULT_FORMATS
    names = [name.strip() for part in given for name in part.split(",")]
    unknown = [name for name in names if name not in (*FORMATS, "all")]
    if unknown:
        raise UserError(f"--format {','.join(unknown)}: expected {', '.join(FORMATS)}, or all")
    return tuple(FORMATS) if "all" in names else tuple(name for name in FORMATS if name in names)


def context_shape(text: str) -> tuple[int, int, int]:
    """L,STRIDE,S as numbers.

    Raises:
        UserError: it is not of that form.
    """
    try:
        clip_length, stride, speakers = (int(part) for part in text.split(","))
        if clip_length < 1 or clip_length % 2 == 0 or stride < 1 or speakers < 1:
            raise ValueError
    except ValueError:
        raise UserError(
            f"--context-shape {text}: expected time steps (odd), stride in frames and speakers, such as 11,4,3"
        ) from None
    return clip_length, stride, speakers


def output_folders(videos: list[Path], out: Path | None) -> dict[Path, Path]:
    """Video -> folder for its outputs.

    Raises:
        UserError: a video is absent, or two would write into one folder.
    """
    absent = [str(video) for video in videos if not video.is_file()]
    if absent:
        raise UserError(f"no such video: {', '.join(absent)}; give the paths of video files")
    folders: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for video in dict.fromkeys(videos):
        folder = (video.parent if out is None else out) / f"{video.stem}.asd"
        if folder in taken:
            raise UserError(
                f"{taken[folder]} and {video} would both write into {folder}: rename one, or give another --out"
            )
        taken[folder] = video
        folders[video] = folder
    return folders


def check_writable(folder: Path) -> None:
    """See that outputs can be written into a folder; the folders above it are made.

    Raises:
        UserError: they cannot.
    """
    where = folder if folder.exists() else make_folder(folder.parent)
    if not where.is_dir() or not os.access(where, os.W_OK | os.X_OK):
        raise UserError(f"cannot write into {where}: give a folder that can be written to, with --out")


@functools.cache
def detector_of(options: tuple[tuple[str, Any], ...]) -> "detection.ActiveSpeakerDetector":
    """One detector a process."""
    return detection.ActiveSpeakerDetector(**dict(options))


def work_through(task: Task) -> None:
    """Detect in one video and write its outputs, unless they are there.

    Raises:
        MediaError: the video cannot be used, or only in part, or it has no scores to write in a format; what there is
            of it is written.
    """
    detector = detector_of(task.options)
    made_of = {"video": Files.one(task.video), "settings": detector.settings}
    record = Record(task.folder, "outputs", "detection", made_of)
    names = [path.name for path in output_paths(task.folder, task.video, task.formats).values()]
    if not record.missing(name for name in names if name not in record.notes.get("impossible", {})):
        tqdm.write(printable(f"{task.video}: done before, {task.folder}"))
    else:
        started = time.perf_counter()
        video = detect(detector, task)
        with record.making(names):
            fault, impossible = write(video, task)
            kept = {name: why for name, why in record.notes.get("impossible", {}).items() if name not in names}
            record.notes.update(fault=fault, impossible=kept | impossible)
        tqdm.write(printable(summary(video, task.folder, time.perf_counter() - started)))
    reasons = [record.notes["fault"], *map(record.notes["impossible"].get, names)]
    if faults := list(dict.fromkeys(filter(None, reasons))):
        text = "; ".join(faults).removesuffix(".")
        raise MediaError(f"{text}. All other outputs are in {task.folder}; to try again delete that folder")


def write(video: DetectedVideo, task: Task) -> tuple[str | None, dict[str, str]]:
    """Write a video's outputs; what is wrong with it, where something is, and file names that cannot be made of it."""
    fault = None if video.complete else f"only in part: {' '.join(video.notes)}"
    try:
        write_outputs(task.folder, video, task.formats)
    except MissingOutputsError as error:
        return fault, error.reasons
    return fault, {}


def detect(detector: "detection.ActiveSpeakerDetector", task: Task) -> DetectedVideo:
    hidden = None if task.watched else True  # None: shown where there is a terminal
    with tqdm(desc=task.video.name, unit="s", unit_scale=True, disable=hidden, leave=False) as bar:
        return detector.detect(task.video, lambda time_s: bar.update(round(time_s, 1) - bar.n))


def summary(video: DetectedVideo, folder: Path, seconds: float) -> str:
    length = video.end_of_frame(len(video.frame_times_s) - 1) - float(video.frame_times_s[0])
    speech = sum(speaking_time(speech_segments(track, video)) for track in video.tracks)
    persons = f" of {len(video.persons)} person(s)" if video.persons else ""
    lines = [
        f"{video.path}: {len(video.tracks)} face track(s){persons} in {len(video.shots)} shot(s), {speech:.1f} s of "
        f"speech in {length:.1f} s; {seconds:.1f} s of work, {length / seconds:.1f} x real time -> {folder}"
    ]
    return "\n".join([*lines, *(f"  note: {note}" for note in video.notes)])


if __name__ == "__main__":
    main()
