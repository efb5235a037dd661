"""Videos of another shape that follow who speaks: whom they show when, how the window moves, and what is written."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from detections import HEIGHT, SILENT, SPEAKS, detected, steady
from heads import GREEN, RED, disc, draw, head_track, results_of, shown
from tiny import exit_status
from videos import click_times, clicks, frame_times, heard

from core.cutting.reframing import DRIFT, Take, plan_takes, plan_views, window_of
from core.cutting.results import Results, SeenFace
from core.detection.results import Person
from core.media.container import MediaFile
from core.media.streams import VideoInfo
from core.outputs.files import write_outputs
from core.outputs.speech import Segment
from scripts import export_clips

WIDTH = 640  # of these videos; HEIGHT is 240
WINDOW = (134, 240)
INFO = VideoInfo(WIDTH, HEIGHT, 25.0, None, None, 0)
A, B, C = 100.0, 320.0, 560.0  # where heads are


def face(
    id: int,
    x: float | np.ndarray,
    *spans: tuple[float, float],
    sure: float = 0.9,
    seconds: float = 12.0,
    start_s: float = 0.0,
    shot: int = 0,
    person: int | None = None,
) -> SeenFace:
    """A head of 60 pixels at x, from a start to an end, that speaks in some spans."""
    times_s = np.arange(round(start_s * 25), round(seconds * 25)) / 25
    x = np.broadcast_to(x, len(times_s)).astype(float)
    boxes = np.stack([x - 30, np.full(len(x), 90.0), x + 30, np.full(len(x), 150.0)], axis=1)
    speech = [Segment(*span, sure) for span in spans]
    who = (f"Face {id}", id) if person is None else (f"Person {person}", person)
    sures = np.full(len(x), sure)
    return SeenFace(id, shot, *who, times_s, boxes, np.log(sures / (1 - sures)), sures, seconds, speech)


def shows(*faces: SeenFace, seconds: float = 12.0) -> list[tuple[float, int | None]]:
    """When which face is shown, from when on."""
    return [(view.start_s, view.face and view.face.id) for view in plan_views(list(faces), 0.0, seconds)]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([(0, 4)], [(4.2, 12)], [(0, 1), (4.2, 2)]),  # a brief silence shows who spoke before
        ([(1, 4)], [(5, 12)], [(0, 1), (5, 2)]),  # at the beginning, who speaks next
        ([(0, 6), (6.5, 12)], [(2, 2.8), (8, 8.5)], [(0, 1)]),  # "yes" in between, and at the same time
        ([(0, 4), (4.5, 5), (5.4, 12)], [], [(0, 1)]),
        ([(0, 5)], [(3, 11)], [(0, 1), (5, 2)]),  # who speaks already stays
        ([(0, 3)], [(8, 12)], [(0, 1), (3, None), (8, 2)]),  # a long silence
        ([(0, 3)], [(4.9, 5.2), (8, 12)], [(0, 1), (3, None), (8, 2)]),
        ([], [], [(0, None)]),
    ],
)
def test_whom_it_shows(first, second, expected):
    assert shows(face(1, A, *first), face(2, B, *second)) == expected


def test_of_two_that_begin_together_the_surer_one_is_shown():
    assert shows(face(1, A, (0, 12), sure=0.6), face(2, B, (0, 12), sure=0.8)) == [(0, 2)]


def test_who_speaks_throughout_a_short_shot_is_shown():
    assert shows(face(1, A, (0, 0.6)), face(2, B), seconds=0.6) == [(0, 1)]


def takes_of(*faces: SeenFace, shots_s: tuple[tuple[float, float], ...] = ((0.0, 12.0),)) -> list[Take]:
    results = Results(Path("speakers.json"), Path("talk.mp4"), True, list(shots_s), list(faces), {}, True)
    return plan_takes(results, INFO, WINDOW)


def check(takes: list[Take], expected: list[tuple[float, float]]) -> None:
    """Check when each take begins, and where the window is then."""
    np.testing.assert_allclose([(take.start_s, take.centres[0, 0]) for take in takes], expected, atol=1e-6)


def test_it_cuts_to_the_next_speaker_and_rests_between():
    takes = takes_of(face(1, A, (0, 4)), face(2, B, (4.2, 8)), face(3, C, (8, 12)))
    check(takes, [(0, A), (4.2, B), (8, C)])
    assert max(np.abs(np.diff(take.centres, axis=0)).max() for take in takes) < 1e-9


def test_a_trembling_box_does_not_move_it():
    tremble = np.random.default_rng(0).normal(0, 3, 300)
    (take,) = takes_of(face(1, A + tremble, (0, 12)))
    assert np.ptp(take.centres, axis=0).max() < 1e-9
    assert take.centres[0, 0] == pytest.approx(A, abs=6)


def test_it_follows_a_slow_head_slowly():
    x = np.interp(np.arange(300) / 25, [2, 10], [120, 300])  # 22 pixels a second, and the window is 134 wide
    (take,) = takes_of(face(1, x, (0, 12)))
    assert 0.04 * DRIFT * WINDOW[0] >= np.abs(np.diff(take.centres[:, 0])).max() > 0
    assert np.abs(take.centres[:, 0] - x).max() < 0.2 * WINDOW[0]


def test_a_fast_head_is_cut_to_and_never_lost():
    x = np.interp(np.arange(300) / 25, [4, 7], [100, 540])  # more than a window a second
    takes = takes_of(face(1, x, (0, 12)))
    centres = np.concatenate([take.centres[:, 0] for take in takes])
    assert 2 < len(takes) < 9
    assert max(np.abs(np.diff(take.centres[:, 0])).max() for take in takes) <= 0.04 * DRIFT * WINDOW[0] + 1e-9
    assert np.abs(centres - x).max() < WINDOW[0] / 2


def test_speakers_side_by_side_share_a_framing():
    check(takes_of(face(1, A, (0, 5)), face(2, A + 10, (5, 12))), [(0, A)])


def test_a_long_silence_shows_all_that_fit_and_else_changes_nothing():
    near, far = face(2, A + 64, (8, 12)), face(2, B, (8, 12))
    check(takes_of(face(1, A, (0, 3)), near), [(0, A), (3, A + 32), (8, A + 64)])
    check(takes_of(face(1, A, (0, 3)), far), [(0, A), (8, B)])


def test_where_nobody_is_seen_it_shows_the_middle():
    check(takes_of(), [(0, WIDTH / 2)])


def test_one_silent_face_is_followed():
    x = np.interp(np.arange(300) / 25, [2, 10], [120, 300])
    (take,) = takes_of(face(1, x))
    assert np.abs(take.centres[:, 0] - x).max() < 0.2 * WINDOW[0]


def test_a_shot_boundary_is_a_cut():
    before = face(1, A, (0, 6), seconds=6.0)
    after = face(2, A + 5, (6, 12), start_s=6.0, shot=1)
    check(takes_of(before, after, shots_s=((0.0, 6.0), (6.0, 12.0))), [(0, A), (6, A + 5)])


@pytest.mark.parametrize(
    ("gap_s", "second", "expected"),
    [
        (0.0, A + 8, [(0, A + 4)]),
        (1.5, A + 8, [(0, A + 4)]),
        (1.5, B, [(0, A), (6, B)]),  # cut to where she is seen again, when she is
    ],
)
def test_a_person_whose_track_is_lost_for_a_while_is_one_face(gap_s, second, expected):
    """Another person is there all along, and silent."""
    tracks = [
        face(1, A, (0, 6 - gap_s), seconds=6 - gap_s, person=1),
        face(2, second, (6, 12), start_s=6.0, person=1),
        face(3, C, person=2),
    ]
    check(takes_of(*tracks), expected)


@pytest.mark.parametrize(("person", "x", "expected"), [(1, A + 8, 1), (1, B, 2), (2, A + 8, 2)])
def test_over_a_boundary_of_shots_it_rests_on_the_same_person_at_the_same_place(person, x, expected):
    before = face(1, A, (0, 6), seconds=6.0, person=1)
    after = face(2, x, (6, 12), start_s=6.0, shot=1, person=person)
    assert len(takes_of(before, after, shots_s=((0.0, 6.0), (6.0, 12.0)))) == expected


def test_it_stays_inside_the_frame():
    check(takes_of(face(1, 30.0, (0, 6)), face(2, 630.0, (6, 12))), [(0, 67), (6, WIDTH - 67)])


@pytest.mark.parametrize(("shape", "window"), [((9, 16), (134, 240)), ((1, 1), (240, 240)), ((4, 1), (640, 160))])
def test_the_window_is_the_largest_of_its_shape(shape, window):
    assert window_of(INFO, shape) == window


# the script


def in_the_middle(path: Path) -> str:
    """Of each frame of a video: r or g for the head whose middle is within 15 pixels of the frame's, else -."""
    letters = ""
    for pixels in shown(path):
        middle = pixels.shape[1] / 2
        near = [name for name, colour in (("r", RED), ("g", GREEN)) if abs(disc(pixels, colour)[0] - middle) < 15]
        letters += near[0] if near else "-"
    return letters


