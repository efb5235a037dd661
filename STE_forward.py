"""Forward every annotated face through the Short-Term Encoder: features and logits, one file a video.

    python STE_forward.py 11 0                  # clips of 11 frames, CUDA device 0, both splits
    python STE_forward.py 11 cpu --split val --set STE_forward_params.weights=STE.pth

Reads STE_inputs and STE_forward_params of core/config.py; writes STE_inputs['features_out']/{train,val}. Videos whose
features are there, made by the same weights, are skipped.
"""

import argparse

import torch

from core import ava, settings
from core.allocation import reuse_freed_memory
from core.dataset import ClipDataset
from core.errors import exits_cleanly
from core.features import is_written, write_features
from core.forwarding import encode_videos, fingerprint
from core.models import make_encoder
from core.models.inference import fast_encoder
from core.runs import find_weights
from core.weights import load_weights

PATHS = ["csv_train_full", "csv_val_full", "audio_dir", "video_dir", "models_out", "features_out"]


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    # ------------------------------------------------------------ settings
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip_length", type=settings.odd, help="frames of a clip, odd, as in training")
    parser.add_argument("cuda_device", help="index of a CUDA device, or cpu")
    settings.add_split_argument(parser, default="both")
    settings.add_arguments(parser)
    arguments = parser.parse_args(argv)
    reuse_freed_memory()
    splits = settings.splits(arguments.split)
    paths = [key for key in PATHS if not key.startswith("csv_") or key.split("_")[1] in splits]
    config = settings.load(arguments.config, arguments.changes, {"STE_inputs": paths, "STE_forward_params": []})
    inputs, params = config["STE_inputs"], config["STE_forward_params"]
    device = settings.device(arguments.cuda_device)

    # ------------------------------------------------------------ network
    weights = find_weights(params["weights"], inputs["models_out"], "STE")
    model = make_encoder(params["backbone"], False, arguments.clip_length)
    load_weights(model, weights, "STE checkpoint")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[params["precision"]]
    encode = fast_encoder(model.to(device), dtype=dtype)
    made_by = {
        "weights": fingerprint(weights),
        "clip_length": arguments.clip_length,
        "backbone": config.plain()["STE_forward_params"]["backbone"],
        "crop_size": params["crop_size"],
        "precision": str(dtype).removeprefix("torch."),
        "feature_type": params["feature_type"],
    }
    print(f"weights {weights}, {device}, {made_by['precision']}")

    # ------------------------------------------------------------ forward
    for split in splits:
        rows = ava.read_augmented(inputs[f"csv_{split}_full"])
        folder = f"{inputs['features_out']}/{split}"
        done = [
            video_id
            for video_id, part in rows.groupby("video_id")
            if is_written(folder, part, made_by, params["format"])
        ]
        rows = rows[~rows["video_id"].isin(done)].reset_index(drop=True)
        if len(rows):
            dataset = ClipDataset(
                rows,
                f"{inputs['video_dir']}/{split}",
                f"{inputs['audio_dir']}/{split}",
                arguments.clip_length,
                params["crop_size"],
                random_centres=False,
            )
            options = (device, params["batch_size"], params["threads"], params["feature_type"], f"STE {split}")
            for video in encode_videos(encode, dataset, rows, *options):
                write_features(folder, video, made_by, params["format"])
        print(f"{folder}: {len(rows):,} faces forwarded, {len(done)} videos were there already")


if __name__ == "__main__":
    main()
