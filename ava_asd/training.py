"""What a training of a static model adds to `core.optimization`: its samples and its loss."""

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import nn

from ava_asd.augmentation import augment_audio, augment_faces
from ava_asd.config import Config
from ava_asd.models import StaticNetwork
from ava_asd.samples import balanced, share
from ava_asd.windows import WindowBatch, Windows, scaled
from core.inputs.transforms import Draws
from core.runtime.errors import UserError
from core.training.losses import BatchLoss

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16"}  # dtype of the configuration -> of `make_accelerator`


class TrainingSet:
    """The training samples of each epoch, drawn anew.

    With `resample` an epoch has as many samples of either class: train_keep_ratio of those of the class that has fewer.
    Without, it has train_keep_ratio of all. The ratio counts as 1 for a subset, which was drawn with it.

    Args:
        windows: of the split "train".
        seed: of the draws.

    Attributes:
        items: samples in an epoch.

    Raises:
        UserError: balanced draws are asked for, and all samples are of one class.
    """

    def __init__(self, windows: Windows, seed: int = 0):
        self.windows, self.seed = windows, seed
        config = windows.config
        self.resample = config.resample
        self.ratio = 1.0 if config.annotation_type == "subset" else config.train_keep_ratio
        if self.resample and len(np.unique(windows.class_id)) < 2:
            raise UserError(
                f"all {len(windows):,} training samples are of one class, so that no balanced draw can be made: set "
                "'resample: False', or extract other videos"
            )
        self._drawn = 1, self.draw(1)
        self.items = len(self._drawn[1])

    def draw(self, epoch: int) -> np.ndarray:
        """The rows of `windows` of an epoch, (item,) int64, ascending."""
        generator = np.random.default_rng((self.seed, epoch))
        if self.resample:
            return balanced(self.windows.class_id, self.ratio, generator)
        return share(len(self.windows), self.ratio, generator)

    def __getitems__(self, keys: list[tuple[int, int]]) -> WindowBatch:
        """The batch of the keys (epoch, item), all of one epoch."""
        epoch, rows = self._drawn
        if epoch != keys[0][0]:
            epoch, rows = self._drawn = keys[0][0], self.draw(keys[0][0])
        return self.windows.load(rows[[item for _, item in keys]])


@dataclass(frozen=True)
class StaticLoss:
    """The loss of a batch, as `core.optimization` calls for it: the outputs' weighted cross-entropies and the penalty.

    Attributes:
        network: gives the names of the outputs and the penalty.
        config: weights of the outputs, classes, and whether to augment.
    """

    network: StaticNetwork
    config: Config

    def __call__(self, model: nn.Module, batch: WindowBatch, draws: Draws | None) -> BatchLoss:
        """Loss, and logits with the column of speaking last; the main output, which is the last one, comes first.

        `model` is the network, or what wraps it for several processes.
        """
        audio, video = batch.audio, scaled(batch.video)
        if draws is not None and self.config.augment:
            audio, video = augment_audio(audio, draws), augment_faces(video, draws)
        logits = dict(zip(self.network.outputs, model(audio, video), strict=True))
        losses = {name: F.cross_entropy(output.float(), batch.labels) for name, output in logits.items()}
        loss = sum(self.config.loss_weights[name] * part for name, part in losses.items()) + self.network.penalty()
        parts = {f"{name}_loss": part for name, part in losses.items()}
        for name in self.network.outputs[:-1]:  # the main output's is counted by the loop
            parts[f"{name}_accuracy"] = (logits[name].argmax(1) == batch.labels).float().mean()
        speaking = self.config.speaking_class
        ordered = {name: logits[name] if speaking == 1 else logits[name].flip(1) for name in reversed(logits)}
        return BatchLoss(loss, parts, ordered, (batch.labels == speaking).long())
