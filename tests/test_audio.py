"""Sound: the right sample at the right time."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import scipy.io.wavfile
from tiny import FPS, picture

from core.formats.wav import SAMPLE_RATE, read_wav
from core.media.audio import decode_audio, extract_track
from core.media.video import read_frames
from core.media.video_writer import write_video
from core.runtime.errors import MediaError

CLICK_MS = 3.0  # AAC smears a click over a part of its window; its peak stays


def clicks(times_s: list[float], seconds: float, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Silence with bursts of 2 ms that begin at the given times: (samples,) int16."""
    samples = np.zeros(round(seconds * rate), np.int16)
    burst = (20_000 * np.sin(np.arange(rate // 500) / rate * 2 * np.pi * 1000)).astype(np.int16)
    for time_s in times_s:
        start = round(time_s * rate)
        samples[start : start + len(burst)] = burst
    return samples


def click_times(samples: np.ndarray) -> list[float]:
    """Where the bursts of a decoded track begin, in seconds."""
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > 6000) / SAMPLE_RATE
    return [float(loud[i]) for i in range(len(loud)) if i == 0 or loud[i] - loud[i - 1] > 0.05]


def encode(
    path: Path,
    samples: np.ndarray,
    rate: int = SAMPLE_RATE,
    picture_start_s: float = 0.0,
    sound_start_s: float = 0.0,
    codec: str = "aac",
    gap: tuple[float, float] | None = None,
) -> Path:
    """A video whose picture and sound begin at given container times.

    Args:
        samples: (samples,) or (channel, samples) int16.
        gap: (second of the sound at which it stops, seconds for which nothing is told).
    """
    samples = np.atleast_2d(samples)
    layout = "mono" if len(samples) == 1 else "stereo"
    frames = round(samples.shape[1] / rate * FPS)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FPS, options={"crf": "20"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=rate, layout=layout)
        packets = []
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number % 50), format="rgb24")
            frame.pts, frame.time_base = number + round(picture_start_s * FPS), Fraction(1, FPS)
            packets += video.encode(frame)
        packets += video.encode(None)
        for start in range(0, samples.shape[1], 1024):
            block = np.ascontiguousarray(samples[:, start : start + 1024].T.reshape(1, -1))
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout=layout)
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            late_s = gap[1] if gap and start / rate >= gap[0] else 0.0
            frame.pts = start + round((sound_start_s + late_s) * rate)
            packets += sound.encode(frame)
        packets += sound.encode(None)
        for packet in sorted(packets, key=lambda packet: float(packet.dts * packet.time_base)):
            container.mux(packet)
    return path


def track(video: Path, folder: Path) -> np.ndarray:
    """The samples of the wav that is extracted from a video."""
    extract_track(video, folder / "track.wav")
    return read_wav(folder / "track.wav")


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_click_stays_at_its_time(tmp_path, rate):
    """AAC in mp4: the encoder's delay and the resampler's are both taken out."""
    times = [0.2, 0.75, 1.5, 1.9]
    video = tmp_path / "a.mp4"
    write_video(video, (picture(number) for number in range(50)), FPS, clicks(times, 2.0, rate), rate)
    samples = track(video, tmp_path)
    np.testing.assert_allclose(click_times(samples), times, atol=CLICK_MS / 1000)
    assert len(samples) / SAMPLE_RATE == pytest.approx(2.0, abs=0.07)  # whole AAC blocks


