"""Scores of windows, and the numbers that are made of them."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import ConfusionMatrixDisplay, average_precision_score, classification_report, confusion_matrix
from tqdm import tqdm

from ava_asd.models import StaticNetwork
from ava_asd.windows import THREADS, Windows, scaled
from core.evaluation import metrics
from core.evaluation.official import Groundtruth
from core.inputs.loading import load_batches
from core.inputs.sampling import ShuffledBatches
from core.runtime.checks import check_finite
from core.runtime.errors import UserError
from core.runtime.files import atomic_write

CLASS_NAMES = ("not speaking", "speaking")

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


@dataclass(frozen=True)
class OutputResult:
    """What one output's scores come to. All but `accuracy` and `confusion` depend on the order of the scores alone.

    Attributes:
        accuracy: share of the windows where (probability of speaking >= 0.5) is the label.
        map: the official average precision on the evaluated windows.
        orig_map: the official average precision on the original annotations.
        ap_sp, ap_ns: scikit-learn's average precision, of speaking by its probability and of not speaking by its own.
        auc: area under the ROC curve.
        confusion: (true class, predicted class) int64 numbers of windows, in the order of `CLASS_NAMES`.
        report: scikit-learn's classification report.
    """

    accuracy: float
    map: float
    orig_map: float
    ap_sp: float
    ap_ns: float
    auc: float
    confusion: np.ndarray
    report: str


def predict(
    model: StaticNetwork, windows: Windows, *, device: torch.device, batch_size: int, weights: str | Path
) -> np.ndarray:
    """The probability of each class from each output, in evaluation.

    Args:
        model: moved to `device`, and put in evaluation mode.
        windows: what is scored, in order.
        device: where the model runs.
        batch_size: windows at once.
        weights: where those of the model are from, for the message.

    Returns:
        (window, output, class) float64, 0 to 1.

    Raises:
        UserError: a score is not finite; the message names its row.
    """
    model.to(device).eval()
    scores = []
    with torch.inference_mode(), tqdm(total=len(windows), desc="predict", unit=" windows", disable=None) as bar:
        for batch in load_batches(windows, ShuffledBatches(len(windows), batch_size, shuffle=False), THREADS, device):
            logits = torch.stack(model(batch.audio, scaled(batch.video)), dim=1)
            done = sum(map(len, scores))
            check_finite(
                logits.cpu().numpy(),
                lambda row, done=done: (
                    f"{weights}: the scores of entity {windows.entity_id[done + row]} at "
                    f"{windows.timestamp[done + row]} s"
                ),
                "the weights are too large, as after a training that diverged; give others",
            )
            scores.append(torch.softmax(logits.cpu().double(), dim=2).numpy())
            bar.update(len(logits))
    return np.concatenate(scores)


def nearest_windows(
    video_ids: Sequence[str], entity_ids: Sequence[str], timestamps: np.ndarray, groundtruth: Groundtruth
) -> np.ndarray:
    """For each annotated face, the evaluated window of the same entity in the same video that is nearest in time.

    Args:
        video_ids, entity_ids: (window,) text.
        timestamps: (window,) float64 seconds.
        groundtruth: the original annotations.

    Returns:
        (row of the ground truth,) int64 index of a window, the earlier of two equally near ones; -1 where the entity
        was never evaluated.

    Raises:
        UserError: no window's entity is in the annotations.
    """
    # Custom sets may name the faces of each video from 1 on.
    names = ["video_id", "entity_id"]
    faces = pd.DataFrame({name: groundtruth.rows.table[name].to_pandas().astype(object) for name in names})
    windows = pd.DataFrame({"video_id": video_ids, "entity_id": entity_ids}, dtype=object)
    for table, times in ((faces, groundtruth.rows.numbers("frame_timestamp")), (windows, timestamps)):
        # Whole microseconds, so that rounding errors decide no ties.
        table["time"], table["row"] = np.round(times * 1e6).astype(np.int64), np.arange(len(table))
    by_time = (table.sort_values("time", kind="stable") for table in (faces, windows))
    matched = pd.merge_asof(*by_time, on="time", by=names, direction="nearest", suffixes=("", "_of_window"))
    nearest = np.full(len(faces), -1)
    nearest[matched["row"]] = matched["row_of_window"].fillna(-1)
    if (nearest < 0).all():
        raise UserError(
            f"no evaluated face is in the original annotations ({groundtruth.rows.sources[0]}, ...): the windows were "
            "made from others; check test_ann_dir, or run 'ava-extract annotations' again"
        )
    return nearest


def evaluate_output(
    speaking: np.ndarray, probability: np.ndarray, groundtruth: Groundtruth, nearest: np.ndarray
) -> OutputResult:
    """The numbers of one output.

    Args:
        speaking: (window,) bool; both values occur.
        probability: (window,) float64 probability of speaking.
        groundtruth: the original annotations.
        nearest: from `nearest_windows`; a face without a window scores 0.
    """
    predicted = probability >= 0.5
    original = np.where(nearest < 0, 0.0, probability[nearest])
    return OutputResult(
        accuracy=metrics.accuracy(speaking, probability),
        map=metrics.average_precision(speaking, probability),
        orig_map=metrics.average_precision(groundtruth.speaking, original),
        ap_sp=float(average_precision_score(speaking, probability)),
        ap_ns=float(average_precision_score(~speaking, 1 - probability)),
        auc=metrics.roc_auc(speaking, probability),
        confusion=confusion_matrix(speaking, predicted, labels=[False, True]),
        report=classification_report(
            speaking, predicted, labels=[False, True], target_names=CLASS_NAMES, zero_division=0
        ),
    )


def write_results(path: str | Path, results: Mapping[str, Mapping[str, OutputResult]]) -> None:
    """Write the numbers of several weight files as a csv with `COLUMNS`; outputs that a mode lacks stay empty.

    Args:
        path: csv to write.
        results: name of a weight file -> output -> numbers.
    """
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        for weights, outputs in results.items():
            line = {"weights": weights}
            for output, result in outputs.items():
                numbers = {f"{output}_{name}": value for name, value in vars(result).items()}
                line |= {f"orig_{output}_map": numbers.pop(f"{output}_orig_map"), **numbers}
            writer.writerow(line)


def as_text(results: Mapping[str, OutputResult]) -> str:
    """The numbers of all outputs as a table."""
    lines = [" " * TITLE_WIDTH + "".join(f"{name:>9}" for name in results)]
    for key, title in TITLES.items():
        lines.append(
            f"{title:<{TITLE_WIDTH}}" + "".join(f"{getattr(result, key):>9.5f}" for result in results.values())
        )
    return "\n".join(lines)


def new_figure(title: str, size: tuple[float, float] | None = None, *, show: bool = False):
    """A figure of matplotlib.

    Args:
        title: of its window.
        size: width and height in inches; by default matplotlib's.
        show: keep it for pyplot.show().
    """
    if show:
        from matplotlib import pyplot  # loads a window system's backend where there is one

        return pyplot.figure(title, figsize=size, layout="constrained")
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def plot_confusion(path: str | Path, confusion: np.ndarray, title: str, *, keep: bool = False) -> None:
    """Draw a confusion matrix, each row (true class) as shares of its windows.

    Args:
        path: image to write.
        confusion: (true class, predicted class) numbers of windows.
        title: says which output it is of.
        keep: leave the figure open, for pyplot.show().
    """
    figure = new_figure(title, show=keep)
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    ConfusionMatrixDisplay(shares, display_labels=CLASS_NAMES).plot(
        ax=axes, cmap="Blues", values_format=".2f", im_kw={"vmin": 0, "vmax": 1}
    )
    axes.set_title(f"{title}, {confusion.sum():,} windows")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=150)
