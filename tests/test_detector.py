"""Detection in whole videos, with a detector that knows where faces are and an encoder with random weights."""

import contextlib
import re
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from detections import Brightness, Squares, SquaresWithLandmarks
from tiny import BOXES, CLIPS, FPS, SAMPLE_RATE, audio_of, tiny_frame
from track_models import PUBLISHED, needs_integers
from videos import encode, heard, joined, of_streams, strength, tone, with_packets

from core import models
from core.detection import ActiveSpeakerDetector, encoders, options
from core.inference.engine import best_precision
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_audio import audio_on_disk
from core.models import ASC_Net, ResidualContext, light_asd, lr_asd, resnet18_two_streams
from core.outputs.overlay import write_overlay
from core.people.embedding import Likeness
from core.runtime.errors import UserError
from core.runtime.files import fingerprint, write_json

CLIP = CLIPS[0]


class Alike(Brightness, Likeness):
    """Likeness, by the brightness of faces."""


ALIKE = Alike()
FRAMES = CLIP.frames


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """State dicts of all encoders, with random weights: `<name>.pth`."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for name, make in {"light_asd": light_asd, "lr_asd": lr_asd, "resnet18_two_streams": resnet18_two_streams}.items():
        model = make() if name.endswith("_asd") else make(rgb_stack_size=3)
        torch.save(model.state_dict(), folder / f"{name}.pth")
    for size in (128, 1024):
        torch.save(ASC_Net(3, 2, feature_size=size).state_dict(), folder / f"context{size}.pth")
    context = ResidualContext()
    torch.nn.init.normal_(context.members[0].correction.weight)
    torch.save(context.state_dict(), folder / "residual.pth")
    return folder


def tiny_video(path: Path, times_s: list[float] | np.ndarray, faces: int = 1, **options) -> Path:
    """The tiny frames at given times, the last again and again where there are more, with their audio."""
    frames = (tiny_frame(min(number, FRAMES - 1), faces) for number in range(len(times_s)))
    return encode(path, frames, times_s, crf="8", **{"audio": audio_of(CLIP), **options})


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return tiny_video(tmp_path_factory.mktemp("video") / "-two faces.mp4", np.arange(FRAMES) / FPS, faces=2)


def detector(weights: Path, name: str = "light_asd", faces: int = 2, **options) -> ActiveSpeakerDetector:
    return ActiveSpeakerDetector(
        name,
        weights / f"{name}.pth",
        **{"detector": Squares(faces), "min_face_px": 10, "precision": "fp32", **options},
    )


def test_the_names_of_encoders_are_those_of_the_networks():
    assert set(options.WHOLE_TRACK_ENCODERS) == set(models.TRACK_ENCODERS)
    assert set(options.CLIP_ENCODERS) == set(models.BACKBONES)


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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light_asd", {}),
        ("light_asd", {"precision": "bf16"}),
        ("lr_asd", {"crop": "lower_face"}),
        ("lr_asd", {"ensemble": True}),
        ("lr_asd", {"context": 128}),
        ("resnet18_two_streams", {}),
        ("resnet18_two_streams", {"context": 1024}),
        ("light_asd", {"context": "residual"}),
        ("resnet18_two_streams", {"context": "residual"}),
    ],
)
def test_every_encoder_scores_every_frame(weights, video, name, options):
    context = options.get("context")
    if context == "residual":
        options = {"context": weights / "residual.pth"}
    elif context:
        options = {"context": weights / f"context{context}.pth", "context_shape": (3, 4, 2)}
    found = detector(weights, name, **options).detect(video)
    assert found.complete
    assert ["context" in note or "residual" in note for note in found.notes] == [True] * bool(context)  # no record
    assert [track.id for track in found.tracks] == [1, 2]
    assert len(found.frame_times_s) == CLIP.frames
    assert [(shot.first_frame, shot.last_frame) for shot in found.shots] == [(0, CLIP.frames - 1)]
    assert found.shots[0].end_s == pytest.approx(2.0, abs=0.01)
    for track, box in zip(found.tracks, BOXES, strict=False):
        assert track.frames.tolist() == list(range(CLIP.frames))
        assert track.boxes == pytest.approx(np.tile(box, (CLIP.frames, 1)), abs=0.01)
        assert np.isfinite(track.scores).all()
        assert track.scores.std() > 0
        np.testing.assert_array_equal(track.speaking, track.probabilities >= 0.5)
    assert not np.array_equal(found.tracks[0].scores, found.tracks[1].scores)
    assert found.settings["encoder"] == name
    assert found.settings["precision"] == options.get("precision", "fp32")
    assert len(found.settings["weights_sha256"]) == 64


@pytest.mark.parametrize("name", ["light_asd", "resnet18_two_streams"])
def test_weights_of_ones_own_are_not_run_in_8_bit_integers(weights, video, name):
    with pytest.raises(UserError, match=r"int8.*fp32"):
        detector(weights, name, precision="int8")
    chosen = detector(weights, name, precision="auto").settings
    assert chosen["precision"] == (best_precision() if name == "light_asd" else "fp32")
    assert "int8_ranges_sha256" not in chosen


@needs_integers
def test_published_weights_are_run_in_8_bit_integers(shared, video, tmp_path):
    file = shared / "models" / PUBLISHED["lr_asd_ava"]
    found = {}
    for precision in ("auto", "int8", "bf16"):
        given = {"detector": Squares(2), "min_face_px": 10, "context": "none", "cache": tmp_path}
        found[precision] = ActiveSpeakerDetector("lr_asd", file, precision=precision, **given).detect(video)
    assert [one.settings["precision"] for one in found.values()] == ["int8", "int8", "bf16"]
    assert len(found["int8"].settings["int8_ranges_sha256"]) == 64
    assert len(list(tmp_path.rglob("*.zip"))) == 2
    np.testing.assert_array_equal(scores(found["auto"]), scores(found["int8"]))
    assert 0 < np.abs(scores(found["int8"]) - scores(found["bf16"])).max() < 0.3


@pytest.mark.parametrize(
    ("detect_every", "step", "tolerance"), [(1, 1, 0), (5, 5, 1e-3), (15, 15, 1e-3), (None, 12, 1e-3)]
)
def test_detecting_less_often_changes_little(weights, video, detect_every, step, tolerance):
    """By default, where nothing moves, every 0.48 s; and always in a shot's last frame."""
    always, seldom = detector(weights, detect_every=1), detector(weights, detect_every=detect_every)
    for one, other in zip(always.detect(video).tracks, seldom.detect(video).tracks, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)
        np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=tolerance)
    assert always.detector.asked == FRAMES
    assert seldom.detector.asked == len({*range(0, FRAMES, step), FRAMES - 1})


