"""Who speaks, while people speak: faces and their scores a stated time after frames and audio have come."""

import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np

from core.boxes import clamped
from core.clip_utils import GRID_FPS
from core.detection.encoders import open_encoder
from core.detection.face_tracks import FollowedFace, ShotFollower, after_cut, why_left_out
from core.detection.faces import DETECT_EVERY_S, FaceDetector, FaceFinder, SeenFrame, find_detector
from core.detection.options import DEFAULT_DETECTOR, DEFAULT_ENCODER, MIN_FACE_PX, MIN_TRACK_S, SHIPPED, check_options
from core.detection.shots import ShotFinder, ShotFrame
from core.download.cache import all_of
from core.live.audio import BACK_S, LiveAudio, check_time
from core.live.lines import ScoredFace, ScoredFrame
from core.live.tracks import LiveFace, LiveShot, SeenFace, SeenRow, memory_of, scored_together
from core.media.video import Frame, yuv420_of
from core.people.embedding import FaceEmbedder, find_embedder
from core.runtime.checks import number
from core.runtime.errors import UserError

LEAST_DELAY_S = 0.2
HOLDING_DELAY_S = 0.6  # from this delay on frames wait until it is known whether they begin a shot: 0.08 s
BOX_WAIT_S = 0.72  # longer than it takes until a box is final
GAP_S = 1.0  # a camera that gives no frame for longer was away: all faces are new
AUDIO_AHEAD_S = 0.06  # audio that a frame needs: its own 1/25 s, and the last window of its MFCCs
SAME_PLACE = 1e-4  # in time steps: a clock that counts from 1970 is known to 1e-5 of them
REMEMBERED_S = 10.0  # of a face's detections, to judge whether it is sure enough


