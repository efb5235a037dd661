"""A Ray cluster: two nodes do what local processes do, also where a worker, a node or the head is lost."""

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import psutil
import pytest
import torch
from cluster_work import begin_and_wait, divide, end_the_worker, meet, own_number, where, with_number
from hosts import LOOPBACK, Host, two_hosts
from test_parallel import refuse, write_number
from tiny import as_options, exit_status, tree

import ASC_forward
import detect
import STE_forward
from core import parallel
from core.models import ResidualContext
from core.runtime import provenance
from core.runtime.errors import UserError
from core.runtime.files import PART
from data import augment_annotations, extract_audio_tracks, extract_face_crops_time, slice_audio_tracks
from scripts import make_synthetic_ava

ray = pytest.importorskip("ray", reason="Ray is an optional extra")
ROOT = Path(__file__).resolve().parents[1]
NODE = {"num_cpus": 1, "object_store_memory": 100 << 20}


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> Iterator["ray.cluster_utils.Cluster"]:
    """Two nodes of one CPU each, which `--cluster auto` finds."""
    from ray.cluster_utils import Cluster

    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "RAY_ADDRESS")}
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    cluster = Cluster(True, head_node_args=NODE | {"include_dashboard": False, "_system_config": soon})
    cluster.add_node(**NODE)
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
    parallel.map_videos(meet, {name: tmp_path / "met" / name for name in "ab"}, cluster="auto")
    assert len({path.read_text() for path in (tmp_path / "met").iterdir()}) == 2
    shutil.rmtree(tmp_path / "met")
    work = parallel.Opened(with_number, own_number)
    parallel.map_videos(work, {str(n): tmp_path / str(n) for n in range(12)}, cluster="auto")
    assert 1 <= len({path.read_text() for path in tmp_path.iterdir()}) <= 2
    assert not any(path.read_text().startswith(f"{os.getpid()} ") for path in tmp_path.iterdir())


