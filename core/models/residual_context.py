"""A context network that corrects an encoder's score: by the face over time, and by the faces beside it.

It differs from the published `ASC_Net` in three ways. It adds to the encoder's logit and does not replace it. It reads
a whole shot at once, with any number of faces and in any order: the course of a score over some five seconds, and how a
face usually scores over more. And it knows of each face only how the encoder judges it (`CUES`), not what it looks or
sounds like: so what it learns from drawn heads holds for people. What the voice tells is added behind it
(`core.inference.voices.by_voice`).
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# What is known of a face at a time step. Log odds of speaking: by the encoder; by its video stream alone; by how much
# the first falls, in the mean and at least, where the face is given the audio of other times. And a correlation: how
# the video's follow the loudness of the audio.
CUES = ("logit", "video_logit", "mean_fall", "least_fall", "correlation")
UNITS = (4.0, 4.0, 4.0, 4.0, 1.0)  # cues are divided by them
CHANNELS = 32
MEMBERS = 3  # networks whose scores are averaged
DILATIONS = (1, 3, 9, 21)  # of the convolutions over time, in steps of 1/25 s
KERNEL = 5
AROUND = 125  # time steps on either side over which a face's own mean is taken
REACH = sum(KERNEL // 2 * dilation + AROUND for dilation in DILATIONS)  # steps to either side a score depends on
ABSENT = -4.0  # stands for the maximum over other faces where there is none


def is_residual(state_dict: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is of this network and not of `ASC_Net`."""
    return "members.0.correction.weight" in state_dict


class ResidualContext(nn.Module):
    """The mean of some networks of one form, which begin differently and are trained side by side.

    Args:
        members: how many; alone, one of three has an average precision that is lower by 0.007.
        options: of each, see `Corrector`.
    """

    def __init__(self, members: int = MEMBERS, **options: float):
        super().__init__()
        self.members = nn.ModuleList([Corrector(**options) for _ in range(members)])

    def forward(self, cues: Tensor, present: Tensor) -> Tensor:
        """Score all faces of shots at all times.

        Args:
            cues: (batch, face, time, `CUES`) float32; whatever where a face is not present.
            present: (batch, face, time) bool.

        Returns:
            (batch, face, time) float32, log odds of speaking; whatever where a face is not present. In training
            (member, batch, face, time), of each member for itself.
        """
        odds = torch.stack([member(cues, present) for member in self.members])
        return odds if self.training else odds.mean(0)


class Corrector(nn.Module):
    """Blocks that look at other faces of the same time, then along time; their sum corrects the encoder's logit.

    Args:
        channels: of each face and time step inside the network.
        dropout: share of each block's output that is left out in training.
        reach: time steps on either side over which a face's own mean is taken, at most `AROUND`.
    """

    def __init__(self, channels: int = CHANNELS, dropout: float = 0.1, reach: int = AROUND):
        super().__init__()
        self.enter = nn.Linear(len(CUES), channels)
        self.blocks = nn.ModuleList([Block(channels, dilation, dropout, reach) for dilation in DILATIONS])
        self.norm = nn.LayerNorm(channels)
        self.correction = nn.Linear(channels, 1)
        self.scale = nn.Parameter(torch.ones(()))  # of the encoder's logit
        self.register_buffer("units", torch.tensor(UNITS), persistent=False)
        nn.init.zeros_(self.correction.weight)  # it begins as the encoder
        nn.init.zeros_(self.correction.bias)

    def forward(self, cues: Tensor, present: Tensor) -> Tensor:
        """As `ResidualContext.forward` in evaluation."""
        cues = cues.masked_fill(~present.unsqueeze(-1), 0)
        x = self.enter(cues / self.units)
        for block in self.blocks:
            x = block(x, present)
        return self.scale * cues[..., 0] + self.correction(self.norm(x)).squeeze(-1)


class Block(nn.Module):
    """A face with its own mean of some seconds, and the mean and the maximum of the others at the same time; then a
    convolution over time.

    Args:
        channels: of the input and output.
        dilation: time steps between those that the convolution reads.
        dropout: share of the output that is left out in training.
        reach: time steps on either side over which a face's own mean is taken.
    """

    def __init__(self, channels: int, dilation: int, dropout: float, reach: int):
        super().__init__()
        self.reach = reach
        self.norm = nn.LayerNorm(channels)
        self.mix = nn.Linear(4 * channels, 2 * channels)
        self.over_time = nn.Conv1d(
            *(2 * channels, 2 * channels, KERNEL),
            dilation=dilation,
            padding=dilation * (KERNEL // 2),
            groups=2 * channels,
        )
        self.leave = nn.Linear(2 * channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        """(batch, face, time, channel) and (batch, face, time) bool -> the shape of the first."""
        there = present.unsqueeze(-1)
        own = self.norm(x)
        parts = (own, around(own, there, self.reach), *others(own, there))
        mixed = F.gelu(self.mix(torch.cat(parts, dim=-1))) * there
        rows = mixed.flatten(0, 1).transpose(1, 2)  # (batch * face, channel, time)
        mixed = self.over_time(rows).transpose(1, 2).view_as(mixed)
        return x + self.dropout(self.leave(F.gelu(mixed)))


def around(values: Tensor, there: Tensor, reach: int) -> Tensor:
    """The mean of each face over the time steps up to `reach` to either side in which it is present.

    Args:
        values: (batch, face, time, channel).
        there: (batch, face, time, 1) bool.
        reach: time steps.

    Returns:
        The shape of `values`; 0 where the face is nowhere present.
    """
    size = values.shape[2]
    steps = torch.arange(size, device=values.device)
    first, end = (steps - reach).clamp(min=0), (steps + reach + 1).clamp(max=size)

    def summed(x: Tensor) -> Tensor:
        until = F.pad(x.cumsum(2), (0, 0, 1, 0))
        return until[:, :, end] - until[:, :, first]

    weight = there.to(values.dtype)
    return summed(values * weight) / summed(weight).clamp(min=1)


def others(values: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """For each face the mean and the maximum over the other faces that are present at the same time.

    Args:
        values: (batch, face, time, channel).
        there: (batch, face, time, 1) bool.

    Returns:
        Both of the shape of `values`; where there is no other face, 0 and `ABSENT`, which is also the least maximum.
    """
    weight = there.to(values.dtype)
    present = values * weight
    count = weight.sum(1, keepdim=True) - weight
    mean = (present.sum(1, keepdim=True) - present) / count.clamp(min=1)
    candidates = torch.where(there, values, ABSENT)
    nobody = torch.full_like(values[:, :1], ABSENT)  # so that there is another face always
    first, second = torch.cat((candidates, nobody), dim=1).topk(2, dim=1).values.unbind(1)
    highest = torch.where(candidates == first.unsqueeze(1), second.unsqueeze(1), first.unsqueeze(1))
    return mean, highest.clamp(min=ABSENT)
