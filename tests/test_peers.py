"""The processes of a training: they end together, with one message, and agree on what they train."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from test_dataset import make_features
from test_optimization import FACES, context_options, outcomes

from core.formats import ava
from core.runtime.errors import UserError
from core.training import peers

ROOT = Path(__file__).resolve().parents[1]


def in_two_processes(*commands: list[str]) -> list[tuple[int, str]]:
    """Run commands as processes of one training, without torchrun; their exit statuses and messages."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    place = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "OMP_NUM_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | place | {"RANK": str(rank), "GROUP_RANK": str(rank), "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, command in enumerate(commands)
    ]
    return outcomes(started, timeout_s=200)


def test_a_machine_that_does_not_see_the_data_is_named_and_nothing_is_written(tmp_path):
    for split in ava.SPLITS:
        make_features(tmp_path / split, FACES)
    seen, unseen = (context_options(folder, tmp_path / "out", (3, 2, 2)) for folder in (tmp_path, tmp_path / "absent"))
    for status, message in in_two_processes(["ASC_train.py", *seen], ["ASC_train.py", *unseen]):
        assert status == 2
        assert message.count("error: ") == 1
        for fact in ("process 1 of 2", socket.gethostname(), str(tmp_path / "absent" / "train")):
            assert fact in message
        assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("differing", [{"epochs": 3}, {"epochs": 2, "seed": 1}, {}])
def test_processes_with_other_values_are_refused(monkeypatch, differing):
    monkeypatch.setattr(peers, "gather_object", lambda own: [("node-a", {"epochs": 2}), ("node-b", differing)])
    with pytest.raises(UserError, match=r"process 1, on node-b, .*settings") as refused:
        peers.check_same("settings", {"epochs": 2})
    assert ("seed" if "seed" in differing else "epochs") in str(refused.value)


def test_processes_with_the_same_values_go_on(monkeypatch):
    monkeypatch.setattr(peers, "gather_object", lambda own: own * 2)
    peers.check_same("settings", {"epochs": 2})
