"""The networks, and the names by which the configuration picks an encoder."""

from collections.abc import Callable

from torch import nn

from core.models.context import ASC_Net, SelfAttentionModule
from core.models.light_asd import light_asd
from core.models.lr_asd import lr_asd
from core.models.pretrained import (
    resnet18_two_streams,
    resnet18_two_streams_forward,
    resnet34_two_streams,
    resnet50_two_streams,
)
from core.models.residual_context import ResidualContext
from core.models.track_encoder import TrackEncoder
from core.models.two_stream import TwoStreamResNet

__all__ = [
    "BACKBONES",
    "TRACK_ENCODERS",
    "ASC_Net",
    "ResidualContext",
    "SelfAttentionModule",
    "TwoStreamResNet",
    "light_asd",
    "lr_asd",
    "make_encoder",
    "reads_whole_tracks",
    "resnet18_two_streams",
    "resnet18_two_streams_forward",
    "resnet34_two_streams",
    "resnet50_two_streams",
]

# Encoders of clips: each constructor takes pretrained and rgb_stack_size by these names.
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet18_two_streams": resnet18_two_streams,
    "resnet34_two_streams": resnet34_two_streams,
    "resnet50_two_streams": resnet50_two_streams,
}

# Encoders of whole tracks: each constructor takes nothing.
TRACK_ENCODERS: dict[str, Callable[[], TrackEncoder]] = {"light_asd": light_asd, "lr_asd": lr_asd}


def reads_whole_tracks(name: str | Callable[..., nn.Module]) -> bool:
    """Whether the encoder that the configuration names reads whole tracks; otherwise it reads clips."""
    return name in TRACK_ENCODERS


def make_encoder(name: str | Callable[..., nn.Module], pretrained: bool | str, clip_length: int) -> nn.Module:
    """The encoder of clips that the configuration names, or makes with a constructor of its own.

    Args:
        name: one of `BACKBONES`, or a callable that takes pretrained and rgb_stack_size by these names, as the
            published code calls it.
        pretrained: see `resnet18_two_streams`.
        clip_length: frames of a clip, odd.
    """
    constructor = name if callable(name) else BACKBONES[name]
    return constructor(pretrained=pretrained, rgb_stack_size=clip_length)
