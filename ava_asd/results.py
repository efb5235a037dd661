"""The numbers of an evaluation as text, as csv and as pictures."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay

from ava_asd.evaluation import CLASS_NAMES, OutputResult
from core.files import written_whole

OUTPUTS = ("audio", "video", "main")
TITLES = {
    "accuracy": "accuracy",
    "map": "official AP, evaluated windows",
    "orig_map": "official AP, original annotations",
    "ap_sp": "scikit-learn AP, speaking",
    "ap_ns": "scikit-learn AP, not speaking",
    "auc": "ROC AUC",
}
TITLE_WIDTH = max(map(len, TITLES.values()))
# Columns of evaluation-results.csv, in the published order.
COLUMNS = (
    "weights",
    *(f"{output}_{number}" for number in ("accuracy", "map", "ap_sp", "ap_ns", "auc") for output in OUTPUTS),
    *(f"orig_{output}_map" for output in reversed(OUTPUTS)),
)


def write_results(path: str | Path, results: Mapping[str, Mapping[str, OutputResult]]) -> None:
    """Write the numbers of several weight files as a csv with `COLUMNS`; outputs that a mode has not stay empty.

    Args:
        path: csv to write.
        results: name of a weight file -> output -> numbers.
    """
    with written_whole(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for weights, outputs in results.items():
            line = {"weights": weights}
            for output, result in outputs.items():
                line |= {f"{output}_{name}": getattr(result, name) for name in ("accuracy", "map", "ap_sp", "ap_ns")}
                line |= {f"{output}_auc": result.auc, f"orig_{output}_map": result.orig_map}
            writer.writerow(line)


def as_text(results: Mapping[str, OutputResult]) -> str:
    """The numbers of all outputs as a table."""
    lines = [" " * TITLE_WIDTH + "".join(f"{name:>9}" for name in results)]
    for key, title in TITLES.items():
        lines.append(
            f"{title:<{TITLE_WIDTH}}" + "".join(f"{getattr(result, key):>9.5f}" for result in results.values())
        )
    return "\n".join(lines)


def plot_confusion(path: str | Path, confusion: np.ndarray, title: str, *, keep: bool = False) -> None:
    """Draw a confusion matrix, each row (true class) as shares of its windows.

    Args:
        path: picture to write.
        confusion: (true class, predicted class) numbers of windows.
        title: says which output it is of.
        keep: leave the figure open, for pyplot.show().
    """
    if keep:
        from matplotlib import pyplot  # loads a window system's backend where there is one

        figure = pyplot.figure(title, layout="constrained")
    else:
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    ConfusionMatrixDisplay(shares, display_labels=CLASS_NAMES).plot(
        ax=axes, cmap="Blues", values_format=".2f", im_kw={"vmin": 0, "vmax": 1}
    )
    axes.set_title(f"{title}, {confusion.sum():,} windows")
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=150)
