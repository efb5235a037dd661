"""Sound: the right sample at the right time, the published clip arithmetic, MFCCs equal to python_speech_features'."""

import json
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import python_speech_features as psf
import scipy.io.wavfile
import torch
from tiny import FPS, picture

from core.formats.wav import SAMPLE_RATE, read_wav, write_wav
from core.inputs.mfcc import batch_mfcc, clip_samples, fit, fitted_length, mfcc, mfcc_windows
from core.media.audio import decode_audio, extract_track
from core.media.video import read_frames
from core.media.video_writer import write_video
from core.runtime.errors import MediaError, UserError

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


# Wavs


def test_wav_round_trip_and_an_empty_one(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 500).astype(np.int16)
    write_wav(tmp_path / "-a:1.wav", samples)
    np.testing.assert_array_equal(read_wav(tmp_path / "-a:1.wav"), samples)
    write_wav(tmp_path / "one row.wav", samples[:0])  # from the first to the last timestamp of an entity with one row
    assert read_wav(tmp_path / "one row.wav").shape == (0,)


@pytest.mark.parametrize(
    ("rate", "samples", "found"),
    [
        (44_100, np.zeros(100, np.int16), "44100 Hz, 1 channel"),
        (16_000, np.zeros((100, 2), np.int16), "16000 Hz, 2 channel"),
        (16_000, np.zeros(100, np.float32), "float32"),
    ],
)
def test_a_wav_of_another_kind_is_refused(tmp_path, rate, samples, found):
    scipy.io.wavfile.write(tmp_path / "a.wav", rate, samples)
    with pytest.raises(UserError, match=found) as error:
        read_wav(tmp_path / "a.wav")
    assert "expected 16000 Hz mono int16" in str(error.value)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no wav at all" * 10])
