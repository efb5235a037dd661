"""The static networks of ava_asd: an audio tower, a video tower, or both with a joint output.

The towers are those of Chung, "Naver at ActivityNet Challenge 2019" (arXiv 1906.10555), as the published Keras code
has them; layers, names of modes and outputs are that code's. Weights: `load_weights`, from PyTorch and Keras files.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ava_asd.keras_weights import is_hdf5, read_keras
from ava_asd.layers import SameConv2d, SameConv3d, SamePool2d, flatten, initialise, pooled
from core.clip_utils import CLASSES
from core.models.weights import compare, read_state_dict
from core.runtime.errors import UserError

# Mode -> outputs, in the order of the logits.
MODES = {
    "s_a": ("audio",),
    "s_v": ("video",),
    "s_av": ("audio", "video", "main"),
    "s_av_fc": ("audio", "video", "main"),
}
AUDIO_VISUAL_MODES = ("s_av", "s_av_fc")
EMBEDDING = 256
JOINT = 512
DROPOUT = 0.5
L2 = 1e-4
WHAT = "weights file"  # what messages call it

# (kernel, out channels, size of the pool behind it) of the six convolutions.
AUDIO_LAYERS = (
    ((3, 3), 64, 1),
    ((3, 3), 192, 3),
    ((3, 3), 384, 1),
    ((3, 3), 256, 1),
    ((3, 3), 256, 3),
    ((5, 4), 512, 1),
)
VIDEO_LAYERS = (
    ((5, 7, 7), 96, 3),
    ((1, 5, 5), 256, 3),
    ((1, 3, 3), 256, 1),
    ((1, 3, 3), 256, 1),
    ((1, 3, 3), 256, 3),
    ((1, 6, 6), 512, 1),
)


class Tower(nn.Module):
    """Six convolutions, each with a ReLU, and the pools between them; a dense layer of 256 on top, or the flat maps.

    Args:
        layers: `AUDIO_LAYERS` or `VIDEO_LAYERS`.
        channels: of the input.
        sides: rows and columns of the input.
        frames: frames of a clip; 1 for audio.
        dense: whether the dense layer is there.

    Attributes:
        features: how many numbers it gives.
    """

    def __init__(self, layers: Sequence, channels: int, sides: Sequence[int], frames: int = 1, *, dense: bool):
        super().__init__()
        self.frames = frames
        self.pools = [SamePool2d(pool) if pool > 1 else nn.Identity() for _, _, pool in layers]
        for number, (kernel, out_channels, pool) in enumerate(layers, start=1):
            if len(kernel) == 2:
                layer = SameConv2d(channels, out_channels, kernel)
            else:
                layer = SameConv3d(channels, out_channels, kernel, frames)
            self.add_module(f"conv{number}", layer)
            channels, sides = out_channels, pooled(sides, pool)
        self.features = frames * channels * math.prod(sides)
        self.fc7 = _dense(self.features, EMBEDDING) if dense else None
        if dense:
            self.features = EMBEDDING

    @property
    def convolutions(self) -> list[nn.Module]:
        """The convolutions, in order."""
        return [self.get_submodule(f"conv{number}") for number in range(1, len(self.pools) + 1)]

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, 1, coefficient, vector) or (batch, channel, frame, row, column) -> (batch, feature)."""
        if maps.ndim == 5:
            maps = maps.transpose(1, 2).flatten(0, 1)
        for convolution, pool in zip(self.convolutions, self.pools, strict=True):
            # The published order is ReLU, pool. The result is the same, computed on fewer numbers.
            maps = F.relu(convolution(maps, pool), inplace=True)
        features = flatten(maps, self.frames)
        return features if self.fc7 is None else F.relu(self.fc7(features))


