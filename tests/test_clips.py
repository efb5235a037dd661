"""Clips of one face as they come in: the same clips and audio as the staged pipeline makes of the same crops."""

import numpy as np
import pytest
import torch
from tiny import CROP_SIZE

from core.dataset import ClipDataset
from core.formats import ava
from core.formats.wav import read_wav
from core.inference.clips import ClipScorer
from core.inputs.clip_mfcc import clip_mfcc
from core.inputs.transforms import stack
from core.media.video_audio import VideoAudio

CLIP_LENGTH = 5


class Encode:
    """A network that gives its inputs back: the video's mean of each frame and channel, and the MFCCs."""

    def __init__(self) -> None:
        self.audio, self.video = [], []

    def __call__(self, audio: torch.Tensor, video: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.audio.append(audio)
        self.video.append(video)
        means = video.mean((2, 3))
        return means[:, :2], means[:, :2], means[:, :2], means


@pytest.mark.parametrize("entity", ["-tinyTrain1_0000_0060:1", "tinyTrain_2_0000_0060:1", "tinyTrain_2_0000_0060:3"])
def test_clips_are_those_of_the_staged_pipeline(prepared, entity):
    rows = ava.read_augmented(prepared / "csv" / "train.csv")
    folders = (prepared / "crops" / "train", prepared / "audio" / "train")
    dataset = ClipDataset(rows, *folders, clip_length=CLIP_LENGTH, size=CROP_SIZE, random_centres=False)
    index = np.flatnonzero(dataset.entity == entity)
    batch = dataset.__getitems__([(0, int(row)) for row in index])
    expected_video = stack(batch.frames[batch.windows])
    expected_audio = clip_mfcc(batch.audio[0], batch.audio_lengths[0], dataset.mfcc_windows)

    samples = np.array(read_wav(prepared / "audio" / "train" / f"{entity}.wav"))
    encode = Encode()
    scorer = ClipScorer(encode, None, CLIP_LENGTH, VideoAudio(samples, 0.0, 2.0), 0.0, device=torch.device("cpu"))
    for row in index:
        scorer.push(dataset.crops.decode(int(row), CROP_SIZE))
    logits, features = scorer.finish()

    assert logits.shape == (len(index), 2)
    assert features.dtype == np.float16
    torch.testing.assert_close(torch.cat(encode.video), expected_video)
    # The staged pipeline truncates times such as 0.39999999999999997 s to the sample before: some clips differ by one.
    differing = (torch.cat(encode.audio) - expected_audio).abs() > 1e-4
    assert differing.float().mean() < 0.06


def test_memory_is_bounded():
    encode = Encode()
    silence = VideoAudio(np.zeros(0, np.int16), 0.0, 0.0)
    scorer = ClipScorer(encode, None, 11, silence, 0.0, device=torch.device("cpu"))
    most = 0
    for number in range(200):
        scorer.push(np.full((8, 8, 3), number, np.uint8))
        most = max(most, len(scorer.crops))
    logits, _ = scorer.finish()
    assert len(logits) == 200
    assert most <= 16 + 2 * 11
