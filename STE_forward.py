"""Forward every annotated face through the Short-Term Encoder: features and logits, one file a video.

    python STE_forward.py 11 0                  # clips of 11 frames, CUDA device 0, both splits
    python STE_forward.py 11 cpu --split val --set STE_forward_params.weights=STE.pth
    python STE_forward.py 11 cpu --config configs/lr_asd.py --set STE_forward_params.weights=pretrain_AVA.model

Reads STE_inputs and STE_forward_params of core/config.py; writes STE_inputs['features_out']/{train,val}. Videos whose
features are there, made by the same weights of the same rows, crops and audio, are skipped.
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pandas.api.typing import DataFrameGroupBy
from torch import nn

from core import parallel, settings
from core.dataset import ClipDataset
from core.formats import ava
from core.formats.feature_store import STEP, VideoFeatures, write_features
from core.inference.clips import encode_videos
from core.inference.engine import DTYPES, in_pytorch
from core.inference.track_embedding import TrackEmbedder, visual_precision
from core.inference.videos import encode_tracks, track_encoder
from core.inputs.annotated_tracks import AnnotatedTracks
from core.models import TRACK_ENCODERS, make_encoder, reads_whole_tracks
from core.models.two_stream import TwoStreamResNet
from core.models.weights import load_weights
from core.runtime import devices
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import exits_cleanly
from core.runtime.files import fingerprint
from core.runtime.provenance import Record, declare, digest_of
from core.track_dataset import TrackDataset
from core.training.runs import check_trained_with, find_checkpoint

Task = tuple[pd.DataFrame, str, str, str]  # a video's rows, folders of crops and audio, folder to write
PATHS = ["csv_train_full", "csv_val_full", "audio_dir", "video_dir", "models_out", "features_out"]


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    # ------------------------------------------------------------ settings
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip_length", type=settings.odd, help="frames of a clip, odd, as in training")
    parser.add_argument("cuda_device", help="index of a CUDA device, or cpu")
    settings.add_split_argument(parser, default="both")
    settings.add_arguments(parser)
    parallel.add_arguments(parser, gpus=True)
    arguments = parser.parse_args(argv)
    splits = settings.splits(arguments.split)
    paths = [key for key in PATHS if not key.startswith("csv_") or key.split("_")[1] in splits]
    config = settings.load(arguments.config, arguments.changes, {"STE_inputs": paths, "STE_forward_params": []})
    inputs, params = config["STE_inputs"], config["STE_forward_params"]
    reuse_freed_memory()
    device = devices.device(arguments.cuda_device, arguments.cluster)

    # ------------------------------------------------------------ network
    weights = find_checkpoint(params["weights"], inputs["models_out"], "STE")
    made_by = {
        "weights": fingerprint(weights),
        "backbone": config.plain()["STE_forward_params"]["backbone"],
        "precision": DTYPES.get(params["precision"], params["precision"]),
        "feature_type": params["feature_type"],
        "format": params["format"],
    }
    _, ranges = visual_precision(params["precision"], made_by["weights"], str(device))
    if ranges:
        made_by["int8_ranges"] = digest_of(ranges, ranges.values())
    trained_with = {"STE_optimization_params.backbone": made_by["backbone"]}
    if reads_whole_tracks(params["backbone"]):
        reading = f"{made_by['backbone']} on whole tracks"
        open_tracks = partial(TrackDataset, augment=False)
    else:
        clip = {"clip_length": arguments.clip_length}
        made_by |= clip | {"crop_size": params["crop_size"]}
        trained_with |= clip | {"STE_optimization_params.crop_size": params["crop_size"]}
        reading = f"clips of {arguments.clip_length} frames"
        open_tracks = partial(ClipDataset, **clip, size=params["crop_size"], random_centres=False)
    open_tracks = partial(open_tracks, rows_without_crops=inputs["rows_without_crops"])
    load_network(params, weights, arguments.clip_length)  # weights of another one are reported before any work
    if note := check_trained_with(weights, "STE", trained_with):
        print(note)
    print(f"weights {weights}, {reading}, {device}, {made_by['precision']}")

    # ------------------------------------------------------------ forward
    forward = parallel.Opened(
        partial(forward_video, made_by=made_by, open_tracks=open_tracks, watched=parallel.one_by_one(arguments)),
        partial(open_encoder, arguments.config, arguments.changes, weights, arguments.clip_length, device),
    )
    status = 0
    for split in splits:
        folder, form = f"{inputs['features_out']}/{split}", params["format"]
        places = f"{inputs['video_dir']}/{split}", f"{inputs['audio_dir']}/{split}"
        rows = ava.read_augmented(inputs[f"csv_{split}_full"])
        dataset = open_tracks(rows, *places)
        sources = dataset.sources()
        records = {
            name: Record(folder, name, STEP, made_by | sources[name])
            for name in parallel.shard(list(sources), arguments.shard)
        }
        missing = [name for name, record in records.items() if record.missing([f"{name}.{form}"])]
        declare(folder, STEP, sources)
        tasks = parallel.Items(missing, partial(task_of, rows.groupby("video_id"), *places, folder))
        disk, on_gpu = [weights, *map(Path, (*places, folder))], device.type != "cpu"
        broken = parallel.spread(forward, tasks, arguments, f"STE {split}", paths=disk, on_gpu=on_gpu)
        faces = dataset.rows["video_id"].isin(set(missing) - set(broken)).sum()
        there = len(records) - len(missing)
        print(f"{folder}: {faces:,} faces forwarded, {there} videos were there already{dataset.left_out_text()}")
        if broken:
            status = parallel.report(broken, len(records), folder)
    return status


def load_network(params: Mapping[str, Any], weights: Path, clip_length: int) -> nn.Module:
    """The encoder that STE_forward_params name, with its weights."""
    if reads_whole_tracks(params["backbone"]):
        model = TRACK_ENCODERS[params["backbone"]]()
    else:
        model = make_encoder(params["backbone"], False, clip_length)
    load_weights(model, weights, "STE checkpoint")
    return model


def open_encoder(
    config: Path | None, changes: list[str], weights: Path, clip_length: int, device: torch.device
) -> Callable[..., Iterator[VideoFeatures]]:
    """What encodes videos of a data set; configuration and changes are those of `settings.load`."""
    params = settings.load(config, changes, {"STE_forward_params": []})["STE_forward_params"]
    model, precision = load_network(params, weights, clip_length), params["precision"]
    loading = {"threads": params["threads"], "feature_type": params["feature_type"]}
    if reads_whole_tracks(params["backbone"]):
        embedder = TrackEmbedder.of(model, str(device), *visual_precision(precision, fingerprint(weights), str(device)))
        return partial(encode_tracks, track_encoder(embedder), **loading)
    loading |= {"device": device, "batch_size": params["batch_size"]}
    encode = in_pytorch(model, device, precision)
    heads = model.to(device).eval().heads if isinstance(model, TwoStreamResNet) else None
    return partial(encode_videos, encode, heads=heads, **loading)


def task_of(of_video: DataFrameGroupBy, crops: str, audio: str, folder: str, name: str) -> Task:
    """What `forward_video` takes, of a video of a split."""
    return of_video.get_group(name).reset_index(drop=True), crops, audio, folder


def forward_video(
    encode: Callable[..., Iterator[VideoFeatures]],
    task: Task,
    *,
    made_by: Mapping[str, Any],
    open_tracks: Callable[..., AnnotatedTracks],
    watched: bool,
) -> None:
    """Write the features of one video."""
    rows, crops, audio, folder = task
    dataset = open_tracks(rows, crops, audio)
    ((name, sources),) = dataset.sources().items()
    record, outputs = Record(folder, name, STEP, made_by | sources), [f"{name}.{made_by['format']}"]
    if record.missing(outputs):
        with record.making(outputs):
            (features,) = encode(dataset, [name], description=name if watched else "")
            write_features(folder, features, made_by["format"])


if __name__ == "__main__":
    main()
