"""Whole-track encoders for tests."""

import torch
from torch import nn

from core.models.track_encoder import TrackEncoder

# Published weights: key in the reference numbers -> file
PUBLISHED = {
    "light_asd_ava": "light-asd_pretrain_AVA_CVPR.model",
    "light_asd_talkset": "light-asd_finetuning_TalkSet.model",
    "lr_asd_ava": "lr-asd_pretrain_AVA.model",
    "lr_asd_talkset": "lr-asd_finetuning_TalkSet.model",
}
SIDE = 16  # pixels of a test face: the networks take any size, and small ones are fast


def used(model: TrackEncoder) -> TrackEncoder:
    """In evaluation mode, with batch norms as after training: fresh ones would hide a wrong folding."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()
