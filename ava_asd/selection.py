"""Which samples are used: filters, shares, and as many of either class; pure functions on a table of samples."""

from typing import Any

import numpy as np

from ava_asd.config import Config
from ava_asd.samples import Samples


def usable(samples: Samples, config: Config) -> np.ndarray:
    """(sample,) bool: what filter_out and remove_small_faces leave.

    With filter_out a sample goes whose label is one of filter_classes; with remove_small_faces one with a face that is
    narrower or lower than small_face_threshold.
    """
    kept = np.ones(len(samples), bool)
    if config.filter_out:
        kept &= ~np.isin(samples.column("label"), config.filter_classes)
    if config.remove_small_faces:
        kept &= samples.column("smallest_side") >= config.small_face_threshold
    return kept


def selection_settings(config: Config, split: str) -> dict[str, Any]:
    """What a split's subset depends on, beside its windows and the seed; settings without effect are left out.

    Args:
        config: settings.
        split: "train" or "test".
    """
    return {
        "filter_classes": sorted(config.filter_classes) if config.filter_out else [],
        "small_face_threshold": config.small_face_threshold if config.remove_small_faces else 0,
        f"{split}_keep_ratio": getattr(config, f"{split}_keep_ratio"),
    }


def share(count: int, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """A random share of `count` rows, at least one, ascending: (row,) int64."""
    if ratio >= 1:
        return np.arange(count)
    return np.sort(generator.choice(count, max(1, int(count * ratio)), replace=False))


def balanced(classes: np.ndarray, ratio: float, generator: np.random.Generator) -> np.ndarray:
    """As many random rows of either class, ascending: (row,) int64.

    Args:
        classes: (sample,) 0 or 1; both occur.
        ratio: how many, as a share of the class that has fewer; at least one.
        generator: of the choice.
    """
    rows = [np.flatnonzero(classes == number) for number in (0, 1)]
    count = max(1, int(min(map(len, rows)) * ratio))
    return np.sort(np.concatenate([generator.choice(part, count, replace=False) for part in rows]))
