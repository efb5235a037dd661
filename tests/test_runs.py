"""Run folders: what may be started or resumed, what is kept, which checkpoint a forward script finds."""

import csv
import json
import os
from pathlib import Path

import pytest
import torch

from core.runtime.errors import UserError
from core.training.runs import Run, find_checkpoint

SETTINGS = {"clip_length": 3, "STE_optimization_params": {"epochs": 2, "threads": 0, "crop_scale": (0.5, 1.0)}}


def changed(**params: object) -> dict:
    return {**SETTINGS, "STE_optimization_params": {**SETTINGS["STE_optimization_params"], **params}}


def save(run: Run, epoch: int, best: bool = False) -> None:
    """A checkpoint whose only weight tells its epoch."""
    weights = {"weight": torch.full((2,), float(epoch))}
    run.append_log({"epoch": epoch, "train_loss": epoch / 10})
    run.save(epoch, weights, {"model": weights, "epoch": epoch}, best)


def weight(path: Path) -> float:
    return torch.load(path, weights_only=True)["weight"][0].item()


def log(run: Run) -> list[tuple[str, str]]:
    with run.log.open(newline="") as file:
        return [(line["epoch"], line["train_loss"]) for line in csv.DictReader(file)]


def test_a_new_run_keeps_its_settings(tmp_path):
    run = Run(tmp_path / "models" / "a", SETTINGS, resume=False)
    kept = json.loads((run.folder / "settings.json").read_text())
    assert kept == json.loads(json.dumps(SETTINGS))
    assert run.load_state() is None


