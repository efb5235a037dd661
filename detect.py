"""Who speaks in any video, and when: faces tracked and scored, in formats for people and for other programs.

    python detect.py interview.mp4                  # -> interview.asd/: tracks.csv, speakers.json, report.html, ...
    python detect.py videos --out results --jobs 2 --device 0   # all videos of a folder
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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from core import detection, parallel
from core.detection.options import (
    CROPS,
    DEFAULT_DETECTOR,
    DEFAULT_ENCODER,
    ENCODERS,
    MIN_FACE_PX,
    MIN_TRACK_S,
    PRECISIONS,
    check_options,
    context_shape,
)
from core.detection.results import DetectedVideo, read_detected, write_detected
from core.media.video_files import fetch_video, is_video, videos_in
from core.outputs.files import BIOMETRIC, FORMATS, MissingOutputsError, output_paths, record_of, write_outputs
from core.outputs.names import (
    NamedPerson,
    Names,
    as_plain,
    completed,
    from_plain,
    given,
    persons_seen,
    read_names,
    with_names,
    write_names,
)
from core.outputs.speech import speaking_time, speech_segments
from core.runtime import devices, elsewhere
from core.runtime.checks import as_path, as_stream
from core.runtime.errors import MediaError, UserError, exits_cleanly
from core.runtime.files import make_folder, printable
from core.runtime.provenance import Files, Record, digest_of, read_record

# What the command line calls them.
OPTIONS = {
    "detect_every": "--detect-every",
    "detection_size": "--detection-size",
    "min_track_s": "--min-track",
    "min_face_px": "--min-face",
    "crop": "--crop",
    "ensemble": "--ensemble",
    "context": "--context",
}
ALL_FORMATS = {*FORMATS} - {BIOMETRIC}
KEPT = ".made/tracks.npz"  # what was found, beside the record
DEFAULT_FORMATS = ("csv", "json", "rttm", "vtt", "report", "overlay")


@dataclass(frozen=True)
class Task:
    """One video to process; picklable, for other processes.

    Attributes:
        video: the file.
        address: where it is fetched from if it is not there; None for a file of the user's.
        folder: for its outputs.
        formats: which of them.
        all_formats: these are all, so that one that cannot be made of this video is no fault.
        names: what the file of --names says of its persons.
        watched: show the progress; only where one video is processed at a time.
    """

    video: Path
    address: str | None
    folder: Path
    formats: tuple[str, ...]
    all_formats: bool
    names: tuple[NamedPerson, ...]
    watched: bool


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    formats = chosen_formats(arguments.format, arguments.embeddings)
    shape = context_shape(arguments.context_shape)
    names = read_names(arguments.names) if arguments.names else {}
    addresses = given_videos(arguments.videos, arguments.out)
    check_outputs_apart(addresses, arguments.out)
    options = {
        "encoder": arguments.encoder,
        "weights": arguments.weights,
        "context": arguments.context,
        "context_shape": shape,
        "crop": arguments.crop,
        "ensemble": arguments.ensemble,
        "precision": arguments.precision,
        "detector": arguments.detector,
        "detection_size": arguments.detection_size,
        "detect_every": arguments.detect_every,
        "min_track_s": arguments.min_track,
        "min_face_px": arguments.min_face,
        "people": arguments.people,
        "video_stream": arguments.video_stream,
        "audio_stream": arguments.audio_stream,
        "device": devices.device_name(arguments.device, arguments.cluster),
        "cache": arguments.cache,
    }
    check_options(options, OPTIONS)
    from core.media.video import check_streams  # slow to load

    there = [video for video, address in addresses.items() if address is None]
    check_streams(there, video_stream=arguments.video_stream, audio_stream=arguments.audio_stream)
    watched, every = parallel.one_by_one(arguments), set(formats) >= ALL_FORMATS

    def task(name: str) -> Task:
        video = Path(name)
        folder, known = output_folder(video, arguments.out), tuple(names.get(printable(video.name), ()))
        return Task(video, addresses[video], folder, formats, every, known, watched)

    tasks = parallel.Items(parallel.shard(list(map(str, addresses)), arguments.shard), task)
    # Wrong options, absent weights and folders that cannot be written to are reported before any work.
    if arguments.cluster is not None:  # whose nodes may have other devices and caches
        detector = detection.ActiveSpeakerDetector(**options | {"device": "cpu"})
        options["people"] = True if detector.embedder is not None else detector.grouper or False
    work = parallel.Opened(work_through, functools.partial(detection.ActiveSpeakerDetector, **options))
    if arguments.cluster is None:
        detector = work.kept()
    for parent in {output_folder(video, arguments.out).parent for video in addresses}:
        elsewhere.check_writable(parent)
    for video in addresses:
        check_writable(output_folder(video, arguments.out))
    if arguments.names and len({video.name for video in addresses}) < len(addresses):
        raise UserError("--names needs videos of different names: rename one, or give them one after the other")
    if detector.people_note:
        print(f"note: {detector.people_note}", file=sys.stderr)
    if detector.embedder is None and (arguments.names or BIOMETRIC in formats):
        raise UserError(f"--names and --embeddings are of persons: {detector.people_note or 'omit --no-people'}")
    if arguments.names and arguments.shard:
        raise UserError("--names is one file for all videos: give it in a last run without --shard")
    paths = {path for task in tasks.values() for path in (task.video.parent, task.folder.parent)}
    on_gpu = options["device"] != "cpu"
    broken = parallel.spread(work, tasks, arguments, "videos", paths=paths, on_gpu=on_gpu)
    if arguments.names:
        complete_names(arguments.names, names, tasks.values())
    return parallel.report(broken, len(tasks), arguments.out or "beside the videos")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="a file, or a folder: all videos in it, here or in a bucket (s3://…); or an address that FFmpeg reads, of "
        "which a copy is put beside the outputs",
    )
    parser.add_argument(
        "--out",
        type=elsewhere.place,
        help="folder for the <video>.asd folders, here or in a bucket; by default beside each video",
    )
    parser.add_argument(
        "--format",
        action="append",
        metavar="NAME[,NAME]",
        help=f"what to write: {', '.join(FORMATS)}, or all (but embeddings); by default {','.join(DEFAULT_FORMATS)}",
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
        help="of encoder and YuNet; by default, on x86-64, int8 for the AVA weights of whole-track encoders, "
        "bf16 for others of theirs and YuNet where the processor has it; else fp32",
    )
    parser.add_argument(
        "--detector",
        default=DEFAULT_DETECTOR,
        metavar="NAME|FILE",
        help="yunet (default; weights downloaded once), haar (finds half of the faces), or a file of YuNet weights",
    )
    parser.add_argument(
        "--detection-size",
        type=int,
        metavar="PX",
        help="longer side of frames when faces are detected; by default as faces of --min-face need, at least 640",
    )
    parser.add_argument(
        "--detect-every",
        type=int,
        metavar="N",
        help="frames; by default as many as fit into 0.12 s, or 0.48 s where nothing changes",
    )
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
    parser.add_argument(
        "--names", type=as_path, metavar="JSON", help="names of persons, for you to edit; written where it is absent"
    )
    parser.add_argument("--embeddings", action="store_true", help="write the embeddings of faces, too (biometric data)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or the index of a CUDA device")
    parallel.add_arguments(parser, gpus=True)
    parser.add_argument("--cache", type=as_path, help="folder for downloaded weights; by default the user's own")
    # Names of videos may begin with a dash, and `*.mp4` puts them among the options.
    given = sys.argv[1:] if argv is None else argv
    return parser.parse_args([f"./{text}" if text.startswith("-") and is_video(text) else text for text in given])


def chosen_formats(given: list[str] | None, embeddings: bool) -> tuple[str, ...]:
    """The formats that --format names, and the embeddings where they are asked for.

    Raises:
        UserError: there is no format of a name.
    """
    asked = [",".join(DEFAULT_FORMATS)] if given is None else given
    names = [name.strip() for part in asked for name in part.split(",")] + [BIOMETRIC] * embeddings
    unknown = [name for name in names if name not in (*FORMATS, "all")]
    if unknown:
        raise UserError(f"--format {','.join(unknown)}: expected {', '.join(FORMATS)}, or all")
    return tuple(name for name in FORMATS if name in names or ("all" in names and name in ALL_FORMATS))


def given_videos(given: list[str], out: Path | None) -> dict[Path, str | None]:
    """The videos that the command line names -> the address to fetch each from, None for those that are there.

    Raises:
        UserError: there is no such file, a folder has no videos, or two would be one file.
    """
    videos: dict[Path, str | None] = {}
    named: dict[Path, str | None] = {}  # likewise, without those of folders
    absent = []

    def name(path: Path, address: str | None) -> None:
        if named.setdefault(path, address) != address:
            both = " and ".join(one or str(path) for one in (named[path], address))
            raise UserError(f"{both} would both be {path}: give one, then the other")
        videos[path] = address

    elsewhere.look_anew()
    for text in given:
        if elsewhere.is_address(text):
            try:
                parts = urlsplit(text)
            except ValueError as error:
                raise UserError(f"{text}: {error}; give an address that FFmpeg reads") from error
            name((out or Path()) / f"{Path(parts.path).stem or parts.hostname or 'video'}.mkv", text)
            continue
        path = elsewhere.copy_of(text)
        if elsewhere.is_file(path):
            name(path, None)
        elif elsewhere.is_folder(path):
            for video in videos_in(path):  # maybe also what was fetched before from an address that is given
                videos.setdefault(video, None)
        else:
            absent.append(text)
    if absent:
        raise UserError(f"no such video: {', '.join(absent)}; give video files, folders of them, or addresses")
    return videos


def output_folder(video: Path, out: Path | None) -> Path:
    """The folder for a video's outputs."""
    return (video.parent if out is None else out) / f"{video.stem}.asd"


