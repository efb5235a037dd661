"""What the ranges of 8 bit integers are measured on: drawn faces, so that no data set is needed."""

from collections.abc import Iterator

import cv2
import numpy as np

from core.boxes import pixel_edges
from core.clip_utils import FACE_SIZE, GRID_FPS
from core.synthetic.conditions import PRESETS
from core.synthetic.frames import render_frames
from core.synthetic.scenes import compose_scene

SCENES = 12  # of a second each, with one to three faces
SIZE = (640, 360)


def drawn_faces(split: str, scenes: int) -> Iterator[np.ndarray]:
    """Tracks of drawn faces, (time, 112, 112) uint8, grey; `split` as `core.synthetic.scenes` has it."""
    for index in range(scenes):
        scene = compose_scene(0, split, index, 1.0, GRID_FPS, SIZE, PRESETS["varied"])
        frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in render_frames(scene)]
        for shot in scene.shots:
            for track in shot.tracks:
                edges = pixel_edges(track.boxes * np.tile(SIZE, 2), *SIZE)
                shown = frames[shot.first : shot.first + shot.frames]
                faces = [frame[y1:y2, x1:x2] for frame, (x1, y1, x2, y2) in zip(shown, edges, strict=True)]
                yield np.stack([cv2.resize(face, (FACE_SIZE, FACE_SIZE)) for face in faces])
