"""What was found in a video, kept in a file and read again."""

from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from detections import detected, steady, track

from core.detection.results import DetectedVideo, Person, read_detected, write_detected

TIMES_S = steady(20, 30_000 / 1001) + 3605.004


def found(**options) -> DetectedVideo:
    scores = np.random.default_rng(0).normal(size=12).tolist()
    tracks = [track(1, TIMES_S, 0, scores[:9]), track(2, TIMES_S, 9, scores[9:], (0.1, 0.2, 30.3, 40.7), shot=1)]
    video = detected(tracks, TIMES_S, "talk – 1.mp4", cuts=(9,), notes=("A note.",), **options)
    return replace(video, info=replace(video.info, pixel_aspect=Fraction(64, 45)), start_s=3605.004, offset_s=-0.1)


def assert_same(one: object, other: object) -> None:
    """Every attribute alike, to the last digit."""
    for field in fields(one):
        mine, its = getattr(one, field.name), getattr(other, field.name)
        if field.name == "tracks":
            for pair in zip(mine, its, strict=True):
                assert_same(*pair)
        else:
            np.testing.assert_array_equal(mine, its)
            assert type(mine) is type(its)


@pytest.mark.parametrize(
    "video",
    [
        found(),
        found(audio_s=None),
        found(persons=[Person(1, (1, 2), "Zoë"), Person(2, ())], complete=False),
        replace(found(), tracks=[], shots=[]),
    ],
)
def test_results_are_read_as_they_were_written(tmp_path, video):
    write_detected(tmp_path / "tracks.npz", video, embeddings=False)
    assert_same(read_detected(tmp_path / "tracks.npz", Path("talk – 1.mp4")), video)


@pytest.mark.parametrize("kept", [True, False])
def test_embeddings_are_kept_only_where_they_are_asked_for(tmp_path, kept):
    """The second track has none."""
    video = found(persons=[Person(1, (1, 2))])
    embedding = np.array([0.6, 0.8], np.float32)
    write_detected(
        tmp_path / "a",
        replace(video, tracks=[replace(video.tracks[0], embedding=embedding), video.tracks[1]]),
        embeddings=kept,
    )
    first, second = read_detected(tmp_path / "a", video.path).tracks
    assert second.embedding is None
    assert first.embedding.tolist() == embedding.tolist() if kept else first.embedding is None
