"""Train the Short-Term Encoder on face crops and their audio: on clips, or on whole tracks (lr_asd, light_asd).

    python STE_train.py 11 0                                    # clips of 11 frames, CUDA device 0
    python STE_train.py 11 cpu --set STE_optimization_params.epochs=1 --set STE_optimization_params.pretrained=False
    python STE_train.py 11 0 --name first --resume              # go on with the run `first`
    python STE_train.py 11 0 --config configs/lr_asd.py         # LR-ASD on whole tracks, as published
    torchrun --nproc-per-node 4 STE_train.py 11 0               # four GPUs; the batch size is that of all together

Reads STE_inputs and STE_optimization_params of core/config.py; writes a run folder in STE_inputs['models_out'].
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
import time
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator

from core import settings
from core.dataset import ClipDataset
from core.formats import ava
from core.inputs.sampling import EqualLengthBatches, ShuffledBatches, WholeTracks
from core.models import TRACK_ENCODERS, make_encoder, reads_whole_tracks
from core.models.two_stream import start_from_motion
from core.models.weights import load_weights
from core.optimization import Training, make_accelerator, make_criterion, process_share
from core.runtime import devices
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import fingerprint
from core.track_dataset import TrackDataset
from core.training.losses import EncoderLoss, TrackLoss
from core.training.peers import ends_together, same_everywhere
from core.training.runs import Run

PATHS = ["csv_train_full", "csv_val_full", "audio_dir", "video_dir", "models_out"]


@exits_cleanly
@ends_together
def main(argv: list[str] | None = None) -> None:
    # ------------------------------------------------------------ settings
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip_length", type=settings.odd, help="frames of a clip, odd; published: 11")
    parser.add_argument("cuda_device", help="index of a CUDA device, or cpu")
    parser.add_argument("--full-val", action="store_true", help="validate on every frame, not on one clip an entity")
    settings.add_run_arguments(parser, "clip length")
    settings.add_arguments(parser)
    arguments = parser.parse_args(argv)
    clip_length, full_val = arguments.clip_length, arguments.full_val
    config = settings.load(arguments.config, arguments.changes, {"STE_inputs": PATHS, "STE_optimization_params": []})
    inputs, params = config["STE_inputs"], config["STE_optimization_params"]
    whole_tracks = reads_whole_tracks(params["backbone"])
    backbone = config.plain()["STE_optimization_params"]["backbone"]
    kind = f"STE_{backbone}" if whole_tracks else f"STE_clip{clip_length}"
    reuse_freed_memory()
    accelerator = make_accelerator(devices.device(arguments.cuda_device), params["precision"])
    name = same_everywhere(settings.run_name(arguments, kind))

    # ------------------------------------------------------------ data, network, loss
    if whole_tracks:
        accelerator.print(
            f"{backbone} reads whole tracks: the clip length {clip_length} and the keys that core/config.py has for "
            "clips only do not count; validation is on every frame"
        )
        training = track_training(inputs, params, accelerator)
    else:
        training = clip_training(inputs, params, accelerator, clip_length=clip_length, full_val=full_val)

    # ------------------------------------------------------------ training
    made_of: dict[str, Any] = {"train": training.train[0].made_of(), "val": training.val[0].made_of()}
    if not isinstance(params["pretrained"], bool):
        made_of["pretrained"] = fingerprint(params["pretrained"])
    made_with = {"clip_length": clip_length, "full_val": full_val, "made_of": made_of, **config.plain()}
    folder = f"{inputs['models_out']}/{name}"
    run = Run.open(folder, made_with, arguments.resume, accelerator, update=arguments.update)
    accelerator.print(f"run {run.folder}: {training.describe()}")
    started = time.perf_counter()
    last = training.fit(run)
    alone = [f"{head} alone {last[f'val_{head}_ap']:.4f}" for head in ("audio", "video") if f"val_{head}_ap" in last]
    accelerator.print(
        f"{run.folder}: epoch {last['epoch']}, validation AP {last['val_ap']:.4f} ({', '.join(alone)}), "
        f"{time.perf_counter() - started:.0f} s"
    )


def clip_training(
    inputs: Mapping[str, Any], params: Mapping[str, Any], accelerator: Accelerator, *, clip_length: int, full_val: bool
) -> Training:
    """An encoder of clips, trained on random ones."""

    def clips(split: str, *, random_centres: bool, mismatched_sounds: int = 0) -> ClipDataset:
        return ClipDataset(
            ava.read_augmented(inputs[f"csv_{split}_full"]),
            f"{inputs['video_dir']}/{split}",
            f"{inputs['audio_dir']}/{split}",
            clip_length=clip_length,
            size=params["crop_size"],
            random_centres=random_centres,
            seed=params["seed"],
            mismatched_sounds=mismatched_sounds,
            rows_without_crops=inputs["rows_without_crops"],
        )

    train_set = clips("train", random_centres=True, mismatched_sounds=params["mismatched_sounds"])
    val_set = clips("val", random_centres=not full_val)
    train_items = len(train_set) * params["clips_per_entity"]
    val_items = len(val_set) * (1 if full_val else params["clips_per_entity"])
    accelerator.print(
        f"{train_items:,} clips an epoch from {len(train_set):,} tracks{train_set.left_out_text()}, validation "
        f"on {val_items:,} {'frames' if full_val else f'clips from {len(val_set):,} tracks'}{val_set.left_out_text()}"
    )
    share = {"batch_size": params["batch_size"], "seed": params["seed"], **process_share(accelerator)}

    torch.manual_seed(params["seed"])
    model = make_encoder(params["backbone"], params["pretrained"], clip_length)
    if params["motion_init"]:
        start_from_motion(model)
    loss = EncoderLoss(
        make_criterion(params["criterion"]),
        mfcc_windows=train_set.mfcc_windows,
        crop_scale=params["crop_scale"],
        jitter=params["jitter"],
        jitter_frames=params["jitter_per"] == "frame",
        mismatch_weight=params["mismatch_weight"],
    )
    return Training(
        model,
        loss,
        train=(train_set, ShuffledBatches(train_items, **share)),
        val=(val_set, ShuffledBatches(val_items, **share, shuffle=False)),
        accelerator=accelerator,
        item="clips",
        **settings.training_arguments(params),
    )


def track_training(inputs: Mapping[str, Any], params: Mapping[str, Any], accelerator: Accelerator) -> Training:
    """An encoder of whole tracks, trained on batches of equally long ones."""
    coolest = params["temperature"] - params["temperature_drop"] * (params["epochs"] - 1)
    if coolest <= 0:
        raise UserError(
            f"STE_optimization_params: temperature {params['temperature']} less temperature_drop "
            f"{params['temperature_drop']} an epoch comes to {coolest:.2f} in epoch {params['epochs']}: expected it to "
            "stay above 0; train for fewer epochs or lower temperature_drop"
        )

    def tracks(split: str, *, augment: bool) -> TrackDataset:
        return TrackDataset(
            ava.read_augmented(inputs[f"csv_{split}_full"]),
            f"{inputs['video_dir']}/{split}",
            f"{inputs['audio_dir']}/{split}",
            augment=augment,
            seed=params["seed"],
            mix_chance=params["mix_chance"],
            mix_snr_db=params["mix_snr"],
            rows_without_crops=inputs["rows_without_crops"],
        )

    train_set, val_set = tracks("train", augment=True), tracks("val", augment=False)
    share = process_share(accelerator)
    train_batches = EqualLengthBatches(train_set.lengths, params["frames_per_batch"], params["seed"], **share)
    val_batches = WholeTracks(val_set.lengths, **share)
    accelerator.print(
        f"{sum(train_batches.global_sizes()):,} of {train_set.lengths.sum():,} frames an epoch in "
        f"{len(train_batches):,} batches from {len(train_set):,} tracks{train_set.left_out_text()}, "
        f"validation on {val_set.lengths.sum():,} frames of {len(val_set):,} tracks{val_set.left_out_text()}"
    )

    torch.manual_seed(params["seed"])
    model = TRACK_ENCODERS[params["backbone"]]()
    if not isinstance(params["pretrained"], bool):
        load_weights(model, params["pretrained"], "weights to start from")
    loss = TrackLoss(
        make_criterion(params["criterion"]),
        temperature=params["temperature"],
        temperature_drop=params["temperature_drop"],
        video_weight=params["video_weight"],
    )
    return Training(
        model,
        loss,
        train=(train_set, train_batches),
        val=(val_set, val_batches),
        accelerator=accelerator,
        item="frames",
        **settings.training_arguments(params),
    )


if __name__ == "__main__":
    main()
