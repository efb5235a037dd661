"""A data set as its owners distribute it -> AVA layout: annotations, and links to videos, crops and audio.

    python data/import_dataset.py wasd WASD wasd
    python data/import_dataset.py unitalk UniTalk unitalk
    python data/import_dataset.py ego4d ego4d_data/v1 ego4d
    python data/import_dataset.py asw lookwhostalking asw --videos youtube
    python data/import_dataset.py ava-avd AVA-AVD/dataset ava_avd

Writes OUT/annotations/{train,val,test}/<video_id>-activespeaker.csv and, where the owners have categories,
OUT/categories.csv for `evaluate.py --categories`; links OUT/videos/<split>/<video_id>.<extension>, OUT/crops/<split>
and OUT/audio/<split> to what SOURCE has of them. SOURCE is not changed. What each data set has to hold is said at the
top of its reader in core/distributions/; what is made of the same is not made again. Videos that are missing are listed
(exit status 1).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

from core.distributions import READERS
from core.distributions.importing import write_layout
from core.runtime.checks import as_path
from core.runtime.errors import EXIT_BROKEN_ITEMS, UserError, exits_cleanly


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=READERS)
    parser.add_argument("source", type=as_path, help="folder of the data set as it is distributed")
    parser.add_argument("out", type=as_path, help="folder to write to")
    parser.add_argument("--videos", type=as_path, metavar="DIR", help="folder of <video_id>.<extension>, if elsewhere")
    arguments = parser.parse_args(argv)
    for folder in filter(None, (arguments.source, arguments.videos)):
        if not folder.is_dir():
            raise UserError(f"no folder {folder}: give a folder of {arguments.dataset}")

    distribution = READERS[arguments.dataset](arguments.source, arguments.videos)
    write_layout(distribution, arguments.dataset, arguments.out)
    for split, rows in distribution.rows.items():
        videos, entities = rows["video_id"].nunique(), rows["entity_id"].nunique()
        folder = arguments.out / "annotations" / split
        print(f"{folder}: {len(rows):,} faces of {entities:,} entities in {videos:,} videos")
    for place, target in distribution.links.items():
        if not place.startswith("videos/"):
            print(f"{arguments.out / place} -> {target}")
    for note in distribution.notes:
        print(f"note: {note}")
    if missing := distribution.missing:
        reason = next(iter(missing.values()))
        print(f"{len(missing):,} videos cannot be used ({reason}): {' '.join(missing)}", file=sys.stderr)
    return EXIT_BROKEN_ITEMS if distribution.missing else 0


if __name__ == "__main__":
    main()
