"""Show samples of ava_asd as a network receives them: the face's box on the frame, the crops of the window, its MFCCs.

    python scripts/visualise_dataset.py configs/config.yaml ava_data                        # sample 0 of the test split
    python scripts/visualise_dataset.py configs/config.yaml ava_data --split train --sample 10 --out sample.png --show

Writes an image; --show opens a window as well.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import cv2
import numpy as np

from ava_asd.arguments import add_arguments, configuration
from ava_asd.evaluation import new_figure
from ava_asd.stores import read_faces
from ava_asd.windows import SPLITS, Windows
from core.formats import ava
from core.runtime.checks import as_path
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import atomic_write

IMAGE_SUFFIXES = (".png", ".jpg", ".pdf", ".svg")
GREEN, RED = "#21c321", "#e03131"  # speaking, not speaking


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--split", choices=SPLITS, default="test")
    parser.add_argument("--sample", type=int, default=0, help="number of the sample (default 0)")
    parser.add_argument("--out", type=as_path, default=Path("sample.png"), help="image to write (default sample.png)")
    parser.add_argument("--show", action="store_true", help="show it in a window, too")
    return parser.parse_args(argv)


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    if arguments.out.suffix.lower() not in IMAGE_SUFFIXES:  # checked before the work of drawing
        raise UserError(f"--out {arguments.out}: the name must end with one of {', '.join(IMAGE_SUFFIXES)}")
    windows = Windows(configuration(arguments), arguments.data, arguments.split)
    if not 0 <= arguments.sample < len(windows):
        raise UserError(f"--sample {arguments.sample}: there are the samples 0 to {len(windows) - 1:,}")
    figure = draw(windows, arguments.sample, show=arguments.show)
    with atomic_write(arguments.out) as temporary:
        figure.savefig(temporary, dpi=120)
    print(
        f"{arguments.out}: {windows.label[arguments.sample]}, entity {windows.entity_id[arguments.sample]} at "
        f"{windows.timestamp[arguments.sample]:.2f} s"
    )
    if arguments.show:
        from matplotlib import pyplot  # loads a window system's backend where there is one

        pyplot.show()


def draw(windows: Windows, sample: int, *, show: bool = False):
    """A sample as a figure of matplotlib.

    Args:
        windows: of a split.
        sample: number of the sample.
        show: make the figure for pyplot.show().
    """
    figure = new_figure("sample", (9, 8), show=show)
    top, middle, bottom = figure.subfigures(3, 1, height_ratios=(5, 2, 2))
    batch = windows.load([sample])
    label = windows.label[sample]
    colour = GREEN if label == ava.SPEAKING else RED
    draw_frame(top.subplots(), windows, sample, colour)
    top.suptitle(f"{windows.entity_id[sample]}, {windows.timestamp[sample]:.2f} s: {label}", color=colour)
    draw_crops(middle, batch.video[0].numpy())
    unit = "standard deviations" if windows.config.apply_stddev else "decibels"
    draw_mfccs(bottom.subplots(), batch.audio[0, 0].numpy(), windows.store(sample).hop_s, unit)
    return figure


def draw_frame(axes, windows: Windows, sample: int, colour: str) -> None:
    """The frame of the labelled face, and its box."""
    from matplotlib.patches import Rectangle

    folder = windows.store(sample).folder
    face = read_faces(folder.faces).slice(windows.first[sample] + windows.config.video_window - 1, 1).to_pylist()[0]
    path = folder.frame(face["frame"])
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) if path.is_file() else None
    if pixels is None:
        raise UserError(f"{path} is no readable image: run 'ava-extract videos' again")
    height, width = pixels.shape[:2]
    x1, y1, x2, y2 = np.array([face[name] for name in ava.BOX_COLUMNS]) * (width, height, width, height)
    axes.imshow(pixels)
    axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=2))
    axes.set_axis_off()
    axes.set_title(f"{folder.path.name}/{path.name}", fontsize="small")


def draw_crops(figure, video: np.ndarray) -> None:
    """The faces of a window, (channel, frame, row, column) uint8, side by side."""
    all_axes = np.atleast_1d(figure.subplots(1, video.shape[1]))
    for axes, number in zip(all_axes, range(video.shape[1]), strict=True):
        planes = video[:, number]
        colours = planes[::-1].transpose(1, 2, 0)  # stored blue before red
        axes.imshow(planes[0] if len(planes) == 1 else colours, cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()
        axes.set_title(f"face {number + 1}", fontsize="small")


def draw_mfccs(axes, mfccs: np.ndarray, hop_s: float, unit: str) -> None:
    """The audio of a window, (coefficient, vector) MFCCs in a unit, a vector each `hop_s` seconds."""
    end_s = mfccs.shape[1] * hop_s
    image = axes.imshow(mfccs, origin="lower", aspect="auto", extent=(-end_s, 0, -0.5, len(mfccs) - 0.5))
    axes.set(xlabel="seconds before the labelled time", ylabel="MFCC")
    axes.figure.colorbar(image, ax=axes, label=unit)


if __name__ == "__main__":
    main()
