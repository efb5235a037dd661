"""Keras files: the published outputs, every layout of the file, and what each refusal says.

fixtures/published_keras.npz holds the softmax outputs of the published networks in TensorFlow 2.21 (Keras 3.15), with
the weights of `hash_weights` ("<mode>.weights" lists them) and the seeded inputs that the test draws.
"""

import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from keras_files import hash_weights, write_keras

from ava_asd import models
from ava_asd.keras_weights import read_keras
from core.runtime.errors import UserError

VIDEO = (1, 2, 9, 9)  # small enough for tests of names and shapes


@pytest.fixture(scope="module")
def published():
    return np.load(Path(__file__).parent / "fixtures" / "published_keras.npz")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Mode -> a network with random weights, and a Keras file of them."""
    folder = tmp_path_factory.mktemp("keras")
    made = {mode: (models.build(mode, video_shape=VIDEO), folder / f"{mode}.hdf5") for mode in models.MODES}
    for model, path in made.values():
        write_keras(path, {"in": {}, **keras_layers(model)})
    return made


def keras_layers(model: models.StaticNetwork) -> dict[str, dict[str, np.ndarray]]:
    """A model's weights under their Keras names and in Keras' order of axes, by another way than the loader's."""
    prefix = {"s_a": "s_", "s_v": "s_"}.get(model.mode, "s_av_")
    layers = {}
    for name, tensor in model.state_dict().items():
        *module, kind = name.replace("audio.", f"{prefix}a_").replace("video.", f"{prefix}v_").split(".")
        layer = "s_av_fc1" if module == ["fc1"] else module[0]
        axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0), 5: (2, 3, 4, 1, 0)}[tensor.ndim]
        layers.setdefault(layer, {})["kernel" if kind == "weight" else kind] = tensor.permute(axes).numpy()
    return layers


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.mark.parametrize("mode", models.MODES)
def test_the_published_outputs_through_a_written_file(mode, published, tmp_path):
    write_keras(tmp_path / "weights.hdf5", hash_weights(published[f"{mode}.weights"]))
    random = np.random.default_rng(int(published["seed"]))
    audio = random.standard_normal((2, *published["audio_shape"])).astype(np.float32)
    video = random.random((2, *published["video_shape"])).astype(np.float32)
    model = models.build(mode).eval()
    models.load_weights(model, tmp_path / "weights.hdf5")
    with torch.no_grad():
        logits = model.logits(*(torch.from_numpy(np.moveaxis(array, -1, 1)) for array in (audio, video)))
    assert len(logits) == len(model.outputs)
    for place, output in enumerate(logits):
        expected = torch.from_numpy(published[f"{mode}.{place}"])
        torch.testing.assert_close(torch.softmax(output, dim=1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "layout", [{"suffix": ""}, {"whole_model": True}, {"text": str}], ids=["newer", "model", "text"]
)
def test_other_layouts_of_the_file(layout, networks, tmp_path):
    model, _ = networks["s_a"]
    write_keras(tmp_path / "weights.h5", {"a_in": {}, **keras_layers(model), "flatten": {}}, **layout)
    assert_same(read_keras(tmp_path / "weights.h5"), model.state_dict())


def test_a_file_is_known_by_its_content(networks, tmp_path):
    model, path = networks["s_a"]
    (tmp_path / "weights.bin").write_bytes(path.read_bytes())
    loaded = models.build("s_a")
    models.load_weights(loaded, tmp_path / "weights.bin")
    assert torch.equal(loaded.main_out.weight, model.main_out.weight)


def test_axes_of_kernels(tmp_path):
    flat, picture, clip = np.random.rand(7, 2), np.random.rand(3, 4, 5, 6), np.random.rand(1, 3, 4, 5, 6)
    layers = {"main_out": {"kernel": flat}, "s_a_conv6": {"kernel": picture}, "s_av_v_conv1": {"kernel": clip}}
    write_keras(tmp_path / "x.hdf5", layers)
    weights = read_keras(tmp_path / "x.hdf5")
    assert weights["main_out.weight"][1, 3] == np.float32(flat[3, 1])
    assert weights["audio.conv6.weight"][5, 4, 2, 3] == np.float32(picture[2, 3, 4, 5])
    assert weights["video.conv1.weight"][5, 4, 0, 2, 3] == np.float32(clip[0, 2, 3, 4, 5])


@pytest.mark.parametrize("mode", models.MODES)
def test_every_mode(mode, networks):
    model, path = networks[mode]
    loaded = models.build(mode, video_shape=VIDEO)
    models.load_weights(loaded, path)
    assert_same(loaded.state_dict(), model.state_dict())


@pytest.mark.parametrize(("given", "asked"), itertools.permutations(models.MODES, 2))
def test_weights_of_another_mode(given, asked, networks):
    with pytest.raises(UserError, match=rf"weights of mode {given}, and the network is of mode {asked}"):
        models.load_weights(networks[asked][0], networks[given][1])


def test_weights_of_another_shape(networks):
    _, path = networks["s_v"]
    model = models.build("s_v", video_shape=(3, *VIDEO[1:]))
    with pytest.raises(UserError, match=r"video.conv1.weight is \(96, 1, 5, 7, 7\), not \(96, 3, 5, 7, 7\)"):
        models.load_weights(model, path)


def test_a_layer_less_and_one_more(networks, tmp_path):
    path = tmp_path / "weights.hdf5"
    model, _ = networks["s_a"]
    layers = keras_layers(model)
    bias = layers["s_a_conv3"].pop("bias")
    layers["lstm"] = {"bias": bias}
    write_keras(path, layers)
    with pytest.raises(UserError, match=r"lacks audio.conv3.bias, and it has lstm.bias besides"):
        models.load_weights(model, path)


def test_files_that_are_no_keras_weights(networks, tmp_path):
    model, _ = networks["s_a"]
    with pytest.raises(UserError, match="no such file"):
        models.load_weights(model, tmp_path / "absent.hdf5")
    (tmp_path / "page.hdf5").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="cannot be read as Keras HDF5 weights"):
        models.load_weights(model, tmp_path / "page.hdf5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["numbers"] = np.zeros(3)
    with pytest.raises(UserError, match=r"cannot be read as Keras HDF5 weights .*layer_names"):
        models.load_weights(model, tmp_path / "other.h5")


@pytest.mark.parametrize("content", ["group", "text", "whole numbers", "nothing"])
def test_a_weight_that_is_none(content, networks, tmp_path):
    model, path = networks["s_a"]
    (tmp_path / "x.h5").write_bytes(path.read_bytes())
    name = "s_a_conv3/bias:0"
    with h5py.File(tmp_path / "x.h5", "a") as file:
        layer = file["s_a_conv3"]
        size = layer[name].shape
        del layer[name]
        if content == "group":
            layer.create_group(name)
        else:
            layer[name] = {"text": "bias", "whole numbers": np.zeros(size, int), "nothing": h5py.Empty("f4")}[content]
    with pytest.raises(UserError, match=r"x\.h5: it cannot be read as Keras HDF5 weights"):
        models.load_weights(model, tmp_path / "x.h5")


def test_names_that_are_no_list(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["layer_names"] = 3
    with pytest.raises(UserError, match="cannot be read as Keras HDF5 weights"):
        read_keras(tmp_path / "x.h5")


def test_a_file_cut_short(networks, tmp_path):
    model, whole = networks["s_a"]
    path = tmp_path / "weights.hdf5"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UserError, match="cut short"):
        models.load_weights(model, path)