class LiveDetector:
    """Detects, follows and scores faces while frames and audio come.

    What was pushed in which order and in which blocks does not change results, as long as no stream is more than
    `apart_s` behind the other. Frames of one stream come in order of time, 25 a second or about as many; both streams
    are on one clock, from which that of the sound card may drift. Memory, and work for a second, do not grow.

    Args:
        encoder: "light_asd" or "lr_asd".
        weights, crop, precision, detector, detection_size, min_track_s, min_face_px, device, cache: as
            `core.detection.ActiveSpeakerDetector`. A face is reported when it is known to be there for `min_track_s`:
            with a delay of less than about three times that, not in its first frames.
        delay_s: seconds, at least 0.2: the faces of a frame are given when a frame so much later has come, with the
            audio beside it. The longer, the surer: half of it is left to the encoder.
        apart_s: seconds; a microphone so far behind the camera is lost: faces have no probability until it is back.
        audio: False for a camera without a microphone, which is not waited for.
        fps: about how many frames come in a second; for the shortest shot.
        context: "shipped", "none" or the path of a residual context network's state dict.
        people: what is remembered of a voice goes from a face that is gone to one of the same person, also over cuts:
            True by SFace's weights, downloaded once; None by these if they are in the cache, else from one that looks
            nearly alike (`core.people.embedding.Likeness`); or by any `FaceEmbedder`. False: each face has its own
            voice, and a cut ends it.

    Attributes:
        left_out: how many frames came after later ones, and were left out.

    Raises:
        UserError: as `ActiveSpeakerDetector`, or the encoder or the context network cannot be used live.
    """

    def __init__(
        self,
        encoder: str = DEFAULT_ENCODER,
        weights: str | Path | None = None,
        *,
        delay_s: float = 1.0,
        apart_s: float = 1.0,
        audio: bool = True,
        fps: float = GRID_FPS,
        context: str | Path = SHIPPED,
        people: bool | FaceEmbedder | None = None,
        crop: str | None = None,
        precision: str = "auto",
        detector: str | Path | FaceDetector = DEFAULT_DETECTOR,
        detection_size: int | None = None,
        min_track_s: float = MIN_TRACK_S,
        min_face_px: float = MIN_FACE_PX,
        device: str = "cpu",
        cache: str | Path | None = None,
    ):
        self.detection_size, self.min_track_s, self.min_face_px = detection_size, min_track_s, min_face_px
        check_options(vars(self), {})
        for name, value, fault in (
            ("delay_s", delay_s, number(LEAST_DELAY_S, or_equal=True)(delay_s)),
            ("apart_s", apart_s, number(0)(apart_s)),
            ("fps", fps, number(0)(fps)),
        ):
            if fault:
                raise UserError(f"{name} {value}: {fault}")
        self.encoder, self.detector, (embedder, _) = all_of(
            lambda: open_encoder(
                *(encoder, weights),
                crop=crop,
                ensemble=False,
                precision=precision,
                context=context,
                context_shape=(11, 4, 3),
                device=str(device),
                cache=cache,
            ),
            lambda: find_detector(detector, cache, precision),
            lambda: find_embedder(people, cache),
        )
        if self.encoder.network is None:
            raise UserError(f"the encoder {encoder} does not score live: choose light_asd or lr_asd")
        if self.encoder.context is not None and self.encoder.context.reads != "cues":
            raise UserError(f"context {context}: only residual context networks score live; give another, or none")
        self.delay_s, self.apart_s, self.has_audio, self.fps = delay_s, apart_s, audio, fps
        self.every = scored_together(delay_s)
        self.box_wait_s = min(BOX_WAIT_S, delay_s / 4)
        self.grouper = embedder if self.encoder.has_voices else None
        self.audio = LiveAudio(2 * delay_s + apart_s + GAP_S + 1)
        self.left_out = self.ids = 0
        self.waiting: deque[Frame] = deque()  # for their audio
        self._begin()

    def push_frame(self, image: np.ndarray | av.VideoFrame, time_s: float) -> list[ScoredFrame]:
        """Take a frame.

        Args:
            image: (height, width, [r, g, b]) uint8, or a decoded frame.
            time_s: when it was seen, seconds on any clock that the audio is on, too. A clock that goes back by more
                than a second, a camera that was away for longer, or another size of frames begins anew: what was
                waiting is given first.

        Returns:
            The frames that are due by that, in order of time.

        Raises:
            UserError: the frame or its time is of another kind.
        """
        check_time(time_s)
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise UserError(f"a frame of {image.shape} {image.dtype}: expected (height, width, [r, g, b]) uint8")
            height, width = (side // 2 * 2 for side in image.shape[:2])
            image = yuv420_of(np.ascontiguousarray(image[:height, :width]))
        frame, scored = Frame(time_s, image), []
        if self.newest is not None:
            elapsed_s = time_s - self.newest.time_s
            if -BACK_S <= elapsed_s <= 0:  # it comes a little late
                self.left_out += 1
                return []
            if not 0 < elapsed_s <= GAP_S or _size(frame) != _size(self.newest):
                scored = self.finish()
        self.newest = frame
        self.waiting.append(frame)
        return scored + list(self._work())

    def push_audio(self, samples: np.ndarray, time_s: float) -> list[ScoredFrame]:
        """Take a block of audio.

        Args:
            samples: (n,) int16, 16 kHz, mono.
            time_s: when the first of them was heard, seconds on the clock of the frames.

        Returns:
            The frames that are due by that, in order of time.

        Raises:
            UserError: the samples or their time are of another kind.
        """
        self.audio.push(samples, time_s)
        self.lost = False
        return list(self._work())

    def finish(self) -> list[ScoredFrame]:
        """All frames that are not given yet, scored by what there is; what is pushed then begins anew."""
        scored = []
        while self.waiting:
            scored += self._take(self.waiting.popleft())
        for shot_frame in self.shots.finish():
            self._see(shot_frame)
        self._look_back()
        self._end_shot()
        scored += self._score(sys.maxsize)
        self._begin()
        return scored

    def _begin(self) -> None:
        self.newest: Frame | None = None  # that was pushed
        self.taken_s: float | None = None  # time of the last frame that was taken
        self.origin_s = 0.0  # of the first one
        self.lost = False  # the microphone
        holds = self.delay_s >= HOLDING_DELAY_S
        self.shots = ShotFinder(self.fps, holds=holds)
        self.last: deque[SeenFrame] = deque(maxlen=1 if holds else 3)  # from the frame before a cut that is marked now
        self.finder: FaceFinder | None = None
        self.detected_s = -np.inf  # time of the last frame in which faces were detected
        self.follower: ShotFollower | None = None
        self.ended: list[FollowedFace] = []
        self.faces: dict[LiveFace, SeenFace] = {}  # those that go on
        self.scoring: list[LiveShot] = []  # the last of them goes on
        self.seen: dict[float, SeenRow] = {}  # time -> frame whose boxes are not known
        self.known: deque[SeenRow] = deque()  # those whose boxes are known, not given yet
        self.voices = memory_of(self.encoder.context, self.grouper)
        self.scored = -1  # number of the last time step that is scored

    def _work(self) -> Iterator[ScoredFrame]:
        """Take the frames whose audio is there, or is not waited for any more."""
        while self.waiting:
            time_s = self.waiting[0].time_s
            if self.has_audio and not self.lost and self.audio.end_s < time_s + AUDIO_AHEAD_S:
                if self.newest.time_s - max(self.audio.end_s, time_s) <= self.apart_s:
                    return
                self.lost = True
            yield from self._take(self.waiting.popleft())

    def _take(self, frame: Frame) -> Iterator[ScoredFrame]:
        time_s = frame.time_s
        if self.taken_s is None:
            self.origin_s = self.taken_s = time_s
        self.frame_s = time_s - self.taken_s  # since the frame before
        self.taken_s = time_s
        heard = self.audio.start_s - 1 / GRID_FPS <= time_s < self.audio.end_s
        self.seen[time_s] = SeenRow(time_s, _size(frame), heard)
        for shot_frame in self.shots.add(frame):
            self._see(shot_frame)
        due = int(np.ceil(self._place(time_s - self.delay_s) - SAME_PLACE))
        if due > self.scored and due >= 0:
            yield from self._score(due + self.every - 1)

    def _see(self, shot_frame: ShotFrame) -> None:
        """Detect faces in a frame, follow them, and note what has become known of them."""
        frame, faces = shot_frame.frame, None
        if shot_frame.begins_shot or frame.time_s - self.detected_s >= DETECT_EVERY_S - self.frame_s / 2:
            if shot_frame.begins_shot:
                self._look_back()
            self.finder = self.finder or FaceFinder.of(self.detector, frame, self.min_face_px, self.detection_size)
            faces, self.detected_s = self.finder(frame), frame.time_s
        seen = SeenFrame(shot_frame.number, frame, shot_frame.begins_shot, faces)
        if seen.begins_shot and self.last:
            seen = after_cut(self.last[0], seen)
        if seen.begins_shot:
            self._end_shot()
            self.seen[frame.time_s].begins_shot = True
            if self.grouper is None or seen.faces.shape[1] == 5:  # without landmarks there are no portraits
                self.voices = memory_of(self.encoder.context, self.grouper)
            self.scoring.append(LiveShot(self.encoder.network, self.encoder.context, self.audio, self.voices))
            self.follower = ShotFollower(
                *(self.origin_s, self.encoder.crop, self._start, self._end),
                embedder=self.grouper,
                wait_s=self.box_wait_s,
            )
        self.follower.add(seen)
        self.last.append(seen)
        self._note(before_s=self.follower.waiting[0].frame.time_s if self.follower.waiting else np.inf)

    def _start(self, first_s: float) -> LiveFace:
        return self.scoring[-1].begin(round(self._place(first_s)), first_s)

    def _end(self, face: FollowedFace) -> bool:
        self.ended.append(face)
        return False  # it need not be kept: what is known of it is noted

    def _look_back(self) -> None:
        """Detect faces in the last frame, with which a shot may end, and in the one before the cut."""
        for place in {0, len(self.last) - 1} if self.last else ():
            seen = self.last[place]
            if seen.faces is None:
                seen = self.last[place] = replace(seen, faces=self.finder(seen.frame))
                if self.follower.waiting and seen.frame is self.follower.waiting[-1].frame:
                    self.follower.look(seen.frame.time_s, seen.faces)

    def _end_shot(self) -> None:
        if self.follower is not None:
            before_s = -np.inf
            if self.follower.waiting:
                before_s = np.nextafter(self.follower.waiting[-1].frame.time_s, np.inf)
            self.follower.finish()
            self._note(before_s)
            self.follower = None

    def _note(self, before_s: float) -> None:
        """Take what the follower found out of the frames before a time, so that it need not remember it."""
        for followed in (*self.ended, *self.follower.followed):
            face = self.faces.get(followed.scorer)
            if face is None:
                face = self.faces[followed.scorer] = SeenFace(
                    followed.scorer, followed.track, *followed.times_s[:1] * 2
                )
                followed.scorer.portraits = followed.portraits
            for time_s, box in zip(followed.times_s, followed.boxes, strict=True):
                self.seen[time_s].boxes.append((face, box))
                face.heights.append(box[3] - box[1])
                face.last_s = time_s
            for taken in (followed.frames, followed.times_s, followed.boxes):
                taken.clear()
            followed.track.forget(face.last_s - REMEMBERED_S)
        for followed in self.ended:
            followed.scorer.ended = True
            del self.faces[followed.scorer]
        self.ended.clear()
        held = [frame.time_s for frame in self.shots.waiting]
        before_s = min([before_s, *held[:1]])
        while self.seen and next(iter(self.seen)) < before_s:
            self.known.append(self.seen.pop(next(iter(self.seen))))

    def _score(self, last: int) -> Iterator[ScoredFrame]:
        """Score the time steps up to one, as far as boxes are known, and give the frames that are scored by that."""
        if not self.known:
            return
        if last < sys.maxsize:
            last = min(last, int(self._place(self.known[-1].time_s) + SAME_PLACE))
        self.scored = max(self.scored, last)
        for shot in self.scoring:
            shot.look(self.scored)
        for shot in self.scoring:
            shot.settle(self.scored)
        self.scoring = [*(shot for shot in self.scoring[:-1] if not shot.is_over), self.scoring[-1]]
        while self.known and self._place(self.known[0].time_s) <= self.scored + SAME_PLACE:
            row = self.known.popleft()
            yield self._given(row)
            for face, _ in row.boxes:
                face.live.forget_odds(self._place(row.time_s))

    def _given(self, row: SeenRow) -> ScoredFrame:
        faces = []
        for face, box in row.boxes:
            if face.id is None and self._is_kept(face):
                self.ids += 1
                face.id = self.ids
            if face.id is not None:
                odds = face.live.odds_at(self._place(row.time_s))
                edges = tuple(clamped(box[None], *row.size)[0].tolist())
                probability = 1 / (1 + float(np.exp(-odds))) if row.heard else None
                faces.append(ScoredFace(face.id, edges, probability, odds))
        return ScoredFrame(row.time_s, tuple(sorted(faces)), row.begins_shot)

    def _is_kept(self, face: SeenFace) -> bool:
        """As `ActiveSpeakerDetector` decides it in the end, by what is known by now."""
        seconds = face.last_s - face.first_s + 1 / self.fps
        limits = {"min_face_px": self.min_face_px, "min_track_s": self.min_track_s}
        return why_left_out(face.heights, seconds, face.track.confidence, **limits) is None

    def _place(self, time_s: float) -> float:
        """Of a time on the grid of time steps."""
        return (time_s - self.origin_s) * GRID_FPS


def _size(frame: Frame) -> tuple[int, int]:
    return frame.width, frame.height
