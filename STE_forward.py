"""Forward every annotated face through the Short-Term Encoder: features and logits, one file a video.

    python STE_forward.py 11 0                  # clips of 11 frames, CUDA device 0, both splits
    python STE_forward.py 11 cpu --split val --set STE_forward_params.weights=STE.pth
    python STE_forward.py 11 cpu --config configs/lr_asd.py --set STE_forward_params.weights=pretrain_AVA.model

Reads STE_inputs and STE_forward_params of core/config.py; writes STE_inputs['features_out']/{train,val}. Videos whose
features are there, made by the same weights of the same rows, crops and audio, are skipped. The csvs, video_dir (packed
crops), audio_dir and features_out may be URLs (docs/cluster.md).
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
from core.inputs.annotated_tracks import AnnotatedTracks, check_names, packed_sources
from core.models import TRACK_ENCODERS, make_encoder, reads_whole_tracks
from core.models.two_stream import TwoStreamResNet
from core.models.weights import load_weights
from core.runtime import devices, elsewhere
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import exits_cleanly, of_one_video
from core.runtime.files import fingerprint
from core.runtime.provenance import Record, declare, digest_of, recorded_left_out
from core.track_dataset import TrackDataset
from core.training.runs import check_trained_with, find_checkpoint

Task = tuple[pd.DataFrame, Path, Path, Path]  # a video's rows, folders of crops and audio, folder to write
PLACES = ["csv_train_full", "csv_val_full", "video_dir", "audio_dir", "features_out"]  # may be URLs


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
    paths = ["models_out", *(key for key in PLACES if not key.startswith("csv_") or key.split("_")[1] in splits)]
    needed = {"STE_inputs": paths, "STE_forward_params": []}
    config = settings.load(arguments.config, arguments.changes, needed, urls=PLACES)
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
        crops, audio, folder = (elsewhere.place(f"{inputs[key]}/{split}") for key in PLACES[-3:])
        rows = ava.read_augmented(elsewhere.fetched(str(inputs[f"csv_{split}_full"])))
        check_names(rows, crops, audio, inputs["rows_without_crops"])
        of_video = rows.groupby("video_id")
        first = task_of(of_video, crops, audio, folder, rows["video_id"].iloc[0])
        if not (elsewhere.url_of(crops) or elsewhere.url_of(audio)):
            open_tracks(*first[:3])  # what is wrong with all videos is reported before any work
        declare(folder, STEP, of_video.groups)
        tasks = parallel.Items(of_video.groups, partial(task_of, of_video, crops, audio, folder))
        spread = {"out": folder, "paths": [weights, crops, audio], "on_gpu": device.type != "cpu"}
        status = max(status, parallel.run(forward, tasks, arguments, f"STE {split}", **spread))
        if inputs["rows_without_crops"] == "leave_out":
            left_out = sum(recorded_left_out(folder, of_video.groups).values())
            print(f"{folder}: {len(rows) - left_out:,} faces{ava.left_out_text(left_out, len(rows) - left_out)}")
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


def task_of(of_video: DataFrameGroupBy, crops: Path, audio: Path, folder: Path, name: str) -> Task:
    """What `forward_video` takes, of a video of a split."""
    return of_video.get_group(name).reset_index(drop=True), crops, audio, folder


def forward_video(
    encoder: Callable[[], Callable[..., Iterator[VideoFeatures]]],
    task: Task,
    *,
    made_by: Mapping[str, Any],
    open_tracks: Callable[..., AnnotatedTracks],
    watched: bool,
) -> None:
    """Write the features of one video."""
    rows, crops, audio, folder = task
    name = rows["video_id"].iloc[0]
    outputs = [f"{name}.{made_by['format']}"]
    with of_one_video():
        packed = packed_sources(rows, crops, audio)
    if packed:
        if not Record(folder, name, STEP, made_by | packed).missing(outputs):
            return
        for files in (packed["crops"], packed["audio"]):
            for file in files.names:
                elsewhere.bring(files.folder / file)
    with of_one_video():
        dataset = open_tracks(rows, crops, audio)
    record = Record(folder, name, STEP, made_by | dataset.sources()[name])
    if record.missing(outputs):
        with record.making(outputs):
            (features,) = encoder()(dataset, [name], description=name if watched else "")
            write_features(folder, features, made_by["format"])


if __name__ == "__main__":
    main()
