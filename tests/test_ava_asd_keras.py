"""Keras files: the published outputs, every layout of the file, and what is refused.

fixtures/published_keras.npz holds the softmax outputs of the published networks in TensorFlow 2.21 (Keras 3.15), with
the weights of `hash_weights` ("<mode>.weights" lists them) and the seeded inputs that the test draws.
"""

import itertools
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from keras_files import hash_weights, write_keras, write_keras3

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
    made = {mode: (models.StaticNetwork(mode, video_shape=VIDEO), folder / f"{mode}.hdf5") for mode in models.MODES}
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


def assert_loads(path: Path, expected: models.StaticNetwork) -> None:
    loaded = models.StaticNetwork(expected.mode, video_shape=VIDEO)
    models.load_weights(loaded, path)
    for name, value in expected.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name


@pytest.mark.parametrize("mode", models.MODES)
def test_the_published_outputs_through_a_written_file(mode, published, tmp_path):
    write_keras(tmp_path / "weights.hdf5", hash_weights(published[f"{mode}.weights"]))
    random = np.random.default_rng(int(published["seed"]))
    audio = random.standard_normal((2, *published["audio_shape"])).astype(np.float32)
    video = random.random((2, *published["video_shape"])).astype(np.float32)
    model = models.StaticNetwork(mode).eval()
    models.load_weights(model, tmp_path / "weights.hdf5")
    with torch.no_grad():
        logits = model(*(torch.from_numpy(np.moveaxis(array, -1, 1)) for array in (audio, video)))
    assert len(logits) == len(model.outputs)
    for position, output in enumerate(logits):
        expected = torch.from_numpy(published[f"{mode}.{position}"])
        torch.testing.assert_close(torch.softmax(output, dim=1), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", models.MODES)
def test_every_mode_in_both_layouts(mode, networks, tmp_path):
    model, path = networks[mode]
    assert_loads(path, model)
    write_keras3(tmp_path / "of_keras3.weights.h5", {"in": {}, **keras_layers(model)})
    assert_loads(tmp_path / "of_keras3.weights.h5", model)


@pytest.mark.parametrize(
    ("name", "layout"),
    [("w.h5", {"suffix": ""}), ("w.h5", {"whole_model": True}), ("w.h5", {"text": str}), ("w.bin", {})],
    ids=["newer", "model", "text", "known by its content"],
)
def test_other_layouts_of_the_file(name, layout, networks, tmp_path):
    model, _ = networks["s_a"]
    write_keras(tmp_path / name, {"a_in": {}, **keras_layers(model), "flatten": {}}, **layout)
    assert_loads(tmp_path / name, model)


def test_axes_of_kernels(tmp_path):
    flat, image, clip = np.random.rand(7, 2), np.random.rand(3, 4, 5, 6), np.random.rand(1, 3, 4, 5, 6)
    layers = {"main_out": {"kernel": flat}, "s_a_conv6": {"kernel": image}, "s_av_v_conv1": {"kernel": clip}}
    write_keras(tmp_path / "x.hdf5", layers)
    weights = read_keras(tmp_path / "x.hdf5")
    assert weights["main_out.weight"][1, 3] == np.float32(flat[3, 1])
    assert weights["audio.conv6.weight"][5, 4, 2, 3] == np.float32(image[2, 3, 4, 5])
    assert weights["video.conv1.weight"][5, 4, 0, 2, 3] == np.float32(clip[0, 2, 3, 4, 5])


@pytest.mark.parametrize(("given", "asked"), itertools.permutations(models.MODES, 2))
def test_weights_of_another_mode(given, asked, networks):
    with pytest.raises(UserError, match=rf"weights of mode {given}, and the network is of mode {asked}"):
        models.load_weights(networks[asked][0], networks[given][1])


def test_a_layer_less_and_one_more(networks, tmp_path):
    model, _ = networks["s_a"]
    layers = keras_layers(model)
    layers["lstm"] = {"bias": layers["s_a_conv3"].pop("bias")}
    write_keras(tmp_path / "weights.hdf5", layers)
    with pytest.raises(UserError, match=r"lacks audio.conv3.bias.* lstm.bias"):
        models.load_weights(model, tmp_path / "weights.hdf5")


def of_huge_size(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["s_a_conv3/s_a_conv3/bias:0"]
        file.create_dataset("s_a_conv3/s_a_conv3/bias:0", shape=[2**40], dtype="f4", chunks=True)  # empty


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_layers(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["numbers"] = np.zeros(3)


def numbered_layers(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file.attrs["layer_names"] = 3


def of_early_keras3(path: Path) -> None:
    write_keras3(path, {"s_a_conv1": {"kernel": np.zeros((3, 3, 1, 4))}}, named=False)


def of_another_type(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"layer_names") + 17] = 255  # HDF5 1.14 dies of a segmentation fault
    path.write_bytes(content)


def bias(value: object, inside: str = ""):
    """Something else in place of a layer's bias; `inside` makes it a group that holds this."""

    def damage(path: Path) -> None:
        with h5py.File(path, "a") as file:
            del file["s_a_conv3/s_a_conv3/bias:0"]
            file[f"s_a_conv3/s_a_conv3/bias:0{inside}"] = value

    return damage


@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        (Path.unlink, "no such file"),
        (lambda path: path.write_text("<html>not found</html>"), "cannot be read as Keras HDF5 weights"),
        (cut, "cut short"),
        (without_layers, "layer_names"),
        (of_early_keras3, "Keras 3.6"),
        (of_huge_size, "claims 4,398,046,511,104 bytes"),
        (numbered_layers, "cannot be read as Keras HDF5 weights"),
        (of_another_type, "cannot be read as Keras HDF5 weights"),
        (bias(0.0, inside="/part"), "bias:0"),
        (bias("text"), "bias:0"),
        (bias(np.zeros(256, int)), "bias:0"),
        (bias(h5py.Empty("f4")), "cannot be read as Keras HDF5 weights"),
    ],
)
def test_files_that_are_no_keras_weights(damage, fact, networks, tmp_path):
    model, whole = networks["s_a"]
    path = tmp_path / "weights.h5"
    path.write_bytes(whole.read_bytes())
    damage(path)
    with pytest.raises(UserError) as refused:
        models.load_weights(model, path)
    assert str(path) in str(refused.value)
    assert fact in str(refused.value)


def test_a_file_that_the_library_reads_for_ever(networks, tmp_path):
    """A heap of zeros: HDF5 1.14 goes from object to object in steps of none."""
    content = bytearray(networks["s_a"][1].read_bytes())
    heap = content.index(b"GCOL") + 16
    content[heap : heap + 4080] = bytes(4080)
    path = tmp_path / "weights.h5"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path}.* in 2 s"):
        read_keras(path, limit_s=2)
