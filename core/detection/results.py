"""What detection finds in a video: shots, face tracks with scores, notes on them; kept in a file, and read again."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from core.media.container import MediaFile, VideoInfo
from core.media.streams import ALL, AudioInfo
from core.media.video_audio import VideoAudio
from core.runtime.files import atomic_write

AUDIO_SLACK_S = 0.5  # audio that begins or ends earlier or later than the video by more than this is noted
CANCELLED_S = 1.0  # audio whose channels cancel each other for at least so long is noted
LEAST_FPS = 10  # less is noted; encoders are trained on 25, and mouths open and close up to five times a second
TIMES_NAMED = 5  # in a note
GAP_S, GAP_FRAMES = 2.0, 10  # see `is_gap`
UNREAD_BYTES = 1 << 16  # at a file's end that are noted; less is no video


@dataclass(frozen=True)
class Shot:
    """Frames between two cuts.

    Attributes:
        first_frame, last_frame: numbers of the video's own frames, both inside.
        start_s, end_s: seconds, as a player shows them; the end is where the next shot's first frame appears,
            or, before a gap in time, an average frame after the last.
    """

    first_frame: int
    last_frame: int
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Track:
    """One face in one shot, at every frame of the video from its first to its last.

    Attributes:
        id: 1, 2, ... in order of appearance.
        shot: index into the video's shots; a track never crosses the end of one.
        frames: (n,) int64, numbers of the video's own frames, consecutive.
        times_s: (n,) float64, presentation times, seconds, as a player shows them.
        boxes: (n, [x1, y1, x2, y2]) float32, pixels of the displayed frame; smoothed, clamped to the frame.
        scores: (n,) float32, log odds of speaking: logit of speaking minus logit of not speaking. 0 is as likely as
            not. NaN throughout where the video has no audio.
        thumbnail: the face, a JPEG of 72 x 72 pixels.
        embedding: (feature,) float32 of length 1, near those of the same person's other tracks; None where persons are
            not told apart, or no frame shows the face well enough.
    """

    id: int
    shot: int
    frames: np.ndarray
    times_s: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    thumbnail: bytes
    embedding: np.ndarray | None = None

    @property
    def probabilities(self) -> np.ndarray:
        """(n,) float32, 0 to 1: 1 / (1 + exp(-score)), the softmax of the two logits; NaN without audio."""
        return 1 / (1 + np.exp(-self.scores))

    @property
    def speaking(self) -> np.ndarray:
        """(n,) bool, probability >= 0.5 (score >= 0); False throughout without audio."""
        return self.scores >= 0


@dataclass(frozen=True)
class Person:
    """Somebody seen in a video, whose tracks were found to show one face.

    Attributes:
        id: 1, 2, ... in order of appearance.
        tracks: ids of the person's tracks, ascending.
        name: None where nobody gave one.
    """

    id: int
    tracks: tuple[int, ...]
    name: str | None = None

    @classmethod
    def of(cls, groups: Sequence[int]) -> "list[Person]":
        """Persons by the number of each track's, 0, 1, ..., in order of the tracks' ids."""
        tracks = [[] for _ in set(groups)]
        for id, group in enumerate(groups, start=1):
            tracks[group].append(id)
        return [cls(number, tuple(own)) for number, own in enumerate(tracks, start=1)]

    @property
    def label(self) -> str:
        """What readers call the person."""
        return self.name or f"Person {self.id}"


@dataclass(frozen=True)
class DetectedVideo:
    """A video's shots, tracks and persons.

    All times are those that a player shows, as `currentTime` in a browser: the container's own timestamps, which need
    not begin at 0.

    Attributes:
        path: the video file.
        info: what the file says of itself.
        frame_times_s: (frames,) float64, presentation time of every frame that could be decoded.
        audio_s: where the audio begins and ends, in seconds; None where there is none that can be decoded.
        shots: in order, together all frames; none where there are no frames.
        tracks: in order of id.
        notes: sentences on what the user should know: no audio, no faces, a file cut off, a fallback detector.
        complete: False where something of the file could not be decoded, or is missing; what there is of it is here.
        settings: what the result depends on, as plain values: encoder, weights (SHA-256), detector, thresholds.
        persons: in order of id, each track with one of them; None where they were not told apart.
        start_s: when the file begins, video or audio, seconds, as a player shows it.
        offset_s: the container's own timestamp of a frame less its time here; 0 where those do not begin before 0.
    """

    path: Path
    info: VideoInfo
    frame_times_s: np.ndarray
    audio_s: tuple[float, float] | None
    shots: list[Shot]
    tracks: list[Track]
    notes: list[str]
    complete: bool
    settings: dict[str, Any]
    persons: list[Person] | None = None
    start_s: float = 0.0
    offset_s: float = 0.0

    @property
    def person_of(self) -> dict[int, Person]:
        """Track id -> the person; empty where persons were not told apart."""
        return {track: person for person in self.persons or () for track in person.tracks}

    def open(self, *, tolerant: bool) -> MediaFile:
        """The file again: the same streams, on the same clock.

        Raises:
            MediaError: it cannot be opened.
        """
        # Those that were asked for, not their numbers: recordings that were joined may have others.
        asked = {name: self.settings.get(name) for name in ("video_stream", "audio_stream")}
        return MediaFile(self.path, tolerant=tolerant, as_played=True, **asked)

    def end_of_frame(self, frame: int) -> float:
        """When a frame gives way to the next, in seconds; see `end_of`."""
        time_s, next_s = map(float, (*self.frame_times_s[frame : frame + 2], np.inf)[:2])
        return end_of(time_s, next_s, self.info.fps)


def is_gap(seconds: float, fps: float) -> bool:
    """Whether so long between two frames the picture stands still, or some of it is missing: nobody is followed.

    Args:
        fps: the video's average, for those of few frames a second.
    """
    return seconds > max(GAP_S, GAP_FRAMES / fps)


def end_of(time_s: float, next_s: float, fps: float) -> float:
    """When a frame of a time ends: where the next one is shown or, before a gap, after a frame's average length.

    Args:
        next_s: time of the next one, seconds; infinite where there is none.
        fps: the video's average.
    """
    return time_s + 1 / fps if is_gap(next_s - time_s, fps) else next_s


def kept_apart(values: np.ndarray, threshold: float, decimals: int) -> list[float]:
    """Rounded values, but those below a threshold never to it."""
    rounded = np.round(values.astype(np.float64), decimals)
    below = np.minimum(rounded, threshold - 10.0**-decimals)
    return np.round(np.where(values >= threshold, np.maximum(rounded, threshold), below), decimals).tolist()


def write_detected(path: str | Path, video: DetectedVideo, *, embeddings: bool) -> None:
    """Keep a video's results, with all their digits, for `read_detected`: NumPy's arrays, and JSON for the rest.

    Args:
        path: written, whole or not at all.
        video: the results.
        embeddings: keep those of the tracks, too, which are biometric data.
    """
    facts = {name: getattr(video, name) for name in ("audio_s", "notes", "complete", "settings", "start_s", "offset_s")}
    aspect = video.info.pixel_aspect
    facts["info"] = {**asdict(video.info), "pixel_aspect": aspect and str(aspect)}
    facts["persons"] = None if video.persons is None else [asdict(person) for person in video.persons]
    facts["shots"] = [asdict(shot) for shot in video.shots]
    facts["tracks"] = [
        [track.id, track.shot, int(track.frames[0]), len(track.frames), len(track.thumbnail)] for track in video.tracks
    ]
    arrays = {
        "facts": np.array(json.dumps(facts)),
        "frame_times_s": video.frame_times_s,
        "boxes": np.concatenate([np.empty((0, 4), np.float32), *(track.boxes for track in video.tracks)]),
        "scores": np.concatenate([np.empty(0, np.float32), *(track.scores for track in video.tracks)]),
        "thumbnails": np.frombuffer(b"".join(track.thumbnail for track in video.tracks), np.uint8),
    }
    for track in video.tracks if embeddings else ():
        if track.embedding is not None:
            arrays[f"embedding_{track.id}"] = track.embedding
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def read_detected(path: str | Path, video: Path) -> DetectedVideo:
    """What `write_detected` kept of a video; tracks have embeddings where these were kept.

    Args:
        path: as it was written.
        video: the video file, wherever it is now.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    facts = json.loads(str(arrays["facts"]))
    info = facts["info"]
    audio, aspect = info.pop("audio"), info.pop("pixel_aspect")
    tracks, row, byte = [], 0, 0
    for number, shot, first, length, size in facts["tracks"]:
        frames, rows = np.arange(first, first + length), slice(row, row + length)
        tracks.append(
            Track(
                number,
                shot,
                frames,
                arrays["frame_times_s"][frames],
                arrays["boxes"][rows],
                arrays["scores"][rows],
                arrays["thumbnails"][byte : byte + size].tobytes(),
                arrays.get(f"embedding_{number}"),
            )
        )
        row, byte = row + length, byte + size
    persons = facts["persons"]
    return DetectedVideo(
        path=video,
        info=VideoInfo(**info, audio=audio and AudioInfo(**audio), pixel_aspect=aspect and Fraction(aspect)),
        frame_times_s=arrays["frame_times_s"],
        audio_s=facts["audio_s"] and tuple(facts["audio_s"]),
        shots=[Shot(**shot) for shot in facts["shots"]],
        tracks=tracks,
        notes=facts["notes"],
        complete=facts["complete"],
        settings=facts["settings"],
        persons=None if persons is None else [Person(one["id"], tuple(one["tracks"]), one["name"]) for one in persons],
        start_s=facts["start_s"],
        offset_s=facts["offset_s"],
    )


