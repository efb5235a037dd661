"""A Ray cluster of this machine beside local processes: throughput, what a task costs, and this process's memory.

    python benchmarks/cluster.py                     # ten minutes on two quiet cores
    python benchmarks/cluster.py --videos 4 --tasks 5000 --repeats 1    # to see that it works

The work is that of preparation: cutting the crops of copies of one drawn video. Every figure of the cluster is taken
beside the local one in the same run. A target that is missed is marked in the table and is no error.
"""

import argparse
import functools
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd

from benchmarks import material, measure
from benchmarks.measure import Result
from core import parallel, settings
from core.media.container import MediaFile
from core.media.cropping import extract_crops
from core.runtime.errors import exits_cleanly

VIDEO_S = 10
TARGET_SHARE = 0.9  # of the throughput of as many local processes
TARGET_MS = 20
TARGET_MB = 500


@exits_cleanly
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, text in (
        ("--videos", 40, "to cut crops from, each time; starting workers counts"),
        ("--tasks", 100_000, "that do nothing"),
        ("--repeats", 2, "of each measurement of throughput"),
    ):
        parser.add_argument(name, type=settings.at_least_one, default=default, help=f"{text} (default {default:,})")
    arguments = parser.parse_args(argv)
    import core.parallel.ray_cluster  # noqa: F401  # without the extra it says what to install

    results = []
    with tempfile.TemporaryDirectory() as folder:
        video, rows = material.textured_video(Path(folder), VIDEO_S)
        cut = functools.partial(cut_crops, video, rows)
        for workers in (1, 2):
            results += throughput(cut, Path(folder) / "crops", arguments.videos, workers, arguments.repeats)
    results += measure.in_child(tasks, arguments.tasks) + measure.in_child(local_tasks, arguments.tasks)
    measure.print_table(results)


def cut_crops(video: Path, rows: pd.DataFrame, out: Path) -> None:
    """Cut the crops of one video."""
    with MediaFile(video) as media:
        extract_crops(media, rows, out)


def throughput(cut: Callable[[Path], None], out: Path, videos: int, workers: int, repeats: int) -> list[Result]:
    """Videos a second on `workers` nodes of one CPU each, and in as many processes, in turn."""
    items = {str(number): out / str(number) for number in range(videos)}
    rates = {"jobs": [], "cluster": []}
    import ray

    ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="error")
    for _ in range(repeats):
        for kind, options in (("jobs", {"jobs": workers}), ("cluster", {"cluster": "local"})):
            seconds = measure.seconds(lambda options=options: parallel.map_videos(cut, items, **options))
            rates[kind].append(videos / seconds)
            shutil.rmtree(out)
    ray.shutdown()
    shares = [ours / theirs for ours, theirs in zip(rates["cluster"], rates["jobs"], strict=True)]
    return [
        Result(f"--jobs {workers}, videos/s", rates["jobs"]),
        Result(f"--cluster, {workers} worker(s), videos/s", rates["cluster"]),
        Result(f"share of the throughput of --jobs {workers}", shares, target=TARGET_SHARE),
    ]


def tasks(count: int) -> list[Result]:
    """What a task costs that does nothing, and the memory of the process that gives them out."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    items = {f"video {number}": number for number in range(count)}
    parallel.map_videos(abs, {"first": 0}, cluster="local")
    seconds = measure.seconds(lambda: parallel.map_videos(abs, items, cluster="local"))
    ray.shutdown()
    return [
        Result("a task that does nothing, ms", [1000 * seconds / count], target=TARGET_MS, at_most=True),
        Result(f"peak memory of {count:,} tasks, MB", [measure.peak_mb()], target=TARGET_MB, at_most=True),
    ]


def local_tasks(count: int) -> list[Result]:
    """The memory of the process that gives them out to two of this machine."""
    parallel.map_videos(abs, {f"video {number}": number for number in range(count)}, jobs=2)
    return [Result(f"of {count:,} with --jobs 2, MB", [measure.peak_mb()], target=TARGET_MB, at_most=True)]


if __name__ == "__main__":
    main()
