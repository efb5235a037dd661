"""Whether a mouth is in step with what is heard, and whose voice it is: by a loop, by hand, and alike wherever told."""

import functools
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from tiny import CROP_SIZE
from track_models import SIDE, hash_weights, track, used

from core.clip_utils import SAMPLE_RATE
from core.dataset import ClipDataset
from core.formats import ava
from core.formats.wav import read_wav, write_wav
from core.inference import residual_contexts
from core.inference import voices as module
from core.inference.clips import ClipScorer, encode_videos
from core.inference.residual_contexts import ResidualScorer, logits_of
from core.inference.track_embedding import TrackEmbedder
from core.inference.tracks import OnePass
from core.inference.videos import track_encoder
from core.inference.voices import (
    ALIKE,
    APART,
    AROUND,
    EVERY,
    SELDOM,
    SHIFTS,
    SMOOTHING,
    SYLLABLES,
    WEIGHT,
    WITHIN,
    VoiceMemory,
    by_voice,
    in_step,
)
from core.inputs.mfcc import track_mfcc, track_samples
from core.inputs.shots import TrackFeatures, told
from core.media.video_audio import VideoAudio
from core.models import TRACK_ENCODERS, ResidualContext, resnet18_two_streams
from core.people.clustering import group_tracks
from core.runtime import provenance

CPU = torch.device("cpu")
Score = Callable[[np.ndarray, np.ndarray], np.ndarray]


def agreement(audio: np.ndarray, visual: np.ndarray) -> np.ndarray:
    """Logits of a stand-in encoder whose log odds are the product of the two embeddings' first numbers."""
    odds = audio[..., 0] * visual[..., 0]
    return np.stack((np.zeros_like(odds), odds), axis=-1)


def fits(score: Score, audio: np.ndarray, visual: np.ndarray, *, goes_on: bool = False) -> np.ndarray:
    """The scores of other times alone, (time, [mean, maximum])."""
    return in_step(score, audio, visual, np.zeros((len(audio), 2)), np.zeros(len(audio)), goes_on=goes_on)[:, :2]


def test_a_mouth_in_step_falls_and_one_out_of_step_rises():
    """The audio is loud in the third and fourth second of six, the mouth open in the third and second."""
    audio, visual = np.zeros((2, 150, 1))
    audio[50:100], visual[25:75] = 1, 1
    found = fits(agreement, audio, visual)
    # at 1.6 s: the audio of a quarter of the shifts, those that fetch it from 0.4 s later or more, is loud
    expected = np.array([audio[(40 - shift) % 150, 0].item() for shift in SHIFTS])
    assert found[40].tolist() == pytest.approx([expected.mean(), 1])
    assert found[120].tolist() == [0, 0]


@pytest.mark.parametrize("length", [1, 7, 25, 60])
@pytest.mark.parametrize("steps", [1, 100, 12_000])
@pytest.mark.parametrize("goes_on", [False, True])
def test_by_a_loop_over_shifts_and_time_steps(monkeypatch, length, steps, goes_on):
    monkeypatch.setattr(module, "STEPS", steps)
    audio, visual = np.random.default_rng(length).standard_normal((2, length, 3))
    shown = []

    def score(audio: np.ndarray, visual: np.ndarray) -> np.ndarray:
        shown.append(audio.shape[:2])
        return agreement(audio, visual)

    found = fits(score, audio, visual, goes_on=goes_on)
    for time in range(length):
        there = [shift for shift in SHIFTS if not goes_on or time - shift < length]
        odds = np.array([audio[(time - shift) % length, 0] * visual[time, 0] for shift in there])
        np.testing.assert_allclose(found[time], [odds.mean(), odds.max()], rtol=0, atol=1e-5)
    assert all(shifts == 1 or shifts * time <= steps for shifts, time in shown)


@pytest.mark.parametrize("length", [1, 2, 40, 200])
def test_a_correlation_by_a_loop_over_time_steps(length):
    """Beyond the ends the series stay as they are there."""
    rng = np.random.default_rng(length)
    video, loudness = rng.standard_normal((2, length))
    around = np.clip(np.arange(-2 * AROUND, length + 2 * AROUND), 0, length - 1)
    smooth = functools.partial(gaussian_filter1d, sigma=SMOOTHING, mode="nearest")

    def deviations(series: np.ndarray) -> np.ndarray:
        means = [series[around[time + AROUND : time + 3 * AROUND + 1]].mean() for time in range(length)]
        return (series - means)[around]

    one, other = deviations(smooth(video)), deviations(smooth(loudness))
    logits = np.stack((-video / 2, video / 2), axis=1)
    nothing = np.zeros((length, 1))
    found = in_step(agreement, nothing, nothing, logits, loudness)[:, 2]
    for time in range(length):
        window = slice(time + AROUND, time + 3 * AROUND + 1)
        product, *squares = (np.mean(a[window] * b[window]) for a, b in ((one, other), (one, one), (other, other)))
        assert found[time] == pytest.approx(product / np.sqrt(squares[0] * squares[1] + 1e-3), abs=1e-5)


