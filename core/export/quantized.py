"""The visual encoder of whole tracks in 8 bit integers: nearly all of the work, in a third or half of the time.

Static quantisation by onnxruntime, as QDQ nodes, which OpenVINO reads too. The ranges of the activations are those on
drawn faces, so that no data set is needed.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import Tensor

from core.export.calibration import SCENES, drawn_faces
from core.export.networks import Network

QUANTIZED = ("Conv", "Relu", "Add", "MaxPool")
FACE_AXES = 5  # of a convolution's weights over frames: those over audio have 4


def quantized(content: bytes, network: Network) -> bytes:
    """The ONNX file of a network that reads faces, with its convolutions over them in 8 bit integers."""
    model = onnx.load_from_string(content)
    with tempfile.TemporaryDirectory() as folder, _without_warnings():
        path = Path(folder) / "int8.onnx"
        quantize_static(
            model,
            path,
            _Inputs(network),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,  # 7 bits of weight: without instructions for it processors add products in 16 bits
            nodes_to_quantize=_over_faces(model.graph),
        )
        return path.read_bytes()


def with_drawn_faces(network: Network, split: str) -> Iterator[dict[str, Tensor]]:
    """Inputs of a network by name, each with a track of drawn faces, everything else random.

    Args:
        network: with an input "faces".
        split: "train" or "val": other faces.
    """
    generator = torch.Generator().manual_seed(1)
    for faces in drawn_faces(split, SCENES):
        sizes = {"batch": 1, "time": len(faces)}
        inputs = {array.name: array.drawn(sizes, generator) for array in network.inputs}
        yield {**inputs, "faces": torch.from_numpy(faces[None])}


class _Inputs(CalibrationDataReader):
    def __init__(self, network: Network):
        self.inputs = with_drawn_faces(network, "train")

    def get_next(self) -> dict[str, np.ndarray] | None:
        inputs = next(self.inputs, None)
        return inputs and {name: value.numpy() for name, value in inputs.items()}


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """onnxruntime recommends a step that changes nothing here."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _over_faces(graph: onnx.GraphProto) -> list[str]:
    """The names of the convolutions over faces, and of what is between them."""
    axes = {weight.name: len(weight.dims) for weight in graph.initializer}
    names, tensors = [], set()
    for node in graph.node:
        first = node.op_type == "Conv" and axes[node.input[1]] == FACE_AXES
        if first or (node.op_type in QUANTIZED and tensors.intersection(node.input)):
            names.append(node.name)
            tensors.update(node.output)
    return names
