"""Networks written as ONNX or as OpenVINO's files, by way of torch.export; what a runtime computes otherwise than
PyTorch is not written."""

import copy
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.export.networks import Array, Network
from core.inference.engine import import_openvino
from core.runtime.errors import UserError
from core.runtime.files import atomic_write

try:
    import onnxruntime
    import onnxscript  # noqa: F401  # which torch.onnx.export needs
except ImportError as error:
    raise UserError(f"{error.name} is not installed: pip install 'active-speakers-in-context[export]'") from None

OPSET = 20  # of ONNX: the first with Gelu
AGREES = 1e-4  # greatest difference from PyTorch; of the greatest value, where this is above 1
NEARLY = 0.1  # likewise with 8 bit integers, see `nearly`
TRACED = {"batch": 2, "time": 5, "face": 3, "height": 96, "width": 80}  # all different from 1, which would be kept
CHECKED = (
    {"batch": 1, "time": 1, "face": 1, "height": 64, "width": 64},
    {"batch": 1, "time": 30, "face": 2, "height": 144, "width": 144},
    {"batch": 3, "time": 7, "face": 5, "height": 112, "width": 96},
)


class DisagreementError(UserError):
    """A runtime computes something else than PyTorch."""


Run = Callable[[Mapping[str, np.ndarray]], list[np.ndarray]]


def export(network: Network, folder: Path, form: str, *, int8: bool = False) -> tuple[Path, dict[str, float]]:
    """Write a network as <name>.onnx, or as <name>.xml and <name>.bin.

    Args:
        network: to write; it is not changed.
        folder: made where it is not there. A file of the same name is replaced.
        form: one of `core.export.networks.FORMATS`.
        int8: compute with 8 bit integers where faces are embedded, in a file <name>_int8; the network has an input
            "faces".

    Returns:
        The file, and for each runtime that reads it the greatest difference from PyTorch; with `int8` the mean one, see
        `nearly`.

    Raises:
        DisagreementError: a runtime's outputs differ by more than `AGREES` (`NEARLY`): it is not written.
    """
    openvino = import_openvino()
    if openvino is None:
        raise UserError("OpenVINO cannot be imported, with which the file is checked: pip install openvino")
    core, check = openvino.Core(), checked
    content = onnx_content(network)
    if int8:
        from core.export.quantized import quantized

        content, check = quantized(content, network), nearly
    path = folder / f"{network.name}{'_int8' * int8}.{'onnx' if form == 'onnx' else 'xml'}"
    if form == "onnx":
        found = {
            "onnxruntime": check(network, in_onnxruntime(content), "onnxruntime"),
            "OpenVINO": check(network, in_openvino(core.read_model(content)), "OpenVINO"),
        }
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        return path, found
    with tempfile.TemporaryDirectory() as scratch:
        written = Path(scratch) / path.name
        openvino.save_model(core.read_model(content), written, compress_to_fp16=False)
        found = {"OpenVINO": check(network, in_openvino(core.read_model(written)), "OpenVINO")}
        for own in (path.with_suffix(".bin"), path):  # the second is the one that is opened
            with atomic_write(own) as temporary:
                temporary.write_bytes((Path(scratch) / own.name).read_bytes())
    return path, found


def onnx_content(network: Network) -> bytes:
    """A network as an ONNX file, its axes named, with all that is known of it as metadata.

    Inputs that no output depends on are left out, as Light-ASD's backward GRU reads the other one's output alone.
    """
    traced = [array.drawn(TRACED, torch.Generator().manual_seed(0)) for array in network.inputs]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _with_onnx_grus(network.module),
            tuple(traced),
            input_names=[array.name for array in network.inputs],
            output_names=[array.name for array in network.outputs],
            dynamic_shapes=tuple(
                {place: torch.export.Dim.DYNAMIC for place, axis in enumerate(array.axes) if isinstance(axis, str)}
                for array in network.inputs
            ),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    inputs = tuple(array for array in network.inputs if array.name in used)
    for value in [value for value in graph.input if value.name not in used]:
        graph.input.remove(value)
    for array, value in zip((*inputs, *network.outputs), (*graph.input, *graph.output), strict=True):
        for axis, length in zip(array.axes, value.type.tensor_type.shape.dim, strict=True):
            length.Clear()
            setattr(length, "dim_value" if isinstance(axis, int) else "dim_param", axis)
        value.doc_string = array.meaning
        del value.metadata_props[:]
    del graph.value_info[:], graph.metadata_props[:]  # lengths of the traced inputs
    for node in graph.node:  # paths of this machine
        del node.metadata_props[:]
    del model.functions[:]
    arrays = {"inputs": _described(inputs), "outputs": _described(network.outputs)}
    for key, value in {**network.about, **arrays}.items():
        model.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    return model.SerializeToString()


