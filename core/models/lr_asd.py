"""LR-ASD: Liao et al., "LR-ASD: Lightweight and Robust Network for Active Speaker Detection", IJCV 2025.

0.84 M parameters; published: 94.45 mAP on AVA-ActiveSpeaker's validation split.
"""

import torch
from torch import Tensor, nn

from core.models.track_encoder import FEATURE_SIZE, NORM, AudioEncoder, TrackEncoder, VisualEncoder, convolution

DROPOUT = 0.5
STATE_SIZE = 64  # of each GRU


def lr_asd() -> TrackEncoder:
    """The network, with random weights; `load_state_dict` takes the published ones as they are."""
    return TrackEncoder(_Model())


class _Model(nn.Module):
    visual_context = 9  # frames: three blocks, each reaching over 2 + 1 on either side
    audio_context = 6  # frames: 3 steps in each block and 1 in each pool, a step being 1/4, 1/2 and 1 frame
    state_size = STATE_SIZE

    def __init__(self) -> None:
        super().__init__()
        self.visualEncoder = VisualEncoder(VisualBlock)
        self.audioEncoder = AudioEncoder(AudioBlock)
        self.fusion = Gate(2 * FEATURE_SIZE)
        self.detector = _Detector()

    def fuse(self, audio: Tensor, visual: Tensor) -> Tensor:
        """See `TrackEncoder`."""
        return self.fusion(torch.cat((audio, visual), dim=2))

    def forward_gru(self, fused: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `TrackEncoder`."""
        return self.detector.gru_forward(self.detector.dropout(fused), state)

    def backward_gru(self, fused: Tensor, forward: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `TrackEncoder`; this one runs over the track itself, and a gate weighs the outputs of both."""
        output, state = self.detector.gru_backward(self.detector.dropout(fused.flip(1)), state)
        return self.detector.attention(torch.cat((forward, output.flip(1)), dim=2)), state


class VisualBlock(nn.Module):
    """Two spatial convolutions, of sizes 5 and 3, then two over time."""

    def __init__(self, inputs: int, outputs: int, down: bool = False):
        super().__init__()
        half = outputs // 2
        self.s_1 = convolution(inputs, half, (1, 5, 5), (1, 2, 2) if down else 1)
        self.s_norm_1 = nn.BatchNorm3d(half, **NORM)
        self.s_2 = convolution(half, outputs, (1, 3, 3))
        self.s_norm_2 = nn.BatchNorm3d(outputs, **NORM)
        self.t_1 = convolution(outputs, outputs, (5, 1, 1))
        self.t_norm_1 = nn.BatchNorm3d(outputs, **NORM)
        self.t_2 = convolution(outputs, outputs, (3, 1, 1))
        self.t_norm_2 = nn.BatchNorm3d(outputs, **NORM)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, time, height, width) -> the same with other channels."""
        x = torch.relu_(self.s_norm_1(self.s_1(x)))
        x = torch.relu_(self.s_norm_2(self.s_2(x)))
        x = torch.relu_(self.t_norm_1(self.t_1(x)))
        return torch.relu_(self.t_norm_2(self.t_2(x)))


class AudioBlock(nn.Module):
    """Two convolutions over the coefficients, of sizes 5 and 3, then two over time."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        half = outputs // 2
        self.m_1 = convolution(inputs, half, (5, 1))
        self.m_norm_1 = nn.BatchNorm2d(half, **NORM)
        self.m_2 = convolution(half, outputs, (3, 1))
        self.m_norm_2 = nn.BatchNorm2d(outputs, **NORM)
        self.t_1 = convolution(outputs, outputs, (1, 5))
        self.t_norm_1 = nn.BatchNorm2d(outputs, **NORM)
        self.t_2 = convolution(outputs, outputs, (1, 3))
        self.t_norm_2 = nn.BatchNorm2d(outputs, **NORM)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, coefficient, time) -> the same with other channels."""
        x = torch.relu_(self.m_norm_1(self.m_1(x)))
        x = torch.relu_(self.m_norm_2(self.m_2(x)))
        x = torch.relu_(self.t_norm_1(self.t_1(x)))
        return torch.relu_(self.t_norm_2(self.t_2(x)))


class Gate(nn.Module):
    """Each channel is weighed by a sigmoid of a linear map of all channels at its time step."""

    def __init__(self, channels: int):
        super().__init__()
        self.attention = nn.Conv1d(channels, channels, kernel_size=1, bias=False)
        self.bn = nn.BatchNorm1d(channels, **NORM)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, time, channel) -> the same."""
        x = x.transpose(1, 2)
        return (x * torch.sigmoid(self.bn(self.attention(x)))).transpose(1, 2)


class _Detector(nn.Module):
    """A GRU forward and one backward over the track, side by side, and a gate over both."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(DROPOUT)
        self.gru_forward = nn.GRU(2 * FEATURE_SIZE, STATE_SIZE, batch_first=True)
        self.gru_backward = nn.GRU(2 * FEATURE_SIZE, STATE_SIZE, batch_first=True)
        self.attention = Gate(2 * STATE_SIZE)
