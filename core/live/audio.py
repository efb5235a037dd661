"""The last seconds of audio that comes in blocks, on the clock of the video beside it."""

import av
import numpy as np

from core.clip_utils import SAMPLE_RATE
from core.runtime.errors import UserError

JUMP_S = 0.1  # a block whose time differs by more from the end of the one before is not its continuation
BACK_S = 1.0  # time that goes back by more is a clock that was set; by less, a block that comes late
SETTLING_S = 1.0  # over which the drift of the clocks is averaged: times of blocks jitter
TOLERATED_S = 0.005  # of drift; 1/8 of a frame
STRETCH = 0.01  # a block is made longer or shorter by at most this share


def check_time(time_s: float) -> None:
    """See that a time is one.

    Raises:
        UserError: it is infinite or not a number.
    """
    if not np.isfinite(time_s):
        raise UserError(f"a time of {time_s} s: expected a finite number")


class LiveAudio:
    """Audio that goes on; only the last seconds are kept.

    A sound card counts samples by its own clock. Where that drifts from the clock of the times given, blocks are made a
    little longer or shorter, so that audio stays where it is heard.

    Args:
        kept_s: how much is kept, seconds.

    Attributes:
        start_s, end_s: from when on, and until when, there is audio, seconds, without the time that is forgotten; gaps
            of up to `kept_s` are silence. Both minus infinity before there was any.
    """

    def __init__(self, kept_s: float):
        self.kept = round(kept_s * SAMPLE_RATE)
        self.start_s = self.end_s = -np.inf
        self._samples, self._first, self._drift_s = np.zeros(0, np.int16), 0, 0.0

    def push(self, samples: np.ndarray, time_s: float) -> None:
        """Take a block of samples.

        Args:
            samples: (n,) int16, 16 kHz, mono.
            time_s: when the first of them is heard, seconds.

        Raises:
            UserError: the samples or their time are of another kind.
        """
        check_time(time_s)
        if samples.dtype != np.int16 or samples.ndim != 1:  # floats would become silence
            raise UserError(f"audio of {samples.shape} {samples.dtype}: expected (n,) int16, 16 kHz, mono")
        if not len(samples):
            return
        end = self._first + len(self._samples)
        away_s = time_s - self.end_s
        if not -BACK_S <= away_s <= self.kept / SAMPLE_RATE:
            self.start_s, self._samples, self._drift_s = time_s, np.zeros(0, np.int16), 0.0
            self._first = end = position = round(time_s * SAMPLE_RATE)
        elif abs(away_s) > JUMP_S:
            position, self._drift_s = round(time_s * SAMPLE_RATE), 0.0
            samples = samples[max(0, self._first - position) :]  # what is before all that is kept came too late
            position = max(self._first, position)
        else:
            samples, position = self._in_time(samples, away_s), end
        kept = np.zeros(max(end, position + len(samples)) - self._first, np.int16)
        kept[: len(self._samples)] = self._samples
        kept[position - self._first :][: len(samples)] = samples
        self._first += max(0, len(kept) - self.kept)
        self._samples = kept[-self.kept :]
        self.end_s = (self._first + len(self._samples)) / SAMPLE_RATE

    def part(self, start_s: float, length: int) -> np.ndarray:
        """(length,) int16 from a time on; silence where there is no audio, or none any more."""
        start = round(start_s * SAMPLE_RATE) - self._first
        first, last = (min(max(position, 0), len(self._samples)) for position in (start, start + length))
        out = np.zeros(length, np.int16)
        out[first - start : last - start] = self._samples[first:last]
        return out

    def _in_time(self, samples: np.ndarray, away_s: float) -> np.ndarray:
        """A block that continues the audio, made longer or shorter as far as the clocks have drifted apart."""
        share = min(1.0, len(samples) / SAMPLE_RATE / SETTLING_S)
        self._drift_s += share * (away_s - self._drift_s)
        if abs(self._drift_s) <= TOLERATED_S:
            return samples
        most = STRETCH * len(samples)
        more = round(float(np.clip(self._drift_s * SAMPLE_RATE, -most, most)))
        self._drift_s -= more / SAMPLE_RATE
        at = np.linspace(0, len(samples) - 1, len(samples) + more)
        return np.rint(np.interp(at, np.arange(len(samples)), samples)).astype(np.int16)


class Resampler:
    """Makes blocks of audio that follow each other 16 kHz, mono."""

    def __init__(self) -> None:
        self._form = self._inner = None
        self._held_s = 0.0  # of audio that it holds back

    def push(self, samples: np.ndarray, rate: int, time_s: float) -> tuple[float, np.ndarray]:
        """Take a block, and give what is ready: when its first sample was heard, seconds, and (n,) int16.

        Args:
            samples: (n,) int16 of one channel.
            rate: of them in a second.
            time_s: when the first of them was heard.
        """
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = rate
        return self.push_frame(frame, time_s)

    def push_frame(self, frame: av.AudioFrame, time_s: float) -> tuple[float, np.ndarray]:
        """Likewise of a block as it was decoded, of any form."""
        form = frame.sample_rate, frame.format.name, frame.layout.name
        if form != self._form:
            self._form, self._held_s = form, 0.0
            self._inner = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
        frame.pts = None  # it keeps its own count
        ready = [block.to_ndarray()[0] for block in self._inner.resample(frame)]
        samples, begin_s = np.concatenate([np.zeros(0, np.int16), *ready]), time_s - self._held_s
        self._held_s += frame.samples / frame.sample_rate - len(samples) / SAMPLE_RATE
        return begin_s, samples