def check_outputs_apart(videos: Iterable[Path], out: Path | None) -> None:
    """See that each video has a folder of its own for its outputs.

    Raises:
        UserError: two would write into one.
    """
    taken: dict[Path, Path] = {}
    for video in videos:
        folder = output_folder(video, out)
        if folder in taken:
            raise UserError(
                f"{taken[folder]} and {video} would both write into {folder}: rename one, or give another --out"
            )
        taken[folder] = video


def check_writable(folder: Path) -> None:
    """See that outputs can be written into a folder; the folders above it are made.

    Raises:
        UserError: they cannot.
    """
    if elsewhere.url_of(folder):
        return
    where = folder if folder.exists() else make_folder(folder.parent)
    if not where.is_dir() or not os.access(where, os.W_OK | os.X_OK):
        raise UserError(f"cannot write into {where}: give a folder that can be written to, with --out")


def work_through(opened: Callable[[], "detection.ActiveSpeakerDetector"], task: Task) -> None:
    """Detect in one video and write its outputs, unless they are there.

    Raises:
        MediaError: the video cannot be used, or only in part, or it has no scores to write in a format; what there is
            of it is written.
    """
    detector = opened()
    if task.address is not None:
        fetch(task.address, task.video)
    found_in = {"video": Files.one(task.video), "settings": detector.settings}
    record = record_of(task.folder, {**found_in, "names": given(task.names)})
    names = [path.name for path in output_paths(task.folder, task.video, task.formats).values()]
    if not record.missing(name for name in names if name not in record.notes.get("impossible", {})):
        tqdm.write(printable(f"{task.video}: done before, {task.folder}"))
    else:
        started = time.perf_counter()
        video = detected(detector, task, {name: record.resolved[name] for name in found_in})
        if video.persons is not None:
            video = with_names(video, task.names)
        with record.making(names):
            fault, impossible = write(video, task)
            kept = {name: why for name, why in record.notes.get("impossible", {}).items() if name not in names}
            where = printable(str(task.video.absolute()))
            record.notes.update(fault=fault, impossible=kept | impossible, video=where)
            record.notes["persons"] = as_plain(persons_seen(video)) if video.persons is not None else None
        tqdm.write(printable(summary(video, task.folder, time.perf_counter() - started)))
    impossible = () if task.all_formats else map(record.notes["impossible"].get, names)
    reasons = [record.notes["fault"], *impossible]
    if faults := list(dict.fromkeys(filter(None, reasons))):
        text = "; ".join(faults).removesuffix(".")
        raise MediaError(f"{text}. All other outputs are in {task.folder}; to try again delete that folder")