@pytest.mark.parametrize("offset_s", [0.0, 5.0])
def test_a_video_shows_who_speaks_from_the_frame_on_at_which_they_begin(tmp_path, offset_s):
    """The second head begins in frame 42; at frame 80 a cut exchanges their places, and nobody speaks after 95."""
    times_s = steady(125) + offset_s
    scores = {1: np.full(125, SILENT), 2: np.full(125, SILENT)}
    scores[1][:40], scores[2][42:95] = SPEAKS, SPEAKS
    left, right = (A, 120), (C, 120)
    frames = [
        draw(0, {RED: left, GREEN: right} if number < 80 else {RED: right, GREEN: left}, WIDTH) for number in range(125)
    ]
    tracks = [
        head_track(1, times_s, 0, scores[1][:80], left),
        head_track(2, times_s, 0, scores[2][:80], right),
        head_track(3, times_s, 80, scores[1][80:], right, shot=1),
        head_track(4, times_s, 80, scores[2][80:], left, shot=1),
    ]
    audio = clicks([1.2, 3.5], 5.0)
    talk = results_of(tmp_path, frames, tracks, times_s, audio=audio, audio_start_s=offset_s, cuts=(80,))
    assert exit_status(export_clips.main, talk, "--reframe", "9:16", "--out", tmp_path / "out") == 0
    path = tmp_path / "out" / "talk-9x16.mp4"
    assert in_the_middle(path) == "r" * 42 + "g" * 83
    written_s = frame_times(path)
    np.testing.assert_allclose(written_s - written_s[0], steady(125), atol=1e-4)
    # At 5 s the file begins 64 ms before its frames, with what AAC needs to begin.
    assert np.array(click_times(heard(path))) - written_s[0] == pytest.approx([1.2, 3.5], abs=0.003)
    with MediaFile(path) as media:
        assert (media.info.width, media.info.height) == WINDOW
    before = path.stat().st_mtime_ns
    assert exit_status(export_clips.main, talk, "--reframe", "9:16", "--out", tmp_path / "out") == 0
    assert path.stat().st_mtime_ns == before
    assert exit_status(export_clips.main, talk, "--out", tmp_path / "out", "--min-seconds", 0.5) == 0
    assert path.stat().st_mtime_ns == before  # clips beside it are another matter


