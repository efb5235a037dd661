"""A canvas for drawn people: polygons, lines and ellipses in face units, smooth at the edges.

Face units: the origin is the middle of the face, u to the right, v down, 1 the height from the top of the head to the
chin. Everything is painted SUPERSAMPLING times too large and averaged down, which smooths edges and opacity alike.
"""

import cv2
import numpy as np

SUPERSAMPLING = 3

Color = tuple[int, int, int]
Extent = tuple[float, float, float, float]  # u1, v1, u2, v2


class Canvas:
    """An image of 4 channels (r, g, b, opacity) that is drawn on in face units.

    Attributes:
        pixels: (height, width, 4) uint8, both sides multiples of SUPERSAMPLING; premultiplied once averaged.
        origin: [u, v] of the upper left corner.
        scale: pixels of the averaged image per face unit.
    """

    def __init__(self, pixels: np.ndarray, origin: np.ndarray, scale: float):
        self.pixels = pixels
        self.origin = origin
        self.scale = scale

    @classmethod
    def blank(cls, extent: Extent, scale: float) -> "Canvas":
        """A transparent canvas."""
        u1, v1, u2, v2 = extent
        shape = [int(np.ceil(length * scale)) * SUPERSAMPLING for length in (v2 - v1, u2 - u1)]
        return cls(np.zeros((*shape, 4), np.uint8), np.array([u1, v1]), scale)

    def part(self, rows: slice, columns: slice) -> "Canvas":
        """A copy of some rows and columns of the averaged image, to be drawn on with the same coordinates."""
        big_rows, big_columns = (slice(s.start * SUPERSAMPLING, s.stop * SUPERSAMPLING) for s in (rows, columns))
        origin = self.origin + np.array([columns.start, rows.start]) / self.scale
        return Canvas(self.pixels[big_rows, big_columns].copy(), origin, self.scale)

    def averaged(self) -> np.ndarray:
        """The finished image, (height, width, [r, g, b, opacity]) uint8, colours premultiplied by the opacity."""
        height, width = (side // SUPERSAMPLING for side in self.pixels.shape[:2])
        return cv2.resize(self.pixels, (width, height), interpolation=cv2.INTER_AREA)

    def polygon(self, points: np.ndarray, color: Color) -> None:
        """Fill a polygon of (point, [u, v])."""
        cv2.fillPoly(self.pixels, [self._fixed(points)], (*color, 255), shift=4)

    def line(self, points: np.ndarray, color: Color, width: float) -> None:
        """Draw a line through (point, [u, v])."""
        thickness = max(1, round(width * self.scale * SUPERSAMPLING))
        cv2.polylines(self.pixels, [self._fixed(points)], False, (*color, 255), thickness, shift=4)

    def ellipse(self, u: float, v: float, half_width: float, half_height: float, color: Color) -> None:
        """Fill an ellipse."""
        angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        self.polygon(points(u + half_width * np.cos(angle), v + half_height * np.sin(angle)), color)

    def inlay(self, other: "Canvas", outline: np.ndarray) -> None:
        """Copy what lies within a polygon (point, [u, v]) from a canvas of the same size."""
        within = np.zeros(self.pixels.shape[:2], np.uint8)
        cv2.fillPoly(within, [self._fixed(outline)], 255, shift=4)
        cv2.copyTo(other.pixels, within, self.pixels)

    def copy(self) -> "Canvas":
        """A canvas of its own with the same image."""
        return Canvas(self.pixels.copy(), self.origin, self.scale)

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        """Pixels in 28.4 fixed point, as OpenCV's `shift=4` reads them."""
        return np.round((np.asarray(points) - self.origin) * (self.scale * SUPERSAMPLING * 16)).astype(np.int32)


def points(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(point, [u, v]) of two coordinates, one of which may be a number."""
    return np.stack(np.broadcast_arrays(u, v), axis=1)


def mirrored(side: list[tuple[float, float]]) -> np.ndarray:
    """A symmetric polygon, (point, [u, v]), of its right side from top to bottom."""
    right = np.array(side)
    return np.concatenate([right, right[::-1] * [-1, 1]])


def shaded(color: Color, factor: float) -> Color:
    """A colour made darker or, with a factor above 1, brighter."""
    return tuple(int(min(255, c * factor)) for c in color)


def blend(color: Color, other: Color, share: float) -> Color:
    """A mixture with `share` of the other colour."""
    return tuple(int((1 - share) * a + share * b) for a, b in zip(color, other, strict=True))
