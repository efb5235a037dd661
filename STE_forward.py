"""Forward every annotated face through the Short-Term Encoder: features and logits, one file a video.

    python STE_forward.py 11 0                  # clips of 11 frames, CUDA device 0, both splits
    python STE_forward.py 11 cpu --split val --set STE_forward_params.weights=STE.pth
    python STE_forward.py 11 cpu --config configs/lr_asd.py --set STE_forward_params.weights=pretrain_AVA.model

Reads STE_inputs and STE_forward_params of core/config.py; writes STE_inputs['features_out']/{train,val}. Videos whose
features are there, made by the same weights of the same rows, crops and audio, are skipped.
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
from functools import partial

from core import settings
from core.dataset import ClipDataset
from core.formats import ava
from core.formats.feature_store import STEP, write_features
from core.inference.clips import encode_videos
from core.inference.engine import DTYPES, in_pytorch
from core.inference.tracks import encode_tracks, track_encoder
from core.models import TRACK_ENCODERS, make_encoder, reads_whole_tracks
from core.models.two_stream import TwoStreamResNet
from core.models.weights import load_weights
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import exits_cleanly
from core.runtime.files import fingerprint
from core.runtime.provenance import Record, declare
from core.track_dataset import TrackDataset
from core.training.runs import check_trained_with, find_checkpoint

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
    splits = settings.splits(arguments.split)
    paths = [key for key in PATHS if not key.startswith("csv_") or key.split("_")[1] in splits]
    config = settings.load(arguments.config, arguments.changes, {"STE_inputs": paths, "STE_forward_params": []})
    inputs, params = config["STE_inputs"], config["STE_forward_params"]
    reuse_freed_memory()
    device = settings.device(arguments.cuda_device)

    # ------------------------------------------------------------ network
    weights = find_checkpoint(params["weights"], inputs["models_out"], "STE")
    dtype = DTYPES[params["precision"]]
    encoder = {
        "weights": fingerprint(weights),
        "backbone": config.plain()["STE_forward_params"]["backbone"],
        "precision": str(dtype).removeprefix("torch."),
        "feature_type": params["feature_type"],
        "format": params["format"],
    }
    trained_with = {"STE_optimization_params.backbone": encoder["backbone"]}
    loading = {"device": device, "threads": params["threads"], "feature_type": params["feature_type"]}
    if reads_whole_tracks(params["backbone"]):
        reading = f"{encoder['backbone']} on whole tracks"
        model = TRACK_ENCODERS[params["backbone"]]()
        load_weights(model, weights, "STE checkpoint")
        open_split = partial(TrackDataset, augment=False)
        forward = partial(encode_tracks, track_encoder(model, device, dtype), **loading)
    else:
        clip = {"clip_length": arguments.clip_length}
        encoder |= clip | {"crop_size": params["crop_size"]}
        trained_with |= clip | {"STE_optimization_params.crop_size": params["crop_size"]}
        reading = f"clips of {arguments.clip_length} frames"
        model = make_encoder(params["backbone"], False, arguments.clip_length)
        load_weights(model, weights, "STE checkpoint")
        open_split = partial(ClipDataset, **clip, size=params["crop_size"], random_centres=False)
        encode = in_pytorch(model, device, dtype)
        heads = model.to(device).eval().heads if isinstance(model, TwoStreamResNet) else None
        forward = partial(encode_videos, encode, batch_size=params["batch_size"], heads=heads, **loading)
    if note := check_trained_with(weights, "STE", trained_with):
        print(note)
    print(f"weights {weights}, {reading}, {device}, {encoder['precision']}")

    # ------------------------------------------------------------ forward
    for split in splits:
        folder, form = f"{inputs['features_out']}/{split}", params["format"]
        dataset = open_split(
            ava.read_augmented(inputs[f"csv_{split}_full"]),
            f"{inputs['video_dir']}/{split}",
            f"{inputs['audio_dir']}/{split}",
            rows_without_crops=inputs["rows_without_crops"],
        )
        records = {name: Record(folder, name, STEP, encoder | of) for name, of in dataset.sources().items()}
        missing = [name for name, record in records.items() if record.missing([f"{name}.{form}"])]
        declare(folder, STEP, records)
        faces = 0
        for video in forward(dataset, missing, description=f"STE {split}"):
            with records[video.video_id].making([f"{video.video_id}.{form}"]):
                write_features(folder, video, form)
            faces += len(video.rows)
        there = len(records) - len(missing)
        print(f"{folder}: {faces:,} faces forwarded, {there} videos were there already{dataset.left_out_text()}")


if __name__ == "__main__":
    main()
