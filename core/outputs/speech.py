"""Who speaks when: segments of speech found in the scores, put together to turns, written as RTTM and WebVTT."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.clip_utils import SPEAKING_THRESHOLD
from core.detection.results import DetectedVideo, Track
from core.runtime.files import atomic_write, printable

MIN_SPEECH_S = 0.2  # a syllable
MAX_PAUSE_S = 0.3  # pauses between words, closed as in the labels of AVA-like sets
ROUNDING_S = 1e-6  # presentation times are multiples of a time base, kept as binary fractions


@dataclass(frozen=True)
class Segment:
    """One segment of speech.

    Attributes:
        start_s, end_s: seconds, as a player shows them; the end is where the last frame gives way to the next.
        probability: 0 to 1, the mean over its frames, those of closed pauses included.
    """

    start_s: float
    end_s: float
    probability: float


def speech_segments(
    track: Track, video: DetectedVideo, min_speech_s: float = MIN_SPEECH_S, max_pause_s: float = MAX_PAUSE_S
) -> list[Segment]:
    """The segments in which a face speaks, in order; none where the video has no audio.

    A frame lasts until the next one appears. First pauses of at most `max_pause_s` are closed, then segments shorter
    than `min_speech_s` are dropped.
    """
    speaking = track.speaking
    if not speaking.any():
        return []
    starts_s = track.times_s
    ends_s = np.append(starts_s[1:], video.end_of_frame(int(track.frames[-1])))
    firsts, lasts = _runs(speaking)
    apart = starts_s[firsts[1:]] - ends_s[lasts[:-1]] > max_pause_s + ROUNDING_S
    firsts, lasts = firsts[np.append(True, apart)], lasts[np.append(apart, True)]
    probabilities = track.probabilities
    return [
        Segment(float(starts_s[first]), float(ends_s[last]), float(probabilities[first : last + 1].mean()))
        for first, last in zip(firsts, lasts, strict=True)
        if ends_s[last] - starts_s[first] >= min_speech_s - ROUNDING_S
    ]


@dataclass(frozen=True)
class Speaker:
    """A person; or a face track, where persons were not told apart.

    Attributes:
        id: the person's or the track's.
        label: for readers: a name, "Person 2" or "Face 2".
        key: for programs, the same without blanks: "person_002" or "face_002" where there is no name.
        tracks: in order of id.
        turns: in order; a person's segments in several tracks are one turn where only a closed pause parts them.
    """

    id: int
    label: str
    key: str
    tracks: list[Track]
    turns: list[Segment]


def speakers(video: DetectedVideo) -> list[Speaker]:
    """All persons of a video; all face tracks, where persons were not told apart; in order of id."""
    segments = {track.id: speech_segments(track, video) for track in video.tracks}
    if video.persons is None:
        return [
            Speaker(track.id, f"Face {track.id}", f"face_{track.id:03d}", [track], segments[track.id])
            for track in video.tracks
        ]
    tracks = {track.id: track for track in video.tracks}
    return [
        Speaker(
            person.id,
            person.label,
            re.sub(r"\s", "_", person.name) if person.name else f"person_{person.id:03d}",
            [tracks[number] for number in person.tracks],
            _joined([segment for number in person.tracks for segment in segments[number]]),
        )
        for person in video.persons
    ]


def _joined(segments: Sequence[Segment]) -> list[Segment]:
    """Segments as turns, by start time; the probability of several is their mean by length."""
    turns: list[list[Segment]] = []
    until_s = -np.inf
    for segment in sorted(segments, key=lambda segment: segment.start_s):
        if segment.start_s - until_s <= MAX_PAUSE_S + ROUNDING_S:
            turns[-1].append(segment)
        else:
            turns.append([segment])
        until_s = max(until_s, segment.end_s)
    return [
        Segment(
            turn[0].start_s,
            max(part.end_s for part in turn),
            float(np.average([part.probability for part in turn], weights=[speaking_time([part]) for part in turn])),
        )
        for turn in turns
    ]


def speaking_time(segments: Sequence[Segment]) -> float:
    """Seconds in all segments together."""
    return sum(segment.end_s - segment.start_s for segment in segments)


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last index of each run of True."""
    change = np.diff(values.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(change == 1), np.flatnonzero(change == -1) - 1


def write_rttm(path: str | Path, video: DetectedVideo) -> None:
    """Write turns of speech as RTTM, by start time; without speech the file is empty.

    A line has the ten fields of NIST's Rich Transcription format (RT-09 evaluation plan, appendix A): type SPEAKER,
    file, channel 1, start and duration in seconds, orthography <NA>, speaker type <NA>, name, confidence <NA>, signal
    look-ahead time <NA>. The file is the video's name without extension, "_" for each blank; names are those of
    persons, person_001 where one has none, or face_001 with the track's id where persons were not told apart.
    """
    file_id = re.sub(r"\s", "_", printable(video.path.stem))
    lines = [
        f"SPEAKER {file_id} 1 {segment.start_s:.3f} {segment.end_s - segment.start_s:.3f} "
        f"<NA> <NA> {speaker.key} <NA> <NA>\n"
        for speaker, segment in _by_time(video)
    ]
    _write(path, "".join(lines))


def write_vtt(path: str | Path, video: DetectedVideo) -> None:
    """Write WebVTT captions (w3.org/TR/webvtt1): one cue a turn of speech, by start time; cues may overlap.

    A cue says `<v Person 1>Person 1 speaks (0.93)`, with a name where there is one: the number is the person's id, that
    in brackets the mean probability. Where persons were not told apart it is `Face 1`, with the track's id. A note at
    the beginning says so to the reader.
    """
    who, numbered = (
        ("face", "Faces are numbered in order of appearance; one person in two shots has two numbers.")
        if video.persons is None
        else (
            "person",
            "Persons are numbered in order of appearance; computed from faces, so two may be taken for one.",
        )
    )
    note = (
        f"NOTE Each cue is a segment in which a {who} speaks. The number in brackets is the mean probability of\n"
        f"speaking over its frames, 0 to 1; a frame counts as speaking from {SPEAKING_THRESHOLD} on.\n{numbered}"
    )
    if video.audio_s is None:
        note += "\nThis video has no audio, so its faces have no probability of speaking."
    cues = [
        f"{_clock(segment.start_s)} --> {_clock(segment.end_s)}\n<v {label}>{label} speaks ({segment.probability:.2f})"
        for label, segment in ((_escaped(speaker.label), segment) for speaker, segment in _by_time(video))
    ]
    _write(path, "\n\n".join(["WEBVTT", note, *cues]) + "\n")


def _escaped(text: str) -> str:
    """A name that is no tag in a cue, nor ends one."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _by_time(video: DetectedVideo) -> list[tuple[Speaker, Segment]]:
    """Speakers and their turns, by start time."""
    turns = [(speaker, turn) for speaker in speakers(video) for turn in speaker.turns]
    return sorted(turns, key=lambda item: (item[1].start_s, item[0].id))


def _clock(time_s: float) -> str:
    """12.5 -> 00:00:12.500."""
    seconds, milliseconds = divmod(round(time_s * 1000), 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}.{milliseconds:03d}"


def _write(path: str | Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
