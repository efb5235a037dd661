"""Faces followed through shots, with a detector that knows where they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from videos import encode, grey, number_of

from core.clip_utils import GRID_FPS
from core.detection.face_tracks import ShotFollower, scores_at
from core.detection.faces import SeenFrame, detect_faces
from core.detection.shots import ShotFrame
from core.media.container import MediaFile
from core.media.cropping import box_crop
from core.media.video import read_frames

FRAME = (96, 64)  # width and height
FACE = [20, 10, 50, 40, 0.9]
FACES = np.array([FACE], np.float32)
NOBODY = np.zeros((0, 5), np.float32)


def video(folder: Path, times_s: list[float] | int) -> Path:
    """A video whose frames show their numbers, at given times or so many at 25 a second."""
    times_s = np.arange(times_s) / 25 if isinstance(times_s, int) else times_s
    return encode(folder / "a.mp4", (grey(n, *FRAME) for n in range(len(times_s))), times_s, crf="0")


class Recorder:
    """A scorer that gives back what it was given: the numbers of the frames, told by their brightness, and its time."""

    def __init__(self, first_s: float):
        self.first_s, self.frames = first_s, []

    def push(self, crop: np.ndarray) -> None:
        assert crop.shape == (112, 112)
        self.frames.append(number_of(crop))

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.frames), np.array([self.first_s])


class OneFace:
    """A detector that finds one face in the frames of some numbers, told by their brightness."""

    name = "one face"

    def __init__(self, frames: range):
        self.frames, self.asked = frames, []

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        number = number_of(pixels)
        self.asked.append(number)
        return FACES.copy() if number in self.frames else NOBODY


def follow(path: Path, detector: OneFace, every: int = 1, shots: tuple[int, ...] = (0,)) -> list:
    """The faces of all shots of a video, each with its shot's number."""
    frames = (ShotFrame(number, frame, number in shots) for number, frame in enumerate(read_frames(MediaFile(path))))
    faces, follower, origin_s, shot = [], None, None, -1
    for seen in detect_faces(frames, detector, lambda frames, seconds: frames >= every):
        if origin_s is None:
            origin_s = seen.frame.time_s
        if seen.begins_shot:
            faces += [(shot, face) for face in follower.finish()] if follower else []
            follower, shot = ShotFollower(origin_s, box_crop, Recorder), shot + 1
        follower.add(seen)
    return faces + [(shot, face) for face in follower.finish()]


def test_at_25_fps_each_frame_is_cut_once(tmp_path):
    path = video(tmp_path, 60)
    [(_, face)] = follow(path, OneFace(range(10, 41)))
    assert face.frames == list(range(10, 41))
    assert face.logits.tolist() == list(range(10, 41))
    assert face.first_grid == 10
    assert face.features[0] == pytest.approx(0.4)
    assert face.boxes[0] == pytest.approx([20, 10, 50, 40])
    assert face.thumbnail.startswith(b"\xff\xd8")  # JPEG


@pytest.mark.parametrize("every", [2, 3, 7])
def test_frames_between_detections_belong_to_the_track(tmp_path, every):
    path = video(tmp_path, 60)
    detector = OneFace(range(60))
    [(_, face)] = follow(path, detector, every)
    assert face.frames == list(range(60))  # to the last frame, in which faces are always detected
    assert detector.asked == sorted({*range(0, 60, every), 59})


def test_tracks_end_at_cuts_and_faces_are_detected_on_both_sides(tmp_path):
    path = video(tmp_path, 40)
    detector = OneFace(range(40))
    first, second = follow(path, detector, every=5, shots=(0, 17))
    assert (first[0], first[1].frames) == (0, list(range(17)))
    assert (second[0], second[1].frames) == (1, list(range(17, 40)))
    assert {16, 17} <= set(detector.asked)


def test_a_faster_video_gives_every_grid_point_its_nearest_frame(tmp_path):
    times = [number / 60 for number in range(75)]
    path = video(tmp_path, times)
    [(_, face)] = follow(path, OneFace(range(75)))
    grid = np.arange(face.crops) / GRID_FPS
    assert face.crops == 32  # 74 / 60 s is grid point 30.8, nearest to 31
    nearest = [int(np.abs(np.array(times) - time_s).argmin()) for time_s in grid]
    # where two frames are equally near either will do
    distance = [abs(times[frame] - time_s) for frame, time_s in zip(face.logits, grid, strict=True)]
    expected = [abs(times[frame] - time_s) for frame, time_s in zip(nearest, grid, strict=True)]
    assert distance == pytest.approx(expected, abs=1e-6)
    assert face.frames == list(range(75))


def test_a_slow_and_varying_video_repeats_frames(tmp_path):
    times = [0.0, 0.1, 0.2, 0.5, 0.52, 0.6, 0.9]
    path = video(tmp_path, times)
    [(_, face)] = follow(path, OneFace(range(7)))
    expected = [int(np.abs(np.array(times) - k / 25).argmin()) for k in range(23)]  # 0.9 s is grid point 22.5
    assert len(face.logits) in (23, 24)
    assert face.logits[:23].tolist() == expected


def test_a_video_that_begins_late_has_its_grid_there(tmp_path):
    path = video(tmp_path, 0.5 + np.arange(30) / 25)
    [(_, face)] = follow(path, OneFace(range(5, 30)))
    assert face.logits.tolist() == list(range(5, 30))
    first = next(iter(read_frames(MediaFile(path)))).time_s
    assert face.features[0] == pytest.approx(first + 0.2)


def test_a_gap_of_detection_is_filled(tmp_path):
    path = video(tmp_path, 40)
    detector = OneFace(range(40))
    detector.frames = [number for number in range(40) if not 15 <= number < 22]
    [(_, face)] = follow(path, detector)
    assert face.frames == list(range(40))


def test_without_audio_nothing_is_cut(tmp_path):
    path = video(tmp_path, 20)
    follower = ShotFollower(0.0, box_crop, None)
    for number, frame in enumerate(read_frames(MediaFile(path))):
        follower.add(SeenFrame(number, frame, number == 0, FACES))
    [face] = follower.finish()
    assert face.logits is None
    assert face.crops == 0
    assert face.frames == list(range(20))


def test_of_faces_that_have_ended_only_results_are_kept(tmp_path):
    path = video(tmp_path, 60)
    follower = ShotFollower(0.0, box_crop, Recorder, lambda face: len(face.frames) >= 5, with_features=False)
    for number, frame in enumerate(read_frames(MediaFile(path))):
        there = 3 <= number < 6 or 10 <= number < 20 or number >= 50
        follower.add(SeenFrame(number, frame, number == 0, FACES if there else NOBODY))
        assert len(follower.followed) <= 1
        assert len(follower.waiting) <= 17  # 0.4 s for the track to end, and 0.24 s of smoothing
    kept = follower.finish()
    assert [face.frames for face in kept] == [list(range(3, 20)), list(range(50, 60))]
    assert all(face.scorer is None and face.features is None for face in kept)
    assert kept[1].logits.tolist() == list(range(50, 60))


@pytest.mark.parametrize("off_s", [-2e-6, -5e-7, -1e-8, 0.0, 1e-8, 5e-7, 1e-6, 2e-6])
def test_a_face_of_one_frame_is_cut_once(tmp_path, off_s):
    """Also midway between two points of the grid, whatever rounding makes of its time."""
    frames = list(read_frames(MediaFile(video(tmp_path, [0.0, 0.5, 1.02, 1.5]))))
    follower = ShotFollower(0.0, box_crop, Recorder)
    for number, frame in enumerate(frames):
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
