"""Speech-like audio for the synthetic set: syllables, what they do to loudness and mouth, and how a voice sounds.

A syllable is a bump of loudness with one of three vowels. Loudness opens the mouth; the vowel sets both the mouth's
width and the formants, so that video and audio agree in level and in spectrum. Who speaks cannot be told from the
audio alone: pitch and vocal tract length are drawn per voice, independent of looks.
"""

from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
import scipy.signal

from core.clip_utils import SAMPLE_RATE

CONTROL_RATE = 200  # values per second of loudness and vowel: syllables need far less
CLOSED_PAUSE_S = 0.3  # shorter pauses between syllables still count as speaking
SYLLABLES_PER_S = (3.2, 5.6)  # range of a person's mean rate
# Formants (Hz) of the vowels with spread, neutral and rounded lips; after Peterson & Barney (1952), /ɪ/, /ʌ/, /ʊ/,
# pulled apart a little.
VOWEL_FORMANTS_HZ = ((420, 2150, 2800), (740, 1300, 2450), (400, 850, 2250))
VOWEL_WIDTHS = np.array([1.0, 0.0, -1.0])  # of the mouth, 1 spread to -1 rounded
FORMANT_BANDWIDTHS_HZ = (80, 110, 170)
SYLLABLE_DB = 8  # by which the mean syllable is quieter than loudness 1; other audio is set against it


@dataclass(frozen=True)
class Voice:
    """How somebody sounds.

    Attributes:
        pitch_hz: mean fundamental frequency.
        tract: factor on all formants, 1 for an average vocal tract, larger for a shorter one.
        syllables_per_s: mean rate of speech.
    """

    pitch_hz: float
    tract: float
    syllables_per_s: float


@dataclass(frozen=True)
class Syllables:
    """What somebody says, in order: arrays (syllable,); times in seconds, strength 0-1, vowel 0-2, hiss bool."""

    start_s: np.ndarray
    end_s: np.ndarray
    strength: np.ndarray
    vowel: np.ndarray
    hiss: np.ndarray

    @classmethod
    def joined(cls, parts: list["Syllables"]) -> "Syllables":
        """All syllables of several utterances, sorted by their start."""
        if not parts:
            return cls(*(np.zeros(0) for _ in range(3)), np.zeros(0, int), np.zeros(0, bool))
        order = np.argsort(np.concatenate([part.start_s for part in parts]), kind="stable")
        return cls(*(np.concatenate([getattr(part, name) for part in parts])[order] for name in cls.__annotations__))

    def later(self, by_s: float) -> "Syllables":
        """The same, said `by_s` seconds later; earlier where it is negative."""
        return replace(self, start_s=self.start_s + by_s, end_s=self.end_s + by_s)


@dataclass(frozen=True)
class Contours:
    """Syllables as curves at CONTROL_RATE.

    Attributes:
        loudness: (time,) 0-1.
        vowels: (time, vowel), shares that sum to 1.
        hiss: (time,) 0-1.
    """

    loudness: np.ndarray
    vowels: np.ndarray
    hiss: np.ndarray


def draw_voice(rng: np.random.Generator) -> Voice:
    """A voice somewhere between a low male and a child's."""
    return Voice(
        pitch_hz=float(np.exp(rng.uniform(np.log(90), np.log(260)))),
        tract=float(rng.uniform(0.9, 1.15)),
        syllables_per_s=float(rng.uniform(*SYLLABLES_PER_S)),
    )


def utter(rng: np.random.Generator, voice: Voice, start_s: float, end_s: float) -> Syllables:
    """Syllables that fill [start_s, end_s): phrases of three to nine, with pauses of 0.1 to 0.5 s between them."""
    rows = []
    time_s, left_in_phrase = start_s, rng.integers(3, 10)
    while True:
        length_s = rng.uniform(0.65, 1.45) / voice.syllables_per_s
        if time_s + length_s > end_s:
            break
        # Neighbours overlap a little: the mouth seldom shuts wholly within a phrase.
        rows.append((time_s, time_s + 1.15 * length_s, rng.uniform(0.4, 1.0), rng.integers(3), rng.random() < 0.15))
        time_s += length_s
        left_in_phrase -= 1
        if left_in_phrase == 0:
            time_s += rng.uniform(0.1, 0.5)
            left_in_phrase = rng.integers(3, 10)
    columns = np.array(rows).reshape(-1, 5).T
    return Syllables(columns[0], columns[1], columns[2], columns[3].astype(int), columns[4].astype(bool))


