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

import torch

from core import settings
from core.dataset import ContextDataset, context_shape
from core.formats import ava
from core.formats.feature_store import FeatureStore
from core.inference.residual_contexts import shots_of
from core.inputs.sampling import ShuffledBatches
from core.inputs.shots import ShotDataset
from core.models import ASC_Net, ResidualContext
from core.models.weights import load_weights
from core.optimization import Training, make_accelerator, make_criterion, process_share, same_everywhere
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import fingerprint
from core.training.losses import ContextLoss, ShotLoss
from core.training.runs import Run

PATHS = ["features_train_full", "features_val_full", "models_out"]


@exits_cleanly
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
    accelerator = make_accelerator(settings.device(arguments.cuda_device), params["precision"])
    name = same_everywhere(settings.run_name(arguments, "_".join(["ASC", *map(str, shape.values())])))

    # ------------------------------------------------------------ data
    stores = {split: FeatureStore(inputs[f"features_{split}_full"]) for split in ("train", "val")}
    feature_size, val_size = (store.feature_size for store in stores.values())
    if val_size != feature_size:
        raise UserError(
            f"features of two encoders: size {feature_size} in {inputs['features_train_full']}, "
            f"{val_size} in {inputs['features_val_full']}; forward both splits with one"
        )

    encoders = [store.encoder.get("weights") for store in stores.values()]
    if None not in encoders and len(set(encoders)) > 1:
        raise UserError(
            f"features of two encoders: of the weights {encoders[0][:12]}… in {inputs['features_train_full']}, of "
            f"{encoders[1][:12]}… in {inputs['features_val_full']} (SHA-256); forward both splits with one"
        )

    def data(store: FeatureStore, *, training: bool) -> ContextDataset | ShotDataset:
        if not shape:
            return ShotDataset(shots_of(store), augment=training, seed=params["seed"])
        return ContextDataset(
            store.entities,
            store.time_steps,
            store.gather,
            store.labels,
            clip_length=shape["clip_length"],
            stride=shape["skip_frames"],
            speakers=shape["speakers"],
            random_speakers=training,
            seed=params["seed"],
        )

    item = "contexts" if shape else "shots"
    train_set, val_set = data(stores["train"], training=True), data(stores["val"], training=False)
    train_note, val_note = (ava.left_out_text(sum(store.left_out.values()), len(store)) for store in stores.values())
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
    made_of = {"encoder": stores["train"].encoder}
    made_of |= {f"features_{split}": store.fingerprint() for split, store in stores.items()}
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


if __name__ == "__main__":
    main()
