"""Video: frames come once, in order, with their times; what cannot be read is named."""

import contextlib
import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from tiny import FPS, HEIGHT, WIDTH, brightness, tiny_frame
from videos import audio_file, audio_frame, encode, frame_times, grey, number_of, turn

from core.media import container
from core.media.container import MediaFile
from core.media.video import Frame, read_frames
from core.media.video_files import find_video
from core.media.video_writer import write_video
from core.runtime.errors import MediaError

FRAMES = 50


def encode_at(path: Path, times_s: list[float] | np.ndarray, codec: str = "libx264") -> Path:
    """`grey` frames at given times, with B-frames and a key frame every 12."""
    scale, quality = (1000, {"crf": "5"}) if codec == "libx264" else (FPS, {"b": "4000000"})
    return encode(path, map(grey, range(len(times_s))), times_s, codec, scale=scale, g="12", bf="2", **quality)


def numbers(path: Path, *span_s: float) -> list[int]:
    return [number_of(frame.rgb()) for frame in read_frames(MediaFile(path), *span_s)]


@pytest.fixture(scope="module")
def steady(tmp_path_factory) -> Path:
    """50 frames at 25 fps, a key frame every 12."""
    return encode_at(tmp_path_factory.mktemp("steady") / "-steady.mp4", np.arange(FRAMES) / FPS)


@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".mov"])
def test_what_was_written_is_read(tmp_path, extension):
    path = tmp_path / f"a{extension}"
    write_video(path, (tiny_frame(number) for number in range(10)), FPS, np.zeros(6400, np.int16), crf=0)
    frames = list(read_frames(MediaFile(path)))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(10) / FPS, atol=1e-3)
    for number, frame in enumerate(frames):
        assert frame.rgb().shape == (HEIGHT, WIDTH, 3)
        assert frame.rgb().dtype == np.uint8
        np.testing.assert_allclose(frame.rgb()[20, 10], brightness(number, face=0), atol=2)
        np.testing.assert_array_equal(frame.bgr(), frame.rgb()[..., ::-1])
    info = MediaFile(path).info
    assert (info.width, info.height, info.fps, info.rotation) == (WIDTH, HEIGHT, FPS, 0)
    assert (info.codec, info.pixel_format, info.audio.codec, info.audio.channels) == ("h264", "yuv420p", "aac", 1)
    assert info.duration_s == pytest.approx(0.4, abs=0.1)


def test_a_video_without_audio_says_so(tmp_path):
    write_video(tmp_path / "mute.mp4", (tiny_frame(number) for number in range(3)), 30000 / 1001)
    info = MediaFile(tmp_path / "mute.mp4").info
    assert info.audio is None
    assert info.fps == pytest.approx(29.97, abs=1e-3)


@pytest.mark.parametrize(
    ("start_s", "end_s", "first", "last"),
    [
        (0.0, float("inf"), 0, 49),
        (0.0, 0.0, 0, 1),  # up to the first frame after the end
        (1.0, 1.2, 25, 31),  # the frame at the start itself
        (1.01, 1.2, 25, 31),  # from the last frame at or before the start
        (1.03, 1.23, 25, 31),
        (1.9, 5.0, 47, 49),
        (3.0, 4.0, 49, 49),  # beyond the end: the last one there is
    ],
)
def test_a_span_of_frames(steady, start_s, end_s, first, last):
    found = numbers(steady, start_s, end_s)
    # Frame times of an mp4 are exact to its time base only, so that 1.2 s may lie on either side of frame 30.
    assert found == list(range(first, found[-1] + 1))
    assert found[-1] in (last, last - 1)


