"""Convolutions in 8 bit integers: PyTorch computes with rounded numbers, OpenVINO with the integers themselves."""

import copy
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

STEPS = 255  # above 0; inputs are never below
# Above 0 as below, of 127 that there are: processors without instructions for it (AVX-512 VNNI) add two products in 16
# bits, and 255 x 64 x 2 is the most that these hold. Published encoders come no less near their numbers so.
WEIGHT_STEPS, MOST_STEPS = 64, 127


class Rounded(nn.Module):
    """Rounds to the nearest of 256 numbers from 0 to `greatest`."""

    def __init__(self, greatest: float):
        super().__init__()
        self.step = greatest / STEPS

    def forward(self, x: Tensor) -> Tensor:
        """Of any shape; what is above `greatest` becomes it."""
        return torch.fake_quantize_per_tensor_affine(x, self.step, 0, 0, STEPS)


def quantized(network: nn.Module, ranges: Mapping[str, float]) -> nn.Module:
    """A copy of a network, some of whose convolutions have rounded inputs and weights.

    Args:
        network: is not changed.
        ranges: name of a convolution -> the greatest of its inputs, of which none is negative.
    """
    network = copy.deepcopy(network)
    for name, greatest in ranges.items():
        layer = network.get_submodule(name)
        weight = layer.weight.detach()
        step = weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True) / WEIGHT_STEPS  # of an output channel
        layer.weight.data = (weight / step.clamp_min(torch.finfo(step.dtype).tiny)).round() * step
        network.set_submodule(name, nn.Sequential(Rounded(greatest), layer))
    return network


def keep_integers(model: Any) -> None:
    """Mark the rounded weights in what OpenVINO has made of a network, for it to multiply integers."""
    from openvino import opset13

    for layer in model.get_ops():
        if layer.get_type_name() == "Convolution" and layer.input_value(0).get_node().get_type_name() == "FakeQuantize":
            weight = layer.input_value(1).get_node()
            greatest = np.abs(weight.data).max(axis=tuple(range(1, weight.data.ndim)), keepdims=True)
            greatest *= MOST_STEPS / WEIGHT_STEPS
            bounds = -greatest, greatest
            marked = opset13.fake_quantize(weight, *bounds, *bounds, levels=2 * MOST_STEPS + 1)
            layer.input(1).replace_source_output(marked.output(0))


@torch.inference_mode()
def input_ranges(network: nn.Module, inputs: Iterable[Tensor]) -> dict[str, float]:
    """The `ranges` of `quantized` for a visual encoder of whole tracks, over some inputs.

    The first convolutions, of one channel, are left out: faces are scaled to negative numbers too, and these are little
    of the work.
    """
    ranges = {
        name: 0.0 for name, layer in network.named_modules() if isinstance(layer, nn.Conv3d) and layer.in_channels > 1
    }

    def widen(name: str, layer: nn.Module, given: tuple[Tensor]) -> None:
        ranges[name] = max(ranges[name], given[0].max().item())

    hooks = [network.get_submodule(name).register_forward_pre_hook(partial(widen, name)) for name in ranges]
    for one in inputs:
        network(one)
    for hook in hooks:
        hook.remove()
    return ranges
