"""Run folders: what may be started or resumed, what is kept, which checkpoint a forward script finds."""

import json
import os
import re
import struct
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from core.runtime.errors import UserError
from core.training.runs import Run, find_checkpoint

SETTINGS = {"clip_length": 3, "STE_optimization_params": {"epochs": 2, "threads": 0, "crop_scale": (0.5, 1.0)}}


@pytest.fixture
def run(tmp_path) -> Run:
    """A new run in the folder `a`."""
    return Run(tmp_path / "a", SETTINGS, resume=False)


def changed(**params: object) -> dict:
    return {**SETTINGS, "STE_optimization_params": {**SETTINGS["STE_optimization_params"], **params}}


def save(run: Run, epoch: int, best: bool = False) -> None:
    """A log line and a checkpoint of one weight: the number of its epoch."""
    weights = {"weight": torch.full((2,), float(epoch))}
    run.append_log({"epoch": epoch, "train_loss": epoch / 10})
    run.save(epoch, weights, {"model": weights, "epoch": epoch}, best)


def weight(path: Path) -> float:
    return torch.load(path, weights_only=True)["weight"][0].item()


def test_settings_checkpoints_log_and_the_state_to_resume_from(run):
    assert json.loads((run.folder / "settings.json").read_text()) == json.loads(json.dumps(SETTINGS))
    assert run.load_state() is None
    for epoch in (1, 2, 3, 4):
        save(run, epoch, best=epoch in (1, 3))
    assert [weight(run.folder / f"{name}.pth") for name in (1, 2, 3, 4, "best")] == [1, 2, 3, 4, 3]
    state = run.load_state()
    assert (state["epoch"], state["model"]["weight"].tolist()) == (4, [4, 4])
    assert run.log.read_text().splitlines() == ["epoch,train_loss", "1,0.1", "2,0.2", "3,0.3", "4,0.4"]


@pytest.mark.parametrize("links", [True, False])
def test_the_best_checkpoint_outlives_its_epoch_done_again(run, monkeypatch, links):
    """After an interrupt between checkpoint and state, the epoch is trained again over the old file."""

    def refuse(*args):
        raise OSError("no links here")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    save(run, 1, best=True)
    run.save(1, {"weight": torch.zeros(2)}, {"epoch": 1}, best=False)
    assert [weight(run.folder / f"{name}.pth") for name in (1, "best")] == [0, 1]


def test_a_run_is_not_overwritten_and_none_is_not_resumed(run, tmp_path):
    save(run, 1)
    with pytest.raises(UserError, match=r"a holds a run: .*--name.*--resume"):
        Run(run.folder, SETTINGS, resume=False)
    assert weight(run.folder / "1.pth") == 1
    with pytest.raises(UserError, match=r"--resume: .*absent holds no run"):
        Run(tmp_path / "absent", SETTINGS, resume=True)
    assert not (tmp_path / "absent").exists()


def test_a_run_without_a_finished_epoch_is_started_again(run):
    run.append_log({"epoch": 1, "train_loss": 5})
    again = Run(run.folder, changed(gamma=0.5), resume=False)
    assert not again.log.exists()
    assert "gamma" in (again.folder / "settings.json").read_text()


def test_resuming_with_settings_that_alter_no_step(tmp_path):
    save(Run(tmp_path / "a", {**SETTINGS, "config": {"tb_logdir": "a"}}, resume=False), 1)
    for settings in (SETTINGS, changed(epochs=9, threads=4)):
        assert Run(tmp_path / "a", {**settings, "config": {"tb_logdir": "b"}}, resume=True).load_state()["epoch"] == 1


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        (SETTINGS, True),
        (changed(epochs=9, threads=4), True),
        (changed(epochs=1), False),  # its last epoch would be one that was not asked for
        (changed(seed=1), False),
        ({**SETTINGS, "made_of": {"train": "other data"}}, False),
    ],
)
def test_updating_goes_on_with_a_run_of_the_same_or_begins_anew(run, settings, kept):
    save(run, 1, best=True)
    save(run, 2)
    (run.folder / "notes.txt").write_text("mine")
    again = Run.open(run.folder, settings, False, Accelerator(cpu=True), update=True)
    state, names = again.load_state(), {path.name for path in run.folder.iterdir()}
    assert (state["epoch"] if state else None, len(again.log_lines())) == ((2, 2) if kept else (None, 0))
    written = {"1.pth", "2.pth", "best.pth", "last.pt", "log.csv"}
    assert names == {"notes.txt", "settings.json", *(written if kept else ())}
    assert json.loads((run.folder / "settings.json").read_text()) == json.loads(json.dumps(settings))


def test_updating_where_no_run_or_no_finished_epoch_is(tmp_path):
    for _ in range(2):
        run = Run.open(tmp_path / "a", SETTINGS, False, Accelerator(cpu=True), update=True)
        assert run.load_state() is None
    save(run, 1)
    assert Run.open(tmp_path / "a", SETTINGS, False, Accelerator(cpu=True), update=True).load_state()["epoch"] == 1


