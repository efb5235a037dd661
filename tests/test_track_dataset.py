"""Whole tracks with their audio: shapes, alignment of face, audio and label, augmentation, mixing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import FPS, annotated, annotated_tracks, write_crop

from core.clip_utils import SAMPLE_RATE
from core.formats.wav import read_wav, write_wav
from core.inputs.mfcc import track_mfcc
from core.track_dataset import TrackDataset, augmented, mixed

LABELS = ("NOT_SPEAKING",) * 3 + ("SPEAKING_AUDIBLE",) * 3 + ("SPEAKING_NOT_AUDIBLE",) * 3
TRACKS = tuple(
    (*track, LABELS) for track in (("a", "a:1", 10, 12), ("a", "a:2", 10, 9), ("b", "b:1", 0, 12), ("b", "b:2", 3, 1))
)


def brightness(track: int, row: int) -> int:
    return 30 + 50 * track + 3 * row


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    """Crops of a grey for each track and row, and noise of its own loudness for each track."""
    folder = tmp_path_factory.mktemp("tracks")
    for number, (_, entity, first, count, _) in enumerate(TRACKS):
        for row in range(count):
            pixels = np.full((40, 30, 3), brightness(number, row), np.uint8)
            write_crop(folder / "crops", entity, f"{(first + row) / FPS:.2f}", pixels)
        samples = np.random.default_rng(number).standard_normal((count - 1) * SAMPLE_RATE // FPS) * 10 ** (number + 1)
        write_wav(folder / "audio" / f"{entity}.wav", samples)
    return folder, annotated_tracks(TRACKS)


def tracks(media, **options) -> TrackDataset:
    folder, rows = media
    return TrackDataset(rows, folder / "crops", folder / "audio", **({"augment": False} | options))


# ---------------------------------------------------------------- what a batch holds


def test_faces_audio_and_labels_are_of_the_same_rows(media):
    folder, rows = media
    batch = tracks(media).__getitems__([(0, 0, 12), (0, 2, 12)])
    assert (batch.faces.shape, batch.faces.dtype) == ((2, 12, 112, 112), torch.uint8)
    assert (batch.mfcc.shape, batch.mfcc.dtype) == ((2, 48, 13), torch.float32)
    assert batch.rows.tolist() == [list(range(12)), list(range(21, 33))]
    for position, (track, entity) in enumerate(((0, "a:1"), (2, "b:1"))):
        shown = batch.faces[position].float().mean((1, 2)).numpy()
        np.testing.assert_allclose(shown, [brightness(track, row) for row in range(12)], atol=1.5)
        samples = read_wav(folder / "audio" / f"{entity}.wav")
        np.testing.assert_allclose(batch.mfcc[position], track_mfcc(samples, np.arange(12), 25.0))
    # NOT_SPEAKING, SPEAKING_AUDIBLE, SPEAKING_NOT_AUDIBLE, NOT_SPEAKING; three rows each
    assert batch.labels.tolist() == [[0, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]] * 2
    assert rows["entity_id"].iloc[batch.rows[1, 0].item()] == "b:1"
    assert batch.epoch == 0


def test_pieces_are_drawn_from_the_whole_track_and_keep_their_audio(media):
    dataset = tracks(media)
    whole = dataset.__getitems__([(0, 0, 12)])
    begins = set()
    for epoch in range(60):
        piece = dataset.__getitems__([(epoch, 0, 9)])
        begin = int(piece.rows[0, 0])
        begins.add(begin)
        assert piece.rows[0].tolist() == list(range(begin, begin + 9))
        assert torch.equal(piece.faces[0], whole.faces[0, begin : begin + 9])
        assert torch.equal(piece.mfcc[0], whole.mfcc[0, 4 * begin : 4 * (begin + 9)])
        assert torch.equal(piece.labels[0], whole.labels[0, begin : begin + 9])
    assert begins == {0, 1, 2, 3}


def test_rounded_timestamps_at_30_frames_a_second(tmp_path):
    """A click in the middle of frame 60 is loudest in the windows of row 60."""
    times = [f"{5 + n / 30:.2f}" for n in range(90)]
    for time in times:
        write_crop(tmp_path / "crops", "v:1", time, np.zeros((8, 8, 3), np.uint8))
    samples = np.zeros(round((float(times[-1]) - 5) * SAMPLE_RATE), np.int16)
    samples[round(60.5 / 30 * SAMPLE_RATE)] = 30_000
    write_wav(tmp_path / "audio" / "v:1.wav", samples)
    rows = annotated(("v", "v:1", time, "NOT_SPEAKING") for time in times)
    batch = tracks((tmp_path, rows)).__getitems__([(0, 0, 90)])
    heard = np.flatnonzero(batch.mfcc[0, :, 0] > -30) / 4
    assert 59.9 < heard.mean() < 60.9
    assert np.ptp(heard) < 1


# ---------------------------------------------------------------- what is drawn


def test_a_track_depends_on_seed_epoch_and_number_alone(media):
    dataset = tracks(media, augment=True, seed=3)
    whole = dataset.__getitems__([(4, track, 9) for track in range(3)])
    assert whole.epoch == 4
    for track in range(3):
        alone = dataset.__getitems__([(4, track, 9)])
        for name in ("faces", "mfcc", "labels", "rows"):
            assert torch.equal(getattr(alone, name)[0], getattr(whole, name)[track])
    others = [dataset.__getitems__([(epoch, track, 9) for track in range(3)]) for epoch in range(5, 9)]
    others.append(tracks(media, augment=True, seed=4).__getitems__([(4, track, 9) for track in range(3)]))
    assert all(not torch.equal(other.mfcc, whole.mfcc) or not torch.equal(other.faces, whole.faces) for other in others)


def kind_of(faces: np.ndarray, changed: np.ndarray) -> str:
    if np.array_equal(faces, changed):
        return "none"
    if np.array_equal(faces[:, :, ::-1], changed):
        return "flip"
    corners = changed[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    return "rotation" if (corners == 0).any() else "crop"  # what a rotation uncovers is black, a crop uncovers nothing


def test_a_track_is_left_flipped_cropped_or_rotated():
    faces = np.full((3, 112, 112), 60, np.uint8)
    faces[:, 30:60, 20:50] = 200
    counts = dict.fromkeys(("none", "flip", "crop", "rotation"), 0)
    for seed in range(400):
        changed = augmented(faces, np.random.default_rng(seed))
        assert (changed.shape, changed.dtype) == (faces.shape, np.uint8)
        counts[kind_of(faces, changed)] += 1
        assert (changed == changed[0]).all()  # one draw a track
    assert all(70 < count < 130 for count in counts.values()), counts


def test_crops_and_rotations_stay_within_their_ranges():
    side = 112
    ramp = np.broadcast_to(np.arange(side, dtype=np.uint8) * 2, (1, side, side))
    shares, angles = [], []
    for seed in range(600):
        changed = augmented(ramp, np.random.default_rng(seed))[0].astype(float)
        kind = kind_of(ramp, changed[None].astype(np.uint8))
        if kind == "crop":  # the ramp's slope shrinks with the box
            shares.append((changed[56, 100] - changed[56, 12]) / (88 * 2))
        if kind == "rotation":
            across, down = (changed[56, 66] - changed[56, 46]), (changed[66, 56] - changed[46, 56])
            angles.append(np.degrees(np.arctan2(down, across)))
    assert min(shares) == pytest.approx(0.7, abs=0.02)
    assert max(shares) == pytest.approx(1.0, abs=0.02)
    assert min(angles) == pytest.approx(-15, abs=1.5)
    assert max(angles) == pytest.approx(15, abs=1.5)


# ---------------------------------------------------------------- mixed audio


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 5.0])
def test_other_audio_is_added_as_much_quieter_as_asked(snr_db):
    rng = np.random.default_rng(0)
    own, noise = (rng.standard_normal(length) * level for length, level in ((8000, 1000), (3000, 200)))
    own, noise = own.astype(np.int16), noise.astype(np.int16)
    added = mixed(own, noise, snr_db).astype(float) - own
    ratio_db = 10 * np.log10(np.square(own.astype(float)).mean() / np.square(added).mean())
    assert ratio_db == pytest.approx(snr_db, abs=0.02)
    assert np.corrcoef(added, np.resize(noise, 8000))[0, 1] > 0.999  # repeated over the length


def test_loud_sums_are_clipped_and_silence_stays_silent():
    loud = np.array([30_000, -30_000, 30_000], np.int16)
    assert mixed(loud, loud, 0.0).tolist() == [32767, -32768, 32767]
    silence = np.zeros(100, np.int16)
    assert not mixed(silence, loud, -5.0).any()
    assert mixed(loud, np.zeros(0, np.int16), 0.0).tolist() == loud.tolist()
    assert len(mixed(np.zeros(0, np.int16), loud, 0.0)) == 0


def test_only_audio_of_other_videos_are_mixed_in_and_by_chance(media, monkeypatch):
    dataset = tracks(media, augment=True, mix_chance=0.5)
    heard = []
    audio = TrackDataset.audio
    monkeypatch.setattr(TrackDataset, "audio", lambda self, track: (heard.append(track), audio(self, track))[1])
    mixes = 0
    for epoch in range(200):
        heard.clear()
        dataset.__getitems__([(epoch, 0, 2)])
        assert heard[0] == 0
        assert set(heard[1:]) <= {2, 3}  # the tracks of video b
        mixes += len(heard) - 1
    assert 75 < mixes < 125
    heard.clear()
    never = tracks(media, augment=True, mix_chance=0.0)
    for epoch in range(20):
        never.__getitems__([(epoch, 0, 2)])
    assert set(heard) == {0}


def test_nothing_is_mixed_in_where_there_is_one_video(media):
    folder, rows = media
    one = TrackDataset(rows[rows["video_id"] == "a"], folder / "crops", folder / "audio", augment=True, mix_chance=1.0)
    clean = tracks(media).__getitems__([(1, 0, 12)])
    assert torch.equal(one.__getitems__([(1, 0, 12)]).mfcc, clean.mfcc)
