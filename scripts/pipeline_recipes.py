"""How scripts/run_pipeline.py trains: the published recipes, cut to a budget for small data."""

import math
from pathlib import Path
from typing import Any

from core import settings

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
EPOCHS = 10  # a training on clips is cut into as many
SMALL_BATCH = 500  # frames: whole tracks of small data are few, and 2000 frames make for too few steps


def cut_every(epochs: int) -> int:
    """Epochs between cuts of the learning rate: after 40 % and 80 % of a training."""
    return math.ceil(0.4 * epochs)


def clip_recipe(clips: int, tracks: int, crop_size: int) -> dict[str, Any]:
    """The published recipe with what makes the most of each clip (README).

    Args:
        clips: budget of the whole training.
        tracks: of the training split.
        crop_size: pixels.
    """
    return {
        "pretrained": False,
        "motion_init": True,
        "learning_rate": 1e-4,
        "epochs": EPOCHS,
        "step_size": cut_every(EPOCHS),
        "clips_per_entity": max(1, round(clips / (EPOCHS * tracks))),
        "batch_size": 32,
        "crop_size": crop_size,
        "crop_scale": (0.7, 1.0),
        "jitter_per": "clip",
        "mismatched_sounds": 2,
    }


def track_recipe(backbone: str, frames: int, faces: int) -> dict[str, Any]:
    """The published recipe in smaller batches and fewer epochs, over which learning rate and temperature fall as far.

    Args:
        backbone: a name of `core.models.TRACK_ENCODERS`.
        frames: budget of the whole training.
        faces: frames of all tracks of the training split.
    """
    needed = {"STE_optimization_params": []}
    published = settings.load(CONFIGS / f"{backbone}.py", [], needed)["STE_optimization_params"]
    epochs = min(published["epochs"], max(1, round(frames / faces)))
    pace = published["epochs"] / epochs
    return {
        **published,
        "epochs": epochs,
        "gamma": round(published["gamma"] ** pace, 6),
        "temperature_drop": round(published["temperature_drop"] * pace, 6),
        "frames_per_batch": SMALL_BATCH,
        "threads": 1,
    }
