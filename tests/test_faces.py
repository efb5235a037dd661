"""Face detectors behind one interface, and what happens without YuNet's weights."""

import cv2
import numpy as np
import pytest

from core.detection.faces import HaarCascade, YuNet, find_detector
from core.download.cache import NotDownloadedError
from core.download.weights_catalogue import YUNET
from core.media.container import MediaFile
from core.media.video import read_frames
from core.runtime.errors import UserError


@pytest.fixture(scope="module")
def picture(shared):
    """A frame with two faces, and their boxes in pixels."""
    video = sorted((shared / "mini-ava" / "videos" / "val").glob("*.mp4"))[2]
    rows = [
        line.split(",")
        for line in (shared / "mini-ava" / "annotations" / "val" / f"{video.stem}-activespeaker.csv")
        .read_text()
        .splitlines()
    ]
    boxes = np.array([row[2:6] for row in rows if row[1] == rows[0][1]], float)
    pixels = next(iter(read_frames(MediaFile(video)))).bgr()
    return pixels, boxes * np.tile(pixels.shape[1::-1], 2)


def test_yunet_finds_the_faces(shared, picture):
    pixels, boxes = picture
    found = YuNet(shared / "models" / "yunet_n_640_640.onnx")(pixels)
    assert found.dtype == np.float32
    assert len(found) == len(boxes)
    order = np.argsort(found[:, 0])
    np.testing.assert_allclose(found[order, :4], boxes[np.argsort(boxes[:, 0])], atol=0.15 * np.ptp(boxes))
    assert (found[:, 4] > 0.8).all()


def test_the_cascade_finds_them_too(picture):
    pixels, boxes = picture
    found = HaarCascade()(pixels)
    assert len(found)
    centres = (found[:, :2] + found[:, 2:4]) / 2
    inside = (centres[:, None] > boxes[None, :, :2]) & (centres[:, None] < boxes[None, :, 2:])
    assert inside.all(axis=2).any()
    assert ((found[:, 4] >= 0) & (found[:, 4] <= 1)).all()


def test_an_empty_picture_has_no_faces(shared):
    blank = np.zeros((200, 300, 3), np.uint8)
    assert HaarCascade()(blank).shape == (0, 5)
    assert YuNet(shared / "models" / "yunet_n_640_640.onnx")(blank).shape == (0, 5)


def test_the_picture_may_change_its_size(shared, picture):
    pixels, boxes = picture
    detector = YuNet(shared / "models" / "yunet_n_640_640.onnx")
    assert len(detector(pixels)) == len(boxes)
    assert len(detector(cv2.resize(pixels, None, fx=0.5, fy=0.5))) == len(boxes)


def test_wrong_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match="no detector weights"):
        YuNet(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(UserError, match="cannot run them as YuNet"):
        YuNet(tmp_path / "broken.onnx")


def test_without_network_and_weights_the_cascade_serves_and_says_so(tmp_path, monkeypatch):
    def unreachable(remote, cache):
        raise NotDownloadedError("no network")

    monkeypatch.setattr("core.detection.faces.cached", unreachable)
    detector, note = find_detector(None, tmp_path)
    assert isinstance(detector, HaarCascade)
    assert "Haar cascade" in note
    assert "no network" in note


def test_a_detector_of_ones_own_is_taken_as_it_is():
    own = HaarCascade()
    assert find_detector(own) == (own, None)


def test_another_file_in_the_place_of_the_weights_is_refused(tmp_path):
    (tmp_path / YUNET.name).write_bytes(b"something else")
    with pytest.raises(UserError, match="is not the YuNet face detector"):
        find_detector(None, tmp_path)
