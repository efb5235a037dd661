"""Networks as files: what onnxruntime and OpenVINO compute is what PyTorch does, and what is not so is not written."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock
from track_models import used

from core.download.weights_catalogue import SHIPPED_CONTEXTS
from core.export import networks
from core.export.networks import Array, Network
from core.inference.engine import import_openvino
from core.models import ASC_Net, ResidualContext, TrackEncoder, TwoStreamResNet, light_asd, lr_asd
from core.models.residual_context import CUES
from core.runtime.errors import UserError
from core.runtime.files import fingerprint
from scripts import export as script

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra: pip install -e '.[export]'")
from core.export import files, quantized  # noqa: E402

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "examples" / "score_as_it_comes.py"
PARTS = ("", "_audio", "_visual", "_forward", "_backward")
LENGTHS = {"batch": 2, "time": 33, "face": 4, "height": 70, "width": 90}  # neither traced nor checked by the command


class Fickle(nn.Module):
    """Computes something else once it is exported."""

    def __init__(self, added: float):
        super().__init__()
        self.added = added

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.added * torch.compiler.is_exporting()


class Mean(nn.Module):
    """The brightness of faces, (batch, time)."""

    def forward(self, faces: torch.Tensor) -> torch.Tensor:
        return faces.float().mean(dim=(2, 3))


def opened(path: Path) -> files.Run:
    """A file as a function of its inputs by name, in the runtime that it is for."""
    return files.in_onnxruntime(str(path)) if path.suffix == ".onnx" else files.in_openvino(str(path))


def metadata(path: Path) -> dict[str, str]:
    return onnxruntime.InferenceSession(str(path)).get_modelmeta().custom_metadata_map


def drawn(network: Network) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {array.name: array.drawn(LENGTHS, generator) for array in network.inputs}


@pytest.fixture(scope="module")
def model() -> TrackEncoder:
    torch.manual_seed(0)
    return used(light_asd())


@pytest.fixture(scope="module")
def weights(model: TrackEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights, in a file of one's own."""
    path = tmp_path_factory.mktemp("weights") / "12.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def written(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the command has written them."""
    folder = tmp_path_factory.mktemp("exported")
    with pytest.raises(SystemExit) as end:
        script.main(["light_asd", "--weights", str(weights), "--out", str(folder), "--crop", "lower_face"])
    assert not end.value.code
    return folder


def test_a_whole_track_encoder_becomes_five_files(written):
    assert {path.name for path in written.iterdir()} == {f"light_asd{part}.onnx" for part in PARTS}


def test_a_file_says_what_it_is_made_of_and_what_it_reads(written, weights):
    told = metadata(written / "light_asd.onnx")
    assert told["weights"] == "12.pth"
    assert told["weights_sha256"] == fingerprint(weights)
    preparation = json.loads(told["preparation"])
    assert preparation["faces"]["crop"] == "lower_face"
    mfcc = preparation["mfcc"]
    assert (mfcc["sample_rate"], mfcc["window"], mfcc["step"], mfcc["windows_per_frame"]) == (16000, 400, 160, 4)
    inputs = json.loads(told["inputs"])
    assert inputs["faces"]["axes"] == ["batch", "time", 112, 112]
    session = onnxruntime.InferenceSession(str(written / "light_asd.onnx"))
    shapes = {value.name: value.shape for value in session.get_inputs()}
    assert shapes == {"mfcc": ["batch", "4 * time", 13], "faces": ["batch", "time", 112, 112]}
    assert b"/core/models" not in (written / "light_asd.onnx").read_bytes()


def test_the_file_of_whole_tracks_gives_the_scores_of_the_network(written, model):
    [whole, *_] = networks.track_encoder("light_asd", model, "box", {})
    inputs = drawn(whole)
    found = opened(written / "light_asd.onnx")({name: value.numpy() for name, value in inputs.items()})
    for one, expected in zip(found, whole.run(inputs), strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-4)


