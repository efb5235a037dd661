"""Faces of a shot scored while they are seen, with a bounded view to either side."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from core.clip_utils import COEFFICIENTS, GRID_FPS, MFCC_PER_FRAME
from core.detection.encoders import Context
from core.detection.tracking import FaceTrack
from core.inference.track_embedding import GrowingEmbeddings, TrackEmbedder
from core.inference.voices import VoiceMemory, in_step
from core.inputs.mfcc import track_heard, track_mfcc, track_samples
from core.inputs.shots import TrackFeatures, told
from core.people.embedding import FaceEmbedder

PAST = 3 * GRID_FPS  # frames before those that are scored of which the encoder's last layers see the embeddings
CONTEXT_PAST = 10 * GRID_FPS  # frames of which the context network sees the scores
ANEW = GRID_FPS  # of these, frames of which it sees them anew, by what has come since they were due
MOST = 10  # time steps, of 1/25 s, that are scored together at most
REMEMBERED = 250  # of its boxes, to judge whether it is large enough
SHARE = 0.4  # of the delay in which they come


def scored_together(delay_s: float) -> int:
    """How many time steps are scored together: the visual encoder sees some frames before and after them besides, which
    are less work the more they are."""
    return min(MOST, max(1, int(SHARE * delay_s * GRID_FPS + 1e-6)))


class Audio(Protocol):
    """Where a track's audio is taken from: `VideoAudio` or `LiveAudio`."""

    def part(self, start_s: float, length: int) -> np.ndarray:
        """(length,) int16 at 16 kHz from a time on; silence where there is nothing."""
        ...


def memory_of(context: Context | None, grouper: FaceEmbedder | None) -> VoiceMemory:
    """An empty memory of the voices of faces that a context network scores; without one they add nothing.

    Args:
        context: the network.
        grouper: makes the embeddings by which faces share a voice; None where each has its own.
    """
    return VoiceMemory(None if context is None else context.with_voices, grouper.max_distance if grouper else 0.0)


class LiveTrack:
    """One face while it is seen, scored as a track that ends with its last crop so far.

    Args:
        encoder: of whole tracks.
        audio: which has to be there for the crops when they are scored.
        first_s: time of the first crop, seconds; the others follow at 25 a second.
        gives_cues: whether what a residual context network reads is wanted.
    """

    def __init__(self, encoder: TrackEmbedder, audio: Audio, first_s: float, *, gives_cues: bool):
        self.encoder, self.audio, self.first_s, self.gives_cues = encoder, audio, first_s, gives_cues
        self.visual = GrowingEmbeddings(encoder.visual, encoder.visual_context)
        self.heard = GrowingEmbeddings(encoder.audio, encoder.audio_context, MFCC_PER_FRAME)
        self.sounds = np.zeros((0, COEFFICIENTS), np.float32)
        self.crops: list[np.ndarray] = []  # not embedded yet
        self.embedded = 0

    @property
    def count(self) -> int:
        """How many crops have come."""
        return self.embedded + len(self.crops)

    def push(self, crop: np.ndarray) -> None:
        """Take the next crop, (112, 112) uint8, grey."""
        self.crops.append(crop)

    def score(self, start: int, *, ended: bool) -> tuple[np.ndarray, np.ndarray | None]:
        """Logits (time, [not speaking, speaking]) of the crops from one on, and what `told` gives, or None: of
        these and up to `ANEW` before.

        What came more than `PAST` frames before that one is forgotten. There must be a crop from there on.

        Args:
            start: number of the crop.
            ended: no crop will follow.
        """
        begin = max(self.visual.begin, start - PAST)
        mfcc = self._mfcc()
        self.visual.push(np.stack(self.crops)) if self.crops else None
        self.heard.push(mfcc)
        self.sounds = np.concatenate((self.sounds, track_heard(mfcc)))[begin - self.visual.begin :]
        self.embedded, self.crops = self.count, []
        visual, audio = self.visual.since(begin), self.heard.since(begin)
        logits, _ = (output[0] for output in self.encoder.score(audio[None], visual[None]))
        new = logits[start - begin :]
        if not self.gives_cues:
            return new, None
        video_logits = self.encoder.video_logits(visual)
        fits = in_step(self.encoder.rescore, audio, visual, video_logits, self.sounds[:, 0], goes_on=not ended)
        return new, told(logits, video_logits, fits, self.sounds)[max(0, start - begin - ANEW) :]

    def _mfcc(self) -> np.ndarray:
        """(4 * time, 13) float32 of the crops that are not embedded yet."""
        if not self.crops:
            return np.zeros((0, COEFFICIENTS), np.float32)
        before = min(1, self.embedded)  # a frame more: its last sample is needed
        frames = before + len(self.crops)
        samples = self.audio.part(self.first_s + (self.embedded - before) / GRID_FPS, track_samples(frames))
        return track_mfcc(samples, np.arange(frames))[MFCC_PER_FRAME * before :]


