"""Boxes on frames, whole videos of them, and the script that draws predictions."""

from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from detections import HEIGHT, SILENT, SPEAKS, WIDTH, detected, track
from tiny import exit_status
from videos import click_times, clicks, encode, frame_times, heard, joined, turn

from core.clip_utils import SAMPLE_RATE
from core.detection.results import DetectedVideo, Person, Track
from core.formats import ava
from core.media.container import MediaFile
from core.media.video import read_frames
from core.outputs.overlay import NO_SCORE_COLOUR, SILENT_COLOUR, SPEAKING_COLOUR, Faces, draw_faces, write_overlay
from core.runtime.errors import MediaError
from scripts import overlay

# Frames 0 to 9: the rate changes twice, and once nothing moves for half a second.
TIMES_S = np.array([0.0, 0.04, 0.08, 0.12, 0.62, 0.64, 0.66, 0.68, 0.78, 0.88])
GREY = 90  # of the videos' frames
LEFT, RIGHT = (40, 60, 120, 180), (180, 60, 260, 180)
COLOURS = {"green": SPEAKING_COLOUR, "red": SILENT_COLOUR, "grey": NO_SCORE_COLOUR, "none": (GREY, GREY, GREY)}


def plain(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def source(path: Path, **options) -> Path:
    """A plain grey video with frames at `TIMES_S`."""
    return encode(path, [plain(HEIGHT, WIDTH)] * 10, TIMES_S, crf="5", **options)


def overlaid(folder: Path, video: DetectedVideo) -> Path:
    write_overlay(folder / "overlay.mp4", video)
    return folder / "overlay.mp4"


def overlay_of(folder: Path, tracks: list[Track], **options) -> Path:
    """The overlay of a `source` with silence and these tracks; options of `detected`."""
    path = source(folder / "talk.mp4", audio=np.zeros(16_000, np.int16))
    return overlaid(folder, detected(tracks, **{"times_s": TIMES_S, "path": path, "fps": 10, **options}))


@pytest.mark.parametrize(("name", "drawn"), [(None, "Person 1"), ("Bob", "Bob"), ("Zoë", "Person 1")])
def test_boxes_carry_the_names_of_persons(tmp_path, monkeypatch, name, drawn):
    texts = []
    monkeypatch.setattr(cv2, "putText", lambda pixels, text, *_: texts.append(text.partition(":")[0]))
    overlay_of(tmp_path, [track(1, TIMES_S, 0, [SPEAKS] * 3)], persons=[Person(1, (1,), name)])
    assert texts == [drawn] * 3


def colours_at(path: Path, box: tuple) -> list[str]:
    """Which colour the left edge of a box has in each frame."""
    x1, y1, _, y2 = box
    found = []
    for frame in read_frames(MediaFile(path)):
        pixel = frame.rgb()[(y1 + y2) // 2, x1 - 1 : x1 + 1].astype(int)
        found.append(min(COLOURS, key=lambda name: np.abs(pixel - COLOURS[name]).sum(axis=1).min()))
    return found


@pytest.mark.parametrize(
    ("score", "colour", "labelled"),
    [(0.5, SPEAKING_COLOUR, True), (0.49, SILENT_COLOUR, True), (np.nan, NO_SCORE_COLOUR, False)],
)
def test_a_box_has_the_colour_of_its_score_and_a_label(score, colour, labelled):
    frame = np.zeros((200, 400, 3), np.uint8)
    marked = draw_faces(frame, Faces(np.array([[0.1, 0.5, 0.3, 0.9]]), np.array([score])))
    assert tuple(marked[150, 40]) == colour
    assert marked[:95].any() == labelled
    assert not marked[110:170, 60:100].any()  # the face itself stays free
    assert not frame.any()


def test_labels_stay_inside_the_frame():
    frame = np.zeros((200, 400, 3), np.uint8)
    faces = Faces(np.array([[0.95, 0.0, 1.0, 0.2]]), np.array([0.9]), ["12"])
    label = (draw_faces(frame, faces)[:8] == SPEAKING_COLOUR).all(axis=2).any(axis=0)
    assert label[:370].any()  # wider than the box, it begins left of it


def test_each_frame_of_an_overlay_has_its_boxes_at_its_time(tmp_path):
    """One face is in frames 2 to 5 and speaks from 4 on; another in all of them never does."""
    tracks = [
        track(1, TIMES_S, 2, [SILENT, SILENT, SPEAKS, SPEAKS], LEFT),
        track(2, TIMES_S, 0, [SILENT] * 10, RIGHT),
    ]
    path = overlay_of(tmp_path, tracks)
    np.testing.assert_allclose(frame_times(path), TIMES_S, atol=1e-4)
    assert colours_at(path, LEFT) == ["none"] * 2 + ["red"] * 2 + ["green"] * 2 + ["none"] * 4
    assert colours_at(path, RIGHT) == ["red"] * 10


def test_boxes_change_at_a_cut(tmp_path):
    tracks = [track(1, TIMES_S, 0, [SPEAKS] * 4, LEFT), track(2, TIMES_S, 4, [SPEAKS] * 6, RIGHT, shot=1)]
    path = overlay_of(tmp_path, tracks, cuts=(4,))
    assert colours_at(path, LEFT) == ["green"] * 4 + ["none"] * 6
    assert colours_at(path, RIGHT) == ["none"] * 4 + ["green"] * 6


def test_where_no_audio_was_decoded_boxes_are_grey_and_the_overlay_is_mute(tmp_path):
    path = overlay_of(tmp_path, [track(1, TIMES_S, 0, [np.nan] * 10, LEFT)], audio_s=None)
    assert colours_at(path, LEFT) == ["grey"] * 10
    assert MediaFile(path).audio is None


def test_the_overlay_of_results_in_part_ends_with_them(tmp_path):
    path = overlay_of(tmp_path, [], times_s=TIMES_S[:4], complete=False)
    np.testing.assert_allclose(frame_times(path), TIMES_S[:4], atol=1e-4)
    assert len(heard(path)) / SAMPLE_RATE == pytest.approx(0.22, abs=0.07)


@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (16_000, 1)])
def test_audio_stays_where_it_is(tmp_path, rate, channels):
    """Audio that begins late begins late; rate and channels are kept."""
    audio = np.tile(clicks([0.6], 0.95, rate), (channels, 1))
    video = detected([], TIMES_S, source(tmp_path / "talk.mp4", audio=audio, rate=rate), fps=10, audio_s=(0.0, 0.95))
    media = MediaFile(overlaid(tmp_path, video))
    assert click_times(heard(media.path)) == pytest.approx([0.6], abs=0.003)
    assert (media.audio.sample_rate, media.audio.channels) == (rate, channels)