def speaking_spans(syllables: Syllables) -> np.ndarray:
    """When somebody speaks, (span, [start_s, end_s]): the syllables with pauses up to CLOSED_PAUSE_S closed."""
    start, end = syllables.start_s, syllables.end_s
    if len(start) == 0:
        return np.zeros((0, 2))
    breaks = start[1:] - end[:-1] > CLOSED_PAUSE_S
    return np.stack([start[np.r_[True, breaks]], end[np.r_[breaks, True]]], axis=1)


def contours(syllables: Syllables, seconds: float) -> Contours:
    """The curves of syllables over [0, seconds); what lies outside is cut off."""
    size = round(seconds * CONTROL_RATE)
    times = np.arange(size) / CONTROL_RATE
    # Each syllable is one raised cosine, (syllable, time); where neighbours overlap the louder one counts.
    phase = (times - syllables.start_s[:, None]) / (syllables.end_s - syllables.start_s)[:, None]
    bumps = syllables.strength[:, None] * np.where((phase > 0) & (phase < 1), np.sin(np.pi * phase) ** 2, 0.0)
    loudness = bumps.max(0, initial=0.0)
    vowels = np.stack([bumps[syllables.vowel == vowel].max(0, initial=0.0) for vowel in range(3)], axis=1)
    vowels = scipy.ndimage.gaussian_filter1d(vowels, 0.03 * CONTROL_RATE, axis=0)
    vowels += np.array([1e-6, 1e-3, 1e-6])  # in silence the neutral one
    # A fricative fills the first third of its syllable, before the vowel is loud.
    opened = syllables.hiss[:, None] & (phase > 0) & (phase < 0.33)
    hiss = np.where(opened, np.sin(np.pi * phase / 0.33) ** 2, 0.0).max(0, initial=0.0)
    return Contours(loudness, vowels / vowels.sum(1, keepdims=True), hiss)


