"""Who speaks in any video: shots, faces, tracks and their scores, in one pass over the frames."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from core.boxes import clamped
from core.clip_utils import GRID_FPS
from core.detection.encoders import ContextShape, open_encoder
from core.detection.face_tracks import FollowedFace, ShotFollower, across_cuts, scores_at, settings_of, why_left_out
from core.detection.faces import FaceDetector, FaceFinder, SeenFrame, detect_faces, find_detector, schedule
from core.detection.options import DEFAULT_DETECTOR, DEFAULT_ENCODER, MIN_FACE_PX, MIN_TRACK_S, SHIPPED, check_options
from core.detection.results import DetectedVideo, Person, Shot, Track, end_of, gap_notes, stream_notes
from core.detection.shots import find_shots
from core.download.cache import all_of
from core.inference.engine import opencv_on_one_thread
from core.inputs.shots import TrackFeatures
from core.media.container import MediaFile, VideoInfo
from core.media.streams import StreamNumber
from core.media.video import read_frames
from core.media.video_audio import VideoAudio, audio_on_disk
from core.parallel.readahead import CallsBehind, read_ahead
from core.people.clustering import group_tracks
from core.people.embedding import FaceEmbedder, Likeness, find_embedder
from core.runtime.checks import check_finite
from core.runtime.errors import MediaError
from core.runtime.files import printable

FRAMES_AHEAD = 8
CROPS_BEHIND = 1024  # of 12.5 or 62 kB, which wait for the encoder
CUT_OFF_S = 1.0  # a file that ends earlier than its header says, by more than this, is cut off


class ActiveSpeakerDetector:
    """Detects, follows and scores the faces of videos.

    Args:
        encoder: "light_asd", "lr_asd", or a two-stream encoder of the staged pipeline ("resnet18_two_streams", ...).
        weights: published weights by name ("ava", "talkset": downloaded once), or the path of a state dict; by
            default the published ones that do best on detected tracks.
        context: "shipped": the residual context network that comes with the encoder's published weights, where there
            is one; "none"; or the path of a state dict of either context network, trained on the encoder.
        context_shape: time steps, stride in frames and speakers of `ASC_Net`'s contexts, as in its training.
        crop: "box" or "lower_face", how faces are cut for "light_asd" and "lr_asd"; by default as the published
            weights had it in training, "box" for weights of your own.
        ensemble: average the six passes of the published own-video protocol (windows of 1 to 6 s); whole-track
            encoders only.
        precision: "fp32" or "bf16", of the encoder's and YuNet's products; or "int8", on an x86-64 processor, of a
            whole-track encoder with its published AVA weights. "auto" is int8 for these there; bf16 for other
            whole-track encoders and YuNet on a processor that has it (losing 0.002 AP at most); else fp32.
        detector: "yunet", with weights downloaded once; "haar", OpenCV's cascade, which finds about half of the faces;
            the path of YuNet weights; or any `core.detection.faces.FaceDetector`.
        detection_size: pixels, longer side of the image in which faces are detected; by default as large as faces of
            `min_face_px` need, that is half of the frame's, but 640 at least.
        detect_every: detect faces in every n-th frame, or more often where so many frames would take too much memory;
            by default every 0.12 s, and less often where nothing changes.
        video_stream: the number of the video stream, from 0, where a file has several; by default as FFmpeg and
            players choose: a stream that is flagged as default, of several the largest.
        audio_stream: likewise, of the most channels; or "all", mixed.
        min_track_s: seconds; shorter tracks are dropped.
        min_face_px: pixels; tracks of less median height are dropped.
        people: put tracks of one person together: True with SFace's weights, downloaded once; None if these are in the
            cache already (`people_note` says so where not); False not; or any `core.people.embedding.FaceEmbedder`.
            With `Likeness`, or None without weights, only voices are remembered from one track to the next.
        device: "cpu", "cuda" or "cuda:1"; where the networks run.
        cache: folder for downloads; by default the user's (see `core.download.cache`).

    Raises:
        UserError: a name or a file is wrong, weights could not be downloaded, or arguments do not go together.
    """

    def __init__(
        self,
        encoder: str = DEFAULT_ENCODER,
        weights: str | Path | None = None,
        *,
        context: str | Path = SHIPPED,
        context_shape: ContextShape = (11, 4, 3),
        crop: str | None = None,
        ensemble: bool = False,
        precision: str = "auto",
        detector: str | Path | FaceDetector = DEFAULT_DETECTOR,
        detection_size: int | None = None,
        detect_every: int | None = None,
        video_stream: int | None = None,
        audio_stream: StreamNumber = None,
        min_track_s: float = MIN_TRACK_S,
        min_face_px: float = MIN_FACE_PX,
        people: bool | FaceEmbedder | None = None,
        device: str = "cpu",
        cache: str | Path | None = None,
    ):
        self.detection_size, self.detect_every = detection_size, detect_every
        self.min_track_s, self.min_face_px = min_track_s, min_face_px
        check_options(vars(self), {})
        self.encoder, self.detector, (embedder, self.people_note) = all_of(
            lambda: open_encoder(
                encoder,
                weights,
                crop=crop,
                ensemble=ensemble,
                precision=precision,
                context=context,
                context_shape=context_shape,
                device=str(device),
                cache=cache,
            ),
            lambda: find_detector(detector, cache, precision),
            lambda: find_embedder(people, cache),
        )
        # What puts tracks together for the voices, and what tells persons apart.
        self.embedder = None if isinstance(embedder, Likeness) else embedder
        self.grouper = embedder if self.encoder.has_voices else self.embedder
        self.video_stream, self.audio_stream = video_stream, audio_stream

    @property
    def settings(self) -> dict:
        """What results depend on, as plain values."""
        return {
            **settings_of(self),
            "detect_every": self.detect_every,
            "video_stream": self.video_stream,
            "audio_stream": self.audio_stream,
            "people": None if self.embedder is None else self.embedder.name,
            "people_sha256": getattr(self.embedder, "weights_sha256", None),
            "people_max_distance": None if self.embedder is None else self.embedder.max_distance,
        }

    def detect(self, path: str | Path, progress: Callable[[float], object] | None = None) -> DetectedVideo:
        """Who is visible in one video, and who of them speaks when.

        Every frame is decoded once, in order; memory does not grow with the video's length, but for the results.

        Args:
            path: video file, of any frame rate, also a varying one.
            progress: called with the length, in seconds, of what has been processed.

        Raises:
            MediaError: nothing of the file can be decoded, or it has no video. A damaged file gives what can be
                decoded of it, with `complete` False and a note.
        """
        streams = {"video_stream": self.video_stream, "audio_stream": self.audio_stream}
        with (
            opencv_on_one_thread(),
            MediaFile(path, tolerant=True, as_played=True, **streams) as media,
            audio_on_disk(media) as audio,
            contextlib.closing(self._seen_frames(media)) as seen_frames,
            contextlib.closing(CallsBehind(CROPS_BEHIND)) as calls,
        ):
            run = _Run(self, media, audio, calls)
            try:
                for seen in seen_frames:
                    run.add(seen)
                    if progress is not None:
                        progress(seen.frame.time_s - media.start_s)
            except MediaError as error:
                if not run.times_s:
                    raise
                run.failure = str(error)
            return run.finish()

    def finder(self, info: VideoInfo) -> FaceFinder:
        """What finds the faces in a video's frames."""
        return FaceFinder.of(self.detector, info, self.min_face_px, self.detection_size)

    def _seen_frames(self, media: MediaFile) -> Iterator[SeenFrame]:
        """Frames with their faces; decoding, shots and detection, each in a thread of its own."""
        frames = read_ahead(read_frames(media), FRAMES_AHEAD)
        shots = read_ahead(find_shots(frames, media.info.fps), FRAMES_AHEAD)
        faces = detect_faces(shots, self.finder(media.info), schedule(media.info, self.detect_every))
        return read_ahead(across_cuts(faces, media.info.fps), FRAMES_AHEAD)


