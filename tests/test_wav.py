"""Wavs as every step keeps them: round trips, other kinds of files, entities without one."""

import contextlib

import numpy as np
import pandas as pd
import pytest
import scipy.io.wavfile
from tiny import annotated_tracks

from core.clip_utils import SAMPLE_RATE
from core.formats import ava
from core.formats.wav import entity_audio, read_wav, write_wav
from core.runtime.errors import UserError
from core.runtime.provenance import Record


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


# ---------------------------------------------------------------- of entities

NOT_SPEAKING, AUDIBLE, NOT_AUDIBLE = ava.LABEL_IDS
RECORDING = np.arange(3 * SAMPLE_RATE).astype(np.int16)  # of the video: every sample its own number
TRACKS = (("a", "a:1", 10, 20, (NOT_SPEAKING,)), ("b", "b:1", 5, 1, (AUDIBLE,)), ("b", "b:2", 5, 5, (NOT_SPEAKING,)))


def heard(rows: pd.DataFrame) -> np.ndarray:
    """The recording from the first to the last of some rows."""
    return RECORDING[int(rows["time_s"].min() * SAMPLE_RATE) : int(rows["time_s"].max() * SAMPLE_RATE)]


def test_entities_without_a_file_are_named(tmp_path):
    rows = annotated_tracks(TRACKS)
    used = np.ones(len(rows), bool)
    with pytest.raises(UserError, match=r"none.*data/slice_audio_tracks\.py"):
        entity_audio(rows, used, tmp_path / "none")
    for entity in ("a:1", "b:2"):
        write_wav(tmp_path / f"{entity}.wav", heard(rows[rows["entity_id"] == entity]))
    with pytest.raises(UserError, match=r"1 of 3 entities.* b:1 of video b"):
        entity_audio(rows, used, tmp_path)
    of_others = (rows["entity_id"] != "b:1").to_numpy()
    assert [audio.path.stem for audio in entity_audio(rows, of_others, tmp_path)] == ["a:1", "b:2"]


@pytest.mark.parametrize("in_videos", [True, False])
def test_the_audio_of_rows_whoever_cut_it(tmp_path, in_videos):
    """By all rows as ours and TalkNet's, or without SPEAKING_NOT_AUDIBLE ones as published; the numbers tell which."""
    labels = (NOT_AUDIBLE,) * 6 + (NOT_SPEAKING, AUDIBLE) * 5 + (NOT_AUDIBLE,) * 4
    rows = annotated_tracks([("a", "a:1", 12, 20, labels), ("a", "a:2", 12, 20, labels), *TRACKS[1:]])
    audible = rows["label_id"] != ava.NOT_AUDIBLE_ID
    for entity, video in rows[["entity_id", "video_id"]].drop_duplicates().itertuples(index=False):
        own = rows["entity_id"] == entity
        folder = tmp_path / video if in_videos else tmp_path
        folder.mkdir(exist_ok=True)
        write_wav(folder / f"{entity}.wav", heard(rows[own & audible if entity == "a:2" else own]))
    for audio, (_, own) in zip(entity_audio(rows, audible, tmp_path), rows[audible].groupby("entity_id"), strict=True):
        np.testing.assert_array_equal(audio.read(), heard(own))
    with pytest.raises(UserError, match=r"a:2\.wav begins 0\.24 s after the first row"):
        entity_audio(rows, np.ones(len(rows), bool), tmp_path)


ROUNDED = 2 / SAMPLE_RATE


@pytest.mark.parametrize(
    ("longer_s", "of_ours", "good"),
    [
        *((longer, of_ours, True) for longer in (0.0, ROUNDED, -ROUNDED, -0.03) for of_ours in (True, False)),
        *((longer, of_ours, False) for longer in (0.04, 1.0, -1.1) for of_ours in (True, False)),
        *((-0.04, False, False), (-0.04, True, True), (-0.9, True, True), (-0.9, False, False)),
    ],
)
@pytest.mark.parametrize("rows_used", [51, 5])
def test_audio_of_another_length_than_its_rows_is_refused(tmp_path, longer_s, of_ours, good, rows_used):
    """It was cut by other rows, one more or less perhaps; ours may end where the video's audio does."""
    rows = annotated_tracks([("a", "a:1", 25, 51, (AUDIBLE,))])  # 2 s
    record = Record(tmp_path, "a", "entity audio", {})
    with record.making(["a:1.wav"]) if of_ours else contextlib.nullcontext():
        write_wav(tmp_path / "a:1.wav", np.zeros(round(SAMPLE_RATE * (2 + longer_s)), np.int16))
    message = rf"a:1\.wav is {abs(longer_s):.2f} s {'longer' if longer_s > 0 else 'shorter'} than the 2\.00 s"
    with contextlib.nullcontext() if good else pytest.raises(UserError, match=message):
        (audio,) = entity_audio(rows, np.arange(51) < rows_used, tmp_path)
        assert (audio.begin, audio.end) == (0, (rows_used - 1) * SAMPLE_RATE // 25)


def test_published_audio_that_lacks_one_row_and_is_a_sample_off(tmp_path):
    """It must not pass for audio of all rows that ends too early."""
    rows = annotated_tracks([("a", "a:1", 25, 50, (NOT_AUDIBLE, *[AUDIBLE] * 49))])
    audible = rows["label_id"] != ava.NOT_AUDIBLE_ID
    write_wav(tmp_path / "a:1.wav", heard(rows[audible])[:-1])
    (audio,) = entity_audio(rows, audible.to_numpy(), tmp_path)
    assert audio.begin == 0
    with pytest.raises(UserError, match=r"a:1\.wav begins 0\.04 s after"):
        entity_audio(rows, np.ones(50, bool), tmp_path)
