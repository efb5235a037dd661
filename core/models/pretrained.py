"""The two-stream encoders by depth, with random weights, ImageNet's, or those of a file."""

from pathlib import Path

from core.clip_utils import CLASSES
from core.models.two_stream import TwoStreamResNet, start_from_resnet
from core.models.weights import load_weights
from core.runtime.errors import UserError

DEPTHS = {  # torchvision's names of a block and of the networks: blocks in each stage
    "resnet18": ("BasicBlock", [2, 2, 2, 2]),
    "resnet34": ("BasicBlock", [3, 4, 6, 3]),
    "resnet50": ("Bottleneck", [3, 4, 6, 3]),
}


def resnet18_two_streams(
    pretrained: bool | str | Path = False, progress: bool = True, rgb_stack_size: int = 11, num_classes: int = CLASSES
) -> TwoStreamResNet:
    """The published encoder: two ResNet-18 streams, 1024 features.

    Args:
        pretrained: False for random weights, True for torchvision's ImageNet weights (downloaded once), or the path
            of a file with the state dict of a torchvision ResNet-18.
        progress: show the download of ImageNet weights.
        rgb_stack_size: clip length, in frames, odd.
        num_classes: logits of each classifier.

    Raises:
        UserError: the clip length is even, or the weights could not be downloaded or are of another network.
    """
    return _two_streams("resnet18", pretrained, progress, rgb_stack_size, num_classes)


def resnet18_two_streams_forward(
    pretrained_weights_path: str | Path, progress: bool = True, rgb_stack_size: int = 11, num_classes: int = CLASSES
) -> TwoStreamResNet:
    """The published encoder with the weights of a file, in evaluation mode.

    Args:
        pretrained_weights_path: of a state dict of this encoder: published ones, or an epoch of STE_train.py.
        progress, rgb_stack_size, num_classes: as `resnet18_two_streams`.

    Raises:
        UserError: the clip length is even, or the file is absent, damaged, or of another network or clip length.
    """
    model = resnet18_two_streams(False, progress, rgb_stack_size, num_classes)
    load_weights(model, pretrained_weights_path)
    return model.eval()


def resnet34_two_streams(
    pretrained: bool | str | Path = False, progress: bool = True, rgb_stack_size: int = 11, num_classes: int = CLASSES
) -> TwoStreamResNet:
    """Two ResNet-34 streams, 1024 features; arguments as `resnet18_two_streams`."""
    return _two_streams("resnet34", pretrained, progress, rgb_stack_size, num_classes)


def resnet50_two_streams(
    pretrained: bool | str | Path = False, progress: bool = True, rgb_stack_size: int = 11, num_classes: int = CLASSES
) -> TwoStreamResNet:
    """Two ResNet-50 streams, 4096 features; arguments as `resnet18_two_streams`."""
    return _two_streams("resnet50", pretrained, progress, rgb_stack_size, num_classes)


def _two_streams(
    resnet: str, pretrained: bool | str | Path, progress: bool, rgb_stack_size: int, num_classes: int
) -> TwoStreamResNet:
    from torchvision import models  # here: it takes a second to import

    if not isinstance(progress, bool):  # a clip length in its place would leave the default one
        raise UserError(
            f"{resnet}_two_streams: progress, the second argument, is {progress!r}: expected True or False; give the "
            "clip length by name, as rgb_stack_size=11"
        )
    block, layers = DEPTHS[resnet]
    model = TwoStreamResNet(getattr(models.resnet, block), layers, rgb_stack_size, num_classes)
    if pretrained:
        trunk = models.get_model(resnet)
        if pretrained is True:
            imagenet = models.get_model_weights(resnet).IMAGENET1K_V1
            try:
                trunk.load_state_dict(imagenet.get_state_dict(progress=progress, check_hash=True))
            except (OSError, RuntimeError) as error:  # no network; a damaged download
                raise UserError(
                    f"the ImageNet weights could not be downloaded from {imagenet.url} ({error}). Two ways out: "
                    "'pretrained': False starts from random weights; 'pretrained': '/path/to/file.pth' reads a local "
                    "copy of that file"
                ) from error
        else:
            load_weights(trunk, pretrained, f"torchvision {resnet} state dict")
        start_from_resnet(model, trunk)
    return model
