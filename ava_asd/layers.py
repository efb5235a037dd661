"""Layers as Keras computes them with padding 'same', over maps kept channels last."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ava_asd import winograd

UNPOOLED = nn.Identity()


class SameConv2d(nn.Conv2d):
    """A convolution of stride 1 that keeps the size of its input.

    The padding is split evenly; for an even kernel the one row or column more goes to the end, as in Keras.

    Args:
        in_channels, out_channels: channels.
        kernel_size: (rows, columns).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int]):
        super().__init__(in_channels, out_channels, kernel_size)
        initialise(self)

    def forward(self, maps: Tensor, pool: Callable[[Tensor], Tensor] = UNPOOLED) -> Tensor:
        """(batch, in channel, row, column) -> (batch, out channel, row, column), pooled."""
        return pool(_same_conv2d(maps, self.weight, self.bias))


class SameConv3d(nn.Conv3d):
    """A convolution over frames, rows and columns, of stride 1, that keeps the size of its input.

    It is computed frame by frame, over images whose channels are those of the frames that the kernel reaches: on a
    CPU that is faster, and padding frames are never multiplied.
    Its weight is that of nn.Conv3d: (out channel, in channel, frame, row, column).

    Args:
        in_channels, out_channels: channels.
        kernel_size: (frames, rows, columns); the number of frames is odd.
        frames: frames of a clip.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int, int], frames: int):
        super().__init__(in_channels, out_channels, kernel_size)
        self.frames = frames
        initialise(self)

    def forward(self, maps: Tensor, pool: Callable[[Tensor], Tensor] = UNPOOLED) -> Tensor:
        """Convolve and pool.

        Args:
            maps: (batch * frame, in channel, row, column).
            pool: of the maps of single frames, which it makes smaller while they are few.

        Returns:
            (batch * frame, out channel, row, column), rows and columns as `pool` leaves them.
        """
        reach = self.kernel_size[0] // 2
        if reach == 0:
            return pool(_same_conv2d(maps, self.weight.flatten(1, 2), self.bias))
        clips = maps.unflatten(0, (-1, self.frames))
        maps = [pool(self._frame(clips, frame, reach)).permute(0, 2, 3, 1) for frame in range(self.frames)]
        return torch.stack(maps, dim=1).flatten(0, 1).permute(0, 3, 1, 2)  # stays channels last in memory

    def _frame(self, clips: Tensor, frame: int, reach: int) -> Tensor:
        """The maps of one frame: clips (batch, frame, in channel, row, column) -> (batch, out channel, row, column)."""
        first, last = max(0, frame - reach), min(self.frames, frame + reach + 1)
        weight = self.weight[:, :, first - frame + reach : last - frame + reach].transpose(1, 2)
        return _same_conv2d(clips[:, first:last].flatten(1, 2), weight.flatten(1, 2), self.bias)


class SamePool2d(nn.Module):
    """Max pooling with a stride of its size; rows and columns that are left over make a smaller window.

    As in Keras, half of what is missing to a full window lies before the first row, the rest behind the last.

    Args:
        size: rows and columns of a window.
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, channel, row, column) -> (batch, channel, ceil(row / size), ceil(column / size))."""
        before = [-side % self.size // 2 for side in maps.shape[2:]]
        return F.max_pool2d(maps, self.size, self.size, before, ceil_mode=True)  # ceil_mode pads the end

    def extra_repr(self) -> str:
        return f"size={self.size}"


def pooled(sides: Sequence[int], size: int) -> list[int]:
    """Rows and columns after a `SamePool2d`."""
    return [-(-side // size) for side in sides]


def flatten(maps: Tensor, frames: int = 1) -> Tensor:
    """(batch * frame, channel, row, column) -> (batch, frame * row * column * channel), the order of Keras."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps) // frames, -1)


def initialise(layer: nn.Module) -> None:
    """Draw a layer as Keras does by default: Glorot's uniform distribution, biases 0."""
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)


def _same_conv2d(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    rows, columns = weight.shape[2:]
    precise = maps.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    if rows == columns == winograd.TAPS and maps.device.type == "cpu" and precise:
        # 60 % of a step's products are in this layer of the video tower: a CPU is bound by them, a GPU is not. In
        # narrower types than float32 Winograd's products would lose too much.
        return winograd.convolve(maps, weight, bias)
    # Only what an even kernel has more at the end is padded around the maps: the convolution's own padding, alike on
    # both sides, costs it no multiplications.
    maps = F.pad(maps, (0, 1 - columns % 2, 0, 1 - rows % 2))
    maps = maps.contiguous(memory_format=torch.channels_last)
    weight = weight.contiguous(memory_format=torch.channels_last)
    return F.conv2d(maps, weight, bias, padding=((rows - 1) // 2, (columns - 1) // 2))
