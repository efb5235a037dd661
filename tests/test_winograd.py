"""Winograd's convolutions against plain ones."""

import pytest
import torch
from torch import nn

from core.models import winograd
from core.models.winograd import WinogradRows


def layer(inputs: int, outputs: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, 5, padding=2).requires_grad_(False)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (14, 14), (7, 3), (4, 5), (1, 1)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_sums_are_those_of_the_plain_convolution(height, width, memory_format):
    plain = layer(6, 9)
    x = torch.randn(3, 6, height, width).contiguous(memory_format=memory_format)
    expected = plain.double()(x.double())
    found = WinogradRows(plain.float())(x)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_rounding_stays_small_with_many_channels():
    plain = layer(64, 128)
    x = torch.randn(1, 64, 14, 14).relu()
    expected = plain.double()(x.double())
    found = WinogradRows(plain.float())(x)
    assert (found - expected).abs().max() < 3e-5 * expected.abs().max()


def test_eight_products_give_four_rows_exactly():
    to_products, to_rows, of_taps = (torch.from_numpy(matrix) for matrix in winograd._matrices())
    rows, taps = torch.arange(8.0, dtype=torch.float64) ** 2, torch.tensor([1.0, -2, 3, 5, -7], dtype=torch.float64)
    expected = rows.unfold(0, 5, 1) @ taps
    torch.testing.assert_close(to_rows @ ((of_taps @ taps) * (to_products @ rows)), expected)
    assert to_products.shape == (8, 8)
    assert to_rows.shape == (4, 8)


def test_channels_stay_last_in_memory():
    found = WinogradRows(layer(6, 9))(torch.randn(2, 6, 8, 8))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_gradients_are_those_of_the_plain_convolution():
    plain = layer(6, 9).requires_grad_(True)
    x = torch.randn(3, 6, 10, 7, requires_grad=True)
    upstream = torch.randn(3, 9, 10, 7)
    leaves = [x, plain.weight, plain.bias]
    expected = torch.autograd.grad(plain(x), leaves, upstream)
    found = torch.autograd.grad(
        winograd.convolve_rows(x, winograd.transformed(plain.weight), plain.bias), leaves, upstream
    )
    for ours, plainly in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plainly, rtol=0, atol=1e-5 * plainly.abs().max().item())
