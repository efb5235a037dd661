"""Dictionaries and command line to checked, frozen settings; all faults in one message.

The scripts' configuration is a Python file of dictionaries (`core/config.py`); a file given with --config replaces
the dictionaries it has, --set changes single keys. Nothing here changes a dictionary that it was given.
"""

import argparse
import ast
import dataclasses
import importlib.util
import inspect
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from core import config as default_config
from core.runtime.checks import Check, as_path, as_text, as_whole, flag, interval, name_of, number, one_of, whole
from core.runtime.errors import UserError

UNSET = "..."  # what a path to fill in begins with
# Names of torch.optim and torch.nn that work in the training loop, which gives an optimizer no closure and a criterion
# two logits and a class. Others can be given as a class or callable.
OPTIMIZERS = ["Adam", "AdamW", "NAdam", "RAdam", "Adamax", "Adafactor", "Adadelta", "Adagrad", "RMSprop", "SGD", "ASGD"]
CRITERIA = ["CrossEntropyLoss", "MultiMarginLoss"]
PUBLISHED_BATCH_SIZE = 128  # of the STE, in the body of the published script
# Keys of the optimization parameters that `core.optimization.Training` takes by the same names.
_TRAINING = ["optimizer", "learning_rate", "weight_decay", "epochs", "step_size", "gamma", "threads", "seed", "compile"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The dictionaries that a stage uses, merged and checked.

    Attributes:
        values: dictionary name -> key -> value.
    """

    values: Mapping[str, Mapping[str, Any]]

    def __getitem__(self, dictionary: str) -> Mapping[str, Any]:
        return self.values[dictionary]

    def plain(self) -> dict[str, dict[str, Any]]:
        """For JSON: classes, callables and paths as text."""
        return {name: {key: as_text(value) for key, value in keys.items()} for name, keys in self.values.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options by which every stage script is configured."""
    parser.add_argument(
        "--config", type=as_path, help="Python file with dictionaries that replace those of core/config.py"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="DICT.KEY=VALUE",
        dest="changes",
        help="change one key, for example --set STE_optimization_params.epochs=3 (repeatable)",
    )


def add_split_argument(parser: argparse.ArgumentParser, default: str) -> None:
    """The option that says which splits a stage works on."""
    parser.add_argument("--split", choices=["train", "val", "both"], default=default, help=f"default: {default}")


def add_run_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """The options that name a training's run folder; `name` is what its default name is made of, beside the time."""
    parser.add_argument("--name", help=f"of the run folder; by default {name} and time")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on with the run --name after its last finished epoch")
    begin.add_argument(
        "--update", action="store_true", help="as --resume if data and settings are the same, else replace the run"
    )


def add_context_arguments(parser: argparse.ArgumentParser) -> None:
    """The published positional arguments that give a context its shape, and the device after them."""
    numbers = "clip_length skip_frames speakers"
    about = "time steps, odd; rows from one to the next; speakers (published: 11 4 3); none for the residual network"
    parser.add_argument("shape", nargs="*", type=at_least_one, metavar=numbers, help=about)
    parser.add_argument("cuda_device", help="index of a CUDA device, or cpu")


def training_arguments(params: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `core.optimization.Training` that a stage's optimization parameters hold."""
    return {key: params[key] for key in _TRAINING}


def splits(choice: str) -> list[str]:
    """The splits that --split names."""
    return ["train", "val"] if choice == "both" else [choice]


def load(
    path: Path | None,
    changes: list[str],
    dictionaries: Mapping[str, list[str]] | None = None,
    base: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    urls: Collection[str] = (),
) -> Settings:
    """Merge `core/config.py`, a user's file and single changes, and check what a stage needs.

    Args:
        path: a Python file with some of the dictionaries, or None. Its dictionaries are taken with the defaults for
            the keys that they leave out.
        changes: texts "DICT.KEY=VALUE"; VALUE is a Python literal or, failing that, a string.
        dictionaries: what the stage needs: dictionary -> the path keys that must be filled in; None for all
            dictionaries and no path.
        base: what comes between `core/config.py` and the user's file.
        urls: those path keys that may be URLs too (`core.runtime.elsewhere`).

    Raises:
        UserError: listing every fault: unknown names, values of the wrong kind or range, paths left as "...". A
            models_out is not asked for where the stage's 'weights' is a path.
    """
    merged = {name: {**value, **(base or {}).get(name, {})} for name, value in _dictionaries(default_config).items()}
    given, faults = [], []
    if path:
        given = [(path, name, key, value) for name, keys in _read(path).items() for key, value in keys.items()]
    for change in changes:
        left, equals, text = change.partition("=")
        name, dot, key = left.strip().partition(".")
        if equals and dot:
            given.append((f"--set {change}", name, key, _literal(text)))
        else:
            faults.append(f"--set {change}: expected DICT.KEY=VALUE, for example STE_optimization_params.epochs=3")
    for source, name, key, value in given:
        if name not in merged:
            faults.append(f"{source}: unknown dictionary {name}; there are {', '.join(merged)}")
        elif key not in merged[name]:
            faults.append(f"{source}: {name} has no key {key!r}; there are {', '.join(merged[name])}")
        else:
            merged[name][key] = value
    if "STE_optimization_params" in (dictionaries or merged):
        _note_batch_size(given)
    for name, paths in (dictionaries or dict.fromkeys(merged, ())).items():
        forward = f"{name.partition('_')[0]}_forward_params"
        merged[name] = {key: _as_name(key, value) if callable(value) else value for key, value in merged[name].items()}
        for key, value in merged[name].items():
            path_check = partial(_path, may_be_url=key in urls) if key in paths else None
            check = _CHECKS.get(f"{name}.{key}", _CHECKS.get(key, path_check))
            fault = check(value) if check else None
            if fault and key == "models_out" and forward in (dictionaries or ()):  # where weights are looked for
                newest = str(merged[forward]["weights"]) in ("best", "last")
                fault = f"{fault}; or name a .pth file with {forward}.weights" if newest else None
            if fault:
                faults.append(f"{name}[{key!r}] is {value!r}: {fault}")
    if faults:
        raise UserError(
            "the configuration has faults:\n" + "\n".join(f"  - {fault}" for fault in dict.fromkeys(faults))
        )
    return Settings({name: merged[name] for name in dictionaries or merged})


def odd(text: str) -> int:
    """An argparse type: an odd number of at least 1."""
    number = as_whole(text)
    if number < 1 or number % 2 == 0:
        raise argparse.ArgumentTypeError(
            f"{text}: expected an odd number (a middle row and as many before as after), for example 11"
        )
    return number


def at_least_one(text: str) -> int:
    """An argparse type: a whole number of at least 1."""
    number = as_whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number of at least 1")
    return number


def run_name(arguments: argparse.Namespace, prefix: str) -> str:
    """The name of a run folder: the one given with --name, or the prefix and the time.

    Raises:
        UserError: a run is to be gone on with and none is named.
    """
    if arguments.name is None and (arguments.resume or arguments.update):
        raise UserError("--resume and --update: say which run with --name")
    return arguments.name or f"{prefix}_{time.strftime('%Y%m%d-%H%M%S')}"


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"--config {path}: no such file; give a Python file with dictionaries as in core/config.py")
    if path.suffix != ".py":
        raise UserError(f"--config {path}: expected a Python file whose name ends with .py")
    spec = importlib.util.spec_from_file_location("user_config", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code: anything can go wrong there
        raise UserError(f"--config {path} cannot be read: {type(error).__name__}: {error}") from error
    return _dictionaries(module)


def _dictionaries(module: ModuleType) -> dict[str, dict[str, Any]]:
    return {name: value for name, value in vars(module).items() if isinstance(value, dict) and name[0] != "_"}


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _note_batch_size(given: list[tuple[Any, str, str, Any]]) -> None:
    """Say that a file written for the published STE_train.py means another batch size here than it did there."""
    values = {key: (source, value) for source, name, key, value in given if name == "STE_optimization_params"}
    (source, size), (_, backbone) = (values.get(key, (None, None)) for key in ("batch_size", "backbone"))
    if callable(backbone) and isinstance(source, Path) and size != PUBLISHED_BATCH_SIZE:
        print(
            f"{source}: the batch size is {size}; the published STE_train.py took {PUBLISHED_BATCH_SIZE} whatever the "
            f"file said, and so does --set STE_optimization_params.batch_size={PUBLISHED_BATCH_SIZE}"
        )


def _path(value: Any, *, may_be_url: bool) -> str | None:
    if str(value).startswith(UNSET):
        return "fill in a path, in core/config.py, in a file given with --config, or with --set"
    if may_be_url and isinstance(value, str) and "://" in value:
        return None
    return None if _is_path(value) else "expected a path of this machine"


def _is_path(value: Any) -> bool:
    return isinstance(value, str | Path) and str(value) != "" and "://" not in str(value)


def _odd(value: Any) -> str | None:
    good = isinstance(value, int) and not isinstance(value, bool) and value >= 1 and value % 2 == 1
    return None if good else "expected an odd number of rows; 1 is off"


def _as_name(key: str, value: Any) -> Any:
    """The name of a class, function or object of a published configuration; others as they are."""
    from torch import nn, optim  # here, as below: what imports torch takes seconds

    from core import models

    if value is models.resnet18_two_streams_forward:  # it loads weights: here those that the key 'weights' names
        return "resnet18_two_streams"
    encoders = [*models.BACKBONES, *models.TRACK_ENCODERS]
    homes = {"backbone": (models, encoders), "optimizer": (optim, OPTIMIZERS), "criterion": (nn, CRITERIA)}
    return name_of(value, *homes.get(key, (None, [])))


def _name_or_callable(*names: str) -> Check:
    """One of some names, or (as in old configurations) a class or callable."""

    def check(value: Any) -> str | None:
        return None if callable(value) or value in names else f"expected one of {', '.join(names)}, or a callable"

    return check


def _backbone(value: Any) -> str | None:
    from core.models import BACKBONES, TRACK_ENCODERS  # here: it imports torch, which takes seconds

    names = [*BACKBONES, *TRACK_ENCODERS]
    if value in names:
        return None
    try:
        inspect.signature(value).bind(pretrained=False, rgb_stack_size=11)
        good = isinstance(value, type) or not hasattr(value, "state_dict")  # a network itself takes anything
    except (TypeError, ValueError):
        good = False
    if good:
        return None
    return (
        f"expected one of {', '.join(names)}, or a callable that makes a network of pretrained and rgb_stack_size; "
        "weights are loaded into it by the key 'weights' of STE_forward_params"
    )


def _pretrained(value: Any) -> str | None:
    good = isinstance(value, bool) or _is_path(value)
    return None if good else "expected True, False or the path of a state dict"


def _weights(value: Any) -> str | None:
    return None if _is_path(value) else "expected 'best', 'last' or the path of a .pth file"


# Every key that is not a path, and what it may hold. Keys of the same name mean the same in every dictionary.
_CHECKS: dict[str, Check] = {
    "backbone": _backbone,
    "pretrained": _pretrained,
    "network": one_of("ASC_Net", "residual"),
    "motion_init": flag,
    "optimizer": _name_or_callable(*OPTIMIZERS),
    "criterion": _name_or_callable(*CRITERIA),
    "learning_rate": number(0),
    "weight_decay": number(0, or_equal=True),
    "epochs": whole(1),
    "step_size": whole(1),
    "gamma": number(0, 1),
    "batch_size": whole(1),
    "threads": whole(0),
    "clips_per_entity": whole(1),
    "crop_size": whole(16),
    "crop_scale": interval(0, 1),
    "jitter": number(0, 1, or_equal=True),
    "jitter_per": one_of("frame", "clip"),
    "mismatched_sounds": whole(0),
    "mismatch_weight": number(0, or_equal=True),
    "frames_per_batch": whole(2),
    "temperature": number(0),
    "temperature_drop": number(0, or_equal=True),
    "video_weight": number(0, or_equal=True),
    "mix_chance": number(0, 1, or_equal=True),
    "mix_snr": interval(),
    "precision": one_of("auto", "fp32", "bf16", "fp16"),
    "STE_forward_params.precision": one_of("fp32", "bf16", "int8"),
    "compile": flag,
    "seed": whole(0),
    "weights": _weights,
    "feature_type": one_of("float16", "float32"),
    "format": one_of("arrow", "csv"),
    "rows_without_crops": one_of("refuse", "leave_out"),
    "median_window": _odd,
    "head": one_of("av", "audio", "video"),
}