class StaticNetwork(nn.Module):
    """A network of any mode: its towers, in the audio-visual modes an output on each, and an output on top of all.

    Its weights are random. The shapes that are not given are the published ones.

    Args:
        mode: one of `MODES`.
        audio_shape: (1, coefficients, MFCC vectors) of a sample.
        video_shape: (channels, frames, height, width) of a sample.

    Attributes:
        mode: one of `MODES`.
        outputs: names of the outputs, in the order of the logits.

    Raises:
        UserError: the mode is unknown.
    """

    def __init__(
        self, mode: str, audio_shape: Sequence[int] = (1, 13, 20), video_shape: Sequence[int] = (1, 5, 100, 100)
    ):
        super().__init__()
        if mode not in MODES:
            raise UserError(f"mode {mode!r}: expected one of {', '.join(MODES)}")
        self.mode, self.outputs = mode, MODES[mode]
        dense = mode != "s_av_fc"
        channels, *sides = audio_shape
        self.audio = Tower(AUDIO_LAYERS, channels, sides, dense=dense) if "audio" in self.outputs else None
        channels, frames, *sides = video_shape
        self.video = Tower(VIDEO_LAYERS, channels, sides, frames, dense=dense) if "video" in self.outputs else None
        features = sum(tower.features for tower in self.towers)
        self.fc1 = _dense(features, JOINT) if mode == "s_av" else None
        if len(self.towers) == 2:
            self.a_out = _dense(self.audio.features, CLASSES)
            self.v_out = _dense(self.video.features, CLASSES)
        self.main_out = _dense(JOINT if mode == "s_av" else features, CLASSES)

    @property
    def towers(self) -> list[Tower]:
        """The towers of the mode, audio before video."""
        return [tower for tower in (self.audio, self.video) if tower is not None]

    def forward(self, audio: Tensor | None = None, video: Tensor | None = None) -> tuple[Tensor, ...]:
        """Logits of a batch.

        Args:
            audio: (batch, 1, coefficient, vector) float32, normalised MFCCs; ignored by s_v.
            video: (batch, channel, frame, row, column) float32, 0 to 1; ignored by s_a.

        Returns:
            For each of `outputs` (batch, class) float32: of s_a and s_v one; of the audio-visual modes a_out, v_out and
            main_out, of the audio, the video and both.
        """
        inputs = (self.audio, audio), (self.video, video)
        features = [tower(maps) for tower, maps in inputs if tower is not None]
        if len(features) == 1:
            return (self.main_out(features[0]),)
        joint = F.dropout(torch.cat(features, dim=1), DROPOUT, self.training)
        if self.fc1 is not None:
            joint = F.dropout(F.relu(self.fc1(joint)), DROPOUT, self.training)
        return self.a_out(features[0]), self.v_out(features[1]), self.main_out(joint)

    def penalty(self) -> Tensor:
        """What the L2 regularisation adds to the loss, a scalar.

        In the audio-visual modes 1e-4 times the sum of the squared kernels of all convolutions, as Keras' l2(1e-4)
        adds it, without biases; 0 in the others.
        """
        if len(self.towers) == 1:
            return torch.zeros((), device=self.main_out.weight.device)
        kernels = [layer.weight for tower in self.towers for layer in tower.convolutions]
        return L2 * sum(kernel.square().sum() for kernel in kernels)


def load_weights(model: StaticNetwork, path: str | Path) -> None:
    """Load a file's weights into `model`, all of them and nothing else.

    Args:
        model: changed in place; its weights stay on their device.
        path: a state dict written by torch.save, or a Keras HDF5 file (weights alone, or a whole model).

    Raises:
        UserError: the file is absent, unreadable or of another kind, or holds weights of another mode or shape.
    """
    if is_hdf5(path):
        weights = {name: torch.from_numpy(array) for name, array in read_keras(path).items()}
    else:
        weights = read_state_dict(path, WHAT)
    mode = _mode_of(weights)
    if mode not in (None, model.mode):
        raise UserError(
            f"{WHAT} {path}: weights of mode {mode}, and the network is of mode {model.mode}; set 'mode: {mode}' in "
            f"the configuration, or give weights of mode {model.mode}"
        )
    compare(weights, model.state_dict(), path, WHAT)
    model.load_state_dict(weights)


def _mode_of(weights: Mapping[str, Tensor]) -> str | None:
    """The mode that a state dict's names imply; None where they are of something else."""
    towers = {name.split(".")[0] for name in weights} & {"audio", "video"}
    if len(towers) == 2:
        return "s_av" if "fc1.weight" in weights else "s_av_fc"
    return {"audio": "s_a", "video": "s_v"}[towers.pop()] if towers else None


def _dense(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    initialise(layer)
    return layer