def test_the_parts_give_the_scores_of_the_whole_block_by_block(written, model):
    run = {part: opened(written / f"light_asd{part}.onnx") for part in PARTS}
    [whole, *_] = networks.track_encoder("light_asd", model, "box", {})
    inputs = {name: value.numpy() for name, value in drawn(whole).items()}
    [audio], [visual, video_logits] = run["_audio"](inputs), run["_visual"](inputs)
    blocks = [slice(0, 10), slice(10, 33)]
    state, forward = np.zeros((1, 2, 128), np.float32), []
    for block in blocks:
        output, state = run["_forward"]({"audio": audio[:, block], "visual": visual[:, block], "state": state})
        forward.append(output)
    state, logits = np.zeros((1, 2, 128), np.float32), []
    for block, output in reversed([*zip(blocks, forward, strict=True)]):
        embedded = {"audio": audio[:, block], "visual": visual[:, block]}
        scores, _, state = run["_backward"]({**embedded, "forward": output, "state": state})
        logits.insert(0, scores)
    expected_logits, expected_video_logits, _ = run[""](inputs)
    np.testing.assert_allclose(np.concatenate(logits, axis=1), expected_logits, atol=1e-4)
    np.testing.assert_allclose(video_logits, expected_video_logits, atol=1e-4)


def test_the_example_scores_a_track_that_goes_on_as_one_that_ends_there(written):
    live = runpy.run_path(str(EXAMPLE))["LiveTrack"](written, "light_asd", delay=4)
    whole = opened(written / "light_asd.onnx")
    rng = np.random.default_rng(0)
    faces = rng.integers(0, 256, (40, 112, 112), dtype=np.uint8)
    mfcc = 5 * rng.standard_normal((160, 13)).astype(np.float32)
    scores = []
    for end in (3, 4, 9, 20, 24, 40):  # few, one, and more than are kept
        begin = live.count
        scores += live.push(faces[begin:end], mfcc[4 * begin : 4 * end]).tolist()
        assert len(scores) == max(0, end - 4)
        logits = whole({"faces": faces[None, :end], "mfcc": mfcc[None, : 4 * end]})[0][0]
        due = slice(max(0, begin - 4), max(0, end - 4))
        np.testing.assert_allclose(scores[due], (logits[:, 1] - logits[:, 0])[due], atol=1e-4)
    assert len(live.faces) <= 12  # what an embedding depends on


@pytest.mark.parametrize(
    ("made", "form"),
    [
        (lambda: networks.track_encoder("lr_asd", used(lr_asd()), "box", {})[3], "onnx"),
        (lambda: networks.track_encoder("lr_asd", used(lr_asd()), "box", {})[4], "onnx"),
        (lambda: networks.residual_context(used(ResidualContext(members=1)), {})[0], "onnx"),
        (lambda: networks.published_context(used(ASC_Net(3, 2, feature_size=16)), (3, 4, 2), {})[0], "onnx"),
        (lambda: networks.two_streams("r", used(TwoStreamResNet(BasicBlock, [1] * 4, 3)), {})[0], "openvino"),
    ],
    ids=["lr_asd_forward", "lr_asd_backward", "residual", "ASC_Net", "two_streams"],
)
def test_a_file_gives_what_pytorch_does_at_other_lengths(made, form, tmp_path):
    network = made()
    for layer in network.module.modules():  # the corrections of a fresh residual network are none
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.2)
    path, differences = files.export(network, tmp_path, form)
    assert set(differences) == {"OpenVINO"} | ({"onnxruntime"} if form == "onnx" else set())
    assert max(differences.values()) <= 1e-4
    inputs = drawn(network)
    found = opened(path)({name: value.numpy() for name, value in inputs.items()})
    for one, expected in zip(found, network.run(inputs), strict=True):
        np.testing.assert_allclose(one, expected, atol=1e-4)


def test_openvino_keeps_the_metadata(tmp_path):
    arrays = (Array("x", ("batch", "time"), "Numbers."),), (Array("y", ("batch", "time"), "Numbers."),)
    path, _ = files.export(Network("sum", Fickle(0), *arrays, {"licence": 'A "licence"'}), tmp_path, "openvino")
    assert {path.name for path in tmp_path.iterdir()} == {"sum.xml", "sum.bin"}
    told = import_openvino().Core().read_model(path)
    assert told.get_rt_info(["framework", "licence"]).astype(str) == 'A "licence"'