def mouth(curves: Contours, frames: int, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """The mouth that makes these sounds, at frame times index / fps.

    Returns:
        opening (frame,) 0 shut to 1 wide open; width (frame,) -1 rounded to 1 spread. Both without lag.
    """
    times = np.arange(frames) / fps
    control_times = np.arange(len(curves.loudness)) / CONTROL_RATE
    opening = scipy.ndimage.gaussian_filter1d(curves.loudness, 0.015 * CONTROL_RATE) ** 0.8
    width = (curves.vowels @ VOWEL_WIDTHS) * np.minimum(1, 3 * opening)  # lips at rest are neither
    return np.interp(times, control_times, opening), np.interp(times, control_times, width)


def voiced_audio(rng: np.random.Generator, voice: Voice, curves: Contours, samples: int) -> np.ndarray:
    """The audio of a voice that follows the curves: (samples,) float64 with an RMS of 1 at loudness 1."""
    source = _glottal_pulses(rng, voice.pitch_hz, samples)
    vowels = _at_sample_rate(curves.vowels, samples)
    audio = np.zeros(samples)
    for vowel, formants in enumerate(VOWEL_FORMANTS_HZ):
        filtered = scipy.signal.sosfilt(_formant_filter(np.multiply(formants, voice.tract)), source)
        audio += vowels[:, vowel] * filtered / np.sqrt(np.mean(filtered**2))
    audio *= _at_sample_rate(curves.loudness, samples)
    if curves.hiss.any():
        bands = scipy.signal.butter(2, (3000, 7000), "bandpass", fs=SAMPLE_RATE, output="sos")
        noise = scipy.signal.sosfilt(bands, rng.standard_normal(samples))
        audio += 0.2 * _at_sample_rate(curves.hiss, samples) * noise / np.sqrt(np.mean(noise**2))
    return audio


def room_tone(rng: np.random.Generator, samples: int) -> np.ndarray:
    """What a microphone hears when nobody speaks: (samples,) float64 of RMS 1, dull noise, mains hum and some hiss."""
    noise = rng.standard_normal(samples)
    dull = scipy.signal.lfilter([1], [1, -rng.uniform(0.85, 0.97)], noise)
    times = np.arange(samples) / SAMPLE_RATE
    mains_hz = rng.choice([50, 60])
    hum = sum(np.sin(2 * np.pi * (mains_hz * k * times + rng.random())) / k for k in (1, 2, 3))
    tone = dull / dull.std() + rng.uniform(0.1, 0.5) * noise + rng.uniform(0, 0.6) * hum
    return tone / np.sqrt(np.mean(tone**2))


def music(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Chords of a few instruments over a beat: (samples,) float64 of RMS 1."""
    times = np.arange(samples) / SAMPLE_RATE
    beat_s = 60 / rng.uniform(70, 150)
    since_beat = times % beat_s
    audio = rng.uniform(0, 1) * np.exp(-30 * since_beat) * rng.standard_normal(samples)
    root_hz = rng.uniform(80, 220)
    steps = (times // (beat_s * rng.integers(1, 5))).astype(int)
    chords = rng.integers(0, 12, steps.max(initial=0) + 1)[steps]
    for interval in (0, 4, 7, 12):
        # The phase is the integral of the frequency: a chord that changes does not click.
        phase = 2 * np.pi * np.cumsum(root_hz * 2 ** ((chords + interval) / 12)) / SAMPLE_RATE
        audio += sum(np.sin(number * phase + rng.uniform(0, 6)) / number**1.5 for number in range(1, 6))
    audio *= 1 + rng.uniform(0, 0.6) * np.exp(-3 * since_beat)
    return audio / np.sqrt(np.mean(audio**2))


def noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Wind, traffic, rain: coloured noise whose level swells, (samples,) float64 of RMS 1."""
    audio = scipy.signal.lfilter([1], [1, -rng.uniform(0, 0.97)], rng.standard_normal(samples))
    knots = np.exp(rng.uniform(0, 0.8) * rng.standard_normal(max(2, samples // SAMPLE_RATE + 2)))
    audio *= np.interp(np.linspace(0, len(knots) - 1, samples), np.arange(len(knots)), knots)
    return audio / np.sqrt(np.mean(audio**2))


def babble(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Three to seven voices at once, of nobody in particular: (samples,) float64 of RMS 1."""
    seconds, audio = samples / SAMPLE_RATE, np.zeros(samples)
    for _ in range(rng.integers(3, 8)):
        voice = draw_voice(rng)
        said = utter(rng, voice, -rng.uniform(0, 1), seconds)
        audio += rng.uniform(0.4, 1) * voiced_audio(rng, voice, contours(said, seconds), samples)
    return audio / np.sqrt(np.mean(audio**2))


def behind(speech: np.ndarray, other: np.ndarray, snr_db: float) -> np.ndarray:
    """Speech with other audio of RMS 1 that is `snr_db` quieter than it; both (samples,) float64."""
    return speech + 10 ** (-(SYLLABLE_DB + snr_db) / 20) * other


def mixed(rng: np.random.Generator, speech: np.ndarray) -> np.ndarray:
    """Speech in a room as 16-bit samples: noise 12 to 30 dB below the speech, overall level drawn.

    Args:
        speech: (samples,) float64, scaled as `voiced_audio` gives it.

    Returns:
        (samples,) int16.
    """
    snr_db = rng.uniform(12, 30)
    level = 10 ** (rng.uniform(-28, -18) / 20)  # of full scale, at loudness 1
    heard = level * behind(speech, room_tone(rng, len(speech)), snr_db)
    return np.clip(np.round(heard * 32767), -32768, 32767).astype(np.int16)


def _glottal_pulses(rng: np.random.Generator, pitch_hz: float, samples: int) -> np.ndarray:
    """A pulse train whose pitch wanders by some 10 %, with the spectral tilt of a glottis (about -12 dB an octave)."""
    knots = rng.standard_normal(max(2, samples * 3 // SAMPLE_RATE + 2))  # three a second, as intonation moves
    wander = np.interp(np.linspace(0, len(knots) - 1, samples), np.arange(len(knots)), knots)
    cycles = np.floor(np.cumsum(pitch_hz * np.exp(0.1 * wander) / SAMPLE_RATE))
    pulses = np.diff(cycles, prepend=0.0) + 0.01 * rng.standard_normal(samples)  # with a little breath
    return scipy.signal.lfilter([1, -1], [1, -1.8, 0.81], pulses)  # [1, -1]: the lips radiate the derivative


def _formant_filter(formants_hz: np.ndarray) -> np.ndarray:
    """A cascade of two-pole resonances (Klatt 1980, eq. 1-2) as second-order sections."""
    radius = np.exp(-np.pi * np.array(FORMANT_BANDWIDTHS_HZ) / SAMPLE_RATE)
    b = -2 * radius * np.cos(2 * np.pi * formants_hz / SAMPLE_RATE)
    gain = 1 + b + radius**2
    zero, one = np.zeros(3), np.ones(3)
    return np.stack([gain, zero, zero, one, b, radius**2], axis=1)


def _at_sample_rate(curve: np.ndarray, samples: int) -> np.ndarray:
    """Linear interpolation of (time, ...) from CONTROL_RATE to `samples` values."""
    position = np.arange(samples) * (CONTROL_RATE / SAMPLE_RATE)
    known = np.arange(len(curve))
    if curve.ndim == 1:
        return np.interp(position, known, curve)
    return np.stack([np.interp(position, known, column) for column in curve.T], axis=1)
