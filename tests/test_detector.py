"""Detection in a video: encoders, schedules, persons, options; with random weights and faces that are known."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detections import Brightness, Squares, SquaresWithLandmarks
from detector_set import CLIP, FRAMES, detector, scores, two_faces, two_shots, write_weights
from tiny import BOXES, FPS
from track_models import PUBLISHED, needs_integers

from core import models
from core.detection import ActiveSpeakerDetector, options
from core.inference.engine import best_precision
from core.people.embedding import Likeness
from core.runtime.errors import UserError


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return two_faces(tmp_path_factory.mktemp("video"))


class Alike(Brightness, Likeness):
    """Likeness, by the brightness of faces."""


ALIKE = Alike()


def test_the_names_of_encoders_are_those_of_the_networks():
    assert set(options.WHOLE_TRACK_ENCODERS) == set(models.TRACK_ENCODERS)
    assert set(options.CLIP_ENCODERS) == set(models.BACKBONES)


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
