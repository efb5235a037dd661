"""What training minimises: the cross-entropies of the outputs, weighted, and the L2 penalty."""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor

from ava_asd.models import StaticNetwork


def weighted_loss(
    model: StaticNetwork, logits: Sequence[Tensor], labels: Tensor, weights: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch.

    Args:
        model: gives the names of the outputs and the L2 penalty.
        logits: (batch, class) for each of the model's outputs.
        labels: (batch,) int64 classes.
        weights: name of an output -> weight of its cross-entropy.

    Returns:
        The loss, a scalar, and the mean cross-entropy of each output as `<output>_loss`, not weighted.
    """
    parts = {name: F.cross_entropy(output.float(), labels) for name, output in zip(model.outputs, logits, strict=True)}
    loss = sum(weights[name] * part for name, part in parts.items()) + model.penalty()
    return loss, {f"{name}_loss": part for name, part in parts.items()}
