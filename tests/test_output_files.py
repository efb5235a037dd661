"""All outputs of a video at once: names, order, and what happens where one cannot be made."""

from pathlib import Path

import numpy as np
import pytest
from detections import HEIGHT, SPEAKS, WIDTH, detected, steady, track

from core.detection.results import DetectedVideo
from core.media.video_writer import write_video
from core.outputs.files import BIOMETRIC, FORMATS, MissingOutputsError, write_outputs
from core.runtime.errors import UserError

FRAMES = 10
NAMES = {
    "csv": "tracks.csv",
    "json": "speakers.json",
    "rttm": "my talk.rttm",
    "vtt": "my talk.vtt",
    "overlay": "overlay.mp4",
    "report": "report.html",
    "ava": "my talk-predictions.csv",
    "embeddings": "embeddings.csv",
}


@pytest.fixture
def talk(tmp_path: Path) -> DetectedVideo:
    """One face that speaks throughout."""
    return video(tmp_path / "my talk.mp4", (0.0, 0.4))


def video(path: Path, audio_s: tuple[float, float] | None) -> DetectedVideo:
    samples = None if audio_s is None else np.zeros(6400, np.int16)
    write_video(path, [np.full((HEIGHT, WIDTH, 3), 90, np.uint8)] * FRAMES, 25, samples)
    score = np.nan if audio_s is None else SPEAKS
    return detected([track(1, steady(FRAMES), 0, [score] * FRAMES)], steady(FRAMES), path, audio_s=audio_s)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("formats", [set(FORMATS) - {BIOMETRIC}, ("json", "csv"), ("report", "overlay")])
def test_what_is_asked_for_is_written_in_one_order(talk, tmp_path, formats):
    """The overlay before the report, which may show it."""
    paths = write_outputs(tmp_path / "out", talk, formats)
    assert [path.name for path in paths] == [name for format, name in NAMES.items() if format in formats]
    assert names(tmp_path / "out") == {path.name for path in paths}
    assert all(path.stat().st_size > 0 for path in paths)


def test_a_video_that_browsers_do_not_play_is_shown_by_its_overlay(tmp_path):
    found = video(tmp_path / "talk.avi", (0.0, 0.4))
    write_outputs(tmp_path / "out", found, ("report", "overlay"))
    with_overlay = (tmp_path / "out" / "report.html").stat().st_size
    write_outputs(tmp_path / "alone", found, ("report",))
    embedded = with_overlay - (tmp_path / "alone" / "report.html").stat().st_size
    assert embedded == pytest.approx((tmp_path / "out" / "overlay.mp4").stat().st_size * 4 / 3, abs=500)


def test_an_unknown_format_is_refused_before_anything_is_written(talk, tmp_path):
    with pytest.raises(UserError, match=r"elan.* csv, "):
        write_outputs(tmp_path / "out", talk, ("csv", "elan"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("without", "missing", "reason"),
    [
        ("file", ["overlay", "report", "embeddings"], "no file"),
        ("audio", ["ava", "embeddings"], "no audio"),
        ("persons", ["embeddings"], "persons"),
    ],
)
def test_all_that_can_be_made_is_written(tmp_path, without, missing, reason):
    found = video(tmp_path / "my talk.mp4", None if without == "audio" else (0.0, 0.4))
    if without == "file":
        found.path.unlink()
    with pytest.raises(MissingOutputsError, match=reason) as caught:
        write_outputs(tmp_path / "out", found, FORMATS)
    assert list(caught.value.reasons) == [NAMES[format] for format in missing]
    assert names(tmp_path / "out") == set(NAMES.values()) - set(caught.value.reasons)
