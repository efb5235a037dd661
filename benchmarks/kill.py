"""Every stage killed at random moments and run again: what it leaves is what an undisturbed run leaves, byte for byte.

    python benchmarks/kill.py                       # 5 kills of each stage: a quarter of an hour on two cores
    python benchmarks/kill.py crops logits --kills 50 --seed 1

The stages work on a small synthetic set. SIGKILL goes to the stage's own process, whose workers have to end with it;
then the same command runs to its end. Exit status 1 where files differ, are left half written, or a worker lives on.
"""

import argparse
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core import settings
from core.runtime.errors import EXIT_BROKEN_ITEMS, exits_cleanly
from core.runtime.files import PART
from core.runtime.provenance import FOLDER
from core.training.runs import has_state

ROOT = Path(__file__).resolve().parents[1]
SET = ["--videos", 3, "--val-videos", 1, "--seconds", 2, "--size", "160x90"]
SPLIT = "train"
CONTEXT = [3, 1, 2, "cpu"]
TIME = re.compile(rb"\b\d{19}\b")  # ns since 1970
WORKERS_S = 20  # seconds that workers have to end


@dataclass(frozen=True)
class Stage:
    """A command, of words in which "{out}" is the folder that it writes and "{done}" that of all stages before it.

    Attributes:
        compared: pattern of the files that do not depend on the time.
        run: the run folder of a training, which is resumed where it has a state.
    """

    words: list[object]
    compared: str = "*"
    run: str | None = None

    def command(self, out: Path, done: Path) -> list[str]:
        resume = ["--resume"] if self.run and has_state(out / self.run) else []
        return [sys.executable, *(str(word).format(out=out, done=done) for word in self.words), *resume]


def _changes(dictionary: str, **values: object) -> list[object]:
    return [word for key, value in values.items() for word in ("--set", f"{dictionary}.{key}={value}")]


def stages() -> dict[str, Stage]:
    """The stages in order, by the name of the folder in {done} that each writes."""
    csv, videos = "{done}/csv/train.csv", "{done}/set/videos/train"
    tables = {f"csv_{split}_full": csv for split in ("train", "val")}
    inputs = {**tables, "audio_dir": "{done}/audio", "video_dir": "{done}/crops"}
    features = {f"features_{split}_full": "{done}/features/train" for split in ("train", "val")}
    train = {"backbone": "light_asd", "epochs": 2, "threads": 0}
    ste = [*_changes("STE_inputs", **inputs, models_out="{out}"), *_changes("STE_optimization_params", **train)]
    weights = {"weights": "{done}/ste/a/2.pth"}
    forward = [
        *_changes("STE_inputs", **inputs, models_out="{done}/ste", features_out="{out}"),
        *_changes("STE_forward_params", backbone="light_asd", **weights),
    ]
    asc = [
        *_changes("ASC_inputs", **features, models_out="{out}"),
        *_changes("ASC_optimization_params", epochs=2, learning_rate=1e-4),
    ]
    logits = [
        *_changes("ASC_inputs", models_out="{done}/asc"),
        *_changes("ASC_inputs_forward", **features, logits_out="{out}"),
        *_changes("ASC_forward_params", weights="{done}/asc/a/2.pth"),
    ]
    scored = _changes("ASC_inputs_forward", **tables, logits_out="{done}/logits", predictions_out="{out}")
    ste_scored = _changes("STE_inputs", **tables, features_out="{done}/features", predictions_out="{out}")
    train_split, jobs = ["--split", SPLIT], ["--jobs", 2]
    crops = ["data/extract_face_crops_time.py", videos, csv]
    return {
        "set": Stage(["scripts/make_synthetic_ava.py", "{out}", *SET, *jobs]),
        "csv": Stage(["data/augment_annotations.py", "{done}/set/annotations/train", "{out}/train.csv"]),
        "tracks": Stage(["data/extract_audio_tracks.py", videos, csv, "{out}", *jobs]),
        "audio": Stage(["data/slice_audio_tracks.py", "{done}/tracks", csv, "{out}/train", *jobs]),
        "crops": Stage([*crops, "{out}/train", "--size", 112, *jobs]),
        "crop_folders": Stage([*crops, "{out}/train", "--size", 112, "--layout", "folders"]),
        "ste": Stage(["STE_train.py", 11, "cpu", "--name", "a", *ste], "*.pth", "a"),
        "features": Stage(["STE_forward.py", 11, "cpu", *train_split, *forward]),
        "ste_scores": Stage(["STE_postprocessing.py", *train_split, *ste_scored]),
        "asc": Stage(["ASC_train.py", *CONTEXT, "--name", "a", *asc], "*.pth", "a"),
        "logits": Stage(["ASC_forward.py", *CONTEXT, *train_split, *logits]),
        "asc_scores": Stage(["ASC_prediction_postprocessing.py", *train_split, *scored]),
    }


