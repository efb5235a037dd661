"""A function over videos: in this process, in several, on the nodes of a Ray cluster, or in one share of a bigger job.

from core import parallel

broken = parallel.map_videos(extract, {"a": task_a, "b": task_b}, jobs=2)
"""

from core.parallel.processes import one_thread_each
from core.parallel.videos import Items, Opened, add_arguments, map_videos, one_by_one, report, run, shard, spread

__all__ = [
    "Items",
    "Opened",
    "add_arguments",
    "map_videos",
    "one_by_one",
    "one_thread_each",
    "report",
    "run",
    "shard",
    "spread",
]
