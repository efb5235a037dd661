"""Networks in evaluation as plain functions, run by OpenVINO on a CPU and by PyTorch on a GPU.

Where OpenVINO cannot be imported PyTorch and OpenCV take its place: the same numbers, but slower.
"""

import contextlib
import copy
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from core.runtime.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # the settings' name -> PyTorch's
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}  # PyTorch's name -> OpenVINO's


def runtime_name(device: torch.device) -> str:
    """What `compiled` networks run in on a device, with its version, for the settings of results."""
    openvino = import_openvino()
    if device.type == "cpu" and openvino is not None:
        return f"OpenVINO {openvino.__version__.partition('-')[0]}"
    return f"PyTorch {torch.__version__.partition('+')[0]}"


def compiled(
    network: nn.Module, example: Tensor, device: torch.device, dtype: torch.dtype = torch.float32
) -> Callable[[Tensor], Tensor]:
    """A copy of a network of one input and one output as a function: what is fastest on the device.

    Args:
        network: not changed, and later changes to it have no effect. What it does must not depend on its input's
            values, and on the input's shape only by PyTorch's own operations: it is traced.
        example: an input, of the type of all inputs; each axis may have another length later.
        device: where it runs, on as many threads as PyTorch uses now.
        dtype: of the products: torch.float32, or torch.bfloat16, faster where the processor or GPU has it.

    Returns:
        A function of a tensor on any device; its result is float32, on `device`.
    """
    if device.type != "cpu" or import_openvino() is None:
        return in_pytorch(network, device, dtype)
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        # torch.export, which PyTorch recommends instead, takes seconds where tracing takes 0.04 s.
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.jit.trace(copy.deepcopy(network).eval(), example, check_trace=False)
    decoder = TorchScriptPythonDecoder(traced, shared_memory=False)  # must outlive the conversion
    run = _in_openvino("pytorch", decoder, dtype)
    return lambda x: torch.from_numpy(run(x.cpu().numpy())[0])


def in_pytorch(
    network: nn.Module, device: torch.device, dtype: torch.dtype = torch.float32
) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    """A copy of a network as a function run by PyTorch; arguments as `compiled`.

    Returns:
        A function of the network's tensors, on any device. Its results, as many as the network's, are float32.
    """
    network = copy.deepcopy(network).eval().to(device)

    @torch.inference_mode()
    def run(*inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            outputs = network(*(x.to(device) for x in inputs))
        return outputs.float() if isinstance(outputs, Tensor) else tuple(output.float() for output in outputs)

    return run


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch works on one thread meanwhile: the steps of a GRU are too short to be shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def opencv_on_one_thread() -> Iterator[None]:
    """OpenCV works on one thread meanwhile, in the whole process: steps on small images are too short to be shared."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def onnx_network(path: str | Path, precision: str = "fp32") -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """An ONNX file of a small network of images as a function, on one thread of the CPU.

    Args:
        path: the file.
        precision: of the products, "fp32" or "bf16"; without OpenVINO they are fp32.

    Returns:
        A function of images, (batch, channel 3, height, width) float32 of any height and width that the network can
        work with, that gives the network's outputs by name.

    Raises:
        UserError: the file is no ONNX network.
    """
    try:
        if import_openvino() is None:
            return _in_opencv(cv2.dnn.readNetFromONNX(str(path)))
        run = _in_openvino("onnx", path, DTYPES[precision], [1, 3, -1, -1], threads=1)
    except Exception as error:  # whatever the bytes of a damaged or foreign file lead the libraries into
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(f"{path} is no network of images in ONNX format ({reason})") from error
    return lambda images: {name: value for output, value in run(images).items() for name in output.names}


def import_openvino() -> ModuleType | None:
    """OpenVINO, or None where it cannot be imported."""
    # At its import OpenVINO reports its use to Intel by this package; without the package it does not.
    sys.modules.setdefault("openvino_telemetry", None)
    try:
        import openvino
    except ImportError:
        return None
    return openvino


def best_precision(device: torch.device | str = "cpu") -> str:
    """The precision of products that pays: "bf16" on a CPU that has it, else "fp32"."""
    return "bf16" if torch.device(device).type == "cpu" and has_bfloat16() else "fp32"


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers, and OpenVINO is there to make use of it."""
    openvino = import_openvino()
    return openvino is not None and "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _in_openvino(
    framework: str, source: Any, dtype: torch.dtype, shape: list[int] | None = None, threads: int | None = None
) -> Callable[[np.ndarray], Any]:
    """A framework's network as a function from its input to its outputs; `shape` of the input, -1 for any length.

    It runs on some threads, by default as many as PyTorch uses.
    """
    import openvino
    from openvino.frontend import FrontEndManager

    frontend = FrontEndManager().load_by_framework(framework)
    model = frontend.convert(frontend.load(source))
    if shape is not None:
        model.reshape(shape)
    options = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        "ENABLE_CPU_PINNING": False,  # several processes would share one core
    }
    return openvino.Core().compile_model(model, "CPU", options)


def _in_opencv(network: cv2.dnn.Net) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    names = network.getUnconnectedOutLayersNames()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        network.setInput(images)
        return dict(zip(names, network.forward(names), strict=True))

    return run
