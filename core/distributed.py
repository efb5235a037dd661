"""Batch norms whose statistics are those of the global batch, whatever the number of processes."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class CPUSyncBatchNorm(nn.BatchNorm2d):
    """Batch norm over the inputs of all processes; PyTorch's SyncBatchNorm does the same, but not on the CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, height, width) -> the same shape; in evaluation an ordinary batch norm."""
        if not self.training:
            return super().forward(x)
        count = torch.tensor([x.numel() / x.shape[1]], dtype=x.dtype)
        dist.all_reduce(count)
        mean = all_reduce(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)  # unbiased, as nn.BatchNorm2d keeps
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[:, None, None] + self.bias[:, None, None]


def synchronise_batch_norms(model: nn.Module, device: torch.device) -> nn.Module:
    """Make a model's batch norms take their statistics over all processes; names and shapes stay as they are."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CPUSyncBatchNorm
    return model