def checked(network: Network, run: Run, runtime: str) -> float:
    """The greatest difference between a runtime's outputs and PyTorch's, on random inputs of several lengths.

    Raises:
        DisagreementError: it is more than `AGREES`.
    """
    worst = 0.0
    for sizes in CHECKED:
        inputs = {array.name: array.drawn(sizes, torch.Generator().manual_seed(1)) for array in network.inputs}
        found = run({name: value.numpy() for name, value in inputs.items()})
        for array, one, expected in zip(network.outputs, found, network.run(inputs), strict=True):
            difference = np.abs(one - expected).max() if one.shape == expected.shape else np.inf
            if not difference <= AGREES * max(1, np.abs(expected).max()):
                raise DisagreementError(
                    f"{network.name}: {array.name} of {runtime} differ from PyTorch's by {difference:.2g}, more than "
                    f"{AGREES}, with {sizes}: it was not written. Use the versions that pyproject.toml names"
                )
            worst = max(worst, float(difference))
    return worst


def nearly(network: Network, run: Run, runtime: str) -> float:
    """How far a runtime's outputs with 8 bit integers are from PyTorch's on drawn faces other than those that the
    integers were fitted to: the root of the mean square of the differences, as a share of the outputs' deviation; of
    the output where it is greatest.

    Raises:
        DisagreementError: it is more than `NEARLY`.
    """
    from core.export.quantized import with_drawn_faces

    found, expected = [], []
    for inputs in with_drawn_faces(network, "val"):
        found.append(run({name: value.numpy() for name, value in inputs.items()}))
        expected.append(network.run(inputs))
    shares = {}
    for array, own, others in zip(network.outputs, zip(*found, strict=True), zip(*expected, strict=True), strict=True):
        own, others = np.concatenate(own, axis=1), np.concatenate(others, axis=1)
        shares[array.name] = float(np.sqrt(np.mean((own - others) ** 2)) / others.std())
    worst = max(shares, key=shares.get)
    if not shares[worst] <= NEARLY:
        raise DisagreementError(
            f"{network.name}: with 8 bit integers {worst} of {runtime} differ from PyTorch's by {shares[worst]:.2f} of "
            f"their deviation, more than {NEARLY}: it was not written. Leave out --int8, or use the parts"
        )
    return shares[worst]


def in_onnxruntime(content: bytes | str) -> Run:
    """An ONNX file, its content or its path, as a function of its inputs by name (others may be given besides), on as
    many threads as PyTorch's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: session.run(None, {name: inputs[name] for name in names})


def in_openvino(model: Any) -> Run:
    """A model of OpenVINO's likewise; unless told otherwise it would use bfloat16 on processors that have it."""
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    run = import_openvino().Core().compile_model(model, "CPU", options)
    names = [value.any_name for value in run.inputs]
    return lambda inputs: list(run({name: inputs[name] for name in names}).values())


class _OnnxGRU(nn.Module):
    """ONNX's own GRU with the weights of PyTorch's: torch.export would keep the traced number of steps."""

    def __init__(self, gru: nn.GRU):
        super().__init__()
        self.size = gru.hidden_size
        # ONNX's order of the gates is update, reset, new; PyTorch's is reset, update, new.
        values = (torch.cat([value.chunk(3)[gate] for gate in (1, 0, 2)])[None] for value in gru.parameters())
        self.input, self.recurrent, input_bias, recurrent_bias = (nn.Parameter(value) for value in values)
        self.bias = nn.Parameter(torch.cat((input_bias, recurrent_bias), dim=1))

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        batch, time, _ = x.shape
        output, state = torch.onnx.ops.symbolic_multi_out(
            "GRU",
            (x.transpose(0, 1), self.input, self.recurrent, self.bias, None, state),
            {"hidden_size": self.size, "linear_before_reset": 1},
            dtypes=(x.dtype, x.dtype),
            shapes=((time, 1, batch, self.size), (1, batch, self.size)),
            version=OPSET,
        )
        return output.squeeze(1).transpose(0, 1), state


def _with_onnx_grus(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module)
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.GRU):
                setattr(parent, name, _OnnxGRU(child))
    return module


def _described(arrays: tuple[Array, ...]) -> dict[str, dict[str, Any]]:
    return {array.name: {"axes": array.axes, "dtype": array.dtype, "meaning": array.meaning} for array in arrays}