def test_the_wav_is_16_khz_mono_16_bit(tmp_path):
    extract_track(encode(tmp_path / "a.mp4", clicks([0.5], 1.0, 44_100), 44_100), tmp_path / "out" / "-a.wav")
    rate, samples = scipy.io.wavfile.read(tmp_path / "out" / "-a.wav")
    assert (rate, samples.dtype, samples.ndim) == (16_000, np.int16, 1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["-a.wav"]


def test_stereo_is_mixed_from_both_channels(tmp_path):
    left, right = clicks([0.3], 1.0, 44_100), clicks([0.6], 1.0, 44_100)
    samples = track(encode(tmp_path / "a.mp4", np.stack([left, right]), 44_100), tmp_path)
    np.testing.assert_allclose(click_times(samples), [0.3, 0.6], atol=CLICK_MS / 1000)


@pytest.mark.parametrize("name", ["a.ts", "a.mkv"])
@pytest.mark.parametrize("start_s", [10.0, 95.44])
def test_picture_and_sound_of_a_file_that_begins_late_stay_aligned(tmp_path, name, start_s):
    """Time 0 is the container's start for both, wherever the streams' clocks begin."""
    video = encode(tmp_path / name, clicks([0.5, 1.0], 1.5), picture_start_s=start_s, sound_start_s=start_s)
    with av.open(str(video)) as container:
        assert container.start_time / av.time_base > start_s - 0.2
    picture_times = [frame.time_s for frame in read_frames(video)]
    # The encoder's 1,024 samples of delay may stand before the first sound: then picture and sound shift alike.
    delay_s = picture_times[0]
    assert 0 <= delay_s < 0.066
    np.testing.assert_allclose(picture_times, delay_s + np.arange(len(picture_times)) / FPS, atol=2e-3)
    found = click_times(track(video, tmp_path))
    np.testing.assert_allclose(found, [delay_s + 0.5, delay_s + 1.0], atol=CLICK_MS / 1000)


@pytest.mark.parametrize("name", ["a.ts", "a.mkv", "a.mp4"])
def test_silence_stands_before_sound_that_begins_after_the_picture(tmp_path, name):
    times = [0.1, 0.6]
    video = encode(tmp_path / name, clicks(times, 1.2), picture_start_s=2.0, sound_start_s=2.3)
    picture_start = next(read_frames(video)).time_s
    samples = track(video, tmp_path)
    np.testing.assert_allclose(click_times(samples), [picture_start + 0.4, picture_start + 0.9], atol=CLICK_MS / 1000)
    assert not samples[: int(0.2 * SAMPLE_RATE)].any()


def test_sound_that_begins_before_the_picture_is_kept(tmp_path):
    video = encode(tmp_path / "a.mkv", clicks([0.1, 0.6], 1.2), picture_start_s=0.4, codec="pcm_s16le")
    assert next(read_frames(video)).time_s == pytest.approx(0.4, abs=2e-3)
    np.testing.assert_allclose(click_times(track(video, tmp_path)), [0.1, 0.6], atol=CLICK_MS / 1000)


def test_a_gap_in_the_sound_is_filled_with_silence(tmp_path):
    """Half a second is missing from second 0.512 on: what follows stays at its own time."""
    video = encode(tmp_path / "a.mkv", clicks([0.3, 0.8], 1.2), codec="pcm_s16le", gap=(0.512, 0.5))
    samples = track(video, tmp_path)
    np.testing.assert_allclose(click_times(samples), [0.3, 1.3], atol=CLICK_MS / 1000)
    assert not samples[int(0.55 * SAMPLE_RATE) : int(1.0 * SAMPLE_RATE)].any()
    assert len(samples) / SAMPLE_RATE == pytest.approx(1.7, abs=0.01)


def test_rounded_packet_times_do_not_add_up_or_break_the_sound(tmp_path):
    """Container times are whole milliseconds; a tone goes through without cracks and keeps its length and phase."""
    rate, seconds = 44_100, 20.0
    tone = 10_000 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    samples = track(encode(tmp_path / "a.mkv", tone.astype(np.int16), rate, codec="pcm_s16le"), tmp_path)
    assert abs(len(samples) - seconds * SAMPLE_RATE) <= 1
    expected = 10_000 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / SAMPLE_RATE)
    inner = slice(100, -100)  # a filter's ends ring
    assert np.abs(samples[inner] - expected[inner]).max() < 100


def test_sound_from_before_time_0_is_dropped(tmp_path, monkeypatch):
    video = encode(tmp_path / "a.mkv", clicks([0.1, 0.5, 0.9], 1.2), codec="pcm_s16le")
    monkeypatch.setattr("core.media.audio.start_of", lambda container: 0.3)
    samples = track(video, tmp_path)
    np.testing.assert_allclose(click_times(samples), [0.2, 0.6], atol=CLICK_MS / 1000)
    assert len(samples) / SAMPLE_RATE == pytest.approx(0.9, abs=0.001)


def test_a_video_without_sound_is_refused_and_leaves_no_wav(tmp_path):
    write_video(tmp_path / "mute.mp4", (picture(number) for number in range(5)), FPS)
    with pytest.raises(MediaError, match=r"mute\.mp4 has no sound stream"):
        extract_track(tmp_path / "mute.mp4", tmp_path / "out" / "mute.wav")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"nothing to be heard" * 50])
def test_an_unreadable_video_leaves_no_wav(tmp_path, content):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(MediaError, match=r"a\.mp4"):
        extract_track(tmp_path / "a.mp4", tmp_path / "out" / "a.wav")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "seconds"),
    [("audio-44.1k-stereo.mp4", 4.853), ("container.mkv", 5.038), ("fps-29.97.mp4", 4.574), ("rotation-90", 5.013)],
)
def test_real_sound_of_other_rates_and_channels(shared, name, seconds):
    path = next((shared / "mini-ava" / "unusual").glob(f"{name}*"), None)
    if path is None:
        pytest.skip(f"{name} is absent")
    samples = np.concatenate(list(decode_audio(path)))
    assert len(samples) / SAMPLE_RATE == pytest.approx(seconds, abs=0.05)
    assert np.abs(samples.astype(np.int32)).max() > 1000


def test_real_files_without_sound_are_named(shared):
    folder = shared / "mini-ava" / "unusual"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    for name in ("no-audio-track.mp4", "zero-bytes.mp4", "truncated-index-lost.mp4"):
        with pytest.raises(MediaError, match=name):
            list(decode_audio(folder / name))