def contents(folder: Path, pattern: str) -> dict[str, bytes]:
    """Every file below a folder whose name fits: relative path -> content, of records without the files' times."""
    found = {path.relative_to(folder): path.read_bytes() for path in folder.rglob(pattern) if path.is_file()}
    return {str(path): TIME.sub(b"", data) if path.parent.name == FOLDER else data for path, data in found.items()}


def kill_and_repeat(stage: Stage, out: Path, done: Path, after_s: float) -> Iterator[str]:
    """Kill a stage some seconds after its start and run it again; yields what is wrong then."""
    with subprocess.Popen(
        stage.command(out, done), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as run:
        time.sleep(after_s)
        workers = psutil.Process(run.pid).children(recursive=True)
        run.send_signal(signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=WORKERS_S)
    for worker in alive:
        yield f"{worker} lives on"
        worker.kill()
    again = subprocess.run(stage.command(out, done), cwd=ROOT, capture_output=True, text=True, check=False)
    if again.returncode:
        yield f"the next run ends with status {again.returncode}: {again.stderr.strip()[-300:]}"
    elif left := sorted(path.name for path in out.rglob(f"{PART}*")):
        yield f"left half written: {', '.join(left)}"


def kills(name: str, stage: Stage, folder: Path, number: int, draw: random.Random) -> list[str]:
    """Run a stage undisturbed, which the stages after it rely on, and kill it `number` times; what was wrong."""
    done, faults = folder / "done", []
    started = time.perf_counter()
    subprocess.run(stage.command(done / name, done), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    seconds, expected = time.perf_counter() - started, contents(done / name, stage.compared)
    if (done / name / SPLIT).is_dir():
        (done / name / "val").symlink_to(SPLIT)  # which trainings validate on
    for count in range(number):
        out, after_s = folder / f"{name}{count}", draw.uniform(0, seconds)
        found = list(kill_and_repeat(stage, out, done, after_s))
        other = contents(out, stage.compared)
        differing = sorted(key for key in expected.keys() | other.keys() if expected.get(key) != other.get(key))
        found += [f"other files: {', '.join(differing[:5])}"] if differing else []
        faults += [f"{name}, killed after {after_s:.2f} of {seconds:.2f} s: {fault}" for fault in found]
    print(f"{name:<14}{seconds:>8.1f}{number:>7}{len(faults):>8}", flush=True)
    return faults


@exits_cleanly
def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*stages(), []], metavar="STAGE", help=f"of {', '.join(stages())}")
    parser.add_argument("--kills", type=settings.at_least_one, default=5, help="of each stage (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other moments (default 0)")
    arguments = parser.parse_args(argv)
    faults, draw = [], random.Random(arguments.seed)
    print(f"{'stage':<14}{'seconds':>8}{'kills':>7}{'faults':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, stage in stages().items():
            number = arguments.kills if name in (arguments.names or stages()) else 0
            faults += kills(name, stage, Path(folder), number, draw)
    print("\n".join(faults), file=sys.stderr)
    return EXIT_BROKEN_ITEMS if faults else 0


if __name__ == "__main__":
    main()
