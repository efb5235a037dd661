"""The MFCCs of one video's audio: computed once, and mapped into memory by every training."""

import numpy as np

from ava_asd.config import Config
from ava_asd.layout import VideoFolder
from ava_asd.mfcc import mfcc, normalised, whole_samples
from ava_asd.stores import read_audio
from core.runtime.errors import MediaError
from core.runtime.files import atomic_write

LEAST_WINDOW = 2  # samples


def extract_mfccs(folder: VideoFolder, config: Config) -> None:
    """Write the MFCCs of the audio in a folder, unless they are there already.

    Raises:
        MediaError: the audio is absent, unreadable or shorter than a window, or has too low a sample rate for the
            settings.
        UserError: the folder holds MFCCs from elsewhere.
    """
    record, names = folder.mfcc_record(config), [folder.mfccs.name]
    if not record.missing(names):
        return
    rate, samples = read_audio(folder.audio)
    # The stride becomes a whole number of samples, so that at 22,050 samples a second vectors asked for each 0.01 s are
    # 9.977 ms apart: 2 s in a quarter of an hour, if this were ignored.
    window, stride = (whole_samples(seconds, rate) for seconds in (config.mfcc_window_size, config.stride))
    if stride < 1 or window < LEAST_WINDOW:
        raise MediaError(
            f"{folder.audio} has {rate} samples a second: for a mfcc_window_size of {config.mfcc_window_size:g} s and "
            f"a stride of {config.stride:g} s these are too few; make both longer"
        )
    if len(samples) <= window:
        raise MediaError(f"{folder.audio} has {len(samples) / rate:.3f} s, less than a window of MFCCs")
    audio = samples.astype(np.float32) / 32768
    audio = audio if audio.ndim == 1 else audio.mean(axis=1)
    values = mfcc(audio, rate, coefficients=config.nmfcc, window=window, stride=stride)
    with record.making(names), atomic_write(folder.mfccs) as temporary:
        np.save(temporary, normalised(values, mean=config.apply_mean, deviation=config.apply_stddev))
