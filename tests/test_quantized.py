"""8 bit integers: what is rounded, to what, and that OpenVINO keeps the integers; the ranges that are shipped."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import exit_status
from torch import nn
from track_models import PUBLISHED, needs_integers, track, used

from core.download.weights_catalogue import INT8_RANGES, WEIGHTS
from core.inference.engine import Parts, open_networks
from core.models import TRACK_ENCODERS, light_asd
from core.models.quantized import Rounded, input_ranges, quantized
from core.models.weights import load_weights
from scripts import calibrate


def test_numbers_are_rounded_to_256():
    values = Rounded(51.0)(torch.tensor([-3.0, 0.0, 0.09, 0.11, 17.34, 50.99, 51.0, 400.0]))
    torch.testing.assert_close(values, torch.tensor([0.0, 0.0, 0.0, 0.2, 17.4, 51.0, 51.0, 51.0]))


def test_a_convolution_has_rounded_weights_channel_by_channel():
    network = nn.Sequential(nn.Conv3d(2, 3, 3, bias=False), nn.ReLU(), nn.Conv3d(3, 4, 3, bias=False))
    network[2].weight.data[1] *= 100
    network[2].weight.data[3] = 0
    before = [layer.weight.clone() for layer in (network[0], network[2])]
    rounded = quantized(network, {"2": 1.0})
    assert torch.equal(rounded[0].weight, before[0])
    assert torch.equal(network[2].weight, before[1])
    weight = rounded[2][1].weight.detach()
    steps = before[1].detach().abs().amax(dim=(1, 2, 3, 4)) / 64
    for channel in range(3):
        integers = weight[channel] / steps[channel]
        torch.testing.assert_close(integers, integers.round(), rtol=0, atol=1e-3)
        assert 0 < (weight[channel] - before[1][channel]).abs().max() <= 0.501 * steps[channel]
    assert (weight[3] == 0).all()


def test_ranges_are_the_greatest_inputs_of_all_but_the_first_convolutions():
    network = used(light_asd()).model.visualEncoder
    one, two = track(1, 4)[1], track(1, 9)[1]
    ranges, of_one, of_two = (input_ranges(network, tracks) for tracks in ([one, two], [one], [two]))
    assert set(ranges) == {
        f"block{block}.{name}"
        for block in (1, 2, 3)
        for name in ("s_3", "s_5", "t_3", "t_5", "last")
        if (block, name[0]) != (1, "s")
    }
    assert ranges == {name: max(of_one[name], of_two[name]) for name in ranges}
    with torch.inference_mode():
        maps = network.pool(network.block1(((two.float() / 255 - 0.4161) / 0.1688).unsqueeze(1)))
    assert of_two["block2.s_3"] == of_two["block2.s_5"] == pytest.approx(maps.max().item(), rel=1e-5)


@pytest.mark.parametrize("key", ["light_asd_ava", "lr_asd_ava"])
def test_the_shipped_ranges_change_published_encoders_little(key: str, shared: Path):
    encoder, _, weights = key.rpartition("_")
    record = json.loads(INT8_RANGES.read_text())["weights"][f"{encoder}/{weights}"]
    assert record["sha256"] == WEIGHTS[encoder][weights].file.sha256
    model = TRACK_ENCODERS[encoder]()
    load_weights(model, shared / "models" / PUBLISHED[key])
    network, reference = model.eval().model.visualEncoder, np.load(shared / "reference" / "encoders.npz")
    with torch.inference_mode():
        found = quantized(network, record["ranges"])(torch.from_numpy(reference["faces"][None]))[0].numpy()
    expected = reference[f"{key}.visual_embedding"]
    assert 0.006 < (found - expected).std() / expected.std() < 0.04


@needs_integers
def test_openvino_keeps_integers():
    """A file of them is a quarter as large; and what it computes is what PyTorch does with rounded numbers."""
    network, faces = used(light_asd()).model.visualEncoder, track(1, 20)[1]
    rounded = quantized(network, input_ranges(network, [faces]))
    opened = {
        precision: open_networks(lambda one=one: Parts({"one": (one, (faces,))}, {}), precisions={"one": precision})
        for precision, one in (("fp32", network), ("int8", rounded))
    }
    assert len(opened["int8"].compiled["one"]) < 0.5 * len(opened["fp32"].compiled["one"])
    with torch.inference_mode():
        expected = rounded(faces).numpy()
    [found] = opened["int8"].function("one")(faces.numpy())
    assert (found - expected).std() / expected.std() < 0.05


@needs_integers
def test_the_greatest_sums_are_not_cut_off():
    """Processors without instructions for it add two products at a time in 16 bits."""
    network = nn.Sequential(nn.Conv3d(1, 16, 1), nn.ReLU(), nn.Conv3d(16, 8, (1, 3, 3), padding=(0, 1, 1), bias=False))
    nn.init.constant_(network[0].weight, 0.0)
    nn.init.constant_(network[0].bias, 1.0)
    for channel, weight in enumerate((1.0, -1.0, 0.5, -0.5, 1.0, -1.0, 0.5, -0.5)):
        nn.init.constant_(network[2].weight[channel], weight)
    images = torch.zeros(1, 1, 2, 12, 12)
    run = open_networks(
        lambda: Parts({"one": (quantized(network, {"2": 1.0}), (images,))}, {}), precisions={"one": "int8"}
    ).function("one")
    with torch.inference_mode():
        expected = network(images).numpy()
    np.testing.assert_allclose(run(images.numpy())[0], expected, rtol=0.01)


def test_the_command_measures_what_is_shipped(shared, tmp_path, monkeypatch):
    """Of fewer of the same drawn faces the ranges are a little smaller."""
    monkeypatch.setattr(calibrate, "WEIGHTS", {"lr_asd": WEIGHTS["lr_asd"]})
    to = tmp_path / "int8.json"
    assert exit_status(calibrate.main, "--scenes", 1, "--to", to, "--cache", shared / "models") == 0
    made, shipped = (json.loads(path.read_text()) for path in (to, INT8_RANGES))
    assert (made["scenes"], shipped["scenes"]) == (1, 12)
    assert set(made["weights"]) == {"lr_asd/ava"} < set(shipped["weights"])
    one, expected = (record["weights"]["lr_asd/ava"] for record in (made, shipped))
    assert one["sha256"] == expected["sha256"]
    assert one["ranges"].keys() == expected["ranges"].keys()
    for layer, greatest in expected["ranges"].items():
        assert 0.3 * greatest < one["ranges"][layer] < 1.001 * greatest
