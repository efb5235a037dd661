"""Light-ASD: Liao et al., "A Light Weight Model for Active Speaker Detection", CVPR 2023.

1.02 M parameters; published: 94.06 mAP on AVA-ActiveSpeaker's validation split.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.models.track_encoder import FEATURE_SIZE, NORM, AudioEncoder, TrackEncoder, VisualEncoder, convolution


def light_asd() -> TrackEncoder:
    """The network, with random weights; `load_state_dict` takes the published ones as they are."""
    return TrackEncoder(_Model())


class _Model(nn.Module):
    visual_context = 6  # frames: three blocks, each reaching over 2 on either side
    audio_context = 5  # frames, rounded up: 2 steps in each block and 1 in each pool, a step being 1/4, 1/2 and 1 frame
    state_size = FEATURE_SIZE

    def __init__(self) -> None:
        super().__init__()
        self.visualEncoder = VisualEncoder(VisualBlock)
        self.audioEncoder = AudioEncoder(AudioBlock)
        self.GRU = _GRUs()

    def fuse(self, audio: Tensor, visual: Tensor) -> Tensor:
        """See `TrackEncoder`."""
        return audio + visual

    def forward_gru(self, fused: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `TrackEncoder`."""
        output, state = self.GRU.gru_forward(fused, state)
        return F.gelu(output), state

    def backward_gru(self, fused: Tensor, forward: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `TrackEncoder`; this one runs over the output of the first, not over the track itself."""
        output, state = self.GRU.gru_backward(forward.flip(1), state)
        return F.gelu(output.flip(1)), state


class VisualBlock(nn.Module):
    """Two paths, of spatial then temporal convolutions of sizes 3 and 5, added and mixed."""

    def __init__(self, inputs: int, outputs: int, down: bool = False):
        super().__init__()
        stride = (1, 2, 2) if down else 1
        for size in (3, 5):
            setattr(self, f"s_{size}", convolution(inputs, outputs, (1, size, size), stride))
            setattr(self, f"bn_s_{size}", nn.BatchNorm3d(outputs, **NORM))
            setattr(self, f"t_{size}", convolution(outputs, outputs, (size, 1, 1)))
            setattr(self, f"bn_t_{size}", nn.BatchNorm3d(outputs, **NORM))
        self.last = convolution(outputs, outputs, (1, 1, 1))
        self.bn_last = nn.BatchNorm3d(outputs, **NORM)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, time, height, width) -> the same with other channels."""
        x3 = torch.relu_(self.bn_t_3(self.t_3(torch.relu_(self.bn_s_3(self.s_3(x))))))
        x5 = torch.relu_(self.bn_t_5(self.t_5(torch.relu_(self.bn_s_5(self.s_5(x))))))
        return torch.relu_(self.bn_last(self.last(x3 + x5)))


class AudioBlock(nn.Module):
    """Two paths, of convolutions over coefficients then time of sizes 3 and 5, added and mixed."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        for size in (3, 5):
            setattr(self, f"m_{size}", convolution(inputs, outputs, (size, 1)))
            setattr(self, f"bn_m_{size}", nn.BatchNorm2d(outputs, **NORM))
            setattr(self, f"t_{size}", convolution(outputs, outputs, (1, size)))
            setattr(self, f"bn_t_{size}", nn.BatchNorm2d(outputs, **NORM))
        self.last = convolution(outputs, outputs, (1, 1))
        self.bn_last = nn.BatchNorm2d(outputs, **NORM)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, coefficient, time) -> the same with other channels."""
        x3 = torch.relu_(self.bn_t_3(self.t_3(torch.relu_(self.bn_m_3(self.m_3(x))))))
        x5 = torch.relu_(self.bn_t_5(self.t_5(torch.relu_(self.bn_m_5(self.m_5(x))))))
        return torch.relu_(self.bn_last(self.last(x3 + x5)))


class _GRUs(nn.Module):
    """One GRU runs forward, and one backward over the output of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.gru_forward = nn.GRU(FEATURE_SIZE, FEATURE_SIZE, batch_first=True)
        self.gru_backward = nn.GRU(FEATURE_SIZE, FEATURE_SIZE, batch_first=True)
