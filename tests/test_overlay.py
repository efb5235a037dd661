"""Boxes on frames, and the script that draws them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny import exit_status

from core import ava
from core.overlay import SILENT_COLOUR, SPEAKING_COLOUR, draw_faces
from core.video import probe, read_frames
from scripts import overlay


def test_boxes_are_green_for_speaking_and_red_for_silent() -> None:
    frame = np.zeros((200, 400, 3), np.uint8)
    boxes = np.array([[0.1, 0.3, 0.3, 0.9], [0.6, 0.3, 0.8, 0.9]])
    marked = draw_faces(frame, boxes, np.array([0.5, 0.49]))
    assert tuple(marked[150, 40]) == SPEAKING_COLOUR
    assert tuple(marked[150, 240]) == SILENT_COLOUR
    assert not frame.any()
    assert not marked[150, 60:100].any()  # the face itself stays free


@pytest.fixture
def predictions(prepared: Path, tmp_path: Path) -> tuple[str, Path]:
    rows = ava.read_augmented(prepared / "csv" / "val.csv")
    ava.write_predictions(tmp_path / "ASC.csv", rows, np.linspace(0, 1, len(rows)))
    return rows["video_id"].iloc[0], tmp_path / "ASC.csv"


def test_a_video_keeps_its_length_and_sound(tiny_set: Path, predictions: tuple[str, Path], tmp_path: Path) -> None:
    video_id, csv = predictions
    video = tiny_set / "videos" / "val" / f"{video_id}.mp4"
    assert exit_status(overlay.main, video, csv, tmp_path / "out.mp4") == 0
    before, after = probe(video), probe(tmp_path / "out.mp4")
    assert (after.width, after.height, after.has_audio) == (before.width, before.height, True)
    assert len(list(read_frames(tmp_path / "out.mp4"))) == len(list(read_frames(video)))


def test_one_frame(tiny_set: Path, predictions: tuple[str, Path], tmp_path: Path) -> None:
    video_id, csv = predictions
    video = tiny_set / "videos" / "val" / f"{video_id}.mp4"
    assert exit_status(overlay.main, video, csv, tmp_path / "out.png", "--time", "0.2") == 0
    assert cv2.imread(str(tmp_path / "out.png")).shape[:2] == (probe(video).height, probe(video).width)


def test_predictions_of_another_video(
    tiny_set: Path, predictions: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = sorted((tiny_set / "videos" / "train").iterdir())[0]
    assert exit_status(overlay.main, other, predictions[1], tmp_path / "out.png") == 2
    assert f"has no rows of the video {other.stem}" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()
