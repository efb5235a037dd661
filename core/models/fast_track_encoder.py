"""LR-ASD and Light-ASD made fast for evaluation: the same numbers, by fewer operations and in bounded memory."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from core.clip_utils import MFCC_PER_FRAME
from core.models.track_encoder import TrackEncoder, normalise
from core.models.winograd import TAPS, WinogradRows

# Faces in the visual encoder at a time. On a CPU what its first maps take, 0.4 MB a face, stays in the cache: by trial
# 16 to 32 are alike, 150 a tenth slower. A GPU wants more to do at once.
CPU_BLOCK = 24
GPU_BLOCK = 128
LONG_BLOCK = 2048  # frames of sound, or of embeddings, at a time: those are small


class FastTrackEncoder:
    """A copy of a whole-track encoder for evaluation, about twice as fast on a CPU as the model itself.

    Batch norms are folded into the convolutions before them. Convolutions over space run as two-dimensional ones over
    the frames, convolutions over time as two-dimensional ones over (time, place), both on the same channels-last memory
    and both at the speed of the processor's matrix product: what remains is arithmetic. In float32 on a CPU there is
    less of that, too: see `WinogradRows`.

    All methods take one track, (time, ...), or several of one length, (batch, time, ...).

    Args:
        model: `lr_asd()` or `light_asd()`; not changed, and later changes to it have no effect on the copy.
        device: where the copy runs.
        dtype: of the visual encoder, nearly all of the work: torch.float32 (logits within 1e-4 of the model's), or
            torch.bfloat16, 1.6 times as fast on a CPU that has it (logits within 0.02 on the reference input).

    Attributes:
        device: where results are.
        block: faces that are best given to `VisualStream.push` at a time.
        visual_context, audio_context: frames on either side that an embedding depends on.
    """

    def __init__(self, model: TrackEncoder, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32):
        self.device = torch.device(device)
        self.block = CPU_BLOCK if self.device.type == "cpu" else GPU_BLOCK
        self.visual_context = model.model.visual_context
        self.audio_context = model.model.audio_context
        model = copy.deepcopy(model).eval().requires_grad_(False).to(self.device)
        for encoder in (model.model.visualEncoder, model.model.audioEncoder):
            for block in (encoder.block1, encoder.block2, encoder.block3):
                _fold(block)
        fewer_products = self.device.type == "cpu" and dtype == torch.float32
        self._visual = _frame_by_frame(model.model.visualEncoder, fewer_products).to(dtype)
        self._audio = model.model.audioEncoder.to(memory_format=torch.channels_last)
        self._model = model.model
        self._classifier = model.lossAV.FC

    def stream(self) -> "VisualStream":
        """The visual encoder for a track whose faces come block by block."""
        return VisualStream(self._visual, self.device, self.visual_context)

    def visual(self, faces: Tensor) -> Tensor:
        """Embed the faces of whole tracks.

        Args:
            faces: (time, 112, 112) or (batch, time, 112, 112), grey, 0 to 255, of any type.

        Returns:
            (time, 128) or (batch, time, 128) float32. Before the first and after the last frame the network sees
            nothing (zeros), as at the ends of a track.
        """
        stream, time = self.stream(), faces.shape[-3]
        blocks = faces.tensor_split(max(1, time // self.block), dim=-3)
        return torch.cat([stream.push(block, ends=block is blocks[-1]) for block in blocks], dim=-2)

    @torch.inference_mode()
    def audio(self, mfcc: Tensor) -> Tensor:
        """Embed the sound of whole tracks: (time, 128) or (batch, time, 128) float32.

        Args:
            mfcc: (4 * time, 13) or (batch, 4 * time, 13) float32, `core.inputs.mfcc.track_mfcc`.
        """
        batch = mfcc if mfcc.ndim == 3 else mfcc[None]
        time, parts = batch.shape[1] // MFCC_PER_FRAME, []
        for start in range(0, time, LONG_BLOCK):
            first = max(0, start - self.audio_context)
            last = min(time, start + LONG_BLOCK + self.audio_context)
            part = batch[:, MFCC_PER_FRAME * first : MFCC_PER_FRAME * last].to(self.device)
            embedded = self._audio(part.transpose(1, 2).unsqueeze(1))
            parts.append(embedded[:, start - first :][:, :LONG_BLOCK])
        embeddings = torch.cat(parts, dim=1)
        return embeddings if mfcc.ndim == 3 else embeddings[0]

    @torch.inference_mode()
    def score(self, audio: Tensor, visual: Tensor) -> tuple[Tensor, Tensor]:
        """Score tracks by the embeddings of their sound and faces, each (time, 128) or (batch, time, 128).

        Returns:
            Logits of (not speaking, speaking), (time, 2) or (batch, time, 2), and the features that they are made of,
            (time, 128) or (batch, time, 128), float32.
        """
        if audio.ndim == 2:
            logits, features = self.score(audio[None], visual[None])
            return logits[0], features[0]
        blocks = list(zip(audio.split(LONG_BLOCK, 1), visual.split(LONG_BLOCK, 1), strict=True))
        onward, state = [], None
        for block in blocks:
            output, state = self._model.onward(self._model.fuse(*block), state)
            onward.append(output)
        features, state = [], None
        for block in reversed(blocks):
            output, state = self._model.backward(self._model.fuse(*block), onward.pop(), state)
            features.append(output)
        together = torch.cat(features[::-1], dim=1)
        return self.logits(together), together

    @torch.inference_mode()
    def logits(self, features: Tensor) -> Tensor:
        """The score layer, which is linear: features (..., 128) -> logits (..., [not speaking, speaking])."""
        return self._classifier(features)


class VisualStream:
    """The visual encoder along one run of frames: nothing is computed twice, whatever the blocks in which they come.

    Made by `FastTrackEncoder.stream`. It holds the last maps before every convolution over time, some 4 MB.
    """

    def __init__(self, encoder: nn.Module, device: torch.device, context: int):
        shared = (module for module in encoder.modules() if not _remembers(module))
        # Memories of its own; all else is the encoder's.
        self._encoder = copy.deepcopy(encoder, {id(module): module for module in shared})
        self._memories = [layer for layer in self._encoder.modules() if isinstance(layer, _OverTime)]
        self._dtype = next(encoder.parameters()).dtype
        self._device = device
        self.context = context

    @torch.inference_mode()
    def push(self, faces: Tensor, *, ends: bool = False) -> Tensor:
        """Take the next faces and give those embeddings that are complete: all up to `context` frames before the last.

        Args:
            faces: (time, 112, 112) or (batch, time, 112, 112), grey, 0 to 255; more than `context` frames, but for the
                last block.
            ends: these are the run's last faces; all embeddings that are left come, and the next faces begin a new run.

        Returns:
            (time, 128) or (batch, time, 128) float32.
        """
        if faces.ndim == 3:
            return self.push(faces[None], ends=ends)[0]
        for memory in self._memories:
            memory.ends = ends
        maps = normalise(faces.to(self._device)).to(self._dtype)
        return self._encoder(maps.unsqueeze(-1).permute(0, 4, 1, 2, 3)).float()


class _PerFrame(nn.Module):
    """A layer over height and width, run on the frames as on a batch of pictures."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, time, height, width), channels last in memory -> the same."""
        pictures = x.transpose(1, 2).flatten(0, 1)
        return self.layer(pictures).unflatten(0, (len(x), -1)).transpose(1, 2)


class _OverTime(nn.Module):
    """A convolution over time of maps that come block by block.

    Each block gives its part of the sums of all frames that it reaches into; those shared with the next block wait
    for that one's part. Nothing is copied but they.

    Args:
        layer: over (time, place), padded so that it gives `reach` frames more on either side than it takes.
        reach: frames that the result is behind, at least as many as the layer reaches over on either side.
    """

    def __init__(self, layer: nn.Conv2d, reach: int):
        super().__init__()
        self.layer = layer
        self.reach = reach
        self.unfinished: Tensor | None = None  # the last sums, without bias; None before the first block
        self.ends = False  # the next block is the last

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channel, time, height, width), channels last in memory -> the same, `reach` frames behind."""
        sums = self.layer(x.flatten(3)).unflatten(3, x.shape[3:])
        shared = 2 * self.reach
        if self.unfinished is None:
            sums = sums[:, :, self.reach :]  # before the first frame there is none
        else:
            sums[:, :, :shared] += self.unfinished
        if self.ends:
            self.unfinished = None
            return sums[:, :, : -self.reach]
        self.unfinished = sums[:, :, -shared:] - self.layer.bias.view(-1, 1, 1, 1)
        return sums[:, :, :-shared]


def _remembers(module: nn.Module) -> bool:
    return any(isinstance(part, _OverTime) for part in module.modules())


def _fold(block: nn.Module) -> None:
    """Fold batch norms into convolutions; a block's layers are both in turn."""
    layers = list(block.named_children())
    for (convolution_name, convolution), (norm_name, norm) in zip(layers[::2], layers[1::2], strict=True):
        setattr(block, convolution_name, fuse_conv_bn_eval(convolution, norm))
        setattr(block, norm_name, nn.Identity())


