"""The context network: who speaks, given what the faces around the target look and sound like before and after.

Alcázar et al., "Active Speakers in Context", CVPR 2020, section 3.2. State-dict names and shapes are those of the
published weights; they must not change.
"""

import torch
from torch import Tensor, nn

from core.clip_utils import CLASSES

EMBEDDING_SIZE = 128  # of the attention's projections and of the LSTM's state


class PairwiseAttention(nn.Module):
    """Self-attention over all positions (time step, speaker) of a context, with a residual connection.

    Args:
        feature_size: channels of the input and output.
        embedding_size: channels of the three projections.
    """

    def __init__(self, feature_size: int, embedding_size: int = EMBEDDING_SIZE):
        super().__init__()
        self.theta = nn.Conv2d(feature_size, embedding_size, kernel_size=1)
        self.theta_bn = nn.BatchNorm2d(embedding_size)
        self.phi = nn.Conv2d(feature_size, embedding_size, kernel_size=1)
        self.phi_bn = nn.BatchNorm2d(embedding_size)
        self.gamma = nn.Conv2d(feature_size, embedding_size, kernel_size=1)
        self.gamma_bn = nn.BatchNorm2d(embedding_size)
        self.omega = nn.Conv2d(embedding_size, feature_size, kernel_size=1)
        self.omega_bn = nn.BatchNorm2d(feature_size)

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
        feature_size: length of the encoder's feature vector.
    """

    def __init__(self, clip_number: int = 11, candidate_speakers: int = 3, feature_size: int = 1024):
        super().__init__()
        self.sat = PairwiseAttention(feature_size)
        self.lstm = nn.LSTM(feature_size, EMBEDDING_SIZE, batch_first=True)
        self.fc_final = nn.Linear(clip_number * candidate_speakers * EMBEDDING_SIZE, CLASSES)

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
