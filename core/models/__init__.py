"""The networks, and the names by which the configuration picks an encoder."""

from collections.abc import Callable

from torch import nn

from core.errors import UserError
from core.models.context import ASC_Net
from core.models.two_stream import resnet18_two_streams, resnet34_two_streams, resnet50_two_streams

__all__ = [
    "BACKBONES",
    "ASC_Net",
    "backbone",
    "make_encoder",
    "resnet18_two_streams",
    "resnet34_two_streams",
    "resnet50_two_streams",
]

# Each constructor takes (pretrained, rgb_stack_size).
BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "resnet18_two_streams": resnet18_two_streams,
    "resnet34_two_streams": resnet34_two_streams,
    "resnet50_two_streams": resnet50_two_streams,
}


def backbone(name: str) -> Callable[..., nn.Module]:
    """The constructor of the encoder called `name`.

    Raises:
        UserError: there is no encoder of that name; the message lists the names.
    """
    try:
        return BACKBONES[name]
    except (KeyError, TypeError):
        raise UserError(f"unknown backbone {name!r}: choose one of {', '.join(sorted(BACKBONES))}") from None


def make_encoder(name: str | Callable[..., nn.Module], pretrained: bool | str, clip_length: int) -> nn.Module:
    """The encoder that the configuration names, or makes with a constructor of its own.

    Args:
        name: one of `BACKBONES`, or a callable that takes (pretrained, clip length), as old configurations have it.
        pretrained: see `resnet18_two_streams`.
        clip_length: frames of a clip, odd.
    """
    constructor = name if callable(name) else backbone(name)
    return constructor(pretrained, clip_length)
