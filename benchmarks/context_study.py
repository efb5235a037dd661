"""What each ingredient of the residual context network brings: trained without it, several seeds, judged on other data.

    python benchmarks/context_study.py work/context/light_asd/features/train runs/real/features/train --seeds 3

TRAIN and TEST are folders of features (STE_forward.py), of the same encoder. Prints a line a variant: average precision
of each seed's network on TEST, their mean, and that of scenes with 1, 2 and 3 or more faces.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core import settings
from core.evaluation.metrics import average_precision
from core.formats.feature_store import FeatureStore
from core.inference.residual_contexts import corrected, shots_of
from core.inputs import shots
from core.inputs.sampling import ShuffledBatches
from core.inputs.shots import Shot, ShotDataset
from core.models import ResidualContext, residual_context
from core.runtime.errors import exits_cleanly
from core.training.losses import ShotLoss

RECIPE = Path(__file__).resolve().parents[1] / "configs" / "residual_context.py"
CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A network trained without something.

    Attributes:
        cues: how many of `CUES` it is given, from the first on.
        alone: each face is a shot of its own.
        as_it_is: cues are not varied in training.
        replaces: the encoder's logit is not added.
        near: faces' own means of some seconds are not given.
    """

    cues: int = len(residual_context.CUES)
    alone: bool = False
    as_it_is: bool = False
    replaces: bool = False
    near: bool = False


VARIANTS = {
    "as shipped": Variant(),
    "logit alone": Variant(cues=1),
    "logits of both and of the video": Variant(cues=2),
    "without other faces": Variant(alone=True),
    "cues not varied in training": Variant(as_it_is=True),
    "in place of the encoder's logit": Variant(replaces=True),
    "without a face's own mean": Variant(near=True),
}


class Part(nn.Module):
    """A residual context network that is given some of the cues."""

    def __init__(self, variant: Variant):
        super().__init__()
        self.network, self.given = ResidualContext(), variant.cues
        if variant.replaces:
            self.network.scale = nn.Parameter(torch.zeros(()), requires_grad=False)

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
    print("| variant | seeds | mean | 1 face | 2 faces | 3 or more |\n|---|---|---:|---:|---:|---:|")
    print(line("encoder", [judged(test, [shot.cues[..., 0] for shot in test])]))
    for name, variant in VARIANTS.items():
        results = [judged(test, scores(variant, recipe, seed, train, test)) for seed in range(arguments.seeds)]
        print(line(name, results), flush=True)


def scores(variant: Variant, recipe: dict, seed: int, train: list[Shot], test: list[Shot]) -> list[np.ndarray]:
    """Log odds (face, time) of the test shots by a network trained on the others."""
    factors = ("FILM_FACTOR", "FACE_FACTOR", "FALL_FACTOR", "FILM_OFFSET", "FACE_OFFSET", "NOISE")
    kept = {name: getattr(shots, name) for name in factors}, residual_context.AROUND
    try:
        for name in factors if variant.as_it_is else ():
            setattr(shots, name, 0.0)
        residual_context.AROUND = 0 if variant.near else kept[1]
        network = trained(variant, recipe, seed, list(single(train)) if variant.alone else train)
        if not variant.alone:
            return [corrected(network, shot.cues, shot.present, CPU) for shot in test]
        faces = [
            [corrected(network, shot.cues[[n]], shot.present[[n]], CPU) for n in range(len(shot.cues))] for shot in test
        ]
        return [np.concatenate(of_shot) for of_shot in faces]
    finally:
        for name, value in kept[0].items():
            setattr(shots, name, value)
        residual_context.AROUND = kept[1]


def trained(variant: Variant, recipe: dict, seed: int, train: list[Shot]) -> nn.Module:
    """A network by the recipe, in evaluation."""
    torch.manual_seed(seed)
    network, loss = Part(variant), ShotLoss(nn.CrossEntropyLoss())
    optimizer = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad],
        recipe["learning_rate"],
        weight_decay=recipe["weight_decay"],
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, recipe["step_size"], recipe["gamma"])
    dataset = ShotDataset(train, augment=True, seed=seed)
    batches = ShuffledBatches(len(dataset), recipe["batch_size"], seed)
    for epoch in range(1, recipe["epochs"] + 1):
        batches.epoch = epoch
        for keys in batches:
            optimizer.zero_grad()
            loss(network, dataset.__getitems__(keys), None).loss.backward()
            optimizer.step()
        schedule.step()
    return network.eval()


def single(train: list[Shot]) -> Iterator[Shot]:
    """Each face as a shot of its own."""
    for shot in train:
        for n in range(len(shot.cues)):
            yield dataclasses.replace(shot, cues=shot.cues[[n]], present=shot.present[[n]], labels=shot.labels[[n]])


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
