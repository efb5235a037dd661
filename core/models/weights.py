"""Weights from a file into a network; those of another network are refused with the difference."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.runtime.errors import UserError
from core.runtime.files import atomic_write

EXAMPLES = 3  # names shown of those that differ
FIRST_CONVOLUTION = "video_conv1.weight"  # (64, 3 * clip length, 7, 7) in the two-stream encoders
CONTEXT_CLASSIFIER = "fc_final.weight"  # (2, 128 * L * S) in the context network


def load_weights(model: nn.Module, path: str | Path, what: str = "STE checkpoint") -> None:
    """Load the state dict in a file into `model`, all of it and nothing else.

    Args:
        model: changed in place; its weights stay on their device.
        path: a file written by torch.save that holds a state dict. A "module." before every name, as
            DistributedDataParallel leaves it, is taken off.
        what: what the user calls this file, for messages.

    Raises:
        UserError: the file is absent or not a state dict, or is of another network, clip length or context size.
    """
    fill(model, read_state_dict(path, what), path, what)


def fill(model: nn.Module, weights: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Load a state dict that was read from a file into `model`; arguments and errors as `load_weights`."""
    compare(weights, model.state_dict(), path, what)
    model.load_state_dict(weights)


def read_state_dict(path: str | Path, what: str) -> dict[str, Tensor]:
    """Read a state dict on the CPU; nothing in the file is executed.

    Raises:
        UserError: the file is absent, unreadable, damaged, or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{what} {path}: there is no such file; give the path of a .pth file")
    content = read_torch_file(path, f"{what} {path}", "give a file written with torch.save(model.state_dict(), path)")
    named = isinstance(content, Mapping) and content and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(
            f"{what} {path}: the file holds {_describe(content)}, not a state dict (names and tensors); give a file "
            "written with torch.save(model.state_dict(), path)"
        )
    if all(name.startswith("module.") for name in content):
        return {name.removeprefix("module."): tensor for name, tensor in content.items()}
    return dict(content)


def read_torch_file(path: Path, what: str, remedy: str) -> Any:
    """What torch.save wrote to a file, on the CPU; nothing in the file is executed.

    The checksums that torch.save keeps are compared, which torch.load does not do: one flipped bit is another network.

    Args:
        path: of the file.
        what: what the user calls it, for messages.
        remedy: what to do about a file that cannot be read.

    Raises:
        UserError: it is absent, damaged, of another kind, or holds tensors other than dense ones with values.
    """
    try:
        if zipfile.is_zipfile(path):  # files of before PyTorch 1.6 are none, and have no checksums
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise UserError(f"{what}: the file is damaged: the checksum of its part {damaged} differs; {remedy}")
        content = torch.load(path, map_location="cpu", weights_only=True)
        unusual = [value for value in _tensors(content) if value.layout != torch.strided or value.device.type != "cpu"]
    except OSError as error:
        raise UserError(f"{what}: it cannot be read ({error.strerror or error}); {remedy}") from error
    except UserError:
        raise
    except Exception as error:  # a damaged or foreign file can make torch.load raise anything
        raise UserError(
            f"{what}: not a file of torch.save, or one that is damaged or cut short ({type(error).__name__}); {remedy}"
        ) from error
    if unusual:
        raise UserError(
            f"{what}: it holds a tensor that is {str(unusual[0].layout).removeprefix('torch.')} on the device "
            f"{unusual[0].device}, expected dense ones with values; {remedy}"
        )
    return content


def write_torch_file(path: Path, value: Any) -> None:
    """Write a value by torch.save, whole or not at all; equal values give equal files, whatever their names."""
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        torch.save(value, file)  # given a path, it would put the file's name into the file


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value of dictionaries and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def compare(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Check that two state dicts have the same names and shapes, whole numbers for whole numbers, and finite ones.

    Raises:
        UserError: they differ; the message says whether it is the network, the clip length or the context size. Or
            a weight is not a finite number.
    """
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    differing = [name for name in expected if name in found and found[name].shape != expected[name].shape]
    if not (missing or extra or differing):
        for name, tensor in found.items():
            if tensor.is_floating_point() != expected[name].is_floating_point() or tensor.is_complex():
                raise UserError(f"{what} {path}: {name} holds {tensor.dtype}, expected {expected[name].dtype}")
            if not tensor.isfinite().all():
                raise UserError(
                    f"{what} {path}: {name} holds numbers that are not finite, as after a training that diverged; give "
                    "another checkpoint"
                )
        return
    if differing == [FIRST_CONVOLUTION] and not (missing or extra):
        has, asked = clip_length_of(found), clip_length_of(expected)
        raise UserError(
            f"{what} {path}: it was trained with clips of {has} frames, and {asked} were asked for "
            f"({FIRST_CONVOLUTION} has {3 * has} channels, not {3 * asked}); use clip length {has} or another "
            "checkpoint"
        )
    if differing == [CONTEXT_CLASSIFIER] and "lstm.weight_ih_l0" in expected and not (missing or extra):
        has, asked = (weights[CONTEXT_CLASSIFIER].shape[1] for weights in (found, expected))
        units = expected["lstm.weight_hh_l0"].shape[1]
        raise UserError(
            f"{what} {path}: it was trained with contexts of {has // units} rows (clip length × speakers), "
            f"and {asked // units} were asked for ({CONTEXT_CLASSIFIER} has {has} columns, not {asked}); use "
            "the clip length and the number of speakers of its training, or another checkpoint"
        )
    shapes = [f"{name} is {tuple(found[name].shape)}, not {tuple(expected[name].shape)}" for name in differing]
    parts = [f"it lacks {_some(missing)}"] * bool(missing) + [f"it has {_some(extra)} besides"] * bool(extra)
    parts += [_some(shapes)] * (bool(shapes) and not parts)
    raise UserError(
        f"{what} {path}: weights of another network: {', and '.join(parts)}; give weights of the network that the "
        "settings name, or name the network of these weights"
    )


def clip_length_of(state_dict: Mapping[str, Tensor]) -> int:
    """Clip length, in frames, of the two-stream encoder that a state dict belongs to.

    Raises:
        UserError: it is not the state dict of a two-stream encoder.
    """
    weight = state_dict.get(FIRST_CONVOLUTION)
    if weight is None or weight.ndim != 4 or weight.shape[1] % 3:
        raise UserError(
            f"weights without {FIRST_CONVOLUTION} of (64, 3 × clip length, 7, 7) are not those of a two-stream encoder"
        )
    return weight.shape[1] // 3


def _some(names: list[str]) -> str:
    more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
    return ", ".join(names[:EXAMPLES]) + more


def _describe(content: object) -> str:
    if isinstance(content, Mapping):
        return f"a dictionary of {_some([str(name) for name in content])}" if content else "an empty dictionary"
    return f"a {type(content).__name__}"
