"""Score every face with the context network: logits, one csv a video.

    python ASC_forward.py 11 4 3 0       # as in training: 11 time steps, every 4th row, 3 speakers; CUDA device 0
    python ASC_forward.py 11 4 3 cpu --split val --set ASC_forward_params.weights=ASC.pth
    python ASC_forward.py cpu            # weights of the residual network

Reads ASC_inputs_forward, ASC_inputs['models_out'] and ASC_forward_params of core/config.py; writes
ASC_inputs_forward['logits_out']/{train,val}. Videos whose logits are there, made by the same weights and features, are
skipped.
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
from functools import partial
from pathlib import Path

from tqdm import tqdm

from core import settings
from core.dataset import ContextDataset, context_shape
from core.formats.context_logits import STEP, write_logits
from core.formats.feature_store import FeatureStore
from core.inference.contexts import score_contexts
from core.inference.residual_contexts import score_rows
from core.models import ASC_Net, ResidualContext
from core.models.fast_context import ContextScorer
from core.models.residual_context import is_residual
from core.models.weights import fill, read_state_dict
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import exits_cleanly
from core.runtime.files import fingerprint
from core.runtime.provenance import Record, declare
from core.training.runs import check_trained_with, find_checkpoint


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    # ------------------------------------------------------------ settings
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings.add_context_arguments(parser)
    settings.add_split_argument(parser, default="val")
    settings.add_arguments(parser)
    arguments = parser.parse_intermixed_args(argv)
    reuse_freed_memory()
    splits = settings.splits(arguments.split)
    paths = [*(f"features_{split}_full" for split in splits), "logits_out"]
    needed = {"ASC_inputs_forward": paths, "ASC_inputs": ["models_out"], "ASC_forward_params": []}
    config = settings.load(arguments.config, arguments.changes, needed)
    inputs, params = config["ASC_inputs_forward"], config["ASC_forward_params"]
    device = settings.device(arguments.cuda_device)
    weights = find_checkpoint(params["weights"], config["ASC_inputs"]["models_out"], "ASC")
    print(f"weights {weights}, {device}")
    state_dict = read_state_dict(weights, "ASC checkpoint")
    network = "residual" if is_residual(state_dict) else "ASC_Net"
    shape = context_shape(arguments.shape, network)
    made_by = {"weights": fingerprint(weights), "context": list(shape.values())}
    trained_with = {"ASC_optimization_params.network": network, **shape}

    for split in splits:
        # -------------------------------------------------------- network, of the size that the features have
        store = FeatureStore(inputs[f"features_{split}_full"])
        encoder = {"made_of.encoder.weights": store.encoder["weights"]} if store.encoder else {}
        if note := check_trained_with(weights, "ASC", trained_with | encoder):
            print(note)
        if shape:
            model = ASC_Net(shape["clip_length"], shape["speakers"], feature_size=store.feature_size)
            fill(model, state_dict, weights, "ASC checkpoint")
            dataset = ContextDataset(
                store.entities,
                store.time_steps,
                store.gather,
                clip_length=shape["clip_length"],
                stride=shape["skip_frames"],
                speakers=shape["speakers"],
                random_speakers=False,
            )
            options = {"batch_size": params["batch_size"], "device": device}
            score = partial(score_contexts, ContextScorer(model.to(device)), dataset, **options)
        else:
            model = ResidualContext()
            fill(model, state_dict, weights, "ASC checkpoint")
            score = partial(score_rows, model.to(device).eval(), store, device=device)

        # -------------------------------------------------------- forward
        folder = Path(inputs["logits_out"]) / split
        records = {}
        for video_id in store.videos:
            features = {"features": store.sources(video_id), "left_out": store.left_out[video_id]}
            records[video_id] = Record(folder, video_id, STEP, made_by | features)
        remaining = [video_id for video_id, record in records.items() if record.missing([f"{video_id}.csv"])]
        declare(folder, STEP, records)
        faces = sum(store.videos[video_id].stop - store.videos[video_id].start for video_id in remaining)
        with tqdm(total=faces, desc=f"ASC {split}", unit=" faces", disable=None) as bar:
            for video_id in remaining:
                rows = store.videos[video_id]
                with records[video_id].making([f"{video_id}.csv"]):
                    logits = score(rows)
                    write_logits(folder, video_id, store.entity_ids[rows], store.timestamps[rows], logits)
                bar.update(len(logits))
        print(f"{folder}: {faces:,} faces scored, {len(records) - len(remaining)} videos were there already")


if __name__ == "__main__":
    main()
