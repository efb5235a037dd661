"""Every stage in order, from videos in AVA layout to average precision, by calling the scripts that users call.

    python scripts/run_pipeline.py --videos videos --annotations annotations --out runs/mine
    python scripts/run_pipeline.py --videos videos --annotations annotations --out runs/mine --device 0 \
        --ste-clips 2000000 --set STE_optimization_params.batch_size=128 --set STE_optimization_params.pretrained=True
    python scripts/run_pipeline.py --videos videos --annotations annotations --out runs/lr_asd --backbone lr_asd
    python scripts/run_pipeline.py --videos videos --annotations annotations --out runs/context \
        --encoder-weights light_asd/ava     # published weights; only their context is trained

VIDEOS holds {train,val}/<video_id>.{mp4,mkv,webm,...}, ANNOTATIONS {train,val}/<video_id>-activespeaker.csv. On a
re-run each stage does what is not done yet, or was made of other data or settings; an interrupted training goes on
after its last finished epoch. Videos that cannot be
used are listed and left out (exit status 1). OUT/config.py holds all settings: the scripts can be run by hand with it.
"""

import argparse
import glob
import math
import os
import pprint
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import pandas as pd

from core import settings
from core.detection.encoders import shipped_for
from core.download.weights_catalogue import WEIGHTS, find_weights
from core.evaluation.metrics import FACE_COUNT_GROUPS
from core.formats import ava
from core.models import BACKBONES, TRACK_ENCODERS
from core.runtime.checks import Check, as_path, number, whole
from core.runtime.errors import EXIT_BROKEN_ITEMS, EXIT_INTERRUPTED, PARENT, UserError, exits_cleanly
from core.runtime.files import atomic_write, fingerprint, make_folder, read_json, write_json
from core.runtime.provenance import FOLDER
from core.training.learning_curves import plot_learning_curves

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 10  # a training on clips is cut into as many
# From weights that are good already:
CONTEXT_TUNING = {"learning_rate": 5e-4}
ENCODER_TUNING = {"learning_rate": 1e-4, "epochs": 2, "gamma": 0.95, "temperature": 1.0, "temperature_drop": 0.0}
SMALL_BATCH = 500  # frames: whole tracks of small data are few, and 2000 frames make for too few steps
ENCODER = "resnet18_two_streams"
# What is kept of a finished stage.
ENTRY: dict[str, Check] = {
    "seconds": number(0),
    "count": whole(0),
    "unit": lambda value: None if isinstance(value, str) else "expected text",
}


