"""The MFCCs of one video's sound: computed once, and mapped into memory by every training."""

import struct
from typing import Any

import numpy as np
import scipy.io.wavfile

from ava_asd.config import Config
from ava_asd.layout import VideoFolder, mfcc_settings
from ava_asd.mfcc import mfcc, normalised
from core.files import written_whole
from core.video import MediaError

STEP = "mfccs"


def extract_mfccs(task: tuple[VideoFolder, Config]) -> None:
    """Write the MFCCs of the sound in a folder, unless they are there already; `task` is (folder, settings).

    Raises:
        MediaError: the sound is absent, unreadable or shorter than a window.
    """
    folder, config = task
    if not folder.sound.is_file():
        raise MediaError(f"no sound {folder.sound}: run 'ava-extract videos'")
    made_with = settings_of(config, folder)
    if folder.made_with(STEP) == made_with and folder.mfccs.is_file():
        return
    try:
        rate, samples = scipy.io.wavfile.read(folder.sound)
    except (ValueError, EOFError, struct.error) as error:
        raise MediaError(f"{folder.sound} is no readable wav ({error}): run 'ava-extract videos' again") from error
    if samples.dtype != np.int16:
        raise MediaError(f"{folder.sound} has {samples.dtype} samples, expected 16 bit: run 'ava-extract videos' again")
    sound = samples.astype(np.float32) / 32768
    sound = sound if sound.ndim == 1 else sound.mean(axis=1)
    if len(sound) <= int(rate * config.mfcc_window_size):
        raise MediaError(f"{folder.sound} has {len(sound) / rate:.3f} s, less than a window of MFCCs")
    values = mfcc(sound, rate, config.nmfcc, config.mfcc_window_size, config.stride)
    folder.begin(STEP)
    with written_whole(folder.mfccs) as temporary:
        np.save(temporary, normalised(values, mean=config.apply_mean, deviation=config.apply_stddev))
    folder.finish(STEP, made_with)


def settings_of(config: Config, folder: VideoFolder) -> dict[str, Any]:
    """What a video's MFCCs depend on: the settings, and which sound it is."""
    return {**mfcc_settings(config), "start_ts": folder.start_s(), "sound_bytes": folder.sound.stat().st_size}
