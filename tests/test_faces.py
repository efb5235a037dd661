"""Face detectors behind one interface, and what happens without YuNet's weights."""

import itertools
import sys

import av
import cv2
import numpy as np
import pytest

from core.boxes import intersection_over_union
from core.detection.faces import FaceFinder, HaarCascade, YuNet, find_detector
from core.download.cache import NotDownloadedError
from core.download.weights_catalogue import YUNET
from core.media.container import MediaFile, VideoInfo
from core.media.video import Frame, read_frames
from core.runtime.errors import UserError


@pytest.fixture(scope="module")
def picture(shared):
    """A frame with two faces, and their boxes in pixels."""
    video = sorted((shared / "mini-ava" / "videos" / "val").glob("*.mp4"))[2]
    annotations = shared / "mini-ava" / "annotations" / "val" / f"{video.stem}-activespeaker.csv"
    rows = [line.split(",") for line in annotations.read_text().splitlines()]
    boxes = np.array([row[2:6] for row in rows if row[1] == rows[0][1]], float)
    pixels = next(iter(read_frames(MediaFile(video)))).bgr()
    return pixels, boxes * np.tile(pixels.shape[1::-1], 2)


@pytest.fixture(params=["OpenVINO", "OpenCV"])
def yunet(request, shared, monkeypatch) -> YuNet:
    if request.param == "OpenCV":
        monkeypatch.setitem(sys.modules, "openvino", None)  # as where it is not installed
    return YuNet(shared / "models" / "yunet_n_640_640.onnx", precision="fp32")


def test_yunet_finds_opencvs_boxes_and_scores(yunet, shared, picture):
    opencv = cv2.FaceDetectorYN.create(str(shared / "models" / "yunet_n_640_640.onnx"), "", (320, 320), 0.6)
    pixels, boxes = picture
    for scale in (1, 0.5, 0.37):  # the picture may change its size
        scaled = cv2.resize(pixels, None, fx=scale, fy=scale)
        opencv.setInputSize(scaled.shape[1::-1])
        expected = opencv.detect(scaled)[1]
        found = yunet(scaled)
        assert found.dtype == np.float32
        assert len(found) == len(expected) == len(boxes)
        np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=0.1)
        np.testing.assert_allclose(found[:, 2:4] - found[:, :2], expected[:, 2:4], atol=0.1)
        np.testing.assert_allclose(found[:, 4], expected[:, -1], atol=1e-3)
        np.testing.assert_allclose(found[:, 5:], expected[:, 4:14], atol=0.1)
        order = np.argsort(found[:, 0])
        np.testing.assert_allclose(
            found[order, :4], scale * boxes[np.argsort(boxes[:, 0])], atol=0.15 * scale * np.ptp(boxes)
        )
    assert yunet(np.zeros((200, 300, 3), np.uint8)).shape == (0, 15)


def test_yunet_in_bfloat16_finds_nearly_the_same(shared, picture):
    exact, fast = (YuNet(shared / "models" / "yunet_n_640_640.onnx", precision=name) for name in ("fp32", "bf16"))
    expected, found = exact(picture[0]), fast(picture[0])
    assert len(found) == len(expected) == len(picture[1])
    np.testing.assert_allclose(found[:, 4], expected[:, 4], atol=0.005)
    assert (intersection_over_union(found[:, :4], expected[:, :4]) > 0.95).all()


def test_yunet_reads_positions_offsets_and_sizes_and_drops_doubles(tmp_path, monkeypatch):
    """A network of 96 by 64 pixels that sees one face twice, another one, and a third below the threshold."""

    def network(images: np.ndarray) -> dict[str, np.ndarray]:
        _, _, height, width = images.shape
        outputs = {}
        for stride in (8, 16, 32):
            positions = (height // stride) * (width // stride)
            outputs |= {f"{kind}_{stride}": np.zeros((1, positions, size)) for kind, size in sizes.items()}
        if width == 96:  # 12, 6 and 3 positions in a row
            for name, position, cls, obj, box, eye in seen:
                outputs[f"cls_{name}"][0, position], outputs[f"obj_{name}"][0, position] = cls, obj
                outputs[f"bbox_{name}"][0, position] = box
                outputs[f"kps_{name}"][0, position, :2] = eye
        return outputs

    sizes = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
    seen = [
        (
            8,
            15,
            0.81,
            1.2,
            (0.5, 0.25, np.log(2), np.log(4)),
            (-0.5, 1),
        ),  # row 1, column 3; a score above 1 counts as 1
        (8, 16, 0.64, 1.0, (-0.5, 0.25, np.log(2), np.log(4)), (0, 0)),  # the same box from the next position
        (32, 5, 0.64, 0.64, (0, 0, 0, np.log(0.5)), (0, 0)),  # row 1, column 2
        (16, 0, 0.36, 0.9, (0, 0, 0, 0), (0, 0)),
    ]
    monkeypatch.setattr("core.detection.faces.onnx_network", lambda path, precision: network)
    (tmp_path / "faces.onnx").write_bytes(b"")
    found = YuNet(tmp_path / "faces.onnx")(np.zeros((60, 90, 3), np.uint8))
    np.testing.assert_allclose(found[:, :5], [[20, -6, 36, 26, 0.9], [48, 24, 80, 40, 0.64]], atol=1e-5)
    np.testing.assert_allclose(found[:, 5:], [[20, 16, *[24, 8] * 4], [64, 32] * 5], atol=1e-5)


def test_wrong_weights_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"absent\.onnx"):
        YuNet(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"broken\.onnx.*YuNet"):
        YuNet(tmp_path / "broken.onnx")
    monkeypatch.setattr("core.detection.faces.onnx_network", lambda path, precision: lambda images: {"cls_8": images})
    with pytest.raises(UserError, match=r"broken\.onnx.*obj_32"):
        YuNet(tmp_path / "broken.onnx")


