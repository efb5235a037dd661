"""A synthetic set in AVA layout: drawn talking heads, their audio, and annotations with all three labels.

    python scripts/make_synthetic_ava.py demo/ava --videos 24 --val-videos 8 --seconds 12 --seed 0 --jobs 2
    python scripts/make_synthetic_ava.py /tmp/varied --conditions varied --condition together=0.5
    python scripts/make_synthetic_ava.py /tmp/toy --videos 2 --val-videos 1 --seconds 4 --size 320x180

Writes OUT/videos/{train,val}/<video_id>.mp4, OUT/annotations/{train,val}/<video_id>-activespeaker.csv, and
OUT/synthetic.json, which says how the set was made. A video depends on the seed, its split and its number only; videos
that are there already are skipped, so that an interrupted run can be taken up again and a set can be made larger.
"""

import argparse
import functools
import json
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

from core import parallel
from core.formats import ava
from core.media.video_writer import write_video
from core.runtime.checks import as_path
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import atomic_write, make_folder, read_json, write_json
from core.synthetic.conditions import PLAIN, PRESETS, Conditions
from core.synthetic.frames import render_frames
from core.synthetic.scenes import annotation_rows, compose_scene

SETTINGS_NAME = "synthetic.json"
CRF = 23  # x264's own default: spends little on the sensor noise


@dataclass(frozen=True)
class Settings:
    """What the videos of a set depend on, and how many there are of each split."""

    seed: int
    seconds: float
    fps: float
    size: tuple[int, int]  # width, height in pixels
    videos: int
    val_videos: int
    conditions: Conditions = PLAIN


def make_video(out: Path, settings: Settings, task: tuple[str, int]) -> None:
    """Write one video, then its annotations, unless both are there; the task is (split, number)."""
    split, index = task
    scene = compose_scene(
        settings.seed, split, index, settings.seconds, settings.fps, settings.size, settings.conditions
    )
    video = out / "videos" / split / f"{scene.video_id}.mp4"
    annotations = out / "annotations" / split / f"{scene.video_id}{ava.ANNOTATION_SUFFIX}"
    if video.is_file() and annotations.is_file():
        return
    with atomic_write(video) as temporary:
        write_video(temporary, render_frames(scene), settings.fps, scene.audio, crf=CRF, repeatable=True)
    ava.write_groundtruth(annotations, annotation_rows(scene))


def claim_folder(out: Path, settings: Settings) -> None:
    """Write the settings into OUT; refuse a folder that holds another set, for the two would be mixed.

    Raises:
        UserError: OUT holds a set made with other settings, a larger one, or files of another origin.
    """
    path = make_folder(out) / SETTINGS_NAME
    wanted = asdict(settings) | {"conditions": settings.conditions.set_apart}
    wanted = json.loads(json.dumps(wanted))  # tuples become lists, as in the file
    if path.is_file():
        found = dict.fromkeys(wanted) | {"conditions": {}} | read_json(path, "delete the folder, or give another one")
        counts = ("videos", "val_videos")  # may grow
        other = [key for key in wanted if key not in counts and found[key] != wanted[key]]
        other += [key for key in counts if not isinstance(found[key], int) or found[key] > wanted[key]]
        if other:
            faults = ", ".join(f"{key} {found[key]} instead of {wanted[key]}" for key in other)
            raise UserError(f"{out} holds a set made with {faults}: delete it, or give another folder")
    elif any((out / name).exists() for name in ("videos", "annotations")):
        raise UserError(
            f"{out} holds videos or annotations that are not a synthetic set ({SETTINGS_NAME} is absent): "
            "give another folder"
        )
    write_json(path, wanted)


def number(kind: Callable[[str], float], low: float, high: float = float("inf")) -> Callable[[str], float]:
    """An argparse type: a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high or value == float("inf"):
            what = "whole number" if kind is int else "number"
            bounds = f"of at least {low}" if high == float("inf") else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"expected a {what} {bounds}, got {text!r}")
        return value

    return parse


def frame_size(text: str) -> tuple[int, int]:
    """An argparse type: WIDTHxHEIGHT, both even as H.264 wants them, large enough for eight faces."""
    match = re.fullmatch(r"(\d+)x(\d+)", text, re.ASCII)
    width, height = map(int, match.groups()) if match else (0, 0)
    if width % 2 or height % 2 or not (160 <= width <= 3840 and 90 <= height <= 2160):
        raise argparse.ArgumentTypeError(
            f"expected WIDTHxHEIGHT in even pixels from 160x90 to 3840x2160, for example 640x360, got {text!r}"
        )
    return width, height


def condition(text: str) -> tuple[str, object]:
    """An argparse type: NAME=VALUE, the value a number or a list of them as in JSON."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, for example together=0.5, got {text!r}") from error


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=as_path, help="folder to make the set in")
    parser.add_argument("--videos", type=number(int, 1), default=24, help="videos in train (default 24)")
    parser.add_argument("--val-videos", type=number(int, 1), help="videos in val (default a third of --videos)")
    parser.add_argument("--seconds", type=number(float, 1, 3600), default=12.0, help="length of each (default 12)")
    parser.add_argument("--seed", type=number(int, 0), default=0, help="another seed, another set (default 0)")
    parser.add_argument("--fps", type=number(float, 5, 60), default=25.0, help="frames per second (default 25)")
    parser.add_argument("--size", type=frame_size, default=(640, 360), help="WIDTHxHEIGHT (default 640x360)")
    parser.add_argument(
        "--conditions", choices=PRESETS, default="plain", help="plain turns, or varied: whatever real scenes have"
    )
    parser.add_argument(
        "--condition",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        dest="changes",
        type=condition,
        help="another value of one condition (core/synthetic/conditions.py); may be repeated",
    )
    parallel.add_arguments(parser)
    arguments = parser.parse_args(argv)
    settings = Settings(
        seed=arguments.seed,
        seconds=arguments.seconds,
        fps=arguments.fps,
        size=arguments.size,
        videos=arguments.videos,
        val_videos=arguments.val_videos or max(1, arguments.videos // 3),
        conditions=PRESETS[arguments.conditions].changed(dict(arguments.changes)),
    )
    claim_folder(arguments.out, settings)
    counts = {"train": settings.videos, "val": settings.val_videos}
    tasks = {f"{split} {index}": (split, index) for split in counts for index in range(counts[split])}
    status = parallel.run(functools.partial(make_video, arguments.out, settings), tasks, arguments, "synthetic videos")
    if arguments.shard is None:
        labels = ava.read_split(arguments.out / "annotations" / "val")["label"].value_counts(normalize=True)
        shares = ", ".join(f"{label} {share:.0%}" for label, share in labels.items())
        print(f"{arguments.out}: {settings.videos} videos in train, {settings.val_videos} in val ({shares})")
    return status


if __name__ == "__main__":
    main()
