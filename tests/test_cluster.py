"""A Ray cluster: two nodes do what local processes do, also where a worker, a node or the head is lost."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_parallel import refuse, write_number

from core import parallel
from core.runtime.errors import UserError

ray = pytest.importorskip("ray", reason="Ray is an optional extra")
ROOT = Path(__file__).resolve().parents[1]


# At module level: a node has to find them.
def end_the_worker(item: tuple[Path, int]) -> None:
    """End the worker at the first attempt; with number 2 at every attempt, with number 3 not."""
    folder, number = item
    begun = folder / f"{number}.begun"
    if number == 2 or (number != 3 and not begun.exists()):
        begun.touch()
        os._exit(1)
    (folder / str(number)).touch()


def divide(item: int) -> float:
    return 1 / item


def where(item: Path) -> None:
    item.write_text(ray.get_runtime_context().get_node_id())
    time.sleep(0.2)


def with_number(kept: str, item: Path) -> None:
    item.write_text(kept)


def own_number() -> str:
    return f"{os.getpid()} {time.monotonic_ns()}"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> Iterator["ray.cluster_utils.Cluster"]:
    """Two nodes of one CPU each, which `--cluster auto` finds."""
    from ray.cluster_utils import Cluster

    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "RAY_ADDRESS", "RAY_AUTH_MODE")}
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    os.environ["RAY_AUTH_MODE"] = "disabled"  # or Ray leaves a token in the home folder
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "include_dashboard": False, "object_store_memory": 100 << 20},
    )
    cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    os.environ["RAY_ADDRESS"] = cluster.address
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


def test_broken_videos_are_reported_and_the_others_finished(nodes, tmp_path):
    items = {f"-v{number}": (tmp_path, number) for number in range(7)}
    broken = parallel.map_videos(write_number, items, cluster="auto")
    assert broken == {f"-v{number}": f"number {number} is broken" for number in (0, 3, 6)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2", "4", "5"]


def test_all_nodes_work_each_with_what_it_has_opened(nodes, tmp_path):
    parallel.map_videos(where, {str(n): tmp_path / str(n) for n in range(12)}, cluster="auto")
    assert len({path.read_text() for path in tmp_path.iterdir()}) == 2
    work = parallel.Opened(with_number, own_number)
    parallel.map_videos(work, {str(n): tmp_path / str(n) for n in range(12)}, cluster="auto")
    assert 1 <= len({path.read_text() for path in tmp_path.iterdir()}) <= 2
    assert not any(path.read_text().startswith(f"{os.getpid()} ") for path in tmp_path.iterdir())


def test_relative_paths_are_those_of_the_command(nodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parallel.map_videos(where, {"a": Path("a"), "b": Path("b")}, cluster="auto")
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


@pytest.mark.parametrize(
    ("function", "error", "fact"), [(refuse, UserError, "no space for"), (divide, ZeroDivisionError, "by zero")]
)
def test_another_error_ends_the_map(nodes, function, error, fact):
    with pytest.raises(error, match=fact):
        parallel.map_videos(function, {"a": 0}, cluster="auto")


def test_what_a_lost_worker_had_begun_is_done_by_another_but_not_for_ever(nodes, tmp_path):
    items = {str(number): (tmp_path, number) for number in range(1, 4)}
    broken = parallel.map_videos(end_the_worker, items, cluster="auto")
    assert list(broken) == ["2"]
    assert {path.name for path in tmp_path.iterdir()} == {"1", "1.begun", "2.begun", "3"}


def test_a_node_without_a_path_is_named(nodes, tmp_path):
    with pytest.raises(UserError) as caught:
        parallel.map_videos(refuse, {"a": 1}, cluster="auto", paths=[tmp_path, tmp_path / "disk"])
    assert socket.gethostname() in str(caught.value)
    assert f"{tmp_path / 'disk'}:" in str(caught.value)


def test_gpus_that_no_node_has_are_refused(nodes):
    with pytest.raises(UserError, match=r"--gpus-per-task 0\.25"):
        parallel.map_videos(refuse, {"a": 1}, cluster="auto", gpus=0.25)


def in_another_process(code: str, **environment: str) -> subprocess.CompletedProcess:
    code = "from core.runtime.errors import exits_cleanly\nfrom core import parallel\n" + code
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, timeout=60)


CALL = "exits_cleanly(lambda: parallel.map_videos(print, {{'a': 1}}, cluster={address!r}) and None)()"


@pytest.mark.parametrize(
    ("address", "environment", "code", "fact"),
    [
        ("tcp://127.0.0.1:1", {}, "", "ray://HOST:PORT"),
        ("ray://127.0.0.1:1", {}, "", "127.0.0.1:1"),
        ("ray://", {}, "", "ray://HOST:PORT"),
        ("auto", {"RAY_ADDRESS": "127.0.0.1:1"}, "", "127.0.0.1:1"),
        ("auto", {}, "import ray; ray.__version__ = '1.0.0'\n", "1.0.0"),
        ("auto", {}, "import sys; sys.modules['ray'] = None\n", "[cluster]"),
    ],
)
def test_an_address_or_version_that_cannot_be_used_is_one_message(nodes, address, environment, code, fact):
    done = in_another_process(code + CALL.format(address=address), **environment)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --cluster")
    assert fact in line
