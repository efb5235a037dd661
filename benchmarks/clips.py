"""Clips for the encoder's training: clips per second of the input pipeline.

Clips of 11 frames of 144 pixels, batches of 16, from packed crops and wavs. "Decoding and audio" is what the loader
does, and all that the CPU does when the network is on a GPU; "augmented, with MFCC" adds what is done in batch on the
network's device, in the training process. The published loader does all of it on the CPU.
"""

from collections.abc import Generator
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks import material, measure
from benchmarks.measure import Result
from core.dataset import ClipDataset
from core.inputs.loading import load_batches
from core.inputs.sampling import ShuffledBatches
from core.inputs.transforms import Draws
from core.training.losses import EncoderLoss

CPU = torch.device("cpu")
VIDEO_S = 30
CLIP_LENGTH, BATCH = 11, 16
PUBLISHED = {0: 56, 2: 114}  # clips per second, by threads
TARGET = 8 * PUBLISHED[2]


def results(folder: Path, repeats: int = 3, device: torch.device = CPU) -> list[Result]:
    """The benchmark's lines; the data set is made in `folder`."""
    rows = material.prepared(folder, VIDEO_S)
    dataset = ClipDataset(rows, folder / "crops", folder / "audio", clip_length=CLIP_LENGTH, random_centres=True)
    lines = []
    for name, whole in (("decoding and audio", False), (f"augmented, with MFCC, on {device.type}", True)):
        for threads, published in PUBLISHED.items():

            def batches(threads: int = threads, whole: bool = whole) -> Generator[int, None, None]:
                return _batches(dataset, threads, device, whole)

            runs = measure.rates(batches, repeats)
            target = TARGET if threads == 2 and (not whole or device.type == "cuda") else None
            lines.append(Result(f"{name}, {threads} threads, clips/s", runs, published, target))
    return lines


def _batches(dataset: ClipDataset, threads: int, device: torch.device, whole: bool) -> Generator[int, None, None]:
    """Batches without end, as their sizes; epochs are long, so that their beginnings do not count."""
    batches = ShuffledBatches(BATCH * 4096, BATCH)
    loss = EncoderLoss(nn.CrossEntropyLoss(), dataset.mfcc_windows)
    generator = torch.Generator()
    while True:
        for batch in load_batches(dataset, batches, threads, device):
            if whole:
                loss(_no_network, batch, Draws(generator, BATCH))
            yield len(batch.labels)
        batches.epoch += 1


def _no_network(audio: Tensor, video: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
    """In place of the network: nothing but the shapes of its outputs."""
    if video.is_cuda:
        torch.cuda.synchronize()
    logits = video.new_zeros(len(video), 2)
    return logits, audio.new_zeros(len(audio), 2), logits, None
