"""Make the subsets of both splits: filtered, and with as many speaking samples as others.

    ava-subset configs/config.yaml ava_data

(or `python -m ava_asd.subset ...`). Reads train_annotations_full and test_annotations_full, applies filter_out
and remove_small_faces, draws as many samples of each class (train_keep_ratio and test_keep_ratio of the class that
has fewer), and writes train_annotations_subset and test_annotations_subset. With `annotation_type: subset` training
and evaluation use these; the two ratios are not applied again, and a subset that was chosen with other settings than
those of the configuration is refused.
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ava_asd.arguments import add_arguments, configuration, seed
from ava_asd.config import Config
from ava_asd.layout import SPLITS
from ava_asd.samples import Samples, balanced, read_samples, selection_settings, usable, write_samples
from core.runtime.errors import UserError, exits_cleanly


@exits_cleanly
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--seed", type=seed, default=0, help="another seed, another choice (default 0)")
    arguments = parser.parse_args(argv)
    config = configuration(arguments)
    # Both splits are chosen before either is written.
    subsets = {split: subset(config, arguments.data, split, arguments.seed) for split in SPLITS}
    for split, (samples, total) in subsets.items():
        path = config.path(arguments.data, f"{split}_annotations_subset")
        write_samples(path, samples)
        print(f"{split}: {len(samples):,} of {total:,} samples, half of them speaking, in {path}")


def subset(config: Config, data: Path, split: str, number: int) -> tuple[Samples, int]:
    """The subset of a split, and how many samples it was drawn from.

    Raises:
        UserError: as `read_samples`, or the filters leave no sample of a class.
    """
    full = read_samples(config, data, split, "full")
    left = full.take(np.flatnonzero(usable(full, config)))
    classes = left.classes(config)
    speaking = int(np.sum(classes == config.speaking_class))
    if speaking in (0, len(classes)):
        raise UserError(
            f"no {split} subset: of {len(full):,} samples the filters leave {speaking:,} speaking and "
            f"{len(classes) - speaking:,} others; change filter_classes, remove_small_faces or small_face_threshold, "
            "or extract more videos"
        )
    chosen = selection_settings(config, split)
    rows = balanced(classes, chosen[f"{split}_keep_ratio"], np.random.default_rng(number))
    return Samples(left.take(rows).table, {**full.made_of, **chosen, "seed": number}), len(full)


if __name__ == "__main__":
    main()
