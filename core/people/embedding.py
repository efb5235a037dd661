"""Face embeddings behind one small interface: vectors that are near each other for faces of one person.

An embedding can tell people apart, so it is biometric data. It is computed in memory, to compare the faces of one
video with each other, and goes with the process unless its user asks for it to be written.
"""

from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from core.boxes import pixel_edges
from core.download.cache import cache_folder, cached
from core.download.weights_catalogue import SFACE
from core.runtime.errors import UserError
from core.runtime.files import fingerprint

SIDE = 112  # pixels of SFace's input
SMALL_SIDE = 24  # of `Likeness`


class FaceEmbedder(Protocol):
    """Makes vectors of faces.

    Attributes:
        name: for the output and its readers.
        max_distance: mean cosine distance up to which two groups of faces are of one person, 0 to 2.
    """

    name: str
    max_distance: float

    def align(self, pixels: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Cut a face as the network reads it, turned upright; quick, as it is done more often than `embed`.

        Args:
            pixels: (height, width, [b, g, r]) uint8, the face with what is around it.
            box: ([x1, y1, x2, y2],) float32, pixels.
            landmarks: ([right eye, left eye, nose, right and left corner of the mouth], [x, y]) float32, pixels; right
                is the person's.

        Returns:
            (side, side, [b, g, r]) uint8.
        """
        ...

    def embed(self, face: np.ndarray) -> np.ndarray:
        """An aligned face -> (feature,) float32 of length 1."""
        ...


class SFace:
    """The SFace network (Zhong et al., "SFace: Sigmoid-Constrained Hypersphere Loss for Robust Face Recognition", IEEE
    Transactions on Image Processing 2021), run by OpenCV's `FaceRecognizerSF`, which also aligns the faces.

    Args:
        weights: ONNX file.

    Raises:
        UserError: the file is absent or no SFace network.
    """

    name = "SFace"
    # Two faces are of one person from a cosine similarity of 0.363 on, by OpenCV's documentation of FaceRecognizerSF.
    max_distance = 1 - 0.363

    def __init__(self, weights: str | Path):
        if not Path(weights).is_file():
            raise UserError(f"no face embedding weights {weights}: give the path of an SFace file (.onnx)")
        self.weights_sha256 = fingerprint(weights)
        try:
            self.network = cv2.FaceRecognizerSF.create(str(weights), "")
            self.embed(np.zeros((SIDE, SIDE, 3), np.uint8))
        except Exception as error:  # whatever the bytes of a damaged or foreign file lead OpenCV into
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise UserError(f"face embedding weights {weights} cannot be run as SFace ({reason})") from error

    def align(self, pixels: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """See `FaceEmbedder`."""
        row = np.concatenate([box[:2], box[2:] - box[:2], landmarks.reshape(-1), [1]]).astype(np.float32)
        return self.network.alignCrop(pixels, row[None])

    def embed(self, face: np.ndarray) -> np.ndarray:
        """See `FaceEmbedder`."""
        return normalised(self.network.feature(face)[0])


class Likeness:
    """How faces look in small: those of one person are alike where light, head and camera are about the same, as where
    a film returns to a camera. Of others they hardly ever are; so this does not tell persons apart, but it needs no
    weights, and suffices to remember a voice over a cut (see `core.inference.residual_contexts`)."""

    name = "likeness"
    # In 24 composed clips 52 of 89 pairs of tracks of one person are no further apart, none of 159 of two people, and 4
    # of 8,082 across clips.
    max_distance = 0.1

    def align(self, pixels: np.ndarray, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """See `FaceEmbedder`; (24, 24, 3), not turned."""
        x1, y1, x2, y2 = pixel_edges(box, pixels.shape[1], pixels.shape[0])
        return cv2.resize(pixels[y1:y2, x1:x2], (SMALL_SIDE, SMALL_SIDE), interpolation=cv2.INTER_AREA)

    def embed(self, face: np.ndarray) -> np.ndarray:
        """See `FaceEmbedder`: deviations from the face's mean colour."""
        return normalised((face - face.mean((0, 1))).reshape(-1))


def normalised(vector: np.ndarray) -> np.ndarray:
    """A vector brought to length 1, float32; one of zeros stays."""
    length = np.linalg.norm(vector)
    return np.asarray(vector / length if length else vector, np.float32)


def find_embedder(
    people: bool | FaceEmbedder | None, cache: str | Path | None = None
) -> tuple[FaceEmbedder | None, str | None]:
    """What tells persons apart, or tracks that look alike, or None; and a note where that was not asked for.

    Args:
        people: an embedder; True for SFace with weights downloaded once; None for SFace if its weights are in the
            cache, else `Likeness`; False for nothing.
        cache: folder for downloads; None for the user's.

    Raises:
        UserError: SFace was asked for and its weights could not be downloaded, or another file lies in their place.
    """
    if people is None and not (cache_folder(cache) / SFACE.name).is_file():
        return Likeness(), (
            f"tracks are not put together to persons, as SFace's weights are not in {cache_folder(cache)}: ask for "
            f"persons (--people) to have them downloaded once, or download {SFACE.url} (SHA-256 {SFACE.sha256}) on any "
            f"machine and put it there as {SFACE.name}; --no-people omits this note"
        )
    if people is None or people is True:
        return SFace(cached(SFACE, cache)), None
    return people or None, None
