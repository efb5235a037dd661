"""Learning curves: loss and average precision by epoch."""

from pathlib import Path

from core.runtime.files import atomic_write
from core.training.runs import read_log


def plot_learning_curves(logs: dict[str, str | Path], path: str | Path) -> None:
    """Draw the curves of one or several runs.

    Args:
        logs: title -> log.csv of a run folder.
        path: PNG to write.

    Raises:
        UserError: a log cannot be read.
    """
    from matplotlib.figure import Figure  # slow to load

    figure = Figure(figsize=(5 * len(logs), 6), layout="constrained")
    axes = figure.subplots(2, len(logs), squeeze=False)
    for column, (title, log) in enumerate(logs.items()):
        lines = read_log(log)
        epochs = [int(line["epoch"]) for line in lines]
        for row, (name, label) in enumerate((("loss", "loss"), ("ap", "average precision"))):
            axis = axes[row][column]
            for split, colour in (("train", "tab:blue"), ("val", "tab:orange")):
                values = [float(line.get(f"{split}_{name}") or "nan") for line in lines]
                axis.plot(epochs, values, color=colour, marker="o", markersize=3, label=split)
            axis.set(xlabel="epoch", ylabel=label, title=title if row == 0 else None)
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.grid(alpha=0.3)
            axis.legend(frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=120)