@dataclass(frozen=True)
class Stage:
    """One call of one script.

    Attributes:
        name: in the table.
        command: script and arguments, without the interpreter.
        count, unit: how much work it is, for the throughput.
        writes: its output, a file or a folder.
    """

    name: str
    command: list[object]
    count: int
    unit: str
    writes: Path


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.encoder_weights:  # now, not when all crops are cut
        arguments.encoder_weights = encoder_weights(arguments.backbone, arguments.encoder_weights)
    check_training(arguments)
    out = make_folder(arguments.out).resolve()
    stages = Stages(out / "stages.json")

    # ------------------------------------------------------------ preparation
    rows, left_out = {}, []
    for split in ava.SPLITS:
        for stage in preparation(arguments, out, split):
            stages.run(stage, may_break=True)
        rows[split], missing = usable(out, split)
        left_out += [f"{split}/{video_id}" for video_id in missing]

    # ------------------------------------------------------------ training, forwarding, scores
    write_folds(fold_folders(arguments, out), rows["train"])
    config = write_config(arguments, out, rows)
    for stage in learning(arguments, out, rows, config):
        stages.run(stage)

    # ------------------------------------------------------------ what came out
    table, results = report(out, stages.table, systems(arguments, out, config))
    print("\n" + table)
    with atomic_write(out / "summary.md") as temporary:
        temporary.write_text(table + "\n", encoding="utf-8")
    write_json(out / "summary.json", {"stages": stages.table, "evaluation": results})
    if left_out:
        print(f"\n{len(left_out)} video(s) could not be used and were left out: {', '.join(left_out)}", file=sys.stderr)
        return EXIT_BROKEN_ITEMS
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=as_path, required=True, help="folder with {train,val}/<video_id>.<extension>")
    parser.add_argument("--annotations", type=as_path, required=True, help="folder of {train,val}/*-activespeaker.csv")
    parser.add_argument("--out", type=as_path, required=True, help="everything is written below this folder")
    parser.add_argument("--device", default="cpu", help="cpu, or the index of a CUDA device (default cpu)")
    parser.add_argument(
        "--backbone",
        choices=[*BACKBONES, *TRACK_ENCODERS],
        help=f"the encoder; lr_asd and light_asd read whole tracks (default {ENCODER})",
    )
    parser.add_argument(
        "--encoder-weights",
        metavar="WEIGHTS",
        help="encode with these and train the context alone: light_asd/ava or lr_asd/ava (published, downloaded once), "
        "or the path of a state dict of --backbone",
    )
    parser.add_argument(
        "--fine-tune",
        nargs="+",
        choices=["context", "encoder"],
        default=[],
        help="context: begin with the network that is shipped for the published encoder, not with random weights; "
        "encoder: train the encoder on from --encoder-weights, too, at a low rate",
    )
    parser.add_argument(
        "--folds",
        type=settings.at_least_one,
        default=1,
        help="train the residual context on scores by so many further encoders, each trained without the videos that "
        "it scores (default 1: on scores by the encoder itself, which has been trained on them)",
    )
    parser.add_argument(
        "--network",
        choices=["ASC_Net", "residual"],
        help="the context network (default residual with --encoder-weights, else ASC_Net)",
    )
    parser.add_argument(
        "--no-shipped", action="store_true", help="leave the shipped context network out of the comparison"
    )
    parser.add_argument("--clip-length", type=settings.odd, default=11, help="frames of a clip (default 11)")
    for name, default, text in (
        ("--skip-frames", 4, "rows from one time step to the next"),
        ("--speakers", 3, "speakers of a context"),
        ("--crop-size", 144, "pixels"),
        ("--ste-clips", 16_000, "clips to train the STE on; whole tracks: as many frames as these clips have"),
        ("--asc-contexts", 200_000, "contexts to train ASC on"),
        ("--jobs", 2, "videos prepared side by side"),
    ):
        parser.add_argument(name, type=settings.at_least_one, default=default, help=f"{text} (default {default})")
    settings.add_arguments(parser)
    arguments = parser.parse_args(argv)
    encoder, _, name = (arguments.encoder_weights or "").partition("/")
    if name in WEIGHTS.get(encoder, ()):
        if arguments.backbone not in (None, encoder):
            parser.error(f"--encoder-weights {encoder}/{name} are not of --backbone {arguments.backbone}")
        arguments.backbone, arguments.encoder_weights = encoder, name
    arguments.backbone = arguments.backbone or ENCODER
    arguments.network = arguments.network or ("residual" if arguments.encoder_weights else "ASC_Net")
    return arguments


def encoder_weights(backbone: str, weights: str) -> Path:
    """The file of weights that --encoder-weights names.

    Raises:
        UserError: there is none, or its encoder reads faces cut as no stage cuts them.
    """
    if backbone not in WEIGHTS:
        if not Path(weights).is_file():
            raise UserError(
                f"--encoder-weights {weights}: there is no such file, and {backbone} has no published weights"
            )
        return Path(weights).resolve()
    path, crop = find_weights(backbone, weights)
    if crop not in (None, "box"):
        raise UserError(
            f"--encoder-weights {weights}: these weights were trained on faces cut as '{crop}', and the stages cut the "
            "annotated box; give ava, or the path of weights of your own"
        )
    return path.resolve()


