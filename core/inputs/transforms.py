"""Crops to network input, on the device and in batch: augment, stack, normalise."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Channel means and standard deviations (r, g, b) of AVA's face crops in [0, 1], from the published code.
MEAN = (0.2324, 0.2721, 0.3448)
STD = (0.1987, 0.2172, 0.2403)
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: grey of an RGB colour, as image libraries take it


@dataclass(frozen=True)
class Draws:
    """Random numbers for the items of a global batch, of which a process takes its share.

    Drawn for all items by every process, so that an item's numbers do not depend on how many processes there are.

    Attributes:
        generator: on the CPU, in the same state in all processes; the same draws on any device.
        items: of the global batch.
        rank, world_size: this process and how many there are; it has the items rank, rank + world_size, ...
    """

    generator: torch.Generator
    items: int
    rank: int = 0
    world_size: int = 1

    def rand(self, *shape: int) -> Tensor:
        """(own items, *shape) float32, even in [0, 1)."""
        return torch.rand(self.items, *shape, generator=self.generator)[self.rank :: self.world_size]


def stack(clips: Tensor) -> Tensor:
    """Normalise clips and stack their frames along the channels.

    Args:
        clips: (batch, frame, height, width, [r, g, b]) uint8.

    Returns:
        (batch, 3 * frame, height, width) float32, channels last in memory; [0, 1] minus MEAN over STD.
    """
    mean, std = (torch.tensor(values, device=clips.device) for values in (MEAN, STD))
    return _channels_last(clips.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std))


def augment(
    clips: Tensor,
    draws: Draws,
    crop_scale: tuple[float, float] = (0.5, 1.0),
    jitter: float = 0.4,
    jitter_frames: bool = True,
) -> Tensor:
    """Flip, crop and colour-jitter clips at random, then normalise and stack them.

    One flip and one crop box are drawn for each clip; brightness, contrast and saturation are scaled by factors from
    [1 - jitter, 1 + jitter], in that order, drawn for each frame (published) or for each clip. All colour steps are
    linear, so they and the normalisation are one matrix a frame; values are clamped to the range of pixels once, at
    the end.

    Args:
        clips: (batch, frame, height, width, [r, g, b]) uint8.
        draws: random numbers for the clips.
        crop_scale: range of the crop box's side, as a share of the crop's; the box is resized to the full side.
        jitter: strength of the colour jitter, 0 to 1; 0 for none.
        jitter_frames: draw the jitter for each frame.

    Returns:
        (batch, 3 * frame, height, width) float32, channels last in memory, normalised as `stack` does.
    """
    batch, frames = clips.shape[:2]
    low, high = crop_scale
    side = low + (high - low) * draws.rand()
    corner = draws.rand(2) * (1 - side)[:, None]  # left, top: the box is corner ... corner + side
    flip = draws.rand() < 0.5
    factors = 1 + jitter * (2 * draws.rand(frames if jitter_frames else 1, 3) - 1)
    factors = factors.expand(batch, frames, 3).to(clips.device)

    images = clips.permute(0, 1, 4, 2, 3).reshape(batch, frames * 3, *clips.shape[2:4])
    images = zoom(images.to(torch.float32), side.to(clips.device), corner.to(clips.device), flip.to(clips.device))
    colours = images.view(batch, frames, 3, -1)
    matrix, shift = _colour_map(colours.mean(-1) / 255, factors)
    low, high = ((value - torch.tensor(MEAN)) / torch.tensor(STD) for value in (0.0, 1.0))
    low, high = (bound.to(clips.device)[:, None] for bound in (low, high))
    colours = torch.baddbmm(shift.view(-1, 3, 1), matrix.view(-1, 3, 3) / 255, colours.reshape(batch * frames, 3, -1))
    colours = torch.minimum(torch.maximum(colours, low), high)
    return colours.view_as(images).contiguous(memory_format=torch.channels_last)


def _colour_map(mean: Tensor, factors: Tensor) -> tuple[Tensor, Tensor]:
    """Jitter and normalisation as one affine map: mean colours and factors (batch, frame, 3) -> matrix and shift.

    Brightness b: x -> b x. Contrast c: x -> c x + (1 - c) grey of the mean. Saturation s: x -> s x + (1 - s) grey of x.
    """
    luma = torch.tensor(LUMA, device=mean.device)
    std = torch.tensor(STD, device=mean.device)
    brightness, contrast, saturation = factors.unbind(-1)
    identity = torch.eye(3, device=mean.device)
    desaturate = saturation[..., None, None] * identity + (1 - saturation)[..., None, None] * luma.expand(3, 3)
    matrix = desaturate * (brightness * contrast)[..., None, None] / std[:, None]
    grey = (1 - contrast) * brightness * (mean @ luma)  # one grey for the whole frame; saturation leaves greys alone
    shift = (grey[..., None] - torch.tensor(MEAN, device=mean.device)) / std
    return matrix, shift


def zoom(images: Tensor, side: Tensor, corner: Tensor, flip: Tensor) -> Tensor:
    """Resize boxes to the full size, bilinear, mirrored where `flip` is true.

    Args:
        images: (batch, channel, height, width) float32.
        side: (batch,) sides of the boxes, as a share of the image's.
        corner: (batch, [left, top]) of the boxes, as shares of the image's sides.
        flip: (batch,) bool.
    """
    scale = torch.where(flip, -side, side)
    centre = 2 * corner + side[:, None] - 1  # in grid_sample's coordinates, -1 to 1
    theta = torch.zeros(len(images), 2, 3, device=images.device)
    theta[:, 0, 0], theta[:, 0, 2] = scale, centre[:, 0]
    theta[:, 1, 1], theta[:, 1, 2] = side, centre[:, 1]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _channels_last(clips: Tensor) -> Tensor:
    """(batch, frame, height, width, 3) -> (batch, 3 * frame, height, width), whose memory is channels last."""
    batch, frames, height, width, _ = clips.shape
    return clips.permute(0, 2, 3, 1, 4).reshape(batch, height, width, frames * 3).permute(0, 3, 1, 2)
