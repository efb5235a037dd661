"""Batch norms whose statistics are those of all processes' shares of a batch."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def share_batch_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """A network with its batch norms replaced by shared ones of the same weights, for training on a device."""
    if device.type != "cpu":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = SharedBatchNorm
    return model


class SharedBatchNorm(_BatchNorm):
    """What nn.SyncBatchNorm is on accelerators, for the CPU and any number of dimensions."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise (batch, channel, ...); processes may have another length of any axis but the channels'."""
        if not self.training:
            return super().forward(input)
        x = input.float()
        axes, shape = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
        own = x.new_full((1,), x.numel() / x.shape[1])
        total, count = _Sum.apply(torch.cat([x.sum(axes), own])).tensor_split([-1])
        mean = total / count
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any will do."""


class _Sum(torch.autograd.Function):
    """The sum over processes of a tensor of each."""

    @staticmethod
    def forward(context, own: Tensor) -> Tensor:
        total = own.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient: Tensor) -> Tensor:
        return _Sum.forward(context, gradient.contiguous())
