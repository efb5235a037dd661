"""Drawn faces for the synthetic set: looks, and head sprites whose mouth and eyes move.

Lengths are in the face units of `core.synthetic.canvas`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from core.synthetic.canvas import Canvas, Color, Extent, blend, points, shaded

HEAD_EXTENT = (-0.66, -0.8, 0.66, 0.62)  # hair included
MOUTH_EXTENT = (-0.27, 0.13, 0.27, 0.5)
EYES_EXTENT = (-0.3, -0.15, 0.3, 0.06)
FACE_TOP, FACE_BOTTOM = -0.43, 0.52  # what a face detector's box would span
OPENING_LEVELS, WIDTH_LEVELS, LID_LEVELS, GAZE_LEVELS = 20, 6, 3, 2  # steps a moving part is drawn in
HAIR_STYLES = ("short", "fringe", "long", "curly", "bun", "bald")
SKINS = ((255, 224, 196), (241, 194, 160), (224, 172, 130), (198, 134, 90), (141, 88, 56), (92, 58, 40))
HAIRS = ((28, 22, 20), (62, 40, 26), (110, 70, 38), (190, 150, 90), (150, 60, 30), (170, 170, 175), (80, 80, 85))
IRISES = ((60, 40, 25), (60, 100, 60), (70, 110, 160), (95, 75, 45))


@dataclass(frozen=True)
class Look:
    """What somebody looks like; colours are (r, g, b), lengths in face units."""

    skin: Color
    lips: Color
    hair: Color
    iris: Color
    clothes: Color
    collar: Color
    hair_style: str
    half_width: float
    chin: float  # 0 round to 1 pointed
    mouth_half_width: float
    lip_height: float
    eye_distance: float
    brow_height: float
    beard: bool
    glasses: bool
    lit_from: float  # -1 left to 1 right


def draw_look(rng: np.random.Generator) -> Look:
    """Somebody at random."""

    def varied(color: Color, by: float) -> Color:
        return tuple(int(c) for c in np.clip(np.array(color) + rng.normal(0, by, 3), 5, 250))

    skin = varied(SKINS[rng.integers(len(SKINS))], 6)
    redder = np.array(skin) * [rng.uniform(0.78, 0.92), rng.uniform(0.48, 0.62), rng.uniform(0.5, 0.66)]
    return Look(
        skin=skin,
        lips=tuple(int(c) for c in redder),
        hair=varied(HAIRS[rng.integers(len(HAIRS))], 5),
        iris=IRISES[rng.integers(len(IRISES))],
        clothes=varied((120, 120, 125), 48),
        collar=varied((190, 190, 190), 35),
        hair_style=str(rng.choice(HAIR_STYLES, p=(0.25, 0.2, 0.2, 0.13, 0.12, 0.1))),
        half_width=float(rng.uniform(0.35, 0.41)),
        chin=float(rng.uniform(0.1, 0.8)),
        mouth_half_width=float(rng.uniform(0.125, 0.165)),
        lip_height=float(rng.uniform(0.028, 0.05)),
        eye_distance=float(rng.uniform(0.155, 0.185)),
        brow_height=float(rng.uniform(0.1, 0.13)),
        beard=bool(rng.random() < 0.18),
        glasses=bool(rng.random() < 0.22),
        lit_from=float(rng.uniform(-1, 1)),
    )


class Head:
    """The sprite of a head at one size, premultiplied by its opacity; mouth and eyes are drawn once per position."""

    def __init__(self, look: Look, height_px: float):
        self.look = look
        self.height_px = height_px
        self._canvas = Canvas.blank(HEAD_EXTENT, height_px)
        _draw_head(self._canvas, look)
        still = self._canvas.averaged()
        height, width = still.shape[:2]
        u = np.linspace(HEAD_EXTENT[0], HEAD_EXTENT[2], width)
        v = np.linspace(HEAD_EXTENT[1], HEAD_EXTENT[3], height)[:, None]
        shade = 1.02 + 0.28 * look.lit_from * u - 0.1 * v
        self._shade = np.repeat(shade[..., None], 4, axis=2).astype(np.float32)
        self._shade[..., 3] = 1  # opacity stays
        self._still = self._lit(still, slice(None), slice(None))
        self.mouth_patch = functools.cache(self._mouth_patch)
        self.eyes_patch = functools.cache(self._eyes_patch)

    @property
    def anchor(self) -> tuple[float, float]:
        """The pixel (x, y) of the sprite where the middle of the face lies."""
        return -HEAD_EXTENT[0] * self.height_px, -HEAD_EXTENT[1] * self.height_px

    def drawn(self, opening: float, width: float, lid: float, gaze: float) -> np.ndarray:
        """The head with its moving parts in place.

        Args:
            opening: of the mouth, 0 shut to 1.
            width: of the mouth, -1 rounded to 1 spread.
            lid: 0 open eyes to 1 shut.
            gaze: -1 left to 1 right.

        Returns:
            (height, width, [r, g, b, opacity]) uint8.
        """
        sprite = self._still.copy()
        mouth, (rows, columns) = self.mouth_patch(round(opening * OPENING_LEVELS), round(width * WIDTH_LEVELS))
        sprite[rows, columns] = mouth
        eyes, (rows, columns) = self.eyes_patch(round(lid * LID_LEVELS), round(gaze * GAZE_LEVELS))
        sprite[rows, columns] = eyes
        return sprite

    def _mouth_patch(self, opening: int, width: int) -> tuple[np.ndarray, tuple[slice, slice]]:
        return self._patch(MOUTH_EXTENT, _draw_mouth, opening / OPENING_LEVELS, width / WIDTH_LEVELS)

    def _eyes_patch(self, lid: int, gaze: int) -> tuple[np.ndarray, tuple[slice, slice]]:
        return self._patch(EYES_EXTENT, _draw_eyes, lid / LID_LEVELS, gaze / GAZE_LEVELS)

    def _patch(
        self, extent: Extent, draw: Callable[..., None], *position: float
    ) -> tuple[np.ndarray, tuple[slice, slice]]:
        """The part of the sprite within an extent after `draw`, and the rows and columns where it belongs."""
        corners = (np.array(extent) - np.tile(HEAD_EXTENT[:2], 2)) * self.height_px
        x1, y1, x2, y2 = np.round(corners).astype(int).tolist()
        region = slice(y1, y2), slice(x1, x2)
        part = self._canvas.part(*region)
        draw(part, self.look, *position)
        return self._lit(part.averaged(), *region), region

    def _lit(self, pixels: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        return cv2.multiply(pixels, self._shade[rows, columns], dtype=cv2.CV_8U)


def _draw_head(canvas: Canvas, look: Look) -> None:
    face = _face_outline(look)
    if look.hair_style == "bun":
        canvas.ellipse(0, -0.58, 0.17, 0.15, shaded(look.hair, 0.9))
    if look.hair_style == "curly":
        for angle in np.linspace(0.1, np.pi - 0.1, 11):
            canvas.ellipse(0.4 * np.cos(angle), -0.12 - 0.42 * np.sin(angle), 0.13, 0.13, look.hair)
    for side in (-1, 1):
        canvas.ellipse(side * (look.half_width + 0.01), 0.02, 0.055, 0.1, shaded(look.skin, 0.9))
    canvas.polygon(face, look.skin)
    if look.beard:
        jaw = face[face[:, 1] > 0.08]
        canvas.polygon(np.concatenate([jaw, [(-0.24, 0.16), (0, 0.13), (0.24, 0.16)]]), shaded(look.hair, 1.1))
    for side in (-1, 1):
        canvas.ellipse(side * 0.23, 0.12, 0.075, 0.05, blend(look.skin, look.lips, 0.1))
        brow = np.array([(-0.085, 0.012), (-0.03, -0.018), (0.03, -0.022), (0.09, 0.01)])
        center = (side * look.eye_distance, -0.045 - look.brow_height)
        canvas.line(brow * [side, 1] + center, shaded(look.hair, 0.8), 0.025)
    shadow = shaded(look.skin, 0.8)
    canvas.line(np.array([(-0.025, -0.05), (-0.03, 0.06), (-0.055, 0.11), (-0.02, 0.13), (0.03, 0.125)]), shadow, 0.014)
    canvas.ellipse(0.035, 0.115, 0.022, 0.016, shadow)
    _draw_hair(canvas, look, face)


def _draw_hair(canvas: Canvas, look: Look, face: np.ndarray) -> None:
    """The hair in front: the skull down to the hairline."""
    if look.hair_style == "bald":
        return
    temple, line = {"short": (-0.12, -0.3), "fringe": (-0.02, -0.22), "long": (0.1, -0.33)}.get(
        look.hair_style, (-0.1, -0.33)
    )
    skull = face[face[:, 1] < temple] * [1.08, 1.1]
    skull = skull[np.argsort(np.arctan2(skull[:, 0], -skull[:, 1]))]  # from the left temple over the top to the right
    middle = [(0.31, temple), (0.27, -0.2), (0.12, line), (-0.1, line - 0.02), (-0.27, -0.2), (-0.31, temple)]
    if look.hair_style == "fringe":
        middle = [(0.31, temple), (0.3, line), (0.1, line + 0.02), (-0.12, line), (-0.3, line), (-0.31, temple)]
    canvas.polygon(np.concatenate([skull, middle]), look.hair)
    canvas.line(skull[len(skull) // 3 : 2 * len(skull) // 3] * [0.8, 0.9], shaded(look.hair, 1.25), 0.015)


def _draw_mouth(canvas: Canvas, look: Look, opening: float, width: float) -> None:
    """Lips, and between them the dark of the mouth, teeth and tongue."""
    s = np.linspace(-1, 1, 33)
    half = look.mouth_half_width * (1 + 0.34 * width) * (1 - 0.06 * opening)
    lip = look.lip_height * (1 - 0.3 * width)
    middle = 0.255
    upper = middle - 0.05 * opening * (1 - s**2)
    lower = middle + 0.15 * opening * (1 - np.abs(s) ** 2.2)
    bow = lip * (1 - s**2) ** 0.6 * (1 - 0.35 * np.exp(-((s / 0.18) ** 2)))
    u = half * s
    outside = np.concatenate([points(u * 1.06, upper - bow), points(u, lower + 1.15 * lip * (1 - s**2) ** 0.7)[::-1]])
    canvas.polygon(outside, look.lips)
    if opening < 0.04:
        canvas.line(points(u, upper + 0.004 * np.cos(3 * s)), shaded(look.lips, 0.55), 0.012)
        return
    inside = np.concatenate([points(u * 0.93, upper), points(u * 0.93, lower)[::-1]])
    canvas.polygon(inside, (48, 14, 16))
    details = canvas.copy()
    details.ellipse(0, middle + 0.15 * opening + 0.03, half * 0.62, 0.03 + 0.05 * opening, (176, 74, 78))
    teeth = middle - 0.05 * opening + 0.012 + 0.026 * min(1.0, 3 * opening)
    details.polygon(points(np.array([-0.8, 0.8, 0.7, -0.7]) * half, np.array([0, 0, teeth, teeth])), (238, 234, 224))
    canvas.inlay(details, inside)


def _draw_eyes(canvas: Canvas, look: Look, lid: float, gaze: float) -> None:
    for side in (-1, 1):
        u, v, open_height = side * look.eye_distance, -0.045, 0.042 * (1 - lid)
        if open_height > 0.008:
            canvas.ellipse(u, v, 0.078, open_height, (246, 244, 240))
            across, pupil = u + 0.022 * gaze, min(0.036, open_height)
            canvas.ellipse(across, v, 0.036, pupil, look.iris)
            canvas.ellipse(across, v, 0.017, min(0.017, open_height), (12, 10, 10))
            canvas.ellipse(across + 0.012, v - 0.3 * pupil, 0.008, 0.008, (255, 255, 255))
        s = np.linspace(-1, 1, 15)
        lashes = v - open_height * np.sqrt(1 - 0.98 * s**2) + 0.01 * lid
        canvas.line(points(u + 0.08 * s, lashes), shaded(look.hair, 0.5), 0.016)
        if look.glasses:
            ring = np.linspace(0, 2 * np.pi, 41)
            frame = points(u + 0.115 * np.cos(ring), v + 0.088 * np.sin(ring))
            canvas.line(frame, (30, 30, 34), 0.016)
    if look.glasses:
        canvas.line(points(np.array([-0.05, 0.05]), np.array([-0.05, -0.05])), (30, 30, 34), 0.016)


def _face_outline(look: Look) -> np.ndarray:
    """The face, (point, [u, v])."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    u, v = np.cos(angle), np.sin(angle)
    narrowed = 1 - (0.1 + 0.16 * look.chin) * np.clip(v, 0, 1) ** 1.5
    return points(look.half_width * narrowed * np.sign(u) * np.abs(u) ** 0.86, 0.5 * v)
