"""How the numbers of `core.inference.voices.by_voice` were chosen: average precision with others in their place.

    python benchmarks/voices.py runs/real/features/train --context light_asd

FEATURES is a folder that STE_forward.py wrote. Prints a table in Markdown.
"""

import argparse
import sys
from pathlib import Path
from unittest import mock

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.context_study import judged
from core.detection.options import WHOLE_TRACK_ENCODERS
from core.download.weights_catalogue import SHIPPED_CONTEXTS
from core.formats.feature_store import FeatureStore
from core.inference import voices
from core.inference.residual_contexts import ResidualScorer, shots_of
from core.models import ResidualContext
from core.models.weights import load_weights
from core.runtime.errors import exits_cleanly

OTHERS = {
    "WEIGHT": (0, 0.5, 1.0, 2.0, 3.0),
    "SYLLABLES": (5.0, 7.0, 14.0, 20.0),
    "ALIKE": (3.5, 5.0, 10.0, 14.0),
    "APART": (12, 18, 35, 50),
    "SELDOM": (0.02, 0.1),
    "EVERY": (1, 10),
}


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, metavar="FEATURES", help="of an encoder with a shipped context network")
    parser.add_argument("--context", choices=WHOLE_TRACK_ENCODERS, default=WHOLE_TRACK_ENCODERS[0])
    arguments = parser.parse_args(argv)
    network = ResidualContext()
    load_weights(network, SHIPPED_CONTEXTS / f"{arguments.context}.pth", "context network")
    scorer, shots = ResidualScorer.of(network), shots_of(FeatureStore(arguments.features))

    def line(name: str) -> str:
        scored = [np.stack(scorer.scores([0] * len(s.cues), s.cues, [s.heard] * len(s.cues), s.present)) for s in shots]
        return f"| {name} | " + " | ".join(f"{value:.4f}" for value in judged(shots, scored)) + " |"

    print("| | all | 1 face | 2 faces | 3 or more |\n|---|---:|---:|---:|---:|")
    print(line("as shipped"), flush=True)
    for name, values in OTHERS.items():
        for value in values:
            with mock.patch.object(voices, name, value):
                print(line(f"{name} {value:g}"), flush=True)


if __name__ == "__main__":
    main()
