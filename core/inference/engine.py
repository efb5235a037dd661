"""Networks in evaluation as plain functions of arrays: in OpenVINO on a CPU, in PyTorch on a GPU.

Where OpenVINO cannot be imported PyTorch and OpenCV take its place: the same numbers, but slower. What OpenVINO runs is
kept as a file, so that PyTorch, which takes a second and 500 MB, is only loaded where it is needed.
"""

import contextlib
import importlib.metadata
import io
import json
import os
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from core.download.cache import cache_folder
from core.runtime.errors import UserError
from core.runtime.files import atomic_write, fingerprint
from core.runtime.provenance import digest_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}  # the settings' name -> PyTorch's
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}  # the settings' name -> OpenVINO's
RECORD = "record.json"  # in a file of kept networks, beside each of them
# What kept networks depend on beside weights, precisions, processor and the versions of PyTorch and OpenVINO.
CODE = [path for room in ("models", "inference") for path in (Path(__file__).parents[1] / room).glob("*.py")]

Function = Callable[..., tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Parts:
    """Networks that belong together, in PyTorch.

    Attributes:
        networks: name -> a network, and an example of each of its inputs, of whose axes each may have another length
            later. What it does must not depend on its inputs' values, and on their shapes only by PyTorch's own
            operations: it is traced.
        numbers: what else is to be known of them.
    """

    networks: "Mapping[str, tuple[nn.Module, tuple[Tensor, ...]]]"
    numbers: Mapping[str, int]


class Networks(Protocol):
    """Networks that belong together, in evaluation.

    Attributes:
        numbers: what else is to be known of them.
    """

    numbers: Mapping[str, int]

    def function(self, name: str, threads: int | None = None) -> Function:
        """One of them as a function of its inputs, arrays, to its outputs, float32 arrays.

        Args:
            name: of the network.
            threads: on a CPU; by default as many as the variable OMP_NUM_THREADS says, or as there are cores.
        """
        ...


@dataclass(frozen=True)
class Kept:
    """What the file is named by that keeps networks as OpenVINO has compiled them.

    Attributes:
        name: of the networks.
        weights_sha256: of the file of their weights.
        cache: folder for downloads, as `core.download.cache.cache_folder` takes it.
        ranges: by which the inputs of some layers are rounded.
    """

    name: str
    weights_sha256: str
    cache: str | Path | None = None
    ranges: Mapping[str, float] = field(default_factory=dict)

    def file(self, precisions: Mapping[str, str]) -> Path:
        """Its path: named by all that compiled networks depend on."""
        versions = [importlib.metadata.version(package) for package in ("torch", "openvino")]
        code, processor = map(fingerprint, sorted(CODE)), _processor()
        settings = sorted(precisions.items()), sorted(self.ranges.items())
        made_of = digest_of([self.weights_sha256, *settings, *processor, *versions, *code])
        return cache_folder(self.cache) / "networks" / f"{self.name}-{made_of}.zip"


def open_networks(
    make: Callable[[], Parts],
    device: str = "cpu",
    kept: Kept | None = None,
    precisions: Mapping[str, str] = MappingProxyType({}),
) -> Networks:
    """Make networks ready to run, in what is fastest on a device.

    Args:
        make: called where no file of them is kept, and for PyTorch. The networks are not changed, and later changes to
            them have no effect.
        device: where they run, as PyTorch names it.
        kept: names the file that keeps what OpenVINO runs; None for none. One that is damaged is made anew, and where
            it cannot be written nothing is kept.
        precisions: name of a network -> of its products: "bf16", faster where the processor or GPU has it; "int8", in
            OpenVINO, of one made by `core.models.quantized`; "fp32" for those without.
    """
    if not in_openvino(device):
        return _InPyTorch(make(), device, precisions)
    if kept is None:
        return _read(io.BytesIO(_compiled(make(), precisions)))
    path = kept.file(precisions)
    networks = _read(path, path.name)
    if networks is None:
        content = _compiled(make(), precisions, path.name)
        with contextlib.suppress(UserError, OSError), atomic_write(path) as temporary:
            temporary.write_bytes(content)
        networks = _read(io.BytesIO(content), path.name)
    return networks


def in_openvino(device: str) -> bool:
    """Whether networks run in OpenVINO on a device."""
    return device == "cpu" and import_openvino() is not None


def runtime_name(device: str = "cpu") -> str:
    """What `open_networks` runs networks in on a device, with its version, for the settings of results."""
    name = "OpenVINO" if in_openvino(device) else "PyTorch"
    return f"{name} {importlib.metadata.version('openvino' if name == 'OpenVINO' else 'torch').partition('+')[0]}"


def in_pytorch(
    network: "nn.Module", device: "str | torch.device", precision: str = "fp32"
) -> "Callable[..., Tensor | tuple[Tensor, ...]]":
    """A copy of a network as a function of tensors run by PyTorch; later changes to the network have no effect.

    Args:
        network: not changed.
        device: where it runs.
        precision: of the products, "fp32" or "bf16".

    Returns:
        A function of the network's tensors, on any device. Its results, as many as the network's, are float32.
    """
    import copy

    import torch

    device, dtype = torch.device(device), getattr(torch, DTYPES[precision])
    network = copy.deepcopy(network).eval().to(device)

    @torch.inference_mode()
    def run(*inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            outputs = network(*(x.to(device) for x in inputs))
        single = isinstance(outputs, torch.Tensor)
        return outputs.float() if single else tuple(output.float() for output in outputs)

    return run


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
        model = _loaded("onnx", path)
        model.reshape([1, 3, -1, -1])
        run = import_openvino().Core().compile_model(model, "CPU", _options(precision, threads=1))
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


def best_precision(device: str = "cpu") -> str:
    """The precision of products that pays: "bf16" on a CPU that has it, else "fp32"."""
    return "bf16" if device == "cpu" and has_bfloat16() else "fp32"


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers, and OpenVINO is there to make use of it."""
    openvino = import_openvino()
    return openvino is not None and "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _processor() -> list[str]:
    """What compiled networks depend on of the processor."""
    core = import_openvino().Core()
    return [core.get_property("CPU", "FULL_DEVICE_NAME"), *core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")]


@dataclass(frozen=True)
class _InPyTorch:
    parts: Parts
    device: str
    precisions: Mapping[str, str]

    @property
    def numbers(self) -> Mapping[str, int]:
        return self.parts.numbers

    def function(self, name: str, threads: int | None = None) -> Function:
        """See `Networks`; on as many threads as PyTorch uses."""
        import torch

        run = in_pytorch(self.parts.networks[name][0], self.device, self.precisions.get(name, "fp32"))

        def of_arrays(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
            outputs = run(*(torch.from_numpy(np.array(x)) for x in inputs))
            outputs = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
            return tuple(output.cpu().numpy() for output in outputs)

        return of_arrays


@dataclass(frozen=True)
class _InOpenVINO:
    numbers: Mapping[str, int]
    precisions: Mapping[str, str]
    compiled: Mapping[str, bytes]  # by name, in OpenVINO's format

    def function(self, name: str, threads: int | None = None) -> Function:
        """See `Networks`."""
        core = import_openvino().Core()
        run = core.import_model(io.BytesIO(self.compiled[name]), "CPU", _options(self.precisions[name], threads))
        return lambda *inputs: tuple(run(inputs).values())


def _compiled(parts: Parts, precisions: Mapping[str, str], name: str = "") -> bytes:
    """Networks as a file that `_read` reads; `name` is the file's."""
    import torch
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    from core.models.quantized import keep_integers

    core, content = import_openvino().Core(), io.BytesIO()
    precisions = {part: precisions.get(part, "fp32") for part in parts.networks}
    with zipfile.ZipFile(content, "w") as archive:
        for part, (network, example) in parts.networks.items():
            with warnings.catch_warnings(), torch.no_grad():
                # torch.export, which PyTorch recommends instead, takes seconds where tracing takes 0.04 s.
                warnings.simplefilter("ignore")
                traced = torch.jit.trace(_in_evaluation(network), example, check_trace=False)
            decoder = TorchScriptPythonDecoder(traced, shared_memory=False)  # must outlive the conversion
            model = _loaded("pytorch", decoder)
            keep_integers(model)
            compiled = core.compile_model(model, "CPU", _options(precisions[part]))
            archive.writestr(part, compiled.export_model().getvalue())
        archive.writestr(RECORD, json.dumps({"name": name, "precisions": precisions, "numbers": dict(parts.numbers)}))
    return content.getvalue()


def _read(file: Path | io.BytesIO, name: str = "") -> _InOpenVINO | None:
    """The networks in a file; None where it is absent, damaged or not the one of this name."""
    try:
        with zipfile.ZipFile(file) as archive:
            record = json.loads(archive.read(RECORD))
            if record["name"] != name:
                return None
            compiled = {part: archive.read(part) for part in record["precisions"]}  # their checksums are compared
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, KeyError):
        return None
    return _InOpenVINO(record["numbers"], record["precisions"], compiled)


def _in_evaluation(network: "nn.Module") -> "nn.Module":
    import copy

    return copy.deepcopy(network).eval()


def _loaded(framework: str, source: Any) -> Any:
    """A framework's network as a model of OpenVINO's."""
    from openvino.frontend import FrontEndManager

    frontend = FrontEndManager().load_by_framework(framework)
    return frontend.convert(frontend.load(source))


def _options(precision: str, threads: int | None = None) -> dict[str, Any]:
    """Of compiling and importing."""
    given = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return {
        # What is no integer is computed in what is fastest.
        "INFERENCE_PRECISION_HINT": PRECISIONS[best_precision() if precision == "int8" else precision],
        "INFERENCE_NUM_THREADS": threads or (int(given) if given.isdecimal() else 0),  # 0: as there are cores
        "ENABLE_CPU_PINNING": False,  # several processes would share one core
    }


def _in_opencv(network: cv2.dnn.Net) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    names = network.getUnconnectedOutLayersNames()

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        network.setInput(images)
        return dict(zip(names, network.forward(names), strict=True))

    return run
