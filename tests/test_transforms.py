"""Crops to network input: stacking by hand, augmentation against torchvision's single steps."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from core.inputs.transforms import MEAN, STD, Draws, augment, stack


def draws(items: int, seed: int = 0, rank: int = 0, world_size: int = 1) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), items, rank, world_size)


def random_clips(*shape: int, low: int = 0, high: int = 256) -> Tensor:
    return torch.randint(low, high, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))


def colours(images: Tensor) -> Tensor:
    """(batch, 3 * frame, height, width) normalised -> (batch, frame, 3, height, width) in [0, 255]."""
    images = images.unflatten(1, (-1, 3))
    return (images * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]) * 255


def ramp_clips(batch: int, frames: int = 1, size: int = 64) -> Tensor:
    """Red grows with x and green with y, by `scale` a pixel: the values of an image show which box was cut."""
    position = torch.arange(size, dtype=torch.uint8)
    clip = torch.stack([position.expand(size, size), position[:, None].expand(size, size), torch.zeros(size, size)], -1)
    return clip.to(torch.uint8).expand(batch, frames, size, size, 3)


# ---------------------------------------------------------------- stack


def test_stack_by_hand():
    clips = random_clips(2, 3, 4, 5)
    stacked = stack(clips)
    assert stacked.shape == (2, 9, 4, 5)
    assert stacked.dtype == torch.float32
    for b, frame, y, x, channel in [(0, 0, 0, 0, 0), (1, 2, 3, 4, 2), (0, 1, 2, 0, 1)]:
        expected = (clips[b, frame, y, x, channel].item() / 255 - MEAN[channel]) / STD[channel]
        assert stacked[b, 3 * frame + channel, y, x].item() == pytest.approx(expected, abs=1e-6)


def test_stack_leaves_its_input_alone_and_lays_channels_last():
    clips = random_clips(2, 3, 8, 8)
    before = clips.clone()
    assert stack(clips).is_contiguous(memory_format=torch.channels_last)
    assert augment(clips, draws(len(clips))).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(clips, before)


# ---------------------------------------------------------------- flip and crop


def test_augment_without_jitter_and_crop_is_stack_but_for_the_flip_of_half_of_the_clips():
    clips = random_clips(400, 3, 4, 4)
    plain, augmented = stack(clips), augment(clips, draws(len(clips)), crop_scale=(1.0, 1.0), jitter=0.0)
    straight, mirrored = (
        ((augmented - other).abs() < 2e-4).flatten(1).all(1) for other in (plain, plain.flip(-1))
    )  # all frames of a clip alike
    assert (straight != mirrored).all()
    assert 160 < mirrored.sum() < 240


def test_crop_box_lies_where_the_published_one_may_lie():
    """Left, top, left + width, top + height, a square of 0.5 to 1 of the side, anywhere inside the frame."""
    size = 64
    boxes = colours(augment(ramp_clips(500, size=size), draws(500), crop_scale=(0.5, 1.0), jitter=0.0))[:, 0]
    red, green = boxes[:, 0, size // 2], boxes[:, 1, :, size // 2]  # along x and y through the middle
    red = torch.where(red[:, :1] > red[:, -1:], red.flip(1), red)  # flipped back
    # Away from the border, a pixel's value is its position in the frame: between positions a and b it grows linearly.
    a, b = size // 4, 3 * size // 4
    width, height = ((line[:, b] - line[:, a]) / (b - a) for line in (red, green))
    left, top = (line[:, a] + 0.5 - (a + 0.5) * side for line, side in ((red, width), (green, height)))
    torch.testing.assert_close(width, height, atol=1e-4, rtol=0)
    tolerance = 0.05  # pixels
    assert 0.5 - 1e-3 <= width.min() < 0.52
    assert 0.98 < width.max() <= 1 + 1e-3
    for corner in (left, top):
        assert corner.min() >= -tolerance
        assert (corner + width * size).max() <= size + tolerance
        assert ((corner < 0.02 * size).any(), (corner > 0.4 * size).any()) == (True, True)
        share = corner / (size * (1 - width)).clamp(min=1)  # of the room that the box leaves: 0 to 1, evenly
        assert share[width < 0.9].mean().item() == pytest.approx(0.5, abs=0.05)
    assert np.corrcoef(left, top)[0, 1] < 0.9  # drawn apart: not always on the diagonal


def test_flip_and_box_are_those_of_all_frames_of_a_clip():
    frames = colours(augment(ramp_clips(8, frames=4, size=32), draws(8), jitter=0.0))
    for frame in range(1, 4):
        torch.testing.assert_close(frames[:, frame], frames[:, 0])
    assert not torch.allclose(frames[0], frames[1])


# ---------------------------------------------------------------- colour


def colour_steps(frame: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """torchvision's steps in the published order, on a float image (3, height, width) in [0, 1]."""
    frame = tvf.adjust_brightness(frame, brightness)
    frame = tvf.adjust_contrast(frame, contrast)
    return tvf.adjust_saturation(frame, saturation)


def drawn_factors(seed: int, batch: int, times: int, jitter: float) -> tuple[Tensor, Tensor]:
    """Flips (batch,) and colour factors (batch, times, 3) that `augment` draws for a full-size box."""
    source = draws(batch, seed)
    source.rand(), source.rand(2)
    flips = source.rand() < 0.5
    return flips, 1 + jitter * (2 * source.rand(times, 3) - 1)


@pytest.mark.parametrize("jitter_frames", [True, False])
def test_colours_are_torchvisions_single_steps(jitter_frames):
    clips = random_clips(3, 2, 12, 10, low=100, high=150)  # nothing reaches 0 or 255: torchvision clamps each step
    images = augment(clips, draws(3, seed=5), crop_scale=(1.0, 1.0), jitter=0.3, jitter_frames=jitter_frames)
    flips, factors = drawn_factors(5, 3, 2 if jitter_frames else 1, 0.3)
    for b in range(3):
        for frame in range(2):
            image = clips[b, frame].permute(2, 0, 1) / 255
            expected = colour_steps(image.flip(-1) if flips[b] else image, *factors[b, frame % factors.shape[1]])
            assert expected.min() > 0
            assert expected.max() < 1
            # torchvision's grey has 0.2989 where BT.601 has 0.299.
            torch.testing.assert_close(colours(images)[b, frame] / 255, expected, atol=2e-4, rtol=0)


def test_colours_are_clamped_to_those_of_pixels():
    clips = random_clips(64, 2, 6, 6)
    values = colours(augment(clips, draws(len(clips)), jitter=1.0))
    assert values.min().item() == pytest.approx(0, abs=1e-2)
    assert values.max().item() == pytest.approx(255, abs=1e-2)


def test_the_processes_of_a_batch_draw_what_one_would():
    clips = random_clips(21, 2, 8, 8)
    alone = augment(clips, draws(21, seed=3))
    for rank in range(4):  # the last has fewer clips
        share = augment(clips[rank::4], draws(21, seed=3, rank=rank, world_size=4))
        assert torch.equal(share, alone[rank::4])


def test_what_is_drawn_is_the_generators_alone():
    clips = random_clips(4, 2, 8, 8)
    first = augment(clips, draws(4, seed=1))
    torch.manual_seed(123)  # the global generator plays no part
    assert torch.equal(augment(clips, draws(4, seed=1)), first)
    assert not torch.allclose(augment(clips, draws(4, seed=2)), first)
