"""Random changes of training samples, in batch and on the device: faces and audio."""

import torch
from torch import Tensor

from core.inputs.transforms import Draws, zoom

CROP_SCALE = (0.8, 1.0)  # side of the box that is kept, as a share of the face crop's
JITTER = 0.3  # brightness and contrast are multiplied by 1 - JITTER to 1 + JITTER
NOISE = 0.2  # greatest standard deviation of the noise, in those of the normalised coefficients
GAIN = 0.5  # greatest shift of the first coefficient, in its standard deviations


def augment_faces(video: Tensor, draws: Draws) -> Tensor:
    """Mirror half of the samples, crop, change brightness, then contrast; alike in all frames of a sample.

    Args:
        video: (batch, channel, frame, row, column) float32, 0 to 1.
        draws: random numbers for the samples.

    Returns:
        The same shape and range.
    """
    low, high = CROP_SCALE
    side = low + (high - low) * draws.rand()
    corner = draws.rand(2) * (1 - side)[:, None]  # left, top
    flip = draws.rand() < 0.5
    brightness, contrast = (1 + JITTER * (2 * draws.rand(2) - 1)).to(video.device).unbind(1)
    frames = video.flatten(1, 2)
    frames = zoom(frames, *(numbers.to(video.device) for numbers in (side, corner, flip)))
    frames = frames * brightness.view(-1, 1, 1, 1)
    grey = frames.mean(dim=(1, 2, 3), keepdim=True)
    frames = grey + (frames - grey) * contrast.view(-1, 1, 1, 1)
    return frames.clamp(0, 1).view_as(video)


def augment_audio(audio: Tensor, draws: Draws) -> Tensor:
    """Add noise to all coefficients, and a gain.

    The first coefficient is the sum of the bands' decibels, so louder audio shifts it and no other.

    Args:
        audio: (batch, 1, coefficient, vector) float32, normalised MFCCs.
        draws: random numbers for the samples.

    Returns:
        The same shape.
    """
    deviation = NOISE * draws.rand(1, 1, 1)
    # Two uniform numbers give a normally distributed one (Box and Muller, 1958).
    radius, angle = draws.rand(2, *audio.shape[1:]).unbind(1)
    noise = (-2 * torch.log1p(-radius)).sqrt() * torch.cos(2 * torch.pi * angle)
    change = deviation * noise
    change[:, :, 0] += GAIN * (2 * draws.rand(1, 1) - 1)
    return audio + change.to(audio.device)
