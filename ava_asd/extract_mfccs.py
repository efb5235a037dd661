"""The MFCCs of one video's audio: computed once, and mapped into memory by every training."""

import numpy as np

from ava_asd.config import Config
from ava_asd.layout import VideoFolder, mfcc_settings
from ava_asd.mfcc import mfcc, normalised, vectors, whole_samples
from ava_asd.stores import open_mfccs, read_audio
from core.runtime.errors import MediaError, UserError
from core.runtime.files import atomic_write, fingerprint

STEP = "mfccs"
LEAST_WINDOW = 2  # samples


def extract_mfccs(folder: VideoFolder, config: Config) -> None:
    """Write the MFCCs of the audio in a folder, unless they are there already.

    Raises:
        MediaError: the audio or start_ts is absent or unreadable, or the audio is shorter than a window, or too
            low a sample rate for the settings.
    """
    rate, samples = read_audio(folder.audio)
    # The stride becomes a whole number of samples, so that at 22,050 samples a second vectors asked for each 0.01 s are
    # 9.977 ms apart: 2 s in a quarter of an hour, if this were ignored.
    window, stride = (whole_samples(seconds, rate) for seconds in (config.mfcc_window_size, config.stride))
    made_with = {
        **mfcc_settings(config),
        "start_ts": folder.start_s(),
        "audio": fingerprint(folder.audio),
        "hop_s": stride / rate,
    }
    if stride < 1 or window < LEAST_WINDOW:
        raise MediaError(
            f"{folder.audio} has {rate} samples a second: for a mfcc_window_size of {config.mfcc_window_size:g} s and "
            f"a stride of {config.stride:g} s these are too few; make both longer"
        )
    if len(samples) <= window:
        raise MediaError(f"{folder.audio} has {len(samples) / rate:.3f} s, less than a window of MFCCs")
    if folder.made_with(STEP) == made_with and is_whole(folder, config, vectors(len(samples), window, stride)):
        return
    audio = samples.astype(np.float32) / 32768
    audio = audio if audio.ndim == 1 else audio.mean(axis=1)
    values = mfcc(audio, rate, coefficients=config.nmfcc, window=window, stride=stride)
    folder.begin(STEP)
    with atomic_write(folder.mfccs) as temporary:
        np.save(temporary, normalised(values, mean=config.apply_mean, deviation=config.apply_stddev))
    folder.finish(STEP, made_with)


def is_whole(folder: VideoFolder, config: Config, expected: int) -> bool:
    """Whether the MFCCs in a folder can be read, and are as many vectors as expected."""
    try:
        return open_mfccs(folder, config).shape[1] == expected
    except UserError:
        return False
