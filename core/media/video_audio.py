"""A whole video's audio at hand without being in memory, and the faults in it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from core.clip_utils import SAMPLE_RATE
from core.media.audio import decode_audio
from core.media.container import MediaFile
from core.runtime.errors import MediaError, UserError


@dataclass(frozen=True)
class VideoAudio:
    """A video's audio, 16 kHz mono unless other is asked for.

    Attributes:
        samples: (n,) int16, of two channels (n, [left, right]), or `SamplesOnDisk` of them; silence before a stream
            that starts late.
        start_s, end_s: where the stream begins and ends, seconds on the file's clock.
        faults: sentences on what of the stream could not be decoded.
        origin_s: when the first sample is heard, likewise.
        silent: all of it is digital silence.
        sample_rate: samples per second.
    """

    samples: "np.ndarray | SamplesOnDisk"
    start_s: float
    end_s: float
    faults: tuple[str, ...] = ()
    origin_s: float = 0.0
    silent: bool = False
    sample_rate: int = SAMPLE_RATE

    def part(self, start_s: float, length: int) -> np.ndarray:
        """(length,) int16, or (length, [left, right]), from a time on; silence where the stream has nothing."""
        start = round((start_s - self.origin_s) * self.sample_rate)
        first, last = (min(max(position, 0), len(self.samples)) for position in (start, start + length))
        samples = self.samples[first:last]
        out = np.zeros((length, *samples.shape[1:]), np.int16)
        out[first - start : last - start] = samples
        return out


class SamplesOnDisk:
    """Samples in a file, read where they are sliced.

    The pages of a memory map would stay in memory: 230 MB of two hours.

    Args:
        file: open, with nothing but int16 samples.
        length: how many, of each channel.
        channels: 1 or 2.
    """

    def __init__(self, file: BinaryIO, length: int, channels: int = 1):
        self.file, self.length, self.channels = file, length, channels

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> np.ndarray:
        """(n,) int16, of two channels (n, 2); the slice has no step."""
        first, last, _ = part.indices(self.length)
        size = np.dtype(np.int16).itemsize * self.channels
        samples = np.frombuffer(os.pread(self.file.fileno(), size * max(0, last - first), size * first), np.int16)
        return samples if self.channels == 1 else samples.reshape(-1, self.channels)


@contextlib.contextmanager
def audio_on_disk(media: MediaFile, sample_rate: int = SAMPLE_RATE, channels: int = 1) -> Iterator[VideoAudio | None]:
    """Decode a file's audio into an unnamed temporary file (32 kB a second) for the length of a `with` block.

    Gives None where the file has no audio, or none of it can be decoded.

    Args:
        media: the open file.
        sample_rate, channels: as `core.media.audio.decode_audio`.

    Raises:
        UserError: there is no room for the temporary file.
    """
    if media.audio is None:
        yield None
        return
    faults, length, silent = [], 0, True
    with tempfile.TemporaryFile(buffering=0) as file:  # closing it has nothing left to write
        try:
            for block in decode_audio(media, sample_rate, channels):
                silent = silent and not block.any()
                rest = memoryview(block.tobytes())
                while rest:
                    rest = rest[file.write(rest) :]
                length += len(block)
        except MediaError as failure:
            faults.append(f"The audio fails to decode: {failure}. After that it counts as silence.")
        except OSError as failure:
            kilobytes = 2 * sample_rate * channels // 1000
            raise UserError(
                f"no room for the audio of {media.path} in {tempfile.gettempdir()} ({kilobytes} kB a second): "
                f"{failure.strerror}; free some space, or name another folder with the variable TMPDIR"
            ) from failure
        if length <= round((media.audio.start_s - media.start_s) * sample_rate):
            yield None
            return
        if media.damage["audio"]:
            faults.insert(0, f"Audio: {media.damage['audio']}. What is missing is silence.")
        yield VideoAudio(
            SamplesOnDisk(file, length, channels),
            media.audio.start_s,
            media.start_s + length / sample_rate,
            tuple(faults),
            origin_s=media.start_s,
            silent=silent,
            sample_rate=sample_rate,
        )
