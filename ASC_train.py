"""Train the context network (Active Speakers in Context) on the encoder's features.

    python ASC_train.py 11 4 3 0       # 11 time steps, every 4th row, 3 speakers, CUDA device 0
    python ASC_train.py 11 4 3 cpu --set ASC_optimization_params.epochs=1
    python ASC_train.py cpu --config configs/residual_context.py       # the residual network, on whole shots
    torchrun --nproc-per-node 2 ASC_train.py 11 4 3 0

Reads ASC_inputs and ASC_optimization_params of core/config.py; writes a run folder in ASC_inputs['models_out'].
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
import time
from glob import glob
from pathlib import Path

import torch

from core import settings
from core.dataset import ContextDataset, context_shape
from core.formats import ava
from core.formats.feature_store import FeatureStore
from core.inference.residual_contexts import shots_of
from core.inputs.sampling import ShuffledBatches
from core.inputs.shot_batches import ShotDataset
from core.models import ASC_Net, ResidualContext
from core.models.weights import load_weights
from core.optimization import Training, make_accelerator, make_criterion, process_share
from core.runtime import devices
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import fingerprint
from core.training.losses import ContextLoss, ShotLoss
from core.training.peers import ends_together, same_everywhere
from core.training.runs import Run

PATHS = ["features_train_full", "features_val_full", "models_out"]


@exits_cleanly
@ends_together
def main(argv: list[str] | None = None) -> None:
    # ------------------------------------------------------------ settings
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings.add_context_arguments(parser)
    settings.add_run_arguments(parser, "the context's shape")
    settings.add_arguments(parser)
    arguments = parser.parse_intermixed_args(argv)
    config = settings.load(arguments.config, arguments.changes, {"ASC_inputs": PATHS, "ASC_optimization_params": []})
    inputs, params = config["ASC_inputs"], config["ASC_optimization_params"]
    shape = context_shape(arguments.shape, params["network"])
    reuse_freed_memory()
    accelerator = make_accelerator(devices.device(arguments.cuda_device), params["precision"])
    name = same_everywhere(settings.run_name(arguments, "_".join(["ASC", *map(str, shape.values())])))

    # ------------------------------------------------------------ data
    train_stores, val_store = open_features(inputs["features_train_full"], inputs["features_val_full"])
    if shape and len(train_stores) > 1:
        raise UserError(
            f"{inputs['features_train_full']} are features of {len(train_stores)} encoders, whose numbers mean "
            "different things: ASC_Net needs those of one; the network 'residual' reads their scores alone"
        )
    feature_size = val_store.feature_size

    def data(stores: list[FeatureStore], *, training: bool) -> ContextDataset | ShotDataset:
        if not shape:
            shots = [shot for store in stores for shot in shots_of(store)]
            return ShotDataset(shots, augment=training, seed=params["seed"])
        [store] = stores
        return ContextDataset.of(store, shape, random_speakers=training, seed=params["seed"])

    item = "contexts" if shape else "shots"
    train_set, val_set = data(train_stores, training=True), data([val_store], training=False)
    train_note, val_note = (
        ava.left_out_text(sum(sum(store.left_out.values()) for store in stores), sum(map(len, stores)))
        for stores in (train_stores, [val_store])
    )
    accelerator.print(f"{len(train_set):,} {item} an epoch{train_note}, validation on {len(val_set):,}{val_note}")
    share = {"batch_size": params["batch_size"], "seed": params["seed"], **process_share(accelerator)}

    # ------------------------------------------------------------ network, loss
    torch.manual_seed(params["seed"])
    criterion = make_criterion(params["criterion"])
    if shape:
        network = ASC_Net(shape["clip_length"], shape["speakers"], feature_size=feature_size)
        loss = ContextLoss(criterion)
    else:
        network, loss = ResidualContext(), ShotLoss(criterion)
    if not isinstance(params["pretrained"], bool):
        load_weights(network, params["pretrained"], "weights to start from")
    training = Training(
        network,
        loss,
        train=(train_set, ShuffledBatches(len(train_set), **share)),
        val=(val_set, ShuffledBatches(len(val_set), **share, shuffle=False)),
        accelerator=accelerator,
        item=item,
        **settings.training_arguments(params),
    )

    # ------------------------------------------------------------ training
    made_of = {"encoder": val_store.encoder or train_stores[0].encoder, "features_val": val_store.fingerprint()}
    made_of["features_train"] = ", ".join(store.fingerprint() for store in train_stores)
    if not isinstance(params["pretrained"], bool):
        made_of["pretrained"] = fingerprint(params["pretrained"])
    made_with = {**shape, "made_of": made_of, **config.plain()}
    folder = f"{inputs['models_out']}/{name}"
    run = Run.open(folder, made_with, arguments.resume, accelerator, update=arguments.update)
    accelerator.print(f"run {run.folder}: {training.describe()}")
    started = time.perf_counter()
    last = training.fit(run)
    accelerator.print(
        f"{run.folder}: epoch {last['epoch']}, validation AP {last['val_ap']:.4f}, "
        f"{time.perf_counter() - started:.0f} s"
    )


def open_features(train: str, val: str) -> tuple[list[FeatureStore], FeatureStore]:
    """The features of both splits: of training several stores where `train` is a pattern of folders, which are of
    encoders that were each trained without the videos in its folder.

    Raises:
        UserError: they are not of encoders of one kind, or those of one folder not of the encoder of the others.
    """
    folders = [] if Path(train).is_dir() else [folder for folder in sorted(glob(str(train))) if Path(folder).is_dir()]
    train_stores, val_store = [FeatureStore(folder) for folder in folders or [train]], FeatureStore(val)
    for store in train_stores:
        if store.feature_size != val_store.feature_size:
            raise UserError(
                f"features of two encoders: size {store.feature_size} in {store.folder}, {val_store.feature_size} in "
                f"{val}; forward both splits with one"
            )
        weights = [one.encoder.get("weights") for one in (store, val_store)]
        if len(train_stores) == 1 and None not in weights and len(set(weights)) > 1:
            raise UserError(
                f"features of two encoders: of the weights {weights[0][:12]}… in {train}, of {weights[1][:12]}… in "
                f"{val} (SHA-256); forward both splits with one"
            )
    return train_stores, val_store


if __name__ == "__main__":
    main()
