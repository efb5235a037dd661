"""Learning curves: loss and average precision by epoch."""

import csv
from pathlib import Path

from core.runtime.files import atomic_write


def plot_learning_curves(logs: dict[str, str | Path], path: str | Path) -> None:
    """Draw the curves of one or several runs.

    Args:
        logs: title -> log.csv of a run folder.
        path: PNG to write.
    """
    from matplotlib.figure import Figure  # slow to load

    figure = Figure(figsize=(5 * len(logs), 6), layout="constrained")
    axes = figure.subplots(2, len(logs), squeeze=False)
    for column, (title, log) in enumerate(logs.items()):
        with Path(log).open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        epochs = [int(line["epoch"]) for line in lines]
        for row, (name, label) in enumerate((("loss", "loss"), ("ap", "average precision"))):
            axis = axes[row][column]
            for split, colour in (("train", "tab:blue"), ("val", "tab:orange")):
                values = [float(line[f"{split}_{name}"]) for line in lines]
                axis.plot(epochs, values, color=colour, marker="o", markersize=3, label=split)
            axis.set(xlabel="epoch", ylabel=label, title=title if row == 0 else None)
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.grid(alpha=0.3)
            axis.legend(frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)