def test_it_follows_only_the_persons_that_are_named(tmp_path):
    """The first speaks until frame 25, then the second."""
    left, right, times_s = (A, 120), (C, 120), steady(50)
    frames = [draw(0, {RED: left, GREEN: right}, WIDTH)] * 50
    scores = np.where(np.arange(50) < 25, SPEAKS, SILENT)
    tracks = [head_track(1, times_s, 0, scores, left), head_track(2, times_s, 0, -scores, right)]
    persons = [Person(1, (1,)), Person(2, (2,), "Zoë")]
    talk = results_of(tmp_path, frames, tracks, times_s, audio=clicks([], 2.0), persons=persons)
    for chosen, expected in (([], "r" * 25 + "g" * 25), (["--persons", "Zoë"], "g" * 50), (["--persons", 1], "r" * 50)):
        assert exit_status(export_clips.main, talk, "--reframe", "9:16", "--out", tmp_path / "out", *chosen) == 0
        assert in_the_middle(tmp_path / "out" / "talk-9x16.mp4") == expected


def test_a_video_without_audio_or_faces_is_reframed_to_its_middle(tmp_path):
    frames = [draw(number, {RED: (320, 120)}, WIDTH) for number in range(25)]
    talk = results_of(tmp_path, frames, [], steady(25), audio=None)
    assert exit_status(export_clips.main, talk, "--reframe", "9:16", "--out", tmp_path / "out") == 0
    assert in_the_middle(tmp_path / "out" / "talk-9x16.mp4") == "r" * 25


def test_of_a_video_that_is_cut_off_all_that_could_be_decoded_is_written(tmp_path, unusual):
    video = shutil.copy(unusual / "truncated-middle.mp4", tmp_path / "talk.mp4")
    times_s = frame_times(video, tolerant=True, as_played=True)
    tracks = [head_track(1, times_s, 0, [SPEAKS] * len(times_s), (A, 120))]
    write_outputs(tmp_path / "talk.asd", detected(tracks, times_s, video, complete=False), ["json"])
    for options in (["--reframe", "9:16"], ["--all"]):
        assert exit_status(export_clips.main, tmp_path / "talk.asd", "--out", tmp_path / "out", *options) == 0
    for name in ("talk-9x16.mp4", "talk_track001_001.mp4"):
        assert len(frame_times(tmp_path / "out" / name)) == len(times_s) == 104
