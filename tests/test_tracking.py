"""Faces matched between frames: overlaps, gaps, crossings, smoothing."""

import numpy as np
import pytest

from core.detection.tracking import MAX_GAP_S, FaceTrack, FaceTracker


def tracks_of(frames: list[tuple[float, np.ndarray]]) -> list[FaceTrack]:
    """All tracks of a shot, from the times and the faces of its frames."""
    tracker = FaceTracker()
    return [track for time_s, faces in frames for track in tracker.update(time_s, faces)]


NOBODY = np.zeros((0, 5), np.float32)


def face(x: float, y: float = 0.0, side: float = 10.0, score: float = 0.9) -> np.ndarray:
    return np.array([x, y, x + side, y + side, score], np.float32)


def test_two_faces_that_move_stay_apart():
    frames = []
    for step in range(20):
        first, second = face(2.0 * step), face(100 - 2.0 * step, y=30)
        frames.append((0.04 * step, np.stack([first, second] if step % 2 else [second, first])))
    tracks = tracks_of(frames)
    assert len(tracks) == 2
    assert sorted(track.boxes[-1][0] for track in tracks) == [38, 62]
    assert all(len(track.times_s) == 20 for track in tracks)


def test_each_face_goes_to_one_track_even_where_both_overlap():
    # The first face is nearer the second track than to its own.
    tracks = tracks_of([(0.0, np.stack([face(0), face(6)])), (0.04, np.stack([face(5), face(11)]))])
    assert [track.boxes[-1][0] for track in tracks] == [5, 11]


def test_tracks_end_at_a_cut_but_for_faces_that_stay():
    tracker, faces = FaceTracker(), np.stack([face(0), face(30), face(60)])
    tracker.update(0.0, faces)
    (begun,) = tracker.update(0.04, faces[:2], np.array([False, True]))
    assert begun.times_s == [0.04]
    assert [track.times_s for track in tracker.open] == [[0.0, 0.04], [0.04]]
    assert tracker.update(0.08, NOBODY, np.zeros(0, bool)) == tracker.open == []


def test_a_gap_is_bridged_up_to_its_limit():
    frames = [(0.0, face(0)[None]), (0.1, NOBODY), (0.2, NOBODY), (MAX_GAP_S, face(1)[None])]
    assert len(tracks_of(frames)) == 1
    frames += [(MAX_GAP_S + 0.1, NOBODY), (MAX_GAP_S + 0.2, NOBODY), (2 * MAX_GAP_S + 0.01, face(1)[None])]
    assert len(tracks_of(frames)) == 2


@pytest.mark.parametrize("step_s", [0.5, 1.0, 3.0])
def test_detections_that_are_far_apart_end_no_track(step_s):
    found = [face(0)[None], face(1)[None], NOBODY, face(2)[None], NOBODY, NOBODY, face(2)[None]]
    tracks = tracks_of([(step_s * number, faces) for number, faces in enumerate(found)])
    assert [track.times_s for track in tracks] == [[0, step_s, 3 * step_s], [6 * step_s]]  # two misses end it


def test_a_box_is_final_when_nothing_can_change_it():
    tracker = FaceTracker()
    assert tracker.is_final(0.0)
    tracker.update(0.0, face(0)[None])
    assert not tracker.is_final(0.0)
    tracker.update(0.2, face(0)[None])
    assert not tracker.is_final(0.0)  # the median reaches further
    tracker.update(0.3, face(0)[None])
    assert tracker.is_final(0.0)
    assert not tracker.is_final(0.2)
    for time_s in (0.4, 0.5, 0.6, 0.7):
        tracker.update(time_s, NOBODY)
        assert not tracker.is_final(0.2)
    tracker.update(0.75, NOBODY)
    assert tracker.is_final(0.2)


def test_a_face_elsewhere_is_another_face():
    assert len(tracks_of([(0.0, face(0)[None]), (0.04, face(8)[None])])) == 2  # overlap 20 / 180


def test_a_moving_face_is_expected_ahead():
    track = FaceTrack()
    track.add(0.0, face(0))
    track.add(0.1, face(1))
    assert track.expected(0.2) == pytest.approx([2, 0, 12, 10])
    assert track.expected(0.4) == pytest.approx([2, 0, 12, 10])  # no further than it has moved before


@pytest.mark.parametrize(
    ("step_s", "x", "expected"),
    [
        (0.12, lambda step: 3.0 * step, {0.6: 15, 0.64: 16}),  # between detections boxes are interpolated
        (0.04, lambda step: 40 * (step == 12), {0.48: 0}),  # a single wrong box is smoothed away
        (0.04, lambda step: step, {0.0: 0, 0.96: 24}),  # the ends of a track are its own boxes
    ],
)
def test_smoothed_boxes(step_s, x, expected):
    track = FaceTrack()
    for step in range(25):
        track.add(step_s * step, face(x(step)))
    for time_s, left in expected.items():
        assert track.box_at(time_s) == pytest.approx([left, 0, left + 10, 10], abs=1e-4)


def test_confidence_is_the_mean_score():
    track = FaceTrack([0.0, 0.1], [face(0, score=0.5), face(0, score=0.9)])
    assert track.confidence == pytest.approx(0.7)
    assert track.detection_at(0.1) is track.boxes[1]
    assert track.detection_at(0.05) is None
