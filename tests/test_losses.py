"""The losses of both stages, by hand with stand-in networks; `test_models` compares with the published numbers."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.dataset import ClipBatch, ContextBatch
from core.inputs.transforms import Draws
from core.models import resnet18_two_streams
from core.track_dataset import TrackBatch
from core.training import losses
from core.training.losses import ContextLoss, EncoderLoss, TrackLoss

CLIPS, FRAMES, SIZE, SAMPLES = 2, 3, 8, 1800


def cross_entropy(logits: np.ndarray, labels: list[int]) -> float:
    logits = np.asarray(logits, np.float64)
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[range(len(labels)), labels]))


def clip_batch(pieces: int = 1) -> ClipBatch:
    source = torch.Generator().manual_seed(0)
    audio_labels = torch.tensor([[1, 1], [0, 1], [1, 0]])[:pieces]
    return ClipBatch(
        frames=torch.randint(0, 256, (4, SIZE, SIZE, 3), dtype=torch.uint8, generator=source),
        windows=torch.tensor([[0, 0, 1], [2, 3, 3]]),
        audio=torch.randint(-1000, 1000, (pieces, CLIPS, SAMPLES), dtype=torch.int16, generator=source),
        audio_lengths=torch.full((pieces, CLIPS), SAMPLES),
        labels=torch.tensor([1, 0]),
        audio_labels=audio_labels,
        rows=torch.arange(CLIPS),
    )


class FixedOutputs(nn.Module):
    """A network that answers with given outputs, float32, and remembers what it was shown."""

    def __init__(self, *outputs: np.ndarray):
        super().__init__()
        self.answer = tuple(torch.tensor(part, dtype=torch.float32) for part in outputs)

    def forward(self, *shown: Tensor) -> tuple[Tensor, ...]:
        self.seen = shown
        return self.answer


def encoder(joint: np.ndarray, audio: np.ndarray, video: np.ndarray) -> FixedOutputs:
    return FixedOutputs(joint, audio, video, np.zeros((len(video), 1)))


@pytest.mark.parametrize("pieces", [1, 3])
def test_the_encoders_loss_is_the_sum_of_its_classifiers_cross_entropies(pieces):
    """Of the faces' labels 1 and 0, and of whether anybody in the audio's frame speaks; 0 with mismatched audio."""
    source = np.random.default_rng(0)
    joint, audio, video = (source.standard_normal((n, 2)) for n in (2 * pieces, 2 * pieces, 2))
    loss = EncoderLoss(nn.CrossEntropyLoss(), mfcc_windows=10, mismatch_weight=0.5)
    result = loss(encoder(joint, audio, video), clip_batch(pieces), None)
    expected = {
        "av_loss": cross_entropy(joint[:2], [1, 0]),
        "audio_loss": cross_entropy(audio, [1, 1, 0, 1, 1, 0][: 2 * pieces]),
        "video_loss": cross_entropy(video, [1, 0]),
    }
    total = sum(expected.values())
    if pieces > 1:
        expected["mismatch_loss"] = cross_entropy(joint[2:], [0] * 4)
        total += 0.5 * expected["mismatch_loss"]
    assert {name: value.item() for name, value in result.parts.items()} == pytest.approx(expected)
    assert result.loss.item() == pytest.approx(total)
    for head, logits in {"av": joint[:2], "audio": audio[:2], "video": video}.items():
        np.testing.assert_allclose(result.logits[head], logits, rtol=1e-6)
    assert result.labels.tolist() == [1, 0]


def test_each_clip_meets_the_audio_that_was_drawn_for_it():
    """Piece i of clip j is the network's audio i * clips + j, the frames are given once."""
    batch = clip_batch(3)
    model = encoder(*(np.zeros((n, 2)) for n in (6, 6, 2)))
    EncoderLoss(nn.CrossEntropyLoss(), mfcc_windows=10)(model, batch, None)
    audio, video = model.seen
    assert (audio.shape, video.shape) == ((6, 1, 13, 10), (2, 3 * FRAMES, SIZE, SIZE))
    alone = losses.clip_mfcc(batch.audio[2, 1:], batch.audio_lengths[2, 1:], 10)
    torch.testing.assert_close(audio[5], alone[0])
    torch.testing.assert_close(video, losses.stack(batch.frames[batch.windows]))

    network = resnet18_two_streams(rgb_stack_size=FRAMES).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(audio, video)[0][5:], network(audio[5:], video[1:])[0])


