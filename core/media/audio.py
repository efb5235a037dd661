"""A video's sound, decoded as 16 kHz mono and written as a wav."""

import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from core.formats.wav import SAMPLE_RATE
from core.media.container import Damage, decoded, open_media, sound_stream, start_of
from core.runtime.errors import MediaError
from core.runtime.files import written_whole

GAP_S = 0.04  # a jump in the stream's times beyond one video frame is a gap in the sound, not jitter
DRIFT_S = 1.0  # times that differ by more than that from the count of samples, for so long, are right


def extract_track(video: str | Path, wav: str | Path) -> None:
    """Write a video's sound as 16 kHz mono 16-bit wav whose first sample is the container's time 0.

    Silence stands where the file has no sound: before a stream that starts late and in gaps between packets. The
    file is streamed; memory does not grow with its length.

    Raises:
        MediaError: the file is unreadable, has no sound, or decoding fails midway.
    """
    with written_whole(wav) as temporary, wave.open(str(temporary), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        for samples in decode_audio(video):
            out.writeframes(samples.tobytes())


def decode_audio(
    path: str | Path, sample_rate: int = SAMPLE_RATE, channels: int = 1, damage: Damage | None = None
) -> Iterator[np.ndarray]:
    """Decode the first sound stream as blocks of int16, contiguous from time 0; silence stands in gaps.

    Args:
        path: media file. Its rate and channels may change midway, as in recordings of broadcasts.
        sample_rate: samples per second to give, whatever the file has.
        channels: 1 for blocks (samples,), 2 for blocks (samples, [left, right]).
        damage: takes note of packets that cannot be decoded, in whose place is silence; without it they are an error.

    Raises:
        MediaError: as `extract_track`.
    """
    with open_media(path) as container:
        stream = sound_stream(container, path)
        stretches = _Stretches(start_of(container))
        resampler = None
        given = 0  # samples given so far
        surplus = 0  # samples to drop: sound from before time 0, or told twice
        try:
            for frame in decoded(container, stream, damage):
                begin_s = stretches.begun_by(frame, damage.packets if damage is not None else 0)
                if begin_s is not None:
                    blocks = _resampled(resampler, None) if resampler is not None else []
                    resampler = _resampler(sample_rate, channels)
                    given_then = given + sum(map(len, blocks))
                    missing = round(begin_s * sample_rate) - given_then
                    surplus = max(0, -missing)
                    for block in [*blocks, *_silence(missing, sample_rate, channels)]:
                        given += len(block)
                        yield block
                frame.pts = None  # the resampler keeps its own count
                for block in _resampled(resampler, frame):
                    kept = block[surplus:]
                    surplus -= len(block) - len(kept)
                    given += len(kept)
                    yield kept
        except av.FFmpegError as error:
            seconds = given / sample_rate
            raise MediaError(f"{path}: its sound fails to decode after {seconds:.2f} s ({error})") from error
        if resampler is None:
            raise MediaError(f"{path}: its sound stream is empty")
        yield from _resampled(resampler, None)


class _Stretches:
    """Parts a stream's frames into stretches without gaps, in which times are counted in samples.

    The stamps of packets are rounded, come in bursts, or tell when a packet arrived: they are off for a moment. A new
    stretch begins where they jump from one packet to the next, where they stay off the count of samples, where packets
    were lost, and where the sound changes its form.
    """

    def __init__(self, origin_s: float):
        self.origin_s = origin_s
        self.follows_s = None  # where the next frame begins by the stamp of the last one
        self.counted_s = 0.0  # the same by the count of samples: small gaps, each below GAP_S, add up
        self.drifting_s = None  # since when the stamps are off the count
        self.kind = None  # of the last frame: its form, and how many packets were lost up to it

    def begun_by(self, frame: av.AudioFrame, lost: int) -> float | None:
        """Seconds at which a stretch begins with the next frame; None where it goes on with the stretch before."""
        stamp_s = self.follows_s or 0.0
        if frame.pts is not None:
            stamp_s = float(frame.pts * frame.time_base) - self.origin_s
        before, self.kind = self.kind, (frame.sample_rate, frame.layout.name, frame.format.name, lost)
        begins = before != self.kind or abs(stamp_s - self.follows_s) > GAP_S or self._has_drifted(stamp_s)
        if begins:
            self.counted_s, self.drifting_s = stamp_s, None
        length_s = frame.samples / frame.sample_rate
        self.follows_s = stamp_s + length_s
        self.counted_s += length_s
        return stamp_s if begins else None

    def _has_drifted(self, stamp_s: float) -> bool:
        if abs(stamp_s - self.counted_s) <= GAP_S:
            self.drifting_s = None
            return False
        if self.drifting_s is None:
            self.drifting_s = stamp_s
        return stamp_s - self.drifting_s > DRIFT_S


def _resampler(sample_rate: int, channels: int) -> av.AudioResampler:
    return av.AudioResampler(format="s16", layout={1: "mono", 2: "stereo"}[channels], rate=sample_rate)


def _resampled(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> list[np.ndarray]:
    """Blocks (samples,) of one channel, (samples, channels) of several."""
    blocks = resampler.resample(frame)
    channels = resampler.layout.nb_channels
    return [block.to_ndarray().reshape((-1, channels) if channels > 1 else -1) for block in blocks]


def _silence(samples: int, sample_rate: int, channels: int) -> list[np.ndarray]:
    """Blocks of a second, all the same one, and the rest; none where `samples` is not positive."""
    second = np.zeros((sample_rate, channels) if channels > 1 else sample_rate, np.int16)
    return [second[: samples - at] for at in range(0, samples, sample_rate)]