def gap_notes(times_s: Sequence[float], fps: float) -> Iterator[str]:
    """A sentence where there are gaps between a video's frames, (n,) seconds."""
    gaps = [(first, second) for first, second in pairwise(times_s) if is_gap(second - first, fps)]
    if gaps:
        longest_s, times = max(second - first for first, second in gaps), f"{len(gaps):,} times"
        yield (
            f"There is no new picture for up to {longest_s:.1f} s, {'once' if len(gaps) == 1 else times}, first after "
            f"{gaps[0][0]:.2f} s: nobody is followed meanwhile, and faces are new after it."
        )


def stream_notes(media: MediaFile, audio: VideoAudio | None, first_s: float, last_s: float) -> Iterator[str]:
    """Sentences on which streams were used, and what is odd about them, as that their audio is silent throughout.

    Args:
        media: the file.
        audio: of it; None where it has none, or none that can be decoded.
        first_s, last_s: when the video begins and ends, seconds.
    """
    if audio is None:
        reason = "its audio stream cannot be decoded" if media.info.audio else "it has no audio stream"
        yield f"Nobody can be heard in this video: {reason}. Faces were tracked, but have no scores."
    elif max(abs(audio.start_s - first_s), abs(audio.end_s - last_s)) > AUDIO_SLACK_S:
        yield (
            f"The audio lasts from {audio.start_s:.2f} to {audio.end_s:.2f} s, the video from {first_s:.2f} to "
            f"{last_s:.2f} s: where one is absent, silence or nobody is assumed."
        )
    if media.info.streams > 1:
        yield (
            f"The file has {media.info.streams} video streams; number {media.info.stream}, counted from 0, was used "
            "(--video-stream takes another)."
        )
    if media.audio is not None and media.audio.streams > 1:
        used = "all, mixed, were" if media.audio.stream == ALL else f"number {media.audio.stream}, counted from 0, was"
        yield (
            f"The file has {media.audio.streams} audio streams; {used} used (--audio-stream takes another, or all of "
            "them)."
        )
    if media.audio is not None and media.info.fps < LEAST_FPS:
        yield f"At {media.info.fps:.3g} frames a second mouths can hardly be followed: who speaks is little sure."
    if audio is not None and audio.silent:
        yield "The audio is digital silence throughout: nobody can be heard in it."
    if media.cancelled_s >= CANCELLED_S:
        yield (
            f"The audio's channels cancel each other for {media.cancelled_s:.1f} s when they are mixed; there one side "
            "was turned over."
        )
    if joins_s := sorted(media.joins_s["video"]):
        times = ", ".join(f"{time_s:.2f}" for time_s in joins_s[:TIMES_NAMED])
        yield (
            f"The file is {len(joins_s) + 1} recordings joined byte by byte: the clock of the first goes on where"
            f" another begins (at {times} s{', ...' if len(joins_s) > TIMES_NAMED else ''}); players may show other "
            "times after that, or nothing."
        )
    if media.untimed:
        yield f"{media.untimed:,} frame(s) have no time in the file, and were left out."
    if media.unread_bytes >= UNREAD_BYTES:
        yield f"The last {media.unread_bytes:,} bytes of the file belong to no recording in it, and were not read."
