"""The MFCCs of one video's audio: computed once, and mapped into memory by every training."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ava_asd.config import Config
from ava_asd.layout import VideoFolder, mfcc_settings
from ava_asd.mfcc import mfcc, normalised, vectors, whole_samples
from ava_asd.stores import open_mfccs, read_audio
from core.runtime.errors import MediaError, UserError
from core.runtime.files import atomic_write

STEP = "mfccs"
LEAST_WINDOW = 2  # samples


def extract_mfccs(folder: VideoFolder, config: Config) -> None:
    """Write the MFCCs of the audio in a folder, unless they are there already.

    Raises:
        MediaError: the audio or start_ts is absent or unreadable, or the audio is shorter than a window, or too
            low a sample rate for the settings.
    """
    try:
        rate, samples = read_audio(folder.audio)
        made_with = settings_of(config, folder, rate)
    except UserError as error:
        raise MediaError(str(error)) from error
    if is_whole(folder, config, made_with, len(samples), rate):
        return
    if whole_samples(config.stride, rate) < 1 or whole_samples(config.mfcc_window_size, rate) < LEAST_WINDOW:
        raise MediaError(
            f"{folder.audio} has {rate} samples a second: for a mfcc_window_size of {config.mfcc_window_size:g} s and "
            f"a stride of {config.stride:g} s these are too few; make both longer"
        )
    if len(samples) <= whole_samples(config.mfcc_window_size, rate):
        raise MediaError(f"{folder.audio} has {len(samples) / rate:.3f} s, less than a window of MFCCs")
    audio = samples.astype(np.float32) / 32768
    audio = audio if audio.ndim == 1 else audio.mean(axis=1)
    values = mfcc(audio, rate, config.nmfcc, config.mfcc_window_size, config.stride)
    folder.begin(STEP)
    with atomic_write(folder.mfccs) as temporary:
        np.save(temporary, normalised(values, mean=config.apply_mean, deviation=config.apply_stddev))
    folder.finish(STEP, made_with)


def settings_of(config: Config, folder: VideoFolder, sample_rate: int) -> dict[str, Any]:
    """What a video's MFCCs depend on: the settings, and the audio; and hop_s, the seconds between vectors.

    The stride becomes a whole number of samples, so that at 22,050 samples a second vectors asked for each 0.01 s are
    9.977 ms apart: 2 s in a quarter of an hour, if this were ignored.
    """
    return {
        **mfcc_settings(config),
        "start_ts": folder.start_s(),
        "sound_bytes": folder.audio.stat().st_size,
        "hop_s": whole_samples(config.stride, sample_rate) / sample_rate,
    }


def is_whole(folder: VideoFolder, config: Config, made_with: Mapping[str, Any], samples: int, rate: int) -> bool:
    """Whether the MFCCs of all the samples are finished, with these settings, and can be read."""
    if folder.made_with(STEP) != made_with:
        return False
    try:
        expected = vectors(samples, rate, config.mfcc_window_size, config.stride)
        return open_mfccs(folder, config).shape[1] == expected
    except UserError:
        return False
