"""Networks for tests: whole-track encoders and their input, weights."""

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.inference.track_embedding import multiplies_integers

# Published weights: key in the reference numbers -> file
PUBLISHED = {
    "light_asd_ava": "light-asd_pretrain_AVA_CVPR.model",
    "light_asd_talkset": "light-asd_finetuning_TalkSet.model",
    "lr_asd_ava": "lr-asd_pretrain_AVA.model",
    "lr_asd_talkset": "lr-asd_finetuning_TalkSet.model",
}
needs_integers = pytest.mark.skipif(
    not multiplies_integers(), reason="8 bit integers need OpenVINO and an x86-64 processor"
)
SIDE = 16  # pixels of a test face: the networks take any size, and small ones are fast


def used(model: nn.Module) -> nn.Module:
    """In evaluation mode, with batch norms as after training: fresh ones change next to nothing."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


def track(batch: int, time: int, side: int = SIDE) -> tuple[Tensor, Tensor]:
    """MFCCs (batch, 4 * time, 13) and faces (batch, time, side, side) uint8, drawn at random."""
    generator = torch.Generator().manual_seed(time)
    mfcc = 5 * torch.randn(batch, 4 * time, 13, generator=generator)
    return mfcc, torch.randint(0, 256, (batch, time, side, side), generator=generator, dtype=torch.uint8)


def hash_weights(model: nn.Module) -> None:
    """The weights of the reference numbers: drawn from a generator seeded by each tensor's name."""
    weights = {}
    for name, tensor in model.state_dict().items():
        draw = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(tensor.shape)).astype(np.float32)
        if name.endswith("num_batches_tracked"):
            draw = np.zeros((), np.int64)
        elif name.endswith("running_var"):
            draw = 0.5 + np.abs(draw)
        elif name.endswith("running_mean"):
            draw = 0.1 * draw
        elif draw.ndim == 1:
            draw = 0.1 * draw + (1 if name.endswith("weight") else 0)
        else:
            draw = draw * np.sqrt(2 / np.prod(draw.shape[1:]))
        weights[name] = torch.from_numpy(np.asarray(draw)).to(tensor.dtype)
    model.load_state_dict(weights)
