"""What is done to the audio and the faces of a video to see whether its scores stand it.

Audio is (samples,) int16 at 16 kHz, from the time 0 of the video; faces are those of one track, (time, 112, 112) uint8,
grey. What is drawn comes from a generator: the same state gives the same result.
"""

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
import torch
import torchaudio.functional

from core.clip_utils import GRID_FPS, SAMPLE_RATE
from core.synthetic import audio as synthetic

OnAudio = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]  # audio, another video's, random choices
OnFaces = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]  # faces, time steps of the video, choices

FULL_SCALE = 32767
PIECE_S = 10  # drawn audio is made of pieces of this length: memory stays small, and voices and tunes change
COVER = 128  # grey of what covers a face
BLUR = 4.0  # standard deviation, pixels of 112: eyes and mouth are spots
LIGHT, SENSOR_NOISE = 0.12, 4.0  # share of the light that is left, and what the camera adds to it, grey levels
DROPPED = 0.8  # share of frames that are lost: five a second arrive of 25


def added(audio: np.ndarray, other: np.ndarray, snr_db: float) -> np.ndarray:
    """Audio with other audio that is `snr_db` quieter, in power over the whole length.

    What would be louder than full scale is turned down as a whole, so that the ratio stays.

    Args:
        audio: (samples,) int16.
        other: (samples,) of any scale; nothing is added of silence.
        snr_db: dB.
    """
    if not other.any():
        return audio
    speech, noise = (torch.from_numpy(values.astype(np.float64)) for values in (audio, other))
    mixed = torchaudio.functional.add_noise(speech, noise, torch.tensor(float(snr_db))).numpy()
    return np.round(mixed * min(1.0, FULL_SCALE / np.abs(mixed).max(initial=1.0))).astype(np.int16)


def with_drawn(draw: Callable[[np.random.Generator, int], np.ndarray], snr_db: float) -> OnAudio:
    """The corruption that adds what `draw` makes of random choices and a number of samples."""

    def corrupt(audio: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        pieces = [draw(rng, PIECE_S * SAMPLE_RATE) for _ in range(0, len(audio), PIECE_S * SAMPLE_RATE)]
        return added(audio, np.concatenate([*pieces, np.zeros(0)])[: len(audio)], snr_db)

    return corrupt


def with_voice(audio: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One drawn voice that belongs to nobody in the frame talks throughout, as loud as everything else."""
    voice = synthetic.draw_voice(rng)

    def talk(rng: np.random.Generator, samples: int) -> np.ndarray:
        seconds = samples / SAMPLE_RATE
        said = synthetic.contours(synthetic.utter(rng, voice, 0.0, seconds), seconds)
        return synthetic.voiced_audio(rng, voice, said, samples)

    return with_drawn(talk, 0)(audio, other, rng)


def with_other(audio: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The audio of another video, over and over where it is shorter, as loud as this one's."""
    return added(audio, np.resize(other, len(audio)), 0)


def shifted(frames: int, audio: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Audio that comes so many frames of 1/25 s late; early where they are negative; silence where it has nothing."""
    by = frames * SAMPLE_RATE // GRID_FPS
    out = np.zeros_like(audio)
    if by >= 0:
        out[by:] = audio[: max(0, len(audio) - by)]
    else:
        out[: max(0, len(audio) + by)] = audio[-by:]
    return out


def covered(faces: np.ndarray, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The lower half of the face behind something grey."""
    out = faces.copy()
    out[:, faces.shape[1] // 2 :] = COVER
    return out


def blurred(faces: np.ndarray, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Out of focus."""
    return np.stack([cv2.GaussianBlur(face, (0, 0), BLUR) for face in faces])


def darkened(faces: np.ndarray, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Little light, and the noise of the camera in it."""
    out = np.empty_like(faces)
    for number, face in enumerate(faces):
        noise = SENSOR_NOISE * rng.standard_normal(face.shape, np.float32)
        out[number] = np.clip(np.round(LIGHT * face + noise), 0, 255)
    return out


def held(faces: np.ndarray, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Frames lost at random, the one before them shown on; a track's first frame is there.

    All tracks of a video lose the same frames where their generators are in the same state.

    Args:
        faces: (time, ...).
        steps: (time,) int64 number of each face's frame in the video.
        rng: of the choices.
    """
    arrived = rng.random(steps.max() + 1)[steps] >= DROPPED
    arrived[0] = True
    return faces[np.maximum.accumulate(np.where(arrived, np.arange(len(faces)), 0))]


DRAWN = {"babble": synthetic.babble, "music": synthetic.music, "noise": synthetic.noise}
ON_AUDIO: dict[str, OnAudio] = {
    **{f"{name}, {snr} dB": with_drawn(draw, snr) for name, draw in DRAWN.items() for snr in (10, 0, -10)},
    **{f"audio shifted by {frames:+d} frames": partial(shifted, frames) for frames in (-15, -5, -1, 1, 5, 15)},
    "two voices at once": with_other,
    "a voice outside the frame": with_voice,
}
ON_FACES: dict[str, OnFaces] = {
    "lower half of the face covered": covered,
    "blur": blurred,
    "low light": darkened,
    "frame drops": held,
}
