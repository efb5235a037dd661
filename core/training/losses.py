"""The losses of both stages: from a batch on the device to what is minimised."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from core.dataset import ClipBatch, ContextBatch
from core.inputs.clip_mfcc import clip_mfcc
from core.inputs.loading import Batch
from core.inputs.shot_batches import ShotBatch
from core.inputs.transforms import Draws, augment, stack
from core.track_dataset import TrackBatch

Criterion = Callable[[Tensor, Tensor], Tensor]  # logits (n, 2) and labels (n,) to a scalar mean


@dataclass(frozen=True)
class BatchLoss:
    """The loss of a batch, and what is logged of it.

    Attributes:
        loss: what is minimised, a scalar: a mean over what is labelled.
        parts: further scalars to log.
        logits: head -> (B, 2), for average precision and accuracy; the first head is the main one.
        labels: (B,) int64.
    """

    loss: Tensor
    parts: dict[str, Tensor]
    logits: dict[str, Tensor]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


LossFunction = Callable[[nn.Module, Batch, Draws | None], BatchLoss]


@dataclass(frozen=True)
class EncoderLoss:
    """The encoder's loss: cross-entropies of the joint, the audio and the video classifier, weights 1 (published).

    The audio classifier's target is whether anybody in the frame speaks. Where the batch has mismatched audio, the
    joint classifier is also trained to call a face with audio from elsewhere not speaking; the frames go through the
    network once for all their audio, so this costs next to nothing. It balances the two streams and gives the audio
    stream more to learn from; it cannot teach lip sync, since the joint classifier is linear on the two streams'
    embeddings.

    Attributes:
        criterion: usually nn.CrossEntropyLoss().
        mfcc_windows: windows of a clip's MFCC.
        crop_scale, jitter, jitter_frames: see `transforms.augment`.
        mismatch_weight: weight of the mismatched pairs' mean loss.
    """

    criterion: Criterion
    mfcc_windows: int
    crop_scale: tuple[float, float] = (0.5, 1.0)
    jitter: float = 0.4
    jitter_frames: bool = True
    mismatch_weight: float = 1.0

    def __call__(self, model: nn.Module, batch: ClipBatch, draws: Draws | None) -> BatchLoss:
        clips = batch.frames[batch.windows]  # (batch, frame, height, width, 3)
        augmentation = draws, self.crop_scale, self.jitter, self.jitter_frames
        faces = stack(clips) if draws is None else augment(clips, *augmentation)
        mfcc = clip_mfcc(batch.audio.flatten(0, 1), batch.audio_lengths.flatten(), self.mfcc_windows)
        joint, audio, video, _ = model(mfcc, faces)
        own = len(batch.labels)
        parts = {
            "av_loss": self.criterion(joint[:own], batch.labels),
            "audio_loss": self.criterion(audio, batch.audio_labels.flatten()),
            "video_loss": self.criterion(video, batch.labels),
        }
        loss = sum(parts.values())
        if len(joint) > own:
            not_speaking = torch.zeros_like(batch.labels).repeat(len(joint) // own - 1)
            parts["mismatch_loss"] = self.criterion(joint[own:], not_speaking)
            loss = loss + self.mismatch_weight * parts["mismatch_loss"]
        return BatchLoss(loss, parts, {"av": joint[:own], "audio": audio[:own], "video": video}, batch.labels)


@dataclass(frozen=True)
class TrackLoss:
    """The loss of an encoder of whole tracks: cross-entropies of every frame, of both streams and of the video alone.

    In training the logits are divided by a temperature that falls from epoch to epoch (Light-ASD; 1 in LR-ASD). The
    published binary cross-entropy of the softmax's speaking output is the cross-entropy of the two logits.

    Attributes:
        criterion: usually nn.CrossEntropyLoss().
        temperature: of the first epoch.
        temperature_drop: subtracted from it in each further epoch.
        video_weight: weight of the loss of the video alone.
    """

    criterion: Criterion
    temperature: float = 1.0
    temperature_drop: float = 0.0
    video_weight: float = 0.5

    def __call__(self, model: nn.Module, batch: TrackBatch, draws: Draws | None) -> BatchLoss:
        joint, video, _ = model(batch.mfcc, batch.faces)
        joint, video, labels = joint.flatten(0, 1), video.flatten(0, 1), batch.labels.flatten()
        temperature = 1.0 if draws is None else self.temperature - self.temperature_drop * (batch.epoch - 1)
        parts = {
            "av_loss": self.criterion(joint.float() / temperature, labels),
            "video_loss": self.criterion(video.float() / temperature, labels),
        }
        loss = parts["av_loss"] + self.video_weight * parts["video_loss"]
        return BatchLoss(loss, parts, {"av": joint, "video": video}, labels)


@dataclass(frozen=True)
class ContextLoss:
    """The context network's loss: cross-entropy of the target's label."""

    criterion: Criterion

    def __call__(self, model: nn.Module, batch: ContextBatch, draws: Draws | None) -> BatchLoss:
        contexts = batch.features[batch.index]  # (batch, clip, speaker, feature)
        logits = model(contexts.permute(0, 3, 1, 2).float())
        return BatchLoss(self.criterion(logits, batch.labels), {}, {"context": logits}, batch.labels)


@dataclass(frozen=True)
class ShotLoss:
    """The residual context network's loss: cross-entropy of all faces at all times."""

    criterion: Criterion

    def __call__(self, model: nn.Module, batch: ShotBatch, draws: Draws | None) -> BatchLoss:
        odds = model(batch.cues, batch.present).float()  # in training with the members of the network before the rest
        present = batch.present.expand_as(odds)
        labels = batch.labels.expand_as(odds)[present]
        logits = torch.stack((-odds[present], odds[present]), dim=1) / 2
        return BatchLoss(self.criterion(logits, labels), {}, {"context": logits}, labels)
