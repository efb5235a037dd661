"""What was seen, heard and found out, kept: a video, and all that detect.py writes of one."""

import contextlib
import itertools
import queue
import threading
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np

from core.clip_utils import SAMPLE_RATE
from core.detection.face_tracks import settings_of
from core.detection.results import DetectedVideo, Shot, Track
from core.live.detector import GAP_S, LiveDetector
from core.live.inbox import Seen
from core.live.lines import ScoredFace, ScoredFrame
from core.media.container import MediaFile
from core.media.cropping import thumbnail
from core.media.video import Frame
from core.media.video_writer import CLOCK, write_timed_video
from core.outputs.files import output_paths, record_of, write_outputs
from core.runtime.errors import UserError
from core.runtime.files import atomic_write, make_folder, printable
from core.runtime.provenance import Files

VIDEO = "recording.mp4"
FORMATS = ("csv", "json", "rttm", "vtt", "report")
MOST_NOTES = 100  # on times when the camera was away
FRAMES_BEHIND = 8  # that wait for the encoder; then what gives them waits
BETTER_BY = 1.2  # a thumbnail is replaced where the face is so much higher

Item = tuple[float, av.VideoFrame, np.ndarray]  # time in the recording, frame, audio from it to the next


class Recording:
    """A recording that grows. Only times, boxes and scores are kept in memory: about 30 bytes for a face and frame.

    Times count from the first frame. Where the camera was away for more than `GAP_S`, or its clock was set, the
    recording goes on at once.

    Args:
        folder: for the video and the outputs; absent or empty.
        live: gives what is recorded.

    Raises:
        UserError: there is something in the folder, or it cannot be used.
    """

    def __init__(self, folder: Path, live: LiveDetector):
        try:
            taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        except OSError as error:  # a name that is too long, or a folder that may not be read
            raise UserError(f"--record {folder}: {error.strerror}; give another folder") from error
        if taken:
            raise UserError(f"--record {folder}: there is something already; give a folder that is absent or empty")
        self.folder, self.live, self.video = make_folder(folder), live, folder / VIDEO
        self.times_s = array("d")
        self.shots: list[int] = []  # first frame of each
        self.faces: dict[int, _Face] = {}
        self.notes: deque[str] = deque(maxlen=MOST_NOTES)
        self.heard = self.samples = 0  # frames with audio; samples that are written
        self.size = 0, 0  # width and height of the first frame, even; of all frames in the video
        self._last: tuple[float, av.VideoFrame] | None = None  # frame that was seen last, and when
        self._writer: _Writer | None = None

    def add(self, scored: ScoredFrame, seen: Seen) -> None:
        """Record a frame.

        Raises:
            UserError: the disk is full, or the folder cannot be written to.
        """
        frame = Frame(seen.time_s, seen.image)
        if self._writer is None:
            self.size = frame.width // 2 * 2, frame.height // 2 * 2
            self._writer = _Writer(self.video, self.live.fps, with_audio=self.live.has_audio)
        time_s = self._time_of(scored.time_s) if self.times_s else 0.0
        self._write_last(time_s)
        number = len(self.times_s)
        self.times_s.append(time_s)
        if scored.begins_shot or not number:
            self.shots.append(number)
        for face in scored.faces:
            if face.id not in self.faces:
                self.faces[face.id] = _Face(number, len(self.shots) - 1)
            self.faces[face.id].add(number, face, frame, np.tile(np.divide(self.size, (frame.width, frame.height)), 2))
        self.heard += self.live.audio.start_s <= scored.time_s < self.live.audio.end_s
        fitting = frame if (frame.width, frame.height) == self.size else frame.scaled_to(*self.size)
        self._last = scored.time_s, fitting.yuv420()

    def finish(self, notes: Sequence[str], *, complete: bool) -> list[Path]:
        """Write the video to its end, and the outputs.

        Args:
            notes: sentences on what the user should know.
            complete: nothing is missing that there was.

        Returns:
            The files; none where no frame was recorded.

        Raises:
            UserError: as `add`.
        """
        if self._writer is None:
            return []
        self._write_last(self._rounded(self.times_s[-1] + 1 / self.live.fps))
        self._writer.finish()
        found = self._found([*notes, *self.notes, *self._of_microphone()], complete)
        paths = list(output_paths(self.folder, self.video, FORMATS).values())
        made_of = {"video": Files.one(self.video), "settings": found.settings, "names": []}
        record = record_of(self.folder, made_of)
        with record.making([path.name for path in paths]):
            write_outputs(self.folder, found, FORMATS)
            record.notes.update(fault=None, impossible={}, video=printable(str(self.video.absolute())), persons=None)
        return [self.video, *paths]

    def abandon(self) -> None:
        """End at once: of the video nothing is left, unless it was whole."""
        if self._writer is not None:
            self._writer.abandon()

    def _time_of(self, seen_s: float) -> float:
        """When a frame is shown in the recording."""
        passed_s = seen_s - self._last[0]
        if not 0 < passed_s <= GAP_S:
            self.notes.append(f"At {self.times_s[-1]:.2f} s the camera was away, or its clock was set.")
            passed_s = 1 / self.live.fps
        return max(self._rounded(self.times_s[-1] + passed_s), self.times_s[-1] + 1 / CLOCK)

    def _rounded(self, time_s: float) -> float:
        """A time that the file can hold."""
        return round(time_s * CLOCK) / CLOCK

    def _write_last(self, end_s: float) -> None:
        """Write the frame that was seen last, with the audio until another is shown."""
        if self._last is None:
            return
        seen_s, frame = self._last
        end = round(end_s * SAMPLE_RATE)
        audio = self.live.audio.part(seen_s, end - self.samples) if self.live.has_audio else np.zeros(0, np.int16)
        self.samples = end
        self._writer.put((self.times_s[-1], frame, audio))

    def _of_microphone(self) -> Iterator[str]:
        silent = len(self.times_s) - self.heard
        if not self.heard:
            yield "Nobody was heard: there was no microphone. Faces were tracked, but have no scores."
        elif silent:
            yield f"There was no microphone for {silent / self.live.fps:.1f} s: there silence is assumed."

    def _found(self, notes: list[str], complete: bool) -> DetectedVideo:
        with MediaFile(self.video, as_played=True) as media:
            info = media.info
        times_s = np.array(self.times_s)
        ends_s = np.append(times_s[1:], times_s[-1] + 1 / info.fps)
        lasts = [*(first - 1 for first in self.shots[1:]), len(times_s) - 1]
        tracks = [
            face.as_track(number, times_s, heard=self.heard > 0)
            for number, (_, face) in enumerate(sorted(self.faces.items()), start=1)
        ]
        return DetectedVideo(
            path=self.video,
            info=info,
            frame_times_s=times_s,
            audio_s=(0.0, self.samples / SAMPLE_RATE) if self.heard else None,
            shots=[
                Shot(first, last, float(times_s[first]), float(ends_s[last]))
                for first, last in zip(self.shots, lasts, strict=True)
            ],
            tracks=tracks,
            notes=list(map(printable, notes)),
            complete=complete,
            settings={
                **settings_of(self.live),
                "voices_by_sha256": getattr(self.live.grouper, "weights_sha256", None),
                "delay_s": self.live.delay_s,
            },
        )


