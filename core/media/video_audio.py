"""A whole video's sound at hand without being in memory, with what there is to say about where it is missing."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from core.formats.wav import SAMPLE_RATE
from core.media.audio import decode_audio
from core.media.container import Damage, open_media, start_of
from core.runtime.errors import MediaError, UserError


@dataclass(frozen=True)
class VideoAudio:
    """16 kHz mono sound of a video, from the container's time 0.

    Attributes:
        samples: (n,) int16, or `SamplesOnDisk` of them; silence before a stream that starts late.
        start_s, end_s: where the stream begins and ends, seconds.
        faults: sentences on what of the stream could not be decoded.
    """

    samples: "np.ndarray | SamplesOnDisk"
    start_s: float
    end_s: float
    faults: tuple[str, ...] = ()

    def part(self, start_s: float, length: int) -> np.ndarray:
        """(length,) int16 from a time on; silence where the stream has nothing."""
        start = round(start_s * SAMPLE_RATE)
        first, last = (min(max(place, 0), len(self.samples)) for place in (start, start + length))
        out = np.zeros(length, np.int16)
        out[first - start : last - start] = self.samples[first:last]
        return out


class SamplesOnDisk:
    """Samples in a file, read where they are sliced.

    The pages of a memory map would stay in memory: 230 MB of two hours.

    Args:
        file: open, with nothing but int16 samples.
        length: how many.
    """

    def __init__(self, file: BinaryIO, length: int):
        self.file, self.length = file, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, part: slice) -> np.ndarray:
        """(n,) int16; the slice has no step."""
        first, last, _ = part.indices(self.length)
        size = np.dtype(np.int16).itemsize
        return np.frombuffer(os.pread(self.file.fileno(), size * max(0, last - first), size * first), np.int16)


@contextlib.contextmanager
def audio_on_disk(path: str, folder: str | None = None) -> Iterator[VideoAudio | None]:
    """Decode a video's sound into an unnamed temporary file (32 kB a second) for the length of a `with` block.

    Gives None where the video has no sound, or none of it can be decoded.

    Args:
        path: the video.
        folder: for the temporary file; by default the system's.

    Raises:
        MediaError: the file cannot be opened.
        UserError: there is no room for the temporary file.
    """
    with open_media(path) as container:
        streams = container.streams.audio
        begin = float(streams[0].start_time * streams[0].time_base) if streams and streams[0].start_time else 0.0
        start_s = max(0.0, begin - start_of(container)) if begin else 0.0
    if not streams:
        yield None
        return
    faults, length, damage = [], 0, Damage()
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:  # closing it has nothing left to write
        try:
            for block in decode_audio(path, damage=damage):
                rest = memoryview(block.tobytes())
                while rest:
                    rest = rest[file.write(rest) :]
                length += len(block)
        except MediaError as failure:
            faults.append(f"The sound fails to decode: {failure}. After that it counts as silence.")
        except OSError as failure:
            raise UserError(
                f"no room for the sound of {path} in {folder or tempfile.gettempdir()} (32 kB a second): "
                f"{failure.strerror}; free some space, or name another folder with the variable TMPDIR"
            ) from failure
        if length <= round(start_s * SAMPLE_RATE):
            yield None
            return
        if damage:
            faults.insert(0, f"Of the sound {damage}. Silence stands for what is missing.")
        yield VideoAudio(SamplesOnDisk(file, length), start_s, length / SAMPLE_RATE, tuple(faults))
