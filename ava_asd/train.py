"""Train a static model.

    ava-train configs/config.yaml ava_data
    ava-train configs/config.yaml ava_data --bot-config configs/telegram.yaml
    ava-train configs/config.yaml ava_data --name first --resume     # go on with the experiment `first`

(or `python -m ava_asd.train ...`). Reads what ava-extract wrote. Writes <data>/experiments/<name>/: a checkpoint after
each epoch, <name>-<mode>-weights-<epoch>-<validation accuracy>.pth (PyTorch state dicts, for ava-evaluate), log.csv
with all numbers, settings.json, and last.pt, which --resume needs. TensorBoard's files go to <tb_logdir>/<name>.
A small variant: epochs: 2, train_keep_ratio: 0.01 in the settings.
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ava_asd.arguments import add_arguments, add_device_argument, configuration, device, seed
from ava_asd.config import Config
from ava_asd.experiment import FOLDER, Experiment, stalled
from ava_asd.models import StaticNetwork, load_weights
from ava_asd.optimisers import OPTIMISERS
from ava_asd.telegram import read_bot
from ava_asd.training import PRECISIONS, StaticLoss, TrainingSet
from ava_asd.windows import THREADS, Windows
from core.inputs.sampling import ShuffledBatches
from core.optimization import Training, make_accelerator, process_share
from core.runtime.allocation import reuse_freed_memory
from core.runtime.checks import as_path, is_file_name
from core.runtime.errors import UserError, exits_cleanly
from core.training.peers import ends_together, same_everywhere
from core.training.runs import has_state


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--bot-config", type=as_path, help="YAML of a Telegram bot that reports each epoch")
    parser.add_argument("--name", help="of the experiment; by default drawn at random")
    parser.add_argument("--resume", action="store_true", help="go on with --name after its last finished epoch")
    parser.add_argument("--seed", type=seed, default=0, help="of all that is random (default 0)")
    add_device_argument(parser)
    return parser.parse_args(argv)


@exits_cleanly
@ends_together
def main(argv: Sequence[str] | None = None) -> None:
    # ------------------------------------------------------------ settings
    arguments = parse_arguments(argv)
    config = configuration(arguments)
    name = experiment_name(arguments)
    bot = read_bot(arguments.bot_config) if arguments.bot_config else None
    reuse_freed_memory()
    accelerator = make_accelerator(device(arguments), PRECISIONS[config.dtype])
    name = same_everywhere(name)

    # ------------------------------------------------------------ data
    train_windows, val_windows = (
        Windows(config, arguments.data, split, arguments.seed) for split in ("train", "valid")
    )
    train_set = TrainingSet(train_windows, arguments.seed)
    share = {"batch_size": config.batch_size, "seed": arguments.seed, **process_share(accelerator)}

    # ------------------------------------------------------------ network
    torch.manual_seed(arguments.seed)
    model = StaticNetwork(config.mode, config.audio_shape, config.video_shape)
    folder = arguments.data / FOLDER / name
    if config.load_weights and not (arguments.resume and has_state(folder)):  # what is resumed has its own weights
        if Path(config.weights_file).is_file():
            load_weights(model, config.weights_file)
        else:  # as published, whose configuration asks for a file that the first training writes
            accelerator.print(f"note: no weights file {config.weights_file}: the training begins with random weights")

    # ------------------------------------------------------------ training
    samples = {"train": train_windows.digest(), "valid": val_windows.digest()}
    made_of = {"config": asdict(config), "seed": arguments.seed, "samples": samples}
    run = Experiment.open(folder, made_of, arguments.resume, accelerator)
    run.bot = bot
    accelerator.print(describe(config, run, train_set, val_windows))
    training = Training(
        model,
        StaticLoss(model, config),
        train=(train_set, ShuffledBatches(train_set.items, **share)),
        val=(val_windows, ShuffledBatches(len(val_windows), **share, shuffle=False)),
        accelerator=accelerator,
        optimizer=OPTIMISERS[config.optimiser],  # which have their own decay of the learning rate
        learning_rate=config.learning_rate,
        epochs=config.epochs,
        threads=THREADS,
        seed=arguments.seed,
        item="samples",
    )
    accelerator.print(f"{training.describe()}; TensorBoard: tensorboard --logdir {config.tb_logdir}")

    def ends_before(epoch: int) -> bool:
        if not config.use_earlystopping:
            return False
        losses = run.logged(f"val_{model.outputs[-1]}_loss", before=epoch)  # of the main output
        ended = stalled(losses, config.es_patience)
        if ended:
            accelerator.print(
                f"the validation loss has not fallen for {config.es_patience} epochs: training ends early"
            )
        return ended

    started = time.perf_counter()
    training.fit(run, events=f"{config.tb_logdir}/{name}", ends_before=ends_before)
    if accelerator.is_main_process:  # which alone has the log
        epochs, accuracies = run.logged("epoch"), run.logged("val_accuracy")
        print(
            f"{run.folder}: {len(epochs)} epochs, validation accuracy {accuracies[-1]:.4f} "
            f"(best {max(accuracies):.4f}), {time.perf_counter() - started:.0f} s"
        )


def experiment_name(arguments: argparse.Namespace) -> str:
    """The name that is given, or a new one.

    Raises:
        UserError: an experiment is to be resumed and none is named, or the name is none of a folder.
    """
    name = arguments.name
    if name is None:
        if arguments.resume:
            raise UserError("--resume: say which experiment with --name")
        return secrets.token_hex(4)
    if not is_file_name(name) or name.startswith("."):
        raise UserError(f"--name {name!r}: expected the name of a folder, without a slash and a point before it")
    return name


def describe(config: Config, run: Experiment, train_set: TrainingSet, val_windows: Windows) -> str:
    """What is trained on what, in words."""
    windows = train_set.windows
    speaking = (windows.class_id == config.speaking_class).mean()
    lines = [
        f"experiment {run.folder}: mode {config.mode}, {config.epochs} epochs",
        f"training: {len(windows):,} samples, {speaking:.1%} speaking; {train_set.items:,} in an epoch"
        f"{', half of them speaking' if config.resample else ''}",
        f"validation: {len(val_windows):,} samples",
    ]
    silent = windows.without_audio + val_windows.without_audio
    if silent:
        lines.append(f"left out: {silent:,} samples whose audio would reach beyond their video's")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
