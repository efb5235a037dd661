"""Sound: a video's track as 16 kHz mono, the samples of a clip, and its MFCCs.

All numbers are those of the published code, whose weights depend on them; MFCCs are python_speech_features' defaults.
"""

import functools
import struct
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import python_speech_features as psf
import scipy.fft
import scipy.io.wavfile
import torch

from core.errors import UserError
from core.files import written_whole
from core.media import Damage, MediaError, decoded, open_media, sound_stream, start_of

SAMPLE_RATE = 16_000  # samples per second, mono, 16 bit
MIN_CLIP_SAMPLES = int(SAMPLE_RATE * (2 / 25))  # 0.08 s: shorter clips count as silence
FITTED_FRAMES_PER_S = 27.0  # a clip of n frames is made n/27 s long, as the published loader does
SILENT_FRAMES_PER_S = 25.0
GAP_S = 0.04  # a jump in the stream's times beyond one video frame is a gap in the sound, not jitter
DRIFT_S = 1.0  # times that differ by more than that from the count of samples, for so long, are right

# python_speech_features.mfcc's defaults at 16 kHz
MFCC_COEFFICIENTS = 13
MFCC_WINDOW = int(0.025 * SAMPLE_RATE)  # 400 samples
MFCC_STEP = int(0.01 * SAMPLE_RATE)  # 160 samples
MFCC_FFT = 512  # the next power of two
MFCC_FILTERS = 26
MFCC_LIFTER = 22
MFCC_PREEMPHASIS = 0.97

TRACK_WINDOWS_PER_FRAME = 4  # of the whole-track encoders, at 25 frames a second
WINDOWS_AT_ONCE = 6000  # a minute; bounds the memory that a long track's MFCCs take


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


