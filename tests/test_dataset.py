"""Clips and contexts: against hand-made media, the published loader's numbers, and brute force."""

from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from tiny import Track, annotated, annotated_tracks, write_crop

from core.clip_utils import COEFFICIENTS
from core.dataset import ClipDataset, ContextDataset
from core.formats import ava
from core.formats.feature_store import FeatureStore, VideoFeatures, write_features
from core.formats.wav import write_wav
from core.inputs.clip_mfcc import clip_mfcc, fitted_length
from core.inputs.loading import load_batches
from core.inputs.sampling import ShuffledBatches
from core.inputs.transforms import stack
from core.runtime.errors import UserError

STEP_SAMPLES = 640  # 0.04 s at 16 kHz
SIZE = 16


def make_media(folder: Path, tracks: list[Track]) -> pd.DataFrame:
    """Crops that show the number of their frame, and audio that holds its track and time; the rows.

    Crop of frame f: grey 2 f. Audio of track i: 4000 i and the milliseconds of the video.
    """
    for number, (_, entity, first, length, _) in enumerate(tracks):
        for frame in range(first, first + length):
            pixels = np.full((SIZE, SIZE, 3), 2 * frame, np.uint8)
            write_crop(folder / "crops", entity, f"{frame * 0.04:.2f}", pixels)
        samples = 4000 * number + np.arange(first * STEP_SAMPLES, (first + length - 1) * STEP_SAMPLES) // 16
        write_wav(folder / "audio" / f"{entity}.wav", samples.astype(np.int16))
    return annotated_tracks(tracks)


TRACKS: list[Track] = [
    ("a", "a:1", 0, 30, ("NOT_SPEAKING",)),
    ("a", "a:2", 10, 20, ("SPEAKING_AUDIBLE", "NOT_SPEAKING")),
    ("a", "a:3", 29, 1, ("SPEAKING_NOT_AUDIBLE",)),
    ("b", "b:1", 50, 12, ("SPEAKING_NOT_AUDIBLE", "SPEAKING_AUDIBLE", "SPEAKING_AUDIBLE")),
]


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    folder = tmp_path_factory.mktemp("media")
    return folder, make_media(folder, TRACKS)


def clips(media: tuple[Path, pd.DataFrame], length: int = 5, **choices) -> ClipDataset:
    folder, rows = media
    choices = {"random_centres": False, **choices}
    return ClipDataset(rows, folder / "crops", folder / "audio", clip_length=length, size=SIZE, **choices)


def heard_in(samples: np.ndarray) -> tuple[int, int, int] | None:
    """Number of the track, first and last ms that a clip's audio holds; None for silence."""
    if not samples.any():
        return None
    return samples.max() // 4000, samples.min() % 4000, samples.max() % 4000


# ---------------------------------------------------------------- clips


def test_frames_of_a_clip_are_those_around_its_centre_clamped_to_its_track(media):
    dataset = clips(media)
    rows = [0, 1, 15, 29, 30, 50, 51]
    batch = dataset.__getitems__([(0, row) for row in rows])
    grey = batch.frames[:, 8, 8, 0].double().round() / 2  # the frame number
    assert (batch.frames.dtype, batch.frames.shape[1:]) == (torch.uint8, (SIZE, SIZE, 3))
    assert grey[batch.windows].tolist() == [
        [0, 0, 0, 1, 2],
        [0, 0, 1, 2, 3],
        [13, 14, 15, 16, 17],
        [27, 28, 29, 29, 29],
        [10, 10, 10, 11, 12],  # the next track does not reach into the one before
        [29] * 5,  # a track of one row
        [50, 50, 50, 51, 52],
    ]
    assert batch.rows.tolist() == rows
    assert len(batch.frames) == 12 + 3 + 1 + 3  # of each track, each crop once


def test_labels_are_the_centres_and_the_audios_are_anybodys(media):
    dataset = clips(media)
    rows = media[1]
    speaking = (rows["label"] == "SPEAKING_AUDIBLE").astype(int)
    batch = dataset.__getitems__([(0, row) for row in range(len(rows))])
    assert batch.labels.tolist() == speaking.tolist()
    anybody = speaking.groupby([rows["video_id"], rows["frame_timestamp"]]).transform("max").tolist()
    assert batch.audio_labels.tolist() == [anybody]
    assert 0 < sum(anybody[:30]) < 30  # the first entity never speaks, but is seen with one who does