def test_a_file_that_cannot_seek_is_decoded_from_its_beginning(steady, monkeypatch):
    def refuse(*arguments, **options):
        raise av.error.PermissionError(1, "Operation not permitted")

    class Unseekable:
        """The real container, which PyAV does not let anybody patch, without its seek."""

        def __init__(self, container):
            self.container, self.seek = container, refuse

        def __getattr__(self, name):
            return getattr(self.container, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.container.close()

    real = av.open
    monkeypatch.setattr(container.av, "open", lambda *given, **options: Unseekable(real(*given, **options)))
    assert numbers(steady, 1.0, 1.03) == [25, 26]


def test_a_stream_without_times_is_refused(tmp_path):
    path = encode_at(tmp_path / "bare.h264", np.arange(FRAMES) / FPS)
    with pytest.raises(MediaError, match="its frames have no times"):
        frame_times(path)


@pytest.mark.parametrize("name", ["late.mkv", "late.ts"])
def test_times_count_from_the_container_start(tmp_path, name):
    path = encode_at(tmp_path / name, 100 + np.arange(FRAMES) / FPS)
    media = MediaFile(path)
    assert media.offset_s > 90
    # A transport stream does not declare its length.
    assert media.info.declared_s in (None, pytest.approx(FRAMES / FPS, abs=0.05))
    np.testing.assert_allclose(frame_times(path), np.arange(FRAMES) / FPS, atol=1.5e-3)


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("libx264", "h264.mp4"),
        ("libx264", "h264.mkv"),
        ("libx264", "h264.ts"),
        ("libx264", "h264.flv"),
        ("libx264", "h264.avi"),
        ("mpeg4", "mpeg4.avi"),
        ("mpeg4", "mpeg4.mp4"),
    ],
)
def test_no_seek_lands_behind_its_position(tmp_path, codec, name):
    """Containers seek by decoding times, by bytes or by guessing; the frames given are the same for all of them."""
    late_s = 0 if name.endswith(".avi") else 7  # AVI begins at 0
    path = encode_at(tmp_path / name, late_s + np.arange(FRAMES) / FPS, codec=codec)
    for start in range(1, FRAMES, 3):
        found = numbers(path, (start + 0.5) / FPS, (start + 1.5) / FPS)
        assert found == list(range(start, min(start + 3, FRAMES)))


def test_variable_frame_intervals(tmp_path):
    times_s = [0.0, 0.04, 0.5, 0.52, 1.3, 1.34]
    path = encode_at(tmp_path / "vfr.mkv", times_s)
    np.testing.assert_allclose(frame_times(path), times_s, atol=1e-3)
    assert numbers(path, 1.0, 1.31) == [3, 4, 5]


def test_find_video(tmp_path):
    for name in ("-id.mkv", "-id2.mp4", "other.txt"):
        (tmp_path / name).touch()
    assert find_video(tmp_path, "-id") == tmp_path / "-id.mkv"
    with pytest.raises(MediaError, match=r"other.*\.mp4,\.mkv"):
        find_video(tmp_path, "other")


