"""Train the Short-Term Encoder on face crops and their sound: on clips, or on whole tracks (lr_asd, light_asd).

    python STE_train.py 11 0                                    # clips of 11 frames, CUDA device 0
    python STE_train.py 11 cpu --set STE_optimization_params.epochs=1 --set STE_optimization_params.pretrained=False
    python STE_train.py 11 0 --name first --resume              # go on with the run `first`
    python STE_train.py 11 0 --config configs/lr_asd.py         # LR-ASD on whole tracks, as published
    torchrun --nproc-per-node 4 STE_train.py 11 0               # four GPUs; the batch size is that of all together

Reads STE_inputs and STE_optimization_params of core/config.py; writes a run folder in STE_inputs['models_out'].
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from core import settings
from core.dataset import ClipDataset
from core.formats import ava
from core.inputs.loading import BatchDataset
from core.inputs.sampling import Batches, EqualLengthBatches, ShuffledBatches, WholeTracks
from core.models import make_encoder, make_track_encoder, reads_whole_tracks
from core.models.two_stream import start_from_motion
from core.models.weights import load_weights
from core.optimization import Training, make_accelerator, make_criterion, process_share
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import UserError, exits_cleanly
from core.track_dataset import TrackDataset
from core.training.losses import EncoderLoss, LossFunction, TrackLoss
from core.training.runs import Run

PATHS = ["csv_train_full", "csv_val_full", "audio_dir", "video_dir", "models_out"]


@dataclass(frozen=True)
class Ingredients:
    """What a training is made of, for clips or for whole tracks; `data` tells it in words."""

    model: nn.Module
    loss: LossFunction
    train_set: BatchDataset
    val_set: BatchDataset
    train_batches: Batches
    val_batches: Batches
    item: str
    data: str


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    # ------------------------------------------------------------ settings
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip_length", type=settings.odd, help="frames of a clip, odd; published: 11")
    parser.add_argument("cuda_device", help="index of a CUDA device, or cpu")
    parser.add_argument("--name", help="of the run folder; by default clip length and time")
    parser.add_argument("--resume", action="store_true", help="go on with the run --name after its last finished epoch")
    parser.add_argument("--full-val", action="store_true", help="validate on every frame, not on one clip an entity")
    settings.add_arguments(parser)
    arguments = parser.parse_args(argv)
    reuse_freed_memory()
    config = settings.load(arguments.config, arguments.changes, {"STE_inputs": PATHS, "STE_optimization_params": []})
    inputs, params = config["STE_inputs"], config["STE_optimization_params"]
    whole_tracks = reads_whole_tracks(params["backbone"])
    backbone = config.plain()["STE_optimization_params"]["backbone"]
    kind = f"STE_{backbone}" if whole_tracks else f"STE_clip{arguments.clip_length}"
    name = settings.run_name(arguments.name, kind, arguments.resume)
    accelerator = make_accelerator(settings.device(arguments.cuda_device), params["precision"])

    # ------------------------------------------------------------ data, network, loss
    share = process_share(accelerator)
    if whole_tracks:
        accelerator.print(
            f"{backbone} reads whole tracks: the clip length {arguments.clip_length} and the keys that core/config.py "
            "has for clips only do not count; validation is on every frame"
        )
        used = of_tracks(inputs, params, share)
    else:
        used = of_clips(inputs, params, share, arguments.clip_length, arguments.full_val)

    # ------------------------------------------------------------ training
    made_of = {"clip_length": arguments.clip_length, "full_val": arguments.full_val, **config.plain()}
    run = Run.open(f"{inputs['models_out']}/{name}", made_of, arguments.resume, accelerator)
    accelerator.print(
        f"run {run.folder}: {used.data}; {sum(p.numel() for p in used.model.parameters()):,} parameters on "
        f"{accelerator.num_processes} x {accelerator.device}, "
        f"{accelerator.mixed_precision if accelerator.mixed_precision != 'no' else 'fp32'}"
    )
    started = time.perf_counter()
    sets = used.train_set, used.val_set, used.train_batches, used.val_batches
    last = Training(used.model, used.loss, *sets, params, accelerator, used.item).fit(run)
    alone = [f"{head} alone {last[f'val_{head}_ap']:.4f}" for head in ("audio", "video") if f"val_{head}_ap" in last]
    accelerator.print(
        f"{run.folder}: epoch {last['epoch']}, validation AP {last['val_ap']:.4f} ({', '.join(alone)}), "
        f"{time.perf_counter() - started:.0f} s"
    )


def places(inputs: Mapping[str, Any], split: str) -> tuple[pd.DataFrame, Path, Path]:
    """Annotations, crops and sounds of a split."""
    rows = ava.read_augmented(inputs[f"csv_{split}_full"])
    return rows, Path(inputs["video_dir"]) / split, Path(inputs["audio_dir"]) / split


def of_clips(
    inputs: Mapping[str, Any], params: Mapping[str, Any], share: dict[str, int], clip_length: int, full_val: bool
) -> Ingredients:
    """An encoder of clips, trained on random ones."""

    def clips(split: str, **choices) -> ClipDataset:
        return ClipDataset(*places(inputs, split), clip_length, params["crop_size"], seed=params["seed"], **choices)

    train_set = clips("train", random_centres=True, mismatched_sounds=params["mismatched_sounds"])
    val_set = clips("val", random_centres=not full_val)
    train_items = len(train_set) * params["clips_per_entity"]
    val_items = len(val_set) * (1 if full_val else params["clips_per_entity"])
    torch.manual_seed(params["seed"])
    model = make_encoder(params["backbone"], params["pretrained"], clip_length)
    if params["motion_init"]:
        start_from_motion(model)
    loss = EncoderLoss(
        make_criterion(params["criterion"]),
        train_set.mfcc_windows,
        tuple(params["crop_scale"]),
        params["jitter"],
        params["jitter_per"] == "frame",
        params["mismatch_weight"],
    )
    return Ingredients(
        model,
        loss,
        train_set,
        val_set,
        ShuffledBatches(train_items, params["batch_size"], params["seed"], **share),
        ShuffledBatches(val_items, params["batch_size"], params["seed"], **share, shuffle=False),
        "clips",
        f"{train_items:,} clips an epoch from {len(train_set):,} tracks, validation on {val_items:,} "
        f"{'frames' if full_val else f'clips from {len(val_set):,} tracks'}",
    )


def of_tracks(inputs: Mapping[str, Any], params: Mapping[str, Any], share: dict[str, int]) -> Ingredients:
    """An encoder of whole tracks, trained on batches of equally long ones."""
    coolest = params["temperature"] - params["temperature_drop"] * (params["epochs"] - 1)
    if coolest <= 0:
        raise UserError(
            f"STE_optimization_params: temperature {params['temperature']} less temperature_drop "
            f"{params['temperature_drop']} an epoch comes to {coolest:.2f} in epoch {params['epochs']}: expected it to "
            "stay above 0; train for fewer epochs or lower temperature_drop"
        )
    mix = {"mix_chance": params["mix_chance"], "mix_snr_db": tuple(params["mix_snr"])}
    train_set = TrackDataset(*places(inputs, "train"), augment=True, seed=params["seed"], **mix)
    val_set = TrackDataset(*places(inputs, "val"), augment=False)
    train_batches = EqualLengthBatches(train_set.lengths, params["frames_per_batch"], params["seed"], **share)
    torch.manual_seed(params["seed"])
    model = make_track_encoder(params["backbone"])
    if not isinstance(params["pretrained"], bool):
        load_weights(model, params["pretrained"], "weights to start from")
    loss = TrackLoss(
        make_criterion(params["criterion"]), params["temperature"], params["temperature_drop"], params["video_weight"]
    )
    return Ingredients(
        model,
        loss,
        train_set,
        val_set,
        train_batches,
        WholeTracks(val_set.lengths, **share),
        "frames",
        f"{sum(train_batches.global_sizes()):,} of {train_set.lengths.sum():,} frames an epoch in "
        f"{len(train_batches):,} batches from {len(train_set):,} tracks, validation on {val_set.lengths.sum():,} "
        f"frames of {len(val_set):,} tracks",
    )


if __name__ == "__main__":
    main()
