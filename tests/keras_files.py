"""Weight files in Keras' HDF5 layout, and the weights of the published parity numbers."""

import zlib
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

Layers = Mapping[str, Mapping[str, np.ndarray]]  # layer -> "kernel" or "bias" -> array in Keras' order of axes


def write_keras(path: Path, layers: Layers, *, suffix: str = ":0", whole_model: bool = False, text: type = bytes):
    """Write weights as TensorFlow 2.2 did.

    Args:
        path: file to write.
        layers: what it holds; a layer may have no weights, as pools have.
        suffix: behind each weight's name; newer versions write none.
        whole_model: as model.save writes it, not model.save_weights.
        text: type of the names in attributes.
    """
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        root.attrs["layer_names"] = [_as(text, name) for name in layers]
        root.attrs["backend"] = "tensorflow"
        root.attrs["keras_version"] = "2.3.0-tf"
        for layer, arrays in layers.items():
            group = root.create_group(layer)
            group.attrs["weight_names"] = [_as(text, f"{layer}/{kind}{suffix}") for kind in arrays]
            for kind, array in arrays.items():
                group[f"{layer}/{kind}{suffix}"] = array


def write_keras3(path: Path, layers: Layers, *, named: bool = True) -> None:
    """Write weights as save_weights of Keras 3 does; `named` by 3.6 and later, not by those before."""
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        for number, (layer, arrays) in enumerate(layers.items()):
            group = file.create_group(f"layers/layer_{number}/vars")  # in truth named by kind: conv2d, conv2d_1, ...
            if named:
                group.attrs["name"] = layer
            for position, kind in enumerate(("kernel", "bias")):
                if kind in arrays:
                    group[str(position)] = arrays[kind]


def hash_weights(listing: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """The weights that reference outputs were made with, from lines `layer/kind (shape)`."""
    layers: dict[str, dict[str, np.ndarray]] = {}
    for line in listing:
        name, _, shape = str(line).partition(" ")
        layer, kind = name.split("/")
        sides = tuple(int(side) for side in shape.strip("(),").split(","))
        numbers = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(sides, dtype=np.float32)
        scale = np.sqrt(2 / np.prod(sides[:-1])) if kind == "kernel" else 0.1
        layers.setdefault(layer, {})[kind] = (numbers * scale).astype(np.float32)
    return layers


def _as(text: type, name: str) -> bytes | str:
    return name.encode() if text is bytes else name
