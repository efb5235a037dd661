"""Speed of LR-ASD and Light-ASD on face tracks, on one CPU thread, beside the published code's.

    python benchmarks/track_encoders.py
    python benchmarks/track_encoders.py --seconds 2 --threads 2
    python benchmarks/track_encoders.py --device 0

Random weights and input: the speed does not depend on them. A line counts sound, faces and the readers over both; that
of six passes also the sound's MFCCs. Each repeats one call for some seconds; on a busy machine the best run tells most.
"""

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from benchmarks.measure import Result
from benchmarks.networks import line, parse
from core.clip_utils import FACE_SIZE, GRID_FPS
from core.formats.wav import SAMPLE_RATE
from core.inference.tracks import SixPasses
from core.inputs.mfcc import track_samples
from core.media.video_audio import VideoAudio
from core.models import light_asd, lr_asd
from core.models.fast_track_encoder import FastTrackEncoder
from core.models.track_encoder import TrackEncoder
from core.runtime.allocation import reuse_freed_memory
from core.runtime.errors import exits_cleanly

TRACK_S = 12
CHUNKS_S = (1, 6)
CPU = torch.device("cpu")
# Published Light-ASD on one thread, face-frames per second: chunk in seconds -> one pass, and the six passes of its
# own-video script. Ours has to be twice as fast.
PUBLISHED = {1: 123, 6: 67}
PUBLISHED_SIX_PASSES = 13.8
BETTER_BY = 2


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    seconds, threads, device = parse(argv, __doc__, 1, "as the published figures")
    reuse_freed_memory()
    print(f"faces of {FACE_SIZE}×{FACE_SIZE}, tracks of {TRACK_S} s")
    measure.print_table(results(seconds, threads, device))


def results(seconds: float, threads: int = 1, device: torch.device = CPU) -> list[Result]:
    """The benchmark's lines, each measured for some seconds."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    return encoder_lines("Light-ASD", light_asd(), device, seconds) + encoder_lines("LR-ASD", lr_asd(), device, seconds)


def encoder_lines(name: str, model: TrackEncoder, device: torch.device, seconds: float) -> list[Result]:
    """One encoder's lines; the published figures are Light-ASD's, as is the target."""
    frames = TRACK_S * GRID_FPS
    faces = torch.randint(0, 256, (frames, FACE_SIZE, FACE_SIZE), dtype=torch.uint8)
    mfcc = torch.randn(4 * frames, 13)
    model = model.eval().to(device)
    fast, coarse = FastTrackEncoder(model, device), FastTrackEncoder(model, device, torch.bfloat16)

    @torch.inference_mode()
    def plain(time: int) -> None:
        model(mfcc[None, : 4 * time].to(device), faces[None, :time].to(device))

    def one_pass(encoder: FastTrackEncoder, time: int) -> None:
        encoder.score(encoder.audio(mfcc[: 4 * time]), encoder.visual(faces[:time]))

    samples = np.random.default_rng(0).integers(-9000, 9000, track_samples(frames)).astype(np.int16)
    sound = VideoAudio(samples, 0.0, len(samples) / SAMPLE_RATE)

    def six_passes() -> None:
        scorer = SixPasses(fast, sound, 0.0)
        for face in faces.numpy():
            scorer.push(face)
        scorer.finish()

    published = PUBLISHED if name == "Light-ASD" else {}
    lines = []
    for chunk_s in CHUNKS_S:
        time, stated = chunk_s * GRID_FPS, published.get(chunk_s)
        what = f"{name}, {chunk_s} s chunks"
        lines.append(line(f"{what}, plain, faces/s", time, lambda: plain(time), seconds, stated))  # noqa: B023
        lines.append(
            line(
                f"{what}, fast, faces/s",
                time,
                lambda: one_pass(fast, time),  # noqa: B023
                seconds,
                stated,
                stated and BETTER_BY * stated,
            )
        )
    six = PUBLISHED_SIX_PASSES if published else None
    return [
        *lines,
        line(f"{name}, whole track, fast, faces/s", frames, lambda: one_pass(fast, frames), seconds),
        line(f"{name}, whole track, fast, bfloat16, faces/s", frames, lambda: one_pass(coarse, frames), seconds),
        line(f"{name}, six passes, fast, faces/s", frames, six_passes, seconds, six, six and BETTER_BY * six),
    ]


if __name__ == "__main__":
    main()
