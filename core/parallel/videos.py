"""Map a function over videos, wherever the command line asks for: options, progress, and what became of each."""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

from tqdm import tqdm

from core.parallel import processes
from core.runtime import elsewhere
from core.runtime.checks import as_number, as_whole
from core.runtime.errors import EXIT_BROKEN_ITEMS, UserError
from core.runtime.files import make_folder, printable

Item = TypeVar("Item")
Kept = TypeVar("Kept")
PROGRESS = "{desc}: {n_fmt} of {total_fmt}, {elapsed}, {remaining} left"
PROGRESS_S = 60  # between lines where there is no terminal


class Items(Mapping[str, Item]):
    """Items by name, each made when it is its turn, so that those of a million videos are not held at once.

    Args:
        names: in order.
        make: name -> item.
    """

    def __init__(self, names: Iterable[str], make: Callable[[str], Item]):
        self.names, self.make = dict.fromkeys(names), make

    def __getitem__(self, name: str) -> Item:
        return self.make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class Opened(Generic[Kept, Item]):
    """A function for `map_videos` of something that takes long to open, as networks do, and of an item.

    Each process opens it once, when an item first needs it, and keeps it.

    Args:
        function: of `kept` and of the item.
        open: opens it; picklable.
    """

    def __init__(self, function: Callable[[Callable[[], Kept], Item], object], open: Callable[[], Kept]):
        self.function, self.open = function, open

    @cached_property
    def _kept(self) -> Kept:
        return self.open()

    def kept(self) -> Kept:
        """What this process has opened."""
        return self._kept

    def __call__(self, item: Item) -> None:
        self.function(self.kept, item)

    def __reduce__(self) -> tuple:
        return type(self), (self.function, self.open)


def add_arguments(parser: argparse.ArgumentParser, *, gpus: bool = False) -> None:
    """The options of every command that works video by video; `gpus`: of one that runs a network."""
    parser.add_argument("--jobs", type=int, default=1, help="videos worked on side by side (default 1)")
    parser.add_argument("--shard", metavar="I/N", help="work on the I-th of N shares of the videos only")
    parser.add_argument(
        "--cluster", metavar="ADDRESS", help="in place of --jobs a Ray cluster: auto, ray://HOST:PORT, or local"
    )
    if gpus:
        parser.add_argument(
            "--gpus-per-task",
            type=gpu_share,
            default=1.0,
            metavar="G",
            help="of --cluster: what a video takes of a GPU, such as 0.25 (default 1)",
        )


def gpu_share(text: str) -> float:
    """An argparse type: a share of a GPU, or whole ones."""
    try:
        share = round(as_number(text), 4)  # Ray knows no finer ones
    except ValueError:
        share = 0.0
    if not (0 < share <= 1 or (share.is_integer() and share > 0)):
        raise argparse.ArgumentTypeError(f"{text}: expected a share of a GPU, such as 0.25, or a whole number of them")
    return share


def map_videos(
    function: Callable[[Item], object],
    items: Mapping[str, Item],
    jobs: int = 1,
    description: str = "videos",
    cluster: str | None = None,
    *,
    gpus: float = 0,
    paths: Iterable[Path] = (),
) -> dict[str, str]:
    """Call `function` once for each video, side by side; a broken video does not stop the others.

    Args:
        function: picklable; its item's output files are its result, and it may be called again for an item that was
            interrupted. It raises MediaError for a broken video; any other exception ends the whole map. Each process
            gets it once and calls it for many items.
        items: video id -> argument; asked for one by one, a few ahead of the processes.
        jobs: local processes; 1 works in this process.
        description: what the progress bar says.
        cluster: address of a Ray cluster that does the work in place of `jobs`; see `core.parallel.ray_cluster`.
        gpus: how much of a GPU each of its workers takes.
        paths: what each of its nodes has to hold, as this machine does.

    Returns:
        Video id -> message, of the broken videos.

    Raises:
        UserError: `jobs` is below 1, there is no such cluster, or a node lacks a path.
    """
    if jobs < 1:
        raise UserError(f"--jobs {jobs}: expected 1 or more")
    if cluster is None:
        outcomes = processes.outcomes(function, items, jobs)
    else:
        from core.parallel import ray_cluster  # Ray is an optional extra

        outcomes = ray_cluster.outcomes(function, items, cluster, gpus=gpus, paths=paths)
    broken, begun = {}, time.monotonic()
    line_at = begun + PROGRESS_S
    with tqdm(total=len(items), desc=description, unit="video", disable=None) as bar:
        for count, (name, outcome) in enumerate(outcomes, 1):
            bar.update()
            if bar.disable and (now := time.monotonic()) >= line_at:  # no terminal: in the log of a batch system
                line_at = now + PROGRESS_S
                meter = {"prefix": description, "unit": "video", "bar_format": PROGRESS}
                tqdm.write(tqdm.format_meter(count, len(items), now - begun, **meter), file=sys.stderr)
            if outcome is not None:
                broken[name] = outcome
    return broken