def test_a_video_cut_off_has_an_overlay_of_its_good_part(tmp_path, unusual):
    path = unusual / "truncated-middle.mp4"
    times_s = frame_times(path, tolerant=True)
    assert len(times_s) == 104
    video = detected([], times_s, path, fps=MediaFile(path).info.fps, complete=False)
    np.testing.assert_allclose(frame_times(overlaid(tmp_path, video)), times_s, atol=1e-4)
    assert len(heard(tmp_path / "overlay.mp4")) / SAMPLE_RATE == pytest.approx(times_s[-1], abs=0.1)


def test_a_video_that_should_be_whole_and_is_not_has_no_overlay(tmp_path, unusual):
    with pytest.raises(MediaError, match="decoding fails after"):
        overlaid(tmp_path, detected([], np.arange(300) / 30, unusual / "truncated-middle.mp4", fps=30))
    assert list(tmp_path.iterdir()) == []


def test_an_overlay_is_upright(tmp_path, unusual):
    path = unusual / "rotation-90-metadata.mp4"
    written = MediaFile(overlaid(tmp_path, detected([], frame_times(path), path)))
    assert written.info.rotation == 0
    pixels, expected = (next(read_frames(media)).rgb().astype(float) for media in (written, MediaFile(path)))
    assert np.abs(pixels - expected).mean() < 4