def test_the_cascade_finds_faces(picture):
    pixels, boxes = picture
    found = HaarCascade()(pixels)
    centres = (found[:, :2] + found[:, 2:4]) / 2
    inside = (centres[:, None] > boxes[None, :, :2]) & (centres[:, None] < boxes[None, :, 2:])
    assert inside.all(axis=2).any()
    assert ((found[:, 4] >= 0) & (found[:, 4] <= 1)).all()
    assert HaarCascade()(np.zeros((200, 300, 3), np.uint8)).shape == (0, 5)


def test_the_cascade_is_taken_only_where_it_is_asked_for(tmp_path, monkeypatch):
    def unreachable(remote, cache):
        raise NotDownloadedError("no network")

    monkeypatch.setattr("core.detection.faces.cached", unreachable)
    with pytest.raises(NotDownloadedError):
        find_detector(cache=tmp_path)
    assert isinstance(find_detector("haar"), HaarCascade)


def test_a_detector_of_ones_own_is_taken_as_it_is():
    own = HaarCascade()
    assert find_detector(own) is own


class Heights:
    """Finds faces side by side whose heights are shares of the image's longer side, where they have 12 pixels there."""

    name, least_face_px = "heights", 12

    def __init__(self, *heights: float):
        self.heights, self.sides = heights, []

    def __call__(self, image: np.ndarray) -> np.ndarray:
        side = max(image.shape[:2])
        self.sides.append(side)
        faces = [[k / 8, 0, k / 8 + height, height, 0.9 / side] for k, height in enumerate(self.heights)]
        faces = np.array(faces, np.float32).reshape(-1, 5) * side
        return faces[faces[:, 3] >= 12]


def black(width: int, height: int) -> Frame:
    return Frame(0.0, av.VideoFrame.from_ndarray(np.zeros((height, width, 3), np.uint8), format="rgb24"))


@pytest.mark.parametrize(
    ("width", "min_face_px", "side", "sides", "least_px"),
    [
        (1280, 24, None, [640], 24),
        (1920, 24, None, [960], 24),
        (3840, 24, None, [1920, 640], 24),
        (3840, 60, None, [768], 60),
        (480, 24, None, [480], 12),
        (1280, 5, None, [1280], 12),
        (3840, 24, 640, [640], 72),
        (1280, 24, 5000, [1280], 12),
    ],
)
def test_frames_are_searched_at_the_size_that_the_faces_need(width, min_face_px, side, sides, least_px):
    detector = Heights()
    finder = FaceFinder.of(detector, VideoInfo(width, width // 2, 25.0, None, None, 0), min_face_px, side)
    assert finder(black(width, width // 2)).shape == (0, 5)
    assert detector.sides == sides
    assert finder.least_face_px == pytest.approx(least_px)


def test_faces_of_a_large_frame_are_found_once_each():
    """That of 30 pixels only in the large image, that of 90 in both, and that of 400 in the small one."""
    finder = FaceFinder.of(Heights(400 / 3840, 90 / 3840, 30 / 3840), VideoInfo(3840, 1080, 25.0, None, None, 0), 24)
    faces = finder(black(3840, 1080))
    np.testing.assert_allclose(sorted(faces[:, 3]), [30, 90, 400], rtol=1e-3)


def test_small_faces_of_a_large_frame_are_found(shared):
    """The same heads of 60 pixels in frames of 960 and of 3840."""
    found = {}
    for width in (960, 3840):
        with MediaFile(shared / "cases" / f"faces_60px_in_{width}.mp4") as media:
            finder = FaceFinder.of(YuNet(shared / "models" / "yunet_n_640_640.onnx"), media.info, 24)
            found[width] = [len(finder(frame)) for frame in itertools.islice(read_frames(media), 0, 21, 20)]
    assert found[3840] == found[960]
    assert min(found[960]) > 0


def test_another_file_in_the_place_of_the_weights_is_refused(tmp_path):
    (tmp_path / YUNET.name).write_bytes(b"something else")
    with pytest.raises(UserError, match=YUNET.name):
        find_detector(cache=tmp_path)