def test_a_mouth_that_follows_the_loudness_correlates_and_one_that_rests_does_not():
    times = np.arange(200) / 25
    loudness = 10 + 4 * np.sin(9 * times)
    nothing, resting = np.zeros((200, 1)), np.full(200, -3.0)

    def correlation(video: np.ndarray) -> np.ndarray:
        logits = np.stack((-video / 2, video / 2), axis=1)
        return in_step(agreement, nothing, nothing, logits, loudness)[50:-50, 2]

    assert correlation(3 * (loudness - 10)).min() > 0.99
    assert correlation(10 - loudness).max() < -0.99
    assert np.abs(correlation(resting)).max() < 1e-6


# ---------------------------------------------------------------- whose voice it is


def drawn_shot(seed: int, faces: int, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log odds and presence, (face, time), and MFCCs (time, 13), of faces that come and go."""
    rng = np.random.default_rng(seed)
    present = np.zeros((faces, length), bool)
    for own in present:
        begin, end = sorted(rng.integers(0, length + 1, 2))
        own[begin:end] = True
    return 4 * rng.standard_normal((faces, length)), present, 20 * rng.standard_normal((length, 13))


@pytest.mark.parametrize(("seed", "faces", "length"), [(0, 1, 1), (1, 2, 26), (2, 3, 90), (3, 4, 200), (4, 8, 140)])
@pytest.mark.parametrize("within", [WITHIN, 60])
def test_a_voice_by_a_loop_over_faces_and_times(monkeypatch, seed, faces, length, within):
    monkeypatch.setattr(module, "WITHIN", within)
    odds, present, heard = drawn_shot(seed, faces, length)
    sounds = gaussian_filter1d(heard, SYLLABLES, axis=0, mode="nearest")
    found = by_voice(odds, present, heard, slice(None))
    for face in range(faces):
        for time in range(length):
            then = [t for t in range(EVERY // 2, length, EVERY) if APART < abs(t - time) <= within and present[face, t]]
            added = 0.0
            if then:
                probability = 1 / (1 + np.exp(-odds[face, then]))
                alike = np.exp(-((sounds[then] - sounds[time]) ** 2).sum(1) / (2 * ALIKE**2))
                if alike.sum() < 1e-9:  # a sound like no other: nothing is known, or what is least unlike decides
                    continue
                ratio = (np.average(probability, weights=alike) + SELDOM) / (probability.mean() + SELDOM)
                added = WEIGHT * np.log(ratio)
            assert found[face, time] == pytest.approx(added, abs=1e-3)


def test_who_spoke_with_this_voice_before_speaks_now():
    """Two voices take turns of two seconds; in the last turn, the first voice's, both mouths score alike."""
    voice = np.repeat([0, 1, 0, 1, 0], 50)
    heard = np.zeros((250, 13))
    heard[:, 3] = 30.0 * voice
    odds = np.where(voice == np.arange(2)[:, None], 3.0, -3.0)
    odds[:, 200:] = 0
    added = by_voice(odds, np.ones((2, 250), bool), heard, slice(215, 250))
    assert added.shape == (2, 35)
    assert (added[0] > WEIGHT * np.log(1.5)).all()
    assert (added[1] < WEIGHT * np.log(0.5)).all()


def test_a_voice_tells_nothing_of_one_who_is_alone_with_it_or_silence():
    odds = np.full((2, 200), [[5.0], [-5.0]])
    assert np.abs(by_voice(odds, np.ones((2, 200), bool), drawn_shot(0, 1, 200)[2], slice(None))).max() < 1e-6


def test_what_an_absent_face_scores_is_of_no_consequence():
    odds, present, heard = drawn_shot(5, 3, 150)
    other = np.where(present, odds, 1e3)
    assert (by_voice(odds, present, heard, slice(None)) == by_voice(other, present, heard, slice(None))).all()


def test_what_sounds_while_nobody_is_there_is_of_no_consequence():
    odds, present, heard = drawn_shot(6, 3, 700)
    present[:, 300:500] = False
    heard *= 4  # so that few times sound alike
    other = heard.copy()
    other[345:455] = heard[100:210]  # what is nearer than four times `SYLLABLES` is heard at the other times
    now = slice(0, 250)
    assert (by_voice(odds, present, heard, now) == by_voice(odds, present, other, now)).all()


# ---------------------------------------------------------------- while people speak


@pytest.fixture(scope="module")
def scorer() -> ResidualScorer:
    return ResidualScorer.of(ResidualContext())


def noted(memory: VoiceMemory, face: str, first: int, odds: np.ndarray, heard: np.ndarray, looks: int | None) -> None:
    """A whole face that the memory is told of; of two looks, which are nothing alike, or None."""
    embedding = None if looks is None else np.eye(2, dtype=np.float32)[looks]
    memory.note(face, first, TrackFeatures(first, heard), logits_of(odds), embedding)


@pytest.mark.parametrize(("looks", "added"), [(0, WEIGHT * np.log(1.0026 / 0.55)), (1, 0.0), (None, 0.0)])
def test_a_face_that_is_back_after_a_cut_has_its_voice_back(scorer, looks, added):
    """It speaks half of its eight seconds (p = 0.9526), and is silent where the other voice is heard. After the cut
    both mouths would score alike; of what came after it nothing is a second away."""
    heard = np.zeros((225, 13), np.float32)
    heard[:, 3] = 30 * np.repeat([0, 1, 0, 1, 0], [50, 50, 50, 50, 25])
    odds = np.where(heard[:200, 3] == 0, 3.0, -3.0)
    memory = VoiceMemory(scorer.with_voices, max_distance=0.1)
    noted(memory, "before", 0, odds, heard[:200], 0)
    noted(memory, "after", 200, np.zeros(25), heard[200:], looks)
    logits = memory.scores(since=200)["after"]
    assert (logits[:, 1] - logits[:, 0])[15:].tolist() == pytest.approx([added] * 10, abs=0.1)


def test_what_is_forgotten_is_of_no_consequence_and_memory_is_bounded(scorer, monkeypatch):
    """Faces that come and go, by blocks, beside all that was ever told of them at once."""
    reach = 100
    for name, value in (("WITHIN", 60), ("VOICE_REACH", reach), ("PIECE", 70)):
        monkeypatch.setattr(module, name, value, raising=False)
        monkeypatch.setattr(residual_contexts, name, value, raising=False)
    rng, block, length = np.random.default_rng(0), 10, 900
    heard = 10 * rng.standard_normal((length, 13)).astype(np.float32)
    spans = [(begin, begin + int(rng.integers(20, 120))) for begin in range(0, length - 120, 15)]
    odds = [4 * rng.standard_normal(end - begin).astype(np.float32) for begin, end in spans]
    looks = [np.eye(4, dtype=np.float32)[n % 4] for n in range(len(spans))]
    memory, differences, most = VoiceMemory(scorer.with_voices, 0.1), [], 0
    for since in range(0, length - 120, block):
        now = since + block + 5  # 5 that are not due are told anew
        told = {n: TrackFeatures(a, heard[a : min(now, b)]) for n, (a, b) in enumerate(spans) if a < now}
        logits = {n: logits_of(odds[n][: len(known.features)]) for n, known in told.items()}
        for n, known in told.items():
            if known.end > since - 8:
                late = max(0, since - 8 - known.first)
                last = TrackFeatures(known.first + late, known.features[late:])
                memory.note(n, known.first, last, logits[n][late:], looks[n])
        near = list(memory.faces)
        persons = group_tracks([looks[n] for n in near], [(told[n].first, told[n].end - 1) for n in near], 0.1)
        whole = scorer.with_voices([told[n] for n in near], [logits[n] for n in near], persons)
        scored = memory.scores(since)
        for n, expected in zip(near, whole, strict=True):
            new = max(0, told[n].end - since)
            differences.append(np.abs(scored[n] - expected[-len(scored[n]) :])[len(scored[n]) - new :].max(initial=0))
        most = max(most, *(len(known.heard) for known in memory.faces.values()))
        assert len(memory.faces) <= (reach + 120 + block) / 15 + 1
    assert max(differences) < 1e-4
    assert most <= reach + block + 5 + EVERY


def test_of_many_faces_the_last_are_remembered():
    memory = VoiceMemory(None, 0.1)
    for face in range(60):
        noted(memory, face, 10 * face, np.zeros(10), np.zeros((10, 13), np.float32), None)
    noted(memory, "seen", 0, np.zeros(620), np.zeros((620, 13), np.float32), None)
    memory.scores(since=610)
    assert set(memory.faces) == {*range(10, 60), "seen"}


@pytest.mark.parametrize("since", [-5, 0, 37, 400, 900])
def test_what_voices_add_since_a_time_is_what_they_add_at_all_times(scorer, since):
    odds, _, heard = drawn_shot(7, 4, 500)
    firsts, own = [0, 40, 100, 3], [np.ones(450, bool)] * 4
    told = [np.roll(heard, first, axis=0)[:450] for first in firsts]
    arguments = firsts, [one[:450].astype(np.float32) for one in odds], told, own, range(4)
    for face, (all_times, wanted) in enumerate(
        zip(scorer.voices(*arguments), scorer.voices(*arguments, since), strict=True)
    ):
        begin = max(0, since - firsts[face])
        np.testing.assert_allclose(wanted[begin:], all_times[begin:], rtol=0, atol=1e-5)


# ---------------------------------------------------------------- alike wherever it is told


@pytest.mark.parametrize("name", TRACK_ENCODERS)
def test_whole_tracks_tell_the_same_crop_by_crop_as_at_once(name):
    """As detection takes them and as the staged pipeline keeps them."""
    model, frames = TRACK_ENCODERS[name]().eval(), 40
    hash_weights(model)
    samples = np.random.default_rng(0).integers(-3000, 3000, (frames + 2) * SAMPLE_RATE // 25).astype(np.int16)
    faces = track(1, frames)[1][0].numpy()
    mfcc = track_mfcc(samples[: track_samples(frames)], np.arange(frames))
    embedder = TrackEmbedder.of(model)
    logits, video_logits, in_step, heard, _ = track_encoder(embedder)(mfcc, faces)
    scorer = OnePass(embedder, VideoAudio(samples, 0.0, (frames + 2) / 25), 0.0, gives="cues")
    for face in faces:
        assert face.shape == (SIDE, SIDE)
        scorer.push(face)
    found_logits, found = scorer.finish()
    expected = told(logits, video_logits, in_step, heard)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(found_logits, logits, rtol=0, atol=1e-3)
    assert (np.ptp(expected, axis=0) > 0).all()


def test_clips_tell_the_same_crop_by_crop_as_at_once(prepared, tmp_path):
    torch.manual_seed(0)
    length, entity, audio = 5, "tinyTrain_2_0000_0060:2", tmp_path / "audio"
    shutil.copytree(prepared / "audio" / "train", audio, ignore=shutil.ignore_patterns(provenance.FOLDER))
    for path in audio.glob("tinyTrain_2*"):
        # A hum that swells: a time that the staged pipeline truncates to the sample before makes little difference.
        times_s = np.arange(len(read_wav(path))) / SAMPLE_RATE
        write_wav(path, (9000 * np.sin(300 * times_s) * np.sin(4 * times_s) ** 2).astype(np.int16))
    model = used(resnet18_two_streams(rgb_stack_size=length))
    rows = ava.read_augmented(prepared / "csv" / "train.csv")
    dataset = ClipDataset(
        rows, prepared / "crops" / "train", audio, clip_length=length, size=CROP_SIZE, random_centres=False
    )
    encode, heads = torch.inference_mode()(model), model.heads
    [video] = encode_videos(encode, dataset, ["tinyTrain_2"], device=CPU, batch_size=20, heads=heads)
    own = (video.rows["entity_id"] == entity).to_numpy()
    parts = video.logits, video.video_logits, video.in_step, video.heard
    expected = told(*(part[own] for part in parts))
    heard = VideoAudio(np.array(read_wav(audio / f"{entity}.wav")), 0.0, 2.0)
    scorer = ClipScorer(encode, heads, length, heard, 0.0, device=CPU, gives="cues")
    for row in np.flatnonzero(dataset.entity == entity):
        scorer.push(dataset.crops.decode(int(row), CROP_SIZE))
    logits, found = scorer.finish()
    assert found.shape == (25, 5 + 13)
    difference = np.abs(found - expected) / np.ptp(expected, axis=0)
    assert np.median(difference) < 0.02
    assert difference.max() < 0.3
    np.testing.assert_allclose(found[:, 0], logits[:, 1] - logits[:, 0], rtol=0, atol=1e-5)
