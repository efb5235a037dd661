"""What benchmarks tell of mistakes; what they measure is no test, but
that they measure what they say is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detections import Squares
from tiny import CLIPS, exit_status, refusal

from benchmarks import accuracy, annotated, ava_asd, corruptions, live, live_hours, robustness
from core.evaluation import metrics
from core.evaluation.official import evaluate_given, read_groundtruth
from core.formats import ava
from core.inputs.shots import TrackFeatures, seen_together
from core.live import LiveDetector
from core.media.container import MediaFile
from core.media.video_audio import audio_on_disk
from core.models import ResidualContext, light_asd
from core.models.residual_context import CUES
from core.people.embedding import Likeness
from core.runtime.errors import UserError
from evaluate import read_frame_widths


def test_the_benchmark_looks_for_tensorflow_first(tmp_path):
    python = tmp_path / "python"
    with pytest.raises(UserError, match=r"--tensorflow .*python: No such file or directory; give the Python of"):
        ava_asd.results(tmp_path / "data", tensorflow=python)
    for script, words in (
        ("exit 3", "no reason given"),
        ("echo first >&2; echo 'no module cv2' >&2; exit 3", "no module"),
    ):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        with pytest.raises(UserError, match=rf"python: {words}.* \(exit status 3\)"):
            ava_asd.results(tmp_path / "data", tensorflow=python)
    assert not (tmp_path / "data").exists()


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> tuple[Path, Path]:
    """State dicts of light_asd and of a context network that changes its scores, with random weights."""
    folder = tmp_path_factory.mktemp("networks")
    torch.manual_seed(0)
    context = ResidualContext()
    torch.nn.init.normal_(context.members[0].correction.weight)
    for name, network in (("light_asd", light_asd()), ("context", context)):
        torch.save(network.state_dict(), folder / f"{name}.pth")
    return folder / "light_asd.pth", folder / "context.pth"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split("|")]


def test_robustness_scores_every_corruption_by_both_systems(tiny_set, networks, tmp_path, capsys):
    weights, context = networks
    options = [tiny_set, "--split", "train", "--weights", weights, "--context", context]
    plot = tmp_path / "robustness.png"
    assert exit_status(robustness.main, *options, "--plot", plot) == 0
    out = capsys.readouterr().out
    lines = [cells(line) for line in out.splitlines() if line.startswith("|")][2:]
    assert [line[0] for line in lines] == list(robustness.ALL)
    numbers = np.array([line[1:] for line in lines], float)
    assert numbers.shape == (1 + len(corruptions.ON_AUDIO) + len(corruptions.ON_FACES), 3)
    assert ((numbers[:, :2] > 0) & (numbers[:, :2] <= 1)).all()
    assert numbers[:, 2] == pytest.approx(numbers[:, 1] - numbers[:, 0], abs=1.1e-4)
    assert len(np.unique(numbers[:, :2], axis=0)) > len(numbers) / 2  # corruptions change scores
    for name, difference in zip(robustness.ALL, numbers[:, 2], strict=True):
        assert (name in out.splitlines()[-1]) == (difference < 0)
    assert plot.stat().st_size > 10_000

    truth = read_groundtruth([tiny_set / "annotations" / "train"])
    for column, named in enumerate(("none", str(context))):
        system = accuracy.System("light_asd", str(weights), named, "auto", None)
        scores = []
        for name, annotations in ava.annotation_files(tiny_set / "annotations" / "train").items():
            csv = tmp_path / f"{column}" / f"{name}.csv"
            video = tiny_set / "videos" / "train" / f"{name}.mp4"
            accuracy.predict_annotated(accuracy.Task(video, annotations, csv, system))
            scores.append(np.loadtxt(csv, delimiter=",", usecols=8))
        result = evaluate_given(truth, "", np.concatenate(scores))
        assert result["average_precision"] == pytest.approx(numbers[0, column], abs=1e-4)


def test_robustness_of_the_encoder_alone(tiny_set, networks, capsys):
    options = [tiny_set, "--split", "train", "--weights", networks[0], "--context", "none"]
    assert exit_status(robustness.main, *options) == 0
    out = capsys.readouterr().out
    assert {len(cells(line)) for line in out.splitlines()} == {2}


def test_robustness_needs_a_second_voice(tiny_set, networks, capsys):
    assert "val has 1" in refusal(capsys, robustness.main, tiny_set, "--weights", networks[0])


def test_live_work_is_measured(tiny_set, networks, monkeypatch):
    monkeypatch.setattr("core.live.detector.find_detector", lambda *_: Squares(2))
    detector = LiveDetector("light_asd", networks[0], delay_s=0.2, context="none", min_face_px=10)
    [video, *_] = sorted((tiny_set / "videos" / "train").iterdir())
    assert all(0 < seconds < 100 for seconds in live.work_per_second(detector, video))


def test_an_hour_goes_through_the_live_detector(networks, monkeypatch):
    for name, value in (("HOUR_S", 40), ("SILENT", range(1)), ("DEAF", range(5, 8)), ("BLIND", range(20, 23))):
        monkeypatch.setattr(live_hours, name, value)
    scene = live_hours.Scene()
    detector = LiveDetector("light_asd", networks[0], context=networks[1], detector=scene, min_face_px=10)
    detector = live_hours.with_stand_ins(detector)
    frames, faces = live_hours.play_hour(detector, scene, live_hours.BEGIN_S)
    assert frames == 37 * 25 - 25  # the last second is to come
    assert 0.9 * frames < faces - 22 * 25 <= frames
    assert detector.ids == 4  # two, before the camera was lost and after


def test_live_precisions_are_drawn(tmp_path, capsys):
    values = {(system, delay): 0.7 for delay in (0.2, 1.0, live.OFFLINE) for system in live.SYSTEMS}
    values["context", 1.0] = 0.65
    live.print_table("light_asd", values)
    lines = [cells(line) for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert lines[3] == ["1 s", "0.7000", "+0.0000", "0.6500", "-0.0500", "0.7000", "+0.0000"]
    live.plot({"light_asd": values, "lr_asd": values}, "drawn", tmp_path / "live.png")
    assert (tmp_path / "live.png").stat().st_size > 5000


@pytest.mark.parametrize("options", [[], ["--videos", "0", "x"], ["x", "--plot", "live.mp3"]])
def test_live_options_that_cannot_be_are_refused(options):
    assert exit_status(live.main, *options) == 2


def test_scores_with_a_delay_are_those_of_what_has_come(tiny_set, networks):
    clip = next(clip for clip in CLIPS if clip.split == "train" and len(clip.faces) == 3)
    rows = annotated.read_tracks(tiny_set / "annotations" / "train" / f"{clip.video_id}{ava.ANNOTATION_SUFFIX}")
    video = tiny_set / "videos" / "train" / f"{clip.video_id}.mp4"
    encoder = annotated.encoder_of("light_asd", *map(str, networks), "fp32", None)
    found = dict(live.score_video(encoder, Likeness(), video, rows, (0.2, 60.0)))
    tracks, times = annotated.track_numbers(rows), rows["time_s"].to_numpy()
    with MediaFile(video) as media, audio_on_disk(media) as audio:
        crops = dict(annotated.cut_faces(media, rows, encoder.crop))
        for shot in seen_together(tracks, times):
            faces = []
            for own in shot:
                scorer = encoder.start(audio, float(times[own[0]]))
                for row in own:
                    scorer.push(crops[row])
                logits, cues = scorer.finish()
                assert found["encoder", live.OFFLINE][own] == pytest.approx(logits[:, 1] - logits[:, 0], abs=1e-3)
                faces.append(TrackFeatures(round(times[own[0]] * 25), cues))
            first = encoder.start(audio, float(times[shot[0][0]]))
            for row in shot[0][:6]:  # 5 that are waited for, and the first, which is scored with the second
                first.push(crops[row])
            [logits, *_], _ = first.finish()
            assert found["encoder", 0.2][shot[0][0]] == pytest.approx(logits[1] - logits[0], abs=1e-3)
            for own, logits in zip(shot, encoder.context.scores(faces), strict=True):
                assert found["context", live.OFFLINE][own] == pytest.approx(logits[:, 1] - logits[:, 0], abs=1e-3)
    assert len(found) == 3 * len(live.SYSTEMS)
    for system in (live.ENCODER, live.OWN):
        assert found[system, 60.0].tolist() == found[system, live.OFFLINE].tolist()
        assert np.abs(found[system, 0.2] - found[system, live.OFFLINE]).max() > 1e-3


class FaceScorer:
    """Gives logits and cues that depend on the number of a face alone."""

    def __init__(self, number: int, length: int):
        self.cues = np.random.default_rng(number).standard_normal((length, len(CUES) + 13)).astype(np.float32)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        return np.stack([-self.cues[:, 0] / 2, self.cues[:, 0] / 2], axis=1), self.cues


def test_a_face_beside_it_changes_the_score_with_context_and_not_the_encoders(tiny_set, networks):
    weights, context = networks
    clip = next(clip for clip in CLIPS if clip.split == "train" and len(clip.faces) == 3)
    rows = annotated.read_tracks(tiny_set / "annotations" / "train" / f"{clip.video_id}{ava.ANNOTATION_SUFFIX}")
    encoder = annotated.encoder_of("light_asd", str(weights), str(context), "fp32", None)
    tracks = annotated.track_numbers(rows)
    scores = {}
    for faces in ((0, 1), (0,)):
        chosen = rows[np.isin(tracks, faces)].reset_index(drop=True)
        scorers = [FaceScorer(face, np.count_nonzero(tracks == face)) for face in faces]
        columns = annotated.probabilities(encoder, chosen, scorers)
        scores[faces] = [column[annotated.track_numbers(chosen) == 0] for column in columns]
    np.testing.assert_array_equal(scores[0, 1][0], scores[0,][0])
    assert np.abs(scores[0, 1][1] - scores[0,][1]).max() > 1e-3
    assert np.abs(scores[0, 1][1] - scores[0, 1][0]).max() > 1e-3


def test_accuracy_prints_what_evaluation_says_of_the_predictions(tiny_set, tmp_path, capsys):
    files = ava.annotation_files(tiny_set / "annotations" / "train")
    generator = np.random.default_rng(0)
    scores = {name: generator.random(len(ava.read_annotations(path))) for name, path in files.items()}
    for tracks in accuracy.TRACKS:
        for name, path in files.items():
            out = tmp_path / f"light_asd-ava-fp32-{tracks}" / "train" / f"{name}.csv"
            ava.write_predictions(out, ava.read_annotations(path), scores[name])
    plot = tmp_path / "reliability.png"
    options = ["--splits", "train", "--encoders", "light_asd/ava", "--context", "none", "--precision", "fp32"]
    assert exit_status(accuracy.main, tiny_set, *options, "--out", tmp_path, "--plot", plot) == 0
    out = capsys.readouterr().out
    truth = read_groundtruth([tiny_set / "annotations" / "train"])
    widths = read_frame_widths(tiny_set / "videos", truth.video_ids)
    expected = evaluate_given(truth, "", np.concatenate(list(scores.values())), widths)
    error = metrics.calibration(truth.speaking, np.concatenate(list(scores.values()))).expected_error
    number = f"{expected['average_precision']:.4f}"
    lines = [cells(line) for line in out.splitlines() if line.startswith("| light_asd, ava")]
    values = [group["average_precision"] for key in ("by_faces", "by_face_width") for group in expected[key].values()]
    groups = ["–" if value is None else f"{value:.4f}" for value in values]
    assert lines == [
        ["light_asd, ava", number, number, f"{error:.4f}"],
        ["light_asd, ava", "train, detected", *groups],
        ["light_asd, ava", "train, annotated", *groups],
    ]
    assert plot.stat().st_size > 10_000


def test_predictions_of_another_context_are_not_taken_for_those_of_this(networks, tmp_path):
    first = accuracy.System("light_asd", "ava", str(networks[1]), "auto", None)
    copy = tmp_path / networks[1].name
    copy.write_bytes(networks[1].read_bytes()[:-1])
    folders = {replace(first, context=context).folder for context in ("none", str(copy), str(networks[1]))}
    assert len(folders) == 3


@pytest.mark.parametrize("script", [accuracy, robustness])
def test_a_plot_of_an_unknown_kind_is_refused_before_anything_is_done(script, tiny_set, capsys):
    assert "plot.txt" in refusal(capsys, script.main, tiny_set, "--plot", "plot.txt")
