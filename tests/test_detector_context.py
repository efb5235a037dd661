"""Detection with context networks: of a user's own, or the one that is shipped."""

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from detections import Squares
from detector_set import CLIP, detector, scores, tiny_video, two_faces, write_weights
from tiny import FPS, audio_of, tiny_frame
from videos import encode

from core.detection import ActiveSpeakerDetector, encoders
from core.models import ResidualContext
from core.runtime.errors import UserError
from core.runtime.files import fingerprint, write_json


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return two_faces(tmp_path_factory.mktemp("video"))


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