def test_audio_is_that_of_the_clips_own_time(media):
    """A sample's value is its time in ms, so the middle of a clip's audio is the middle of its frames' times."""
    dataset = clips(media)
    batch = dataset.__getitems__([(0, 15), (0, 35), (0, 0), (0, 50)])
    assert batch.audio.shape == (1, 4, fitted_length(5) + 2)
    lengths = batch.audio_lengths[0].tolist()
    assert all(abs(length - fitted_length(5)) <= 2 for length in lengths)
    # Frames 13 ... 17 and, of the second track, 13 ... 17 too: 0.52 s to 0.68 s.
    for clip in (0, 1):
        samples = batch.audio[0, clip, : lengths[clip]].numpy()
        assert samples[len(samples) // 2] == pytest.approx(4000 * clip + 600, abs=1)
        assert heard_in(samples) == (clip, 520, 679)
    # Frames 0, 0, 0, 1, 2: 0 s to 0.08 s, reflected.
    assert (batch.audio[0, 2].min(), batch.audio[0, 2].max()) == (0, 79)
    assert not batch.audio[0, 3].any()  # one row: silence
    for clip, length in enumerate(lengths):
        assert not batch.audio[0, clip, length:].any()


def test_random_centres_are_one_of_each_track_and_epoch(media):
    dataset = clips(media, random_centres=True, seed=3)
    _, rows = media
    tracks = rows.drop_duplicates("entity_id")["entity_id"].tolist()
    assert len(dataset) == len(tracks) == 4
    seen = set()
    for epoch in range(200):
        batch = dataset.__getitems__([(epoch, item) for item in range(4)])
        assert rows["entity_id"][batch.rows.tolist()].tolist() == tracks
        seen.update(batch.rows.tolist())
    assert seen == set(range(len(rows)))


def test_an_item_depends_on_seed_epoch_and_number_alone(media):
    dataset = clips(media, random_centres=True, mismatched_sounds=2, seed=3)
    whole = dataset.__getitems__([(4, item) for item in range(8)])  # items beyond the tracks: further clips of them
    for item in range(8):
        alone = dataset.__getitems__([(4, item)])
        assert alone.rows[0] == whole.rows[item]
        assert torch.equal(alone.frames[alone.windows[0]], whole.frames[whole.windows[item]])
        assert torch.equal(alone.audio[:, 0], whole.audio[:, item])
    for other, epoch in ((clips(media, random_centres=True, seed=4), 4), (dataset, 5)):
        assert other.__getitems__([(epoch, item) for item in range(8)]).rows.tolist() != whole.rows.tolist()


def test_mismatched_audio_shares_no_time_with_the_clip(media):
    """In turn from the clip's own track and from another one; never from the same time of its video."""
    dataset = clips(media, 5, random_centres=True, mismatched_sounds=2, seed=1)
    kinds = set()
    for epoch in range(150):
        batch = dataset.__getitems__([(epoch, item) for item in range(4)])
        heard = [
            [heard_in(clip[:length].numpy()) for clip, length in zip(*pair, strict=True)]
            for pair in zip(batch.audio, batch.audio_lengths, strict=True)
        ]
        for turn, others in enumerate(heard[1:]):
            for own, other in zip(heard[0], others, strict=True):
                if own and other:  # not the silence of a single row
                    kinds.add((turn, own[0] == other[0]))
                    apart = other[2] <= own[1] or other[1] >= own[2]
                    assert apart or TRACKS[own[0]][0] != TRACKS[other[0]][0], (own, other)
    assert kinds >= {(0, True), (1, False)}


def test_no_audio_of_another_time(tmp_path):
    rows = make_media(tmp_path, [TRACKS[3], ("b", "b:2", 51, 2, ("NOT_SPEAKING",))])
    dataset = clips((tmp_path, rows), length=11, random_centres=True, mismatched_sounds=1)
    with pytest.raises(UserError, match=r"entity b:\d .*'mismatched_sounds'\] to 0"):
        dataset.__getitems__([(epoch, item) for epoch in range(9) for item in range(2)])


def test_missing_audio_and_crops_are_named_with_their_video(media, tmp_path):
    folder, rows = media
    for crops, audio, facts in (
        (folder / "crops", tmp_path, "4 of 4 entities.* a:1 of video a"),
        (folder / "crops", tmp_path / "none", "none"),
        (tmp_path, folder / "audio", "2 videos in .*, first video a: "),
    ):
        with pytest.raises(UserError, match=facts):
            ClipDataset(rows, crops, audio, clip_length=5, random_centres=False)


# ---------------------------------------------------------------- the published loader


def published_material(folder: Path) -> pd.DataFrame:
    """Crops of smooth noise and audio of noise, of tracks of 30, 3 and 1 rows in the published layout; the rows."""
    rng = np.random.default_rng(0)
    rows = []
    for entity, count in (("e1", 1), ("e3", 3), ("e30", 30)):
        for n in range(count):
            timestamp = str(round(10 + n / 25, 2))
            noise = rng.integers(0, 256, (90 + n, 70 - n, 3)).astype(np.float32)
            image = np.clip(128 + 6 * (cv2.GaussianBlur(noise, (0, 0), 3) - 128), 0, 255).astype(np.uint8)
            write_crop(folder / "crops", entity, timestamp, image)
            rows.append(("v", entity, timestamp, "SPEAKING_AUDIBLE"))
        samples = rng.standard_normal((count - 1) * STEP_SAMPLES) * 3000
        write_wav(folder / "audio" / f"{entity}.wav", samples.astype(np.int16))
    return annotated(rows)


def test_clips_are_those_of_the_published_loader(tmp_path):
    """Outputs of `load_av_clip_from_metadata` of the published core/io.py: every 12th row and column of the frames."""
    published = np.load(Path(__file__).parent / "fixtures" / "published_clips.npz")
    rows = published_material(tmp_path)
    dataset = ClipDataset(rows, tmp_path / "crops", tmp_path / "audio", clip_length=11, random_centres=False)
    centres = published["rows"].tolist()
    batch = dataset.__getitems__([(0, centre) for centre in centres])
    frames = batch.frames[batch.windows].numpy()[:, :, 6::12, 6::12]
    difference = np.abs(frames.astype(int) - published["frames"])
    # Another resize's rounding, and where OpenCV is another one also its JPEG's: a grey value or two.
    assert difference.max() <= 4
    assert difference.mean() < 0.3
    mfcc = clip_mfcc(batch.audio[0], batch.audio_lengths[0], dataset.mfcc_windows)
    np.testing.assert_allclose(mfcc, published["mfcc"], rtol=1e-4, atol=1e-4)
    stacked = stack(batch.frames[batch.windows[-1:]])[0, :, 6::12, 6::12]
    np.testing.assert_allclose(stacked, published["stacked"], atol=4 / 255 / 0.19)
    assert np.abs(stacked.numpy() - published["stacked"]).mean() < 0.3 / 255 / 0.2


# ---------------------------------------------------------------- contexts


def make_features(folder: Path, tracks: list[Track], size: int = 4) -> FeatureStore:
    """Features of random numbers; the first is the row."""
    rows = annotated_tracks(tracks)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((len(rows), size)).astype(np.float32)
    features[:, 0] = np.arange(len(rows))
    for _, part in rows.groupby("video_id"):
        logits = rng.standard_normal((3, len(part), 2))
        told = {"in_step": np.hstack(logits)[:, :3], "heard": rng.standard_normal((len(part), COEFFICIENTS))}
        video = VideoFeatures(part, *logits, features[part.index], **told)
        write_features(folder, video, {"weights": "any"})
    return FeatureStore(folder)


def contexts(store: FeatureStore, clip_length: int, stride: int, speakers: int, **choices) -> ContextDataset:
    arrays = (store.entities, store.time_steps, store.gather, store.labels)
    return ContextDataset(*arrays, clip_length=clip_length, stride=stride, speakers=speakers, **choices)


def random_tracks(seed: int, videos: int = 2) -> list[Track]:
    """Up to six entities a video, at time steps that differ: some seen together, some alone, some of one row."""
    rng = np.random.default_rng(seed)
    labels = tuple(ava.LABEL_IDS)
    return [
        (f"v{video}", f"v{video}:{n}", int(rng.integers(0, 15)), int(rng.integers(1, 25)), labels)
        for video in range(videos)
        for n in range(rng.integers(3, 7))
    ]


def brute_force_contexts(
    store: FeatureStore, target: int, length: int, stride: int
) -> tuple[list[int], set[tuple[int, ...]]]:
    """The target's window, and the windows of the other entities seen in its video at its time, as rows."""
    offsets = np.arange(length) * stride - length // 2 * stride

    def window(row: int) -> list[int]:
        own = np.flatnonzero(store.entity_ids == store.entity_ids[row])
        return own[np.clip(np.searchsorted(own, row) + offsets, 0, len(own) - 1)].tolist()

    (video,) = (rows for rows in store.videos.values() if rows.start <= target < rows.stop)
    others = {row for row in range(video.start, video.stop) if store.timestamps[row] == store.timestamps[target]}
    return window(target), {tuple(window(row)) for row in others - {target}}


@pytest.mark.parametrize(("length", "stride", "speakers"), [(3, 1, 3), (11, 4, 3), (5, 2, 1), (1, 1, 2), (7, 3, 6)])
@pytest.mark.parametrize("drawn", [False, True])
def test_contexts_against_brute_force(tmp_path, length, stride, speakers, drawn):
    store = make_features(tmp_path, random_tracks(length + speakers))
    dataset = contexts(store, length, stride, speakers, random_speakers=drawn)
    found = dataset.contexts(np.arange(len(store)), epoch=2)
    assert found.shape == (len(store), length, speakers)
    crowds = set()
    for target, context in enumerate(found):
        own, others = brute_force_contexts(store, target, length, stride)
        assert context[:, 0].tolist() == own
        columns = [tuple(column) for column in context[:, 1:].T.tolist()]
        assert set(columns) <= (others or {tuple(own)})
        first_round = columns[: len(others)]
        assert len(set(first_round)) == len(first_round)  # each once before any is repeated
        crowds.add(len(others))
    assert 0 in crowds
    assert max(crowds) >= 2


def test_speakers_of_validation_are_the_same_every_time_and_of_training_are_drawn_anew(tmp_path):
    tracks = [("v", f"v:{n}", 0, 10, ("NOT_SPEAKING",)) for n in range(6)]
    store = make_features(tmp_path, tracks)
    fixed = contexts(store, 3, 1, 3, random_speakers=False)
    targets = np.arange(len(store))
    whole = fixed.contexts(targets, 0)
    assert np.array_equal(fixed.contexts(targets, 5), whole)
    for target in targets:  # whatever stands beside it
        assert np.array_equal(fixed.contexts(targets[target : target + 1])[0], whole[target])
    drawn = contexts(store, 3, 1, 3, random_speakers=True, seed=1)
    whole = drawn.contexts(targets, 1)
    assert not np.array_equal(drawn.contexts(targets, 2), whole)
    assert np.array_equal(drawn.contexts(targets, 1), whole)
    for share in (targets[::2], targets[7:9], targets[::-1]):  # whatever batch or process they fall to
        assert np.array_equal(drawn.contexts(share, 1), whole[share])
    other_seed = contexts(store, 3, 1, 3, random_speakers=True, seed=2)
    assert not np.array_equal(drawn.contexts(targets, 1), other_seed.contexts(targets, 1))


def test_batches_of_contexts_hold_the_rows_they_name(tmp_path):
    store = make_features(tmp_path, random_tracks(5))
    dataset = contexts(store, 5, 2, 3, random_speakers=False)
    targets = [len(store) - 1, 0, 7, 3]
    batch = dataset.__getitems__([(0, target) for target in targets])
    assert batch.rows.tolist() == targets
    assert batch.labels.tolist() == store.labels[targets].tolist()
    assert len(batch.features) == len(batch.features[:, 0].unique())  # each row once
    # The first number of a feature vector is its row.
    assert batch.features[batch.index][..., 0].tolist() == dataset.contexts(np.array(targets)).tolist()


def test_the_same_contexts_whatever_the_number_of_threads(tmp_path):
    store = make_features(tmp_path, random_tracks(3))
    dataset = contexts(store, 3, 1, 2, random_speakers=True, seed=4)
    batches = ShuffledBatches(len(dataset), 16, seed=4)
    alone, ahead = (list(load_batches(dataset, batches, threads, torch.device("cpu"))) for threads in (0, 2))
    for one, other in zip(alone, ahead, strict=True):
        for field in fields(one):
            assert torch.equal(getattr(one, field.name), getattr(other, field.name)), field.name