@dataclass(eq=False)
class LiveFace:
    """A face of a shot.

    Attributes:
        first: number of its first crop, on the grid of 25 a second that all faces of the shot share.
        track: scores it; None when it has ended and is scored to its end.
        ended: no crop will follow.
        odds: log odds of speaking of the crops that were due, (time,) float32, from crop `odds_first` on.
        known: what `told` gives of crops that were due, the last of them, (time, `CUES` + 13) float32.
        rest: where the face has ended, what `LiveTrack.score` gives of the crops that are not due.
        portraits: the best frames by now, or None; anything whose `embedding` gives what `Portraits.embedding` does.
    """

    first: int
    track: LiveTrack | None
    ended: bool = False
    odds: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    odds_first: int = 0
    known: np.ndarray | None = None
    rest: tuple[np.ndarray, np.ndarray | None] | None = None
    portraits: Any = None

    @property
    def due(self) -> int:
        """How many crops were due."""
        return self.odds_first + len(self.odds)

    @property
    def count(self) -> int:
        """How many crops there are."""
        return self.due + len(self.rest[0]) if self.track is None else self.track.count

    def push(self, crop: np.ndarray) -> None:
        """Take the next crop, as `LiveTrack` does."""
        self.track.push(crop)

    def odds_at(self, place: float) -> float:
        """The log odds at a place on the grid, between those of the crops that were due; at its ends as there."""
        return float(np.interp(place - self.first - self.odds_first, np.arange(len(self.odds)), self.odds))

    def forget_odds(self, place: float) -> None:
        """Forget the log odds that places from this one on do not need."""
        needless = min(len(self.odds) - 1, int(place) - self.first - self.odds_first - 1)
        if needless > 0:
            self.odds, self.odds_first = self.odds[needless:], self.odds_first + needless

    def score(self) -> tuple[np.ndarray, np.ndarray | None]:
        """As `LiveTrack.score`, of the crops that were not due, by all that have come."""
        if self.track is None:
            return self.rest
        scored = self.track.score(self.due, ended=self.ended)
        if self.ended:
            self.track, self.rest = None, scored
        return scored

    def told(self, logits: np.ndarray, told: np.ndarray) -> np.ndarray:
        """What is known of the crops that were due, and of those that `score` gave this of, (time, `CUES` + 13)."""
        if self.known is None:
            return told
        return np.concatenate((self.known[: len(self.known) - len(told) + len(logits)], told))


