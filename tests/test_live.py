"""Faces scored while they are seen: the audio beside them, tracks, shots, and the whole detector."""

import functools
import json
import re
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
import torch
from detections import Brightness, Mean, Squares, SquaresWithLandmarks
from tiny import exit_status, tiny_frame
from track_models import used

from core import models
from core.clip_utils import GRID_FPS, SAMPLE_RATE
from core.detection import ActiveSpeakerDetector
from core.detection.encoders import Context
from core.inference import voices
from core.inference.track_embedding import TrackEmbedder
from core.inference.tracks import OnePass
from core.live import LiveDetector
from core.live.audio import LiveAudio
from core.live.lines import ScoredFace, ScoredFrame, as_line, schema
from core.live.tracks import ANEW, LiveShot, LiveTrack, memory_of
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_audio import VideoAudio, audio_on_disk
from core.media.video_writer import write_video
from core.runtime.errors import UserError
from scripts import live as live_script

FRAMES = 100
TIMES_S = tuple(number / GRID_FPS for number in range(FRAMES))
DELAY_S = 0.4
DAY_S = 86_400.0
WALL_CLOCK_S = 1.7e9  # of some day in 2023, from 1970; doubles are 2.4e-7 s apart there


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """Audio of changing loudness."""
    rng = np.random.default_rng(0)
    loudness = np.repeat(rng.uniform(10, 8000, 32), SAMPLE_RATE // 4)
    return (loudness * rng.standard_normal(len(loudness))).clip(-32768, 32767).astype(np.int16)


@pytest.fixture(scope="module")
def network() -> TrackEmbedder:
    return TrackEmbedder.of(used(models.light_asd()))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.save(used(models.light_asd()).state_dict(), folder / "light_asd.pth")
    context = models.ResidualContext()
    torch.nn.init.normal_(context.members[0].correction.weight)
    torch.save(context.state_dict(), folder / "residual.pth")
    return folder


NO_CONTEXT = Context("cues", lambda faces: [face.features[:, :2] for face in faces], {})  # is given it, and ignores it


def frame_of(number: int) -> np.ndarray:
    """Frames without a cut."""
    return tiny_frame(number // 2, faces=2)


def detector_of(weights, **options) -> LiveDetector:
    own = {"context": "none", "delay_s": DELAY_S, "detector": Squares(2), "min_face_px": 10, "min_track_s": 0.1}
    live = LiveDetector("light_asd", weights / "light_asd.pth", **own | options)
    live.encoder = replace(live.encoder, network=Mean())
    return live


def play(
    live: LiveDetector,
    audio: np.ndarray | None,
    *,
    block: int = 1600,
    ahead_s: float = 0.0,
    times_s: Sequence[float] = TIMES_S,
    from_s: float = 0.0,
) -> list[ScoredFrame]:
    """All that a detector gives of the tiny frames and audio that is pushed in blocks, so far ahead of the frames."""
    scored, pushed = [], 0
    for number, time_s in enumerate(times_s):
        while audio is not None and pushed < len(audio) and from_s + pushed / SAMPLE_RATE < time_s + ahead_s:
            scored += live.push_audio(audio[pushed : pushed + block], from_s + pushed / SAMPLE_RATE)
            pushed += block
        scored += live.push_frame(frame_of(number), float(time_s))
    if audio is not None:
        scored += live.push_audio(audio[pushed : pushed + SAMPLE_RATE // 2], from_s + pushed / SAMPLE_RATE)
    return scored + live.finish()


def play_on(live: LiveDetector, audio: np.ndarray, begin_s: float) -> list[ScoredFrame]:
    """What a detector gives while the tiny frames are pushed, each with as much audio; the last are to come."""
    scored = live.push_audio(audio[:8000], begin_s)
    for number, time_s in enumerate(TIMES_S):
        scored += live.push_audio(audio[8000 + 640 * number :][:640], begin_s + 0.5 + time_s)
        scored += live.push_frame(frame_of(number), begin_s + time_s)
    return scored


def probabilities(scored: list[ScoredFrame]) -> np.ndarray:
    return np.array([face.probability for frame in scored for face in frame.faces])


def test_audio_is_where_it_was_heard(noise):
    audio = LiveAudio(5.0)
    for start in range(0, len(noise), 1000):
        audio.push(noise[start : start + 1000], 100 + start / SAMPLE_RATE)
    assert audio.end_s == pytest.approx(108)
    assert audio.part(104.0, 2000).tolist() == noise[4 * SAMPLE_RATE :][:2000].tolist()
    assert not audio.part(102.0, 2000).any()  # forgotten
    assert not audio.part(108.0, 2000).any()  # not there yet


def test_a_block_that_comes_late_is_put_where_it_belongs(noise):
    audio, blocks = LiveAudio(5.0), noise[:9600].reshape(3, 3200)
    for number in (0, 2, 1):
        audio.push(blocks[number], number * 0.2)
    assert audio.part(0.0, 9600).tolist() == noise[:9600].tolist()


def test_what_comes_late_from_before_the_first_block_is_left_out(noise):
    audio = LiveAudio(5.0)
    audio.push(noise[4000:8000], 5.0)
    audio.push(noise[:4000], 4.875)  # half of it is from before
    assert audio.part(5.0, 2000).tolist() == noise[2000:4000].tolist()
    assert audio.part(5.125, 2000).tolist() == noise[6000:8000].tolist()
    assert not audio.part(4.875, 2000).any()


@pytest.mark.parametrize("rate", [15_960, 16_040])
def test_a_sound_card_that_counts_too_fast_or_too_slow_stays_beside_the_video(rate):
    audio, clicks = LiveAudio(3.0), np.zeros(60 * rate, np.int16)
    clicks[::rate] = 30_000  # once a second by the right clock
    for start in range(0, len(clicks), 800):
        audio.push(clicks[start : start + 800], start / rate)
    last = audio.part(57.5, 2 * SAMPLE_RATE)
    heard = 57.5 + np.flatnonzero(last > 3000) / SAMPLE_RATE
    assert abs(heard - np.round(heard)).max() < 0.02
    assert set(np.round(heard)) == {58, 59}


@pytest.mark.parametrize("away_s", [-50, 50])
def test_a_clock_that_was_set_begins_the_audio_anew(noise, away_s):
    audio = LiveAudio(5.0)
    audio.push(noise[:8000], 100.0)
    audio.push(noise[8000:16000], 100.0 + away_s)
    assert (audio.start_s, audio.end_s) == pytest.approx((100 + away_s, 100.5 + away_s))
    assert audio.part(100.0 + away_s, 8000).tolist() == noise[8000:16000].tolist()


def test_a_track_is_scored_as_one_that_ends_with_its_last_crop(network, noise):
    faces = np.random.default_rng(1).integers(0, 256, (90, 112, 112), np.uint8)
    audio = VideoAudio(noise, 0.0, len(noise) / SAMPLE_RATE)
    track = LiveTrack(network, audio, 0.2, gives_cues=True)
    for number, face in enumerate(faces, start=1):
        track.push(face)
        if number in (1, 5, 12, 40, 41, 60):  # all of the past is in view
            whole = OnePass(network, audio, 0.2, gives="cues")
            for one in faces[:number]:
                whole.push(one)
            start = max(0, number - 9)
            (logits, told), (all_logits, all_told) = track.score(start, ended=True), whole.finish()
            assert logits == pytest.approx(all_logits[start:], abs=1e-3)
            assert told == pytest.approx(all_told[max(0, start - ANEW) :], abs=1e-3)


def test_the_context_sees_the_last_second_by_what_has_come_since(network, noise):
    seen, audio = [], VideoAudio(noise, 0.0, 8.0)

    def score(tracks):
        seen.append(tracks[0].features)
        return [np.zeros((len(track.features), 2)) for track in tracks]

    context, alone = Context("cues", score, {}), LiveTrack(network, audio, 0.0, gives_cues=True)
    shot = LiveShot(network, context, audio, memory_of(context, None))
    face = shot.begin(0, 0.0)
    for number, crop in enumerate(np.random.default_rng(1).integers(0, 256, (80, 112, 112), np.uint8), start=1):
        face.push(crop)
        alone.push(crop)
        if number in (50, 80):
            due = face.due
            shot.advance(number - 11)
            _, told = alone.score(due, ended=False)
            assert len(told) == number - max(0, due - ANEW)
            assert seen[-1][-len(told) :] == pytest.approx(told, abs=1e-4)
    assert [len(one) for one in seen] == [50, 80]
    before, after = (one[15:40] for one in seen)
    assert np.abs(before - after).max() > 0.01  # more has come
    assert (seen[0][:15] == seen[1][:15]).all()


def test_faces_are_scored_with_what_is_known_of_the_others(network, noise):
    """A context network that gives each face the number of faces and of time steps that it was shown."""
    shown = []

    def score(tracks):
        shown.append([(track.first, len(track.features)) for track in tracks])
        return [np.stack((np.zeros(len(track.features)), np.arange(track.first, track.end)), 1) for track in tracks]

    context = Context("cues", score, {})
    shot = LiveShot(network, context, VideoAudio(noise, 0.0, 8.0), memory_of(context, None))
    first = shot.begin(10, 0.4)
    for _ in range(20):
        first.push(np.zeros((112, 112), np.uint8))
    shot.advance(19)
    assert first.odds.tolist() == list(range(10, 20))
    second = shot.begin(25, 1.0)
    for _ in range(5):
        second.push(np.zeros((112, 112), np.uint8))
    first.ended = True
    shot.advance(26)
    assert first.odds.tolist() == list(range(10, 27))
    assert second.odds.tolist() == [25, 26]
    second.ended = True
    shot.advance(10_000)
    assert (first.odds[-1], second.odds[-1]) == (29, 29)
    assert shown == [[(10, 20)], [(10, 20), (25, 5)], [(10, 20), (25, 5)]]
    assert shot.is_over
    shot.advance(10_001)
    assert shot.faces == []


@pytest.mark.parametrize("context", ["none", "residual.pth"])
def test_with_a_delay_longer_than_the_video_scores_are_those_of_whole_tracks(weights, tmp_path, noise, context):
    path = tmp_path / "a.mkv"
    write_video(path, (frame_of(n) for n in range(FRAMES)), GRID_FPS, audio=noise[:64000])
    options = {"context": context if context == "none" else weights / context, "detector": Squares(2)}
    options |= {"min_face_px": 10, "precision": "fp32"}
    offline = ActiveSpeakerDetector("light_asd", weights / "light_asd.pth", detect_every=3, **options).detect(path)
    live = LiveDetector("light_asd", weights / "light_asd.pth", delay_s=10, **options)
    scored = []
    with MediaFile(path, as_played=True) as media, audio_on_disk(media) as audio:
        scored += live.push_audio(audio.samples[:], audio.origin_s)
        for frame in read_frames(media):
            scored += live.push_frame(frame.raw, frame.time_s)
    assert scored == []
    scored = live.finish()
    assert [frame.time_s for frame in scored] == offline.frame_times_s.tolist()
    for track in offline.tracks:
        own = [face for frame in scored for face in frame.faces if face.id == track.id]
        assert [face.probability for face in own] == pytest.approx(track.probabilities.tolist(), abs=1e-3)
        assert np.array([face.box for face in own]) == pytest.approx(track.boxes, abs=1e-3)


def there_and_back() -> Iterator[np.ndarray]:
    """Frames with two cuts, after the second of which the first scene is back."""
    scenes = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    for number in range(3 * FRAMES // 2):
        yield (scenes[number // 50 % 2] * (0.8 + 0.2 * np.sin(number / 4))).astype(np.uint8)


@pytest.mark.parametrize("people", [None, False, Brightness()])
def test_with_a_delay_longer_than_the_video_voices_are_those_of_detect(weights, tmp_path, noise, people):
    path = tmp_path / "a.mkv"
    write_video(path, there_and_back(), GRID_FPS, audio=noise[:96000])
    options = {"context": weights / "residual.pth", "detector": SquaresWithLandmarks(2), "precision": "fp32"}
    options |= {"min_face_px": 10, "min_track_s": 0.1}
    offline = ActiveSpeakerDetector(
        "light_asd", weights / "light_asd.pth", detect_every=3, people=people, **options
    ).detect(path)
    live = LiveDetector("light_asd", weights / "light_asd.pth", delay_s=20, people=people, **options)
    with MediaFile(path, as_played=True) as media, audio_on_disk(media) as audio:
        live.push_audio(audio.samples[:], audio.origin_s)
        for frame in read_frames(media):
            assert live.push_frame(frame.raw, frame.time_s) == []
    scored = live.finish()
    assert [track.shot for track in offline.tracks] == [0, 0, 1, 1, 2, 2]
    for track in offline.tracks:
        own = [face.probability for frame in scored for face in frame.faces if face.id == track.id]
        assert own == pytest.approx(track.probabilities.tolist(), abs=1e-3)


@pytest.mark.parametrize("context", ["none", "residual.pth"])
def test_how_frames_and_audio_come_does_not_change_results(weights, noise, context):
    options = {"context": context if context == "none" else weights / context, "detector": SquaresWithLandmarks(2)}
    first = play(detector_of(weights, **options), noise, block=1600)
    assert len(first) == FRAMES
    assert [len(frame.faces) for frame in first] == [2] * FRAMES
    assert np.ptp(probabilities(first)) > 0.01
    for block, ahead_s in ((160, 0.5), (8000, 0.0), (1111, -0.3)):
        again = play(detector_of(weights, apart_s=5.0, **options), noise, block=block, ahead_s=ahead_s)
        assert [(frame.time_s, [face[:2] for face in frame.faces]) for frame in again] == [
            (frame.time_s, [face[:2] for face in frame.faces]) for frame in first
        ]
        assert probabilities(again) == pytest.approx(probabilities(first), abs=1e-5)


@pytest.mark.parametrize("begin_s", [-DAY_S, DAY_S, WALL_CLOCK_S + 1 / 3])
def test_what_the_clock_counts_from_does_not_change_results(weights, noise, begin_s):
    first = play(detector_of(weights), noise, ahead_s=0.5)
    later = play(detector_of(weights), noise, ahead_s=0.5, times_s=begin_s + np.array(TIMES_S), from_s=begin_s)
    assert [frame.time_s - begin_s for frame in later] == pytest.approx([frame.time_s for frame in first], abs=1e-6)
    assert [[face[:2] for face in frame.faces] for frame in later] == [
        [face[:2] for face in frame.faces] for frame in first
    ]
    assert probabilities(later) == pytest.approx(probabilities(first), abs=1e-5)


@pytest.mark.parametrize(
    ("delay_s", "fps", "begin_s"),
    [(0.2, 25, 0.0), (0.5, 25, DAY_S), (1.0, 30, 0.0), (1.0, 15, WALL_CLOCK_S), (0.4, 25, WALL_CLOCK_S)],
)
def test_scores_come_when_the_delay_is_over_and_not_all_at_once(weights, noise, delay_s, fps, begin_s):
    live, waiting, waited = detector_of(weights, delay_s=delay_s), [], []
    live.push_audio(noise[: 6 * SAMPLE_RATE], begin_s)
    for time_s in begin_s + np.arange(4 * fps) / fps:
        waiting.append(time_s)
        for frame in live.push_frame(tiny_frame(0), time_s):
            assert frame.time_s == waiting.pop(0)
            waited.append(time_s - frame.time_s)
        assert not waiting or time_s - waiting[0] < delay_s + 1e-6
    assert delay_s / 3 <= min(waited) <= max(waited) <= delay_s + 1e-6


def test_digital_silence_has_scores_and_a_camera_alone_none(weights):
    silent = play(detector_of(weights), np.zeros(5 * SAMPLE_RATE, np.int16))
    assert np.isfinite(probabilities(silent)).all()
    alone = play(detector_of(weights, audio=False), None)
    assert [[face.id for face in frame.faces] for frame in alone] == [[1, 2]] * FRAMES
    assert {face.probability for frame in alone for face in frame.faces} == {None}
    assert np.isfinite([face.score for frame in alone for face in frame.faces]).all()


def test_a_microphone_that_is_lost_is_waited_for_and_comes_back(weights, noise):
    live, scored, now = detector_of(weights, apart_s=0.5), [], 0.0
    for number in range(FRAMES):
        now = number / GRID_FPS
        if not 1.0 <= now < 2.0:
            scored += live.push_audio(noise[640 * number :][:640], now)
        before = len(scored)
        scored += live.push_frame(frame_of(number), now)
        assert not 1.6 < now < 1.9 or len(scored) > before or now - scored[-1].time_s <= DELAY_S + 0.5
    scored += live.finish()
    heard = {round(frame.time_s, 2): frame.faces[0].probability is not None for frame in scored}
    assert len(heard) == FRAMES
    assert all(heard[time_s] for time_s in (0.0, 0.48, 0.8, 2.52, 3.52))
    assert not any(heard[time_s] for time_s in (1.0, 1.2, 1.4))


@pytest.mark.parametrize(("jump_s", "begins_anew"), [(0.5, False), (3.0, True), (-100.0, True)])
def test_after_a_gap_or_a_clock_that_was_set_faces_are_new(weights, noise, jump_s, begins_anew):
    live = detector_of(weights, audio=False)
    times_s = 500 + np.arange(FRAMES) / GRID_FPS
    times_s[50:] += jump_s
    scored = play(live, None, times_s=times_s)
    assert [frame.time_s for frame in scored] == times_s.tolist()
    ids = [[face.id for face in frame.faces] for frame in scored]
    assert (ids[0], ids[-1]) == ([1, 2], [3, 4] if begins_anew else [1, 2])


@pytest.mark.parametrize("jump_s", [600.0, -600.0])
def test_after_a_clock_was_set_that_both_are_on_faces_are_heard_again(weights, noise, jump_s):
    live = detector_of(weights)
    scored = [frame for begin_s in (DAY_S, DAY_S + jump_s) for frame in play_on(live, noise, begin_s)] + live.finish()
    assert len(scored) == 2 * FRAMES
    assert [[face.id for face in frame.faces] for frame in scored] == [[1, 2]] * FRAMES + [[3, 4]] * FRAMES
    after = probabilities(scored[FRAMES:])
    assert after == pytest.approx(probabilities(play(detector_of(weights), noise, ahead_s=0.5)), abs=1e-5)


def test_frames_that_come_too_late_are_left_out(weights):
    live = detector_of(weights, audio=False)
    scored = play(live, None, times_s=np.array([0.0, 0.04, 0.12, 0.08, 0.16, 0.12]))
    assert [frame.time_s for frame in scored] == [0.0, 0.04, 0.12, 0.16]
    assert live.left_out == 2


class Away(Squares):
    """Finds no face in the frames of some times: in those that it is asked about in turn."""

    def __init__(self, away: range):
        super().__init__(2)
        self.away = away

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        faces = super().__call__(pixels)
        return faces[: 1 if self.asked in self.away else 2]


@pytest.mark.parametrize(("away", "last"), [(range(12, 14), [1, 2]), (range(12, 20), [1, 3])])
def test_a_face_that_was_away_for_long_is_a_new_one(weights, noise, away, last):
    scored = play(detector_of(weights, detector=Away(away)), noise)
    ids = [[face.id for face in frame.faces] for frame in scored]
    assert (ids[0], ids[-1]) == ([1, 2], last)
    assert ([1] in ids) == (last == [1, 3])


@pytest.mark.parametrize("delay_s", [0.2, 1.0])
def test_a_cut_ends_all_faces(weights, noise, delay_s):
    live, scored = detector_of(weights, delay_s=delay_s, audio=False), []
    for number in range(100):
        pixels = tiny_frame(0) if number < 50 else np.where(tiny_frame(0) > 20, 40, 230).astype(np.uint8)
        scored += live.push_frame(pixels, number / GRID_FPS)
    scored += live.finish()
    ids = [tuple(face.id for face in frame.faces) for frame in scored]
    late = 2 if delay_s < 0.6 else 0
    assert ids == [(1, 2)] * (50 + late) + [(3, 4)] * (50 - late)
    assert [number for number, frame in enumerate(scored) if frame.begins_shot] == [0, 50 + late]


@pytest.mark.parametrize("delay_s", [0.2, 1.0])
def test_a_cut_beside_a_face_ends_only_the_others(weights, delay_s):
    before, after = np.random.default_rng(0).integers(0, 256, (2, 12, 16, 3), np.uint8).repeat(16, 1).repeat(16, 2)
    after[:, : after.shape[1] // 2] = before[:, : before.shape[1] // 2]
    live, scored = detector_of(weights, delay_s=delay_s, audio=False), []
    for number in range(100):
        scored += live.push_frame(before if number < 50 else after, number / GRID_FPS)
    scored += live.finish()
    late = 2 if delay_s < 0.6 else 0
    assert [tuple(face.id for face in frame.faces) for frame in scored] == [(1, 2)] * (50 + late) + [(1, 3)] * (
        50 - late
    )
    assert [number for number, frame in enumerate(scored) if frame.begins_shot] == [0]


@pytest.mark.parametrize(("context", "begin_s"), [(None, 0.0), (NO_CONTEXT, WALL_CLOCK_S)])
def test_memory_and_work_do_not_grow(weights, monkeypatch, context, begin_s):
    for name, steps in (("WITHIN", 100), ("VOICE_REACH", 140)):
        monkeypatch.setattr(voices, name, steps)  # so that what is remembered is forgotten within seconds
    live = detector_of(weights)
    live.encoder = replace(live.encoder, context=context)
    pixels, block = tiny_frame(0, faces=2), np.zeros(640, np.int16)

    def play_on(from_s: float) -> int:
        """How much memory is in use ten seconds later."""
        for number in range(10 * GRID_FPS):
            time_s = from_s + number / GRID_FPS
            live.push_audio(block, time_s)
            assert len(live.push_frame(pixels, time_s)) <= live.every
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    memory = [play_on(begin_s + 10.0 * number) for number in range(5)]
    tracemalloc.stop()
    assert memory[4] - memory[2] < 8 * 20 * GRID_FPS  # a number a frame, of 640 kB of audio and 12 MB of faces


@pytest.mark.parametrize(
    ("options", "told"),
    [({"delay_s": 0.1}, "delay_s"), ({"apart_s": 0}, "apart_s"), ({"context": "absent.pth"}, "absent.pth")],
)
def test_what_cannot_be_done_is_said(weights, options, told):
    with pytest.raises(UserError, match=told):
        detector_of(weights, **options)


def test_persons_are_of_no_use_without_a_context(tmp_path, capsys):
    assert exit_status(live_script.main, tmp_path / "a.mp4", "--people", "--context", "none") == 2
    assert "--people" in capsys.readouterr().err


def test_a_file_is_played_in_real_time_as_lines_of_json(weights, noise, tmp_path, capsys, monkeypatch):
    path = tmp_path / "a.mkv"
    write_video(path, (frame_of(n) for n in range(30)), GRID_FPS, audio=noise[: round(1.2 * SAMPLE_RATE)])
    mine = {"min_face_px": 10, "min_track_s": 0.1}
    monkeypatch.setattr(live_script, "LiveDetector", functools.partial(LiveDetector, **mine))
    monkeypatch.setattr("core.live.detector.find_detector", lambda *arguments: Squares(2))
    options = ["--weights", weights / "light_asd.pth", "--context", "none"]
    begun = time.monotonic()
    assert exit_status(live_script.main, path, "--delay", "0.4", *options) == 0
    assert time.monotonic() - begun >= 29 / GRID_FPS
    out = capsys.readouterr()
    lines = [json.loads(line) for line in out.out.splitlines()]
    left_out = re.findall(r"(\d+) of 30 frames", out.err)
    assert len(lines) == 30 - int(left_out[-1] if left_out else 0) > 0
    for line in lines:
        jsonschema.validate(line, schema())
    assert [face["id"] for face in lines[-1]["faces"]] == [1, 2]
    assert lines[-1]["time"] <= 29 / GRID_FPS + 1e-6


def test_a_damaged_file_is_told(weights, noise, tmp_path, monkeypatch, capsys):
    path = tmp_path / "a.mkv"
    write_video(path, (frame_of(n) for n in range(60)), GRID_FPS, audio=noise[: round(2.4 * SAMPLE_RATE)])
    content = bytearray(path.read_bytes())
    for start in range(len(content) // 3, len(content) - 400, len(content) // 12):
        content[start : start + 200] = bytes(200)
    path.write_bytes(content)
    monkeypatch.setattr("core.live.detector.find_detector", lambda *arguments: Squares(2))
    options = ["--weights", weights / "light_asd.pth", "--context", "none"]
    assert exit_status(live_script.main, path, "--delay", "0.4", *options) == 1
    out = capsys.readouterr()
    assert out.out
    assert "note: Video:" in out.err or "note: Audio:" in out.err


@pytest.mark.parametrize("delay", ["0", "0.1", "nan", "soon"])
def test_a_delay_that_cannot_be_is_refused_by_the_name_typed(tmp_path, capsys, delay):
    assert exit_status(live_script.main, tmp_path / "a.mp4", "--delay", delay) == 2
    err = capsys.readouterr().err
    assert "--delay" in err
    assert delay in err


def test_what_is_no_frame_and_no_audio_is_refused(weights, noise):
    live = detector_of(weights)
    for samples in (noise / 32768, np.zeros((100, 2), np.int16)):
        with pytest.raises(UserError, match="int16"):
            live.push_audio(samples, 0.0)
    for image in (frame_of(0)[..., 0], frame_of(0) / 255, np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(UserError, match="uint8"):
            live.push_frame(image, 0.0)
    for push, what in ((live.push_audio, noise[:100]), (live.push_frame, frame_of(0))):
        with pytest.raises(UserError, match="nan"):
            push(what, float("nan"))
    assert live.finish() == []


def test_probabilities_are_not_rounded_over_the_threshold():
    faces = tuple(ScoredFace(n, (0.0, 0.0, 9.0, 9.0), p, 0.0) for n, p in enumerate((0.49996, 0.5, 0.50004), start=1))
    given = [face["probability"] for face in json.loads(as_line(ScoredFrame(0.0, faces)))["faces"]]
    assert given == [0.4999, 0.5, 0.5]
