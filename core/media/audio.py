"""A media file's audio, decoded as blocks of samples, and written as a wav."""

import sys
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from core.clip_utils import SAMPLE_RATE
from core.media.container import MediaFile
from core.runtime.errors import MediaError
from core.runtime.files import atomic_write

GAP_S = 0.04  # a jump in the stream's times beyond one video frame is a gap in the audio, not jitter
CUT_OFF_S = 0.1  # encoders leave out up to some hundredths of a second of what the header says
DRIFT_S = 1.0  # times that differ by more than that from the count of samples, for so long, are right
CANCEL_S = 0.2  # over which the likeness of channels is averaged
LOST = 0.1  # less than this of the energy of unlike channels left by their mix: they cancel each other
OPPOSITE = -0.5  # the correlation with the reference from which on a channel is turned over
LOW_FREQUENCIES, UNKNOWN = "LFE", "NONE"  # FFmpeg's names of channels: the one that a mix leaves out; not said


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
        start_s, end_s: seconds from the file's beginning; the audio may end before end_s.
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
    """Decode the audio as blocks of int16, contiguous from the file's beginning (`media.start_s`); gaps are silence.

    Several streams are added up. Channels that cancel each other in a mono mix are not mixed as they are: see `_Mix`.

    Args:
        media: the open file. Its rate and channels may change midway, as in recordings of broadcasts. Damaged
            packets are silence where it is read tolerantly, else an error.
        sample_rate: samples per second to give, whatever the file has.
        channels: 1 for blocks (samples,), 2 for blocks (samples, [left, right]).

    Raises:
        MediaError: as `extract_audio`.
    """
    streams = [_decode(media, position, sample_rate, channels) for position in range(max(1, media.audio_streams))]
    given = 0
    for block in _added(streams) if len(streams) > 1 else streams[0]:
        given += len(block)
        yield block
    end_s = given / sample_rate
    if not media.tolerant and (declared_s := _lost_after(media, end_s)) is not None:
        raise MediaError(
            f"{media.path} is cut off: its audio ends at {end_s:.2f} s, and by its header at {declared_s:.2f} s"
        )


def _decode(media: MediaFile, position: int, sample_rate: int, channels: int) -> Iterator[np.ndarray]:
    """See `decode_audio`; of one of the streams that are read."""
    stretches, mix = _Stretches(), _Mix()
    resampler = None
    given = 0  # samples given so far
    surplus = 0  # samples to drop: audio from before the file's beginning, or stored twice
    try:
        for frame in media.decoded("audio", position=position):
            time_s = media.time_of(frame)
            breaks = media.damage["audio"].packets + len(media.joins_s["audio"])
            begin_s = stretches.begun_by(frame, None if time_s is None else time_s - media.start_s, breaks)
            if begin_s is not None:
                blocks = _resampled(resampler, None) if resampler is not None else []
                resampler = av.AudioResampler(format="s16", layout={1: "mono", 2: "stereo"}[channels], rate=sample_rate)
                missing = round(begin_s * sample_rate) - given - sum(map(len, blocks))
                surplus = max(0, -missing)
                for block in [*blocks, *_silence(missing, sample_rate, channels)]:
                    given += len(block)
                    yield block
            if channels == 1 and frame.layout.nb_channels > 1:
                media.cancelled_s += mix.prepare(frame) * frame.samples / frame.sample_rate
            frame.pts = None  # the resampler keeps its own count
            for block in _resampled(resampler, frame):
                kept = block[surplus:]
                surplus -= len(block) - len(kept)
                given += len(kept)
                yield kept
    except av.FFmpegError as error:
        seconds = media.start_s + given / sample_rate
        raise MediaError(f"{media.path}: its audio fails to decode after {seconds:.2f} s ({error})") from error
    if resampler is None:
        raise MediaError(f"{media.path}: its audio stream is empty")
    yield from _resampled(resampler, None)


def _added(streams: list[Iterator[np.ndarray]]) -> Iterator[np.ndarray]:
    """The sum of streams of blocks, clipped, as long as the longest of them."""
    rests = {number: np.zeros(0, np.int16) for number in range(len(streams))}
    while True:
        for number in [number for number, rest in rests.items() if not len(rest)]:
            rests[number] = next((block for block in streams[number] if len(block)), None)
            if rests[number] is None:
                del rests[number]
        if not rests:
            return
        length = min(map(len, rests.values()))
        total = sum(rest[:length].astype(np.int32) for rest in rests.values())
        yield np.clip(total, -32768, 32767).astype(np.int16)
        rests = {number: rest[length:] for number, rest in rests.items()}


