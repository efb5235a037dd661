"""Wavs as every step keeps them: round trips, other kinds of files, entities without one."""

import numpy as np
import pandas as pd
import pytest
import scipy.io.wavfile

from core.formats.wav import check_audio, read_wav, write_wav
from core.runtime.errors import UserError


@pytest.mark.parametrize("count", [500, 0])  # an entity with one row has no samples
def test_round_trip(tmp_path, count):
    samples = np.random.default_rng(0).integers(-32768, 32768, count).astype(np.int16)
    write_wav(tmp_path / "-a:1.wav", samples)
    np.testing.assert_array_equal(read_wav(tmp_path / "-a:1.wav"), samples)


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
    with pytest.raises(UserError, match=rf"a\.wav .*{found}.*16000 Hz mono int16"):
        read_wav(tmp_path / "a.wav")


def test_a_damaged_or_absent_file_is_named(tmp_path):
    path = tmp_path / "a.wav"
    with pytest.raises(UserError, match=r"a\.wav.*data/extract_audio_tracks\.py"):
        read_wav(path)
    write_wav(path, np.ones(1000, np.int16))
    for content in (b"", b"RIFF", b"no wav at all" * 10, path.read_bytes()[:1000]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.wav is not a readable wav"):
            read_wav(path)


def test_entities_without_a_file_are_named(tmp_path):
    rows = pd.DataFrame({"entity_id": ["a:1", "a:1", "b:1", "b:2"], "video_id": ["a", "a", "b", "b"]})
    with pytest.raises(UserError, match=r"none.*data/slice_audio_tracks\.py"):
        check_audio(rows, tmp_path / "none")
    for name in ("a:1.wav", "b:2.wav"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"1 of 3 entities.* b:1 of video b"):
        check_audio(rows, tmp_path)
    (tmp_path / "b:1.wav").touch()
    check_audio(rows, tmp_path)