@pytest.mark.parametrize("form", networks.FORMATS)
def test_a_file_that_does_not_agree_is_not_written(form, tmp_path):
    arrays = (Array("x", ("batch", "time"), "Numbers."),), (Array("y", ("batch", "time"), "Numbers."),)
    with pytest.raises(UserError, match=r"y of .* 0\.001"):
        files.export(Network("fickle", Fickle(0.001), *arrays), tmp_path, form)
    assert not list(tmp_path.iterdir())


def test_in_8_bit_integers_a_file_is_small_and_nearly_the_same(model, written, tmp_path, monkeypatch):
    monkeypatch.setattr(quantized, "SCENES", 2)
    [_, _, visual, *_] = networks.track_encoder("light_asd", model, "box", {"weights": "12.pth"})
    path, differences = files.export(visual, tmp_path, "onnx", int8=True)
    assert path.name == "light_asd_visual_int8.onnx"
    assert path.stat().st_size < 0.35 * (written / "light_asd_visual.onnx").stat().st_size
    assert metadata(path)["weights"] == "12.pth"
    assert 0 < min(differences.values()) <= max(differences.values()) <= 0.1


@pytest.mark.parametrize(("error", "refused"), [(0.05, False), (0.2, True)])
def test_8_bit_integers_must_give_nearly_the_same(error, refused, monkeypatch):
    monkeypatch.setattr(quantized, "SCENES", 1)
    arrays = (Array("faces", ("batch", "time", 112, 112), "", "uint8"),), (Array("y", ("batch", "time"), ""),)
    network = Network("mean", Mean(), *arrays)
    means = torch.cat([network.module(inputs["faces"]) for inputs in quantized.with_drawn_faces(network, "val")], dim=1)

    def run(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        [values] = network.run({"faces": torch.from_numpy(inputs["faces"])})
        return [values + error * means.std(correction=0).item()]

    if refused:
        with pytest.raises(UserError, match="--int8"):
            files.nearly(network, run, "onnxruntime")
    else:
        assert files.nearly(network, run, "onnxruntime") == pytest.approx(error, rel=1e-3)


def test_the_shipped_context_network_is_known_by_the_name_of_its_encoder():
    [network] = script.context("lr_asd", (11, 4, 3))
    record = json.loads((SHIPPED_CONTEXTS / "lr_asd.json").read_text())
    assert network.about["weights_sha256"] == record["sha256"]
    assert network.about["encoder_sha256"] == record["encoder_sha256"]
    assert network.about["weights_licence"] == "MIT"
    assert network.inputs[0].axes == ("batch", "face", "time", len(CUES))
    assert tuple(network.about["cues"]) == CUES


def test_a_checkpoint_of_the_published_context_network_has_its_own_feature_size(tmp_path):
    torch.save(ASC_Net(5, 2, feature_size=16).state_dict(), tmp_path / "15.pth")
    [network] = script.context(str(tmp_path / "15.pth"), (5, 4, 2))
    assert network.inputs[0].axes == ("batch", 16, 5, 2)
    with pytest.raises(UserError, match="10 rows"):
        script.context(str(tmp_path / "15.pth"), (11, 4, 3))


@pytest.mark.parametrize(
    "arguments",
    [
        ("resnet18_two_streams",),  # no published weights
        ("resnet18_two_streams", "--weights", str(SHIPPED_CONTEXTS / "lr_asd.pth")),
        ("light_asd", "--weights", "absent.pth"),
        ("light_asd", "--weights", str(SHIPPED_CONTEXTS / "lr_asd.pth")),
        ("context", "--weights", "absent.pth"),
        ("context", "--int8"),
    ],
)
def test_wrong_weights_are_refused_before_anything_is_written(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        script.main([*arguments, "--out", str(tmp_path / "out")])
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_without_the_extra_the_command_names_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.delitem(sys.modules, "core.export.files")
    with pytest.raises(SystemExit) as end:
        script.main(["context", "--out", str(tmp_path)])
    assert end.value.code == 2
    assert "[export]" in capsys.readouterr().err
