"""Frames of a synthetic scene: rooms, light, bodies, and heads that move."""

from collections.abc import Iterator

import cv2
import numpy as np

from core.synthetic.canvas import Canvas, mirrored, shaded
from core.synthetic.faces import Head, Look
from core.synthetic.scenes import Scene, Track

NOISE_MARGIN = 32  # pixels by which the sensor noise may be shifted from frame to frame


def render_frames(scene: Scene) -> Iterator[np.ndarray]:
    """The frames of a scene in order, each (height, width, [r, g, b]) uint8."""
    rng = np.random.default_rng((*scene.seed, 1))  # 1: apart from the stream that composed the scene
    width, height = scene.size
    # One field of noise, shifted at random: the eye cannot tell, and drawing it anew would cost most of the time.
    noise = rng.normal(0, rng.uniform(0.4, 2.5), (height + NOISE_MARGIN, width + NOISE_MARGIN, 1))
    noise = np.repeat(noise, 3, axis=2).round().astype(np.int16)
    for shot in scene.shots:
        room = _draw_room(rng, width, height)
        tracks = sorted(shot.tracks, key=lambda track: track.height_px)  # the larger ones are nearer
        for track in tracks:
            _paint(room, *_draw_body(track.look, track.height_px), track.pose[0])
        heads = [Head(track.look, track.height_px) for track in tracks]
        light = rng.uniform(0.7, 1.1) * (1 + rng.uniform(-0.08, 0.08, 3))
        flicker = rng.uniform(0, 0.02)
        for number in range(shot.frames):
            frame = room.copy()
            for track, head in zip(tracks, heads, strict=True):
                if track.shown[number]:
                    _paint(frame, _head_picture(head, track, number), head.anchor, track.pose[number])
            gain = light * (1 + flicker * np.sin(0.6 * number))
            table = np.clip(np.arange(256)[:, None, None] * gain, 0, 255).astype(np.uint8)
            x, y = rng.integers(NOISE_MARGIN, size=2)
            yield cv2.add(cv2.LUT(frame, table), noise[y : y + height, x : x + width], dtype=cv2.CV_8U)


def _head_picture(head: Head, track: Track, number: int) -> np.ndarray:
    return head.drawn(track.opening[number], track.width[number], track.lid[number], track.gaze[number])


def _paint(frame: np.ndarray, sprite: np.ndarray, anchor: tuple[float, float], pose: np.ndarray) -> None:
    """Lay a sprite over part of a frame, in place.

    Args:
        frame: (height, width, 3) uint8.
        sprite: (height, width, 4) uint8, premultiplied by its opacity.
        anchor: pixel (x, y) of the sprite that comes to lie at the pose's position.
        pose: [x, y, angle, scale] in pixels, degrees, factor.
    """
    x, y, angle, scale = pose
    reach = 0.06 * max(sprite.shape[:2])  # what turning and scaling may add at each side
    corner = np.array([x, y]) - anchor
    left, top = np.maximum(np.floor(corner - reach), 0).astype(int)
    right, bottom = np.ceil(corner + sprite.shape[1::-1] + reach).astype(int)
    part = frame[top:bottom, left:right]
    if part.size == 0:
        return
    matrix = cv2.getRotationMatrix2D(anchor, angle, scale)
    matrix[:, 2] += corner - (left, top)
    moved = cv2.warpAffine(sprite, matrix, part.shape[1::-1], flags=cv2.INTER_LINEAR)
    seen_through = cv2.merge([cv2.bitwise_not(cv2.extractChannel(moved, 3))] * 3)
    behind = cv2.multiply(part, seen_through, scale=1 / 255)
    cv2.add(behind, cv2.cvtColor(moved, cv2.COLOR_RGBA2RGB), dst=part)


