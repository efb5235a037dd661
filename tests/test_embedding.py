"""Face embeddings: OpenCV's recogniser with a small network of SFace's input and output, and where it comes from."""

import numpy as np
import pytest
from onnx_files import CELLS, write_pooling_network

from core.download.cache import NotDownloadedError
from core.download.weights_catalogue import SFACE
from core.people.embedding import SIDE, Likeness, SFace, find_embedder
from core.runtime.errors import UserError

# Where SFace's training had the landmarks, in pixels of its input (opencv/modules/objdetect/src/face_recognize.cpp).
UPRIGHT = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]], np.float32
)


@pytest.fixture(scope="module")
def sface(tmp_path_factory) -> SFace:
    return SFace(write_pooling_network(tmp_path_factory.mktemp("weights") / "sface.onnx"))


def scene() -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: smooth, and another colour everywhere."""
    across = np.linspace(0, 200, SIDE)
    return np.stack(
        [across[None] + 0 * across[:, None], across[:, None] + 0 * across, 40 + 0 * across[:, None] * across], 2
    ).astype(np.uint8)


def test_an_embedding_has_length_1_and_reads_red_first(sface):
    face = np.full((SIDE, SIDE, 3), (30, 60, 90), np.uint8)  # b, g, r
    vector = sface.embed(face)
    assert vector.dtype == np.float32
    assert vector.shape == (3 * CELLS**2,)
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert vector.reshape(3, -1).mean(axis=1) / vector[0] == pytest.approx([1, 60 / 90, 30 / 90])
    assert np.isfinite(sface.embed(np.zeros_like(face))).all()


@pytest.mark.parametrize(("angle", "scale", "shift"), [(0, 1, (0, 0)), (0.5, 2, (150, 40)), (-1.2, 1.5, (90, 180))])
def test_faces_are_turned_upright(sface, angle, scale, shift):
    """However a face lies in the frame, the network gets the same pixels."""
    import cv2

    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.concatenate([turn, np.array(shift, float)[:, None]], axis=1)
    pixels = cv2.warpAffine(scene(), matrix, (400, 400))
    landmarks = (UPRIGHT @ turn.T + shift).astype(np.float32)
    box = np.concatenate([landmarks.min(axis=0), landmarks.max(axis=0)])
    aligned = sface.align(pixels, box, landmarks)
    assert aligned.shape == (SIDE, SIDE, 3)
    inside = slice(8, -8)
    np.testing.assert_allclose(aligned[inside, inside].astype(int), scene()[inside, inside], atol=4)


def test_wrong_weights_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent\.onnx"):
        SFace(tmp_path / "absent.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(UserError, match=r"broken\.onnx.*SFace"):
        SFace(tmp_path / "broken.onnx")


def test_weights_are_downloaded_only_where_persons_are_asked_for(tmp_path, monkeypatch):
    asked = []

    def unreachable(remote, cache):
        asked.append(remote)
        raise NotDownloadedError("no network")

    monkeypatch.setattr("core.people.embedding.cached", unreachable)
    embedder, note = find_embedder(None, tmp_path)
    assert isinstance(embedder, Likeness)
    assert all(fact in note for fact in (str(tmp_path), SFACE.name, SFACE.url, SFACE.sha256, "--people"))
    assert find_embedder(False, tmp_path) == (None, None)
    assert asked == []
    with pytest.raises(NotDownloadedError):
        find_embedder(True, tmp_path)
    assert asked == [SFACE]


def test_weights_in_the_cache_are_used_and_checked(tmp_path, sface, monkeypatch):
    write_pooling_network(tmp_path / SFACE.name)
    with pytest.raises(UserError, match=SFACE.name):  # another file in their place
        find_embedder(None, tmp_path)
    monkeypatch.setattr("core.people.embedding.cached", lambda remote, cache: cache / remote.name)
    embedder, note = find_embedder(None, tmp_path)
    assert (embedder.name, note) == ("SFace", None)
    assert embedder.weights_sha256 == sface.weights_sha256
    assert find_embedder(sface, tmp_path) == (sface, None)


def test_likeness_does_not_depend_on_size_light_or_strength_of_colour():
    face, other, likeness = scene(), np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8), Likeness()

    def vector(pixels: np.ndarray) -> np.ndarray:
        box = np.array([0, 0, *pixels.shape[1::-1]], np.float32)
        return likeness.embed(likeness.align(pixels, box, UPRIGHT))

    assert vector(face).dtype == np.float32
    for alike in (face[::2, ::2], (face * 0.5 + 30).astype(np.uint8)):
        assert 1 - vector(face) @ vector(alike) < 0.01
    assert 1 - vector(face) @ vector(face[::-1]) > 1
    assert 1 - vector(face) @ vector(other) > 0.5
    assert np.isfinite(vector(np.zeros_like(face))).all()
