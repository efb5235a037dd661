"""The ranges of 8 bit integers for the visual networks of encoders with their default weights, from drawn faces alone.

    python scripts/calibrate.py                        # half a minute; writes core/models/int8.json, where it is used

A range is the greatest input of a convolution over tracks of drawn faces. Ranges are of these weights alone, whose
SHA-256 the record has; for other weights average precision in 8 bit integers was not measured.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

import torch

from core import settings
from core.download.weights_catalogue import INT8_RANGES, WEIGHTS, find_weights
from core.export.calibration import SCENES, drawn_faces
from core.models import TRACK_ENCODERS
from core.models.quantized import input_ranges
from core.models.weights import load_weights
from core.runtime.checks import as_path
from core.runtime.errors import exits_cleanly
from core.runtime.files import fingerprint, write_json


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scenes", type=settings.at_least_one, default=SCENES, help=f"drawn, of a second each (default {SCENES})"
    )
    parser.add_argument("--to", type=as_path, default=INT8_RANGES, metavar="FILE", help="default: where it is used")
    parser.add_argument(
        "--cache", type=as_path, help="folder for downloaded weights; by default the user's cache folder"
    )
    arguments = parser.parse_args(argv)
    faces = [torch.from_numpy(track[None]) for track in drawn_faces("train", arguments.scenes)]
    weights = {}
    for encoder, published in WEIGHTS.items():
        name = next(iter(published))
        path, _ = find_weights(encoder, name, arguments.cache)
        model = TRACK_ENCODERS[encoder]()
        load_weights(model, path, f"{encoder} weights")
        ranges = input_ranges(model.eval().model.visualEncoder, faces)
        weights[f"{encoder}/{name}"] = {"sha256": fingerprint(path), "ranges": ranges}
        print(f"{encoder}/{name}: {len(ranges)} convolutions", flush=True)
    made_by = {"made_by": "python scripts/calibrate.py", "scenes": arguments.scenes, "tracks": len(faces)}
    write_json(arguments.to, made_by | {"weights": weights})


if __name__ == "__main__":
    main()
