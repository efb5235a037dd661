"""The synthetic set: what is promised of a scene holds by measurement, and the script writes it or says why not."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import exit_status, refusal
from videos import frame_times, heard

from core.evaluation.metrics import average_precision, roc_auc
from core.formats import ava
from core.synthetic.audio import SAMPLE_RATE, Syllables, contours, mouth, speaking_spans
from core.synthetic.frames import render_frames
from core.synthetic.scenes import Scene, Shot, Track, annotation_rows, compose_scene
from scripts import make_synthetic_ava

SMALL = (320, 180)
SPEAKING, MIMED = ava.LABEL_IDS["SPEAKING_AUDIBLE"], ava.LABEL_IDS["SPEAKING_NOT_AUDIBLE"]


ROOT = Path(__file__).resolve().parents[1]


@functools.cache
def scene(number: int) -> Scene:
    return compose_scene(3, "train", number, 12, 25.0, SMALL)


def shots(scenes: int) -> list[Shot]:
    return [shot for number in range(scenes) for shot in scene(number).shots]


def tracks(number: int) -> list[tuple[Shot, Track]]:
    return [(shot, track) for shot in scene(number).shots for track in shot.tracks]


def loudness_per_frame(audio: np.ndarray, frames: int) -> np.ndarray:
    """RMS of the 40 ms around each frame's time, (frame,)."""
    half = SAMPLE_RATE // 50
    padded = np.pad(audio.astype(np.float64), half)
    return np.sqrt((padded[: frames * 2 * half].reshape(frames, -1) ** 2).mean(1))


def test_a_scene_depends_on_its_arguments_only():
    one, again = (compose_scene(1, "val", 2, 4, 25.0, SMALL) for _ in range(2))
    assert annotation_rows(one).equals(annotation_rows(again))
    assert np.array_equal(one.audio, again.audio)
    pairs = list(zip(render_frames(one), render_frames(again), strict=True))
    assert len(pairs) == 100
    assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("other", [(2, "val", 2), (1, "train", 2), (1, "val", 3)])
def test_another_seed_split_or_number_gives_another_scene(other):
    one, two = compose_scene(1, "val", 2, 4, 25.0, SMALL), compose_scene(*other, 4, 25.0, SMALL)
    assert one.video_id != two.video_id
    assert not np.array_equal(one.audio, two.audio)
    assert not np.array_equal(next(render_frames(one)), next(render_frames(two)))


def test_shares_of_the_labels_and_numbers_of_heads():
    labels = np.concatenate([track.labels for shot in shots(40) for track in shot.tracks])
    shares = np.bincount(labels, minlength=3) / len(labels)
    assert 0.25 < shares[SPEAKING] < 0.35
    assert 0.18 < shares[MIMED] < 0.28
    assert {len(shot.tracks) for shot in shots(40)} == {1, 2, 3, 4}


def test_one_visible_head_at_most_is_heard_and_most_miming_lies_in_silences():
    beside = []
    for shot in shots(20):
        heard = np.sum([track.labels == SPEAKING for track in shot.tracks], axis=0)
        assert heard.max() <= 1
        beside += [heard[track.labels == MIMED] for track in shot.tracks]
    assert 0.08 < np.concatenate(beside).mean() < 0.35


def test_faces_lie_apart_within_the_frame():
    for shot in shots(20):
        boxes = np.stack([track.boxes for track in shot.tracks])  # (track, frame, [x1, y1, x2, y2])
        assert (boxes[:-1, :, 2] < boxes[1:, :, 0] + 0.02).all()
        assert (boxes[..., :2] < boxes[..., 2:]).all()
        assert boxes.min() >= 0
        assert boxes.max() <= 1


