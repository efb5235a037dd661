"""The Short-Term Encoder: one residual network for the audio and one for the face crops of a clip.

Alcázar et al., "Active Speakers in Context", CVPR 2020, section 3.1. State-dict names and shapes are those of the
published weights; they must not change.
"""

import copy
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from core.clip_utils import CLASSES
from core.runtime.errors import UserError

if TYPE_CHECKING:  # it takes a second to import
    from torchvision.models import ResNet

STAGES = ("bn1", "layer1", "layer2", "layer3", "layer4")  # of a torchvision ResNet; each stream has its own
EMBEDDING_SIZE = 128  # per stream, between the pooled features and the classifiers


class TwoStreamResNet(nn.Module):
    """Two residual networks, each with its own classifier, and a joint classifier on top of both; random weights.

    Args:
        block: torchvision's BasicBlock or Bottleneck.
        layers: (4,) blocks in each stage of a stream.
        rgb_stack_size: clip length, in frames, odd.
        num_classes: logits of each classifier.

    Attributes:
        rgb_stack_size: clip length, in frames.
        feature_size: length of the feature vector of both streams together (1024 with basic blocks, 4096 with
            bottlenecks).

    Raises:
        UserError: the clip length is even.
    """

    def __init__(self, block: type[nn.Module], layers: Sequence[int], rgb_stack_size: int, num_classes: int = CLASSES):
        from torchvision.models import ResNet  # here: it takes a second to import

        super().__init__()
        if rgb_stack_size < 1 or rgb_stack_size % 2 == 0:
            raise UserError(
                f"clip length {rgb_stack_size}: it must be an odd number of frames (the labelled frame and as many on "
                "either side), such as 11"
            )
        trunk = ResNet(block, layers)
        stream_size = trunk.fc.in_features
        self.rgb_stack_size = rgb_stack_size
        self.feature_size = 2 * stream_size

        self.audio_conv1 = _first_convolution(1)
        # The copies are of both batch norms and stages, so that the streams share no parameter.
        self.a_bn1, self.a_layer1, self.a_layer2, self.a_layer3, self.a_layer4 = _stages(trunk)
        self.video_conv1 = _first_convolution(3 * rgb_stack_size)
        self.v_bn1, self.v_layer1, self.v_layer2, self.v_layer3, self.v_layer4 = _stages(trunk)
        # Shared by the streams: none of the three has parameters.
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.avgpool = nn.AdaptiveAvgPool2d(1)

        self.fc_128_a = nn.Linear(stream_size, EMBEDDING_SIZE)
        self.fc_128_v = nn.Linear(stream_size, EMBEDDING_SIZE)
        self.fc_final = nn.Linear(2 * EMBEDDING_SIZE, num_classes)
        self.fc_aux_a = nn.Linear(EMBEDDING_SIZE, num_classes)
        self.fc_aux_v = nn.Linear(EMBEDDING_SIZE, num_classes)

    def forward(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Score the middle frame of each clip.

        Args:
            audio: (batch, 1, coefficient, step) float32, MFCC of the clip's audio: 13 coefficients, 100 steps a second.
                With (n * batch, ...) each clip is paired with n pieces of audio, audio[i * batch + j] with video[j];
                the frames go through their stream once, and all outputs but the third have n * batch rows.
            video: (batch, 3 * clip, height, width) float32, the clip's RGB frames in order, stacked along the
                channels, scaled to [0, 1] and normalised. Any height and width.

        Returns:
            Logits of (not speaking, speaking) of the face from both streams, (batch, 2); of anybody in the frame,
            from the audio alone, (batch, 2); of the face, from the video alone, (batch, 2); and the features
            (batch, feature_size), the audio half first. With another num_classes that many logits.
        """
        a = self.maxpool(self.relu(self.a_bn1(self.audio_conv1(audio))))
        a = self.a_layer4(self.a_layer3(self.a_layer2(self.a_layer1(a))))
        v = self.maxpool(self.relu(self.v_bn1(self.video_conv1(video))))
        v = self.v_layer4(self.v_layer3(self.v_layer2(self.v_layer1(v))))
        a, v = self.avgpool(a).flatten(1), self.avgpool(v).flatten(1)
        joint, audio_logits, video_logits = self.heads(a, v)
        copies = len(a) // len(v)  # 1 unless mismatched audio is given
        return joint, audio_logits, video_logits, torch.cat((a, v.repeat(copies, 1)), dim=1)

    def heads(self, audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The logits of the streams' features: (n * batch, feature_size / 2) and (batch, feature_size / 2) float32.

        Returns:
            The first three of `forward`.
        """
        a, v = self.relu(self.fc_128_a(audio)), self.relu(self.fc_128_v(video))
        copies = len(a) // len(v)
        return self.fc_final(torch.cat((a, v.repeat(copies, 1)), dim=1)), self.fc_aux_a(a), self.fc_aux_v(v)


def start_from_resnet(model: TwoStreamResNet, trunk: "ResNet") -> None:
    """Let both streams begin with the weights of a trained image network of the same blocks.

    The video stream's first convolution is the image network's, repeated for each stacked frame; the audio stream's is
    its channel mean.
    """
    kernel = trunk.conv1.weight
    with torch.no_grad():
        model.audio_conv1.weight.copy_(kernel.mean(dim=1, keepdim=True))
        model.video_conv1.weight.copy_(kernel.repeat(1, model.rgb_stack_size, 1, 1))
    for stream, name in itertools.product("av", STAGES):
        getattr(model, f"{stream}_{name}").load_state_dict(getattr(trunk, name).state_dict())


def start_from_motion(model: TwoStreamResNet) -> None:
    """Let the video stream begin with what changes in a clip and not with what is there.

    Every filter of its first convolution is made the same for red, green and blue and to sum to zero over the frames:
    a clip of one still frame gives zero. With few identities to learn from, a network that begins with appearance
    memorises faces; this is only where it begins, the filters are free to learn anything.
    """
    weight = model.video_conv1.weight
    with torch.no_grad():
        filters = weight.view(len(weight), model.rgb_stack_size, 3, *weight.shape[2:])
        filters = filters.mean(dim=2, keepdim=True).expand_as(filters) * 3**0.5  # the variance as it was
        weight.copy_((filters - filters.mean(dim=1, keepdim=True)).reshape(weight.shape))


def _first_convolution(channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's ResNets
    return convolution


def _stages(trunk: "ResNet") -> list[nn.Module]:
    return [copy.deepcopy(getattr(trunk, name)) for name in STAGES]
