"""The tiny set as the ava-* commands take it: a configuration and a data folder."""

import shutil
from pathlib import Path

import yaml
from tiny import exit_status

from ava_asd import extract
from ava_asd.config import Config, read_config

SHIPPED = Path(__file__).resolve().parents[1] / "configs" / "config.yaml"
SPLITS = {"train": "train_ann_dir", "val": "test_ann_dir"}  # of the tiny set -> key
# Small and quick; at 25 faces a second every row is used, so that windows can be told by hand.
SMALL = {
    "fps": 25,
    "ann_stride": 3,
    "eps": 0.04,
    "width": 24,
    "height": 18,
    "mfcc_frame_size": 8,
    "valid_keep_ratio": 1.0,
    "epochs": 1,
    "batch_size": 8,
}


def write_config(path: Path, **changes) -> Path:
    """The shipped configuration with `SMALL` and other changes."""
    values = {**yaml.safe_load(SHIPPED.read_text(encoding="utf-8")), **SMALL, "tb_logdir": str(path.parent / "graph")}
    path.write_text(yaml.safe_dump({**values, **changes}), encoding="utf-8")
    return path


def lay_out(tiny_set: Path, data: Path) -> None:
    """Copy annotations and videos of the tiny set to where the configuration expects them."""
    config = read_config(SHIPPED)
    for split, key in SPLITS.items():
        shutil.copytree(tiny_set / "annotations" / split, config.path(data, key))
        shutil.copytree(tiny_set / "videos" / split, config.path(data, "vid_save_path"), dirs_exist_ok=True)


def run_extract(config: Path, data: Path, *steps: str) -> list[int]:
    """Run steps of ava-extract; their exit statuses."""
    return [exit_status(extract.main, step, config, data) for step in steps or ("videos", "mfccs", "annotations")]


def prepare_static(tiny_set: Path, folder: Path) -> Path:
    """Write `config.yaml` and extract all into `data`."""
    lay_out(tiny_set, folder / "data")
    assert run_extract(write_config(folder / "config.yaml"), folder / "data") == [0, 0, 0]
    return folder


def small_config(folder: Path, **changes) -> Config:
    """The configuration as read."""
    return read_config(write_config(folder / "config.yaml", **changes))