@pytest.mark.parametrize(
    ("aspect", "turned", "size"),
    [(Fraction(64, 45), False, (102, 58)), (Fraction(64, 45), True, (58, 102)), (Fraction(3, 4), False, (72, 76))],
)
def test_pixels_become_square_as_players_show_them(tmp_path, aspect, turned, size):
    path = encode(tmp_path / "wide.mp4", [plain(58, 72)], aspect=aspect)
    if turned:
        turn(path, clockwise_quarter_turns=1)
    info = MediaFile(overlaid(tmp_path, detected([], np.array([0.0]), path, audio_s=None))).info
    assert (info.width, info.height) == size
    assert info.pixel_aspect in (None, 1)
    as_stored = MediaFile(path).info
    assert sorted((as_stored.width, as_stored.height)) == [58, 72]


def test_an_overlay_of_joined_recordings_begins_at_0_and_goes_on(tmp_path):
    path = joined(tmp_path, [(64, 48)] * 2, [10.0, 5.0])
    times_s = frame_times(path, as_played=True)
    assert (len(times_s), times_s[0]) == (50, pytest.approx(10.0, abs=0.01))
    overlay = frame_times(overlaid(tmp_path, detected([], times_s, path, audio_s=None)))
    np.testing.assert_allclose(overlay, times_s - times_s[0], atol=1e-3)


def test_odd_sides_lose_a_line(tmp_path):
    path = encode(tmp_path / "odd.mkv", [plain(47, 63)], codec="ffv1")  # a codec that takes odd sides
    info = MediaFile(overlaid(tmp_path, detected([], np.array([0.0]), path, audio_s=None))).info
    assert (info.width, info.height) == (62, 46)


# scripts/overlay.py


@pytest.fixture
def draw(tiny_set, prepared, tmp_path):
    """Run the script on the tiny set's video for validation, with scores; its exit status."""
    rows = ava.read_augmented(prepared / "csv" / "val.csv")
    ava.write_predictions(tmp_path / "ASC.csv", rows, np.linspace(0, 1, len(rows)))
    video = tiny_set / "videos" / "val" / f"{rows['video_id'].iloc[0]}.mp4"
    return lambda out, *options, video=video: exit_status(
        overlay.main, video, tmp_path / "ASC.csv", tmp_path / out, *options
    )


@pytest.mark.parametrize(("part", "frames", "seconds"), [([], 40, 1.6), (["--start", 0.4, "--end", 1.2], 20, 0.8)])
def test_the_script_writes_a_video_with_its_audio(draw, tmp_path, part, frames, seconds):
    assert draw("out.mp4", *part) == 0
    media = MediaFile(tmp_path / "out.mp4")
    assert (media.info.width, media.info.height) == (64, 48)
    np.testing.assert_allclose(frame_times(media.path), np.arange(frames) / 25, atol=1e-3)
    assert len(heard(media.path)) / SAMPLE_RATE == pytest.approx(seconds, abs=0.1)


def test_the_script_writes_one_frame(draw, tmp_path):
    assert draw("out.png", "--time", "0.2") == 0
    assert cv2.imread(str(tmp_path / "out.png")).shape == (48, 64, 3)


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["out.gif"], ["out.gif", ".mp4, .mkv, .mov, .png, .jpg, .jpeg"]),
        (["out"], [".mp4, .mkv, .mov, .png, .jpg, .jpeg"]),
        (["out.mp4", "--start", "0.5", "--end", "0.2"], ["0.5 to 0.2 s"]),
        (["out.mp4", "--start", "100"], ["100 s"]),
        (["out.png", "--time", "100"], ["100 s"]),
        (["out.png", "--time", "nan"], ["nan s"]),
        (["out.png", "--time=-5"], ["-5 s"]),
        (["out.mp4", "--start=-3"], ["-3 s"]),
    ],
)
def test_what_cannot_be_written_is_reported_before_any_work(draw, tmp_path, capsys, arguments, facts):
    assert draw(*arguments) == 2
    message = capsys.readouterr().err
    assert all(fact in message for fact in facts)
    assert not (tmp_path / arguments[0]).exists()


def test_predictions_of_another_video(draw, tiny_set, tmp_path, capsys):
    other = sorted((tiny_set / "videos" / "train").iterdir())[0]
    assert draw("out.png", video=other) == 2
    assert f"no rows of the video {other.stem}" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()
