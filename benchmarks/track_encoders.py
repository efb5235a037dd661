"""Speed of LR-ASD and Light-ASD on face tracks, on one CPU thread, beside PyTorch's plain networks and published code.

Random weights and input: the speed does not depend on them. A line counts audio, faces and the GRUs over both; that of
six passes also the audio's MFCCs. Each repeats one call for some seconds; on a busy machine the best run counts.
"""

import os
from functools import partial

import numpy as np
import torch

from benchmarks.measure import Result, repeated
from core.clip_utils import FACE_SIZE, GRID_FPS, SAMPLE_RATE
from core.inference.engine import DTYPES, in_pytorch
from core.inference.track_embedding import TrackEmbedder
from core.inference.tracks import SixPasses
from core.inputs.mfcc import track_samples
from core.media.video_audio import VideoAudio
from core.models import TRACK_ENCODERS

TRACK_S = 12
# Published Light-ASD on one thread, face-frames per second: chunk in seconds -> one pass, and the six passes of its
# own-video script. Ours has to be twice as fast.
PUBLISHED = {1: 123, 6: 67}
PUBLISHED_SIX_PASSES = 13.8
BETTER_BY = 2


def results(seconds: float = 3, threads: int = 1, device: str | torch.device = "cpu") -> list[Result]:
    """The benchmark's lines, each measured for some seconds."""
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of OpenVINO
    return [result for name in TRACK_ENCODERS for result in encoder_lines(name, device, seconds)]


def encoder_lines(name: str, device: str | torch.device, seconds: float) -> list[Result]:
    """One encoder's lines; the published figures are Light-ASD's, as is the target."""
    torch.manual_seed(0)
    frames = TRACK_S * GRID_FPS
    faces = torch.randint(0, 256, (1, frames, FACE_SIZE, FACE_SIZE), dtype=torch.uint8)
    mfcc = torch.randn(1, 4 * frames, 13)
    model = TRACK_ENCODERS[name]()
    plain = in_pytorch(model, device)
    embedders = {DTYPES[name]: TrackEmbedder.of(model, str(device), name) for name in DTYPES}

    def one_pass(embedder: TrackEmbedder, time: int) -> None:
        embedder.score(embedder.audio(mfcc[:, : 4 * time].numpy()), embedder.visual(faces[:, :time].numpy()))

    samples = np.random.default_rng(0).integers(-9000, 9000, track_samples(frames)).astype(np.int16)
    audio = VideoAudio(samples, 0.0, len(samples) / SAMPLE_RATE)

    def six_passes() -> None:
        scorer = SixPasses(embedders["float32"], audio, 0.0)
        for face in faces[0].numpy():
            scorer.push(face)
        scorer.finish()

    published = (PUBLISHED | {"six passes": PUBLISHED_SIX_PASSES}) if name == "light_asd" else {}
    lines = []
    for chunk_s in (*PUBLISHED, TRACK_S):
        time, stated = chunk_s * GRID_FPS, published.get(chunk_s)
        calls = {"plain PyTorch": partial(plain, mfcc[:, : 4 * time], faces[:, :time])}
        calls |= {dtype: partial(one_pass, embedder, time) for dtype, embedder in embedders.items()}
        for how, call in calls.items():
            target = BETTER_BY * stated if stated and how == "float32" else None
            what = f"{name}, {chunk_s} s chunks, {how}, faces/s"
            lines.append(Result(what, repeated(time, call, seconds), stated, target))
    stated = published.get("six passes")
    runs = repeated(frames, six_passes, seconds)
    return [*lines, Result(f"{name}, six passes, float32, faces/s", runs, stated, stated and BETTER_BY * stated)]
