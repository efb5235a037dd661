"""A whole-track encoder in evaluation: embeddings of faces and audio, and their scores, in bounded memory."""

import platform
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import numpy as np

from core.clip_utils import COEFFICIENTS, MFCC_PER_FRAME
from core.download.weights_catalogue import find_ranges
from core.inference.engine import Function, Networks, Parts, best_precision, in_openvino, open_networks
from core.runtime.errors import UserError

if TYPE_CHECKING:
    from core.models.track_encoder import TrackEncoder

BLOCK = 150  # faces in the visual encoder at a time, some 150 MB; half as many are 8 % slower, twice as many 4 % faster
NO_RANGES = MappingProxyType({})
LONG_BLOCK = 2048  # frames of audio, or of embeddings, at a time: those are small


def multiplies_integers(device: str = "cpu") -> bool:
    """Whether networks run in OpenVINO on a device that is faster with 8 bit integers.

    OpenVINO says of all processors that they multiply them; measured are those of the x86-64 family, with instructions
    for it and without."""
    return in_openvino(device) and platform.machine() == "x86_64"


def visual_precision(asked: str, weights_sha256: str, device: str) -> tuple[str, Mapping[str, float]]:
    """The precision that a visual encoder is run in, and its ranges for 8 bit integers; none for other precisions.

    Args:
        asked: "fp32", "bf16", "int8", or "auto" for the fastest.
        weights_sha256: of the file of the encoder's weights.
        device: where it runs.

    Raises:
        UserError: "int8" is asked for, which these weights, the device or the processor cannot do.
    """
    if asked not in ("auto", "int8"):
        return asked, {}
    ranges = find_ranges(weights_sha256)
    if ranges and multiplies_integers(device):
        return "int8", ranges
    if asked == "auto":
        return best_precision(device), {}
    reason = "it needs OpenVINO, and a CPU of the x86-64 family"
    if not ranges:
        reason = "it is for the published AVA weights of whole-track encoders, and these are others"
    raise UserError(f"precision int8 cannot be used: {reason}; choose fp32 or bf16")


def parts_of(model: "TrackEncoder", ranges: Mapping[str, float] = NO_RANGES) -> Parts:
    """The networks of which a `TrackEmbedder` is made.

    Args:
        model: `lr_asd()` or `light_asd()`.
        ranges: of the visual encoder, for the precision "int8", see `core.models.quantized.quantized`.
    """
    import torch

    from core.models.quantized import quantized
    from core.models.track_encoder import Backward, Forward

    size, inner = model.feature_size, model.model
    embeddings, output, state = (
        torch.zeros(2, 5, size),
        torch.zeros(2, 5, inner.state_size),
        torch.zeros(1, 2, inner.state_size),
    )
    networks = {
        "visual": (quantized(inner.visualEncoder, ranges), (torch.zeros(1, 5, 16, 16, dtype=torch.uint8),)),
        "audio": (inner.audioEncoder, (torch.zeros(1, 5 * MFCC_PER_FRAME, COEFFICIENTS),)),
        "forward": (Forward(model), (embeddings, embeddings, state)),
        "backward": (Backward(model), (embeddings, embeddings, output, state)),
        "logits": (model.lossAV.FC, (embeddings[0],)),
        "video_logits": (model.lossV.FC, (embeddings[0],)),
    }
    numbers = ("visual_context", "audio_context", "state_size")
    return Parts(networks, {name: getattr(inner, name) for name in numbers} | {"feature_size": size})


