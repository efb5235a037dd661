"""Videos side by side: a broken one stops nobody, anything else stops everybody."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from core import parallel
from core.parallel import processes
from core.runtime.errors import MediaError, UserError


# At module level: another process has to find them.
def write_number(item: tuple[Path, int]) -> None:
    folder, number = item
    if number % 3 == 0:
        raise MediaError(f"number {number} is broken")
    (folder / str(number)).write_text(str(os.getpid()))


def refuse(item: int) -> None:
    raise UserError(f"no space for {item}")


def interrupt(item: int) -> None:
    raise KeyboardInterrupt


def begin_and_wait(folder_and_number: tuple[Path, int]) -> None:
    folder, number = folder_and_number
    (folder / str(number)).touch()
    time.sleep(60)


def end_the_process(item: int) -> None:
    os._exit(1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_broken_videos_are_reported_and_the_others_finished(tmp_path, jobs):
    items = {f"-v{number}": (tmp_path, number) for number in range(7)}
    broken = parallel.map_videos(write_number, items, jobs, "numbers")
    assert broken == {f"-v{number}": f"number {number} is broken" for number in (0, 3, 6)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "4", "5"]
    workers = {path.read_text() for path in tmp_path.iterdir()}
    assert (str(os.getpid()) in workers) == (jobs == 1)


def test_without_a_terminal_progress_is_said_in_lines_from_time_to_time(tmp_path, monkeypatch, capsys):
    items = {str(number): (tmp_path, number) for number in (1, 2, 4)}
    parallel.map_videos(write_number, items, description="numbers")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("core.parallel.videos.PROGRESS_S", 0)
    parallel.map_videos(write_number, items, description="numbers")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [f"numbers: {count} of 3" for count in (1, 2, 3)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_items_are_made_a_few_ahead_of_the_processes(tmp_path, jobs):
    made = []

    def make(name: str) -> tuple[Path, int]:
        made.append(name)
        return tmp_path, int(name)

    items = parallel.Items(map(str, range(1000)), make)
    outcomes = processes.outcomes(write_number, items, jobs)
    names = [next(outcomes)[0] for _ in range(30)]
    assert 30 <= len(made) <= 30 + 4 * jobs
    assert sorted(names + [name for name, _ in outcomes], key=int) == list(items) == made


@pytest.mark.parametrize(
    ("function", "jobs", "error", "fact"),
    [
        (refuse, 1, UserError, "no space for 1"),
        (refuse, 2, UserError, "no space for"),
        (interrupt, 1, KeyboardInterrupt, None),
        (end_the_process, 2, UserError, "a process ended in the middle of its video"),
    ],
)
def test_another_error_ends_the_map(function, jobs, error, fact):
    with pytest.raises(error, match=fact):
        parallel.map_videos(function, {"a": 1, "b": 2, "c": 3}, jobs)


@pytest.fixture
def at_work(tmp_path) -> Iterator[subprocess.Popen]:
    """A process with two workers, each of which has begun one of six videos in `tmp_path`."""
    script = (
        "import pathlib; from core import parallel; import test_parallel\n"
        "if __name__ == '__main__':\n"
        f"    items = {{str(n): (pathlib.Path({str(tmp_path)!r}), n) for n in range(6)}}\n"
        "    parallel.map_videos(test_parallel.begin_and_wait, items, 2)\n"
    )
    path = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while len(list(tmp_path.iterdir())) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_after_ctrl_c_no_video_is_begun(at_work, tmp_path):
    os.killpg(at_work.pid, signal.SIGINT)  # as a terminal sends it: to the workers too
    at_work.wait(timeout=30)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_process_that_started_them(at_work, sent):
    workers = psutil.Process(at_work.pid).children(recursive=True)
    assert len(workers) >= 2
    at_work.send_signal(sent)  # to it alone
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert alive == []


def test_no_videos_are_no_work():
    assert parallel.map_videos(refuse, {}, jobs=2) == {}


def test_shares_are_disjoint_and_complete():
    names = [f"v{number}" for number in range(10)]
    assert parallel.shard(names, None) == names
    assert parallel.shard(names, "1/3") == ["v0", "v3", "v6", "v9"]
    assert parallel.shard(names, "3/3") == ["v2", "v5", "v8"]
    assert sorted(name for index in range(1, 5) for name in parallel.shard(names, f"{index}/4")) == names
    assert parallel.shard(names[:1], "2/2") == []


@pytest.mark.parametrize("spec", ["0/2", "3/2", "1", "1/2/3", "a/b", "1/0", "-1/2", ""])
def test_a_share_that_cannot_be_is_refused(spec):
    with pytest.raises(UserError, match=f"--shard {spec}: .*I/N"):
        parallel.shard(["a"], spec)


def test_the_report_names_the_broken_videos(capsys):
    assert parallel.report({}, 1200, Path("out")) == 0
    assert capsys.readouterr().out == "out: 1,200 of 1,200 videos done\n"
    assert parallel.report({"b": "is empty", "-a": "has no audio"}, 5, Path("out")) == 1
    printed = capsys.readouterr()
    assert printed.out == "out: 3 of 5 videos done\n"
    assert [line.strip() for line in printed.err.splitlines()[1:]] == ["-a: has no audio", "b: is empty"]
