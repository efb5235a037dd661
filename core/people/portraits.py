"""The best frames of a face track, from which its person is recognised."""

from dataclasses import dataclass

import cv2
import numpy as np

from core.boxes import pixel_edges
from core.media.video import Frame
from core.people.embedding import FaceEmbedder, normalised

PORTRAITS = 5  # of a track
EVERY_S = 0.24  # neighbouring frames show the same
MARGIN = 0.3  # of the box, around it: what alignment may reach
GOOD_HEIGHT_PX = 112  # of a face; larger ones are no better, as networks read faces of about this size
GOOD_SHARPNESS = 100.0  # variance of the Laplacian of an aligned face in grey, 0 to 255
TURNED_AWAY = 0.5  # distance of the nose from midway between the eyes, in distances of the eyes: half a profile


@dataclass
class Portrait:
    """A frame of a face.

    Attributes:
        quality: how well the face can be recognised, 0 to 1.
        aligned: the face, as an embedder takes it.
        vector: its embedding, once it was asked for.
    """

    quality: float
    aligned: np.ndarray
    vector: np.ndarray | None = None


class Portraits:
    """Keeps the best frames of one track: sure, large, frontal and sharp ones, some time apart.

    Args:
        embedder: aligns faces, and makes vectors of them.
    """

    def __init__(self, embedder: FaceEmbedder):
        self.embedder = embedder
        self.kept: list[Portrait] = []  # the best first
        self.last_s = -np.inf

    def add(self, frame: Frame, face: np.ndarray) -> None:
        """Look at the face in one frame; frames come in order.

        Args:
            frame: the frame.
            face: ([x1, y1, x2, y2, score, and x, y of five landmarks],) float32 as face detectors give it, pixels.
        """
        quality = _quality(face)
        worst = self.kept[-1].quality if len(self.kept) == PORTRAITS else 0.0
        if quality <= worst or frame.time_s < self.last_s + EVERY_S - 1e-6:
            return
        self.last_s = frame.time_s
        aligned = aligned_face(self.embedder, frame, face[:4], face[5:].reshape(5, 2))
        sharpness = cv2.Laplacian(cv2.cvtColor(aligned, cv2.COLOR_BGR2GRAY), cv2.CV_32F).var()
        self.kept.append(Portrait(quality * sharpness / (sharpness + GOOD_SHARPNESS), aligned))
        self.kept = sorted(self.kept, key=lambda one: -one.quality)[:PORTRAITS]

    def embedding(self) -> np.ndarray | None:
        """The mean direction of the faces kept, (feature,) float32 of length 1; None where there is no face."""
        if not self.kept:
            return None
        for one in self.kept:  # while a face is seen it is asked for again and again
            if one.vector is None:
                one.vector = self.embedder.embed(one.aligned)
        return normalised(np.mean([one.vector for one in self.kept], axis=0))


def aligned_face(embedder: FaceEmbedder, frame: Frame, box: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A face of a frame as an embedder takes it; box and landmarks as `FaceEmbedder.align`, pixels of the frame."""
    margin = MARGIN * (box[2:] - box[:2])
    x1, y1, x2, y2 = pixel_edges(
        np.concatenate([box[:2] - margin, box[2:] + margin]), frame.width, frame.height
    ).tolist()
    corner = np.array([x1, y1], np.float32)
    return embedder.align(frame.bgr_region(x1, y1, x2, y2), box - np.tile(corner, 2), landmarks - corner)


def _quality(face: np.ndarray) -> float:
    """How well a face can be recognised, 0 to 1, as far as its landmarks say; 0 where there are none."""
    if len(face) == 5:
        return 0.0
    return float(face[4]) * min(1.0, float(face[3] - face[1]) / GOOD_HEIGHT_PX) * frontality(face)


def frontality(face: np.ndarray) -> float:
    """How little a face is turned aside, by its landmarks: 1 from the front, 0 in profile.

    Args:
        face: with landmarks, as face detectors give it.
    """
    right_eye, left_eye, nose = face[5:11].reshape(3, 2)
    eyes = left_eye - right_eye
    apart = max(float(np.linalg.norm(eyes)), 1e-6)
    turned = abs(float((nose - (right_eye + left_eye) / 2) @ eyes)) / apart**2
    return max(0.0, 1 - turned / (2 * TURNED_AWAY))
