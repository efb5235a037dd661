"""The two-stream encoders by depth, with random weights, ImageNet's, or those of a file."""

from pathlib import Path

from core.models.two_stream import TwoStreamResNet
from core.models.weights import load_weights
from core.runtime.errors import UserError


def resnet18_two_streams(pretrained: bool | str | Path = False, rgb_stack_size: int = 11) -> TwoStreamResNet:
    """The published encoder: two ResNet-18 streams, 1024 features.

    Args:
        pretrained: False for random weights, True for torchvision's ImageNet weights (downloaded once), or the path
            of a file with the state dict of a torchvision ResNet-18.
        rgb_stack_size: clip length, in frames, odd.

    Raises:
        UserError: the clip length is even, or the weights could not be downloaded or are of another network.
    """
    return _two_streams("resnet18", pretrained, rgb_stack_size)


def resnet34_two_streams(pretrained: bool | str | Path = False, rgb_stack_size: int = 11) -> TwoStreamResNet:
    """Two ResNet-34 streams, 1024 features; arguments as `resnet18_two_streams`."""
    return _two_streams("resnet34", pretrained, rgb_stack_size)


def resnet50_two_streams(pretrained: bool | str | Path = False, rgb_stack_size: int = 11) -> TwoStreamResNet:
    """Two ResNet-50 streams, 4096 features; arguments as `resnet18_two_streams`."""
    return _two_streams("resnet50", pretrained, rgb_stack_size)


def _two_streams(resnet: str, pretrained: bool | str | Path, rgb_stack_size: int) -> TwoStreamResNet:
    from torchvision import models  # here: it takes a second to import

    trunk = models.get_model(resnet)
    if pretrained is True:
        imagenet = models.get_model_weights(resnet).IMAGENET1K_V1
        try:
            trunk.load_state_dict(imagenet.get_state_dict(progress=False, check_hash=True))
        except (OSError, RuntimeError) as error:  # no network; a damaged download
            raise UserError(
                f"the ImageNet weights could not be downloaded from {imagenet.url} ({error}). Two ways out: "
                "'pretrained': False starts from random weights; 'pretrained': '/path/to/file.pth' reads a local copy "
                "of that file"
            ) from error
    elif pretrained:
        load_weights(trunk, pretrained, f"torchvision {resnet} state dict")
    return TwoStreamResNet(trunk, rgb_stack_size, trained=bool(pretrained))