def two_shots(path: Path) -> Path:
    """A dark and a bright square that change sides and ground at a cut."""
    frames = []
    for number in range(60):
        pixels = np.full((64, 64, 3), 20 if number < 30 else 235, np.uint8)
        for box, value in zip(BOXES, (70, 190) if number < 30 else (190, 70), strict=False):
            pixels[box[1] : box[3], box[0] : box[2]] = value
        frames.append(pixels)
    return encode(path, frames, crf="8", audio=audio_of(CLIP))


def test_tracks_of_a_person_are_put_together_across_cuts(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("core.people.portraits.MARGIN", 0.0)
    video = two_shots(tmp_path / "cut.mp4")
    squares = SquaresWithLandmarks(2)
    active = ActiveSpeakerDetector(
        "light_asd", weights / "light_asd.pth", detector=squares, min_face_px=10, people=Brightness()
    )
    found = active.detect(video)
    assert [(track.id, track.shot) for track in found.tracks] == [(1, 0), (2, 0), (3, 1), (4, 1)]
    assert [(person.id, person.tracks, person.name) for person in found.persons] == [
        (1, (1, 4), None),
        (2, (2, 3), None),
    ]
    assert [track.embedding.tolist() for track in found.tracks] == [[1, 0], [0, 1], [0, 1], [1, 0]]
    assert (found.settings["people"], found.settings["people_max_distance"]) == ("brightness", 0.5)


@pytest.mark.parametrize(
    ("people", "expected"),
    [(Brightness(), [10, 11, 11, 10]), (False, [10, 11, 10, 11]), (None, [10, 11, 12, 13]), (ALIKE, [10, 11, 11, 10])],
)
def test_voices_are_those_of_persons_where_these_are_told_apart(weights, tmp_path, monkeypatch, people, expected):
    monkeypatch.setattr("core.people.portraits.MARGIN", 0.0)
    monkeypatch.setattr(
        "core.inference.residual_contexts.ResidualScorer.with_voices",
        lambda scorer, tracks, logits, persons: [
            own * 0 + np.array([0, 10 + person]) for own, person in zip(logits, persons, strict=True)
        ],
    )
    options = {"detector": SquaresWithLandmarks(2), "context": weights / "residual.pth", "people": people}
    found = detector(weights, **options).detect(two_shots(tmp_path / "cut.mp4"))
    assert [set(track.scores) for track in found.tracks] == [{score} for score in expected]
    told_apart = isinstance(people, Brightness) and not isinstance(people, Likeness)
    assert (found.persons is not None) == (found.tracks[0].embedding is not None) == told_apart


def test_persons_are_not_told_apart_where_nobody_asked_or_nothing_can_be_seen(weights, video):
    found = detector(weights, people=False).detect(video)
    assert found.persons is None
    assert found.settings["people"] is None
    assert {track.embedding is None for track in found.tracks} == {True}
    found = detector(weights, people=Brightness()).detect(video)  # a face detector without landmarks
    assert found.persons is None
    assert any("landmarks" in note for note in found.notes)


class Profiles(SquaresWithLandmarks):
    """The nose is far from midway between the eyes."""

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        faces = super().__call__(pixels)
        faces[:, 9] += 5 * (faces[:, 7] - faces[:, 5])
        return faces


def test_a_face_that_no_frame_shows_well_is_a_person_of_its_own(weights, video):
    found = detector(weights, detector=Profiles(), people=Brightness()).detect(video)
    assert {track.embedding is None for track in found.tracks} == {True}
    assert [person.tracks for person in found.persons] == [(track.id,) for track in found.tracks]
    assert not any("landmarks" in note for note in found.notes)


def test_progress_is_reported_in_seconds(weights, video):
    reported = []
    detector(weights).detect(video, reported.append)
    assert len(reported) == FRAMES
    assert reported[-1] == pytest.approx((FRAMES - 1) / FPS, abs=0.01)


def test_scores_that_are_not_finite_are_refused(weights, video, tmp_path):
    state = torch.load(weights / "resnet18_two_streams.pth", weights_only=True)
    for tensor in state.values():
        tensor *= 3e38 if tensor.shape[:1] == (2,) else 1  # the classifiers
    assert all(tensor.isfinite().all() for tensor in state.values())
    torch.save(state, tmp_path / "resnet18_two_streams.pth")
    with pytest.raises(UserError, match=r"-two faces\.mp4: the scores of track 1 at 1\.48 s"):
        detector(tmp_path, "resnet18_two_streams").detect(video)


def test_a_video_without_audio_has_faces_without_scores(weights, tmp_path):
    found = detector(weights).detect(tiny_video(tmp_path / "mute.mp4", np.arange(30) / FPS, faces=2, audio=None))
    assert len(found.tracks) == 2
    assert found.audio_s is None
    assert np.isnan(found.tracks[0].scores).all()
    assert not found.tracks[0].speaking.any()
    assert found.complete
    [note] = found.notes
    assert "no audio stream" in note


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ({"faces": 0}, "^No face was found.$"),
        ({"min_track_s": 3.0}, "of 2 found: 2 .*less than 3 s"),
        ({"min_face_px": 28, "faces": 3}, "of 3 found: 2 smaller than 28 pixels, 1 less certain than 0.95"),
        ({"min_face_px": 40}, "of 2 found: 2 smaller than 40 pixels"),
    ],
)
def test_a_video_without_faces_that_count_says_why(weights, video, options, facts, monkeypatch):
    monkeypatch.setattr("core.detection.face_tracks.MIN_CONFIDENCE", 0.95)
    found = detector(weights, **options).detect(video)
    assert (found.tracks, len(found.shots)) == ([], 1)
    [note] = found.notes
    assert re.search(facts, note)


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


