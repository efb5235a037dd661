"""Boxes on frames, whole videos of them, and the script that draws predictions."""

import contextlib
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from detections import HEIGHT, SILENT, SPEAKS, WIDTH, detected, track
from tiny import exit_status
from videos import encode, joined, turn

from core.detection.results import DetectedVideo
from core.formats import ava
from core.formats.wav import SAMPLE_RATE
from core.media.audio import decode_audio
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_writer import write_timed_video
from core.outputs.overlay import NO_SCORE_COLOUR, SILENT_COLOUR, SPEAKING_COLOUR, Faces, draw_faces, write_overlay
from core.runtime.errors import MediaError
from scripts import overlay

# Frames 0 to 9: the rate changes twice, and once nothing moves for half a second.
TIMES_S = np.array([0.0, 0.04, 0.08, 0.12, 0.62, 0.64, 0.66, 0.68, 0.78, 0.88])
GREY = 90  # of the videos' pictures
LEFT, RIGHT = (40, 60, 120, 180), (180, 60, 260, 180)


def test_boxes_are_green_for_speaking_and_red_for_silent() -> None:
    frame = np.zeros((200, 400, 3), np.uint8)
    boxes = np.array([[0.1, 0.3, 0.3, 0.9], [0.6, 0.3, 0.8, 0.9]])
    marked = draw_faces(frame, Faces(boxes, np.array([0.5, 0.49])))
    assert tuple(marked[150, 40]) == SPEAKING_COLOUR
    assert tuple(marked[150, 240]) == SILENT_COLOUR
    assert not frame.any()
    assert not marked[150, 60:100].any()  # the face itself stays free


def test_a_face_without_a_score_is_grey_and_has_no_label() -> None:
    frame = np.zeros((200, 400, 3), np.uint8)
    marked = draw_faces(frame, Faces(np.array([[0.1, 0.5, 0.3, 0.9]]), np.array([np.nan])))
    assert tuple(marked[150, 40]) == NO_SCORE_COLOUR
    assert not marked[:95].any()


def test_labels_stay_inside_the_picture() -> None:
    frame = np.zeros((200, 400, 3), np.uint8)
    faces = Faces(np.array([[0.95, 0.0, 1.0, 0.2]]), np.array([0.9]), ["12"])
    label = (draw_faces(frame, faces)[:8] == SPEAKING_COLOUR).all(axis=2).any(axis=0)
    assert label[:370].any()  # wider than the box, it begins left of it


def source(path: Path, sound: np.ndarray | None = None, sample_rate: int = SAMPLE_RATE, size=(HEIGHT, WIDTH)) -> Path:
    """A plain grey video with frames at `TIMES_S`."""
    frames = ((time_s, np.full((*size, 3), GREY, np.uint8)) for time_s in TIMES_S)
    write_timed_video(path, frames, 10, () if sound is None else [sound], sample_rate, crf=5)
    return path


def found_in(path: Path, **changes) -> DetectedVideo:
    """One face in frames 2 to 5, which speaks from 4 on; another in all of them, which never does."""
    tracks = [
        track(1, TIMES_S, 2, [SILENT, SILENT, SPEAKS, SPEAKS], LEFT),
        track(2, TIMES_S, 0, [SILENT] * 10, RIGHT),
    ]
    return detected(tracks, TIMES_S, path, fps=10, **changes)


