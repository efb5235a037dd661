"""Faces followed through shots, with a detector that knows where they are."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from videos import encode, grey, number_of

from core.clip_utils import GRID_FPS
from core.detection.face_tracks import ShotFollower, across_cuts, scores_at
from core.detection.faces import Schedule, SeenFrame, detect_faces
from core.detection.shots import ShotFrame
from core.media.container import MediaFile
from core.media.cropping import box_crop
from core.media.video import Frame, read_frames

FRAME = (96, 64)  # width and height
FACE = [20, 10, 50, 40, 0.9]
FACES = np.array([FACE], np.float32)
NOBODY = np.zeros((0, 5), np.float32)


def video(folder: Path, times_s: Iterable[float]) -> list[Frame]:
    """The frames of a video that show their numbers, at given times."""
    path = encode(folder / "a.mp4", (grey(n, *FRAME) for n in range(len(times_s))), times_s, crf="0")
    return list(read_frames(MediaFile(path)))


def steady(frames: int) -> np.ndarray:
    """Times of 25 frames a second."""
    return np.arange(frames) / GRID_FPS


class Recorder:
    """A scorer that returns the numbers of the frames it was given, known by their brightness, and its time."""

    def __init__(self, first_s: float):
        self.first_s, self.frames = first_s, []

    def push(self, crop: np.ndarray) -> None:
        assert crop.shape == (112, 112)
        self.frames.append(number_of(crop))

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.frames), np.array([self.first_s])


class OneFace:
    """A detector that finds one face in the frames of some numbers, known by their brightness."""

    def __init__(self, frames: Collection[int]):
        self.frames, self.asked = frames, []

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        number = number_of(pixels)
        self.asked.append(number)
        return FACES.copy() if number in self.frames else NOBODY


def follow(
    frames: list[Frame],
    detector: OneFace,
    every: int = 1,
    shots: Collection[int] = (0,),
    skipped: int = 0,
    held: int = 99,
) -> list:
    """The faces of all shots, each with its shot's number."""
    shot_frames = (ShotFrame(number, frame, number in shots) for number, frame in enumerate(frames))
    faces, follower, shot = [], None, -1
    when = Schedule(lambda frames, seconds: frames >= every, skipped, held)
    for seen in across_cuts(detect_faces(shot_frames, lambda frame: detector(frame.bgr()), when), 25.0):
        if seen.begins_shot:
            faces += [(shot, face) for face in follower.finish()] if follower else []
            follower, shot = ShotFollower(frames[0].time_s, box_crop, Recorder), shot + 1
        follower.add(seen)
    return faces + [(shot, face) for face in follower.finish()]


def test_at_25_fps_each_frame_is_cut_once(tmp_path):
    [(_, face)] = follow(video(tmp_path, steady(60)), OneFace(range(10, 41)))
    assert face.frames == list(range(10, 41))
    assert face.logits.tolist() == list(range(10, 41))
    assert face.first_grid == 10
    assert face.features[0] == pytest.approx(0.4)
    assert face.boxes[0] == pytest.approx([20, 10, 50, 40])
    assert face.thumbnail.startswith(b"\xff\xd8")  # JPEG


@pytest.mark.parametrize("every", [2, 3, 7])
def test_frames_between_detections_belong_to_the_track(tmp_path, every):
    detector = OneFace(range(60))
    [(_, face)] = follow(video(tmp_path, steady(60)), detector, every)
    assert face.frames == list(range(60))  # to the last frame, in which faces are always detected
    assert detector.asked == sorted({*range(0, 60, every), 59})


