"""The benchmarks of the stages, and one table of them: in markdown, as it stands in docs/speed.md.

    python benchmarks/all.py                        # all of them: eight minutes on two quiet cores
    python benchmarks/all.py crops contexts         # some of them
    python benchmarks/all.py --quick                # one short run each, some on less data: to see that they work
    python benchmarks/all.py crops --mini-ava DIR   # the bytes of crops also on a data set in AVA layout
    python benchmarks/all.py networks track_encoders --seconds 2 --device 0

A target that is missed is marked in the table and is no error: the exit status is 0 when everything could be measured.
"""

import argparse
import importlib
import inspect
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from core import settings
from core.runtime import devices
from core.runtime.errors import exits_cleanly

# In this order, since those that need the textured video share its folder.
NAMES = (
    "crops",
    "clips",
    "ste_forward",
    "contexts",
    "asc_forward",
    "networks",
    "track_encoders",
    "evaluate",
    "ava_asd",
)
QUICK = {"repeats": 1, "rows": 10_000, "seconds": 0.5}


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("--repeats", type=settings.at_least_one, help="runs of each line")
    parser.add_argument("--seconds", type=float, help="for each line of the networks")
    parser.add_argument("--threads", type=settings.at_least_one, help="CPU threads of the networks")
    parser.add_argument("--rows", type=settings.at_least_one, help="of the feature stores and the evaluated csvs")
    parser.add_argument("--device", type=devices.device, help="of the networks: cpu, or the index of a CUDA device")
    parser.add_argument("--mini-ava", type=Path, metavar="DIR", help="a data set in AVA layout, for the bytes per crop")
    parser.add_argument("--long", action="store_true", default=None, help="also cut a long video, for the memory")
    parser.add_argument("--tensorflow", type=Path, metavar="PYTHON", help="of an environment with tensorflow-cpu")
    arguments = vars(parser.parse_args(argv))
    names, quick = arguments.pop("names") or NAMES, arguments.pop("quick")
    options = (QUICK if quick else {}) | {name: value for name, value in arguments.items() if value is not None}

    runtime = measure.in_child(_runtime, options.get("device"))  # there: what this imports would count as memory
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {runtime}")
    lines, started = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            begin = time.perf_counter()
            lines += measure.in_child(_results, name, {"folder": Path(folder), **options})
            print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
    print(f"all: {time.perf_counter() - started:.0f} s\n")
    measure.print_table(lines)


def _runtime(device: object | None) -> str:
    from core.inference.engine import runtime_name

    return runtime_name(str(device or "cpu"))


def _results(name: str, options: dict[str, Any]) -> list[measure.Result]:
    """One benchmark's lines, in a process of its own: what it sets (cores, threads) does not reach the next."""
    results = importlib.import_module(f"benchmarks.{name}").results
    return results(**{key: value for key, value in options.items() if key in inspect.signature(results).parameters})


if __name__ == "__main__":
    main()
