"""AVA csvs of a split -> one augmented csv, with the columns label_id and instance_id.

python data/augment_annotations.py annotations/train csv/train_augmented.csv
python -m data.augment_annotations annotations/val csv/val_augmented.csv
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

from core.formats import ava
from core.runtime.checks import as_path
from core.runtime.errors import exits_cleanly


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=as_path, help="folder of <video_id>-activespeaker.csv files")
    parser.add_argument("out", type=as_path, help="augmented csv to write")
    arguments = parser.parse_args(argv)

    rows = ava.augment(ava.read_split(arguments.annotations))
    ava.write_augmented(arguments.out, rows)
    videos, entities = rows["video_id"].nunique(), rows["entity_id"].nunique()
    print(f"{arguments.out}: {len(rows):,} faces of {entities:,} entities in {videos:,} videos")


if __name__ == "__main__":
    main()
