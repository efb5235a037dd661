"""Scores of the Short-Term Encoder in the official format: STE.csv and gt.csv.

    python STE_postprocessing.py                                # validation split
    python STE_postprocessing.py --split both --set STE_postprocessing_params.median_window=11
    python evaluate.py --groundtruth predictions/val/gt.csv --predictions predictions/val/STE.csv

Reads STE_inputs and STE_postprocessing_params of core/config.py; writes STE_inputs['predictions_out']/{train,val}.
With head "audio" or "video" the file is STE_audio.csv or STE_video.csv.
"""

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import argparse
from pathlib import Path

from core import settings
from core.evaluation.predictions import write_split
from core.evaluation.scores import speaking_probability
from core.formats import ava
from core.formats.ava import positions
from core.formats.feature_store import FeatureStore
from core.runtime.errors import UserError, exits_cleanly


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    settings.add_split_argument(parser, default="val")
    settings.add_arguments(parser)
    arguments = parser.parse_args(argv)
    splits = settings.splits(arguments.split)
    paths = [*(f"csv_{split}_full" for split in splits), "features_out", "predictions_out"]
    config = settings.load(arguments.config, arguments.changes, {"STE_inputs": paths, "STE_postprocessing_params": []})
    inputs, params = config["STE_inputs"], config["STE_postprocessing_params"]

    for split in splits:
        rows = ava.read_augmented(inputs[f"csv_{split}_full"])
        folder = Path(inputs["features_out"]) / split
        store = FeatureStore(folder)
        logits = store.logits if params["head"] == "av" else getattr(store, f"{params['head']}_logits")
        if logits is None:
            raise UserError(
                f"{folder} keeps no logits of the {params['head']} head: encoders of whole tracks (lr_asd, light_asd) "
                "have no audio head, and the csv form keeps the joint one alone; choose head 'av', or forward with "
                "another backbone or format 'arrow'"
            )
        left_out = sum(store.left_out.values())
        rows = ava.without_left_out(rows, store.entity_ids, store.timestamps, left_out)
        logits = logits[positions(rows, store.entity_ids, store.timestamps, str(folder))]
        scores = speaking_probability(logits, rows["entity_id"].to_numpy(), params["median_window"])
        name = "STE" if params["head"] == "av" else f"STE_{params['head']}"
        made_of = {"features": store.fingerprint(), **params}
        print(write_split(f"{inputs['predictions_out']}/{split}", name, rows, scores, made_of, left_out))


if __name__ == "__main__":
    main()