@pytest.mark.parametrize(
    ("seen", "asked"),
    [
        (range(49), {0, 12, 24, 36, 48}),
        (range(13, 49), {0, 12, 24, 36, 48} | {18, 15}),  # it comes where nobody looks at first
        (range(20), {0, 12, 24, 36, 48} | {18, 21}),
        ([*range(17), *range(19, 49)], {0, 12, 24, 36, 48}),  # missed in between, and not missing
    ],
)
def test_frames_between_two_with_the_same_faces_are_not_searched(tmp_path, seen, asked):
    """Of four looks three are left out; where something has changed the half in which it has is searched, and so on."""
    detector = OneFace(seen)
    [(_, face)] = follow(video(tmp_path, steady(49)), detector, 3, skipped=3)
    assert set(detector.asked) == asked
    assert len(detector.asked) == len(asked)
    assert face.frames == list(range(min(s for s in asked if s in seen), max(s for s in asked if s in seen) + 1))


def test_a_face_that_moves_is_looked_for_more_often(tmp_path):
    def looks(step: float) -> int:
        asked = []

        def find(frame: Frame) -> np.ndarray:
            asked.append(frame)
            return FACES + np.array([step, 0, step, 0, 0], np.float32) * 25 * frame.time_s

        shot_frames = (ShotFrame(number, frame, number == 0) for number, frame in enumerate(frames))
        assert len(list(detect_faces(shot_frames, find, Schedule(lambda frames, seconds: frames >= 3, 3, 99)))) == 49
        return len(asked)

    frames = video(tmp_path, steady(49))
    assert [looks(step) for step in (0, 0.2, 0.5, 2)] == [5, 5, 9, 17]


def test_the_frames_that_wait_for_a_detection_are_bounded(tmp_path):
    detector = OneFace(range(60))
    follow(video(tmp_path, steady(60)), detector, every=50, held=7)
    assert detector.asked == [*range(0, 60, 7), 59]


def test_tracks_end_at_cuts_and_faces_are_detected_on_both_sides(tmp_path):
    detector = OneFace(range(40))
    faces = follow(video(tmp_path, steady(40)), detector, every=5, shots=(0, 17))
    assert [(shot, face.frames) for shot, face in faces] == [(0, list(range(17))), (1, list(range(17, 40)))]
    assert {16, 17} <= set(detector.asked)


@pytest.mark.parametrize(
    ("right", "shots", "ends"),
    [
        (0, [0], [(0, 30), (0, 30)]),  # found by mistake
        (1, [0], [(0, 30), (0, 14), (14, 30)]),
        (2, [0, 14], [(0, 14), (0, 14), (14, 30), (14, 30)]),
    ],
    ids=["none", "one", "both"],
)
def test_a_face_beside_which_the_picture_is_cut_goes_on(tmp_path, right, shots, ends):
    """Two pictures side by side, both moving; at frame 14 as many of them are cut."""
    texture = np.random.default_rng(0).integers(0, 256, (4, 10, 20, 3), np.uint8)
    texture = texture.repeat(6, axis=1).repeat(6, axis=2)

    def frame(number: int) -> np.ndarray:
        sides = [texture[side + 2 * (number >= 14 and side >= 2 - right), :, number:][:, :48] for side in (0, 1)]
        return np.concatenate(sides, axis=1)

    path = encode(tmp_path / "a.mp4", map(frame, range(30)), steady(30), crf="10")
    faces = np.array([[6, 8, 36, 44, 0.9], [54, 8, 84, 44, 0.9]], np.float32)
    frames = list(read_frames(MediaFile(path)))
    found = follow(frames, lambda pixels: faces.copy(), every=5, shots=(0, 14))
    assert sorted({shot for shot, _ in found}) == list(range(len(shots)))
    assert sorted((face.frames[0], face.frames[-1] + 1) for _, face in found) == sorted(ends)
    assert all(face.frames == list(range(face.frames[0], face.frames[-1] + 1)) for _, face in found)


