"""Every benchmark, one after the other, and one table of all of them: in markdown, as it stands in the documents.

    python benchmarks/all.py                     # seven minutes on two quiet cores
    python benchmarks/all.py --mini-ava DIR      # the bytes of crops also on a data set in AVA's form
    python benchmarks/all.py --quick             # one short run each, some on less data: to see that they work

A target that is missed is marked in the table and is no error: the exit status is 0 when everything could be measured.
"""

import argparse
import importlib
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import measure
from core.runtime.errors import exits_cleanly


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the networks (default 2)")
    parser.add_argument("--mini-ava", type=Path, metavar="DIR", help="a data set in AVA's form, for the bytes per crop")
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    arguments = parser.parse_args(argv)

    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; networks on {arguments.threads} threads"
    )
    lines, started = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for name, options in _plan(Path(folder), arguments).items():
            elapsed = measure.seconds(lambda: lines.extend(measure.in_child(_results, name, options)))  # noqa: B023
            print(f"{name}: {elapsed:.0f} s", flush=True)
    print(f"all: {time.perf_counter() - started:.0f} s\n")
    measure.print_table(lines)


def _plan(folder: Path, arguments: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Benchmark -> the arguments of its `results`. Those that need the textured video share its folder."""
    threads = {"threads": arguments.threads}
    once = {"repeats": 1} if arguments.quick else {}
    fewer = {"rows": 10_000} if arguments.quick else {}
    return {
        "crops": {"folder": folder, "mini_ava": arguments.mini_ava, **once},
        "clips": {"folder": folder, **once},
        "ste_forward": {"folder": folder, **threads, **once},
        "contexts": {"folder": folder, **fewer, **once},
        "asc_forward": {"folder": folder, **threads, **fewer, **once},
        "networks": {"seconds": 0.5 if arguments.quick else 3, **threads},
        "track_encoders": {"seconds": 0.5 if arguments.quick else 3},  # on one thread, as what is published
        "evaluate": {"folder": folder, **fewer, **once},
        "ava_asd": {"folder": folder, **threads, **fewer, **once},
    }


def _results(name: str, options: dict[str, Any]) -> list[measure.Result]:
    """One benchmark's lines, in a process of its own: what it sets (cores, threads) does not reach the next."""
    return importlib.import_module(f"benchmarks.{name}").results(**options)


if __name__ == "__main__":
    main()
