"""Files changed at random, given to every reader of a file that a user hands over: read, or refused with a message.

More cases: `pytest tests/test_fuzz.py --hypothesis-profile=long`, or `python benchmarks/fuzz.py`, which counts them.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import READERS, attempt, fuzz, mutate
from core.runtime.errors import UserError

ANY = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("short", max_examples=12, derandomize=True, database=None, **ANY)
settings.register_profile("long", max_examples=2000, print_blob=True, **ANY)
if settings.get_current_profile_name() in ("default", "ci"):  # hypothesis itself names one of the two
    settings.load_profile("short")


class Valid:
    """A reader with a valid file; short in messages."""

    def __init__(self, name: str, folder: Path):
        self.name, self.reader = name, READERS[name]
        self.path = self.reader.make(folder)
        self.content = self.path.read_bytes()

    def __repr__(self) -> str:
        return self.name

    def read(self, content: bytes) -> str:
        """What becomes of a content."""
        return attempt(self.reader, self.path, content)


@pytest.fixture(scope="module", params=READERS)
def valid(request, tmp_path_factory) -> Valid:
    return Valid(request.param, tmp_path_factory.mktemp(request.param))


@given(draw=st.randoms(use_true_random=False))
def test_a_changed_file_is_read_or_refused(valid, draw):
    assert valid.read(mutate(valid.content, draw)) in ("accepted", "refused")


def test_a_whole_file_is_read_and_an_empty_one_refused(valid):
    assert valid.read(valid.content) == "accepted"
    assert valid.read(b"") == "refused"


def test_the_command_counts_each_case_once(monkeypatch):
    outcomes, faults, _ = fuzz("columbia", seed=1, cases=120)
    assert sum(outcomes.values()) == 120
    assert outcomes["refused"] > 60
    assert faults == []


# ---------------------------------------------------------------- the state of a training, its checksums right


def change(key: str, value: object) -> Callable[[dict], None]:
    """A change of the value at a path "a/b/0" in a state; of a tensor by a function."""

    def apply(state: dict) -> None:
        *path, last = (int(part) if part.isdigit() else part for part in key.split("/"))
        for part in path:
            state = state[part]
        state[last] = value(state[last]) if callable(value) else value

    return apply


CHANGES = {
    key: change(key, value)
    for key, value in {
        "epoch": 1.0,
        "best": float("nan"),
        "line": {"epoch": 2},
        "model": {},
        "model/0.weight": torch.Tensor.double,
        "model/0.bias": lambda tensor: tensor[:-1],
        "model/1.running_mean": lambda tensor: tensor / 0,
        "model/1.running_var": None,
        "optimizer": [],
        "optimizer/state": {99: {}},
        "optimizer/state/0/exp_avg": lambda tensor: tensor[..., :1],
        "optimizer/state/1/exp_avg_sq": torch.Tensor.half,
        "optimizer/state/1/step": 3,
        "optimizer/param_groups": [],
        "optimizer/param_groups/0/lr": None,
        "optimizer/param_groups/0/betas": (0.9,),
        "scheduler/last_epoch": "1",
        "scheduler/base_lrs": [],
    }.items()
}
CHANGES |= {f"without {key}": lambda state, key=key: state.pop(key) for key in ("model", "optimizer", "epoch", "best")}


@pytest.mark.parametrize("name", CHANGES)
def test_a_state_of_another_structure_is_refused(tmp_path, name):
    last_pt = READERS["last_pt"]
    path = last_pt.make(tmp_path)
    state = torch.load(path, weights_only=True)
    changed = copy.deepcopy(state)
    CHANGES[name](changed)
    torch.save(changed, path)
    with pytest.raises(UserError, match=r"last\.pt"):
        last_pt.read(path)
    torch.save(state, path)
    last_pt.read(path)