@pytest.mark.parametrize(
    ("times_s", "first", "first_grid", "crops"),
    [
        (np.arange(75) / 60, 0, 0, (32,)),  # 74 / 60 s is grid point 30.8, nearest to 31
        (np.arange(75) / 60, 8, 3, (29,)),  # 8 / 60 s is grid point 3.3
        (np.array([0.0, 0.1, 0.2, 0.5, 0.52, 0.6, 0.9]), 0, 0, (23, 24)),  # 0.9 s is grid point 22.5
    ],
)
def test_every_grid_point_gets_its_nearest_frame(tmp_path, times_s, first, first_grid, crops):
    """Of a fast video not every frame is cut, of a slow one some are repeated."""
    [(_, face)] = follow(video(tmp_path, times_s), OneFace(range(first, len(times_s))))
    assert face.frames == list(range(first, len(times_s)))
    assert face.first_grid == first_grid
    assert face.crops == len(face.logits)
    assert face.crops in crops
    grid_s = (first_grid + np.arange(face.crops)) / GRID_FPS
    nearest = np.abs(times_s[first:] - grid_s[:, None]).min(axis=1)
    # where two frames are equally near either will do
    np.testing.assert_allclose(np.abs(times_s[face.logits] - grid_s), nearest, rtol=0, atol=1e-6)


def test_a_video_that_begins_late_has_its_grid_there(tmp_path):
    frames = video(tmp_path, 0.5 + steady(30))
    [(_, face)] = follow(frames, OneFace(range(5, 30)))
    assert face.logits.tolist() == list(range(5, 30))
    assert face.features[0] == pytest.approx(frames[0].time_s + 0.2)


def test_a_gap_of_detection_is_filled(tmp_path):
    [(_, face)] = follow(video(tmp_path, steady(40)), OneFace({*range(15), *range(22, 40)}))
    assert face.frames == list(range(40))


def test_without_audio_nothing_is_cut(tmp_path):
    follower = ShotFollower(0.0, box_crop, None)
    for number, frame in enumerate(video(tmp_path, steady(20))):
        follower.add(SeenFrame(number, frame, number == 0, FACES))
    [face] = follower.finish()
    assert face.logits is None
    assert face.crops == 0
    assert face.frames == list(range(20))


def test_of_faces_that_have_ended_only_results_are_kept(tmp_path):
    follower = ShotFollower(0.0, box_crop, Recorder, lambda face: len(face.frames) >= 5)
    for number, frame in enumerate(video(tmp_path, steady(60))):
        there = 3 <= number < 6 or 10 <= number < 20 or 32 <= number < 35 or number >= 50
        follower.add(SeenFrame(number, frame, number == 0, FACES if there else NOBODY))
        assert len(follower.followed) <= 1
        assert len(follower.waiting) <= 17  # 0.4 s for the track to end, and 0.24 s of smoothing
    kept = follower.finish()
    assert [face.frames for face in kept] == [list(range(3, 20)), list(range(50, 60))]
    assert all(face.scorer is None for face in kept)
    assert kept[1].logits.tolist() == list(range(50, 60))


@pytest.mark.parametrize("off_s", [-2e-6, -5e-7, -1e-8, 0.0, 1e-8, 5e-7, 1e-6, 2e-6])
def test_a_face_of_one_frame_is_cut_once(tmp_path, off_s):
    """Also midway between two points of the grid, whatever rounding makes of its time."""
    follower = ShotFollower(0.0, box_crop, Recorder)
    for number, frame in enumerate(video(tmp_path, [0.0, 0.5, 1.02, 1.5])):
        moved = replace(frame, time_s=frame.time_s + off_s * (number == 2))
        follower.add(SeenFrame(number, moved, number == 0, FACES if number == 2 else NOBODY))
    [face] = follower.finish()
    assert face.logits.tolist() == [2]
    assert face.first_grid in (25, 26)


def test_scores_between_grid_points_are_interpolated():
    logits = np.array([[0, 0], [1, 3], [0, 4]], np.float32)  # odds 0, 2, 4
    scores = scores_at(np.array([1.0, 1.02, 1.04, 1.07, 1.2]), 1.0, logits)
    assert scores.dtype == np.float32
    assert scores == pytest.approx([0, 1, 2, 3.5, 4])