def shard(names: Sequence[str], spec: str | None) -> list[str]:
    """The I-th of N shares of a list, for jobs spread over machines by hand or by a batch system.

    Args:
        names: all names, in an order that every machine agrees on.
        spec: "I/N", 1 <= I <= N; None for all.

    Raises:
        UserError: the text is not of that form.
    """
    if spec is None:
        return list(names)
    try:
        index, count = (as_whole(part) for part in spec.split("/"))
        if not 1 <= index <= count:
            raise ValueError
    except ValueError:
        raise UserError(f"--shard {spec}: expected I/N with 1 <= I <= N, for example 2/8") from None
    return list(names)[index - 1 :: count]


def report(broken: dict[str, str], total: int, out: str | Path) -> int:
    """Print what became of `total` videos, the broken ones by name; return the exit status of the script."""
    print(printable(f"{out}: {total - len(broken):,} of {total:,} videos done"))
    if not broken:
        return 0
    print(f"{len(broken)} video(s) with faults; the others are finished:", file=sys.stderr)
    for name, message in sorted((printable(name), printable(message)) for name, message in broken.items()):
        named = message if message.startswith(name) else f"{name}: {message}"  # where names are paths many begin so
        print(f"  {named}", file=sys.stderr)
    return EXIT_BROKEN_ITEMS


def one_by_one(arguments: argparse.Namespace) -> bool:
    """Whether the options of `add_arguments` ask for one video at a time, whose own progress can be shown."""
    return arguments.jobs == 1 and arguments.cluster is None


def spread(
    function: Callable[[Item], object],
    items: Mapping[str, Item],
    arguments: argparse.Namespace,
    description: str,
    *,
    paths: Iterable[Path],
    on_gpu: bool = False,
) -> dict[str, str]:
    """`map_videos` as the options of `add_arguments` ask for; `on_gpu`: the work is that of a GPU."""
    gpus = arguments.gpus_per_task if on_gpu else 0
    paths = [path for path in paths if not elsewhere.url_of(path)]
    return map_videos(function, items, arguments.jobs, description, arguments.cluster, gpus=gpus, paths=paths)


def run(
    function: Callable[[Item], object],
    items: Mapping[str, Item],
    arguments: argparse.Namespace,
    title: str,
    *,
    out: Path | None = None,
    paths: Iterable[Path] = (),
    on_gpu: bool = False,
) -> int:
    """A step: `spread` over the share of the videos that is asked for, then `report`; the exit status.

    Args:
        function, items, arguments, on_gpu: as of `spread`.
        title: what the progress bar says.
        out: folder that is written to; None for that of the arguments.
        paths: what is read besides the paths among the arguments.
    """
    out = arguments.out if out is None else out
    mine = Items(shard(list(items), arguments.shard), items.__getitem__)
    elsewhere.check_writable(out)
    if not elsewhere.url_of(out):
        make_folder(out)  # here, so that a node without this disk is told from one with it
    given = [one for value in vars(arguments).values() for one in (value if isinstance(value, list) else [value])]
    paths = [value for value in [*paths, out, *given] if isinstance(value, Path) and value.exists()]
    return report(spread(function, mine, arguments, title, paths=paths, on_gpu=on_gpu), len(mine), out)