def fetch(address: str, video: Path) -> None:
    """Fetch a video to a file, unless it was fetched from this address before.

    Raises:
        MediaError: it cannot be fetched.
        UserError: another file is there.
    """
    record = Record(
        video.parent, video.name, "fetched video", {"address": digest_of([address])}
    )  # it may hold a secret
    if record.missing([video.name]):
        with record.making([video.name]):
            fetch_video(address, video)


def complete_names(path: Path, names: Names, tasks: Iterable[Task]) -> None:
    """Add the persons of the videos that were worked through to the file of names."""
    now = dict(names)
    for task in tasks:
        record = read_record(task.folder, "outputs") or {}
        if (seen := record.get("notes", {}).get("persons")) is not None:
            now[printable(task.video.name)] = completed(task.names, from_plain(seen))
    if now != names:
        write_names(path, now)


def write(video: DetectedVideo, task: Task) -> tuple[str | None, dict[str, str]]:
    """Write a video's outputs; what is wrong with it, where something is, and file names that cannot be made of it."""
    fault = None if video.complete else f"only in part: {' '.join(video.notes)}"
    try:
        write_outputs(task.folder, video, task.formats)
    except MissingOutputsError as error:
        return fault, error.reasons
    return fault, {}


def detected(detector: "detection.ActiveSpeakerDetector", task: Task, found_in: dict[str, Any]) -> DetectedVideo:
    """What is found in a video; from the run before, where only names or formats are others now."""
    embeddings = BIOMETRIC in task.formats
    kept = Record(task.folder, "tracks", "face tracks", {**found_in, "embeddings": embeddings}, version=2)
    if not kept.missing([KEPT]):
        tqdm.write(printable(f"{task.video}: faces and scores are those of an earlier run"))
        return read_detected(elsewhere.bring(task.folder / KEPT), task.video)
    elsewhere.bring(task.video)
    video = detect(detector, task)
    with kept.making([KEPT]):
        write_detected(task.folder / KEPT, video, embeddings=embeddings)
    return video


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
