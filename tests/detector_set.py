"""What tests of `ActiveSpeakerDetector` share: weights, a video, and a detector that knows where faces are."""

from pathlib import Path

import numpy as np
import torch
from detections import Squares
from tiny import BOXES, CLIPS, FPS, audio_of, tiny_frame
from videos import encode

from core.detection import ActiveSpeakerDetector
from core.detection.results import DetectedVideo
from core.models import ASC_Net, ResidualContext, light_asd, lr_asd, resnet18_two_streams

CLIP = CLIPS[0]
FRAMES = CLIP.frames


def write_weights(folder: Path) -> Path:
    """State dicts of all encoders and context networks, with random weights: `<name>.pth`; the folder."""
    torch.manual_seed(0)
    for name, make in {"light_asd": light_asd, "lr_asd": lr_asd, "resnet18_two_streams": resnet18_two_streams}.items():
        model = make() if name.endswith("_asd") else make(rgb_stack_size=3)
        torch.save(model.state_dict(), folder / f"{name}.pth")
    for size in (128, 1024):
        torch.save(ASC_Net(3, 2, feature_size=size).state_dict(), folder / f"context{size}.pth")
    context = ResidualContext()
    torch.nn.init.normal_(context.members[0].correction.weight)
    torch.save(context.state_dict(), folder / "residual.pth")
    return folder


def tiny_video(path: Path, times_s: list[float] | np.ndarray, faces: int = 1, **options) -> Path:
    """The tiny frames at given times, the last again and again where there are more, with their audio."""
    frames = (tiny_frame(min(number, FRAMES - 1), faces) for number in range(len(times_s)))
    return encode(path, frames, times_s, crf="8", **{"audio": audio_of(CLIP), **options})


def two_faces(folder: Path) -> Path:
    """A video of them, by a name that needs care."""
    return tiny_video(folder / "-two faces.mp4", np.arange(FRAMES) / FPS, faces=2)


def two_shots(path: Path) -> Path:
    """A dark and a bright square that change sides and ground at a cut."""
    frames = []
    for number in range(60):
        pixels = np.full((64, 64, 3), 20 if number < 30 else 235, np.uint8)
        for box, value in zip(BOXES, (70, 190) if number < 30 else (190, 70), strict=False):
            pixels[box[1] : box[3], box[0] : box[2]] = value
        frames.append(pixels)
    return encode(path, frames, crf="8", audio=audio_of(CLIP))


def detector(weights: Path, name: str = "light_asd", faces: int = 2, **options) -> ActiveSpeakerDetector:
    return ActiveSpeakerDetector(
        name,
        weights / f"{name}.pth",
        **{"detector": Squares(faces), "min_face_px": 10, "precision": "fp32", **options},
    )


def scores(found: DetectedVideo) -> np.ndarray:
    """Log odds of speaking, (track, frame) float32, of tracks that are as long as each other."""
    return np.stack([track.scores for track in found.tracks])
