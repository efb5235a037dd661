"""The networks in the engine give their own numbers, in OpenVINO and without it, and from the file that keeps them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from track_models import track, used

from core.inference import engine
from core.inference.engine import Function, Kept, Parts, open_networks
from core.models import BACKBONES, light_asd, resnet18_two_streams
from core.runtime.errors import UserError


@pytest.fixture(params=["OpenVINO", "PyTorch"])
def runtime(request, monkeypatch) -> str:
    if request.param == "PyTorch":
        monkeypatch.setitem(sys.modules, "openvino", None)  # as where it is not installed
    return request.param


def test_the_runtime_has_a_name(runtime):
    name, _, version = engine.runtime_name().partition(" ")
    assert name == runtime
    assert all(part.isdecimal() for part in version.split("."))
    assert engine.runtime_name("cuda:0").startswith("PyTorch ")
    assert not (runtime == "PyTorch" and engine.has_bfloat16())


def opened(network: torch.nn.Module, faces: torch.Tensor, precision: str = "fp32") -> Function:
    return open_networks(lambda: Parts({"one": (network, (faces,))}, {}), precisions={"one": precision}).function("one")


def test_an_opened_network_gives_its_numbers_for_any_shape(runtime):
    network = used(light_asd()).model.visualEncoder.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run = opened(network, track(1, 3)[1])
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network.eval()
    for batch, time, side in ((1, 1, 16), (2, 9, 20), (1, 30, 112)):
        faces = track(batch, time, side)[1]
        with torch.no_grad():
            expected = network(faces).numpy()
        [found] = run(faces.numpy())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    network.block1.requires_grad_(False).apply(lambda module: [weight.zero_() for weight in module.parameters()])
    np.testing.assert_array_equal(run(faces.numpy())[0], found)  # a copy


def test_bfloat16_is_near_and_returns_float32(runtime):
    network, faces = used(light_asd()).model.visualEncoder, track(1, 20)[1]
    with torch.no_grad():
        expected = network(faces).numpy()
    [found] = opened(network, faces, "bf16")(faces.numpy())
    assert found.dtype == np.float32
    assert (found - expected).std() / expected.std() < 0.05


# ---------------------------------------------------------------- kept networks


class Counted:
    """Makes the parts of a linear layer, and counts how often."""

    def __init__(self) -> None:
        self.layer, self.made = torch.nn.Linear(3, 2), 0

    def __call__(self) -> Parts:
        self.made += 1
        return Parts({"linear": (self.layer, (torch.zeros(1, 3),))}, {"three": 3})

    def through(self, kept: Kept) -> np.ndarray:
        """Its numbers, by networks opened with a file."""
        networks = open_networks(self, kept=kept)
        assert networks.numbers == {"three": 3}
        return networks.function("linear")(np.arange(6, dtype=np.float32).reshape(2, 3))[0]


def test_a_kept_network_is_not_made_again_and_gives_the_same_bits(tmp_path):
    make, kept = Counted(), Kept("linear", "0" * 64, tmp_path)
    first = make.through(kept)
    expected = make.layer(torch.arange(6.0).view(2, 3)).detach().numpy()
    np.testing.assert_allclose(first, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(make.through(kept), first)
    assert make.made == 1
    assert [path.parent.parent for path in tmp_path.rglob("*.zip")] == [tmp_path]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "text", "another's", "removed"])
def test_a_damaged_or_foreign_file_is_made_anew(tmp_path, damage):
    make, kept = Counted(), Kept("linear", "0" * 64, tmp_path)
    first = make.through(kept)
    path, other = kept.file({}), Kept("other", "1" * 64, tmp_path)
    Counted().through(other)
    content = path.read_bytes()
    weight = content.index(make.layer.weight.detach().numpy().tobytes())
    path.write_bytes(
        {
            "flipped": content[:weight] + bytes([content[weight] ^ 1]) + content[weight + 1 :],
            "cut": content[: len(content) // 2],
            "empty": b"",
            "text": b"not an archive",
            "another's": other.file({}).read_bytes(),
        }.get(damage, b"")
    )
    if damage == "removed":
        path.unlink()
    for times_made in (2, 2):
        np.testing.assert_array_equal(make.through(kept), first)
        assert make.made == times_made


def test_where_nothing_can_be_kept_networks_are_made_each_time(tmp_path):
    make = Counted()
    (tmp_path / "networks").write_text("a file where the folder would be")
    kept = Kept("linear", "0" * 64, tmp_path)
    np.testing.assert_array_equal(make.through(kept), make.through(kept))
    assert make.made == 2


def test_the_name_of_a_kept_file_says_all_that_it_depends_on(tmp_path, monkeypatch):
    code = tmp_path / "code.py"
    code.write_text("a network")
    monkeypatch.setattr(engine, "CODE", [code])
    one = Kept("one", "0" * 64, tmp_path)
    names = [one.file({}), one.file({"linear": "bf16"}), one.file({"linear": "fp32"})]
    names += [Kept("two", "0" * 64, tmp_path).file({}), Kept("one", "1" * 64, tmp_path).file({})]
    names += [Kept("one", "0" * 64, tmp_path, {"layer": greatest}).file({}) for greatest in (1.0, 1.5)]
    code.write_text("another network")
    names.append(one.file({}))
    monkeypatch.setattr(engine, "_processor", lambda: ["another one"])
    names.append(one.file({}))
    versions = {"torch": "2.0", "openvino": "2000.1"}
    monkeypatch.setattr(engine.importlib.metadata, "version", versions.__getitem__)
    for package in versions:
        names.append(one.file({}))
        versions[package] += ".1"
    names.append(one.file({}))
    assert len(set(names)) == 12


# ---------------------------------------------------------------- others


@pytest.mark.parametrize("name", ["resnet18_two_streams", "resnet50_two_streams"])
def test_two_streams_in_pytorch(name):
    model = used(BACKBONES[name](rgb_stack_size=3))
    audio, video = torch.randn(2, 1, 13, 12), torch.randn(2, 9, 64, 64)
    with torch.inference_mode():
        expected = model(audio, video)
    run = engine.in_pytorch(model.train(), "cpu")
    assert model.training
    for layout in (video, video.to(memory_format=torch.channels_last)):
        for output, reference in zip(run(audio, layout), expected, strict=True):
            torch.testing.assert_close(output, reference, rtol=0, atol=1e-3 * max(1, reference.std().item()))
    features = engine.in_pytorch(model, "cpu", "bf16")(audio, video)[3]
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
    for precision, tolerance in (("fp32", 0.01), ("bf16", 0.05)):
        features = engine.in_pytorch(model, device, precision)(audio, video)[3].cpu().numpy()
        assert np.std(features - expected) / np.std(expected) < tolerance
