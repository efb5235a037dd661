"""Weights of the published Keras networks as state dicts of ours.

Keras' HDF5 layout, as TensorFlow 2.2 wrote it and later versions still read it: attribute `layer_names`, a group for
each layer, and in it the weights that its attribute `weight_names` lists (`conv1/kernel:0`, or without `:0`). A file
that holds a whole model has all this in its group `model_weights`.
"""

import re
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from core.runtime.errors import UserError

HDF5_SUFFIXES = (".hdf5", ".h5")
TOWERS = {"a": "audio", "v": "video"}
KINDS = {"kernel": "weight", "bias": "bias"}


def is_hdf5(path: str | Path) -> bool:
    """Whether a file is to be read as HDF5, by its name or by its first bytes."""
    return Path(path).suffix.lower() in HDF5_SUFFIXES or (Path(path).is_file() and h5py.is_hdf5(path))


def read_keras(path: str | Path) -> dict[str, Tensor]:
    """Read a Keras HDF5 file as a state dict of `ava_asd.models`, whichever the mode.

    Kernels get PyTorch's order of axes. Dense kernels behind a flattening need no more: our networks flatten channels
    last too. A layer with a name that the published networks do not have keeps it.

    Returns:
        Name -> float32 tensor on the CPU.

    Raises:
        UserError: the file is absent, damaged, no HDF5, or not of the layout above.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"weights file {path}: there is no such file")
    try:
        with h5py.File(path) as file:
            root = file.get("model_weights", file)
            weights = {}
            for layer in _names(root, "layer_names"):
                for name in _names(root[layer], "weight_names"):
                    kind = name.rsplit("/", 1)[-1].split(":")[0]
                    weights[f"{_our_name(layer)}.{KINDS.get(kind, kind)}"] = _our_axes(_floats(root[layer], name))
    except (OSError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"weights file {path}: it cannot be read as Keras HDF5 weights ({error}); it is damaged, cut short, or of "
            "another kind; give a file that model.save_weights('x.hdf5') or model.save('x.hdf5') wrote"
        ) from error
    return weights


def _names(group: h5py.Group, attribute: str) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[attribute]]


def _floats(layer: h5py.Group, name: str) -> np.ndarray:
    data = layer[name]
    if not (isinstance(data, h5py.Dataset) and data.dtype.kind == "f"):
        raise TypeError(f"{name!r} holds no floating-point numbers")
    return np.asarray(data[()], np.float32)


def _our_name(layer: str) -> str:
    """s_av_a_conv1 and s_a_conv1 -> audio.conv1; s_av_fc1 -> fc1; a_out -> a_out."""
    match = re.fullmatch(r"s_(?:av_)?([av])_(conv\d|fc7)", layer)
    return f"{TOWERS[match[1]]}.{match[2]}" if match else layer.removeprefix("s_av_")


def _our_axes(array: np.ndarray) -> Tensor:
    """(.., in, out) -> (out, in, ..), for dense kernels and convolutions alike; biases as they are."""
    if array.ndim > 1:
        array = np.moveaxis(array, (-1, -2), (0, 1))
    return torch.from_numpy(np.ascontiguousarray(array))