class LiveShot:
    """The faces of a shot, scored as the crops come.

    Args:
        encoder: of whole tracks.
        context: a residual context network, or None.
        audio: which the faces are heard in.
        voices: what is remembered of the faces of this shot and, if it is to count, of others.
    """

    def __init__(self, encoder: TrackEmbedder, context: Context | None, audio: Audio, voices: VoiceMemory):
        self.encoder, self.context, self.audio, self.voices = encoder, context, audio, voices
        self.faces: list[LiveFace] = []
        self.scored: list[tuple[np.ndarray, np.ndarray | None] | None] = []  # of the crops that are not due

    def begin(self, first: int, first_s: float) -> LiveFace:
        """A face whose first crop has this number on the grid, and time in seconds."""
        gives_cues = self.context is not None
        face = LiveFace(first, LiveTrack(self.encoder, self.audio, first_s, gives_cues=gives_cues))
        self.faces.append(face)
        return face

    @property
    def is_over(self) -> bool:
        """Whether all its faces have ended and are scored."""
        return all(face.ended and face.due == face.count for face in self.faces)

    def advance(self, due: int) -> None:
        """Score the crops of all faces up to a number on the grid, that one included, for good."""
        self.look(due)
        self.settle(due)

    def look(self, due: int) -> None:
        """The first half of `advance`: what the networks say. Where several shots advance all of them do this first, as
        what voices tell depends on it."""
        self.faces = [face for face in self.faces if not _is_over(face, due)]
        self.scored = []
        if any(face.due < end for face, end in zip(self.faces, self._until(due), strict=True)):
            # Of a face that has no more crops the context network sees the cues that are known.
            self.scored = [face.score() if face.count > face.due else None for face in self.faces]
            if self.context is not None:
                self._with_context()

    def settle(self, due: int) -> None:
        """The second half, with the same number."""
        if not self.scored:
            return
        voiced = {}
        if self.context is not None:
            since = min(face.first + face.due for face, one in zip(self.faces, self.scored, strict=True) if one)
            voiced = self.voices.scores(since)
        for face, end, one in zip(self.faces, self._until(due), self.scored, strict=True):
            new = end - face.due
            if not new:
                continue
            logits, cues = one
            if cues is not None:
                known = face.told(logits, cues)
                face.known = known[: len(known) - len(logits) + new][-CONTEXT_PAST:]
                logits = voiced[face][-len(logits) :]
            face.odds = np.concatenate((face.odds, logits[:new, 1] - logits[:new, 0]))
            if face.rest is not None:
                face.rest = tuple(None if part is None else part[new:] for part in face.rest)
        self.scored = []

    def _until(self, due: int) -> list[int]:
        """How many crops of each face are due then."""
        return [min(max(face.due, due + 1 - face.first), face.count) for face in self.faces]

    def _with_context(self) -> None:
        """Tell the memory of the faces, each seen with what is known of before and of the other faces."""
        seen = {}
        for face, one in zip(self.faces, self.scored, strict=True):
            own = face.known if one is None else face.told(*one)
            if own is not None:
                end = face.first + face.due + (0 if one is None else len(one[0]))
                seen[face] = TrackFeatures(end - len(own), own)
        for face, logits in zip(seen, self.context.score(list(seen.values())), strict=True):
            embedding = None if face.portraits is None else face.portraits.embedding()
            self.voices.note(face, face.first, seen[face], logits, embedding)


def _is_over(face: LiveFace, due: int) -> bool:
    """Whether a face has ended, is scored, and so long ago that the context network does not see it."""
    return face.ended and face.due == face.count and due - face.first - face.count > CONTEXT_PAST


@dataclass(eq=False)
class SeenFace:
    """A face that is seen, and what decides whether it is reported.

    Attributes:
        live: its scores.
        track: its detections, the last of them.
        first_s, last_s: times of its first and its last frame.
        heights: of its last boxes, pixels.
        id: None before it was large, long and sure enough.
    """

    live: LiveFace
    track: FaceTrack
    first_s: float
    last_s: float
    heights: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    id: int | None = None


@dataclass
class SeenRow:
    """A frame to come: its time, width and height, whether it was heard, begins a shot, and the boxes of its faces."""

    time_s: float
    size: tuple[int, int]
    heard: bool
    begins_shot: bool = False
    boxes: list[tuple[SeenFace, np.ndarray]] = field(default_factory=list)