def test_neither_audio_nor_frames_alone_show_who_speaks_but_their_agreement_does():
    agreement, loud, moving, labels = [], [], [], []
    for number in range(25):
        frames = sum(shot.frames for shot in scene(number).shots)
        of_scene = loudness_per_frame(scene(number).audio, frames)
        for shot, track in tracks(number):
            loudness = of_scene[shot.first : shot.first + shot.frames]
            for start in range(0, len(loudness) - 11, 5):
                audio, mouth_open = loudness[start : start + 11] / loudness.max(), track.opening[start : start + 11]
                # The constants keep the trembling of a shut mouth and the noise of a room from counting as agreement.
                covariance = np.mean((audio - audio.mean()) * (mouth_open - mouth_open.mean()))
                agreement.append(covariance / (0.02 + audio.std()) / (0.04 + mouth_open.std()))
                loud.append(audio.mean())
                moving.append(mouth_open.std())
                labels.append(track.labels[start + 5])
    agreement, loud, moving, labels = map(np.array, (agreement, loud, moving, labels))
    heard, mimed = labels == SPEAKING, labels == MIMED
    chance = heard.mean()
    assert average_precision(heard, loud) < chance + 0.25
    assert average_precision(heard, moving) < chance + 0.3
    assert average_precision(heard, agreement) > 0.8
    # A mouth that mimes moves as one that is heard does; beside the audio of somebody else it is out of step.
    assert 0.4 < roc_auc(heard[heard | mimed], moving[heard | mimed]) < 0.6
    doubtful = heard | (mimed & (loud > np.quantile(loud[heard], 0.1)))
    assert mimed[doubtful].sum() > 50
    assert roc_auc(heard[doubtful], agreement[doubtful]) > 0.9


def test_audio_and_mouth_agree_best_without_lag(tmp_path):
    """Through the file: the decoded audio against the opening that was drawn, frame by frame."""
    settings = make_synthetic_ava.Settings(seed=3, seconds=12, fps=25.0, size=SMALL, videos=1, val_videos=1)
    make_synthetic_ava.make_video(tmp_path, settings, ("train", 1))
    decoded = heard(tmp_path / "videos" / "train" / f"{scene(1).video_id}.mp4")
    assert len(decoded) >= len(scene(1).audio)
    loudness = loudness_per_frame(decoded, 300)
    lags = np.arange(-4, 5)
    products, speaking_frames = np.zeros(len(lags)), 0
    for shot, track in tracks(1):
        speaking = np.flatnonzero(track.labels == SPEAKING)
        speaking_frames += len(speaking)
        at = (shot.first + speaking[:, None] + lags).clip(0, 299)
        if len(speaking):
            products += (track.opening[speaking] - track.opening[speaking].mean()) @ loudness[at]
    assert speaking_frames > 50
    assert lags[products.argmax()] == 0


def test_short_pauses_count_as_speaking_and_long_ones_do_not():
    start, end = np.array([0.0, 0.45, 1.0]), np.array([0.2, 0.6, 1.2])  # pauses of 0.25 and 0.4 s
    said = Syllables(start, end, np.ones(3), np.zeros(3, int), np.zeros(3, bool))
    assert speaking_spans(said).tolist() == [[0.0, 0.6], [1.0, 1.2]]
    assert speaking_spans(Syllables.joined([])).shape == (0, 2)


def test_the_mouth_follows_loudness_and_vowel():
    # Syllables 0.2 s long that peak at 0.2, 0.6 and 1.0 s: frames 5, 15 and 25 at 25 frames per second.
    start = np.array([0.1, 0.5, 0.9])
    strength, vowel = np.array([1.0, 0.5, 1.0]), np.array([0, 1, 2])
    said = Syllables(start, start + 0.2, strength, vowel, np.zeros(3, bool))
    opening, width = mouth(contours(said, 1.4), 35, 25.0)
    assert opening.shape == width.shape == (35,)
    assert opening[[5, 15, 25]] == pytest.approx(strength**0.8, abs=0.05)
    assert opening[[0, 10, 20, 30]] == pytest.approx(0, abs=1e-6)
    assert width[[5, 15, 25]] == pytest.approx([1, 0, -1], abs=0.05)


