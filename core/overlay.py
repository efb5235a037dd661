"""Draw who speaks: face boxes with their probability on frames."""

import cv2
import numpy as np

SPEAKING_COLOUR = (40, 190, 70)  # r, g, b
SILENT_COLOUR = (215, 60, 50)
THRESHOLD = 0.5


def draw_faces(pixels: np.ndarray, boxes: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """A copy of a frame with its faces marked: green where the probability of speaking is at least 0.5, else red.

    Args:
        pixels: (height, width, [r, g, b]) uint8.
        boxes: (face, [x1, y1, x2, y2]) float, fractions of width and height.
        probabilities: (face,) float, 0 to 1.

    Returns:
        (height, width, 3) uint8.
    """
    picture = np.ascontiguousarray(pixels).copy()
    height, width = picture.shape[:2]
    line = max(2, round(height / 240))
    scale = height / 720 * 0.9
    for box, probability in zip(boxes, probabilities, strict=True):
        colour = SPEAKING_COLOUR if probability >= THRESHOLD else SILENT_COLOUR
        x1, y1, x2, y2 = np.round(box * (width, height, width, height)).astype(int).tolist()
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, line, cv2.LINE_AA)
        text = f"{probability:.2f}"
        (text_width, text_height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
        top = max(0, y1 - text_height - 3 * line)
        cv2.rectangle(picture, (x1, top), (x1 + text_width + 2 * line, top + text_height + 3 * line), colour, -1)
        place = (x1 + line, top + text_height + line)
        cv2.putText(
            picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), max(1, line - 1), cv2.LINE_AA
        )
    return picture
