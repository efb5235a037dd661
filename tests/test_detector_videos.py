"""Detection in videos of all kinds: clocks, gaps, streams, sizes, damage; the faces are known."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from detector_set import CLIP, FRAMES, detector, tiny_video, two_faces, write_weights
from tiny import BOXES, FPS, SAMPLE_RATE, audio_of, tiny_frame
from videos import encode, heard, joined, of_streams, strength, tone, with_packets

from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_audio import audio_on_disk
from core.outputs.overlay import write_overlay


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return two_faces(tmp_path_factory.mktemp("video"))


@pytest.mark.parametrize("gap_s", [1.5, 600.0])
def test_nobody_is_followed_over_a_gap_in_time(weights, tmp_path, gap_s):
    """As where a clock was set forward, or a picture stands still for minutes while audio goes on."""
    times_s = np.arange(FRAMES) / FPS + gap_s * (np.arange(FRAMES) >= 20)
    path = tiny_video(tmp_path / "a.mkv", times_s, faces=2, audio=np.zeros(16_000, np.int16))
    found = detector(weights).detect(path)
    lasts = [19, FRAMES - 1] if gap_s > 2 else [FRAMES - 1]
    assert [shot.last_frame for shot in found.shots] == lasts
    assert [int(track.frames[-1]) for track in found.tracks] == [last for last in lasts for _ in range(2)]
    assert any("no new picture" in note for note in found.notes) == (gap_s > 2)
    if gap_s > 2:
        assert found.shots[0].end_s < 1
        assert found.end_of_frame(19) == found.shots[0].end_s
        assert found.shots[1].start_s == pytest.approx(times_s[20], abs=0.01)


def test_a_video_without_audio_has_faces_without_scores(weights, tmp_path):
    found = detector(weights).detect(tiny_video(tmp_path / "mute.mp4", np.arange(30) / FPS, faces=2, audio=None))
    assert len(found.tracks) == 2
    assert found.audio_s is None
    assert np.isnan(found.tracks[0].scores).all()
    assert not found.tracks[0].speaking.any()
    assert found.complete
    [note] = found.notes
    assert "no audio stream" in note


def test_the_frames_that_wait_are_bounded_in_memory(weights, video, monkeypatch):
    """64 by 48 pixels of 12 bits are 4,608 bytes; a third of what is allowed is for each of three detections."""
    monkeypatch.setattr("core.detection.faces.HELD_BYTES", 3 * 7.5 * 4608)
    seldom = detector(weights, detect_every=250)
    found = seldom.detect(video)
    assert seldom.detector.asked == len({*range(0, FRAMES, 7), FRAMES - 1})
    [note] = found.notes
    assert "every 7 frames, not every 250" in note
    assert len(found.tracks) == 2


@pytest.mark.parametrize(("start_s", "end_s"), [(0.0, 0.5), (1.0, 3.0)])
def test_audio_that_covers_a_part_of_the_video_is_noted(weights, tmp_path, start_s, end_s):
    """It ends early, or begins late."""
    samples = audio_of(CLIP)[: round((end_s - start_s) * SAMPLE_RATE)]
    path = tiny_video(tmp_path / "a.mkv", np.arange(75) / FPS, audio=samples, audio_start_s=start_s)
    found = detector(weights, faces=1).detect(path)
    assert found.audio_s == pytest.approx((start_s, end_s), abs=0.1)
    [note] = found.notes
    assert f"to {found.audio_s[1]:.2f} s" in note
    assert len(found.tracks[0].scores) == 75
    assert np.isfinite(found.tracks[0].scores).all()


@pytest.mark.parametrize(
    "times_s",
    [
        *(np.arange(max(4, int(1.8 * fps))) / fps for fps in (1, 2, 3, 10, 24, 30000 / 1001, 60)),
        np.cumsum([0.0, *np.tile([0.02, 0.05, 0.2, 0.033], 6)]),
        np.append(np.arange(60) / 60, 1.0 + np.arange(8) / 4),  # a rate that falls in the middle
    ],
    ids=lambda times_s: f"{len(times_s)} frames",
)
def test_any_frame_rate_scores_its_own_frames(weights, tmp_path, times_s):
    found = detector(weights, faces=1).detect(tiny_video(tmp_path / "a.mp4", times_s))
    [track] = found.tracks
    np.testing.assert_allclose(track.times_s, times_s, atol=1e-3)
    np.testing.assert_allclose(found.frame_times_s, times_s, atol=1e-3)
    assert np.isfinite(track.scores).all()


@pytest.mark.parametrize("second", [(32, 24), (128, 128)])
def test_frames_whose_size_changes_are_scaled_to_the_first(weights, tmp_path, second):
    found = detector(weights, faces=1).detect(joined(tmp_path, [(64, 48), second], [10.0, 11.0]))
    assert (found.info.width, found.info.height) == (64, 48)
    assert len(found.frame_times_s) == 50
    for track in found.tracks:
        assert track.boxes == pytest.approx(np.tile(BOXES[0], (len(track.frames), 1)), abs=0.01)
    assert sum(len(track.frames) for track in found.tracks) == 50


def test_recordings_joined_byte_by_byte_are_one_video(weights, tmp_path):
    found = detector(weights, faces=1).detect(joined(tmp_path, [(64, 48)] * 2, [10.0, 5.0]))
    assert found.complete
    np.testing.assert_allclose(np.diff(found.frame_times_s), 1 / FPS, atol=0.1)
    assert len(found.frame_times_s) == 50
    assert "2 recordings joined byte by byte" in found.notes[-1]
    assert f"{found.frame_times_s[25]:.2f} s" in found.notes[-1]


@pytest.mark.parametrize(
    ("fps", "seconds", "noted"), [(25, 2.0, []), (25, 3.0, ["The audio lasts"]), (5, 2.0, ["At 5"])]
)
def test_what_little_can_be_said_of_is_noted(weights, tmp_path, fps, seconds, noted):
    """Audio that goes on after the last frame; frames that are too few for mouths."""
    path = tiny_video(
        tmp_path / "a.mp4", np.arange(2 * fps) / fps, audio=np.resize(audio_of(CLIP), round(seconds * SAMPLE_RATE))
    )
    notes = detector(weights, faces=1, context="none").detect(path).notes
    assert [note[: len(start)] for note, start in zip(notes, noted, strict=True)] == noted


def test_faces_in_pixels_that_are_not_square_are_found_as_players_show_them(weights, tmp_path):
    frames = [tiny_frame(number, 1)[:, ::2] for number in range(20)]
    found = detector(weights, faces=1).detect(encode(tmp_path / "a.mp4", frames, aspect=Fraction(2), crf="8"))
    assert (found.info.width, found.info.height) == tiny_frame(0, 1).shape[1::-1]
    assert found.tracks[0].boxes == pytest.approx(np.tile(BOXES[0], (20, 1)), abs=0.01)


@pytest.mark.parametrize("name", ["late.mp4", "late.mkv"])
def test_results_are_on_the_clock_that_players_show(weights, tmp_path, name):
    """A file that begins at 3605 s, as of cameras: the scores of the same that begins at 0, at its own times."""
    start_s, soon, late = 3605.0, tmp_path / f"soon-{name}", tmp_path / name
    for path, begin_s in ((soon, 0.0), (late, start_s)):
        tiny_video(path, begin_s + np.arange(FRAMES) / FPS, audio_start_s=begin_s, audio_codec="pcm_s16le")
    one, other = (detector(weights, faces=1).detect(path) for path in (soon, late))
    assert (one.start_s, other.start_s, other.offset_s) == (0.0, start_s, 0.0)
    np.testing.assert_allclose(other.frame_times_s, one.frame_times_s + start_s, atol=1e-3)
    np.testing.assert_allclose(other.tracks[0].times_s, one.tracks[0].times_s + start_s, atol=1e-3)
    np.testing.assert_allclose(other.tracks[0].scores, one.tracks[0].scores, atol=1e-3)
    np.testing.assert_allclose(other.audio_s, np.array(one.audio_s) + start_s, atol=1e-3)
    assert other.shots[0].start_s == start_s
    assert (other.complete, other.notes) == (True, [])
    write_overlay(tmp_path / "overlay.mp4", other)
    with MediaFile(tmp_path / "overlay.mp4") as overlay:
        assert [round(frame.time_s * FPS) for frame in read_frames(overlay)] == list(range(FRAMES))


def test_the_streams_that_were_used_are_those_of_the_overlay(weights, tmp_path):
    path = of_streams(
        tmp_path / "a.mkv", [(64, 60, "default"), (96, 10, "")], [(tone(500), "default"), (tone(8000), "")]
    )
    found = detector(weights, faces=1, video_stream=1, audio_stream=1).detect(path)
    assert (found.info.width, found.info.stream, found.info.audio.stream) == (96, 1, 1)
    videos, audios, *_ = found.notes
    assert ("2 video streams" in videos, "2 audio streams" in audios) == (True, True)
    write_overlay(tmp_path / "overlay.mp4", found)
    assert MediaFile(tmp_path / "overlay.mp4").info.width == 96
    assert strength(heard(tmp_path / "overlay.mp4")) == pytest.approx(8000, rel=0.1)
    by_default = detector(weights, faces=1).detect(path)
    assert (by_default.info.width, by_default.info.audio.stream) == (64, 0)
    mixed = detector(weights, faces=1, audio_stream="all").detect(path)
    assert mixed.info.audio.stream == "all"


def test_outputs_are_made_of_the_streams_that_were_detected_in_also_where_recordings_are_joined(weights, tmp_path):
    """Each has the audio that counts where the other has silence."""
    silent, loud = (tone(0), ""), (tone(9000), "default")
    parts = [
        of_streams(tmp_path / f"{number}.mkv", [(64, 3, "")], audios)
        for number, audios in enumerate([[silent, loud], [loud, silent]])
    ]
    path = tmp_path / "joined.mkv"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    found = detector(weights, faces=0).detect(path)
    with found.open(tolerant=True) as media, audio_on_disk(media) as audio:
        halves = [strength(half) for half in np.array_split(audio.samples[: len(audio.samples)], 2)]
    assert min(halves) > 1000


@pytest.mark.parametrize(("right", "what"), [(-8000, "cancel each other"), (None, "digital silence")])
def test_audio_in_which_nobody_would_be_heard_is_noted(weights, tmp_path, right, what):
    sides = np.zeros((2, 25_600), np.int16) if right is None else np.stack([tone(8000), tone(right)])
    found = detector(weights, faces=1).detect(of_streams(tmp_path / "a.mkv", [(64, 60, "")], [(sides, "")]))
    [note] = found.notes
    assert what in note


def test_two_shots(weights, tmp_path):
    frames = [tiny_frame(number, 1) for number in range(20)] + [255 - tiny_frame(number, 1) for number in range(20)]
    found = detector(weights, faces=1).detect(encode(tmp_path / "a.mp4", frames, audio=audio_of(CLIP), crf="8"))
    assert [(shot.first_frame, shot.last_frame) for shot in found.shots] == [(0, 19), (20, 39)]
    assert [(track.shot, track.frames[0], track.frames[-1]) for track in found.tracks] == [(0, 0, 19), (1, 20, 39)]


def test_a_file_cut_off_gives_what_can_be_decoded(weights, unusual):
    found = detector(weights, faces=0).detect(unusual / "truncated-middle.mp4")
    assert not found.complete
    assert len(found.frame_times_s) > 20
    assert "Video: 1 packet(s) cannot be decoded, at 3.47 s" in found.notes[0]
    assert "6.63 s" in found.notes[1]  # long it should be
    assert "3.47 s" in found.notes[1]


def test_a_file_cut_off_between_packets_is_noted(weights, video, tmp_path):
    path = with_packets(video, tmp_path / "a.mkv", lambda number, old: old)
    assert detector(weights, faces=0).detect(path).complete
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 5])
    found = detector(weights, faces=0).detect(path)
    assert not found.complete
    assert any("cut off" in note and " 2.0" in note for note in found.notes)


def test_damage_in_the_middle_costs_what_is_damaged(weights, video, tmp_path):
    """Video and audio go on behind a packet that cannot be decoded."""
    path = with_packets(video, tmp_path / "a.mkv", lambda n, old: b"nothing of use" if 20 <= n < 26 else old)
    found, whole = detector(weights).detect(path), detector(weights).detect(video)
    assert not found.complete
    assert [note.split(":")[0] for note in found.notes] == ["Video", "Audio"]
    assert len(whole.frame_times_s) - 6 < len(found.frame_times_s) < len(whole.frame_times_s)
    assert found.frame_times_s[-1] == pytest.approx(whole.frame_times_s[-1], abs=0.07)  # mkv keeps AAC's delay
    assert found.audio_s == pytest.approx(whole.audio_s, abs=0.15)
    write_overlay(tmp_path / "overlay.mp4", found)
    assert sum(1 for _ in read_frames(MediaFile(tmp_path / "overlay.mp4"))) == len(found.frame_times_s)
