"""The shipped context networks, from nothing: drawn scenes, published encoders' scores of them, a network for each.

    python scripts/train_context.py work/context                 # 20 minutes on two cores; then look at the table
    python scripts/train_context.py /tmp/try --videos 4 --seconds 4 --encoders light_asd --to /tmp/try/shipped

No recording of anybody is used: the scenes are those of `make_synthetic_ava.py --conditions varied`. Writes
TO/<encoder>.pth and TO/<encoder>.json, which says how the weights were made and how well they do on other drawn scenes.
What is done already is not done again.
"""

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import core.runtime.quiet_start  # noqa: F401  # isort: skip

from core import settings
from core.download.weights_catalogue import SHIPPED_CONTEXTS, WEIGHTS, find_weights
from core.models.weights import read_state_dict, write_torch_file
from core.runtime.checks import as_path
from core.runtime.errors import UserError, exits_cleanly
from core.runtime.files import fingerprint, make_folder, read_json, write_json
from core.training.runs import find_checkpoint

ROOT = Path(__file__).resolve().parents[1]


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=as_path, help="folder for the scenes, features and runs")
    parser.add_argument("--encoders", nargs="+", choices=WEIGHTS, default=list(WEIGHTS), help="default all")
    parser.add_argument("--videos", type=settings.at_least_one, default=80, help="scenes to train on (default 80)")
    parser.add_argument("--seconds", type=settings.at_least_one, default=15, help="length of each (default 15)")
    parser.add_argument("--seed", type=int, default=1, help="of the scenes and of the training (default 1)")
    parser.add_argument("--jobs", type=settings.at_least_one, default=2, help="videos made side by side (default 2)")
    parser.add_argument(
        "--to", type=as_path, default=SHIPPED_CONTEXTS, help="folder of the weights (default: where they are used)"
    )
    arguments = parser.parse_args(argv)
    work = make_folder(arguments.work).resolve()
    scenes = {"videos": arguments.videos, "val-videos": max(1, arguments.videos // 10), "seconds": arguments.seconds}
    scenes |= {"seed": arguments.seed, "conditions": "varied"}
    options = [word for name, value in scenes.items() for word in (f"--{name}", value)]
    run("scripts/make_synthetic_ava.py", work / "scenes", *options, "--jobs", arguments.jobs)
    for encoder in arguments.encoders:
        out = work / encoder
        run(
            *("scripts/run_pipeline.py", "--videos", work / "scenes/videos", "--out", out),
            *("--annotations", work / "scenes/annotations", "--backbone", encoder, "--encoder-weights", "ava"),
            "--no-shipped",
            *("--jobs", arguments.jobs, "--set", "STE_forward_params.precision=bf16"),
            *("--set", f"ASC_optimization_params.seed={arguments.seed}"),
        )
        ship(encoder, out, arguments.to, scenes)


def run(*command: object) -> None:
    """Run a script of this repository.

    Raises:
        UserError: it failed.
    """
    words = [str(word) for word in command]
    status = subprocess.run([sys.executable, *words], cwd=ROOT, check=False).returncode
    if status:
        raise UserError(f"{words[0]} failed with status {status}; see above, then run this again")


def ship(encoder: str, run_folder: Path, to: Path, scenes: dict[str, object]) -> None:
    """Write a run's weights with the record of how they were made."""
    weights = find_checkpoint("last", run_folder / "models", "ASC")  # those that the evaluation is of
    evaluation = read_json(run_folder / "evaluation.json", f"delete {run_folder} and run this again")
    precision = {Path(one["predictions"]).stem: one["average_precision"] for one in evaluation["files"]}
    encoder_weights, _ = find_weights(encoder, "ava")
    to = make_folder(to)
    write_torch_file(to / f"{encoder}.pth", read_state_dict(weights, "ASC checkpoint"))
    record = {
        "network": "residual",
        "encoder": encoder,
        "encoder_weights": encoder_weights.name,
        "encoder_sha256": fingerprint(encoder_weights),
        "sha256": fingerprint(to / f"{encoder}.pth"),
        "licence": "MIT",
        "made_by": "python scripts/train_context.py",
        "scenes": scenes,
        "training": read_json(weights.parent / "settings.json", "run this again")["ASC_optimization_params"],
        "drawn_val_average_precision": {"encoder": precision["STE"], "with_context": precision["ASC"]},
    }
    write_json(to / f"{encoder}.json", record)
    print(f"{to / encoder}.pth: AP of other drawn scenes {precision['STE']:.4f}, with context {precision['ASC']:.4f}")


if __name__ == "__main__":
    main()