def colour_at(pixels: np.ndarray, box: tuple) -> str:
    """Which colour the left edge of a box has."""
    x1, y1, _, y2 = box
    pixel = pixels[(y1 + y2) // 2, x1 - 1 : x1 + 1].astype(int)
    near = {
        name: np.abs(pixel - colour).sum(axis=1).min()
        for name, colour in {
            "green": SPEAKING_COLOUR,
            "red": SILENT_COLOUR,
            "grey": NO_SCORE_COLOUR,
            "none": (GREY, GREY, GREY),
        }.items()
    }
    return min(near, key=near.get)


def test_each_frame_of_an_overlay_has_its_boxes_at_its_time(tmp_path: Path) -> None:
    path = source(tmp_path / "talk.mp4")
    write_overlay(tmp_path / "overlay.mp4", found_in(path))
    frames = list(read_frames(MediaFile(tmp_path / "overlay.mp4")))
    np.testing.assert_allclose([frame.time_s for frame in frames], TIMES_S, atol=1e-4)
    left = [colour_at(frame.rgb(), LEFT) for frame in frames]
    assert left == ["none"] * 2 + ["red"] * 2 + ["green"] * 2 + ["none"] * 4
    assert {colour_at(frame.rgb(), RIGHT) for frame in frames} == {"red"}


def test_boxes_change_at_a_cut(tmp_path: Path) -> None:
    path = source(tmp_path / "talk.mp4")
    tracks = [track(1, TIMES_S, 0, [SPEAKS] * 4, LEFT), track(2, TIMES_S, 4, [SPEAKS] * 6, RIGHT, shot=1)]
    write_overlay(tmp_path / "overlay.mp4", detected(tracks, TIMES_S, path, fps=10, cuts=(4,)))
    frames = [frame.rgb() for frame in read_frames(MediaFile(tmp_path / "overlay.mp4"))]
    assert [colour_at(pixels, LEFT) for pixels in frames] == ["green"] * 4 + ["none"] * 6
    assert [colour_at(pixels, RIGHT) for pixels in frames] == ["none"] * 4 + ["green"] * 6


def test_an_overlay_without_sound_has_grey_boxes(tmp_path: Path) -> None:
    path = source(tmp_path / "mute.mp4")
    video = detected([track(1, TIMES_S, 0, [np.nan] * 10, LEFT)], TIMES_S, path, fps=10, audio_s=None)
    write_overlay(tmp_path / "overlay.mp4", video)
    assert colour_at(next(read_frames(MediaFile(tmp_path / "overlay.mp4"))).rgb(), LEFT) == "grey"
    assert MediaFile(tmp_path / "overlay.mp4").info.audio is None


@pytest.mark.parametrize(("sample_rate", "stereo"), [(44_100, True), (16_000, False)])
def test_audio_stays_where_it_is(tmp_path: Path, sample_rate: int, stereo: bool) -> None:
    """Sound that begins late begins late; rate and channels are kept."""
    sound = np.zeros((round(0.95 * sample_rate), 2) if stereo else round(0.95 * sample_rate), np.int16)
    sound[round(0.6 * sample_rate) : round(0.61 * sample_rate)] = 20_000
    path = source(tmp_path / "talk.mp4", sound, sample_rate)
    write_overlay(tmp_path / "overlay.mp4", found_in(path, audio_s=(0.0, 0.95)))
    heard = np.abs(np.concatenate(list(decode_audio(MediaFile(tmp_path / "overlay.mp4")))).astype(int))
    assert np.argmax(heard > 5000) / SAMPLE_RATE == pytest.approx(0.6, abs=0.003)
    assert overlay_sound_format(tmp_path / "overlay.mp4") == (sample_rate, 2 if stereo else 1)


def overlay_sound_format(path: Path) -> tuple[int, int]:
    with av.open(str(path)) as container:
        context = container.streams.audio[0].codec_context
        return context.sample_rate, context.layout.nb_channels


def test_a_video_cut_off_has_an_overlay_of_its_good_part(tmp_path: Path, shared: Path) -> None:
    path = shared / "mini-ava" / "unusual" / "truncated-middle.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    times_s = []
    with contextlib.suppress(MediaError):
        for frame in read_frames(MediaFile(path)):
            times_s.append(frame.time_s)
    assert len(times_s) == 102
    video = detected([], np.array(times_s), path, fps=MediaFile(path).info.fps, complete=False)
    write_overlay(tmp_path / "overlay.mp4", video)
    np.testing.assert_allclose(
        [frame.time_s for frame in read_frames(MediaFile(tmp_path / "overlay.mp4"))], times_s, atol=1e-4
    )
    heard_s = sum(map(len, decode_audio(MediaFile(tmp_path / "overlay.mp4")))) / SAMPLE_RATE
    assert heard_s == pytest.approx(times_s[-1], abs=0.1)


def test_a_video_that_should_be_whole_and_is_not_has_no_overlay(tmp_path: Path, shared: Path) -> None:
    path = shared / "mini-ava" / "unusual" / "truncated-middle.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with pytest.raises(MediaError, match="decoding fails after"):
        write_overlay(tmp_path / "overlay.mp4", detected([], np.arange(300) / 30, path, fps=30))
    assert list(tmp_path.iterdir()) == []


def test_an_overlay_is_upright(tmp_path: Path, shared: Path) -> None:
    path = shared / "mini-ava" / "unusual" / "rotation-90-metadata.mp4"
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    times_s = np.array([frame.time_s for frame in read_frames(MediaFile(path))])
    write_overlay(tmp_path / "overlay.mp4", detected([], times_s, path))
    assert MediaFile(tmp_path / "overlay.mp4").info.rotation == 0
    shown, written = (
        next(read_frames(MediaFile(file))).rgb().astype(float) for file in (path, tmp_path / "overlay.mp4")
    )
    assert np.abs(shown - written).mean() < 4


@pytest.mark.parametrize(("turned", "expected"), [(False, Fraction(64, 45)), (True, Fraction(45, 64))])
def test_pixels_keep_their_shape(tmp_path: Path, turned: bool, expected: Fraction) -> None:
    path = encode(tmp_path / "wide.mp4", [np.full((58, 72, 3), GREY, np.uint8)], aspect=Fraction(64, 45))
    if turned:
        turn(path, clockwise_quarter_turns=1)
    write_overlay(tmp_path / "overlay.mp4", detected([], np.array([0.0]), path, audio_s=None))
    assert MediaFile(tmp_path / "overlay.mp4").info.pixel_aspect == expected


def test_an_overlay_ends_where_time_goes_back(tmp_path: Path) -> None:
    """Of two streams joined byte by byte only the first is in the results, and in the overlay."""
    path = joined(tmp_path, [(64, 48)] * 2, [10.0, 5.0])
    video = detected([], np.arange(25) / 25, path, audio_s=None, complete=False)
    write_overlay(tmp_path / "overlay.mp4", video)
    assert sum(1 for _ in read_frames(MediaFile(tmp_path / "overlay.mp4"))) == 25


def test_odd_sides_lose_a_line(tmp_path: Path) -> None:
    path = tmp_path / "odd.mkv"
    with av.open(str(path), "w") as container:  # a codec that takes odd sides
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 63, 47, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.full((47, 63, 3), GREY, np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    write_overlay(tmp_path / "overlay.mp4", detected([], np.array([0.0]), path, fps=10, audio_s=None))
    info = MediaFile(tmp_path / "overlay.mp4").info
    assert (info.width, info.height) == (62, 46)


@pytest.fixture
def predictions(prepared: Path, tmp_path: Path) -> tuple[str, Path]:
    rows = ava.read_augmented(prepared / "csv" / "val.csv")
    ava.write_predictions(tmp_path / "ASC.csv", rows, np.linspace(0, 1, len(rows)))
    return rows["video_id"].iloc[0], tmp_path / "ASC.csv"


def test_a_video_keeps_its_length_and_sound(tiny_set: Path, predictions: tuple[str, Path], tmp_path: Path) -> None:
    video_id, csv = predictions
    video = tiny_set / "videos" / "val" / f"{video_id}.mp4"
    assert exit_status(overlay.main, video, csv, tmp_path / "out.mp4") == 0
    before, after = MediaFile(video).info, MediaFile(tmp_path / "out.mp4").info
    assert (after.width, after.height) == (before.width, before.height)
    assert after.audio is not None
    assert len(list(read_frames(MediaFile(tmp_path / "out.mp4")))) == len(list(read_frames(MediaFile(video))))


def test_a_part_of_a_video(tiny_set: Path, predictions: tuple[str, Path], tmp_path: Path) -> None:
    video_id, csv = predictions
    video = tiny_set / "videos" / "val" / f"{video_id}.mp4"
    assert exit_status(overlay.main, video, csv, tmp_path / "out.mp4", "--start", "0.4", "--end", "1.2") == 0
    times_s = [frame.time_s for frame in read_frames(MediaFile(tmp_path / "out.mp4"))]
    np.testing.assert_allclose(times_s, np.arange(20) / 25, atol=1e-3)
    assert sum(map(len, decode_audio(MediaFile(tmp_path / "out.mp4")))) / SAMPLE_RATE == pytest.approx(0.8, abs=0.1)


def test_one_frame(tiny_set: Path, predictions: tuple[str, Path], tmp_path: Path) -> None:
    video_id, csv = predictions
    video = tiny_set / "videos" / "val" / f"{video_id}.mp4"
    assert exit_status(overlay.main, video, csv, tmp_path / "out.png", "--time", "0.2") == 0
    assert cv2.imread(str(tmp_path / "out.png")).shape[:2] == (
        MediaFile(video).info.height,
        MediaFile(video).info.width,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out.gif"], "expected a name that ends in .mp4, .mkv, .mov, .png, .jpg, .jpeg"),
        (["out"], "expected a name that ends in"),
        (["out.mp4", "--start", "0.5", "--end", "0.2"], "expected a part that ends after its beginning"),
        (["out.mp4", "--start", "100"], "there is no frame at 100 s"),
        (["out.png", "--time", "100"], "there is no frame at 100 s"),
    ],
)
def test_what_cannot_be_written_is_told_before_any_work(
    tiny_set: Path,
    predictions: tuple[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    arguments: list[str],
    message: str,
) -> None:
    video_id, csv = predictions
    video = tiny_set / "videos" / "val" / f"{video_id}.mp4"
    assert exit_status(overlay.main, video, csv, tmp_path / arguments[0], *arguments[1:]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / arguments[0]).exists()


def test_predictions_of_another_video(
    tiny_set: Path, predictions: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = sorted((tiny_set / "videos" / "train").iterdir())[0]
    assert exit_status(overlay.main, other, predictions[1], tmp_path / "out.png") == 2
    assert f"has no rows of the video {other.stem}" in capsys.readouterr().err
    assert not (tmp_path / "out.png").exists()
