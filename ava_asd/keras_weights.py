"""Weights of the published Keras networks as state dicts of ours.

Two layouts of HDF5. TensorFlow 2.2 wrote, and later versions read: attribute `layer_names`, a group for each layer, and
in it the weights that its attribute `weight_names` lists (`conv1/kernel:0`, or without `:0`); a file that holds a whole
model has all this in its group `model_weights`. Keras 3 writes `.weights.h5` files: a group `layers/<kind>/vars` for
each layer, with the kernel as `0`, the bias as `1`, and the layer's name as attribute `name`.

Damage can make the HDF5 library loop for ever or crash, so that a process of its own reads the file: this module, run
as a command, which is why it does without PyTorch (0.3 s instead of 2).
"""

import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from core.runtime.errors import UserError

HDF5_SUFFIXES = (".hdf5", ".h5")
TOWERS = {"a": "audio", "v": "video"}
LIMIT_S = 60  # for reading a file: the published ones take about 1
KINDS = {"kernel": "weight", "0": "weight", "1": "bias"}  # what Keras calls a weight -> what PyTorch does


def is_hdf5(path: str | Path) -> bool:
    """Whether a file is to be read as HDF5, by its name or by its first bytes."""
    return Path(path).suffix.lower() in HDF5_SUFFIXES or (Path(path).is_file() and h5py.is_hdf5(path))


def read_keras(path: str | Path, limit_s: int = LIMIT_S) -> dict[str, np.ndarray]:
    """Read a Keras HDF5 file as a state dict of `ava_asd.models`, whichever the mode.

    Kernels get PyTorch's order of axes. Dense kernels behind a flattening need no more: our networks flatten channels
    last too. A layer with a name that the published networks do not have keeps it.

    Args:
        path: the file.
        limit_s: seconds after which a file counts as damaged.

    Returns:
        Name -> float32 array.

    Raises:
        UserError: the file is absent, damaged, no HDF5, or not of the layouts above.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"weights file {path}: there is no such file")
    command = [sys.executable, "-m", __name__, path.absolute(), str(limit_s)]
    reading = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=False)
    if reading.returncode == 0:
        return dict(np.load(io.BytesIO(reading.stdout)))
    if reading.returncode == -signal.SIGALRM:
        reason = f"the HDF5 library did not come to an end in {limit_s} s"
    elif reading.returncode < 0:
        reason = f"the HDF5 library ended with {signal.Signals(-reading.returncode).name}"
    else:
        reason = reading.stderr.decode(errors="replace").strip().rpartition("\n")[2]  # of a traceback
    raise UserError(
        f"weights file {path}: it cannot be read as Keras HDF5 weights ({reason}); it is damaged, cut short, or of "
        "another kind; give a file that Keras wrote: model.save_weights('x.weights.h5') or model.save('x.h5') "
        "(before Keras 3.6 only the latter keeps the layers' names)"
    )


def _read(path: str) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        keras3 = "layers" in file and "layer_names" not in file.attrs
        arrays = _arrays_of_keras3(file) if keras3 else _arrays(file.get("model_weights", file))
        return {f"{_our_name(layer)}.{kind}": _our_axes(data) for layer, kind, data in arrays}


def _arrays(root: h5py.Group) -> Iterator[tuple[str, str, h5py.Dataset]]:
    """Layer, kind and numbers of each weight in TensorFlow's layout."""
    for layer in _names(root, "layer_names"):
        for name in _names(root[layer], "weight_names"):
            kind = name.rsplit("/", 1)[-1].split(":")[0]
            yield layer, KINDS.get(kind, kind), root[layer][name]


def _arrays_of_keras3(file: h5py.File) -> Iterator[tuple[str, str, h5py.Dataset]]:
    """Layer, kind and numbers of each weight in the layout of Keras 3."""
    for layer in file["layers"].values():
        for number, data in layer["vars"].items():
            yield layer["vars"].attrs["name"], KINDS.get(number, number), data


def _names(group: h5py.Group, attribute: str) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in group.attrs[attribute]]


def _our_name(layer: str) -> str:
    """s_av_a_conv1 and s_a_conv1 -> audio.conv1; s_av_fc1 -> fc1; a_out -> a_out."""
    match = re.fullmatch(r"s_(?:av_)?([av])_(conv\d|fc7)", layer)
    return f"{TOWERS[match[1]]}.{match[2]}" if match else layer.removeprefix("s_av_")


def _our_axes(data: h5py.Dataset) -> np.ndarray:
    """(.., in, out) -> (out, in, ..) float32, for dense kernels and convolutions alike; biases as they are."""
    if not (isinstance(data, h5py.Dataset) and data.dtype.kind == "f"):
        raise TypeError(f"{data.name} holds no floating-point numbers")
    if data.nbytes > data.file.id.get_filesize():  # a damaged header would fill the memory
        raise ValueError(f"{data.name} claims {data.nbytes:,} bytes")
    array = np.asarray(data[()], np.float32)
    if array.ndim > 1:
        array = np.moveaxis(array, (-1, -2), (0, 1))
    return np.ascontiguousarray(array)


if __name__ == "__main__":
    signal.alarm(int(sys.argv[2]))  # ends the process, whatever the library does, also where nobody waits for it
    np.savez(sys.stdout.buffer, **_read(sys.argv[1]))
