"""What each ingredient of the residual context network brings: one of its members trained without it, several seeds.

    python benchmarks/context_study.py work/context/light_asd/features/train runs/real/features/train --seeds 3

TRAIN and TEST are folders of features (STE_forward.py) of the same encoder. Prints a line a variant: average precision
of each seed's network on TEST, their mean, that of scenes with 1, 2 and 3 or more faces, and the mean where what voices
tell is added.
"""

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core import settings
from core.evaluation.metrics import average_precision
from core.formats.feature_store import FeatureStore
from core.inference.residual_contexts import ResidualScorer, shots_of
from core.inference.voices import by_voice
from core.inputs.sampling import ShuffledBatches
from core.inputs.shot_batches import ShotDataset
from core.inputs.shots import Shot
from core.models import ResidualContext
from core.models.residual_context import AROUND, CUES, MEMBERS
from core.optimization import Training, make_accelerator, make_criterion
from core.runtime.errors import exits_cleanly
from core.training.losses import ShotLoss
from core.training.runs import Run

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "residual_context.py"
CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A network trained without something.

    Attributes:
        cues: how many of `CUES` it is given, from the first on.
        alone: each face is a shot of its own.
        strength: see `ShotDataset`.
        replaces: the encoder's logit is not added.
        reach: see `Corrector`.
        members: see `ResidualContext`.
    """

    cues: int = len(CUES)
    alone: bool = False
    strength: float = 1.0
    replaces: bool = False
    reach: int = AROUND
    members: int = 1


VARIANTS = {
    "as shipped": Variant(members=MEMBERS),
    "one network": Variant(),
    "logit alone": Variant(cues=1),
    "logit and that of the video": Variant(cues=2),
    "without the correlation": Variant(cues=4),
    "without other faces": Variant(alone=True),
    "cues not varied in training": Variant(strength=0.0),
    "in place of the encoder's logit": Variant(replaces=True),
    "without a face's own mean": Variant(reach=0),
}


class Part(nn.Module):
    """A residual context network that is given some of the cues."""

    def __init__(self, variant: Variant):
        super().__init__()
        self.network, self.given = ResidualContext(variant.members, reach=variant.reach), variant.cues
        if variant.replaces:
            for member in self.network.members:
                member.scale = nn.Parameter(torch.zeros(()), requires_grad=False)

    def forward(self, cues: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        given = torch.arange(cues.shape[-1], device=cues.device) < self.given
        return self.network(cues * given, present)


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path, help="features to train on")
    parser.add_argument("test", type=Path, help="features to judge on")
    parser.add_argument("--seeds", type=settings.at_least_one, default=3, help="networks a variant (default 3)")
    parser.add_argument("--epochs", type=settings.at_least_one, help="default those of configs/residual_context.py")
    arguments = parser.parse_args(argv)
    recipe = dict(settings.load(RECIPE, [], {"ASC_optimization_params": []})["ASC_optimization_params"])
    recipe["epochs"] = arguments.epochs or recipe["epochs"]
    train, test = (shots_of(FeatureStore(folder)) for folder in (arguments.train, arguments.test))
    print("| variant | seeds | mean | 1 face | 2 faces | 3 or more | with voices |\n|---|---|---:|---:|---:|---:|---:|")
    encoder = judged(test, [shot.cues[..., 0] for shot in test])
    print(line("encoder", [[*encoder, float("nan")]]), flush=True)
    for name, variant in VARIANTS.items():
        results = [results_of(variant, recipe, seed, train, test) for seed in range(arguments.seeds)]
        print(line(name, results), flush=True)


def results_of(variant: Variant, recipe: dict, seed: int, train: list[Shot], test: list[Shot]) -> list[float]:
    """What `judged` gives of a network trained on some shots, of others, and the first of it with voices besides."""
    network = trained(variant, recipe, seed, [part for shot in train for part in parts(variant, shot)])
    scorer = ResidualScorer.of(network)
    odds = [np.concatenate([odds_of(scorer, part) for part in parts(variant, shot)]) for shot in test]
    added = [by_voice(own, shot.present, shot.heard, slice(None)) for own, shot in zip(odds, test, strict=True)]
    with_voices = [own + more for own, more in zip(odds, added, strict=True)]
    return [*judged(test, odds), judged(test, with_voices)[0]]


def parts(variant: Variant, shot: Shot) -> list[Shot]:
    """What the variant takes for shots: the shot, or each of its faces."""
    if not variant.alone:
        return [shot]
    faces = ([face] for face in range(len(shot.cues)))
    return [replace(shot, cues=shot.cues[n], present=shot.present[n], labels=shot.labels[n]) for n in faces]


def odds_of(scorer: ResidualScorer, shot: Shot) -> np.ndarray:
    """(face, time) float32 log odds of a shot, by the network alone."""
    return np.stack(scorer.odds([0] * len(shot.cues), shot.cues, shot.present))


def trained(variant: Variant, recipe: dict, seed: int, train: list[Shot]) -> nn.Module:
    """A network by the recipe, in evaluation."""
    torch.manual_seed(seed)
    network, dataset = Part(variant), ShotDataset(train, augment=True, seed=seed, strength=variant.strength)
    batches = ShuffledBatches(len(dataset), recipe["batch_size"], seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        accelerator = make_accelerator(CPU, "fp32")
        training = Training(
            network,
            ShotLoss(make_criterion(recipe["criterion"])),
            train=(dataset, batches),
            val=(ShotDataset(train[:1], augment=False), ShuffledBatches(1, 1, shuffle=False)),
            accelerator=accelerator,
            item="shots",
            **settings.training_arguments(recipe | {"seed": seed}),
        )
        training.fit(Run.open(Path(folder) / "run", {}, False, accelerator))
    return network.eval()


def judged(test: list[Shot], odds: list[np.ndarray]) -> list[float]:
    """Average precision of all, and of times with 1, 2 and 3 or more faces."""
    faces = np.concatenate([np.broadcast_to(s.present.sum(0), s.present.shape)[s.present] for s in test])
    values = np.concatenate([one[s.present] for one, s in zip(odds, test, strict=True)])
    speaking = np.concatenate([s.labels[s.present] for s in test]) == 1
    groups = [faces > 0, faces == 1, faces == 2, faces > 2]
    return [average_precision(speaking[g], values[g]) if speaking[g].any() else float("nan") for g in groups]


def line(name: str, results: list[list[float]]) -> str:
    """A row of the table: results of each seed."""
    each = " ".join(f"{result[0]:.3f}" for result in results)
    return f"| {name} | {each} | " + " | ".join(f"{value:.3f}" for value in np.mean(results, axis=0)) + " |"


if __name__ == "__main__":
    main()
