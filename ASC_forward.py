"""Score every face with the context network: logits, one csv a video.

    python ASC_forward.py 11 4 3 0       # as in training: 11 time steps, every 4th row, 3 speakers; CUDA device 0
    python ASC_forward.py 11 4 3 cpu --split val --set ASC_forward_params.weights=ASC.pth
    python ASC_forward.py cpu            # weights of the residual network

Reads ASC_inputs_forward, ASC_inputs['models_out'] and ASC_forward_params of core/config.py; writes
ASC_inputs_forward['logits_out']/{train,val}. Videos whose logits are there, made by the same weights and features, are
skipped. Features and logits_out may be URLs of folders (docs/cluster.md).
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from core import parallel, settings
from core.dataset import ContextDataset, context_shape
from core.formats.context_logits import STEP, write_logits
from core.formats.feature_store import FeatureStore, VideoFile, check_encoders, find_features, videos_of
from core.inference.contexts import score_contexts
from core.inference.residual_contexts import ResidualScorer
from core.models import ASC_Net, ResidualContext
from core.models.fast_context import ContextScorer
from core.models.residual_context import is_residual
from core.models.weights import load_weights, read_state_dict
from core.runtime import devices, elsewhere
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import UserError, exits_cleanly, of_one_video
from core.runtime.files import fingerprint
from core.runtime.provenance import Record, declare
from core.training.runs import check_trained_with, find_checkpoint


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    # ------------------------------------------------------------ settings
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings.add_context_arguments(parser)
    settings.add_split_argument(parser, default="val")
    settings.add_arguments(parser)
    parallel.add_arguments(parser, gpus=True)
    arguments = parser.parse_intermixed_args(argv)
    reuse_freed_memory()
    splits = settings.splits(arguments.split)
    paths = [*(f"features_{split}_full" for split in splits), "logits_out"]
    needed = {"ASC_inputs_forward": paths, "ASC_inputs": ["models_out"], "ASC_forward_params": []}
    config = settings.load(arguments.config, arguments.changes, needed, urls=paths)
    inputs, params = config["ASC_inputs_forward"], config["ASC_forward_params"]
    device = devices.device(arguments.cuda_device, arguments.cluster)
    weights = find_checkpoint(params["weights"], config["ASC_inputs"]["models_out"], "ASC")
    print(f"weights {weights}, {device}")
    kind = "residual" if is_residual(read_state_dict(weights, "ASC checkpoint")) else "ASC_Net"
    shape = context_shape(arguments.shape, kind)
    made_by = {"weights": fingerprint(weights), "context": list(shape.values())}
    trained_with = {"ASC_optimization_params.network": kind, **shape}

    status = 0
    for split in splits:
        # -------------------------------------------------------- features
        source = elsewhere.place(str(inputs[f"features_{split}_full"]))
        folder = elsewhere.place(f"{inputs['logits_out']}/{split}")
        videos = videos_of(source)
        first = find_features(source, videos[0])
        encoder = {"made_of.encoder.weights": first.encoder["weights"]} if first.encoder else {}
        if note := check_trained_with(weights, "ASC", trained_with | encoder):
            print(note)
        feature_size = FeatureStore(source, only=videos[0]).feature_size if shape else None
        network = weights, shape, feature_size, params["batch_size"]
        load_network(*network[:3])  # weights of another one are reported before any work
        declare(folder, STEP, videos)

        # -------------------------------------------------------- forward
        score = partial(score_video, made_by=made_by, first=first, feature_size=feature_size)
        tasks = parallel.Items(videos, lambda video_id, source=source, folder=folder: (source, video_id, folder))
        spread = {"out": folder, "paths": [weights, first.path.parent], "on_gpu": device.type != "cpu"}
        score = parallel.Opened(score, partial(open_network, *network, device))
        status = max(status, parallel.run(score, tasks, arguments, f"ASC {split}", **spread))
    return status


def load_network(weights: Path, shape: Mapping[str, int], feature_size: int | None) -> nn.Module:
    """The network with its weights; the residual one, which has no shape, reads no features."""
    model = ASC_Net(shape["clip_length"], shape["speakers"], feature_size=feature_size) if shape else ResidualContext()
    load_weights(model, weights, "ASC checkpoint")
    return model


def open_network(
    weights: Path, shape: Mapping[str, int], feature_size: int | None, batch_size: int, device: torch.device
) -> Callable[[FeatureStore], np.ndarray]:
    """The network in evaluation: features of one video -> logits (row, [not speaking, speaking]) float32."""
    model = load_network(weights, shape, feature_size)
    if not shape:
        residual = ResidualScorer.of(model, str(device))
        return lambda store: residual.rows(store, slice(0, len(store)))
    scorer = ContextScorer(model.to(device))

    def score(store: FeatureStore) -> np.ndarray:
        dataset = ContextDataset.of(store, shape, random_speakers=False)
        return score_contexts(scorer, dataset, slice(0, len(store)), batch_size=batch_size, device=device)

    return score


def score_video(
    network: Callable[[], Callable[[FeatureStore], np.ndarray]],
    task: tuple[Path, str, Path],
    *,
    made_by: Mapping[str, Any],
    first: VideoFile,
    feature_size: int | None,
) -> None:
    """Write the logits of one video.

    Args:
        network: gives what `open_network` does.
        task: features of the split, video id, folder to write.
        made_by: what the logits are made by.
        first: features of the split's first video.
        feature_size: of these; None where the network reads none.

    Raises:
        UserError: the video's features were made by another encoder.
    """
    source, video_id, folder = task
    with of_one_video():
        features = find_features(source, video_id)
    check_encoders(features.path.parent, {first.path.stem: first.encoder, video_id: features.encoder})
    made_of = made_by | {"features": features.sources, "left_out": features.left_out}
    record, outputs = Record(folder, video_id, STEP, made_of, version=2), [f"{video_id}.csv"]
    if record.missing(outputs):
        elsewhere.bring(features.path)
        with of_one_video():
            store = FeatureStore(source, only=video_id)
        if feature_size not in (None, store.feature_size):
            raise UserError(
                f"{source} mixes features of sizes {feature_size} (video {first.path.stem}) and {store.feature_size} "
                f"(video {video_id}): forward all videos with one encoder"
            )
        with record.making(outputs):
            write_logits(folder, video_id, store.entity_ids, store.timestamps, network()(store))


if __name__ == "__main__":
    main()