def _frame_by_frame(encoder: nn.Module, fewer_products: bool) -> nn.Module:
    """A folded visual encoder with its layers over three axes replaced by ones over two.

    Args:
        fewer_products: make convolutions of 5 by 5 pixels `WinogradRows`, but for those of the first block: with few
            channels the products are not what takes the time.
    """
    for block in (encoder.block1, encoder.block2, encoder.block3):
        for name, layer in list(block.named_children()):
            if name in block.reach:
                reach = block.reach[name]
                flat = _without_axis(layer, 2, (reach + layer.padding[0], 0))
                setattr(block, name, _OverTime(flat, reach))
            elif isinstance(layer, nn.Conv3d):
                flat = _without_axis(layer, 0, layer.padding[1:])
                winograd = fewer_products and block is not encoder.block1 and flat.kernel_size == (TAPS, TAPS)
                setattr(block, name, _PerFrame(WinogradRows(flat) if winograd else flat))
    pool = encoder.pool
    encoder.pool = _PerFrame(nn.MaxPool2d(pool.kernel_size[1:], pool.stride[1:], pool.padding[1:]))
    return encoder


def _without_axis(layer: nn.Conv3d, axis: int, padding: tuple[int, int]) -> nn.Conv2d:
    """A convolution that has extent 1 along an axis of (time, height, width), without that axis.

    Without the width it is one over (time, place), all pixels of a frame in a row.
    """
    size, stride = ([side for i, side in enumerate(sides) if i != axis] for sides in (layer.kernel_size, layer.stride))
    flat = nn.Conv2d(layer.in_channels, layer.out_channels, size, stride, padding)
    flat.weight, flat.bias = nn.Parameter(layer.weight.squeeze(2 + axis), requires_grad=False), layer.bias
    return flat.to(memory_format=torch.channels_last)
