"""Scenes of the synthetic set: who is in the frame when and where, with what audio, and the labels that follow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.formats.ava import BOX_COLUMNS, COLUMNS, LABEL_IDS, SPLITS
from core.synthetic.audio import (
    SAMPLE_RATE,
    Syllables,
    Voice,
    contours,
    draw_voice,
    mixed,
    mouth,
    speaking_spans,
    utter,
    voiced_audio,
)
from core.synthetic.faces import FACE_BOTTOM, FACE_TOP, Look, draw_look
from core.synthetic.turns import OFF_SCREEN, heard_turns, mimed_turns

HEADS_PER_SHOT = (0.34, 0.4, 0.17, 0.09)  # probability of 1, 2, 3, 4 heads
SHOT_S = (3.0, 7.0)
PEOPLE_PER_VIDEO = 6
ID_LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"))


@dataclass(frozen=True)
class Track:
    """One head in one shot, with the truth about it; every array has one row a frame of the shot.

    Attributes:
        look: what the head looks like.
        height_px: from the top of the head to the chin, at scale 1.
        pose: (frame, [x, y, angle, scale]) float64: middle of the face in pixels, degrees, factor.
        opening: (frame,) of the mouth, 0 shut to 1.
        width: (frame,) of the mouth, -1 rounded to 1 spread.
        lid: (frame,) 0 open eyes to 1 shut.
        gaze: (frame,) -1 left to 1 right.
        boxes: (frame, [x1, y1, x2, y2]) as fractions of the frame.
        labels: (frame,) int8, see `core.formats.ava.LABEL_IDS`.
    """

    look: Look
    height_px: float
    pose: np.ndarray
    opening: np.ndarray
    width: np.ndarray
    lid: np.ndarray
    gaze: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Shot:
    """What one camera shows between two cuts: frames [first, first + frames) of the video."""

    first: int
    frames: int
    tracks: tuple[Track, ...]


@dataclass(frozen=True)
class Scene:
    """A whole video before it is drawn.

    Attributes:
        video_id: eleven characters as in AVA; every fourth video of a split has one that begins with `-`.
        seed: (seed, split, index), from which the drawing derives what is not kept here.
        size: width and height in pixels.
        fps: frames per second; frame n is shown at n / fps.
        shots: in order, without gaps.
        audio: (samples,) int16, 16 kHz mono.
    """

    video_id: str
    seed: tuple[int, int, int]
    size: tuple[int, int]
    fps: float
    shots: tuple[Shot, ...]
    audio: np.ndarray


def compose_scene(seed: int, split: str, index: int, seconds: float, fps: float, size: tuple[int, int]) -> Scene:
    """Make up one video; equal arguments give equal scenes, whatever else is made.

    Args:
        seed: of the set.
        split: "train" or "val".
        index: number of the video in its split.
        seconds: length; rounded to whole frames.
        fps: frames per second.
        size: width and height in pixels.
    """
    key = (seed, SPLITS.index(split), index)
    rng = np.random.default_rng(key)
    letters = rng.choice(ID_LETTERS, 11)
    letters[0] = "-" if index % 4 == 3 else rng.choice(ID_LETTERS[:-2])
    people = [(draw_look(rng), draw_voice(rng)) for _ in range(PEOPLE_PER_VIDEO)]
    shots, audios, first = [], [], 0
    for frames in _shot_lengths(rng, round(seconds * fps), fps):
        tracks, audio = _compose_shot(rng, people, frames, fps, size)
        shots.append(Shot(first, frames, tracks))
        audios.append(audio)
        first += frames
    return Scene("".join(letters), key, size, fps, tuple(shots), mixed(rng, np.concatenate(audios)))


def annotation_rows(scene: Scene) -> pd.DataFrame:
    """The annotations of a scene: rows with `core.formats.ava.COLUMNS`, all text, sorted by entity, then time."""
    names = {number: name for name, number in LABEL_IDS.items()}
    parts = []
    for shot in scene.shots:
        last_s = (shot.first + shot.frames - 1) / scene.fps
        span = f"{int(shot.first / scene.fps):04d}_{int(np.ceil(last_s)):04d}"
        times = [f"{(shot.first + n) / scene.fps:.2f}" for n in range(shot.frames)]
        for track in shot.tracks:
            boxes = {
                name: [f"{value:.6f}" for value in column]
                for name, column in zip(BOX_COLUMNS, track.boxes.T, strict=True)
            }
            entity = f"{scene.video_id}_{span}:{len(parts) + 1}"
            labels = [names[label] for label in track.labels.tolist()]
            columns = {"video_id": scene.video_id, "frame_timestamp": times, **boxes}
            parts.append(pd.DataFrame({**columns, "label": labels, "entity_id": entity}))
    parts.sort(key=lambda part: part["entity_id"].iloc[0])
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _shot_lengths(rng: np.random.Generator, frames: int, fps: float) -> list[int]:
    """Frames of each shot; what is left at the end is never shorter than half the shortest shot."""
    lengths = []
    while frames > 0:
        length = round(rng.uniform(*SHOT_S) * fps)
        if frames - length < SHOT_S[0] / 2 * fps:
            length = frames
        lengths.append(length)
        frames -= length
    return lengths


def _compose_shot(
    rng: np.random.Generator, people: Sequence[tuple[Look, Voice]], frames: int, fps: float, size: tuple[int, int]
) -> tuple[tuple[Track, ...], np.ndarray]:
    seconds = frames / fps
    samples = round(seconds * SAMPLE_RATE)
    heads = 1 + int(rng.choice(4, p=HEADS_PER_SHOT))
    cast = [people[number] for number in rng.permutation(len(people))[: heads + 1]]  # the last one is off screen
    turns = heard_turns(rng, seconds, heads)
    audio = np.zeros(samples)
    tracks = []
    seats = _places(rng, heads, size)
    for head, (look, voice) in enumerate(cast):
        own = [turn[:2] for turn in turns if turn[2] == (head if head < heads else OFF_SCREEN)]
        heard = Syllables.joined([utter(rng, voice, *turn) for turn in own])
        if len(heard.start_s):
            audio += voiced_audio(rng, voice, contours(heard, seconds), samples)
        if head < heads:
            unheard = mimed_turns(rng, seconds, [turn[:2] for turn in turns], own)
            mimed = Syllables.joined([utter(rng, voice, *turn) for turn in unheard])
            tracks.append(_track(rng, look, heard, mimed, seats[head], frames, fps, size))
    return tuple(tracks), audio


def _places(rng: np.random.Generator, heads: int, size: tuple[int, int]) -> list[tuple[float, float, float]]:
    """Where the heads are: (x, y, height) in pixels, side by side without overlap."""
    width, height = size
    slot = width / heads
    usual = min(rng.uniform(0.2, 0.52) * height, 0.9 * slot)
    chin = rng.uniform(0.55, 0.85) * height
    seats = []
    for number in range(heads):
        tall = min(usual * rng.uniform(0.8, 1.2), 0.95 * slot, 0.56 * height)
        room = max(0.0, slot / 2 - 0.5 * tall)
        x = (number + 0.5) * slot + rng.uniform(-room, room)
        y = np.clip(chin + rng.uniform(-0.2, 0.2) * tall - 0.5 * tall, 0.78 * tall, height - 0.62 * tall)
        seats.append((x, float(y), tall))
    return seats


def _track(
    rng: np.random.Generator,
    look: Look,
    heard: Syllables,
    mimed: Syllables,
    seat: tuple[float, float, float],
    frames: int,
    fps: float,
    size: tuple[int, int],
) -> Track:
    x, y, tall = seat
    times = np.arange(frames) / fps
    opening, width = mouth(contours(Syllables.joined([heard, mimed]), frames / fps), frames, fps)
    opening = np.clip(np.maximum(rng.uniform(0.7, 1.0) * opening, _resting_mouth(rng, times)), 0, 1)
    width = np.clip(width + 0.15 * _drift(rng, times, 0.5) * (1 - opening), -1, 1)
    pose = np.stack(
        [
            x + 0.03 * tall * _drift(rng, times, 0.5),
            y + 0.02 * tall * _drift(rng, times, 0.7),
            3.0 * _drift(rng, times, 0.6),
            1 + 0.015 * _drift(rng, times, 0.3),
        ],
        axis=1,
    )
    half = (look.half_width + 0.03) * pose[:, 3]
    relative = np.stack([-half, FACE_TOP * pose[:, 3], half, FACE_BOTTOM * pose[:, 3]], axis=1)
    relative += np.stack([0.01 * _drift(rng, times, 0.8) for _ in range(4)], axis=1)  # as a face tracker wavers
    boxes = (np.tile(pose[:, :2], 2) + tall * relative) / np.tile(size, 2)
    labels = np.full(frames, LABEL_IDS["NOT_SPEAKING"], np.int8)
    for syllables, name in ((mimed, "SPEAKING_NOT_AUDIBLE"), (heard, "SPEAKING_AUDIBLE")):
        for start_s, end_s in speaking_spans(syllables):
            labels[(times >= start_s) & (times < end_s)] = LABEL_IDS[name]
    return Track(
        look=look,
        height_px=tall,
        pose=pose,
        opening=opening,
        width=width,
        lid=_bumps(times, _random_times(rng, times, 0.35), 0.24),
        gaze=np.clip(1.2 * _drift(rng, times, 0.4), -1, 1).round(),
        boxes=np.clip(boxes, 0, 1),
        labels=labels,
    )


def _resting_mouth(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """What a mouth does without speech, (frame,) opening: it trembles a little, and opens once in a while."""
    gestures = _bumps(times, _random_times(rng, times, 0.15), rng.uniform(0.3, 0.8)) * rng.uniform(0.15, 0.45)
    return np.maximum(0.05 * _drift(rng, times, 1.5), gestures)


def _drift(rng: np.random.Generator, times: np.ndarray, fastest_hz: float) -> np.ndarray:
    """A slow random curve of about unit size: three sines of up to `fastest_hz`."""
    rates, phases = rng.uniform(0.1, fastest_hz, 3), rng.uniform(0, 2 * np.pi, 3)
    return np.sin(2 * np.pi * rates * times[:, None] + phases).mean(1) * 1.6


def _random_times(rng: np.random.Generator, times: np.ndarray, per_s: float) -> np.ndarray:
    """Random times in seconds, `per_s` of them a second on average."""
    return rng.uniform(0, times[-1], rng.poisson(per_s * times[-1]))


def _bumps(times: np.ndarray, centres: np.ndarray, length_s: float) -> np.ndarray:
    """A curve that rises to 1 and falls back within `length_s` around each centre."""
    phase = np.clip((times - centres[:, None]) / length_s, -0.5, 0.5)
    return (np.cos(np.pi * phase) ** 2).max(0, initial=0.0)
