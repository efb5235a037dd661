"""All outputs of a video at once: names, order, and what happens where a format cannot be had."""

from pathlib import Path

import numpy as np
import pytest
from detections import HEIGHT, SPEAKS, WIDTH, detected, steady, track

from core.detection.results import DetectedVideo
from core.media.video_writer import write_video
from core.outputs.files import FORMATS, MissingOutputsError, write_outputs
from core.runtime.errors import UserError

FRAMES = 10
EVERY_FILE = {
    "my talk-predictions.csv",
    "my talk.rttm",
    "my talk.vtt",
    "overlay.mp4",
    "report.html",
    "speakers.json",
    "tracks.csv",
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


def test_every_format_is_written(talk: DetectedVideo, tmp_path: Path) -> None:
    paths = write_outputs(tmp_path / "talk.asd", talk, list(FORMATS))
    assert names(tmp_path / "talk.asd") == EVERY_FILE
    assert {path.name for path in paths} == EVERY_FILE
    assert all(path.stat().st_size > 0 for path in paths)


def test_only_what_is_asked_for_is_written(talk: DetectedVideo, tmp_path: Path) -> None:
    paths = write_outputs(tmp_path / "out", talk, ("json", "csv"))
    assert {path.name for path in paths} == {"tracks.csv", "speakers.json"}
    assert names(tmp_path / "out") == {"tracks.csv", "speakers.json"}


def test_the_overlay_is_there_before_the_report(talk: DetectedVideo, tmp_path: Path) -> None:
    paths = write_outputs(tmp_path / "out", talk, ("report", "overlay"))
    assert [path.name for path in paths] == ["overlay.mp4", "report.html"]


def test_a_video_that_browsers_do_not_play_is_shown_by_its_overlay(tmp_path: Path) -> None:
    found = video(tmp_path / "talk.avi", (0.0, 0.4))
    write_outputs(tmp_path / "out", found, ("report", "overlay"))
    with_overlay = (tmp_path / "out" / "report.html").stat().st_size
    write_outputs(tmp_path / "alone", found, ("report",))
    embedded = with_overlay - (tmp_path / "alone" / "report.html").stat().st_size
    assert embedded == pytest.approx((tmp_path / "out" / "overlay.mp4").stat().st_size * 4 / 3, abs=500)


def test_an_unknown_format_is_told_before_anything_is_written(talk: DetectedVideo, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown format elan: expected some of csv, "):
        write_outputs(tmp_path / "out", talk, ("csv", "elan"))
    assert not (tmp_path / "out").exists()


def test_of_a_video_that_is_gone_all_that_needs_no_pictures_is_written(talk: DetectedVideo, tmp_path: Path) -> None:
    talk.path.unlink()
    with pytest.raises(MissingOutputsError) as caught:
        write_outputs(tmp_path / "out", talk, list(FORMATS))
    assert list(caught.value.reasons) == ["overlay.mp4", "report.html"]
    assert names(tmp_path / "out") == EVERY_FILE - {"overlay.mp4", "report.html"}


def test_without_sound_all_but_ava_is_written(tmp_path: Path) -> None:
    mute = video(tmp_path / "my talk.mp4", None)
    with pytest.raises(MissingOutputsError, match="has no audio, so its faces have no scores") as caught:
        write_outputs(tmp_path / "out", mute, list(FORMATS))
    assert list(caught.value.reasons) == ["my talk-predictions.csv"]
    assert names(tmp_path / "out") == EVERY_FILE - {"my talk-predictions.csv"}
