"""The context network: who speaks, given what the faces around the target look and sound like before and after.

Alcázar et al., "Active Speakers in Context", CVPR 2020, section 3.2. State-dict names and shapes are those of the
published weights; they must not change.
"""

import torch
from torch import Tensor, nn

from core.clip_utils import CLASSES


class SelfAttentionModule(nn.Module):
    """Pairwise attention of all positions (time step, speaker) of a context, with a residual connection.

    Args:
        inplanes: channels of the input and output.
        planes: channels of the three projections.
    """

    def __init__(self, inplanes: int, planes: int):
        super().__init__()
        self.theta = nn.Conv2d(inplanes, planes, kernel_size=1)
        self.theta_bn = nn.BatchNorm2d(planes)
        self.phi = nn.Conv2d(inplanes, planes, kernel_size=1)
        self.phi_bn = nn.BatchNorm2d(planes)
        self.gamma = nn.Conv2d(inplanes, planes, kernel_size=1)
        self.gamma_bn = nn.BatchNorm2d(planes)
        self.omega = nn.Conv2d(planes, inplanes, kernel_size=1)
        self.omega_bn = nn.BatchNorm2d(inplanes)

    def forward(self, x: Tensor) -> Tensor:
        """Each position of a context attends to all others: (batch, feature, clip, speaker) -> the same shape."""
        batch, _, clips, speakers = x.shape
        # (batch, embedding, position), position = clip * speakers + speaker
        theta = self.theta_bn(self.theta(x)).flatten(2)
        phi = self.phi_bn(self.phi(x)).flatten(2)
        gamma = self.gamma_bn(self.gamma(x)).flatten(2)
        affinity = theta.transpose(1, 2) @ phi  # (batch, position, position)
        # One softmax over the whole map, not one for each position: the published weights were trained so.
        affinity = affinity.flatten(1).softmax(dim=1).view_as(affinity)
        attended = (gamma @ affinity.transpose(1, 2)).view(batch, -1, clips, speakers)
        return x + self.omega_bn(self.omega(attended))


class ASC_Net(nn.Module):
    """Attention over a context, an LSTM along its positions, a linear classifier on all LSTM outputs.

    Args:
        clip_number: L, time steps in a context.
        candidate_speakers: S, speakers in a context, the target included.
        hidden_units: channels of the attention's projections and of the LSTM's state.
        feature_size: length of the encoder's feature vector.
    """

    def __init__(
        self, clip_number: int = 11, candidate_speakers: int = 3, hidden_units: int = 128, *, feature_size: int = 1024
    ):
        super().__init__()
        self.sat = SelfAttentionModule(feature_size, hidden_units)
        self.lstm = nn.LSTM(feature_size, hidden_units, batch_first=True)
        self.fc_final = nn.Linear(clip_number * candidate_speakers * hidden_units, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Score the target at the middle time step of each context.

        Args:
            x: (batch, feature, clip, speaker) float32, the encoder's features; speaker 0 is the target.

        Returns:
            (batch, 2) logits of (not speaking, speaking).
        """
        x = self.sat(x)
        sequence = x.flatten(2).transpose(1, 2)  # (batch, position, feature), all speakers of a time step in a row
        output, _ = self.lstm(sequence)
        return self.fc_final(torch.flatten(output, start_dim=1))
