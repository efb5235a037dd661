"""Batch norms whose statistics are those of the global batch, whatever the number of processes."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class CPUSyncBatchNorm(_BatchNorm):
    """Batch norm over the inputs of all processes; PyTorch's SyncBatchNorm does the same, but not on the CPU."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Any number of axes will do."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, any further axes) -> the same shape; in evaluation an ordinary batch norm."""
        if not self.training:
            return super().forward(x)
        count = torch.tensor([x.numel() / x.shape[1]], dtype=x.dtype)
        dist.all_reduce(count)
        others = [axis for axis in range(x.ndim) if axis != 1]
        along_channels = (-1, *(1 for _ in range(x.ndim - 2)))
        mean = all_reduce(x.sum(others)) / count
        centred = x - mean.view(along_channels)
        variance = all_reduce(centred.square().sum(others)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)  # unbiased, as batch norms keep
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale.view(along_channels) + self.bias.view(along_channels)


def synchronise_batch_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """Make a model's batch norms take their statistics over all processes; names and shapes stay as they are."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__class__ = CPUSyncBatchNorm
    return model
