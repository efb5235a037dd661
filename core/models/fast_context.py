"""The context network made fast for evaluation: the same numbers, by fewer operations."""

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from core.models.context import ASC_Net

# Places (of whole contexts) scored at a time, some 6 kB each: what stays in a processor's cache, and what keeps a GPU
# busy. By trial on two cores, 33 positions a context: 13,600 contexts/s with 8192, 9,600 with twice as many.
CPU_POSITIONS = 8192
GPU_POSITIONS = 131072
CELL_GATE = 2  # PyTorch's order of the LSTM's gates: input, forget, cell, output


class Projections(NamedTuple):
    """What a context network knows of feature rows, each on its own; see `ContextScorer`."""

    attention: Tensor  # (row, 128 + 128 + 512) float32: theta, phi, W_ih omega gamma
    gates: Tensor  # (row, 512) float32: W_ih x + b


class ContextScorer:
    """A context network for evaluation that projects each feature row once, however many contexts it appears in.

    In evaluation mode everything before the LSTM is linear but the softmax. With p a position of a context, x_p its
    feature row, and batch norms folded, the network computes

        attended_p = sum over q of softmax(theta_p . phi_q) gamma_q
        gates_p = W_ih (x_p + omega attended_p) + b
                = (W_ih x_p + b) + sum over q of softmax(theta_p . phi_q) (W_ih omega gamma_q)

    and theta, phi, W_ih omega gamma and W_ih x + b depend on the row alone. The results are the network's within 1e-4.

    Args:
        network: not changed, and later changes to it have no effect here. The scorer stays on the network's device.
    """

    @torch.no_grad()
    def __init__(self, network: ASC_Net):
        sat, lstm = network.sat, network.lstm
        theta, phi, gamma, omega = (
            _folded_linear(getattr(sat, name), getattr(sat, f"{name}_bn"))
            for name in ("theta", "phi", "gamma", "omega")
        )
        self.state_size = lstm.hidden_size
        # tanh(x) = 2 sigmoid(2 x) - 1: with the cell gate's rows doubled, one sigmoid serves all four gates.
        scale = torch.ones(4, self.state_size, dtype=torch.float64, device=lstm.weight_ih_l0.device)
        scale[CELL_GATE] = 2
        scale = scale.view(-1, 1)
        weight_ih = scale * lstm.weight_ih_l0
        bias = scale[:, 0] * (lstm.bias_ih_l0 + lstm.bias_hh_l0)
        to_gates = weight_ih @ omega[0]

        weight = torch.cat((theta[0], phi[0], to_gates @ gamma[0], weight_ih))
        offset = torch.cat((theta[1], phi[1], to_gates @ gamma[1], weight_ih @ omega[1] + bias))
        self.weight = weight.T.float().contiguous()  # (feature, projection)
        self.offset = offset.float()
        self.attention_sizes = [len(theta[0]), len(phi[0]), len(to_gates)]
        self.recurrent = (scale * lstm.weight_hh_l0).T.float().contiguous()  # (state, gate)
        self.classifier = copy.deepcopy(network.fc_final)

    @torch.inference_mode()
    def project(self, features: Tensor) -> Projections:
        """All that the network needs to know of each feature row.

        Args:
            features: (row, feature), any floating dtype.

        Returns:
            Projections of the rows, on the scorer's device, 5,120 bytes a row.
        """
        features = features.to(self.weight.device, torch.float32)
        split = sum(self.attention_sizes)
        return Projections(
            torch.addmm(self.offset[:split], features, self.weight[:, :split]),
            torch.addmm(self.offset[split:], features, self.weight[:, split:]),
        )

    @torch.inference_mode()
    def logits(self, projections: Projections, index: Tensor) -> Tensor:
        """Score contexts made of projected rows.

        Args:
            projections: of all rows that the contexts draw on, from `project`.
            index: (context, clip, speaker) int64, the row at each position of a context.

        Returns:
            (context, 2) float32 logits of (not speaking, speaking), on the scorer's device.
        """
        index = index.to(self.weight.device).flatten(1)
        positions = CPU_POSITIONS if index.device.type == "cpu" else GPU_POSITIONS
        parts = index.split(max(1, positions // index.shape[1]))
        return torch.cat([self._score(projections, part) for part in parts])

    def _score(self, projections: Projections, index: Tensor) -> Tensor:
        contexts, positions = index.shape
        rows = projections.attention.index_select(0, index.flatten()).unflatten(0, (contexts, positions))
        gates = projections.gates.index_select(0, index.flatten()).unflatten(0, (contexts, positions))
        theta, phi, attended = rows.split(self.attention_sizes, dim=2)
        affinity = torch.bmm(theta, phi.transpose(1, 2)).flatten(1).softmax(dim=1).view(contexts, positions, positions)
        return self.classifier(self._lstm(gates.baddbmm_(affinity, attended)).flatten(1))

    def _lstm(self, gates: Tensor) -> Tensor:
        """Run the recurrence over input gates (context, position, gate), overwritten; (context, position, state)."""
        outputs = gates.new_empty(*gates.shape[:2], self.state_size)
        cell = gates.new_zeros(len(gates), self.state_size)
        for position in range(gates.shape[1]):
            gate = gates[:, position]
            if position > 0:
                gate.addmm_(outputs[:, position - 1], self.recurrent)
            take, keep, new, give = gate.sigmoid_().split(self.state_size, dim=1)
            cell.mul_(keep).addcmul_(take, new, value=2).sub_(take)
            torch.mul(give, torch.sigmoid(2 * cell).mul_(2).sub_(1), out=outputs[:, position])
        return outputs


def _folded_linear(projection: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out,), float64, of a 1x1 convolution followed by its batch norm."""
    folded = fuse_conv_bn_eval(copy.deepcopy(projection).double().eval(), copy.deepcopy(norm).double().eval())
    return folded.weight.flatten(1), folded.bias