def test_clips_are_augmented_in_training_only():
    batch = clip_batch()
    loss = EncoderLoss(nn.CrossEntropyLoss(), 10, crop_scale=(0.5, 0.6), jitter=0.3, jitter_frames=False)
    model = encoder(*np.zeros((3, 2, 2)))
    clips = batch.frames[batch.windows]
    loss(model, batch, Draws(torch.Generator().manual_seed(5), CLIPS))
    expected = losses.augment(clips, Draws(torch.Generator().manual_seed(5), CLIPS), (0.5, 0.6), 0.3, False)
    assert torch.equal(model.seen[1], expected)
    loss(model, batch, None)
    assert torch.equal(model.seen[1], losses.stack(clips))


@pytest.mark.parametrize(("epoch", "training", "temperature"), [(1, True, 1.3), (6, True, 1.2), (0, False, 1.0)])
def test_the_loss_of_whole_tracks(epoch, training, temperature):
    """Binary cross-entropy on the softmax's speaking output, as published, of logits over the temperature."""
    source = np.random.default_rng(1)
    joint, video = (source.standard_normal((2, 3, 2)).tolist() for _ in range(2))
    labels = [[0, 1, 1], [0, 0, 1]]
    nothing = torch.zeros(2, 3)
    batch = TrackBatch(nothing, nothing, torch.tensor(labels), nothing, torch.tensor(epoch))
    loss = TrackLoss(nn.CrossEntropyLoss(), temperature=1.3, temperature_drop=0.02, video_weight=0.5)
    draws = Draws(torch.Generator(), 6) if training else None
    result = loss(FixedOutputs(joint, video, np.zeros(1)), batch, draws)

    def binary_cross_entropy(logits: list) -> float:
        scaled = np.exp(np.array(logits).reshape(6, 2) / temperature)
        speaking = scaled[:, 1] / scaled.sum(1)
        target = np.ravel(labels)
        return float(-np.mean(target * np.log(speaking) + (1 - target) * np.log(1 - speaking)))

    expected = {"av_loss": binary_cross_entropy(joint), "video_loss": binary_cross_entropy(video)}
    assert {name: value.item() for name, value in result.parts.items()} == pytest.approx(expected, rel=1e-5)
    assert result.loss.item() == pytest.approx(expected["av_loss"] + 0.5 * expected["video_loss"], rel=1e-5)
    assert list(result.logits) == ["av", "video"]
    np.testing.assert_allclose(result.logits["av"], np.reshape(joint, (6, 2)), rtol=1e-6)  # not over the temperature
    assert result.labels.tolist() == [0, 1, 1, 0, 0, 1]


def test_the_context_networks_loss_and_the_order_of_its_input():
    class Remembering(FixedOutputs):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x)[0]

    features = torch.arange(20.0).view(5, 4).half()
    index = torch.tensor([[[0, 1], [2, 3], [4, 4]], [[1, 0], [1, 2], [3, 4]]])  # (context, clip, speaker)
    batch = ContextBatch(features, index, labels=torch.tensor([1, 0]), rows=torch.arange(2))
    model = Remembering([[1.0, 2.0], [0.5, -1.0]])
    result = ContextLoss(nn.CrossEntropyLoss())(model, batch, None)
    assert result.loss.item() == pytest.approx(cross_entropy([[1, 2], [0.5, -1]], [1, 0]))
    assert torch.equal(model.seen[0], features[index].movedim(-1, 1).float())  # (batch, feature, clip, speaker)
    assert model.seen[0].dtype == torch.float32
