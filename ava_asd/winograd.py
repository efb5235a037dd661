"""Convolutions of 5 by 5 pixels with fewer products, by the algorithm of Cook, Toom and Winograd.

Winograd, "Arithmetic Complexity of Computations", SIAM 1980; for networks Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", CVPR 2016.
"""

from functools import cache

import numpy as np
import torch
from numpy.polynomial import polynomial
from torch import Tensor
from torch.nn import functional as F

TAPS = 5
OUTPUTS = 4  # at a time; with 8 points of evaluation, one of them at infinity
POINTS = (0, 1, -1, 2, -2, 0.5, -0.5)


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve with 5 by 5 taps, stride 1, keeping height and width: four rows at a time by Winograd's F(4, 5).

    Along the height it takes 8 products where the plain sum takes 20, each a convolution along the width; along the
    width as well they would be fewer still, but sorting the numbers for them takes as long as they save. In float32 the
    result is within 1e-5 of its size, three times the plain one's rounding; narrower types would lose too much.
    Gradients flow through it as through any sum.

    Args:
        x: (batch, channel, height, width), fastest with channels last in memory.
        weight: (out channel, channel, 5, 5).
        bias: (out channel,).

    Returns:
        (batch, out channel, height, width), channels last in memory.
    """
    to_products, to_rows, of_taps = (matrix.to(x) for matrix in _matrices())
    weights = torch.einsum("kj,oijw->koiw", of_taps, weight).unsqueeze(3)  # (product, out channel, channel, 1, 5)
    weights = [part.contiguous(memory_format=torch.channels_last) for part in weights]
    height = x.shape[2]
    tiles = -(-height // OUTPUTS)
    missing = OUTPUTS * tiles - height
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 0, TAPS // 2, TAPS // 2 + missing))
    rows = [padded[:, row : row + OUTPUTS * tiles : OUTPUTS] for row in range(OUTPUTS + TAPS - 1)]
    stacked = torch.stack(rows)  # (row of the tile, batch, tile, width, channel)
    mixed = (to_products @ stacked.flatten(1)).view_as(stacked).permute(0, 1, 4, 2, 3)
    products = [F.conv2d(part, weight, padding=(0, TAPS // 2)) for part, weight in zip(mixed, weights, strict=True)]
    products = torch.stack([part.permute(0, 2, 3, 1) for part in products])
    sums = (to_rows @ products.flatten(1)).view(OUTPUTS, *products.shape[1:])
    sums = sums.permute(1, 2, 0, 3, 4).flatten(1, 2)[:, :height]  # (batch, height, width, channel)
    return (sums + bias).permute(0, 3, 1, 2)


@cache
def _matrices() -> tuple[Tensor, Tensor, Tensor]:
    """The matrices that turn 8 rows into 8 factors, 8 products into 4 rows, and 5 taps into 8 factors, float64.

    The rows' correlation with the taps is the transpose of a product of polynomials: both are evaluated at the points,
    the values multiplied, and the product interpolated (Lagrange). The last point, infinity, stands for the leading
    coefficients.
    """
    count = OUTPUTS + TAPS - 1
    to_products, to_rows, of_taps = np.zeros((count, count)), np.zeros((OUTPUTS, count)), np.zeros((count, TAPS))
    for number, point in enumerate(POINTS):
        others = [other for other in POINTS if other != point]
        to_products[number, : count - 1] = polynomial.polyfromroots(others)
        to_rows[:, number] = float(point) ** np.arange(OUTPUTS)
        of_taps[number] = float(point) ** np.arange(TAPS) / np.prod([point - other for other in others])
    to_products[-1] = polynomial.polyfromroots(POINTS)
    to_rows[-1, -1] = of_taps[-1, -1] = 1
    return torch.from_numpy(to_products), torch.from_numpy(to_rows), torch.from_numpy(of_taps)
