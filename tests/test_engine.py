"""The networks in the engine give their own numbers, in OpenVINO and without it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from track_models import track, used

from core.inference import engine
from core.models import BACKBONES, light_asd, resnet18_two_streams
from core.runtime.errors import UserError

CPU = torch.device("cpu")


@pytest.fixture(params=["OpenVINO", "PyTorch"])
def runtime(request, monkeypatch) -> str:
    if request.param == "PyTorch":
        monkeypatch.setitem(sys.modules, "openvino", None)  # as where it is not installed
    return request.param


def test_the_runtime_has_a_name(runtime):
    name, _, version = engine.runtime_name(CPU).partition(" ")
    assert name == runtime
    assert all(part.isdecimal() for part in version.split("."))
    assert engine.runtime_name(torch.device("cuda:0")).startswith("PyTorch ")
    assert not (runtime == "PyTorch" and engine.has_bfloat16())


def test_a_compiled_network_gives_its_numbers_for_any_shape(runtime):
    network = used(light_asd()).model.visualEncoder.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run = engine.compiled(network, track(1, 3)[1], CPU)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.eval()
    for batch, time, side in ((1, 1, 16), (2, 9, 20), (1, 30, 112)):
        faces = track(batch, time, side)[1]
        with torch.no_grad():
            expected = network(faces)
        found = run(faces)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
    network.block1.requires_grad_(False).apply(lambda module: [weight.zero_() for weight in module.parameters()])
    assert torch.equal(run(faces), found)  # a copy


def test_bfloat16_is_near_and_returns_float32(runtime):
    network, faces = used(light_asd()).model.visualEncoder, track(1, 20)[1]
    with torch.no_grad():
        expected = network(faces)
    found = engine.compiled(network, faces, CPU, torch.bfloat16)(faces)
    assert found.dtype == torch.float32
    assert (found - expected).std() / expected.std() < 0.05


@pytest.mark.parametrize("name", ["resnet18_two_streams", "resnet50_two_streams"])
def test_two_streams_in_pytorch(name):
    model = used(BACKBONES[name](rgb_stack_size=3))
    audio, video = torch.randn(2, 1, 13, 12), torch.randn(2, 9, 64, 64)
    with torch.inference_mode():
        expected = model(audio, video)
    run = engine.in_pytorch(model.train(), CPU)
    assert model.training
    for layout in (video, video.to(memory_format=torch.channels_last)):
        for output, reference in zip(run(audio, layout), expected, strict=True):
            torch.testing.assert_close(output, reference, rtol=0, atol=1e-3 * max(1, reference.std().item()))
    features = engine.in_pytorch(model, CPU, torch.bfloat16)(audio, video)[3]
    assert features.dtype == torch.float32
    assert 0 < (features - expected[3]).std() / expected[3].std() < 0.05


def test_another_file_is_no_onnx_network(runtime, tmp_path):
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"broken\.onnx"):
        engine.onnx_network(tmp_path / "broken.onnx")


def test_openvino_does_not_report_its_use(tmp_path):
    """Its telemetry keeps an identifier in the user's home folder."""
    script = "from core.inference import engine; print(engine.import_openvino().__name__)"
    environment = {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[1])}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout == "openvino\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu():
    model, device = used(resnet18_two_streams(rgb_stack_size=1)), torch.device("cuda")
    audio, video = torch.randn(2, 1, 13, 8), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(audio, video)[3].numpy()
    for dtype, tolerance in ((torch.float32, 0.01), (torch.bfloat16, 0.05)):
        features = engine.in_pytorch(model, device, dtype)(audio, video)[3].cpu().numpy()
        assert np.std(features - expected) / np.std(expected) < tolerance
