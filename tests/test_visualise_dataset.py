"""The image of a sample of ava_asd."""

import cv2
import pytest
from matplotlib.axes import Axes

from core.runtime.errors import EXIT_USER_ERROR
from scripts import visualise_dataset


@pytest.mark.parametrize(("sample", "label", "time"), [(1, "SPEAKING_AUDIBLE", "0.36"), (3, "NOT_SPEAKING", "0.60")])
def test_an_image_shows_the_box_in_the_colour_of_the_label(extracted, tmp_path, capsys, sample, label, time):
    out = tmp_path / "sample.png"
    assert extracted.run(visualise_dataset.main, "--sample", sample, "--out", out) == 0
    assert f"{label}, entity tinyVal_001_0000_0060:1 at {time} s" in capsys.readouterr().out
    pixels = cv2.imread(str(out), cv2.IMREAD_COLOR_RGB).astype(int)
    red = (pixels[..., 0] > 200) & (pixels[..., 1:] < 80).all(axis=-1)
    green = (pixels[..., 1] > 180) & (pixels[..., 0] < 60) & (pixels[..., 2] < 60)
    box, other = (green, red) if label == "SPEAKING_AUDIBLE" else (red, green)
    assert box.sum() > 200 > other.sum()


@pytest.mark.parametrize("suffix", visualise_dataset.IMAGE_SUFFIXES)
def test_kinds_of_images(extracted, tmp_path, suffix):
    out = tmp_path / f"sample{suffix}"
    assert extracted.run(visualise_dataset.main, "--out", out) == 0
    assert list(tmp_path.iterdir()) == [out]
    assert out.stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        (["--sample", "23"], ["--sample 23", "0 to 22"]),
        *((["--out", name], [f"--out {name}", ".png, .jpg, .pdf, .svg"]) for name in ("sample", "s.txt", "s.", ".png")),
    ],
)
def test_mistakes(extracted, tmp_path, monkeypatch, capsys, options, facts):
    monkeypatch.chdir(tmp_path)
    assert extracted.run(visualise_dataset.main, *options) == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert all(fact in message for fact in facts)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [None, b"", b"\xff\xd8 no image \xff\xd9"])
def test_a_frame_that_cannot_be_shown(copied, capsys, content):
    out, frames = copied.root / "sample.png", list(copied.folder().path.glob("*.jpg"))
    for frame in frames:
        frame.unlink()
        if content is not None:
            frame.write_bytes(content)
    assert copied.run(visualise_dataset.main, "--out", out) == EXIT_USER_ERROR
    message = capsys.readouterr().err
    assert ".jpg is no readable image" in message
    assert "run 'ava-extract videos' again" in message
    assert copied.extract("videos", "mfccs") == [0, 0]
    assert copied.run(visualise_dataset.main, "--out", out) == 0


@pytest.mark.parametrize(("apply_stddev", "unit"), [(True, "standard deviations"), (False, "decibels")])
def test_the_colour_bar_has_the_unit_of_the_mfccs(copied, apply_stddev, unit):
    copied.configure(apply_stddev=apply_stddev)
    assert copied.extract("mfccs") == [0]
    labels = {axes.get_ylabel() for axes in visualise_dataset.draw(copied.windows(), 0).findobj(Axes)}
    assert labels & {"standard deviations", "decibels"} == {unit}
