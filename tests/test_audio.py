"""Audio: the right sample at the right time."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io.wavfile
from tiny import FPS, tiny_frame
from videos import click_times, clicks, encode, frame_times, heard

from core.clip_utils import SAMPLE_RATE
from core.formats.wav import read_wav
from core.media.audio import decode_audio, extract_audio
from core.media.container import MediaFile
from core.runtime.errors import MediaError

CLICK_MS = 3.0  # AAC smears a click over a part of its window; its peak stays


def video_with(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE, video_start_s: float = 0.0, **options) -> Path:
    """A video as long as its audio; options as of `videos.encode`."""
    frames = round(np.shape(samples)[-1] / rate * FPS)
    times_s = video_start_s + np.arange(frames) / FPS
    return encode(
        path, (tiny_frame(number % 50) for number in range(frames)), times_s, audio=samples, rate=rate, **options
    )


def extracted(video: Path) -> np.ndarray:
    """The samples of the wav that is extracted from a video."""
    with MediaFile(video) as media:
        extract_audio(media, video.with_suffix(".wav"))
    return read_wav(video.with_suffix(".wav"))


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_click_stays_at_its_time(tmp_path, rate):
    """AAC in mp4: the encoder's delay and the resampler's are both taken out."""
    times = [0.2, 0.75, 1.5, 1.9]
    samples = extracted(video_with(tmp_path / "a.mp4", clicks(times, 2.0, rate), rate))
    np.testing.assert_allclose(click_times(samples), times, atol=CLICK_MS / 1000)
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0, abs=0.07)  # whole AAC blocks


def test_the_wav_is_16_khz_mono_16_bit(tmp_path):
    video = video_with(tmp_path / "a.mp4", clicks([0.5], 1.0, 44_100), 44_100)
    extract_audio(MediaFile(video), tmp_path / "out" / "-a.wav")
    rate, samples = scipy.io.wavfile.read(tmp_path / "out" / "-a.wav")
    assert (rate, samples.dtype, samples.ndim) == (16_000, np.int16, 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["-a.wav"]


def test_stereo_is_mixed_from_both_channels(tmp_path):
    left, right = clicks([0.3], 1.0, 44_100), clicks([0.6], 1.0, 44_100)
    samples = extracted(video_with(tmp_path / "a.mp4", np.stack([left, right]), 44_100))
    np.testing.assert_allclose(click_times(samples), [0.3, 0.6], atol=CLICK_MS / 1000)


@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
@pytest.mark.parametrize("start_s", [10.0, 95.44])
def test_video_and_audio_of_a_file_that_begins_late_stay_aligned(tmp_path, name, start_s):
    """Time 0 is the container's start for both, wherever the streams' clocks begin."""
    video = video_with(tmp_path / name, clicks([0.5, 1.0], 1.5), video_start_s=start_s, audio_start_s=start_s)
    assert MediaFile(video).offset_s > start_s - 0.2
    times_s = frame_times(video)
    # The encoder's 1,024 samples of delay may stand before the first sample: then video and audio shift alike.
    delay_s = times_s[0]
    assert 0 <= delay_s < 0.066
    np.testing.assert_allclose(times_s, delay_s + np.arange(len(times_s)) / FPS, atol=2e-3)
    np.testing.assert_allclose(click_times(extracted(video)), [delay_s + 0.5, delay_s + 1.0], atol=CLICK_MS / 1000)


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4"])
def test_silence_stands_before_audio_that_begins_after_the_video(tmp_path, name):
    video = video_with(tmp_path / name, clicks([0.1, 0.6], 1.2), video_start_s=2.0, audio_start_s=2.3)
    samples, start_s = extracted(video), frame_times(video)[0]
    np.testing.assert_allclose(click_times(samples), [start_s + 0.4, start_s + 0.9], atol=CLICK_MS / 1000)
    assert not samples[: int(0.2 * SAMPLE_RATE)].any()


def test_audio_that_begins_before_the_video_is_kept(tmp_path):
    video = video_with(tmp_path / "a.mkv", clicks([0.1, 0.6], 1.2), video_start_s=0.4, audio_codec="pcm_s16le")
    assert frame_times(video)[0] == pytest.approx(0.4, abs=2e-3)
    np.testing.assert_allclose(click_times(extracted(video)), [0.1, 0.6], atol=CLICK_MS / 1000)


def test_a_gap_in_the_audio_is_filled_with_silence(tmp_path):
    """Half a second is missing from second 0.512 on: what follows stays at its own time."""
    video = video_with(tmp_path / "a.mkv", clicks([0.3, 0.8], 1.2), audio_codec="pcm_s16le", gap=(0.512, 0.5))
    samples = extracted(video)
    np.testing.assert_allclose(click_times(samples), [0.3, 1.3], atol=CLICK_MS / 1000)
    assert not samples[int(0.55 * SAMPLE_RATE) : int(1.0 * SAMPLE_RATE)].any()
    assert len(samples) / SAMPLE_RATE == pytest.approx(1.7, abs=0.01)


def test_rounded_packet_times_do_not_add_up_or_break_the_audio(tmp_path):
    """Container times are whole milliseconds; a tone goes through without cracks and keeps its length and phase."""
    rate, seconds = 44_100, 20.0
    tone = 10_000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    samples = extracted(video_with(tmp_path / "a.mkv", tone.astype(np.int16), rate, audio_codec="pcm_s16le"))
    assert abs(len(samples) - seconds * SAMPLE_RATE) <= 1
    expected = 10_000 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / SAMPLE_RATE)
    inner = slice(100, -100)  # a filter's ends ring
    assert np.abs(samples[inner] - expected[inner]).max() < 100


def test_audio_from_before_time_0_is_dropped(tmp_path):
    path = video_with(tmp_path / "a.mkv", clicks([0.1, 0.5, 0.9], 1.2), audio_codec="pcm_s16le")
    media = MediaFile(path, tolerant=True)  # by its header the audio is longer
    media.offset_s = 0.3
    samples = np.concatenate(list(decode_audio(media)))
    np.testing.assert_allclose(click_times(samples), [0.2, 0.6], atol=CLICK_MS / 1000)
    assert len(samples) / SAMPLE_RATE == pytest.approx(0.9, abs=0.001)


def with_tags(path: Path, kept: bool) -> Path:
    """A Matroska file whose header has each stream's length, or that of the whole file alone."""
    content = path.read_bytes()
    assert content.count(b"DURATION") == 2
    if not kept:
        path.write_bytes(content.replace(b"DURATION", b"DURATI0N"))
    return path


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize(("suffix", "codec", "rate"), [(".mkv", "aac", 16_000), (".webm", "libopus", 48_000)])
def test_audio_of_a_file_that_is_cut_off_is_refused(tmp_path, suffix, codec, rate, tags):
    video = {"codec": "libvpx-vp9"} if suffix == ".webm" else {}
    samples = np.random.default_rng(0).integers(-9000, 9000, 2 * rate).astype(np.int16)
    path = encode(
        tmp_path / f"a{suffix}",
        [tiny_frame(n) for n in range(50)],
        audio=samples,
        rate=rate,
        audio_codec=codec,
        **video,
    )
    whole = with_tags(path, tags).read_bytes()
    extract_audio(MediaFile(path), tmp_path / "whole.wav")
    assert len(read_wav(tmp_path / "whole.wav")) / SAMPLE_RATE == pytest.approx(2, abs=0.05)
    path.write_bytes(whole[: len(whole) * 7 // 10])
    with pytest.raises(
        MediaError, match=rf"a{suffix} is cut off: its audio ends at 1\.\d+ s, and by its header at (2|1\.9)"
    ):
        extract_audio(MediaFile(path), tmp_path / "cut.wav")
    assert not (tmp_path / "cut.wav").exists()


def test_audio_that_is_shorter_than_the_frames_is_not_cut_off(tmp_path):
    samples = np.random.default_rng(0).integers(-9000, 9000, SAMPLE_RATE).astype(np.int16)
    for tags in (True, False):
        path = encode(tmp_path / "a.mkv", [tiny_frame(number) for number in range(50)], audio=samples)
        assert len(heard(with_tags(path, tags))) / SAMPLE_RATE == pytest.approx(1, abs=0.1)


def test_a_video_without_audio_is_refused_and_leaves_no_wav(tmp_path):
    media = MediaFile(encode(tmp_path / "mute.mp4", [tiny_frame(number) for number in range(5)]))
    with pytest.raises(MediaError, match=r"mute\.mp4 has no audio stream"):
        extract_audio(media, tmp_path / "out" / "mute.wav")
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("audio-44.1k-stereo.mp4", 4.853), ("container.mkv", 5.038), ("fps-29.97.mp4", 4.574), ("rotation-90", 5.013)],
)
def test_real_audio_of_other_rates_and_channels(unusual, name, seconds):
    [path] = unusual.glob(f"{name}*")
    samples = heard(path)
    assert len(samples) / SAMPLE_RATE == pytest.approx(seconds, abs=0.05)
    assert np.abs(samples.astype(np.int32)).max() > 1000
