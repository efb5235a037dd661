"""The tiny set as the ava-* commands take it: a configuration and a data folder."""

import contextlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import yaml
from tiny import exit_status

from ava_asd import extract
from ava_asd.config import Config, read_config
from ava_asd.layout import VideoFolder, video_folder
from ava_asd.stores import read_faces
from ava_asd.windows import Windows

SHIPPED = Path(__file__).resolve().parents[1] / "configs" / "config.yaml"
SPLITS = {"train": "train_ann_dir", "val": "test_ann_dir"}  # of the tiny set -> key
# Small and quick; at 25 faces a second every row is used, so that windows can be listed by hand.
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


@dataclass(frozen=True)
class StaticSet:
    """`config.yaml` and the data folder `data` in a folder."""

    root: Path

    @property
    def path(self) -> Path:
        return self.root / "config.yaml"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def config(self) -> Config:
        return read_config(self.path)

    def configure(self, **changes) -> Config:
        """Write another configuration, `SMALL` with changes."""
        return read_config(write_config(self.path, **changes))

    def at(self, key: str) -> Path:
        """The path that a key of the configuration names."""
        return self.config.path(self.data, key)

    def folder(self, video_id: str = "tinyVal_001") -> VideoFolder:
        return video_folder(self.config, self.data, video_id)

    def windows(self, split: str = "test", **changes) -> Windows:
        return Windows(replace(self.config, **changes), self.data, split)

    def run(self, command: Callable, *options: object) -> int:
        """The exit status of a command with the configuration and the data folder."""
        return exit_status(command, self.path, self.data, *options)

    def rewriting(self, path: Path) -> contextlib.AbstractContextManager[None]:
        """As if ava-extract had written a file of tinyVal_001 as the block does."""
        folder = self.folder()
        if path == folder.mfccs:
            return folder.mfcc_record(self.config).making([path.name])
        folders = self.at("test_ann_dir"), self.at("vid_save_path")
        return folder.video_record(self.config, *folders).making([path.name])

    def change_faces(self, change: Callable[[pa.Table], pa.Table]) -> None:
        """Change the table of faces of tinyVal_001."""
        path = self.folder().faces
        faces = change(read_faces(path))
        with self.rewriting(path), pa.ipc.new_file(str(path), faces.schema) as writer:
            writer.write_table(faces)

    def extract(self, *steps: str) -> list[int]:
        """Run steps of ava-extract, by default all; their exit statuses."""
        steps = steps or ("videos", "mfccs", "annotations")
        return [exit_status(extract.main, step, self.path, self.data) for step in steps]


def lay_out(tiny_set: Path, root: Path) -> StaticSet:
    """The tiny set where the configuration expects it, nothing of it extracted."""
    laid_out = StaticSet(root)
    laid_out.configure()
    for split, key in SPLITS.items():
        shutil.copytree(tiny_set / "annotations" / split, laid_out.at(key))
        shutil.copytree(tiny_set / "videos" / split, laid_out.at("vid_save_path"), dirs_exist_ok=True)
    return laid_out


def prepare_static(tiny_set: Path, root: Path) -> Path:
    """Lay out the tiny set and extract all."""
    assert lay_out(tiny_set, root).extract() == [0, 0, 0]
    return root