@pytest.mark.parametrize(
    ("facts", "name", "options"),
    [
        ("detect_every 0", "light_asd", {"detect_every": 0}),
        ("min_track_s nan", "light_asd", {"min_track_s": float("nan")}),
        ("resnet18_two_streams.* crop", "resnet18_two_streams", {"crop": "box"}),
        ("context or ensemble", "light_asd", {"ensemble": True, "context": "context128.pth"}),
        ("context or ensemble", "light_asd", {"ensemble": True, "context": "residual.pth"}),
        ("ASC checkpoint .*light_asd.pth.* another network", "light_asd", {"context": "light_asd.pth"}),
        ("absent.pth: there is no such file", "light_asd", {"context": "absent.pth"}),
        ("context128.pth.* 6 rows", "light_asd", {"context": "context128.pth", "context_shape": (5, 4, 2)}),
        ("talknet.* light_asd", "talknet", {}),
        ("light_asd.pth.* another network", "lr_asd", {"weights": "light_asd.pth"}),
        ("resnet18_two_streams.* no published weights", "resnet18_two_streams", {"weights": None}),
    ],
)
def test_wrong_arguments_are_refused(weights, facts, name, options):
    files = {key: weights / options[key] for key in ("weights", "context") if options.get(key)}
    with pytest.raises(UserError, match=facts):
        ActiveSpeakerDetector(name, detector=Squares(), **{"weights": weights / "light_asd.pth", **options, **files})