def test_checkpoints_and_the_state_to_resume_from(tmp_path):
    run = Run(tmp_path / "a", SETTINGS, resume=False)
    save(run, 1, best=True)
    save(run, 2)
    save(run, 3, best=True)
    save(run, 4)
    assert [weight(run.folder / f"{epoch}.pth") for epoch in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert weight(run.folder / "best.pth") == 3
    state = run.load_state()
    assert state["epoch"] == 4
    assert state["model"]["weight"].tolist() == [4, 4]
    assert log(run) == [("1", "0.1"), ("2", "0.2"), ("3", "0.3"), ("4", "0.4")]


def test_the_best_checkpoint_where_links_cannot_be_made(tmp_path, monkeypatch):
    def refuse(*args):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    run = Run(tmp_path / "a", SETTINGS, resume=False)
    save(run, 1, best=True)
    save(run, 2)
    assert weight(run.folder / "best.pth") == 1


def test_the_best_checkpoint_outlives_its_epoch_done_again(tmp_path):
    """After an interrupt between checkpoint and state, the epoch is trained again over the old file."""
    run = Run(tmp_path / "a", SETTINGS, resume=False)
    save(run, 1, best=True)
    run.save(1, {"weight": torch.zeros(2)}, {"epoch": 1}, best=False)
    assert weight(run.folder / "best.pth") == 1


def test_a_run_is_not_overwritten(tmp_path):
    save(Run(tmp_path / "a", SETTINGS, resume=False), 1)
    with pytest.raises(UserError, match=r"a holds a run: .*--name.*--resume"):
        Run(tmp_path / "a", SETTINGS, resume=False)
    assert weight(tmp_path / "a" / "1.pth") == 1


def test_a_run_without_a_finished_epoch_is_started_again(tmp_path):
    run = Run(tmp_path / "a", SETTINGS, resume=False)
    run.append_log({"epoch": 1, "train_loss": 5})
    again = Run(tmp_path / "a", changed(gamma=0.5), resume=False)
    assert not again.log.exists()
    assert "gamma" in (again.folder / "settings.json").read_text()


def test_there_is_nothing_to_resume(tmp_path):
    with pytest.raises(UserError, match=r"--resume: .*a holds no run"):
        Run(tmp_path / "a", SETTINGS, resume=True)
    assert not (tmp_path / "a").exists()


def test_resuming_with_the_same_settings_and_with_those_that_alter_no_step(tmp_path):
    save(Run(tmp_path / "a", {**SETTINGS, "config": {"tb_logdir": "a"}}, resume=False), 1)
    for settings in (SETTINGS, changed(epochs=9, threads=4)):
        assert Run(tmp_path / "a", {**settings, "config": {"tb_logdir": "b"}}, resume=True).load_state()["epoch"] == 1


def test_resuming_with_other_settings_lists_the_differences(tmp_path):
    save(Run(tmp_path / "a", SETTINGS, resume=False), 1)
    other = {**changed(crop_scale=(0.6, 1.0), seed=1, epochs=5), "clip_length": 5}
    with pytest.raises(UserError) as caught:
        Run(tmp_path / "a", other, resume=True)
    assert [line.strip(" -") for line in str(caught.value).splitlines()[1:]] == [
        "STE_optimization_params.crop_scale: [0.5, 1.0] then, [0.6, 1.0] now",
        "STE_optimization_params.seed: None then, 1 now",
        "clip_length: 3 then, 5 now",
    ]


@pytest.mark.parametrize("length", [0, 100, -1])
def test_resuming_from_a_state_cut_short(tmp_path, length):
    run = Run(tmp_path / "a", SETTINGS, resume=False)
    save(run, 1)
    state = run.folder / "last.pt"
    state.write_bytes(state.read_bytes()[:length])
    with pytest.raises(UserError, match=r"last\.pt cannot be read"):
        Run(tmp_path / "a", SETTINGS, resume=True).load_state()


@pytest.mark.parametrize("text", ["", '{"clip_length": 3', "[]"])
def test_settings_that_cannot_be_read(tmp_path, text):
    run = Run(tmp_path / "a", SETTINGS, resume=False)
    save(run, 1, best=True)
    (run.folder / "settings.json").write_text(text)
    for read in (lambda: Run(run.folder, SETTINGS, resume=True), lambda: find_checkpoint("best", tmp_path, "STE")):
        with pytest.raises(UserError, match=r"settings\.json cannot be read"):
            read()
    (run.folder / "settings.json").unlink()
    with pytest.raises(UserError, match=r"settings\.json cannot be read"):
        find_checkpoint("best", tmp_path, "STE")


@pytest.mark.parametrize("text", ["loss\n1\n", "epoch,loss\n1\n", "epoch,loss\n1,2,3\n", "epoch\none\n", "\0\n\0"])
def test_a_damaged_log_is_found_before_an_epoch_is_trained(tmp_path, text):
    run = Run(tmp_path / "a", SETTINGS, resume=False)
    save(run, 1)
    run.log.write_text(text)
    with pytest.raises(UserError, match=r"log\.csv is not the log of a run"):
        Run(tmp_path / "a", SETTINGS, resume=True).load_state()


def test_columns_that_are_logged_no_more_are_kept(tmp_path):
    run = Run(tmp_path / "a", SETTINGS, resume=False)
    run.append_log({"epoch": 1, "train_loss": 0.5, "old": 3})
    run.append_log({"epoch": 2, "train_loss": 0.25, "new": 4})
    lines = [{"epoch": "1", "train_loss": "0.5", "new": "", "old": "3"}]
    assert run.log_lines() == [*lines, {"epoch": "2", "train_loss": "0.25", "new": "4", "old": ""}]


def test_log_lines_of_an_epoch_done_again_are_replaced(tmp_path):
    run = Run(tmp_path / "a", SETTINGS, resume=False)
    for epoch in (1, 2, 3):
        run.append_log({"epoch": epoch, "train_loss": 0.5})
    Run(tmp_path / "a", SETTINGS, resume=True).append_log({"epoch": 2, "train_loss": 0.25})
    assert log(run) == [("1", "0.5"), ("2", "0.25")]


def test_an_interrupt_while_saving_leaves_the_state_before_it(tmp_path, monkeypatch):
    run = Run(tmp_path / "a", SETTINGS, resume=False)
    save(run, 1, best=True)

    def interrupted(value, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(run, 2, best=True)
    assert run.load_state()["epoch"] == 1
    assert weight(run.folder / "best.pth") == 1
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


def test_a_file_or_a_run_folder(tmp_path):
    run = Run(tmp_path / "a", SETTINGS, resume=False)
    save(run, 1, best=True)
    assert find_checkpoint(str(run.folder / "1.pth"), "elsewhere", "STE") == run.folder / "1.pth"
    assert find_checkpoint(run.folder, "elsewhere", "STE") == run.folder / "best.pth"


def test_runs_of_both_stages_in_one_folder(tmp_path):
    save(Run(tmp_path / "encoder", SETTINGS, resume=False), 1, best=True)
    save(Run(tmp_path / "context", {"ASC_optimization_params": {}}, resume=False), 2, best=True)
    assert find_checkpoint("last", tmp_path, "STE") == tmp_path / "encoder" / "1.pth"
    assert find_checkpoint("best", tmp_path, "ASC") == tmp_path / "context" / "best.pth"


def test_no_weights(tmp_path):
    with pytest.raises(UserError, match=r"no finished epoch .*: run ASC_train\.py"):
        find_checkpoint("best", tmp_path, "ASC")
    with pytest.raises(UserError, match=r"no STE weights no\.pth"):
        find_checkpoint("no.pth", tmp_path, "STE")


def test_no_best_epoch(tmp_path):
    """Average precision is no number where nobody speaks in the validation clips: no epoch is the best."""
    save(Run(tmp_path / "a", SETTINGS, resume=False), 1)
    with pytest.raises(UserError, match=r"a has no best epoch: .*'last'"):
        find_checkpoint("best", tmp_path, "STE")
    assert find_checkpoint("last", tmp_path, "STE") == tmp_path / "a" / "1.pth"