def test_a_file_that_is_no_wav_is_refused(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.wav is no readable wav .* delete it"):
        read_wav(tmp_path / "a.wav")


def test_a_wav_cut_in_the_middle_is_refused(tmp_path):
    write_wav(tmp_path / "a.wav", np.ones(1000, np.int16))
    (tmp_path / "a.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:1000])
    with pytest.raises(UserError, match=r"a\.wav is no readable wav"):
        read_wav(tmp_path / "a.wav")


def test_an_absent_wav_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no sound file .*a\.wav: run data/extract_audio_tracks\.py"):
        read_wav(tmp_path / "a.wav")


# The sound of a clip


def test_fit_by_hand():
    np.testing.assert_array_equal(fit(np.array([1, 2, 3]), 7), [3, 2, 1, 2, 3, 2, 1])
    np.testing.assert_array_equal(fit(np.array([1, 2, 3]), 6), [2, 1, 2, 3, 2])  # published rounding: one short
    np.testing.assert_array_equal(fit(np.arange(10), 5), np.arange(2, 8))  # and one long
    np.testing.assert_array_equal(fit(np.arange(10), 10), np.arange(10))


def test_the_clip_is_cut_from_its_first_to_its_last_frame():
    samples = clip_samples(np.arange(16_000, dtype=np.int16), 0.2, 0.6, 11)
    # 6,400 samples from 3,200 on, padded to 11/27 s = 6,518 by 59 reflected ones on each side
    assert fitted_length(11) == 6518
    assert len(samples) == 6518
    assert samples[59] == 3200
    assert samples[58] == 3201
    assert samples[-60] == 9599


@pytest.mark.parametrize("seconds", [0.0, 0.04, 0.0799])
def test_less_than_two_frames_of_sound_is_silence(seconds):
    loud = np.full(16_000, 9000, np.int16)
    assert not clip_samples(loud, 0.0, seconds, 11).any()
    assert clip_samples(loud, 0.0, 0.0801, 11).all()
    assert not clip_samples(loud[:0], 0.0, 1.0, 11).any()  # an entity with one row has no sound


@pytest.fixture(scope="module")
def published(shared) -> dict[str, np.ndarray]:
    path = shared / "reference" / "audio.npz"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    return dict(np.load(path))


def test_published_fitting_and_mfccs(published, shared):
    cases = json.loads((shared / "reference" / "audio.json").read_text())
    assert len(cases) == 39
    batch, lengths, expected = [], [], []
    for frames, count, fitted_count, shape in cases:
        name = f"T{frames}_n{count}"
        samples = published["signal"][:count]
        fitted = clip_samples(samples, 0.0, count / SAMPLE_RATE, frames)
        assert len(fitted) == fitted_count
        np.testing.assert_array_equal(fitted, published[f"{name}_fit"])
        features = mfcc(fitted)
        assert list(features.shape) == shape
        np.testing.assert_allclose(features, published[f"{name}_mfcc"], rtol=1e-5, atol=1e-5)
        assert mfcc_windows(fitted_count) == shape[-1]
        if frames == 11:
            batch.append(np.pad(fitted, (0, 6600 - len(fitted))))
            lengths.append(len(fitted))
            expected.append(published[f"{name}_mfcc"])
    ours = batch_mfcc(torch.from_numpy(np.stack(batch)), torch.tensor(lengths), windows=40)
    np.testing.assert_allclose(ours, np.stack(expected), rtol=1e-4, atol=1e-4)


def test_published_clips(shared):
    """The sound of clips at a track's ends and in its middle, and of tracks of three rows and one."""
    folder = shared / "reference"
    if not (folder / "clips.npz").is_file():
        pytest.skip(f"{folder / 'clips.npz'} is absent")
    arrays = np.load(folder / "clips.npz")
    for name, clip in json.loads((folder / "clips.json").read_text()).items():
        entity = name.rsplit("_", 1)[0]
        wav = folder / "clip_example" / "wavs" / f"{entity}.wav"
        if entity == "miss":  # its sound is absent: zeros in the published code, an error in ours
            with pytest.raises(UserError, match="no sound file"):
                read_wav(wav)
            continue
        first, last = float(clip["timestamps"][0]), float(clip["timestamps"][-1])
        samples = clip_samples(read_wav(wav), first - 10.0, last - 10.0, 11)
        np.testing.assert_allclose(mfcc(samples), arrays[f"{name}_audio"], rtol=1e-4, atol=1e-4, err_msg=name)


def test_batched_mfccs_equal_python_speech_features():
    """Signals silent, quiet, loud and clipped, of lengths from nothing to the whole axis, side by side."""
    rng = np.random.default_rng(0)
    longest = 6520
    signals = [np.zeros(longest), np.zeros(1280), np.full(longest, 32767), np.resize([-32768, 32767], longest)]
    for length in (1, 160, 399, 400, 401, 559, 560, 561, 3000, 6517, 6518, 6519, 6520):
        for loudness in (1, 100, 30_000):
            signals.append((rng.standard_normal(length) * loudness).clip(-32768, 32767))
    seconds = np.arange(longest) / SAMPLE_RATE
    signals.append(30_000 * np.sin(2 * np.pi * 200 * seconds))  # all the energy in one band
    signals.append(np.where(seconds < 0.2, 0, signals[-1]))  # silence, then sound
    signals = [np.asarray(signal).astype(np.int16) for signal in signals]
    batch = np.stack([np.pad(signal, (0, longest - len(signal))) for signal in signals])
    ours = batch_mfcc(torch.from_numpy(batch), torch.tensor([len(signal) for signal in signals])).numpy()
    assert ours.shape == (len(signals), 1, 13, mfcc_windows(longest))
    assert ours.dtype == np.float32
    for features, signal in zip(ours, signals, strict=True):
        expected = psf.mfcc(signal, SAMPLE_RATE).T  # float64
        assert expected.shape[1] == mfcc_windows(len(signal))
        near_zero = 1e-6 * np.abs(expected).max()  # float32's own rounding where a coefficient crosses zero
        np.testing.assert_allclose(features[0, :, : expected.shape[1]], expected, rtol=1e-4, atol=near_zero)


def test_batched_mfccs_look_at_nothing_behind_a_clips_end():
    samples = torch.from_numpy(np.random.default_rng(0).integers(-9000, 9000, (1, 3000)).astype(np.int16))
    dirty = torch.cat([samples, torch.full((1, 2000), 12_345, dtype=torch.int16)], dim=1)
    length = torch.tensor([3000])
    windows = mfcc_windows(3000)
    torch.testing.assert_close(batch_mfcc(dirty, length)[..., :windows], batch_mfcc(samples, length))


@pytest.mark.parametrize("count", [1, 399, 400, 401, 560, 561, 6518])
def test_window_count_is_that_of_python_speech_features(count):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert mfcc_windows(count) == len(psf.mfcc(np.ones(count), SAMPLE_RATE))
