"""Whether `core.live.LiveDetector` can go on for days: its memory, and its work for a second, hour by hour.

    python benchmarks/live_hours.py 24 --cache DIR

Frames and audio come as fast as they are taken, on a clock that counts from 1970. They are small, and made up: one face
stays, one comes and goes, and each hour has a minute of silence, a microphone and a camera that are lost and come back,
and a cut; each second hour the clock is set back, or on. Stand-ins find faces and score them; all else is what runs
live. Exits with status 1 where memory has grown by more than `MOST_MB` since the end of the first hour.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import MB
from core.clip_utils import GRID_FPS, MFCC_PER_FRAME, SAMPLE_RATE
from core.inference.residual_contexts import logits_of
from core.live.detector import LiveDetector
from core.runtime.errors import exits_cleanly

BEGIN_S = 1.7e9
HOUR_S = 3600
MOST_MB = 10
BOXES = np.array([[8, 8, 30, 34, 0.9], [36, 10, 56, 34, 0.9]], np.float32)  # of both faces, pixels, and how sure
HEIGHT, WIDTH = 48, 64
COMES_S, STAYS_S = 40, 25  # how often the second face comes, and for how long
SILENT, DEAF, BLIND = range(600, 660), range(1200, 1205), range(1800, 1803)  # seconds of each hour
CLOCK_SET_S = (-600.0, 600.0)  # at the end of every second hour, in turn


class Scene:
    """Finds the faces of the frames that it draws.

    Attributes:
        faces: how many there are.
        bright: the ground; another after a cut.
    """

    name, least_face_px = "drawn", 1.0

    def __init__(self):
        self.faces, self.bright = 1, False

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return BOXES[: self.faces]

    def frame(self, number: int) -> np.ndarray:
        """(height, width, [r, g, b]) uint8."""
        ground = 200 if self.bright else 80
        pixels = np.full((HEIGHT, WIDTH, 3), ground, np.uint8)
        for face, (x1, y1, x2, y2) in enumerate(BOXES[: self.faces, :4].astype(int)):
            pixels[y1:y2, x1:x2] = ground + 20 * np.sin(number / (3 + face))  # no cut where it comes or goes
        return pixels


class Brightness:
    """In place of an encoder's networks: the brightness of faces, and the loudness of audio."""

    visual_context, audio_context = 6, 5

    def visual(self, faces: np.ndarray) -> np.ndarray:
        return faces.mean((2, 3), dtype=np.float32)[..., None] / 64

    def audio(self, mfcc: np.ndarray) -> np.ndarray:
        return mfcc[..., 0].reshape(1, -1, MFCC_PER_FRAME).mean(2)[..., None] / 16

    def score(self, audio: np.ndarray, visual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate((visual * 0, visual - audio), 2), visual

    def rescore(self, audio: np.ndarray, visual: np.ndarray) -> np.ndarray:
        return self.score(audio, visual)[0]

    def video_logits(self, visual: np.ndarray) -> np.ndarray:
        return np.concatenate((visual * 0, visual - 2), 1)


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hours", type=int, help="of frames and audio")
    parser.add_argument("--cache", type=Path, help="folder with the networks' weights; by default the user's")
    arguments = parser.parse_args(argv)
    scene = Scene()
    live = with_stand_ins(LiveDetector(detector=scene, min_face_px=10, cache=arguments.cache))
    print(
        "| hour | frames given | faces | last id | memory, MB | work for a second, s |\n|---:|---:|---:|---:|---:|---:|"
    )
    memory, begin_s = [], BEGIN_S
    for hour in range(arguments.hours):
        begun = time.perf_counter()
        frames, faces = play_hour(live, scene, begin_s)
        memory.append(memory_mb())
        work_s = (time.perf_counter() - begun) / HOUR_S
        print(f"| {hour + 1} | {frames} | {faces} | {live.ids} | {memory[-1]:.1f} | {work_s:.4f} |", flush=True)
        begin_s += HOUR_S + (CLOCK_SET_S[hour // 2 % 2] if hour % 2 else 0.0)
    grown = memory[-1] - memory[0]
    print(f"\nmemory since the first hour's end: {grown:+.1f} MB")
    return int(grown > MOST_MB)


def with_stand_ins(live: LiveDetector) -> LiveDetector:
    """Put stand-ins in place of its networks."""
    context = replace(live.encoder.context, score=lambda faces: [logits_of(face.features[:, 0]) for face in faces])
    live.encoder = replace(live.encoder, network=Brightness(), context=context)
    return live


def play_hour(live: LiveDetector, scene: Scene, begin_s: float) -> tuple[int, int]:
    """Push an hour; how many frames were given, and faces in them."""
    noise = np.random.default_rng(0).normal(0, 3000, 10 * SAMPLE_RATE).astype(np.int16)
    silence, block = np.zeros(SAMPLE_RATE, np.int16), SAMPLE_RATE // GRID_FPS
    scene.bright = not scene.bright
    frames = faces = 0
    for number in range(HOUR_S * GRID_FPS):
        second, time_s = number // GRID_FPS, begin_s + number / GRID_FPS
        scene.faces, given = 1 + (second % COMES_S < STAYS_S), []
        if second not in DEAF:
            at = number * block % (len(noise) - block)
            given += live.push_audio((silence if second in SILENT else noise[at:])[:block], time_s)
        if second not in BLIND:
            given += live.push_frame(scene.frame(number), time_s)
        frames += len(given)
        faces += sum(len(frame.faces) for frame in given)
    return frames, faces


def memory_mb() -> float:
    """Megabytes that this process has in memory now."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / MB


if __name__ == "__main__":
    sys.exit(main())
