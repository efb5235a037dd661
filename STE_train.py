"""Train the Short-Term Encoder on clips of face crops and their sound.

    python STE_train.py 11 0                                    # clips of 11 frames, CUDA device 0
    python STE_train.py 11 cpu --set STE_optimization_params.epochs=1 --set STE_optimization_params.pretrained=False
    python STE_train.py 11 0 --name first --resume              # go on with the run `first`
    torchrun --nproc-per-node 4 STE_train.py 11 0               # four GPUs; the batch size is that of all together

Reads STE_inputs and STE_optimization_params of core/config.py; writes a run folder in STE_inputs['models_out'].
"""

import argparse
import time

import torch

from core import ava, settings
from core.allocation import reuse_freed_memory
from core.dataset import ClipDataset
from core.errors import exits_cleanly
from core.losses import EncoderLoss
from core.models import make_encoder
from core.models.two_stream import start_from_motion
from core.optimization import Training, make_accelerator, make_criterion
from core.runs import Run

PATHS = ["csv_train_full", "csv_val_full", "audio_dir", "video_dir", "models_out"]


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
    name = settings.run_name(arguments.name, f"STE_clip{arguments.clip_length}", arguments.resume)
    accelerator = make_accelerator(settings.device(arguments.cuda_device), params["precision"])

    # ------------------------------------------------------------ data
    def clips(split: str, **choices) -> ClipDataset:
        return ClipDataset(
            ava.read_augmented(inputs[f"csv_{split}_full"]),
            f"{inputs['video_dir']}/{split}",
            f"{inputs['audio_dir']}/{split}",
            arguments.clip_length,
            params["crop_size"],
            seed=params["seed"],
            **choices,
        )

    train_set = clips("train", random_centres=True, mismatched_sounds=params["mismatched_sounds"])
    val_set = clips("val", random_centres=not arguments.full_val)
    train_items = len(train_set) * params["clips_per_entity"]
    val_items = len(val_set) * (1 if arguments.full_val else params["clips_per_entity"])

    # ------------------------------------------------------------ network
    torch.manual_seed(params["seed"])
    model = make_encoder(params["backbone"], params["pretrained"], arguments.clip_length)
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

    # ------------------------------------------------------------ training
    made_of = {"clip_length": arguments.clip_length, "full_val": arguments.full_val, **config.plain()}
    run = Run.open(f"{inputs['models_out']}/{name}", made_of, arguments.resume, accelerator)
    accelerator.print(
        f"run {run.folder}: {train_items:,} clips an epoch from {len(train_set):,} tracks, validation on "
        f"{val_items:,} {'frames' if arguments.full_val else f'clips from {len(val_set):,} tracks'}; "
        f"{sum(p.numel() for p in model.parameters()):,} parameters on {accelerator.num_processes} x "
        f"{accelerator.device}, {accelerator.mixed_precision if accelerator.mixed_precision != 'no' else 'fp32'}"
    )
    started = time.perf_counter()
    last = Training(model, loss, train_set, val_set, train_items, val_items, params, accelerator).fit(run)
    accelerator.print(
        f"{run.folder}: epoch {last['epoch']}, validation AP {last['val_ap']:.4f} "
        f"(audio alone {last['val_audio_ap']:.4f}, video alone {last['val_video_ap']:.4f}), "
        f"{time.perf_counter() - started:.0f} s"
    )


if __name__ == "__main__":
    main()