def test_relative_paths_are_those_of_the_command(nodes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parallel.map_videos(where, {"a": Path("a"), "b": Path("b")}, cluster="auto", paths=[tmp_path])
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_where_all_is_elsewhere_nodes_need_not_hold_the_folder_of_the_command(nodes, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rename(tmp_path / "renamed")
    monkeypatch.setattr(os, "getcwd", lambda: str(gone))
    assert parallel.map_videos(write_number, {"a": (tmp_path, 1)}, cluster="auto") == {}


def test_what_a_step_writes_to_has_to_be_on_every_node(tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr("core.parallel.videos.map_videos", lambda *_, paths, **__: given.extend(paths) or {})
    parser = argparse.ArgumentParser()
    parallel.add_arguments(parser)
    arguments = argparse.Namespace(**vars(parser.parse_args([])), out=tmp_path / "new", results=[tmp_path])
    assert parallel.run(print, {"a": 1}, arguments, "work") == 0
    assert set(given) == {tmp_path, tmp_path / "new"}


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


def test_a_node_with_another_version_of_the_project_is_named(nodes, tmp_path):
    for package in ("core", "ava_asd"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "core" / "boxes.py").open("a") as file:
        file.write("# of another version\n")
    elsewhere = tmp_path / "elsewhere"  # Ray has nodes look in the folder that a command is given in
    elsewhere.mkdir()
    done = in_another_process(CALL.format(address="auto"), cwd=elsewhere, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    for fact in ("error: ", socket.gethostname(), str(ROOT), "core/boxes.py"):
        assert fact in line


def test_a_token_where_the_cluster_has_none_is_named(nodes):
    done = in_another_process(CALL.format(address="auto"), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
    assert done.returncode == 2, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))  # Ray may print others
    assert "RAY_AUTH_MODE" in line


def test_gpus_that_no_node_has_are_refused(nodes):
    with pytest.raises(UserError, match=r"--gpus-per-task 0\.25"):
        parallel.map_videos(refuse, {"a": 1}, cluster="auto", gpus=0.25)


def test_what_a_lost_node_had_begun_is_done_by_others(nodes, tmp_path):
    node = nodes.add_node(**NODE)

    def lose_the_node() -> None:
        while not list(tmp_path.glob(f"*.{node.node_id}")):
            time.sleep(0.05)
        nodes.remove_node(node, allow_graceful=False)
        (tmp_path / "go").touch()

    thread = threading.Thread(target=lose_the_node)
    thread.start()
    items = {str(number): (tmp_path, str(number), node.node_id) for number in range(6)}
    assert parallel.map_videos(begin_and_wait, items, cluster="auto") == {}
    thread.join()
    assert len(list(tmp_path.glob("*.done"))) == 6
    (lost,) = tmp_path.glob(f"*.{node.node_id}")
    assert len(list(tmp_path.glob(f"{lost.stem}.*"))) == 3  # begun twice


def test_after_ctrl_c_nothing_goes_on(nodes, tmp_path):
    code = (
        "import pathlib, cluster_work\n"
        "from core import parallel\n"
        "from core.runtime.errors import exits_cleanly\n"
        f"items = {{str(n): (pathlib.Path({str(tmp_path)!r}), str(n), None) for n in range(6)}}\n"
        "exits_cleanly(lambda: parallel.map_videos(cluster_work.begin_and_wait, items, cluster='auto') and 0)()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        while len(list(tmp_path.iterdir())) < 2:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert "Traceback" not in process.communicate(timeout=60)[1]
    finally:
        process.kill()
    assert process.returncode == 130
    (tmp_path / "go").touch()
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) == 3
    assert not list(tmp_path.glob("*.done"))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_behind_ray_client_workers_share_a_gpu_and_a_lost_head_is_one_message(nodes, tmp_path):
    port = free_port()
    items = f"{{str(n): (pathlib.Path({str(tmp_path)!r}), str(n), None) for n in range(6)}}"
    code = (
        "import pathlib, cluster_work\nfrom core import parallel\nfrom core.runtime.errors import exits_cleanly\n"
        f"options = dict(cluster='ray://127.0.0.1:{port}', gpus=0.25)\n"
        f"exits_cleanly(lambda: parallel.map_videos(cluster_work.begin_and_wait, {items}, **options) and 0)()\n"
    )
    sizes = ["--num-cpus=6", "--num-gpus=1", f"--object-store-memory={NODE['object_store_memory']}"]
    ports = [f"--port={free_port()}", f"--ray-client-server-port={port}"]
    # s, on the head and in the command; else 30, and 5 for the first attempt
    waits = {"RAY_CLIENT_RECONNECT_GRACE_PERIOD": "3", "RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S": "2"}
    with contextlib.ExitStack() as ends:
        head = begin_node(ends, LOOPBACK, "--head", "--include-dashboard=false", *sizes, *ports, **waits)
        wait_for(lambda: answers(port))
        command = [sys.executable, "-c", code]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | waits)
        ends.callback(process.kill)
        wait_for(lambda: process.poll() is not None or len(list(tmp_path.iterdir())) == 4)
        assert process.poll() is None, process.stderr.read()
        time.sleep(2)
        assert len(list(tmp_path.iterdir())) == 4  # at once, of six CPUs
        end_all(head)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 2, said
    assert said.startswith("error: the head of the cluster is lost")
    assert said.count("\n") == 1, said


def test_a_connection_that_is_lost_between_two_calls_is_one_message_and_no_other_cluster_is_begun(nodes):
    code = (
        "import ray; wait = ray.wait\n"
        "def lost(*arguments, **options): ray.shutdown(); return wait(*arguments, **options)\n"
        "ray.wait = lost\n"
    )
    done = in_another_process("import core.parallel.ray_cluster\n" + code + CALL.format(address="auto"))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the head of the cluster is lost")


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 150  # Ray Client may need three starts, of up to 20 s each
    while not what() and time.monotonic() < end:
        time.sleep(0.1)


def answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def end_all(process: subprocess.Popen) -> None:
    """End a process and those that it has started, as a machine that is switched off does."""
    if process.poll() is None:
        for one in [*psutil.Process(process.pid).children(recursive=True), process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


# ---------------------------------------------------------------- commands


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, light_weights) -> Path:
    """Drawn heads in AVA layout, weights, and the augmented csv."""
    folder = tmp_path_factory.mktemp("drawn")
    size = ["--videos", 3, "--val-videos", 1, "--seconds", 3, "--size", "480x270"]
    assert exit_status(make_synthetic_ava.main, folder, *size) == 0
    assert exit_status(augment_annotations.main, folder / "annotations" / "train", folder / "train.csv") == 0
    shutil.copy(light_weights, folder / "light.pth")
    torch.manual_seed(0)
    torch.save(ResidualContext().state_dict(), folder / "context.pth")
    return folder


def commands(drawn: Path, out: Path) -> dict[str, list[object]]:
    """Preparation, forwarding and detection, in order: main function and arguments."""
    videos, csv = drawn / "videos" / "train", drawn / "train.csv"
    encoder = {
        "csv_train_full": csv,
        "video_dir": out / "crops",
        "audio_dir": out / "audio",
        "features_out": out / "features",
    }
    context = {"features_train_full": out / "features" / "train", "logits_out": out / "logits"}
    light, residual = drawn / "light.pth", drawn / "context.pth"
    forward = [
        *as_options("STE_inputs", **encoder),
        *as_options("STE_forward_params", backbone="light_asd", weights=light, threads=0),
    ]
    score = [*as_options("ASC_inputs_forward", **context), *as_options("ASC_forward_params", weights=residual)]
    found = [
        "--weights",
        light,
        "--detector",
        "haar",
        "--no-people",
        "--format",
        "csv,json,ava",
        "--out",
        out / "found",
    ]
    return {
        "tracks": [extract_audio_tracks.main, videos, csv, out / "tracks" / "train"],
        "audio": [slice_audio_tracks.main, out / "tracks" / "train", csv, out / "audio" / "train"],
        "crops": [extract_face_crops_time.main, videos, csv, out / "crops" / "train"],
        "features": [STE_forward.main, 11, "cpu", "--split", "train", *forward],
        "logits": [ASC_forward.main, "cpu", "--split", "train", *score],
        "found": [detect.main, videos, *found],
    }


def records(folder: Path) -> dict[str, dict]:
    """What each record says of contents, without the times of files."""

    def plain(value: object) -> object:
        return value["sha256"] if isinstance(value, dict) and "sha256" in value else value

    found = {}
    for path in folder.rglob(f"{provenance.FOLDER}/*.json"):
        record = json.loads(path.read_text())
        if "outputs" in record:
            record["made_of"] = {name: plain(value) for name, value in record["made_of"].items()}
            record["outputs"] = {name: state[:2] for name, state in record["outputs"].items()}
        found[str(path.relative_to(folder))] = record
    return found


@pytest.fixture(scope="module")
def local(drawn, tmp_path_factory) -> Path:
    """The folder of what this process makes of it by all commands."""
    out = tmp_path_factory.mktemp("local")
    for command in commands(drawn, out).values():
        assert exit_status(*command) == 0
    assert any(len(path.read_text().splitlines()) > 1 for path in out.rglob("tracks.csv"))
    return out


def made(out: Path, steps: Collection[str]) -> tuple[dict[str, bytes], dict[str, dict]]:
    """The files of some commands, and their records."""
    return tuple(
        {name: one for name, one in part.items() if Path(name).parts[0] in steps} for part in (tree(out), records(out))
    )


def test_two_processes_make_what_one_makes(drawn, local, tmp_path):
    """Of crops, features and detection that is tested with them."""
    steps = ("tracks", "audio", "logits")
    shutil.copytree(local / "features", tmp_path / "features")
    for step in steps:
        assert exit_status(*commands(drawn, tmp_path)[step], "--jobs", 2) == 0
    assert made(tmp_path, steps) == made(local, steps)


def test_crops_are_those_of_this_process_where_one_of_three_nodes_is_lost_in_the_middle(nodes, drawn, local, tmp_path):
    node = nodes.add_node(**NODE)

    def lose_the_node() -> None:
        while not list((tmp_path / "crops").rglob("*.json")):
            time.sleep(0.05)
        nodes.remove_node(node, allow_graceful=False)

    thread = threading.Thread(target=lose_the_node)
    thread.start()
    assert exit_status(*commands(drawn, tmp_path)["crops"], "--cluster", "auto") == 0
    thread.join()
    files, its_records = made(tmp_path, ["crops"])
    begun = [name for name in files if Path(name).name.startswith(PART)]  # by the lost node: stays for the next command
    assert ({name: content for name, content in files.items() if name not in begun}, its_records) == made(
        local, ["crops"]
    )


ON_A_HOST = """
import sys
from pathlib import Path
from cluster_work import meet
from test_cluster import commands
from tiny import exit_status
from core import parallel
drawn, out = map(Path, sys.argv[1:])
parallel.map_videos(meet, {name: out / "met" / name for name in "ab"}, cluster="auto")
made = out / "cluster"
for command in commands(drawn, made).values():
    assert exit_status(*command, "--cluster", "auto") == 0
before = {path: path.stat().st_mtime_ns for path in made.rglob("*")}
again = commands(drawn, made)
for step in ("tracks", "features"):  # what is done is looked for on the nodes, and here
    assert exit_status(*again[step], "--cluster", "auto") == 0
assert {path: path.stat().st_mtime_ns for path in made.rglob("*")} == before
"""


def test_two_hosts_prepare_forward_and_detect_as_this_process_does(nodes, drawn, local, tmp_path):
    """Or two nodes, where root may not make hosts: network namespaces, on Linux, with iproute2."""
    with two_hosts() as (first, second), contextlib.ExitStack() as ends:
        address = nodes.address
        if first.begin:
            address = f"{first.address}:6379"
            sizes = ["--num-cpus=1", f"--object-store-memory={NODE['object_store_memory']}"]
            begin_node(ends, first, "--head", "--port=6379", "--include-dashboard=false", *sizes)
            begin_node(ends, second, f"--address={address}", *sizes)
        command = [*first.begin, sys.executable, "-c", ON_A_HOST, drawn, tmp_path]
        subprocess.run(command, env=os.environ | {"RAY_ADDRESS": address}, cwd=ROOT, check=True, timeout=480)
    assert len({path.read_text() for path in (tmp_path / "met").iterdir()}) == 2
    assert tree(tmp_path / "cluster") == tree(local)
    assert records(tmp_path / "cluster") == records(local)


def begin_node(ends: contextlib.ExitStack, host: Host, *options: str, **environment: str) -> subprocess.Popen:
    """A node of a Ray cluster, as `ray start` begins one, until `ends`."""
    command = [*host.begin, Path(sys.executable).with_name("ray"), "start", "--block", *options]
    where = {"env": os.environ | environment, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    node = subprocess.Popen([*command, f"--node-ip-address={host.address}"], **where, text=True)
    ends.callback(end_all, node)
    assert any("Ray runtime started" in line for line in node.stdout)
    return node


# ---------------------------------------------------------------- what cannot be


def in_another_process(code: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
    code = "from core.runtime.errors import exits_cleanly\nfrom core import parallel\n" + code
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=os.environ | environment, cwd=cwd, capture_output=True, text=True, timeout=60)


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
