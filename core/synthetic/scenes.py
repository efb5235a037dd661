"""Scenes of the synthetic set: who is in the frame when and where, with what audio, and the labels that follow."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.formats.ava import BOX_COLUMNS, COLUMNS, LABEL_IDS, SPLITS
from core.synthetic.audio import (
    SAMPLE_RATE,
    Syllables,
    Voice,
    babble,
    behind,
    contours,
    draw_voice,
    mixed,
    mouth,
    music,
    noise,
    speaking_spans,
    utter,
    voiced_audio,
)
from core.synthetic.conditions import PLAIN, Conditions, drawn
from core.synthetic.faces import FACE_BOTTOM, FACE_TOP, Look, draw_look
from core.synthetic.motion import bumps, drift, gestures, random_times, resting_mouth
from core.synthetic.turns import OFF_SCREEN, added_turns, heard_turns, mimed_turns, monologue

PEOPLE_PER_VIDEO = 6  # at least; one more than there are heads
BACKGROUNDS = {"music": music, "noise": noise, "babble": babble}  # by their names in `Conditions`
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
        shown: (frame,) bool, False while the head is out of the frame.
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
    shown: np.ndarray
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


def compose_scene(
    seed: int,
    split: str,
    index: int,
    seconds: float,
    fps: float,
    size: tuple[int, int],
    conditions: Conditions = PLAIN,
) -> Scene:
    """Make up one video; equal arguments give equal scenes, whatever else is made.

    Args:
        seed: of the set.
        split: "train" or "val".
        index: number of the video in its split.
        seconds: length; rounded to whole frames.
        fps: frames per second.
        size: width and height in pixels.
        conditions: what is harder than plain turns, and how often.
    """
    key = (seed, SPLITS.index(split), index)
    rng = np.random.default_rng(key)
    letters = rng.choice(ID_LETTERS, 11)
    letters[0] = "-" if index % 4 == 3 else rng.choice(ID_LETTERS[:-2])
    # What is harder is drawn apart, so that plain scenes are the same whatever else can be drawn.
    extra = np.random.default_rng((*key, 2))
    if conditions.plain and extra.random() < conditions.plain:
        conditions = dataclasses.replace(PLAIN, lead_s=conditions.lead_s)
    people = max(PEOPLE_PER_VIDEO, 1 + len(conditions.heads))
    people = [(draw_look(rng), draw_voice(rng)) for _ in range(people)]
    shots, audios, first = [], [], 0
    for frames in _shot_lengths(rng, round(seconds * fps), fps, conditions.shot_s):
        tracks, audio = _compose_shot(rng, extra, people, frames, fps, size, conditions)
        shots.append(Shot(first, frames, tracks))
        audios.append(audio)
        first += frames
    audio = np.concatenate(audios)
    for name, make in BACKGROUNDS.items():
        if extra.random() < getattr(conditions, name):
            audio = behind(audio, make(extra, len(audio)), drawn(extra, conditions.snr_db))
    return Scene("".join(letters), key, size, fps, tuple(shots), mixed(rng, audio))


def annotation_rows(scene: Scene) -> pd.DataFrame:
    """The annotations of a scene: rows with `core.formats.ava.COLUMNS`, all text, sorted by entity, then time."""
    names = {number: name for name, number in LABEL_IDS.items()}
    parts = []
    for shot in scene.shots:
        last_s = (shot.first + shot.frames - 1) / scene.fps
        span = f"{int(shot.first / scene.fps):04d}_{int(np.ceil(last_s)):04d}"
        times = np.array([f"{(shot.first + n) / scene.fps:.2f}" for n in range(shot.frames)])
        for track in shot.tracks:
            for frames in _stretches(track.shown):  # who comes back is another entity
                boxes = {
                    name: [f"{value:.6f}" for value in column]
                    for name, column in zip(BOX_COLUMNS, track.boxes[frames].T, strict=True)
                }
                entity = f"{scene.video_id}_{span}:{len(parts) + 1}"
                labels = [names[label] for label in track.labels[frames].tolist()]
                columns = {"video_id": scene.video_id, "frame_timestamp": times[frames], **boxes}
                parts.append(pd.DataFrame({**columns, "label": labels, "entity_id": entity}))
    parts.sort(key=lambda part: part["entity_id"].iloc[0])
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def _shot_lengths(rng: np.random.Generator, frames: int, fps: float, shot_s: tuple[float, float]) -> list[int]:
    """Frames of each shot; what is left at the end is never shorter than half the shortest shot."""
    lengths = []
    while frames > 0:
        length = round(rng.uniform(*shot_s) * fps)
        if frames - length < shot_s[0] / 2 * fps:
            length = frames
        lengths.append(length)
        frames -= length
    return lengths


def _compose_shot(
    rng: np.random.Generator,
    extra: np.random.Generator,
    people: Sequence[tuple[Look, Voice]],
    frames: int,
    fps: float,
    size: tuple[int, int],
    conditions: Conditions,
) -> tuple[tuple[Track, ...], np.ndarray]:
    seconds = frames / fps
    samples = round(seconds * SAMPLE_RATE)
    shares = np.array(conditions.heads)
    heads = 1 + int(rng.choice(len(shares), p=shares / shares.sum()))
    cast = [people[number] for number in rng.permutation(len(people))[: heads + 1]]  # the last one is off screen
    on_screen = drawn(extra, conditions.heard_on_screen)
    if conditions.monologues and extra.random() < conditions.monologues:
        turns = monologue(extra, seconds, heads, on_screen)
    else:
        turns = heard_turns(rng, seconds, heads, on_screen)
    turns = sorted([*turns, *added_turns(extra, turns, heads, conditions)])
    late_s = drawn(extra, conditions.dubbed_s) * extra.choice([-1, 1]) if extra.random() < conditions.dubbed else 0.0
    lead_s = drawn(extra, conditions.lead_s)
    rate_fps = drawn(extra, conditions.rate_fps) if extra.random() < conditions.low_rate else fps
    audio = np.zeros(samples)
    tracks = []
    seats = _places(rng, heads, size)
    for head, (look, voice) in enumerate(cast):
        own = [turn[:2] for turn in turns if turn[2] == (head if head < heads else OFF_SCREEN)]
        heard = Syllables.joined([utter(rng, voice, *turn) for turn in own])
        if len(heard.start_s):
            level = 10 ** (drawn(extra, conditions.voice_db) / 20)
            audio += level * voiced_audio(rng, voice, contours(heard, seconds), samples)
        if head < heads:
            unheard = mimed_turns(rng, seconds, [turn[:2] for turn in turns], own, conditions)
            mimed = Syllables.joined([utter(rng, voice, *turn) for turn in unheard])
            seen = Syllables.joined([heard.later(late_s), mimed]).later(-lead_s)
            labels = _labels(heard, mimed, frames, fps)
            track = _track(rng, look, seen, labels, seats[head], frames, fps, size)
            tracks.append(_harder(extra, track, heads, fps, rate_fps, conditions))
    if extra.random() < conditions.crosstalk:
        audio += 10 ** (drawn(extra, conditions.crosstalk_db) / 20) * _talk(extra, seconds, samples)
    return tuple(tracks), audio


def _talk(rng: np.random.Generator, seconds: float, samples: int) -> np.ndarray:
    """Somebody who talks throughout, (samples,), scaled as `voiced_audio` gives it."""
    voice = draw_voice(rng)
    return voiced_audio(rng, voice, contours(utter(rng, voice, -rng.uniform(0, 2), seconds), seconds), samples)


def _harder(
    rng: np.random.Generator, track: Track, heads: int, fps: float, rate_fps: float, conditions: Conditions
) -> Track:
    """A track with gestures, absences, bad boxes and a low rate of frames, as often as the conditions say."""
    frames = len(track.labels)
    times = np.arange(frames) / fps
    changes = {}
    if conditions.gestures:
        opening, width = gestures(rng, times, conditions.gestures)
        free = (track.labels == LABEL_IDS["NOT_SPEAKING"]) & (opening > track.opening)
        changes["opening"], changes["width"] = (
            np.where(free, opening, track.opening),
            np.where(free, width, track.width),
        )
    if heads > 1 and rng.random() < conditions.leaving:
        gone_s = rng.uniform(0.5, max(0.6, 0.5 * frames / fps))
        left_s = rng.uniform(0, frames / fps - 0.5)
        shown = (times < left_s) | (times >= left_s + gone_s)
        changes["shown"] = shown if shown.any() else track.shown
    if rng.random() < conditions.bad_boxes:
        corner, side = track.boxes[:, :2], track.boxes[:, 2:] - track.boxes[:, :2]
        shake = np.stack([drift(rng, times, 3.0) for _ in range(2)], axis=1) * rng.uniform(0, 0.08)
        middle = corner + side * (0.5 + rng.uniform(-0.15, 0.15, 2) + shake)
        half = side * rng.uniform(0.4, 0.75)
        changes["boxes"] = np.clip(np.concatenate([middle - half, middle + half], axis=1), 0, 1)
    if rate_fps < fps:
        held = np.floor(np.floor(times * rate_fps + 1e-9) / rate_fps * fps + 1e-9).astype(int)
        for name in ("pose", "opening", "width", "lid", "gaze"):
            changes[name] = changes.get(name, getattr(track, name))[held]
    return dataclasses.replace(track, **changes)


def _stretches(shown: np.ndarray) -> list[slice]:
    """The frames between absences, (frame,) bool -> slices in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], shown, [False]]))).reshape(-1, 2)
    return [slice(begin, end) for begin, end in edges.tolist()]


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
    said: Syllables,
    labels: np.ndarray,
    seat: tuple[float, float, float],
    frames: int,
    fps: float,
    size: tuple[int, int],
) -> Track:
    x, y, tall = seat
    times = np.arange(frames) / fps
    opening, width = mouth(contours(said, frames / fps), frames, fps)
    opening = np.clip(np.maximum(rng.uniform(0.7, 1.0) * opening, resting_mouth(rng, times)), 0, 1)
    width = np.clip(width + 0.15 * drift(rng, times, 0.5) * (1 - opening), -1, 1)
    pose = np.stack(
        [
            x + 0.03 * tall * drift(rng, times, 0.5),
            y + 0.02 * tall * drift(rng, times, 0.7),
            3.0 * drift(rng, times, 0.6),
            1 + 0.015 * drift(rng, times, 0.3),
        ],
        axis=1,
    )
    half = (look.half_width + 0.03) * pose[:, 3]
    relative = np.stack([-half, FACE_TOP * pose[:, 3], half, FACE_BOTTOM * pose[:, 3]], axis=1)
    relative += np.stack([0.01 * drift(rng, times, 0.8) for _ in range(4)], axis=1)  # as a face tracker wavers
    boxes = (np.tile(pose[:, :2], 2) + tall * relative) / np.tile(size, 2)
    return Track(
        look=look,
        height_px=tall,
        pose=pose,
        opening=opening,
        width=width,
        lid=bumps(times, random_times(rng, times, 0.35), 0.24),
        gaze=np.clip(1.2 * drift(rng, times, 0.4), -1, 1).round(),
        shown=np.ones(frames, bool),
        boxes=np.clip(boxes, 0, 1),
        labels=labels,
    )


def _labels(heard: Syllables, mimed: Syllables, frames: int, fps: float) -> np.ndarray:
    """What a head does at each frame, (frame,) int8; heard speech counts where both would."""
    times = np.arange(frames) / fps
    labels = np.full(frames, LABEL_IDS["NOT_SPEAKING"], np.int8)
    for syllables, name in ((mimed, "SPEAKING_NOT_AUDIBLE"), (heard, "SPEAKING_AUDIBLE")):
        for start_s, end_s in speaking_spans(syllables):
            labels[(times >= start_s) & (times < end_s)] = LABEL_IDS[name]
    return labels