@dataclass
class _Face:
    """A face so far.

    Attributes:
        first: number of its first frame.
        shot: number of its shot.
        frames, edges, scores: of each of its frames: number; x1, y1, x2, y2; log odds.
        height: of its box in the thumbnail.
    """

    first: int
    shot: int
    frames: array = field(default_factory=lambda: array("q"))
    edges: array = field(default_factory=lambda: array("f"))
    scores: array = field(default_factory=lambda: array("f"))
    height: float = 0.0
    thumbnail: bytes = b""

    def add(self, number: int, face: ScoredFace, frame: Frame, scale: np.ndarray) -> None:
        box = np.array(face.box)
        if box[3] - box[1] > BETTER_BY * self.height:
            self.height, self.thumbnail = float(box[3] - box[1]), thumbnail(frame, box)
        self.frames.append(number)
        self.edges.extend(box * scale)
        self.scores.append(face.score)

    def as_track(self, number: int, times_s: np.ndarray, *, heard: bool) -> Track:
        """With the frames in which it was not known at once that it had not gone."""
        frames = np.arange(self.first, self.frames[-1] + 1)
        edges = np.array(self.edges).reshape(-1, 4)
        boxes = np.stack([np.interp(frames, self.frames, edge) for edge in edges.T], axis=1).astype(np.float32)
        scores = np.interp(frames, self.frames, self.scores) if heard else np.full(len(frames), np.nan)
        return Track(
            id=number,
            shot=self.shot,
            frames=frames,
            times_s=times_s[frames],
            boxes=boxes,
            scores=scores.astype(np.float32),
            thumbnail=self.thumbnail,
        )


class _Writer:
    """Encodes in a thread what comes."""

    def __init__(self, path: Path, fps: float, *, with_audio: bool):
        self.path, self.fps, self.with_audio = path, fps, with_audio
        self.items: queue.Queue[Item | None] = queue.Queue(FRAMES_BEHIND)
        self.fault: BaseException | None = None
        self.abandoned = False
        self.thread = threading.Thread(target=self._write, name="recording", daemon=True)
        self.thread.start()

    def put(self, item: Item | None) -> None:
        while self.fault is None:
            try:
                self.items.put(item, timeout=1.0)
                return
            except queue.Full:
                continue
        raise self.fault

    def finish(self) -> None:
        self.put(None)
        self.thread.join()
        if self.fault is not None:
            raise self.fault

    def abandon(self) -> None:
        """Leave nothing half written: end the file before its end."""
        self.abandoned = True
        while self.thread.is_alive():
            with contextlib.suppress(queue.Full):
                self.items.put_nowait(None)
            self.thread.join(0.1)

    def _write(self) -> None:
        items, audio = self._given(), ()
        if self.with_audio:  # else what is given would be kept for what is never taken
            items, heard = itertools.tee(items)
            audio = (samples for _, _, samples in heard)
        frames = ((time_s, frame) for time_s, frame, _ in items)
        try:
            with atomic_write(self.path) as temporary:
                write_timed_video(temporary, frames, self.fps, audio, quick=True, index_first=True)
        except BaseException as error:  # raised where the next frame is put
            self.fault = error

    def _given(self) -> Iterator[Item]:
        while (item := self.items.get()) is not None and not self.abandoned:
            yield item
        if self.abandoned:
            raise InterruptedError