class TrackEmbedder:
    """A whole-track encoder in evaluation; its results are the model's whatever the length of a track.

    Tracks go through the convolutions in blocks that overlap by as many frames as an embedding depends on.

    Args:
        networks: opened, of `parts_of`.

    Attributes:
        feature_size: of the features.
        visual_context, audio_context: frames on either side that an embedding depends on.
    """

    def __init__(self, networks: Networks):
        numbers = networks.numbers
        self.feature_size, self._state_size = numbers["feature_size"], numbers["state_size"]
        self.visual_context, self.audio_context = numbers["visual_context"], numbers["audio_context"]
        self._visual = networks.function("visual")
        # The steps of the others are too short to be shared.
        others = ("audio", "forward", "backward", "logits", "video_logits")
        self._audio, self._forward, self._backward, self._logits, self._video_logits = (
            networks.function(name, threads=1) for name in others
        )

    @classmethod
    def of(
        cls,
        model: "TrackEncoder",
        device: str = "cpu",
        precision: str = "fp32",
        ranges: Mapping[str, float] = NO_RANGES,
    ) -> Self:
        """A copy of a network in memory; later changes to the network have no effect.

        Args:
            model: `lr_asd()` or `light_asd()`.
            device: where the copy runs.
            precision: of the visual encoder, nearly all of the work: "fp32" (logits within 1e-4 of the model's);
                "bf16", twice as fast on a CPU that has it (logits within 0.02 on the reference input); or "int8", three
                times as fast (within 0.05).
            ranges: for "int8"; `visual_precision` gives both.
        """
        return cls(open_networks(lambda: parts_of(model, ranges), device, precisions={"visual": precision}))

    def visual(self, faces: np.ndarray) -> np.ndarray:
        """Embed the faces of whole tracks.

        Args:
            faces: (batch, time, 112, 112) uint8, grey.

        Returns:
            (batch, time, 128) float32. Before the first and after the last frame the network sees nothing (zeros), as
            at the ends of a track.
        """
        return _in_blocks(self._visual, faces, BLOCK, self.visual_context)

    def audio(self, mfcc: np.ndarray) -> np.ndarray:
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

    def score(self, audio: np.ndarray, visual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Score tracks by the embeddings of their audio and faces, (batch, time, 128) each.

        Returns:
            Logits, (batch, time, [not speaking, speaking]), and the features that they are made of,
            (batch, time, 128), float32.
        """
        blocks = [slice(start, start + LONG_BLOCK) for start in range(0, audio.shape[1], LONG_BLOCK)]
        start = np.zeros((1, len(audio), self._state_size), np.float32)
        forward, state = [], start
        for block in blocks:
            output, state = self._forward(audio[:, block], visual[:, block], state)
            forward.append(output)
        scored, state = [], start
        for block in reversed(blocks):
            *both, state = self._backward(audio[:, block], visual[:, block], forward.pop(), state)
            scored.append(both)
        logits, features = (np.concatenate(parts, axis=1) for parts in zip(*reversed(scored), strict=True))
        return logits, features

    def rescore(self, audio: np.ndarray, visual: np.ndarray) -> np.ndarray:
        """The logits alone that `score` gives."""
        return self.score(audio, visual)[0]

    def video_logits(self, visual: np.ndarray) -> np.ndarray:
        """By the faces alone: embeddings (time, 128) -> logits (time, [not speaking, speaking]) float32."""
        return self._video_logits(visual)[0]

    def logits(self, features: np.ndarray) -> np.ndarray:
        """The score layer, which is linear: features (time, 128) -> logits (time, [not speaking, speaking])."""
        return self._logits(features)[0]


class FaceStream:
    """Embeds faces that come one by one, in blocks; made by `TrackEmbedder`.

    Args:
        embed: faces (1, time, 112, 112) uint8 -> embeddings (1, time, 128).
        block: faces whose embeddings are taken from one call of `embed`.
        context: faces on either side of them that it needs besides.
    """

    def __init__(self, embed: Function, block: int, context: int):
        self.embed, self.block, self.context = embed, block, context
        self.faces: list[np.ndarray] = []  # those that embeddings to come depend on
        self.embedded = 0  # how many of these have their embeddings already
        self.embeddings: list[np.ndarray] = []

    def push(self, face: np.ndarray) -> None:
        """Take the next face, (112, 112) uint8, grey."""
        self.faces.append(face)
        if len(self.faces) == self.embedded + self.block + self.context:
            self._embed(self.block)

    def finish(self) -> np.ndarray:
        """The embeddings of all faces, (time, 128) float32. There must have been a face, and none may follow."""
        if rest := len(self.faces) - self.embedded:
            self._embed(rest)
        return np.concatenate(self.embeddings)

    def _embed(self, count: int) -> None:
        """Embed the next faces, and drop those that no later one needs."""
        embeddings = self.embed(np.stack(self.faces)[None])[0][0]
        end = self.embedded + count
        self.embeddings.append(embeddings[self.embedded : end])
        needless = max(0, end - self.context)
        del self.faces[:needless]
        self.embedded = end - needless


class GrowingEmbeddings:
    """Embeddings of what comes frame by frame; those near its end change as more comes.

    Args:
        embed: (1, time * per_frame, ...) -> (1, time, feature).
        context: frames on either side that an embedding depends on.
        per_frame: rows of values to a frame.
    """

    def __init__(self, embed: Callable[[np.ndarray], np.ndarray], context: int, per_frame: int = 1):
        self.embed, self.context, self.per_frame = embed, context, per_frame
        self.values: np.ndarray | None = None  # from frame `first` on
        self.final: np.ndarray | None = None  # embeddings from frame `begin` on that no later frame changes
        self.first = self.begin = 0

    def push(self, values: np.ndarray) -> None:
        """Take what the next frames have, (time * per_frame, ...)."""
        self.values = values if self.values is None else np.concatenate((self.values, values))

    def since(self, begin: int) -> np.ndarray:
        """The embeddings of the frames from one on, (time, feature) float32, as of a track that ends now; those before
        are forgotten."""
        known = self.begin + (0 if self.final is None else len(self.final))  # frames whose embeddings are final
        embeddings = self.embed(self.values[None])[0][known - self.first :]
        if self.final is not None:
            embeddings = np.concatenate((self.final, embeddings))
        embeddings, self.begin = embeddings[begin - self.begin :], begin
        final = max(known, self.first + len(self.values) // self.per_frame - self.context)
        self.final = embeddings[: max(0, final - begin)]
        first = max(self.first, final - self.context)
        self.values, self.first = self.values[self.per_frame * (first - self.first) :], first
        return embeddings


def _in_blocks(embed: Function, values: np.ndarray, block: int, context: int, per_frame: int = 1) -> np.ndarray:
    """Embed (batch, time * per_frame, ...) in blocks of frames, with the context that these need on either side."""
    time, parts = values.shape[1] // per_frame, []
    for start in range(0, time, block):
        first, last = max(0, start - context), min(time, start + block + context)
        [embeddings] = embed(values[:, per_frame * first : per_frame * last])
        parts.append(embeddings[:, start - first :][:, :block])
    return np.concatenate(parts, axis=1)