def test_resuming_with_other_settings_lists_the_differences(run):
    save(run, 1)
    other = {**changed(crop_scale=(0.6, 1.0), seed=1, epochs=5), "clip_length": 5}
    with pytest.raises(UserError) as caught:
        Run(run.folder, other, resume=True)
    assert [line.strip(" -") for line in str(caught.value).splitlines()[1:]] == [
        "STE_optimization_params.crop_scale: [0.5, 1.0] then, [0.6, 1.0] now",
        "STE_optimization_params.seed: None then, 1 now",
        "clip_length: 3 then, 5 now",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("last.pt", length) for length in (0, 100, -1)),
        *(("settings.json", text) for text in ("", '{"clip_length": 3', "[]", "[" * 10_000, '{"a": NaN}', "\udcff")),
        *(
            ("log.csv", text)
            for text in ("loss\n1\n", "epoch,loss\n1\n", "epoch,loss\n1,2,3\n", "epoch\none\n", "\0\n\0", "epoch\n１\n")
        ),
        *(
            ("log.csv", text)
            for text in ("epoch,a,a\n1,2,3\n", "epoch,loss\n1,inf\n", "epoch,loss\n1,1_0\n", "ep\udcff")
        ),
    ],
)
def test_a_damaged_file_is_named_before_an_epoch_is_trained(run, tmp_path, name, content):
    save(run, 1, best=True)
    path = run.folder / name
    path.write_bytes(
        path.read_bytes()[:content] if isinstance(content, int) else content.encode(errors="surrogateescape")
    )
    with pytest.raises(UserError, match=re.escape(str(path))):
        Run(run.folder, SETTINGS, resume=True).load_state()
    if name == "settings.json":
        for _ in ("damaged", "absent"):
            with pytest.raises(UserError, match=re.escape(str(path))):
                find_checkpoint("best", tmp_path, "STE")
            path.unlink(missing_ok=True)


def test_equal_weights_are_equal_files(tmp_path):
    for name in "ab":
        save(Run(tmp_path / name, SETTINGS, resume=False), 1, best=True)
    contents = [(tmp_path / name / file).read_bytes() for name in "ab" for file in ("1.pth", "best.pth")]
    assert len(set(contents)) == 1
    assert (tmp_path / "a" / "last.pt").read_bytes() == (tmp_path / "b" / "last.pt").read_bytes()


def test_a_flipped_bit_of_the_state_is_noticed(run):
    save(run, 3)
    content = bytearray(run.state.read_bytes())
    content[content.index(struct.pack("<2f", 3.0, 3.0))] ^= 1
    run.state.write_bytes(content)
    with pytest.raises(UserError, match=r"last\.pt: .*checksum"):
        run.load_state()


def test_log_lines_of_an_epoch_done_again_are_replaced_and_columns_logged_no_more_kept(run):
    for line in ({"epoch": 1, "loss": 0.5, "old": 3}, {"epoch": 2, "loss": 0.5}, {"epoch": 3, "loss": 0.5}):
        run.append_log(line)
    Run(run.folder, SETTINGS, resume=True).append_log({"epoch": 2, "loss": 0.25, "new": 4})
    assert run.log_lines() == [
        {"epoch": "1", "loss": "0.5", "new": "", "old": "3"},
        {"epoch": "2", "loss": "0.25", "new": "4", "old": ""},
    ]


def test_an_interrupt_while_saving_leaves_the_state_before_it(run, monkeypatch):
    save(run, 1, best=True)

    def interrupted(value, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(run, 2, best=True)
    assert run.load_state()["epoch"] == weight(run.folder / "best.pth") == 1
    files = ["1.pth", "best.pth", "last.pt", "log.csv", "settings.json"]
    assert sorted(path.name for path in run.folder.iterdir()) == files


# ---------------------------------------------------------------- which weights


def test_best_and_last_of_the_newest_run(tmp_path):
    for age, name in ((30, "z_old"), (10, "a_new")):
        run = Run(tmp_path / name, SETTINGS, resume=False)
        for epoch in (2, 9, 10):  # numbers, not text: 10 comes after 9
            save(run, epoch, best=epoch == 9)
        state = run.folder / "last.pt"
        time = state.stat().st_mtime - age
        os.utime(state, (time, time))
    (tmp_path / "unfinished").mkdir()
    assert find_checkpoint("best", tmp_path, "STE") == tmp_path / "a_new" / "best.pth"
    assert find_checkpoint("last", tmp_path, "STE") == tmp_path / "a_new" / "10.pth"


def test_a_file_a_run_folder_and_runs_of_both_stages_in_one_folder(run, tmp_path):
    save(run, 1, best=True)
    save(Run(tmp_path / "context", {"ASC_optimization_params": {}}, resume=False), 2, best=True)
    assert find_checkpoint(str(run.folder / "1.pth"), "elsewhere", "STE") == run.folder / "1.pth"
    assert find_checkpoint(run.folder, "elsewhere", "STE") == run.folder / "best.pth"
    assert find_checkpoint("last", tmp_path, "STE") == run.folder / "1.pth"
    assert find_checkpoint("best", tmp_path, "ASC") == tmp_path / "context" / "best.pth"


def test_no_weights_and_no_best_epoch(run, tmp_path):
    """Average precision is no number where nobody speaks in the validation clips: no epoch is the best."""
    with pytest.raises(UserError, match=r"no finished epoch .*: run ASC_train\.py"):
        find_checkpoint("best", tmp_path, "ASC")
    with pytest.raises(UserError, match=r"no STE weights no\.pth"):
        find_checkpoint("no.pth", tmp_path, "STE")
    save(run, 1)
    with pytest.raises(UserError, match=r"a has no best epoch: .*'last'"):
        find_checkpoint("best", tmp_path, "STE")
    assert find_checkpoint("last", tmp_path, "STE") == run.folder / "1.pth"
