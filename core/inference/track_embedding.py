"""A whole-track encoder in evaluation: embeddings of faces and audio, and their scores, in bounded memory."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from core.clip_utils import MFCC_PER_FRAME
from core.inference.engine import compiled, one_thread
from core.inputs.mfcc import COEFFICIENTS
from core.models.track_encoder import TrackEncoder

BLOCK = 150  # faces in the visual encoder at a time, some 150 MB; half as many are 8 % slower, twice as many 4 % faster
LONG_BLOCK = 2048  # frames of audio, or of embeddings, at a time: those are small


class TrackEmbedder:
    """A copy of a whole-track encoder in evaluation; its results are the model's whatever the length of a track.

    Tracks go through the convolutions in blocks that overlap by as many frames as an embedding depends on.

    Args:
        model: `lr_asd()` or `light_asd()`; not changed, and later changes to it have no effect on the copy.
        device: where the copy runs; on a CPU on as many threads as PyTorch uses now.
        dtype: of the visual encoder, nearly all of the work: torch.float32 (logits within 1e-4 of the model's), or
            torch.bfloat16, twice as fast on a CPU that has it (logits within 0.02 on the reference input).

    Attributes:
        device: where results are.
        visual_context, audio_context: frames on either side that an embedding depends on.
    """

    def __init__(self, model: TrackEncoder, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32):
        self.device = torch.device(device)
        model = copy.deepcopy(model).eval().requires_grad_(False).to(self.device)
        self._model, self._classifier, self._video_classifier = model.model, model.lossAV.FC, model.lossV.FC
        self.visual_context, self.audio_context = self._model.visual_context, self._model.audio_context
        faces = torch.zeros(1, 5, 16, 16, dtype=torch.uint8, device=self.device)
        mfcc = torch.zeros(1, 5 * MFCC_PER_FRAME, COEFFICIENTS, device=self.device)
        self._visual = compiled(self._model.visualEncoder, faces, self.device, dtype)
        self._audio = compiled(self._model.audioEncoder, mfcc, self.device)

    def visual(self, faces: Tensor) -> Tensor:
        """Embed the faces of whole tracks.

        Args:
            faces: (batch, time, 112, 112) uint8, grey.

        Returns:
            (batch, time, 128) float32. Before the first and after the last frame the network sees nothing (zeros), as
            at the ends of a track.
        """
        return _in_blocks(self._visual, faces, BLOCK, self.visual_context)

    def audio(self, mfcc: Tensor) -> Tensor:
        """Embed the audio of whole tracks: (batch, time, 128) float32.

        Args:
            mfcc: (batch, 4 * time, 13) float32, `core.inputs.mfcc.track_mfcc`.
        """
        return _in_blocks(self._audio, mfcc, LONG_BLOCK, self.audio_context, MFCC_PER_FRAME)

    def stream(self) -> "FaceStream":
        """For a track whose faces come one by one: the embeddings that `visual` gives of all of them."""
        return FaceStream(self._visual, BLOCK, self.visual_context)

    def stream_windows(self, frames: int) -> "FaceStream":
        """The same for a track cut into windows of some frames, each embedded as a track of its own."""
        return FaceStream(self._visual, frames, 0)

    @torch.inference_mode()
    @one_thread()
    def score(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Score tracks by the embeddings of their audio and faces, (batch, time, 128) each.

        Returns:
            Logits, (batch, time, [not speaking, speaking]), and the features that they are made of,
            (batch, time, 128), float32.
        """
        blocks = list(zip(audio.split(LONG_BLOCK, 1), visual.split(LONG_BLOCK, 1), strict=True))
        forward, state = [], None
        for block in blocks:
            output, state = self._model.forward_gru(self._model.fuse(*block), state)
            forward.append(output)
        features, state = [], None
        for block in reversed(blocks):
            output, state = self._model.backward_gru(self._model.fuse(*block), forward.pop(), state)
            features.append(output)
        together = torch.cat(features[::-1], dim=1)
        return self.logits(together), together

    def rescore(self, audio: Tensor, visual: Tensor) -> Tensor:
        """The logits alone that `score` gives."""
        return self.score(audio, visual)[0]

    @torch.inference_mode()
    def video_logits(self, visual: Tensor) -> Tensor:
        """By the faces alone: embeddings (..., 128) -> logits (..., [not speaking, speaking]) float32."""
        return self._video_classifier(visual)

    @torch.inference_mode()
    def logits(self, features: Tensor) -> Tensor:
        """The score layer, which is linear: features (..., 128) -> logits (..., [not speaking, speaking])."""
        return self._classifier(features)


class FaceStream:
    """Embeds faces that come one by one, in blocks; made by `TrackEmbedder`.

    Args:
        embed: faces (1, time, 112, 112) uint8 -> embeddings (1, time, 128).
        block: faces whose embeddings are taken from one call of `embed`.
        context: faces on either side of them that it needs besides.
    """

    def __init__(self, embed: Callable[[Tensor], Tensor], block: int, context: int):
        self.embed, self.block, self.context = embed, block, context
        self.faces: list[np.ndarray] = []  # those that embeddings to come depend on
        self.embedded = 0  # how many of these have their embeddings already
        self.embeddings: list[Tensor] = []

    def push(self, face: np.ndarray) -> None:
        """Take the next face, (112, 112) uint8, grey."""
        self.faces.append(face)
        if len(self.faces) == self.embedded + self.block + self.context:
            self._embed(self.block)

    def finish(self) -> Tensor:
        """The embeddings of all faces, (time, 128) float32. There must have been a face, and none may follow."""
        if rest := len(self.faces) - self.embedded:
            self._embed(rest)
        return torch.cat(self.embeddings)

    def _embed(self, count: int) -> None:
        """Embed the next faces, and drop those that no later one needs."""
        embeddings = self.embed(torch.from_numpy(np.stack(self.faces))[None])[0]
        end = self.embedded + count
        self.embeddings.append(embeddings[self.embedded : end])
        needless = max(0, end - self.context)
        del self.faces[:needless]
        self.embedded = end - needless


def _in_blocks(
    embed: Callable[[Tensor], Tensor], values: Tensor, block: int, context: int, per_frame: int = 1
) -> Tensor:
    """Embed (batch, time * per_frame, ...) in blocks of frames, with the context that these need on either side."""
    time, parts = values.shape[1] // per_frame, []
    for start in range(0, time, block):
        first, last = max(0, start - context), min(time, start + block + context)
        embeddings = embed(values[:, per_frame * first : per_frame * last])
        parts.append(embeddings[:, start - first :][:, :block])
    return torch.cat(parts, dim=1)