def read_wav(path: str | Path) -> np.ndarray:
    """Memory-map a 16 kHz mono 16-bit wav: (samples,) int16.

    Raises:
        UserError: the file is absent, no wav, or of another rate, width or number of channels.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no sound file {path}: run data/extract_audio_tracks.py and data/slice_audio_tracks.py")
    try:
        rate, samples = scipy.io.wavfile.read(path, mmap=True)
    except (ValueError, EOFError, struct.error) as error:
        raise UserError(f"{path} is no readable wav ({error}): delete it and run the audio steps again") from error
    if rate != SAMPLE_RATE or samples.dtype != np.int16 or samples.ndim != 1:
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        raise UserError(
            f"{path} has {rate} Hz, {channels} channel(s), {samples.dtype}: expected {SAMPLE_RATE} Hz mono int16; "
            "make it with data/extract_audio_tracks.py and data/slice_audio_tracks.py"
        )
    return samples


def write_wav(path: str | Path, samples: np.ndarray) -> None:
    """Write (samples,) int16 as a 16 kHz mono wav, whole or not at all."""
    with written_whole(path) as temporary:
        scipy.io.wavfile.write(temporary, SAMPLE_RATE, np.ascontiguousarray(samples, dtype=np.int16))


def fitted_length(clip_length: int) -> int:
    """Samples that the sound of `clip_length` frames is made to have: frames / 27 s (published loader)."""
    return int((1 / FITTED_FRAMES_PER_S) * SAMPLE_RATE * clip_length)


def clip_samples(track: np.ndarray, first_s: float, last_s: float, clip_length: int) -> np.ndarray:
    """The sound of a clip, fitted to the length that the audio stream takes.

    Args:
        track: (samples,) int16 of the entity, from its first timestamp on.
        first_s, last_s: times of the clip's first and last frame, in seconds after the entity's first timestamp.
        clip_length: frames of the clip.

    Returns:
        (samples,) int16 of about `fitted_length`: the published loader's rounding leaves it up to one short or two
        long. Below 0.08 s of sound (clips clamped at a track's end, tracks of one or two rows) it is silence.
    """
    samples = track[int(first_s * SAMPLE_RATE) : int(last_s * SAMPLE_RATE)]
    if len(samples) < MIN_CLIP_SAMPLES:
        samples = np.zeros(int(SAMPLE_RATE * (clip_length / SILENT_FRAMES_PER_S)), np.int16)
    return fit(samples, fitted_length(clip_length))


def fit(samples: np.ndarray, length: int) -> np.ndarray:
    """Reflect-pad or trim both sides alike, with the published loader's rounding."""
    if len(samples) <= length:
        pad = (length - len(samples)) // 2
        return np.pad(samples, pad, mode="reflect")
    trim = (len(samples) - length - 1) // 2
    return samples[trim : len(samples) - trim]


def mfcc(samples: np.ndarray) -> np.ndarray:
    """One clip's MFCCs by python_speech_features: (1, coefficient 13, window) float32."""
    return psf.mfcc(samples, SAMPLE_RATE).T[None].astype(np.float32)


def mfcc_windows(samples: int) -> int:
    """How many windows python_speech_features makes of a number of samples."""
    return 1 if samples <= MFCC_WINDOW else 1 + -(-(samples - MFCC_WINDOW) // MFCC_STEP)


def batch_mfcc(clips: torch.Tensor, lengths: torch.Tensor, windows: int | None = None) -> torch.Tensor:
    """MFCCs of many clips at once, equal to python_speech_features' within float32 rounding, on any device.

    Args:
        clips: (batch, samples) int16 or float, zero after each clip's own end.
        lengths: (batch,) int64, each clip's own number of samples.
        windows: analysis windows to return; by default those of the whole `samples` axis.

    Returns:
        (batch, 1, coefficient 13, window) float32. Computed in float64: in float32 the spectrum of quiet bands
        beside loud ones loses the digits that the logarithm then shows.
    """
    windows = windows or mfcc_windows(clips.shape[1])
    emphasised = _emphasised(clips)
    position = torch.arange(clips.shape[1], device=clips.device)
    emphasised.masked_fill_(position >= lengths[:, None], 0.0)
    return _windowed_mfcc(emphasised, windows).unsqueeze(1)


def _emphasised(clips: torch.Tensor) -> torch.Tensor:
    """(batch, sample) -> the same in float64, each sample less most of the one before it."""
    signal = clips.to(torch.float64)
    emphasised = signal.clone()
    emphasised[:, 1:] -= MFCC_PREEMPHASIS * signal[:, :-1]
    return emphasised


def _windowed_mfcc(emphasised: torch.Tensor, windows: int) -> torch.Tensor:
    """(batch, sample) float64 -> (batch, coefficient 13, window) float32."""
    needed = (windows - 1) * MFCC_STEP + MFCC_WINDOW
    emphasised = torch.nn.functional.pad(emphasised, (0, max(0, needed - emphasised.shape[1])))[:, :needed]
    return mfcc_of_windows(emphasised.unfold(1, MFCC_WINDOW, MFCC_STEP)).transpose(1, 2)


def mfcc_of_windows(windows: torch.Tensor, fft: int = MFCC_FFT) -> torch.Tensor:
    """MFCCs of windows of pre-emphasised sound: (..., sample) float64 -> (..., coefficient 13) float32.

    Args:
        windows: of one length.
        fft: points of the spectrum, at least as many as a window has samples.
    """
    spectrum = torch.fft.rfft(windows, fft)
    power = (spectrum.real.square() + spectrum.imag.square()) / fft  # (..., bin)
    filters, cosines = _mfcc_matrices(fft)
    smallest = torch.finfo(torch.float64).eps  # stands for zero before a logarithm, as in python_speech_features
    energy = power.sum(-1)
    bands = power @ filters.to(windows.device)
    bands = bands.masked_fill_(bands == 0, smallest).log_()
    coefficients = bands @ cosines.to(windows.device)
    coefficients[..., 0] = energy.masked_fill_(energy == 0, smallest).log_()
    return coefficients.to(torch.float32)


def track_samples(frames: int) -> int:
    """Samples at 16 kHz that the MFCCs of a track of `frames` frames at 25 a second are made of."""
    return TRACK_WINDOWS_PER_FRAME * frames * MFCC_STEP + MFCC_WINDOW - MFCC_STEP


def track_mfcc(samples: np.ndarray, frames: int) -> np.ndarray:
    """The MFCCs of a face track at 25 frames a second, four windows a frame, as whole-track encoders take them.

    The numbers are python_speech_features'; memory does not grow with the track but for the result.

    Args:
        samples: (sample,) int16 from the time of the track's first frame on; `track_samples(frames)` of them are used,
            what is missing counts as silence.
        frames: of the track.

    Returns:
        (4 * frames, 13) float32.
    """
    windows = TRACK_WINDOWS_PER_FRAME * frames
    out = np.empty((windows, MFCC_COEFFICIENTS), np.float32)
    for start in range(0, windows, WINDOWS_AT_ONCE):
        count = min(WINDOWS_AT_ONCE, windows - start)
        # A sample more at the front, 0 before the first one: it is in no window, but the pre-emphasis needs it.
        block = np.zeros(1 + (count - 1) * MFCC_STEP + MFCC_WINDOW, np.int16)
        before = start * MFCC_STEP - 1
        given = samples[max(0, before) : before + len(block)]
        block[max(0, -before) :][: len(given)] = given
        out[start : start + count] = _windowed_mfcc(_emphasised(torch.from_numpy(block)[None])[:, 1:], count)[0].T
    return out


@functools.cache
def _mfcc_matrices(fft: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mel filters (bin, filter) and the liftered cosine transform (filter, coefficient), float64."""
    filters = psf.get_filterbanks(MFCC_FILTERS, fft, SAMPLE_RATE)
    cosines = scipy.fft.dct(np.eye(MFCC_FILTERS), type=2, axis=1, norm="ortho")[:, :MFCC_COEFFICIENTS]
    cosines = psf.lifter(cosines, MFCC_LIFTER)
    return torch.from_numpy(filters.T.copy()), torch.from_numpy(np.ascontiguousarray(cosines))


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
