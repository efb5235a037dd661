"""A media file's audio, decoded as blocks of samples, and written as a wav."""

import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from core.formats.wav import SAMPLE_RATE
from core.media.container import MediaFile, _open
from core.runtime.errors import MediaError
from core.runtime.files import atomic_write

GAP_S = 0.04  # a jump in the stream's times beyond one video frame is a gap in the audio, not jitter
CUT_OFF_S = 0.1  # encoders leave out up to some hundredths of a second of what the header says
DRIFT_S = 1.0  # times that differ by more than that from the count of samples, for so long, are right


def extract_audio(
    media: MediaFile,
    wav: str | Path,
    *,
    start_s: float = 0.0,
    end_s: float = float("inf"),
    sample_rate: int | None = SAMPLE_RATE,
) -> None:
    """Write a file's audio, or that of a time span, as mono 16-bit wav.

    Where the file has no audio there is silence: before a stream that starts late, and in gaps between packets. The
    file is streamed; memory does not grow with its length.

    Args:
        media: the open file.
        wav: written.
        start_s, end_s: seconds, from the container's time 0; the audio may end before end_s.
        sample_rate: samples per second; None for the file's own.

    Raises:
        MediaError: the file has no audio, or none after start_s, or decoding fails midway.
    """
    if media.audio is None:
        raise MediaError(f"{media.path} has no audio stream")
    rate = sample_rate or media.audio.sample_rate
    first, last = round(start_s * rate), round(min(end_s * rate, sys.maxsize))
    begin = 0  # of a block, in samples
    with atomic_write(wav) as temporary, wave.open(str(temporary), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        for samples in decode_audio(media, rate):
            out.writeframes(samples[max(0, first - begin) : max(0, last - begin)].tobytes())
            begin += len(samples)
            if begin >= last:
                break
        if begin <= first:
            raise MediaError(f"{media.path}: its audio ends at {begin / rate:.2f} s, before {start_s:.2f} s")


def decode_audio(media: MediaFile, sample_rate: int = SAMPLE_RATE, channels: int = 1) -> Iterator[np.ndarray]:
    """Decode the first audio stream as blocks of int16, contiguous from time 0; gaps are silence.

    Args:
        media: the open file. Its rate and channels may change midway, as in recordings of broadcasts. Damaged
            packets are silence where it is read tolerantly, else an error.
        sample_rate: samples per second to give, whatever the file has.
        channels: 1 for blocks (samples,), 2 for blocks (samples, [left, right]).

    Raises:
        MediaError: as `extract_audio`.
    """
    stretches = _Stretches(media.start_s)
    resampler = None
    given = 0  # samples given so far
    surplus = 0  # samples to drop: audio from before time 0, or stored twice
    try:
        for frame in media.decoded("audio"):
            begin_s = stretches.begun_by(frame, media.damage["audio"].packets)
            if begin_s is not None:
                blocks = _resampled(resampler, None) if resampler is not None else []
                resampler = av.AudioResampler(format="s16", layout={1: "mono", 2: "stereo"}[channels], rate=sample_rate)
                missing = round(begin_s * sample_rate) - given - sum(map(len, blocks))
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
        raise MediaError(f"{media.path}: its audio fails to decode after {seconds:.2f} s ({error})") from error
    if resampler is None:
        raise MediaError(f"{media.path}: its audio stream is empty")
    for block in _resampled(resampler, None):
        given += len(block)
        yield block
    end_s = given / sample_rate
    if not media.tolerant and (declared_s := _lost_after(media, end_s)) is not None:
        raise MediaError(
            f"{media.path} is cut off: its audio ends at {end_s:.2f} s, and by its header at {declared_s:.2f} s"
        )


def _lost_after(media: MediaFile, end_s: float) -> float | None:
    """Where the audio should end by the header, seconds, if it ends at `end_s` since the file is cut off; else None.

    Where the header has the length of the whole file alone, and the audio may well be shorter, the file counts as cut
    off if none of its streams lasts as long.
    """
    whole_s, own_s = media.declared_s, media.declared_audio_end_s
    if whole_s is None:
        return None
    declared_s = whole_s if own_s is None else own_s - max(0.0, media.start_s)
    if own_s is None and end_s < declared_s - CUT_OFF_S:
        with _open(media.path) as container:
            for packet in container.demux(*container.streams.video[:1], container.streams.audio[0]):
                if packet.pts is not None:
                    packet_end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base) - media.start_s
                    end_s = max(end_s, packet_end_s)
    return declared_s if end_s < declared_s - CUT_OFF_S else None


class _Stretches:
    """Divides a stream's frames into stretches without gaps, in which times are counted in samples.

    The stamps of packets are rounded, come in bursts, or are the times at which packets arrived: for a while they are
    off. A new stretch begins where they jump from one packet to the next, where they stay off the count of samples,
    where packets were lost, and where the audio changes its rate, channels or sample format.
    """

    def __init__(self, origin_s: float):
        self.origin_s = origin_s
        self.follows_s = None  # where the next frame begins by the stamp of the last one
        self.counted_s = 0.0  # the same by the count of samples: small gaps, each below GAP_S, add up
        self.drifting_s = None  # since when the stamps are off the count
        self.kind = None  # of the last frame: rate, layout and format, and how many packets were lost up to it

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


def _resampled(resampler: av.AudioResampler, frame: av.AudioFrame | None) -> list[np.ndarray]:
    """Blocks (samples,) of one channel, (samples, channels) of several."""
    blocks = resampler.resample(frame)
    channels = resampler.layout.nb_channels
    return [block.to_ndarray().reshape((-1, channels) if channels > 1 else -1) for block in blocks]


def _silence(samples: int, sample_rate: int, channels: int) -> list[np.ndarray]:
    """Blocks of a second, all the same one, and the rest; none where `samples` is not positive."""
    second = np.zeros((sample_rate, channels) if channels > 1 else sample_rate, np.int16)
    return [second[: samples - at] for at in range(0, samples, sample_rate)]