@pytest.mark.parametrize(
    ("fact", "shape", "encoder"),
    [
        ("skip_frames: 2 in training, 4 now", (3, 4, 2), None),
        ("encoder.weights: 'abc' in training", (3, 2, 2), "abc"),
        (None, (3, 2, 2), None),
    ],
)
def test_a_context_network_is_used_as_it_was_trained(weights, tmp_path, fact, shape, encoder):
    context = shutil.copy(weights / "context128.pth", tmp_path / "best.pth")
    made_of = {"encoder": {"weights": encoder or fingerprint(weights / "light_asd.pth")}}
    settings = {"clip_length": 3, "skip_frames": 2, "speakers": 2, "made_of": made_of}
    write_json(tmp_path / "settings.json", settings | {"ASC_optimization_params": {"epochs": 1}})
    options = {"weights": weights / "light_asd.pth", "context": context, "context_shape": shape}
    with pytest.raises(UserError, match=fact) if fact else contextlib.nullcontext():
        ActiveSpeakerDetector("light_asd", detector=Squares(), **options)


# ---------------------------------------------------------------- the residual context network


def ship(folder: Path, weights: Path, encoder: str, name: str) -> None:
    """Put a residual network into a folder as the one that comes with weights of an encoder."""
    shutil.copy(weights / "residual.pth", folder / f"{encoder}.pth")
    record = {"encoder_sha256": fingerprint(weights / f"{name}.pth"), "sha256": fingerprint(weights / "residual.pth")}
    write_json(folder / f"{encoder}.json", record)


@pytest.fixture
def shipped(weights, tmp_path, monkeypatch) -> Path:
    """A folder of shipped contexts, which has one for the test's light_asd as if its weights were published."""
    ship(tmp_path, weights, "light_asd", "light_asd")
    monkeypatch.setattr(encoders, "SHIPPED_CONTEXTS", tmp_path)
    monkeypatch.setattr(encoders, "find_weights", lambda name, path, cache: (path, "box"))
    return tmp_path


def scores(found) -> np.ndarray:
    return np.stack([track.scores for track in found.tracks])


@pytest.mark.parametrize("name", ["light_asd", "lr_asd"])
def test_a_residual_network_corrects_the_encoders_scores(weights, video, tmp_path, monkeypatch, name):
    """One that has learnt nothing leaves them, but for what voices add; one that has changes them, and is named."""
    monkeypatch.setattr("core.inference.residual_contexts.by_voice", lambda odds, *_: np.zeros_like(odds))
    torch.save(ResidualContext().state_dict(), tmp_path / "untrained.pth")
    files = {"none": "none", "untrained": tmp_path / "untrained.pth", "trained": weights / "residual.pth"}
    found = {key: detector(weights, name, context=path).detect(video) for key, path in files.items()}
    np.testing.assert_allclose(scores(found["untrained"]), scores(found["none"]), rtol=0, atol=1e-3)
    assert np.abs(scores(found["trained"]) - scores(found["none"])).max() > 0.01
    assert found["none"].settings["context"] is None
    settings = found["trained"].settings
    assert (settings["context"], settings["context_sha256"]) == ("residual.pth", fingerprint(weights / "residual.pth"))
    assert "context_shape" not in settings