class _Run:
    """Detection in one video: takes its frames in order, gathers shots and finished tracks.

    Attributes:
        calls: makes those of the encoder, and of what comes after it.
        times_s: presentation time of each frame so far, seconds.
        failure: why the frames ended before the file's end; None where they did not.
        left_out: why faces were found and not kept -> how many.
        landmarks: whether the face detector gives them.
    """

    def __init__(self, detector: ActiveSpeakerDetector, media: MediaFile, audio: VideoAudio | None, calls: CallsBehind):
        self.detector, self.media, self.info, self.audio = detector, media, media.info, audio
        self.calls = calls
        self.times_s: list[float] = []
        self.failure: str | None = None
        self.shots: list[Shot] = []
        self.tracks: list[Track] = []
        self.unvoiced: list[tuple[TrackFeatures, np.ndarray]] = []  # of each, with logits that lack what voices add
        self.follower: ShotFollower | None = None
        self.shot_start = 0
        self.left_out, self.landmarks = Counter(), False

    def add(self, seen: SeenFrame) -> None:
        """Take the next frame."""
        if seen.begins_shot:
            self._end_shot(seen.frame.time_s)
            self.shot_start = seen.number
            encoder, grouper = self.detector.encoder, self.detector.grouper
            start = None if self.audio is None else lambda first_s: encoder.start(self.audio, first_s)
            origin_s = self.times_s[0] if self.times_s else seen.frame.time_s
            self.follower = ShotFollower(origin_s, encoder.crop, start, self._is_kept, grouper, self.calls.add)
        self.times_s.append(seen.frame.time_s)
        self.landmarks |= seen.faces is not None and seen.faces.shape[1] > 5
        self.follower.add(seen)

    def finish(self) -> DetectedVideo:
        """The results, after the last frame.

        Raises:
            MediaError: there was no frame.
        """
        if not self.times_s:
            raise MediaError(f"{self.media.path}: no frame has a time; re-encode it, for example to H.264 in mp4")
        self._end_shot()
        self.calls.finish()
        can_group = self.detector.grouper is not None and (self.landmarks or not self.tracks)
        groups = self._group() if can_group else None
        if self.detector.embedder is None:
            self.tracks = [replace(track, embedding=None) for track in self.tracks]
        faults = [printable(fault) for fault in self._faults()]
        return DetectedVideo(
            path=self.media.path,
            info=self.info,
            frame_times_s=np.array(self.times_s),
            audio_s=(self.audio.start_s, self.audio.end_s) if self.audio else None,
            shots=self.shots,
            tracks=self.tracks,
            notes=[*faults, *(printable(note) for note in self._notes())],
            complete=not faults and (self.audio is not None or self.info.audio is None),
            settings=self.detector.settings,
            persons=None if groups is None or self.detector.embedder is None else Person.of(groups),
            start_s=self.media.start_s,
            offset_s=self.media.offset_s,
        )

    def _group(self) -> list[int]:
        """Tracks put together by their embeddings; what voices add to their scores is added for each group together."""
        groups = group_tracks(
            [track.embedding for track in self.tracks],
            [(int(track.frames[0]), int(track.frames[-1])) for track in self.tracks],
            self.detector.grouper.max_distance,
        )
        if self.unvoiced:
            features, logits = zip(*self.unvoiced, strict=True)
            voiced = self.detector.encoder.context.with_voices(features, logits, groups)
            self.tracks = [
                replace(track, scores=self._scores(track.times_s, own.first, scores))
                for track, own, scores in zip(self.tracks, features, voiced, strict=True)
            ]
        return groups

    def _faults(self) -> Iterator[str]:
        """Sentences on what of the file is damaged or missing."""
        if damage := self.media.damage["video"]:
            yield f"Video: {damage}. What is lost is left out, and what follows it may look damaged."
        if self.failure is not None:
            yield f"The video fails to decode: {self.failure}. What comes before was processed."
        if self.audio is not None:
            yield from self.audio.faults
        end_s = max(self.times_s[-1] + 1 / self.info.fps, self.audio.end_s if self.audio else 0.0)
        length_s, declared_s = end_s - self.media.start_s, self.info.declared_s
        if declared_s is not None and declared_s > length_s + CUT_OFF_S:
            yield f"The file is cut off: it should last {declared_s:.2f} s, and ends after {length_s:.2f} s."

    def _notes(self) -> Iterator[str]:
        """Sentences on what else the user should know."""
        if (context := self.detector.encoder.context) is not None and context.note is not None:
            yield context.note
        yield from stream_notes(self.media, self.audio, self.times_s[0], self.times_s[-1] + 1 / self.info.fps)
        yield from gap_notes(self.times_s, self.info.fps)
        if self.detector.embedder is not None and self.tracks and not self.landmarks:
            yield f"Persons were not told apart: {self.detector.detector.name} gives no landmarks of the faces."
        finder = self.detector.finder(self.info)
        if finder.least_face_px > self.detector.min_face_px:
            yield (
                f"Faces of less than about {finder.least_face_px:.0f} pixels cannot be found: {finder.detector.name} "
                f"needs {finder.detector.least_face_px:g}, and frames of {finder.longest} were shrunk to {finder.side}."
            )
        asked, most_held = self.detector.detect_every, schedule(self.info, None).most_held
        if asked is not None and asked > most_held:
            yield f"Faces were detected every {most_held} frames, not every {asked}: those between wait in memory."
        if not self.tracks:
            left_out = ", ".join(f"{count} {why}" for why, count in self.left_out.items())
            found = self.left_out.total()
            yield f"No face was kept of {found} found: {left_out}." if found else "No face was found."

    def _end_shot(self, next_s: float = np.inf) -> None:
        if self.follower is None:
            return
        end_s = end_of(self.times_s[-1], next_s, self.info.fps)
        self.calls.add(self._score, self.follower.finish(), len(self.shots))
        self.follower = None
        self.shots.append(Shot(self.shot_start, len(self.times_s) - 1, self.times_s[self.shot_start], end_s))

    def _score(self, faces: list[FollowedFace], shot: int) -> None:
        """Make a shot's faces tracks."""
        logits = [face.logits for face in faces]
        context = self.detector.encoder.context
        if faces and self.audio is not None and context is not None:
            features = [TrackFeatures(face.first_grid, face.features) for face in faces]
            if self.detector.encoder.has_voices and self.detector.grouper is not None and self.landmarks:
                logits = context.score(features)
                self.unvoiced += zip(features, logits, strict=True)  # which are of one person is known in the end
            else:
                logits = context.scores(features)
        for face, scores in zip(faces, logits, strict=True):
            self.tracks.append(self._track(face, scores, shot))

    def _is_kept(self, face: FollowedFace) -> bool:
        seconds = face.times_s[-1] - face.times_s[0] + 1 / self.info.fps
        heights, limits = [box[3] - box[1] for box in face.boxes], self.detector
        why = why_left_out(
            *(heights, seconds, face.track.confidence), min_face_px=limits.min_face_px, min_track_s=limits.min_track_s
        )
        self.left_out.update([why] if why else [])
        return why is None

    def _track(self, face: FollowedFace, logits: np.ndarray | None, shot: int) -> Track:
        times_s = np.array(face.times_s)
        scores = np.full(len(times_s), np.nan, np.float32)
        if logits is not None:
            scores = self._scores(times_s, face.first_grid, logits)
            check_finite(
                scores,
                lambda row: f"{self.media.path}: the scores of track {len(self.tracks) + 1} at {times_s[row]:.2f} s",
                "the weights are too large, as after a training that diverged; give others",
            )
        return Track(
            id=len(self.tracks) + 1,
            shot=shot,
            frames=np.array(face.frames),
            times_s=times_s,
            boxes=clamped(np.array(face.boxes), self.info.width, self.info.height),
            scores=scores,
            thumbnail=face.thumbnail,
            embedding=face.embedding,
        )

    def _scores(self, times_s: np.ndarray, first_grid: int, logits: np.ndarray) -> np.ndarray:
        """Those of a track at its frames, (n,) float32."""
        return scores_at(times_s, self.times_s[0] + first_grid / GRID_FPS, logits)
