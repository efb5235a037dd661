"""Who speaks, without PyTorch: the scores of one face track by an exported network.

    python scripts/export.py light_asd --out exported
    python detect.py talk.mp4 --context none --precision fp32 --format csv   # or boxes of another origin in such a csv
    python docs/examples/score_face_track.py exported/light_asd.onnx talk.mp4 talk.asd/tracks.csv 1

Needs numpy, av, opencv-python and onnxruntime, and nothing of this repository: copy what you need. Prints the time and
the log odds of speaking at each frame of the track: of a video with 25 frames a second those of detect.py, but for what
rounded boxes change. With the path of a folder as last argument what the network read is kept there, as mfcc.bin and
faces.bin, for score_face_track.html.
"""

import csv
import sys

import av
import cv2
import numpy as np
import onnxruntime

# As the file's metadata tells, see session.get_modelmeta().custom_metadata_map["preparation"].
FPS = 25
RATE, WINDOW, STEP, FFT = 16000, 400, 160, 512
FILTERS, COEFFICIENTS, LIFTER, PREEMPHASIS = 26, 13, 22, 0.97
WINDOWS_PER_FRAME = 4


def read_track(path: str, track: str) -> tuple[np.ndarray, np.ndarray]:
    """Times (frame,), seconds, and boxes (frame, [x1, y1, x2, y2]), pixels, of one track of detect.py's tracks.csv."""
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["track_id"] == track]
    values = np.array([[float(row[name]) for name in ("time_s", "x1", "y1", "x2", "y2")] for row in rows])
    return values[:, 0], values[:, 1:]


def cut_faces(video: str, times: np.ndarray, boxes: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """The face at each time of a grid, from the frame that is nearest: (time, 112, 112) uint8, grey."""
    nearest = np.searchsorted((times[1:] + times[:-1]) / 2, grid, side="right")
    faces = []
    with av.open(video) as container:
        for frame in container.decode(video=0):
            number = np.abs(times - frame.time).argmin()
            if abs(times[number] - frame.time) < 1e-4:
                grey = frame.to_ndarray(format="gray")
                size = grey.shape[::-1]
                x1, y1 = np.clip(boxes[number, :2], 0, np.subtract(size, 1)).astype(int)
                x2, y2 = np.clip(boxes[number, 2:], (x1 + 1, y1 + 1), size).astype(int)
                faces += [cv2.resize(grey[y1:y2, x1:x2], (112, 112))] * np.count_nonzero(nearest == number)
    return np.stack(faces)


def read_audio(video: str, start_s: float, length: int) -> np.ndarray:
    """(length,) int16 at 16 kHz from a time on; silence before and after the audio."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
    with av.open(video) as container:
        frames = list(container.decode(audio=0))
    parts = [part.to_ndarray()[0] for frame in (*frames, None) for part in resampler.resample(frame)]
    start = round((start_s - frames[0].time) * RATE)
    samples = np.concatenate([np.zeros(max(0, -start), np.int16), *parts, np.zeros(length, np.int16)])
    return samples[max(0, start) :][:length]


def mfcc(samples: np.ndarray, frames: int) -> np.ndarray:
    """(4 * frames, 13) float32, python_speech_features.mfcc of the audio of as many frames."""
    emphasised = np.append(samples[:1], samples[1:] - PREEMPHASIS * samples[:-1])
    windows = np.lib.stride_tricks.sliding_window_view(emphasised, WINDOW)[::STEP][: WINDOWS_PER_FRAME * frames]
    power = np.abs(np.fft.rfft(windows, FFT)) ** 2 / FFT
    highest_mel = 2595 * np.log10(1 + RATE / 2 / 700)
    corners_hz = 700 * (10 ** (np.linspace(0, highest_mel, FILTERS + 2) / 2595) - 1)
    corners = np.floor((FFT + 1) * corners_hz / RATE)[:, None]
    bins = np.arange(FFT // 2 + 1)
    rising = (bins - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - bins) / (corners[2:] - corners[1:-1])
    bands = power @ np.clip(np.minimum(rising, falling), 0, None).T
    places = np.arange(COEFFICIENTS)[:, None] * (2 * np.arange(FILTERS) + 1)
    cosines = np.sqrt(2 / FILTERS) * np.cos(np.pi * places / (2 * FILTERS))
    lift = 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    smallest = np.finfo(float).eps
    coefficients = np.log(np.where(bands == 0, smallest, bands)) @ cosines.T * lift
    energy = power.sum(1)
    coefficients[:, 0] = np.log(np.where(energy == 0, smallest, energy))
    return coefficients.astype(np.float32)


def main() -> None:
    network, video, tracks, track, *kept = sys.argv[1:]
    times, boxes = read_track(tracks, track)
    grid = np.arange(times[0], times[-1] + 0.5 / FPS - 1e-6, 1 / FPS)
    faces = cut_faces(video, times, boxes, grid)
    samples = read_audio(video, grid[0], WINDOWS_PER_FRAME * len(grid) * STEP + WINDOW - STEP)
    inputs = {"mfcc": mfcc(samples, len(grid))[None], "faces": faces[None]}
    for folder in kept:
        for name, values in inputs.items():
            values.tofile(f"{folder}/{name}.bin")
    [logits] = onnxruntime.InferenceSession(network).run(["logits"], inputs)
    odds = logits[0, :, 1] - logits[0, :, 0]
    for time_s, score in zip(times, np.interp(times, grid, odds), strict=True):
        print(f"{time_s:.3f}\t{score:.4f}")


if __name__ == "__main__":
    main()