def test_the_other_face_counts(weights, video):
    """With somebody beside it a face is scored otherwise than alone, though the encoder says the same of it."""
    for context, same in (("none", True), (weights / "residual.pth", False)):
        alone, both = (detector(weights, faces=faces, context=context).detect(video) for faces in (1, 2))
        difference = np.abs(alone.tracks[0].scores - both.tracks[0].scores).max()
        assert (difference < 1e-5) == same


def test_contexts_do_not_cross_cuts(weights, tmp_path):
    """What follows a cut is of no matter to the faces before it."""
    before = [tiny_frame(number, 1) for number in range(20)]
    videos = []
    for name, after in (("a", range(20)), ("b", range(19, -1, -1))):
        frames = before + [255 - tiny_frame(number, 1) for number in after]
        videos.append(encode(tmp_path / f"{name}.mp4", frames, audio=audio_of(CLIP), crf="8"))
    found = [detector(weights, faces=1, context=weights / "residual.pth").detect(path) for path in videos]
    np.testing.assert_allclose(*(one.tracks[0].scores for one in found), rtol=0, atol=2e-3)
    assert np.abs(found[0].tracks[1].scores - found[1].tracks[1].scores).max() > 2e-3


def test_the_shipped_network_is_used_by_default(weights, video, shipped):
    found = detector(weights).detect(video)
    assert found.settings["context_sha256"] == fingerprint(weights / "residual.pth")
    expected = detector(weights, context=weights / "residual.pth").detect(video)
    np.testing.assert_array_equal(scores(found), scores(expected))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("light_asd", {"context": "none"}),
        ("light_asd", {"crop": "lower_face"}),  # other scores than it was trained on
        ("light_asd", {"ensemble": True}),
        ("lr_asd", {}),  # nothing comes with it
        ("resnet18_two_streams", {}),
    ],
)
def test_where_no_shipped_network_fits_none_is_used(weights, shipped, name, options):
    assert detector(weights, name, **options).encoder.context is None


def test_a_shipped_network_that_its_record_does_not_tell_of_is_refused(weights, shipped):
    torch.save({}, shipped / "light_asd.pth")
    with pytest.raises(UserError, match=r"light_asd\.json"):
        ActiveSpeakerDetector("light_asd", weights / "light_asd.pth", detector=Squares())


def test_a_shipped_network_given_by_its_path_is_refused_on_another_encoder(weights, shipped):
    with pytest.raises(UserError, match=r"light_asd\.json"):
        ActiveSpeakerDetector("lr_asd", weights / "lr_asd.pth", context=shipped / "light_asd.pth", detector=Squares())
    found = ActiveSpeakerDetector(
        "light_asd", weights / "light_asd.pth", context=shipped / "light_asd.pth", detector=Squares()
    )
    assert found.encoder.context.note is None


def test_a_network_shipped_for_other_weights_is_not_used(weights, shipped):
    ship(shipped, weights, "light_asd", "lr_asd")
    assert detector(weights).encoder.context is None


def test_weights_of_a_users_own_have_no_shipped_network(weights):
    assert detector(weights).encoder.context is None


def test_a_residual_network_of_another_encoder_is_refused(weights, tmp_path):
    context = shutil.copy(weights / "residual.pth", tmp_path / "best.pth")
    made_of = {"encoder": {"weights": fingerprint(weights / "lr_asd.pth")}}
    params = {"ASC_optimization_params": {"network": "residual"}}
    write_json(tmp_path / "settings.json", {"made_of": made_of, **params})
    with pytest.raises(UserError, match=r"encoder\.weights"):
        detector(weights, "light_asd", context=context)
    assert detector(weights, "lr_asd", context=context).encoder.context is not None


def test_a_video_without_audio_has_no_scores_in_context_either(weights, tmp_path):
    found = detector(weights, context=weights / "residual.pth").detect(
        tiny_video(tmp_path / "mute.mp4", np.arange(30) / FPS, faces=2, audio=None)
    )
    assert np.isnan(scores(found)).all()
