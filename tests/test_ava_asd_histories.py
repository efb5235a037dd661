"""Whatever was extracted before, ava-extract leaves what it leaves in an empty folder; a training reads nothing else.

HISTORIES=200 in the environment tries as many histories of random edits, interrupts among them.
"""

import copy
import random
import shutil

from ava_asd_set import StaticSet
from hypothesis import given, settings
from hypothesis import strategies as st
from test_histories import HISTORIES, INTERRUPTED, START, add, box, interrupted, label, move, remove, replace
from test_histories import write_inputs as write_split_inputs
from tiny import tree

from core.runtime.errors import UserError

SETTINGS = {"fps": (25, 20), "nmfcc": (13, 12), "ann_stride": (3, 1), "eps": (0.04, 0), "channels": (1, 3)}


def setting(state: dict, rng: random.Random) -> None:
    key = rng.choice(sorted(SETTINGS))
    values = state.setdefault("settings", {})
    values[key] = next(value for value in SETTINGS[key] if value != values.get(key, SETTINGS[key][0]))


def nothing(state: dict, rng: random.Random) -> None:
    """The run after an edit may be interrupted."""


def write_inputs(static: StaticSet, state: dict, before: dict | None) -> None:
    static.data.mkdir(parents=True, exist_ok=True)
    static.configure(train_ann_dir="annotations/train", test_ann_dir="annotations/val", **state.get("settings", {}))
    write_split_inputs(static.data, state, before)
    videos = static.at("vid_save_path")
    shutil.rmtree(videos, ignore_errors=True)
    for folder in (static.data / "videos").iterdir():
        shutil.copytree(folder, videos, dirs_exist_ok=True)


def read(static: StaticSet, split: str) -> str | None:
    """What a training reads; None where it is refused."""
    try:
        return static.windows(split).digest()
    except UserError:
        return None


def extracted(static: StaticSet, state: dict) -> dict[str, bytes]:
    files = {name: tree(static.folder(name).path) for name in state["videos"]}
    samples = (static.at(f"{split}_annotations_full") for split in ("train", "test"))
    return files | {path.name: path.read_bytes() for path in samples}


def run(static: StaticSet, expected: dict[str, str | None]) -> bool:
    """All steps; whether they came to the end. A training after each reads what is expected."""
    for step in ("videos", "mfccs", "annotations"):
        (status,) = static.extract(step)
        assert all(read(static, split) in (None, digest) for split, digest in expected.items())
        if status == INTERRUPTED:
            return False
        assert status == 0
    return True


@settings(max_examples=HISTORIES, deadline=None, database=None, derandomize=HISTORIES < 10)
@given(
    edits=st.lists(
        st.sampled_from([label, box, replace, move, add, remove, setting, setting, nothing]), min_size=3, max_size=5
    ),
    seed=st.integers(0, 10**6),
)
def test_what_is_extracted_is_that_of_a_fresh_run(tmp_path_factory, edits, seed):
    root, rng, state = tmp_path_factory.mktemp("history"), random.Random(seed), copy.deepcopy(START)
    static = StaticSet(root / "set")
    write_inputs(static, state, None)
    assert run(static, {})
    for number, edit in enumerate(edits):
        history = [edit.__name__ for edit in edits[: number + 1]]
        before = copy.deepcopy(state)
        edit(state, rng)
        write_inputs(static, state, before)
        fresh = StaticSet(root / f"fresh{number}")
        write_inputs(fresh, state, None)
        assert run(fresh, {})
        expected = {split: read(fresh, split) for split in ("train", "test")}
        assert None not in expected.values()
        assert all(read(static, split) in (None, digest) for split, digest in expected.items()), history
        if rng.random() < 0.5:
            with interrupted(rng.randrange(1, 40)):
                run(static, expected)
        assert run(static, expected), history
        assert {split: read(static, split) for split in expected} == expected, history
        assert extracted(static, state) == extracted(fresh, state), history
    shutil.rmtree(root)