def test_the_script_writes_a_set_that_the_reader_accepts(tmp_path, capsys):
    words = "--videos 4 --val-videos 1 --seconds 2 --size 320x180 --seed 5"
    assert exit_status(make_synthetic_ava.main, tmp_path, *words.split()) == 0
    assert "4 videos in train, 1 in val" in capsys.readouterr().out
    assert json.loads((tmp_path / "synthetic.json").read_text())["seed"] == 5
    rows = {split: ava.read_split(tmp_path / "annotations" / split) for split in ava.SPLITS}
    assert rows["train"]["video_id"].nunique() == 4
    assert rows["train"]["video_id"].str.startswith("-").any()
    for split, split_rows in rows.items():
        for video_id, video_rows in split_rows.groupby("video_id"):
            times = frame_times(tmp_path / "videos" / split / f"{video_id}.mp4")
            assert len(times) == 50
            assert set(video_rows["frame_timestamp"]) == {f"{time_s:.2f}" for time_s in times}
            assert video_rows["entity_id"].str.fullmatch(rf"{video_id}_\d{{4}}_\d{{4}}:\d+").all()
            assert video_rows.index.equals(video_rows.sort_values(["entity_id", "frame_timestamp"]).index)


def test_all_labels_are_written(tmp_path):
    for number in range(4):
        rows = annotation_rows(scene(number))
        ava.write_groundtruth(tmp_path / f"{rows['video_id'].iloc[0]}{ava.ANNOTATION_SUFFIX}", rows)
    assert set(ava.read_split(tmp_path)["label"]) == set(ava.LABEL_IDS)


def test_finished_videos_are_skipped_and_unfinished_ones_made_equal(tmp_path):
    command = make_synthetic_ava.main, tmp_path, "--videos", 2, "--val-videos", 1, "--seconds", 1, "--size", "320x180"
    for shard in ("1/2", "2/2"):
        assert exit_status(*command, "--shard", shard) == 0
    first, second = sorted((tmp_path / "annotations" / "train").iterdir())
    text = second.read_text()
    untouched = first.stat().st_mtime_ns
    second.unlink()
    assert exit_status(*command, "--jobs", 2) == 0
    assert second.read_text() == text
    assert first.stat().st_mtime_ns == untouched
    assert not list(tmp_path.rglob(".part-*"))


def test_videos_are_encoded_without_what_makes_them_differ_from_run_to_run(tmp_path):
    """With its macroblock tree x264 makes another file now and then: too seldom for comparing two."""
    settings = make_synthetic_ava.Settings(seed=0, seconds=1, fps=25.0, size=SMALL, videos=1, val_videos=1)
    make_synthetic_ava.make_video(tmp_path, settings, ("train", 0))
    for video in tmp_path.rglob("*.mp4"):
        assert b" mbtree=0 " in video.read_bytes()  # x264 writes its settings into the stream


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ("--videos 0", "at least 1"),
        ("--videos 2.5", "whole number"),
        ("--seconds nan", "from 1 to 3600"),
        ("--seed -1", "at least 0"),
        ("--fps 500", "from 5 to 60"),
        ("--size 641x360", "WIDTHxHEIGHT"),
        ("--size big", "WIDTHxHEIGHT"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, capsys, arguments, facts):
    option, value = arguments.split()
    message = refusal(capsys, make_synthetic_ava.main, tmp_path / "set", option, value)
    assert all(fact in message for fact in (option, repr(value), facts))
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    ("folder", "arguments", "fact"),
    [
        ("set", "--videos 2 --val-videos 1 --seconds 1 --seed 4", "seed 0 instead of 4"),
        ("set", "--videos 1 --val-videos 1 --seconds 1", "videos 2 instead of 1"),
        ("foreign", "", "not a synthetic set"),
    ],
)
def test_two_sets_are_not_mixed(tmp_path, capsys, folder, arguments, fact):
    settings = make_synthetic_ava.Settings(seed=0, seconds=1.0, fps=25.0, size=(640, 360), videos=2, val_videos=1)
    make_synthetic_ava.claim_folder(tmp_path / "set", settings)
    (tmp_path / "foreign" / "videos").mkdir(parents=True)
    assert fact in refusal(capsys, make_synthetic_ava.main, tmp_path / folder, *arguments.split())


def test_the_generator_does_without_torch():
    """Its processes start in a second, not in several."""
    code = "import sys; import scripts.make_synthetic_ava; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
