"""A whole video's sound, and where it is missing."""

import resource
import signal
from fractions import Fraction

import av
import numpy as np
import pytest

from core.formats.wav import SAMPLE_RATE
from core.media.video_audio import audio_on_disk
from core.media.video_writer import write_video
from core.runtime.errors import MediaError, UserError


def tone(seconds: float) -> np.ndarray:
    return (8000 * np.sin(np.arange(round(seconds * SAMPLE_RATE)) * 0.2)).astype(np.int16)


def picture(number: int) -> np.ndarray:
    return np.full((32, 48, 3), 50 + number, np.uint8)


def test_sound_from_any_time_on(tmp_path):
    write_video(tmp_path / "a.mp4", map(picture, range(25)), 25, tone(1.0))
    with audio_on_disk(tmp_path / "a.mp4") as sound:
        assert sound.faults == ()
        assert sound.start_s == pytest.approx(0, abs=0.05)
        assert sound.end_s == pytest.approx(1.0, abs=0.1)
        part = sound.part(0.5, 100)
        np.testing.assert_array_equal(part, sound.samples[8000:8100])
        assert np.abs(part.astype(int)).max() > 4000


def test_outside_there_is_silence(tmp_path):
    write_video(tmp_path / "a.mp4", map(picture, range(25)), 25, tone(1.0))
    with audio_on_disk(tmp_path / "a.mp4") as sound:
        n = len(sound.samples)
        over = sound.part((n - 50) / SAMPLE_RATE, 200)
        np.testing.assert_array_equal(over[:50], sound.samples[-50:])
        assert not over[50:].any()
        assert not sound.part(100.0, 30).any()
        before = sound.part(-10 / SAMPLE_RATE, 30)
        assert not before[:10].any()
        np.testing.assert_array_equal(before[10:], sound.samples[:20])


def test_a_video_without_sound_gives_none(tmp_path):
    write_video(tmp_path / "mute.mp4", map(picture, range(5)), 25)
    with audio_on_disk(tmp_path / "mute.mp4") as sound:
        assert sound is None


def test_sound_that_starts_late(tmp_path):
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = av.AudioFrame.from_ndarray(tone(0.5)[None], format="s16", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = SAMPLE_RATE, SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        container.mux(audio.encode(samples))
        container.mux(audio.encode(None))
    with audio_on_disk(path) as sound:
        assert (sound.start_s, sound.end_s) == pytest.approx((1.0, 1.5), abs=0.01)
        assert not sound.part(0.0, 15000).any()
        np.testing.assert_array_equal(sound.part(1.0, 1000), tone(0.5)[:1000])


def test_sound_of_a_file_cut_off_is_kept_so_far(shared):
    with audio_on_disk(shared / "mini-ava" / "unusual" / "truncated-middle.mp4") as sound:
        assert sound.end_s == pytest.approx(3.41, abs=0.01)


def test_sound_that_fails_midway_is_kept_so_far(tmp_path, monkeypatch):
    def failing(path, damage):
        yield tone(0.5)
        raise MediaError("the sound is damaged")

    write_video(tmp_path / "a.mp4", map(picture, range(25)), 25, tone(1.0))
    monkeypatch.setattr("core.media.video_audio.decode_audio", failing)
    with audio_on_disk(tmp_path / "a.mp4") as sound:
        assert sound.faults == ("The sound fails to decode: the sound is damaged. After that it counts as silence.",)
        assert sound.end_s == 0.5
        np.testing.assert_array_equal(sound.part(0.0, 8000), tone(0.5))


def test_no_room_for_the_sound_is_told(tmp_path):
    write_video(tmp_path / "a.mp4", map(picture, range(50)), 25, tone(2.0))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(UserError, match=r"no room for the sound of .*TMPDIR"), audio_on_disk(tmp_path / "a.mp4"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_that_is_no_video(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    with pytest.raises(MediaError, match="cannot be opened"), audio_on_disk(tmp_path / "a.mp4"):
        pass
