"""The picture of a sample of ava_asd."""

import shutil

import cv2
from tiny import exit_status

from ava_asd.config import read_config
from ava_asd.windows import Windows
from core.runtime.errors import EXIT_USER_ERROR
from scripts import visualise_dataset


def test_visualisation(static_set, tmp_path, capsys):
    config, data, out = static_set / "config.yaml", static_set / "data", tmp_path / "sample.png"
    assert exit_status(visualise_dataset.main, config, data, "--sample", 3, "--out", out) == 0
    assert "entity tinyVal_001_0000_0060:1 at 0.60 s" in capsys.readouterr().out
    pixels = cv2.imread(str(out), cv2.IMREAD_COLOR_RGB).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1:] < 80).all(axis=-1)
    green = (pixels[..., 1] > 180) & (pixels[..., 0] < 60) & (pixels[..., 2] < 60)
    label = Windows(read_config(config), data, "test").label[3]
    box, other = (green, red) if label == "SPEAKING_AUDIBLE" else (red, green)
    assert box.sum() > 200 > other.sum()
    assert exit_status(visualise_dataset.main, config, data, "--sample", 23, "--out", out) == EXIT_USER_ERROR
    assert "--sample 23: there are the samples 0 to 22" in capsys.readouterr().err
    copied = shutil.copytree(data, tmp_path / "data")
    for frame in (copied / "extracted" / "10fps" / "tinyVal_001").glob("*.jpg"):
        frame.unlink()
    assert exit_status(visualise_dataset.main, config, copied, "--out", out) == EXIT_USER_ERROR
    assert "is no readable image: run 'ava-extract videos' again" in capsys.readouterr().err
