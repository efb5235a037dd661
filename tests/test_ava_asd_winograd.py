"""Winograd's convolution against the plain one: sums and gradients."""

import pytest
import torch
from torch import nn

from ava_asd import winograd


def layer(inputs: int, outputs: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, 5, padding=2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (14, 14), (7, 3), (4, 5), (1, 1)])
def test_sums_and_gradients_are_those_of_the_plain_convolution(height, width, memory_format):
    plain = layer(6, 9)
    x = torch.randn(3, 6, height, width).contiguous(memory_format=memory_format).requires_grad_(True)
    upstream = torch.randn(3, 9, height, width)
    leaves = [x, plain.weight, plain.bias]
    expected = plain(x)
    found = winograd.convolve(x, plain.weight, plain.bias)
    expected = [expected, *torch.autograd.grad(expected, leaves, upstream)]
    found = [found, *torch.autograd.grad(found, leaves, upstream)]
    for ours, plainly in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plainly, rtol=0, atol=1e-5 * max(1, plainly.abs().max().item()))


def test_rounding_stays_small_with_many_channels():
    plain = layer(64, 128).requires_grad_(False)
    x = torch.randn(1, 64, 14, 14).relu()
    found = winograd.convolve(x, plain.weight, plain.bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    expected = plain.double()(x.double())
    assert (found - expected).abs().max() < 3e-5 * expected.abs().max()
