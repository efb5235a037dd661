"""Scores of the context network in the official format: ASC.csv and gt.csv.

    python ASC_prediction_postprocessing.py                     # validation split
    python evaluate.py --groundtruth predictions/val/gt.csv --predictions predictions/val/ASC.csv

Reads ASC_inputs_forward and ASC_postprocessing_params of core/config.py; writes
ASC_inputs_forward['predictions_out']/{train,val}.
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
from pathlib import Path

from core import settings
from core.evaluation.predictions import write_split
from core.evaluation.scores import speaking_probability
from core.formats import ava
from core.formats.ava import positions
from core.formats.context_logits import COLUMNS, STEP, read_logits
from core.runtime.errors import exits_cleanly
from core.runtime.provenance import declared, recorded_left_out


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings.add_split_argument(parser, default="val")
    settings.add_arguments(parser)
    arguments = parser.parse_args(argv)
    splits = settings.splits(arguments.split)
    paths = [*(f"csv_{split}_full" for split in splits), "logits_out", "predictions_out"]
    needed = {"ASC_inputs_forward": paths, "ASC_postprocessing_params": []}
    config = settings.load(arguments.config, arguments.changes, needed)
    inputs, window = config["ASC_inputs_forward"], config["ASC_postprocessing_params"]["median_window"]

    for split in splits:
        rows = ava.read_augmented(inputs[f"csv_{split}_full"])
        folder = Path(inputs["logits_out"]) / split
        logits = read_logits(folder)
        left_out = sum(recorded_left_out(folder, declared(folder, STEP) or []).values())
        rows = ava.without_left_out(rows, logits["entity_id"], logits["frame_timestamp"], left_out)
        order = positions(rows, logits["entity_id"], logits["frame_timestamp"], str(folder))
        scores = speaking_probability(
            logits[["logit0", "logit1"]].to_numpy()[order], rows["entity_id"].to_numpy(), window
        )
        made_of = {"logits": ava.digest(logits, COLUMNS), "median_window": window}
        print(write_split(f"{inputs['predictions_out']}/{split}", "ASC", rows, scores, made_of, left_out))


if __name__ == "__main__":
    main()
