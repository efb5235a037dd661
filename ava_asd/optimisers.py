"""Optimisers by the names of the configuration, with Keras' defaults, which the published settings rest on."""

from collections.abc import Iterable
from functools import partial

import torch
from torch import nn


class DecayingSGD(torch.optim.SGD):
    """SGD with Nesterov momentum and a learning rate that falls with every step, as Keras' `decay` argument has it.

    At step i, from 0, the learning rate is base_lr / (1 + decay * i). Steps are counted in the parameter groups, so
    the state dict carries them. Keras keeps the learning rate in its velocity, PyTorch multiplies it in at the step;
    that differs by the change of the rate within the momentum's memory, here 1e-5 of a step.

    Args:
        parameters: what is trained.
        lr: learning rate of the first step.
        momentum: share of the velocity that is kept.
        decay: per step.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.9, decay: float = 1e-6):
        super().__init__(parameters, lr=lr, momentum=momentum, nesterov=True, fused=True)  # the same numbers, at once
        for group in self.param_groups:
            group |= {"base_lr": lr, "decay": decay, "steps": 0}

    def step(self, closure=None):
        """Take one step."""
        for group in self.param_groups:
            group["lr"] = group["base_lr"] / (1 + group["decay"] * group["steps"])
            group["steps"] += 1
        return super().step(closure)


# The rules are PyTorch's, the numbers Keras' defaults (tf.keras.optimizers of TensorFlow 2.2) where they differ.
# `core.optimization.make_optimizer` calls them.
_EPSILON = 1e-7
OPTIMISERS = {
    "SGD": DecayingSGD,
    "Adam": partial(torch.optim.Adam, eps=_EPSILON),
    "RMSprop": partial(torch.optim.RMSprop, alpha=0.9, eps=_EPSILON),
    "Adagrad": partial(torch.optim.Adagrad, initial_accumulator_value=0.1, eps=_EPSILON),
    "Adadelta": partial(torch.optim.Adadelta, rho=0.95, eps=_EPSILON),
    "Adamax": partial(torch.optim.Adamax, eps=_EPSILON),
    "Nadam": partial(torch.optim.NAdam, eps=_EPSILON),
}