def check_training(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be trained.

    Raises:
        UserError: there is nothing to begin with, or no encoder is trained that could be trained in folds.
    """
    if "context" in arguments.fine_tune and not shipped_context(arguments):
        raise UserError(
            "--fine-tune context: begins with the context network that is shipped with an encoder's published weights; "
            "give these with --encoder-weights light_asd/ava or lr_asd/ava"
        )
    if "encoder" in arguments.fine_tune and not (arguments.encoder_weights and arguments.backbone in TRACK_ENCODERS):
        raise UserError(
            "--fine-tune encoder: give the weights to begin with, of an encoder of whole tracks, such as "
            "--encoder-weights light_asd/ava"
        )
    if arguments.folds > 1 and (arguments.network != "residual" or not trains_encoder(arguments)):
        raise UserError(
            f"--folds {arguments.folds}: of use where an encoder is trained (with --encoder-weights by --fine-tune "
            "encoder) and a context network that does not read its features (--network residual)"
        )


def trains_encoder(arguments: argparse.Namespace) -> bool:
    return not arguments.encoder_weights or "encoder" in arguments.fine_tune


def shipped_context(arguments: argparse.Namespace) -> Path | None:
    """The context network that is shipped for the given weights of the encoder, if there is one."""
    weights = arguments.encoder_weights
    return shipped_for(arguments.backbone, fingerprint(weights)) if weights else None


def compared(arguments: argparse.Namespace) -> Path | None:
    """The shipped context network where it is compared with the run's own."""
    return None if arguments.no_shipped else shipped_context(arguments)


class Stages:
    """Runs stages, and keeps in a file how long each of them took when it last had something to do.

    Each stage is run every time: it knows itself what of its outputs is there and made of the same.
    """

    def __init__(self, path: Path):
        self.path = path
        remedy = "delete it: it only says how long stages took"
        self.seconds: dict[str, dict] = read_json(path, remedy) if path.is_file() else {}
        for name, entry in self.seconds.items():
            good = isinstance(entry, dict) and entry.keys() == ENTRY.keys()
            if not good or any(ENTRY[key](value) for key, value in entry.items()):
                raise UserError(f"{path}: the entry of {name!r} is not that of a stage; {remedy}")
        self.table: dict[str, dict] = {}

    def run(self, stage: Stage, may_break: bool = False) -> None:
        command = [str(word) for word in stage.command]
        print(f"[{stage.name}] {' '.join(command)}", flush=True)
        before, started = _newest(stage.writes), time.perf_counter()
        reading, writing = os.pipe()  # its end shows the stage that this process has gone
        with open(reading, "rb"), open(writing, "wb"):
            environment = os.environ | {PARENT: str(reading)}
            status = subprocess.run(
                [sys.executable, *command], cwd=ROOT, check=False, env=environment, pass_fds=[reading]
            ).returncode
        if status in (EXIT_INTERRUPTED, -signal.SIGINT):
            raise KeyboardInterrupt
        if status != 0 and not (status == EXIT_BROKEN_ITEMS and may_break):
            raise UserError(f"stage {stage.name} failed with status {status}; see above, then run this again")
        if _newest(stage.writes) != before or stage.name not in self.seconds:
            seconds = time.perf_counter() - started
            self.seconds[stage.name] = {"seconds": seconds, "count": stage.count, "unit": stage.unit}
        self.table[stage.name] = self.seconds[stage.name]
        write_json(self.path, self.seconds)


def _newest(path: Path) -> int:
    """When the newest of the files that a stage writes was changed, in ns; 0 where there are none."""
    files = (file for file in path.rglob("*") if FOLDER not in file.parts) if path.is_dir() else [path]
    return max((file.stat().st_mtime_ns for file in files if file.is_file()), default=0)


def preparation(arguments: argparse.Namespace, out: Path, split: str) -> Iterator[Stage]:
    """The stages from annotations and videos to crops and audio of one split."""
    videos, annotations = arguments.videos.resolve() / split, arguments.annotations.resolve() / split
    if not videos.is_dir():
        raise UserError(f"no folder {videos}: --videos needs {{train,val}}/<video_id>.<extension>")
    rows = ava.read_split(annotations)
    faces = len(rows)
    csv = out / "csv" / f"{split}_augmented.csv"
    tracks, audio, crops = (out / name / split for name in ("tracks", "audio", "crops"))
    jobs = ["--jobs", arguments.jobs]
    yield Stage(f"annotations, {split}", ["data/augment_annotations.py", annotations, csv], faces, "faces", csv)
    command = ["data/extract_audio_tracks.py", videos, csv, tracks, *jobs]
    yield Stage(f"audio of videos, {split}", command, rows["video_id"].nunique(), "videos", tracks)
    command = ["data/slice_audio_tracks.py", tracks, csv, audio, *jobs]
    yield Stage(f"audio of faces, {split}", command, faces, "faces", audio)
    command = ["data/extract_face_crops_time.py", videos, csv, crops, "--size", arguments.crop_size, *jobs]
    yield Stage(f"face crops, {split}", command, faces, "faces", crops)


def usable(out: Path, split: str) -> tuple[pd.DataFrame, list[str]]:
    """The rows of the videos that preparation finished, written as csv/<split>.csv; and the ids of the others."""
    rows = ava.read_augmented(out / "csv" / f"{split}_augmented.csv")
    missing = []
    for video_id, part in rows.groupby("video_id"):
        wavs = [out / "audio" / split / f"{entity}.wav" for entity in part["entity_id"].unique()]
        if not all(path.is_file() for path in [out / "crops" / split / f"{video_id}.arrow", *wavs]):
            missing.append(video_id)
    rows = rows[~rows["video_id"].isin(missing)].reset_index(drop=True)
    if rows.empty:
        raise UserError(f"no video of {split} can be used; see the messages above")
    ava.write_augmented(out / "csv" / f"{split}.csv", rows)
    return rows, missing


def write_folds(folders: list[Path], rows: pd.DataFrame) -> None:
    """Divide the training split by videos: in each fold's folder, its own rows and those of all others, as csvs.

    Raises:
        UserError: there are too few videos.
    """
    videos = sorted(rows["video_id"].unique())
    if len(videos) < len(folders):
        raise UserError(f"--folds {len(folders)}: there are {len(videos)} videos to train on; give fewer folds")
    for fold, folder in enumerate(folders):
        own = rows["video_id"].isin(videos[fold :: len(folders)])
        for name, part in (("own", own), ("others", ~own)):
            ava.write_augmented(folder / f"{name}.csv", rows[part].reset_index(drop=True))


def write_config(arguments: argparse.Namespace, out: Path, rows: dict[str, pd.DataFrame]) -> settings.Settings:
    """The settings of this run, written to config.py, which every stage script takes with --config."""
    csvs = {f"csv_{split}_full": f"{out}/csv/{split}.csv" for split in ava.SPLITS}
    features = {f"features_{split}_full": f"{out}/features/{split}" for split in ava.SPLITS}
    folds = fold_folders(arguments, out)
    pattern = f"{glob.escape(str(out))}/folds/*_of_{arguments.folds}/features/train"
    models, predictions = {"models_out": f"{out}/models"}, {"predictions_out": f"{out}/predictions"}
    media = {"audio_dir": f"{out}/audio", "video_dir": f"{out}/crops", "features_out": f"{out}/features"}
    faces = len(rows["train"])
    if arguments.backbone in TRACK_ENCODERS:
        recipe = track_recipe(arguments.backbone, arguments.ste_clips * arguments.clip_length, faces)
        if "encoder" in arguments.fine_tune:
            recipe |= {"pretrained": str(arguments.encoder_weights)} | ENCODER_TUNING
    else:
        recipe = clip_recipe(arguments.ste_clips, rows["train"]["entity_id"].nunique(), arguments.crop_size)
    if arguments.network == "residual":
        needed = {"ASC_optimization_params": []}
        context = settings.load(ROOT / "configs" / "residual_context.py", [], needed)["ASC_optimization_params"]
        if "context" in arguments.fine_tune:
            context |= {"pretrained": str(shipped_context(arguments))} | CONTEXT_TUNING
    else:
        asc_epochs = max(1, round(arguments.asc_contexts / faces))
        context = {"learning_rate": 1e-4, "epochs": asc_epochs, "step_size": cut_every(asc_epochs)}
    # The last epoch, not the best one: choosing by the validation split would flatter its average precision.
    weights = "last" if trains_encoder(arguments) else str(arguments.encoder_weights)
    forward = {"backbone": arguments.backbone, "weights": weights, "crop_size": arguments.crop_size}
    values = {
        "STE_inputs": csvs | media | models | predictions,
        "STE_optimization_params": {"backbone": arguments.backbone, "threads": 1} | recipe,
        "STE_forward_params": forward,
        "ASC_inputs": features | models | ({"features_train_full": pattern} if folds else {}),
        "ASC_inputs_forward": features | csvs | predictions | {"logits_out": f"{out}/logits"},
        "ASC_optimization_params": dict(context),
        "ASC_forward_params": {"weights": "last"},
    }
    config = settings.load(arguments.config, arguments.changes, base=values)
    text = "".join(f"\n{name} = {pprint.pformat(keys, sort_dicts=False)}\n" for name, keys in config.plain().items())
    with atomic_write(out / "config.py") as temporary:
        temporary.write_text(
            f'"""All settings of this run, made by scripts/run_pipeline.py."""\n{text}', encoding="utf-8"
        )
    return config


def cut_every(epochs: int) -> int:
    """Epochs between cuts of the learning rate: after 40 % and 80 % of a training."""
    return math.ceil(0.4 * epochs)


def clip_recipe(clips: int, tracks: int, crop_size: int) -> dict[str, Any]:
    """The published recipe with what makes the most of each clip (docs/accuracy.md).

    Args:
        clips: budget of the whole training.
        tracks: of the training split.
        crop_size: pixels.
    """
    return {
        "pretrained": False,
        "motion_init": True,
        "learning_rate": 1e-4,
        "epochs": EPOCHS,
        "step_size": cut_every(EPOCHS),
        "clips_per_entity": max(1, round(clips / (EPOCHS * tracks))),
        "batch_size": 32,
        "crop_size": crop_size,
        "crop_scale": (0.7, 1.0),
        "jitter_per": "clip",
        "mismatched_sounds": 2,
    }


def track_recipe(backbone: str, frames: int, faces: int) -> dict[str, Any]:
    """The published recipe in smaller batches and fewer epochs, over which learning rate and temperature fall as far.

    Args:
        backbone: a name of `core.models.TRACK_ENCODERS`.
        frames: budget of the whole training.
        faces: frames of all tracks of the training split.
    """
    needed = {"STE_optimization_params": []}
    published = settings.load(ROOT / "configs" / f"{backbone}.py", [], needed)["STE_optimization_params"]
    epochs = min(published["epochs"], max(1, round(frames / faces)))
    pace = published["epochs"] / epochs
    return {
        **published,
        "epochs": epochs,
        "gamma": round(published["gamma"] ** pace, 6),
        "temperature_drop": round(published["temperature_drop"] * pace, 6),
        "frames_per_batch": SMALL_BATCH,
        "threads": 1,
    }


def learning(
    arguments: argparse.Namespace, out: Path, rows: dict[str, pd.DataFrame], config: settings.Settings
) -> Iterator[Stage]:
    """The stages from crops and audio to scores."""
    ste, asc = config["STE_optimization_params"], config["ASC_optimization_params"]
    train, val = len(rows["train"]), len(rows["val"])
    whole_tracks = ste["backbone"] in TRACK_ENCODERS  # these have no audio head
    clips = rows["train"]["entity_id"].nunique() * ste["clips_per_entity"]
    work = (ste["epochs"] * train, "frames") if whole_tracks else (ste["epochs"] * clips, "clips")
    options = ["--config", out / "config.py"]
    clip = [arguments.clip_length, arguments.device]
    context = [arguments.clip_length, arguments.skip_frames, arguments.speakers] if asc["network"] == "ASC_Net" else []
    context.append(arguments.device)
    models, predictions = out / "models", out / "predictions" / "val"

    if trains_encoder(arguments):
        yield Stage("STE_train", ["STE_train.py", *clip, "--name", "STE", "--update", *options], *work, models / "STE")
    # In folds the encoder itself is not asked for what it has been trained on.
    split, faces = ("both", train + val) if arguments.folds == 1 else ("val", val)
    command = ["STE_forward.py", *clip, "--split", split, *options]
    yield Stage("STE_forward", command, faces, "faces", out / "features")
    for fold, folder in enumerate(fold_folders(arguments, out), start=1):
        apart = [f"csv_train_full={folder}/others.csv", f"models_out={folder}/models"]
        command = ["STE_train.py", *clip, "--name", "STE", "--update", *options, *changes("STE_inputs", apart)]
        share = round(work[0] * (1 - 1 / arguments.folds))
        yield Stage(f"STE_train, fold {fold}", command, share, work[1], folder / "models")
        apart = [f"csv_train_full={folder}/own.csv", f"models_out={folder}/models", f"features_out={folder}/features"]
        command = ["STE_forward.py", *clip, "--split", "train", *options, *changes("STE_inputs", apart)]
        yield Stage(f"STE_forward, fold {fold}", command, round(train / arguments.folds), "faces", folder / "features")
    for head in ("av", "video") if whole_tracks else ("av", "audio", "video"):
        command = ["STE_postprocessing.py", *options, "--set", f"STE_postprocessing_params.head={head}"]
        yield Stage(f"STE_postprocessing, {head}", command, val, "faces", predictions)
    command = ["ASC_train.py", *context, "--name", "ASC", "--update", *options]
    unit = "contexts" if asc["network"] == "ASC_Net" else "faces"
    yield Stage("ASC_train", command, asc["epochs"] * train, unit, models / "ASC")
    yield Stage("ASC_forward", ["ASC_forward.py", *context, *options], val, "faces", out / "logits")
    yield Stage("ASC_postprocessing", ["ASC_prediction_postprocessing.py", *options], val, "faces", predictions)
    given, shipped = given_folder(arguments, out), compared(arguments)
    if given != out:
        weights = ["--set", f"STE_forward_params.weights={arguments.encoder_weights}"]
        apart = changes("STE_inputs", [f"features_out={given}/features", f"predictions_out={given}/predictions"])
        command = ["STE_forward.py", *clip, "--split", "val", *options, *weights, *apart]
        yield Stage("STE_forward, given weights", command, val, "faces", given / "features")
        command = ["STE_postprocessing.py", *options, *apart]
        yield Stage("STE_postprocessing, given weights", command, val, "faces", given / "predictions")
    if shipped:
        apart = [f"features_val_full={given}/features/val", f"logits_out={out}/shipped/logits"]
        apart = changes("ASC_inputs_forward", [*apart, f"predictions_out={out}/shipped/predictions"])
        command = ["ASC_forward.py", arguments.device, *options, "--set", f"ASC_forward_params.weights={shipped}"]
        yield Stage("ASC_forward, shipped", [*command, *apart], val, "faces", out / "shipped" / "logits")
        command = ["ASC_prediction_postprocessing.py", *options, *apart]
        yield Stage("ASC_postprocessing, shipped", command, val, "faces", out / "shipped" / "predictions")
    files = systems(arguments, out, config).values()
    command = ["evaluate.py", "--groundtruth", predictions / "gt.csv", "--predictions", *files]
    command += ["--videos", arguments.videos.resolve()]
    command += ["--json", out / "evaluation.json", "--plot", out / "precision_recall.png"]
    yield Stage("evaluate", command, val * len(files), "rows", out / "evaluation.json")


def changes(dictionary: str, values: list[str]) -> list[str]:
    """The words that change "key=value" of a dictionary for one stage."""
    return [word for value in values for word in ("--set", f"{dictionary}.{value}")]


def fold_folders(arguments: argparse.Namespace, out: Path) -> list[Path]:
    """A folder for each fold; none where there is one fold, of all."""
    folds = arguments.folds
    return [out / "folds" / f"{fold}_of_{folds}" for fold in range(1, folds + 1)] if folds > 1 else []


def given_folder(arguments: argparse.Namespace, out: Path) -> Path:
    """Where the features and predictions of the given encoder are: apart from those of one trained on from it."""
    return out / "given" if arguments.encoder_weights and trains_encoder(arguments) else out


def systems(arguments: argparse.Namespace, out: Path, config: settings.Settings) -> dict[str, Path]:
    """What is evaluated: its name in the table -> its predictions."""
    own, given = out / "predictions" / "val", given_folder(arguments, out)
    name = arguments.backbone if arguments.backbone in TRACK_ENCODERS else "STE"
    encoder = name if given == out else f"{name}, trained on"
    found = {f"{encoder}, video alone": own / "STE_video.csv", encoder: own / "STE.csv"}
    if arguments.backbone not in TRACK_ENCODERS:
        found = {f"{encoder}, audio alone": own / "STE_audio.csv"} | found
    if given != out:
        found = {name: given / "predictions" / "val" / "STE.csv"} | found
    if compared(arguments):
        found[f"{name} + shipped context"] = out / "shipped" / "predictions" / "val" / "ASC.csv"
    residual = config["ASC_optimization_params"]["network"] == "residual"
    return found | {f"{encoder} + own context" if residual else "ASC": own / "ASC.csv"}


def report(out: Path, stages: dict[str, dict], systems: Iterable[str]) -> tuple[str, dict]:
    """The table of a run in Markdown, and the evaluation that it quotes, which is of `systems` in their order."""
    trained = [name for name in ("STE", "ASC") if f"{name}_train" in stages]  # others are of an earlier run in OUT
    logs = {name: out / "models" / name / "log.csv" for name in trained}
    plot_learning_curves(logs, out / "learning_curves.png")
    evaluation = read_json(out / "evaluation.json", "delete it and run this again")
    lines = ["| stage | seconds | throughput |", "|---|---:|---:|"]
    for name, stage in stages.items():
        rate = stage["count"] / stage["seconds"]
        lines.append(f"| {name} | {stage['seconds']:.1f} | {rate:,.0f} {stage['unit']}/s |")
    lines.append(f"| total | {sum(stage['seconds'] for stage in stages.values()):.1f} | |")
    groups = " | ".join(f"{name} face{'' if name == '1' else 's'}" for name in FACE_COUNT_GROUPS)
    lines += ["", f"| average precision on the validation split | all | {groups} |", "|---|---:|---:|---:|---:|"]
    for name, result in zip(systems, evaluation["files"], strict=True):
        values = [result, *(result["by_faces"][group] for group in FACE_COUNT_GROUPS)]
        lines.append(f"| {name} |{''.join(f' {precision_text(value)} |' for value in values)}")
    lines.append(f"| chance (share of speaking faces) | {evaluation['chance']:.4f} | | | |")
    lines += ["", "Where to look:"]
    places = {
        "predictions": out / "predictions" / "val",
        "run folders (TensorBoard reads them)": out / "models",
        "learning curves": out / "learning_curves.png",
        "precision and recall": out / "precision_recall.png",
        "all settings": out / "config.py",
    }
    lines += [f"- {what}: {_short(path)}" for what, path in places.items()]
    return "\n".join(lines), evaluation


def precision_text(result: dict[str, Any]) -> str:
    """An average precision with four digits; a dash where nobody speaks."""
    value = result["average_precision"]
    return "–" if value is None else f"{value:.4f}"


def _short(path: Path) -> Path:
    """A path as a user standing in the repository would type it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    main()
