"""Wavs as every step keeps them, 16 kHz mono 16 bit: of a video, of an entity."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io.wavfile

from core.runtime.errors import MediaError, UserError
from core.runtime.files import atomic_write

SAMPLE_RATE = 16_000  # samples per second, mono, 16 bit


def read_wav(path: str | Path) -> np.ndarray:
    """Memory-map a 16 kHz mono 16-bit wav: (samples,) int16.

    Raises:
        UserError: the file is absent, no wav, or of another rate, width or number of channels.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no audio file {path}: run data/extract_audio_tracks.py and data/slice_audio_tracks.py")
    rate, samples = map_wav(path, "delete it and run the audio steps again")
    if rate != SAMPLE_RATE or samples.dtype != np.int16 or samples.ndim != 1:
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        raise UserError(
            f"{path} has {rate} Hz, {channels} channel(s), {samples.dtype}: expected {SAMPLE_RATE} Hz mono int16; "
            "make it with data/extract_audio_tracks.py and data/slice_audio_tracks.py"
        )
    return samples


def map_wav(path: Path, remedy: str) -> tuple[int, np.ndarray]:
    """Map a wav into memory: samples per second, and (sample,) or (sample, channel) of any type.

    Raises:
        MediaError: it is absent, damaged, or shorter than its header says.
    """
    try:
        with warnings.catch_warnings():
            # Of a file that ends too early, or of one with parts that no step writes.
            warnings.simplefilter("error", scipy.io.wavfile.WavFileWarning)
            rate, samples = scipy.io.wavfile.read(path, mmap=True)
            return int(rate), samples
    except Exception as error:  # damaged headers end in all kinds, ZeroDivisionError and UnboundLocalError too
        raise MediaError(f"{path} is not a readable wav ({error}): {remedy}") from error


def write_wav(path: str | Path, samples: np.ndarray) -> None:
    """Write (samples,) int16 as a 16 kHz mono wav, whole or not at all."""
    with atomic_write(path) as temporary:
        scipy.io.wavfile.write(temporary, SAMPLE_RATE, np.ascontiguousarray(samples, dtype=np.int16))


def check_audio(rows: pd.DataFrame, audio_dir: Path) -> None:
    """Check that every entity has its `<entity_id>.wav`.

    Args:
        rows: annotations of a split.
        audio_dir: `audio_dir/<split>`.

    Raises:
        UserError: the folder or a file is absent; the message names the first entity and its video.
    """
    if not audio_dir.is_dir():
        raise UserError(f"no audio folder {audio_dir}: run data/slice_audio_tracks.py first")
    present = {path.name for path in audio_dir.iterdir()}
    entities = rows.drop_duplicates("entity_id")
    missing = entities[~(entities["entity_id"] + ".wav").isin(present)]
    if len(missing):
        raise UserError(
            f"no audio of {len(missing)} of {len(entities)} entities in {audio_dir}, first "
            f"{missing['entity_id'].iloc[0]} of video {missing['video_id'].iloc[0]}; run data/extract_audio_tracks.py "
            "and data/slice_audio_tracks.py, or remove the video from the csv"
        )
