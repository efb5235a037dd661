"""Evaluate weights of a static model on the test samples.

    ava-evaluate configs/config.yaml ava_data --weights-file best.pth
    ava-evaluate configs/config.yaml ava_data --weights-file example.hdf5 --show
    ava-evaluate configs/config.yaml ava_data --weights-file best.pth --legacy
    ava-evaluate configs/config.yaml ava_data --weights-path ava_data/experiments/a1B2c3D

(or `python -m ava_asd.evaluate ...`). Weights are PyTorch state dicts (.pth, .pt) or Keras files (.hdf5, .h5).

For each output are printed: accuracy, official average precision on the evaluated windows and on the original
annotations of test_ann_dir, scikit-learn's average precision of speaking and of not speaking, and ROC AUC. Of one
file a classification report follows, and confusion matrices are drawn to <weights>-confusion-<output>.png; those of a
folder (--weights-path, in natural order) are written to evaluation-results.csv. --legacy prints loss, accuracies and
areas as Keras computes them instead. A small variant: test_keep_ratio: 0.01 in the settings.
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ava_asd.arguments import add_arguments, add_device_argument, configuration, device
from ava_asd.config import Config
from ava_asd.evaluation import as_text, evaluate_output, nearest_windows, plot_confusion, predict, write_results
from ava_asd.keras_metrics import evaluate_keras
from ava_asd.keras_weights import HDF5_SUFFIXES
from ava_asd.layout import CROP_SETTINGS, MFCC_SETTINGS
from ava_asd.models import StaticNetwork, load_weights
from ava_asd.windows import Windows
from core.evaluation.official import read_groundtruth
from core.runtime.allocation import reuse_freed_memory
from core.runtime.checks import as_path
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import make_folder
from core.training.runs import SETTINGS, STATE

RESULTS = "evaluation-results.csv"
WEIGHT_SUFFIXES = (".pth", ".pt", *HDF5_SUFFIXES)
# What the weights of a run are for; evaluated with other settings they give other numbers.
INPUT_SETTINGS = (*CROP_SETTINGS, *MFCC_SETTINGS, "sequence_size", "vid_frame_size", "mfcc_frame_size", "classes")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--weights-file", type=as_path, help="weights to evaluate")
    weights.add_argument("--weights-path", type=as_path, help="folder of weights files, evaluated in natural order")
    parser.add_argument("--legacy", action="store_true", help="the numbers of Keras' evaluation, for --weights-file")
    parser.add_argument("--show", action="store_true", help="show the confusion matrices, too, of --weights-file")
    parser.add_argument("--out", type=as_path, default=Path(), help="folder for csv and images (default: this one)")
    add_device_argument(parser)
    arguments = parser.parse_args(argv)
    if arguments.legacy and arguments.weights_path:
        parser.error("--legacy can only be used with --weights-file, not with --weights-path")
    if arguments.show and (arguments.legacy or arguments.weights_path):
        parser.error("--show can only be used with --weights-file, and not with --legacy: only then images are drawn")
    return arguments


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    config = configuration(arguments)
    where = device(arguments)
    reuse_freed_memory()
    if not arguments.legacy:
        make_folder(arguments.out)

    model = StaticNetwork(config.mode, config.audio_shape, config.video_shape)
    files = weight_files(arguments.weights_path) if arguments.weights_path else [arguments.weights_file]
    for path in files:  # check all of them before hours of work
        load_weights(model, path)

    for folder in dict.fromkeys(path.parent for path in files):
        check_settings(folder, config)

    windows = Windows(config, arguments.data, "test")
    speaking = windows.class_id == config.speaking_class
    if speaking.all() or not speaking.any():
        raise UserError(
            f"all {len(speaking):,} test samples are of one class, so that nothing can be ranked: raise "
            "test_keep_ratio, or extract more videos"
        )
    print(f"{len(speaking):,} test samples, {speaking.sum():,} of them speaking; mode {config.mode}, on {where}")
    if windows.without_audio:
        print(f"left out: {windows.without_audio:,} samples whose audio would reach beyond their video's")
    predicted = partial(predict, model, windows, device=where, batch_size=config.batch_size)
    if arguments.legacy:
        scores = predicted(weights=arguments.weights_file)
        print_legacy(arguments.weights_file, model, scores, windows.class_id, config)
        return

    groundtruth = read_groundtruth([config.path(arguments.data, "test_ann_dir")])
    nearest = nearest_windows(windows.video_id, windows.entity_id, windows.timestamp, groundtruth)
    results = {}
    for path in files:
        print(f"\n{path}")
        load_weights(model, path)
        probability = predicted(weights=path)[:, :, config.speaking_class]
        outputs = results[str(path)] = {
            name: evaluate_output(speaking, probability[:, position], groundtruth, nearest)
            for position, name in enumerate(model.outputs)
        }
        print(as_text(outputs))
        if arguments.weights_path:  # after each, so that an interrupt loses nothing
            write_results(arguments.out / RESULTS, results)
    if arguments.weights_path:
        print(f"\nresults: {arguments.out / RESULTS}")
        return
    for name, result in outputs.items():
        print(f"\nclassification report, {name}:\n{result.report}")
        image = arguments.out / f"{path.stem}-confusion-{name}.png"
        plot_confusion(image, result.confusion, f"{path.stem}, {name}", keep=arguments.show)
        print(f"confusion matrix: {image}")
    if arguments.show:
        from matplotlib import pyplot  # loads a window system's backend where there is one

        pyplot.show()


def weight_files(folder: Path) -> list[Path]:
    """The weights files of a folder in natural order: epoch 9 before epoch 10.

    Raises:
        UserError: the folder is absent or holds none.
    """
    if not folder.is_dir():
        raise UserError(f"--weights-path {folder}: there is no such folder")
    found = [path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.name != STATE]
    files = [path for path in found if path.is_file() and not path.name.startswith(".")]
    if not files:
        raise UserError(
            f"--weights-path {folder}: it holds no weights (files that end with {', '.join(WEIGHT_SUFFIXES)})"
        )
    return sorted(files, key=natural_order)


def natural_order(path: Path) -> list[str | int]:
    """A sort key in which runs of digits count as numbers."""
    text, *rest = re.split(r"(\d+)", path.name)
    return [text, *(int(part) if position % 2 == 0 else part for position, part in enumerate(rest))]


def check_settings(folder: Path, config: Config) -> None:
    """Check the settings of the run that weights are of; a note where there are none beside them.

    Raises:
        UserError: the run had other classes, or other faces or MFCCs.
    """
    try:
        trained = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["config"]
        differing = [
            f"{name} {trained[name]}, configured is {getattr(config, name)}"
            for name in INPUT_SETTINGS
            if trained[name] != getattr(config, name)
        ]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # weights from elsewhere
        print(
            f"note: no settings of ava-train beside the weights in {folder}: the configured ones are taken for theirs"
        )
        return
    if differing:
        raise UserError(
            f"the weights in {folder} were trained with {'; '.join(differing)}: set what they were trained with"
        )


def print_legacy(path: Path, model: StaticNetwork, scores: np.ndarray, classes: np.ndarray, config: Config) -> None:
    """Print what Keras' evaluation gives."""
    penalty = float(model.penalty().detach())
    values = evaluate_keras(model.outputs, scores, classes, weights=config.loss_weights, penalty=penalty)
    print(f"\n{path}")
    titles = {"loss": "total loss", "auroc": "area under ROC", "aupr": "area under precision-recall"}
    for name, value in values.items():
        print(f"{titles.get(name, name.replace('_', ' ')):<30}{value:.4f}")


if __name__ == "__main__":
    main()
