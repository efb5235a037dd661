"""When a face speaks: stretches of speaking frames, for people and for tools that know no frames."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.detected import DetectedVideo, Track

MIN_SPEECH_S = 0.2  # a syllable
MAX_PAUSE_S = 0.3  # pauses between words, closed as in the labels of AVA-like sets
ROUNDING_S = 1e-6  # presentation times are multiples of a time base, kept as binary fractions


@dataclass(frozen=True)
class Segment:
    """One stretch of speech.

    Attributes:
        start_s, end_s: seconds from the container's start; the end is where the last frame gives way to the next.
        probability: 0 to 1, the mean over its frames, those of closed pauses included.
    """

    start_s: float
    end_s: float
    probability: float


def speech_segments(
    track: Track, video: DetectedVideo, min_speech_s: float = MIN_SPEECH_S, max_pause_s: float = MAX_PAUSE_S
) -> list[Segment]:
    """The stretches in which a face speaks, in order; none where the video has no sound.

    A frame lasts until the next one appears. First pauses of at most `max_pause_s` are closed, then stretches shorter
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


def speaking_time(segments: Sequence[Segment]) -> float:
    """Seconds in all segments together."""
    return sum(segment.end_s - segment.start_s for segment in segments)


def _runs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last index of each run of True."""
    change = np.diff(values.astype(np.int8), prepend=0, append=0)
    return np.flatnonzero(change == 1), np.flatnonzero(change == -1) - 1