def _lost_after(media: MediaFile, end_s: float) -> float | None:
    """Where the audio should end by the header, seconds, if it ends at `end_s` since the file is cut off; else None.

    Where the header has the length of the whole file alone, and the audio may well be shorter, the file counts as cut
    off if none of its streams lasts as long.
    """
    whole_s, own_s = media.declared_s, media.declared_audio_end_s
    if whole_s is None:
        return None
    declared_s = whole_s if own_s is None else own_s - max(0.0, media.offset_s + media.start_s)
    if own_s is None and end_s < declared_s - CUT_OFF_S:
        end_s = max(end_s, media.last_packet_end_s() - media.start_s)
    return declared_s if end_s < declared_s - CUT_OFF_S else None


class _Mix:
    """Prepares frames of several channels for a mono mix, so that their channels do not cancel each other.

    Where one side of a recording is wired the wrong way round, its mix is silence. While less than `LOST` is left of
    what unlike channels would leave, those that are opposite to the loudest are turned over: the mix is as loud as a
    channel then, and holds all that can be heard in any.
    """

    def __init__(self) -> None:
        self.likeness = np.zeros((0, 0))  # (channel, channel), products averaged over CANCEL_S

    def prepare(self, frame: av.AudioFrame) -> bool:
        """Turn channels of the next frame over where they cancel each other; whether they do."""
        count = frame.layout.nb_channels
        samples = frame.to_ndarray()
        channels = (samples if frame.format.is_planar else samples.reshape(-1, count).T).astype(np.float32)
        if samples.dtype == np.uint8:
            channels -= 128
        channels[_low_frequencies(frame.layout)] = 0
        if len(self.likeness) != count:
            self.likeness = np.zeros((count, count))
        self.likeness *= np.exp(-frame.samples / frame.sample_rate / CANCEL_S)
        self.likeness += channels @ channels.T
        energies = self.likeness.diagonal()
        if self.likeness.sum() >= LOST * energies.sum():
            return False
        # The first one that is not much quieter than the loudest: between two alike it would change to and fro.
        reference = int(np.argmax(energies >= energies.max() / 2))
        opposite = self.likeness[reference] < OPPOSITE * np.sqrt(energies[reference] * energies)
        for channel in np.flatnonzero(opposite).tolist():
            _turn_over(frame, samples.dtype, channel)
        return True


def _low_frequencies(layout: av.AudioLayout) -> list[int]:
    """The positions of channels that a mono mix leaves out; where the file does not name them, as FFmpeg guesses."""
    names = [channel.name for channel in layout.channels]
    guessed = [3] if len(names) >= 6 and set(names) == {UNKNOWN} else []
    return [position for position, name in enumerate(names) if name == LOW_FREQUENCIES] or guessed


def _turn_over(frame: av.AudioFrame, dtype: np.dtype, channel: int) -> None:
    """Change the sign of a channel's samples, in place."""
    if frame.format.is_planar:
        values = np.frombuffer(frame.planes[channel], dtype, frame.samples)
    else:
        count = frame.layout.nb_channels
        values = np.frombuffer(frame.planes[0], dtype, frame.samples * count)[channel::count]
    (np.negative if dtype.kind == "f" else np.invert)(values, out=values)  # -32768 has no opposite: -1 less the value


class _Stretches:
    """Divides a stream's frames into stretches without gaps, in which times are counted in samples.

    The stamps of packets are rounded, come in bursts, or are the times at which packets arrived: for a while they are
    off. A new stretch begins where they jump from one packet to the next, where they stay off the count of samples,
    where packets were lost, where another recording was joined, and where the audio changes its rate, channels or
    sample format.
    """

    def __init__(self) -> None:
        self.follows_s = None  # where the next frame begins by the stamp of the last one
        self.counted_s = 0.0  # the same by the count of samples: small gaps, each below GAP_S, add up
        self.drifting_s = None  # since when the stamps are off the count
        self.kind = None  # of the last frame: rate, layout and format, and the breaks up to it

    def begun_by(self, frame: av.AudioFrame, stamp_s: float | None, breaks: int) -> float | None:
        """Seconds at which a stretch begins with the next frame; None where it goes on with the stretch before."""
        if stamp_s is None:
            stamp_s = self.follows_s or 0.0
        before, self.kind = self.kind, (frame.sample_rate, frame.layout.name, frame.format.name, breaks)
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
