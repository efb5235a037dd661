"""A whole video's audio on disk, and where it is missing."""

import resource
import signal

import numpy as np
import pytest
from videos import encode, grey

from core.clip_utils import SAMPLE_RATE
from core.media.container import MediaFile
from core.media.video_audio import audio_on_disk
from core.runtime.errors import MediaError, UserError


def tone(seconds: float) -> np.ndarray:
    return (8000 * np.sin(np.arange(round(seconds * SAMPLE_RATE)) * 0.2)).astype(np.int16)


@pytest.fixture
def media(tmp_path) -> MediaFile:
    """One second of a tone."""
    return MediaFile(encode(tmp_path / "a.mp4", map(grey, range(25)), audio=tone(1.0)), tolerant=True)


def test_audio_of_any_part_with_silence_outside(media):
    with audio_on_disk(media) as audio:
        assert (audio.faults, audio.start_s) == ((), pytest.approx(0, abs=0.05))
        assert audio.end_s == pytest.approx(1.0, abs=0.1)
        part = audio.part(0.5, 100)
        np.testing.assert_array_equal(part, audio.samples[8000:8100])
        assert np.abs(part.astype(int)).max() > 4000
        over = audio.part((len(audio.samples) - 50) / SAMPLE_RATE, 200)
        np.testing.assert_array_equal(over[:50], audio.samples[-50:])
        assert not over[50:].any()
        assert not audio.part(100.0, 30).any()
        before = audio.part(-10 / SAMPLE_RATE, 30)
        assert not before[:10].any()
        np.testing.assert_array_equal(before[10:], audio.samples[:20])


def test_a_video_without_audio_gives_none(tmp_path):
    with audio_on_disk(MediaFile(encode(tmp_path / "mute.mp4", map(grey, range(5))))) as audio:
        assert audio is None


def test_audio_that_starts_late(tmp_path):
    """Two seconds of video, with half a second of audio from second 1 on."""
    frames = map(grey, range(50))
    path = encode(tmp_path / "a.mkv", frames, audio=tone(0.5), audio_codec="pcm_s16le", audio_start_s=1.0)
    with audio_on_disk(MediaFile(path)) as audio:
        assert (audio.start_s, audio.end_s) == pytest.approx((1.0, 1.5), abs=0.01)
        assert not audio.part(0.0, 15000).any()
        np.testing.assert_array_equal(audio.part(1.0, 1000), tone(0.5)[:1000])


def test_audio_of_a_file_cut_off_is_kept_so_far(unusual):
    media = MediaFile(unusual / "truncated-middle.mp4", tolerant=True)
    with audio_on_disk(media) as audio:
        assert audio.end_s == pytest.approx(3.41, abs=0.01)


def test_two_channels_at_a_rate_of_their_own(tmp_path):
    stereo = np.stack([tone(1.0), np.zeros(SAMPLE_RATE, np.int16)])
    with audio_on_disk(MediaFile(encode(tmp_path / "a.mkv", map(grey, range(25)), audio=stereo)), 8000, 2) as audio:
        part = audio.part(audio.end_s - 50 / 8000, 100)
        assert (audio.sample_rate, part.shape) == (8000, (100, 2))
        assert not part[50:].any()
        left, right = np.abs(audio.part(0.2, 4000).astype(int)).max(axis=0)
        assert left > 4000 > 500 > right


def test_audio_that_fails_midway_is_kept_so_far(media, monkeypatch):
    def failing(media, *form):
        yield tone(0.5)
        raise MediaError("the disk is away")

    monkeypatch.setattr("core.media.video_audio.decode_audio", failing)
    with audio_on_disk(media) as audio:
        [fault] = audio.faults
        assert "the disk is away" in fault
        assert audio.end_s == 0.5
        np.testing.assert_array_equal(audio.part(0.0, 8000), tone(0.5))


def test_no_room_for_the_audio_is_reported(media):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        with pytest.raises(UserError, match=r"a\.mp4.*TMPDIR"), audio_on_disk(media):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
