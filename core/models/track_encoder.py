"""What LR-ASD and Light-ASD share: whole face tracks in, scores and features of every frame out.

Both run a small convolutional encoder over the faces and one over the audio's MFCCs, fuse the two, and run a GRU over
the sequence forward and another one backward. State-dict names are those of the published weights.
"""

from torch import Tensor, nn

from core.clip_utils import CLASSES

FEATURE_SIZE = 128
FACE_MEAN, FACE_STD = 0.4161, 0.1688  # of grey faces scaled to 0-1 (published)
NORM = {"eps": 0.001, "momentum": 0.01}  # of every batch norm (published)


class TrackEncoder(nn.Module):
    """An encoder of whole tracks.

    Args:
        model: holds, under the published names,
            `visualEncoder`, faces (batch, time, 112, 112) -> embeddings (batch, time, 128);
            `audioEncoder`, MFCCs (batch, 4 * time, 13) -> embeddings (batch, time, 128);
            `fuse(audio, visual)`, both embeddings in one, frame by frame;
            `forward_gru(fused, state)`, the output of the GRU that runs from first to last, and its state at the end;
            `backward_gru(fused, forward, state)`, the features (batch, time, 128) by the GRU that runs from last to
            first, and its state at the beginning. `forward` is the output of the other one; states begin as None, and
            connect the blocks of a long track.
            `visual_context`, `audio_context`: frames on either side that an embedding depends on;
            `state_size`: of a GRU.
    """

    feature_size = FEATURE_SIZE

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.lossAV = _Classifier()
        self.lossV = _Classifier()

    def forward(self, mfcc: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score every frame of tracks of one length.

        Args:
            mfcc: (batch, 4 * time, 13) float32, `core.inputs.mfcc.track_mfcc` of the tracks' audio at 25 frames a
                second.
            faces: (batch, time, 112, 112), grey, 0 to 255, of any type.

        Returns:
            Logits of (not speaking, speaking), (batch, time, 2); the same from the faces alone, which serve
            training; and the features, (batch, time, 128).
        """
        visual = self.model.visualEncoder(faces)
        fused = self.model.fuse(self.model.audioEncoder(mfcc), visual)
        forward, _ = self.model.forward_gru(fused, None)
        features, _ = self.model.backward_gru(fused, forward, None)
        return self.lossAV.FC(features), self.lossV.FC(visual), features


class Forward(nn.Module):
    """The first half of what follows the embeddings: (audio, visual, state) -> (output, state).

    Embeddings and output are (batch, time, ...), states (1, batch, `state_size`), zeros at the beginning.
    """

    def __init__(self, encoder: TrackEncoder):
        super().__init__()
        self.model = encoder.model

    def forward(self, audio: Tensor, visual: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.forward_gru(self.model.fuse(audio, visual), state)


class Backward(nn.Module):
    """The second half: (audio, visual, output of the first, state) -> (logits, features, state), shapes likewise."""

    def __init__(self, encoder: TrackEncoder):
        super().__init__()
        self.model, self.classifier = encoder.model, encoder.lossAV.FC

    def forward(self, audio: Tensor, visual: Tensor, forward: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features, state = self.model.backward_gru(self.model.fuse(audio, visual), forward, state)
        return self.classifier(features), features, state


class VisualEncoder(nn.Module):
    """Three blocks; pools between them halve height and width; a maximum over both is left at the end."""

    def __init__(self, block: type[nn.Module]):
        super().__init__()
        self.block1 = block(1, 32, down=True)
        self.block2 = block(32, 64)
        self.block3 = block(64, 128)
        self.pool = nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))

    def forward(self, faces: Tensor) -> Tensor:
        """(batch, time, height, width), grey, 0 to 255, of any type -> (batch, time, 128)."""
        maps = ((faces.float() / 255 - FACE_MEAN) / FACE_STD).unsqueeze(1)
        maps = self.block3(self.pool(self.block2(self.pool(self.block1(maps)))))
        return maps.amax(dim=(3, 4)).transpose(1, 2)


class AudioEncoder(nn.Module):
    """Three blocks; pools between them halve the time; a mean over the coefficients is left at the end."""

    def __init__(self, block: type[nn.Module]):
        super().__init__()
        self.block1 = block(1, 32)
        self.block2 = block(32, 64)
        self.block3 = block(64, 128)
        self.pool = nn.MaxPool2d((1, 3), stride=(1, 2), padding=(0, 1))

    def forward(self, mfcc: Tensor) -> Tensor:
        """(batch, 4 * time, coefficient) -> (batch, time, 128)."""
        maps = mfcc.transpose(1, 2).unsqueeze(1)
        maps = self.block3(self.pool(self.block2(self.pool(self.block1(maps)))))
        return maps.mean(dim=2).transpose(1, 2)


class _Classifier(nn.Module):
    """A linear layer under the published name."""

    def __init__(self) -> None:
        super().__init__()
        self.FC = nn.Linear(FEATURE_SIZE, CLASSES)


def convolution(inputs: int, outputs: int, size: tuple[int, ...], stride: tuple[int, ...] | int = 1) -> nn.Module:
    """A convolution over two or three axes that keeps their lengths but for the stride; without bias."""
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[len(size)]
    layer = kind(inputs, outputs, size, stride, padding=tuple(side // 2 for side in size), bias=False)
    nn.init.kaiming_normal_(layer.weight)
    return layer