def _draw_body(look: Look, height_px: float) -> tuple[np.ndarray, tuple[float, float]]:
    """What of somebody does not move with the head: neck, shoulders, long hair.

    Returns:
        sprite (height, width, [r, g, b, opacity]) uint8, premultiplied, and the pixel (x, y) of it that lies at the
        middle of the face.
    """
    extent = (-1.05, -0.4, 1.05, 2.6)
    canvas = Canvas.blank(extent, height_px)
    if look.hair_style == "long":
        side = [(0.3, -0.36), (0.42, -0.2), (0.48, 0.1), (0.5, 0.55), (0.46, 0.7), (0.3, 0.78)]
        canvas.polygon(mirrored(side), look.hair)
    shadow = shaded(look.skin, 0.78)
    canvas.polygon(mirrored([(0.17, 0.2), (0.17, 0.72), (0.24, 0.85)]), shadow)
    shoulder = [(0.16, 0.7), (0.3, 0.78), (0.62, 0.88), (0.84, 1.02), (0.95, 1.3), (1.0, 2.6)]
    canvas.polygon(mirrored(shoulder), look.clothes)
    canvas.polygon(np.array([(-0.17, 0.68), (0.17, 0.68), (0.0, 1.02)]), shadow)
    for side in (-1, 1):
        canvas.polygon(np.array([(0.17, 0.64), (0.27, 0.76), (0.12, 1.0), (0.0, 1.03)]) * [side, 1], look.collar)
        canvas.line(np.array([(0.6, 1.35), (0.64, 2.6)]) * [side, 1], shaded(look.clothes, 0.8), 0.02)
    return canvas.averaged(), (-extent[0] * height_px, -extent[1] * height_px)


def _draw_room(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A wall with what hangs and stands before it, a little out of focus: (height, width, [r, g, b]) uint8."""
    wall, floor = _muted(rng, 90, 220), _muted(rng, 50, 150)
    down, across = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    slopes = rng.uniform(-22, 22, 2)
    room = np.clip(wall + slopes[0] * down + slopes[1] * across, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:  # wallpaper
        gap = int(rng.integers(max(4, width // 40), max(6, width // 12)))
        for left in range(0, width, 2 * gap):
            room[:, left : left + gap] = cv2.addWeighted(room[:, left : left + gap], 0.93, 0, 0, 0)
    for _ in range(rng.integers(1, 5)):
        _hang_picture(rng, room)
    for _ in range(rng.integers(0, 4)):  # lamps and their glow
        center = (int(rng.integers(width)), int(rng.integers(height // 2)))
        glow = room.copy()
        cv2.circle(glow, center, int(rng.uniform(0.04, 0.14) * height), rng.uniform(180, 255, 3).tolist(), -1)
        room = cv2.addWeighted(room, 0.6, glow, 0.4, 0)
    edge = int(rng.uniform(0.72, 1.1) * height)
    room[edge:] = floor.astype(np.uint8)
    return cv2.GaussianBlur(room, (0, 0), rng.uniform(0.008, 0.016) * height)


def _hang_picture(rng: np.random.Generator, room: np.ndarray) -> None:
    """A window, shelf or painting: a frame with bands of colour in it."""
    height, width = room.shape[:2]
    w, h = (rng.uniform(0.12, 0.35, 2) * (width, 1.2 * height)).astype(int)
    x, y = int(rng.uniform(-0.1, 0.95) * width), int(rng.uniform(-0.1, 0.4) * height)
    cv2.rectangle(room, (x, y), (x + w, y + h), _muted(rng, 30, 230).tolist(), -1)
    rim = max(2, w // 18)
    bands = int(rng.integers(1, 5))
    tall = max(1, (h - 2 * rim) // bands)
    base = _muted(rng, 60, 220)
    for band in range(bands):
        color = np.clip(base + rng.normal(0, 22, 3), 0, 255).tolist()
        top = y + rim + band * tall
        cv2.rectangle(room, (x + rim, top), (x + w - rim, top + tall - max(1, rim // 2)), color, -1)


def _muted(rng: np.random.Generator, darkest: float, brightest: float) -> np.ndarray:
    """A colour, [r, g, b] float64, not far from grey, as in rooms that people live in."""
    return np.clip(rng.uniform(darkest, brightest) + rng.normal(0, 24, 3), 0, 255)