@pytest.mark.parametrize("name", ["-begins.mp4", "a:b.mp4", "file:x.mp4", "with space%d.mp4"])
def test_names_are_never_options_or_protocols(steady, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(steady.read_bytes())
    assert len(frame_times(Path(name))) == FRAMES


def test_files_that_are_no_video_are_named(steady, tmp_path):
    contents = {"empty": b"", "text": b"not a video\n" * 100, "cut": steady.read_bytes()[: steady.stat().st_size // 2]}
    for name, content in contents.items():
        (tmp_path / f"{name}.mp4").write_bytes(content)
    audio_file(tmp_path / "audio.mp4", [audio_frame(np.zeros(16_000, np.int16), 16_000)], "aac")
    reasons = {
        "absent": "no file",
        "empty": r"empty \(0 bytes\)",
        "text": "cannot be opened",
        "cut": "cannot be opened .*cut off",  # before its index
        "audio": "has no video stream",
    }
    for name, reason in reasons.items():
        path = tmp_path / f"{name}.mp4"
        for read in (lambda path: MediaFile(path).info, frame_times):
            with pytest.raises(MediaError, match=reason) as error:
                read(path)
            assert str(path) in str(error.value)


def test_a_damaged_video_fails_or_gives_its_good_part(tmp_path):
    """A file without an index may end anywhere; what it gives are frames at their own times."""
    whole = encode_at(tmp_path / "whole.mkv", np.arange(FRAMES) / FPS).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    found = []
    with contextlib.suppress(MediaError):
        for frame in read_frames(MediaFile(tmp_path / "cut.mkv")):
            found.append(frame.time_s * FPS)
    assert 0 < len(found) < FRAMES
    np.testing.assert_allclose(found, np.round(found), atol=0.03)
    assert (np.diff(found) > 0).all()


def test_rotation_in_the_metadata_is_applied(tmp_path):
    """A wide frame with a quarter turn in its metadata is displayed tall, its corners where they belong."""
    path = encode(tmp_path / "turned.mp4", [tiny_frame(0)], crf="0")
    turn(path, clockwise_quarter_turns=1)
    media = MediaFile(path)
    assert (media.info.width, media.info.height, media.info.rotation) == (HEIGHT, WIDTH, 270)
    frame = next(read_frames(media))
    stored = frame.raw.to_ndarray(format="rgb24")
    assert frame.rgb().shape == (WIDTH, HEIGHT, 3)
    # 270 degrees counterclockwise: the stored left edge is the displayed top edge, read from below.
    np.testing.assert_array_equal(frame.rgb()[0], stored[::-1, 0])
    np.testing.assert_array_equal(frame.rgb(), np.rot90(stored, 3))


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_frames_are_mirrored_and_turned_as_players_do(tmp_path, turns, mirrored):
    path = encode(tmp_path / "turned.mp4", [tiny_frame(0)], crf="0")
    turn(path, turns, mirrored=mirrored)
    with MediaFile(path) as media:
        frame = next(read_frames(media))
        expected = np.rot90(frame.raw.to_ndarray(format="rgb24"), -turns)
        expected = expected[:, ::-1] if mirrored else expected
        assert (media.info.height, media.info.width) == (frame.height, frame.width) == expected.shape[:2]
        np.testing.assert_array_equal(frame.rgb(), expected)
        x1, y1, x2, y2 = part = (2, 4, 30, 40)
        for found in (frame.bgr_region(*part)[..., ::-1], Frame(0.0, frame.yuv420()).rgb()[y1:y2, x1:x2]):
            np.testing.assert_allclose(found.astype(int), expected[y1:y2, x1:x2], atol=3)
        grey = Frame(0.0, frame.yuv420()).grey_region(*part)
        np.testing.assert_allclose(frame.grey_region(*part).astype(int), grey, atol=1)
        half = frame.halved_bgr(48)
        assert (half.shape[0] > half.shape[1]) == (expected.shape[0] > expected.shape[1])


@pytest.mark.parametrize(
    ("name", "width", "height", "fps", "frames"),
    [
        ("audio-44.1k-stereo.mp4", 854, 480, 25.0, 121),
        ("container.mkv", 844, 844, 25.0, 125),
        ("fps-29.97.mp4", 512, 512, 30000 / 1001, 137),
        ("no-audio-track.mp4", 960, 544, 30000 / 1001, 103),
    ],
)
def test_real_unusual_files_read_to_their_end(unusual, name, width, height, fps, frames):
    info = MediaFile(unusual / name).info
    assert (info.width, info.height) == (width, height)
    assert info.fps == pytest.approx(fps, abs=1e-3)
    assert (info.audio is not None) == (name != "no-audio-track.mp4")
    found = frame_times(unusual / name)
    assert len(found) == frames
    np.testing.assert_allclose(np.diff(found), 1 / fps, atol=1.1e-3)


def test_real_variable_frame_rate(unusual):
    steps = np.diff(frame_times(unusual / "variable-frame-rate.mp4"))
    assert steps.min() == pytest.approx(0.033, abs=2e-3)
    assert steps.max() > 0.5


@pytest.mark.parametrize("name", ["zero-bytes.mp4", "truncated-index-lost.mp4"])
def test_real_files_that_cannot_be_opened(unusual, name):
    with pytest.raises(MediaError, match=name):
        MediaFile(unusual / name)


def test_a_real_file_that_is_cut_off_in_the_middle(unusual):
    """It claims its full length; decoding shows where the good part ends."""
    media = MediaFile(unusual / "truncated-middle.mp4")
    found = []
    with pytest.raises(MediaError, match=r"truncated-middle\.mp4: decoding fails after \d+\.\d\d s"):
        found.extend(frame.time_s for frame in read_frames(media))
    assert 0.3 * media.info.duration_s < found[-1] < 0.7 * media.info.duration_s


def test_frames_of_any_form_and_colours_are_converted_as_by_themselves():
    """One scaler converts all frames of a thread, of whichever videos."""
    generator, frames = np.random.default_rng(0), []
    for form, size, colours, reach in itertools.product(
        ("yuv420p", "yuv444p", "yuv420p10le", "rgb24"), ((48, 64), (50, 80)), (1, 5, 2), (1, 2)
    ):
        pixels = generator.integers(0, 256, (*size, 3), np.uint8)
        frames.append(av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=form))
        frames[-1].colorspace, frames[-1].color_range = colours, reach
    for number in generator.permutation(np.repeat(np.arange(len(frames)), 2)):
        found = Frame(0.0, frames[number])
        np.testing.assert_array_equal(found.rgb(), frames[number].to_ndarray(format="rgb24"))
        height = round(50 * found.height / found.width)
        small = frames[number].reformat(50, height, "bgr24", interpolation="BILINEAR").to_ndarray()
        np.testing.assert_array_equal(found.scaled_bgr(50), small)
