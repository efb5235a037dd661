"""Video: frames come once, in order, with their times; what cannot be read is named."""

import contextlib
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tiny import FPS, HEIGHT, WIDTH, brightness, picture

from core.media.container import open_media
from core.media.video import find_video, probe, read_frames
from core.media.video_writer import write_video
from core.runtime.errors import MediaError

FRAMES = 50


def grey(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A picture whose brightness tells its number."""
    return np.full((height, width, 3), 20 + 4 * number, np.uint8)


def number_of(pixels: np.ndarray) -> int:
    """The number of a `grey` picture, whatever compression did to it."""
    return round((float(pixels.mean()) - 20) / 4)


def encode_at(path: Path, times_s: Iterable[float], codec: str = "libx264") -> Path:
    """A video of `grey` pictures at given times, to a millisecond or the next 25th of a second (MPEG codecs)."""
    scale = 1000 if codec == "libx264" else FPS
    options = {"g": "12", "bf": "2"} | ({"crf": "5"} if codec == "libx264" else {"b": "4000000"})
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, scale)
        for number, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(grey(number), format="rgb24")
            frame.pts, frame.time_base = round(time_s * scale), Fraction(1, scale)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def steady(tmp_path_factory) -> Path:
    """50 frames at 25 fps, a key frame every 12."""
    return encode_at(tmp_path_factory.mktemp("steady") / "-steady.mp4", (number / FPS for number in range(FRAMES)))


@pytest.mark.parametrize("extension", [".mp4", ".mkv", ".mov"])
def test_what_was_written_is_read(tmp_path, extension):
    path = tmp_path / f"a{extension}"
    write_video(path, (picture(number) for number in range(10)), FPS, np.zeros(6400, np.int16), crf=0)
    frames = list(read_frames(path))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(10) / FPS, atol=1e-3)
    for number, frame in enumerate(frames):
        assert frame.rgb().shape == (HEIGHT, WIDTH, 3)
        assert frame.rgb().dtype == np.uint8
        np.testing.assert_allclose(frame.rgb()[20, 10], brightness(number, face=0), atol=2)
        np.testing.assert_array_equal(frame.bgr(), frame.rgb()[..., ::-1])
    info = probe(path)
    assert (info.width, info.height, info.fps, info.has_audio, info.rotation) == (WIDTH, HEIGHT, FPS, True, 0)
    assert info.duration_s == pytest.approx(0.4, abs=0.1)


def test_a_video_without_sound_says_so(tmp_path):
    write_video(tmp_path / "mute.mp4", (picture(number) for number in range(3)), 30000 / 1001)
    info = probe(tmp_path / "mute.mp4")
    assert not info.has_audio
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
    numbers = [number_of(frame.rgb()) for frame in read_frames(steady, start_s, end_s)]
    # Frame times of an mp4 are exact to its time base only, so that 1.2 s may lie on either side of frame 30.
    assert numbers[0] == first
    assert numbers == list(range(first, numbers[-1] + 1))
    assert numbers[-1] in (last, last - 1)


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

    monkeypatch.setattr("core.media.video.open_media", lambda path: Unseekable(open_media(path)))
    assert [number_of(frame.rgb()) for frame in read_frames(steady, 1.0, 1.03)] == [25, 26]


@pytest.mark.parametrize("threads", [0, 2])
def test_threads_change_nothing(steady, threads):
    assert [number_of(frame.rgb()) for frame in read_frames(steady, threads=threads)] == list(range(FRAMES))


def test_a_stream_without_times_is_refused(tmp_path):
    path = encode_at(tmp_path / "bare.h264", (number / FPS for number in range(FRAMES)))
    with pytest.raises(MediaError, match="its frames have no times"):
        list(read_frames(path))


@pytest.mark.parametrize("name", ["late.mkv", "late.ts"])
def test_times_count_from_the_container_start(tmp_path, name):
    path = encode_at(tmp_path / name, (100 + number / FPS for number in range(FRAMES)))
    with av.open(str(path)) as container:
        assert container.start_time / av.time_base > 90  # the file does start there
    assert probe(path).told_s in (None, pytest.approx(FRAMES / FPS, abs=0.05))  # a transport stream does not tell
    times = [frame.time_s for frame in read_frames(path)]
    np.testing.assert_allclose(times, np.arange(FRAMES) / FPS, atol=1.5e-3)


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
def test_no_seek_lands_behind_its_place(tmp_path, codec, name):
    """Containers seek by decoding times, by bytes or by guessing; the frames given are the same for all of them."""
    late_s = 0 if name.endswith(".avi") else 7  # AVI begins at 0
    path = encode_at(tmp_path / name, (late_s + number / FPS for number in range(FRAMES)), codec=codec)
    for start in range(1, FRAMES, 3):
        numbers = [number_of(frame.rgb()) for frame in read_frames(path, (start + 0.5) / FPS, (start + 1.5) / FPS)]
        assert numbers == list(range(start, min(start + 3, FRAMES)))


def test_variable_frame_intervals(tmp_path):
    times = [0.0, 0.04, 0.5, 0.52, 1.3, 1.34]
    path = encode_at(tmp_path / "vfr.mkv", times)
    np.testing.assert_allclose([frame.time_s for frame in read_frames(path)], times, atol=1e-3)
    assert [number_of(frame.rgb()) for frame in read_frames(path, 1.0, 1.31)] == [3, 4, 5]


def test_find_video(tmp_path):
    for name in ("-id.mkv", "-id2.mp4", "other.txt"):
        (tmp_path / name).touch()
    assert find_video(tmp_path, "-id") == tmp_path / "-id.mkv"
    with pytest.raises(MediaError, match=r"no video other in .*expected other\{\.mp4,\.mkv"):
        find_video(tmp_path, "other")


@pytest.mark.parametrize("name", ["-begins.mp4", "a:b.mp4", "file:x.mp4", "with space%d.mp4"])
def test_names_are_never_options_or_protocols(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_video(Path("plain.mp4"), (picture(number) for number in range(3)), FPS)
    Path("plain.mp4").rename(name)
    assert len(list(read_frames(name))) == 3


def test_files_that_are_no_video_are_named(tmp_path):
    empty, text, sound = tmp_path / "empty.mp4", tmp_path / "text.mp4", tmp_path / "sound.mp4"
    empty.touch()
    text.write_text("not a video\n" * 100)
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.int16), format="s16", layout="mono")
        samples.sample_rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode(None))
    cases = [
        (tmp_path / "absent.mp4", r"no file .*absent\.mp4"),
        (empty, r"empty\.mp4 is empty \(0 bytes\)"),
        (text, r"text\.mp4 cannot be opened \(.*\); the file is damaged"),
        (sound, r"sound\.mp4 has no picture stream"),
    ]
    for path, message in cases:
        with pytest.raises(MediaError, match=message):
            probe(path)
        with pytest.raises(MediaError, match=message):
            list(read_frames(path))


def test_a_video_cut_off_before_its_index(steady, tmp_path):
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(steady.read_bytes()[: steady.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"cut\.mp4 cannot be opened .*cut off"):
        list(read_frames(cut))


def test_a_damaged_video_fails_or_gives_its_good_part(tmp_path):
    """A file without an index may end anywhere; what it gives are frames at their own times."""
    whole = tmp_path / "whole.mkv"
    encode_at(whole, (number / FPS for number in range(FRAMES)))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    times = []
    with contextlib.suppress(MediaError):
        for frame in read_frames(cut):
            times.append(frame.time_s)
    assert 0 < len(times) < FRAMES
    numbers = np.array(times) * FPS
    np.testing.assert_allclose(numbers, np.round(numbers), atol=0.03)
    assert (np.diff(numbers) > 0).all()


@pytest.fixture(scope="module")
def unusual(shared) -> Path:
    folder = shared / "mini-ava" / "unusual"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


def test_rotation_in_the_metadata_is_applied(unusual):
    """The stored pixels are upright and the file says to turn them: what is displayed is turned by 90 degrees."""
    path = unusual / "rotation-90-metadata.mp4"
    info = probe(path)
    assert info.rotation in (90, 270)
    frame = next(read_frames(path))
    stored = frame.picture.to_ndarray(format="rgb24")
    assert frame.rgb().shape == (info.height, info.width, 3)
    # 270 degrees counterclockwise: the stored left edge is the displayed top edge, read from below.
    expected = np.rot90(stored, info.rotation // 90)
    np.testing.assert_array_equal(frame.rgb(), expected)
    if info.rotation == 270:
        np.testing.assert_array_equal(frame.rgb()[0], stored[::-1, 0])


def test_rotation_of_a_frame_that_is_not_square(tmp_path):
    """A wide picture with a quarter turn in its metadata is displayed tall, its corners where they belong."""
    path = tmp_path / "turned.mp4"
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[: HEIGHT // 2, : WIDTH // 2] = 200  # the stored left upper quarter
    write_video(path, [pixels] * 3, FPS, crf=0)
    _turn(path, clockwise_quarter_turns=1)
    info = probe(path)
    assert (info.width, info.height) == (HEIGHT, WIDTH)
    shown = next(read_frames(path)).rgb()
    assert shown.shape == (WIDTH, HEIGHT, 3)
    quarters = [shown[y : y + 20, x : x + 15].mean() for y in (5, WIDTH - 25) for x in (5, HEIGHT - 20)]
    assert np.argmax(quarters) == 1  # clockwise: left upper goes to right upper
    assert sorted(quarters)[-2] < 20


def _turn(path: Path, clockwise_quarter_turns: int) -> None:
    """Write a rotation into the track header's display matrix, which PyAV cannot do."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4  # version 0: flags 4, times and ids 20, reserved 8, layer to volume 8
    fixed = 1 << 16
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][clockwise_quarter_turns]
    matrix = [cosine * fixed, sine * fixed, 0, -sine * fixed, cosine * fixed, 0, 0, 0, 1 << 30]
    start = header + 4 + 20 + 8 + 8
    assert int.from_bytes(data[start : start + 4]) == fixed
    data[start : start + 36] = b"".join(value.to_bytes(4, signed=True) for value in matrix)
    path.write_bytes(data)


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
    info = probe(unusual / name)
    assert (info.width, info.height) == (width, height)
    assert info.fps == pytest.approx(fps, abs=1e-3)
    assert info.has_audio == (name != "no-audio-track.mp4")
    times = np.array([frame.time_s for frame in read_frames(unusual / name)])
    assert len(times) == frames
    np.testing.assert_allclose(np.diff(times), 1 / fps, atol=1.1e-3)


def test_real_variable_frame_rate(unusual):
    times = np.array([frame.time_s for frame in read_frames(unusual / "variable-frame-rate.mp4")])
    steps = np.diff(times)
    assert steps.min() == pytest.approx(0.033, abs=2e-3)
    assert steps.max() > 0.5


@pytest.mark.parametrize("name", ["zero-bytes.mp4", "truncated-index-lost.mp4"])
def test_real_files_that_cannot_be_opened(unusual, name):
    for reading in (probe, lambda path: list(read_frames(path))):
        with pytest.raises(MediaError, match=name):
            reading(unusual / name)


def test_a_real_file_that_is_cut_off_in_the_middle(unusual):
    """It claims its full length; decoding tells where the good part ends."""
    path = unusual / "truncated-middle.mp4"
    duration = probe(path).duration_s
    times = []

    def read() -> None:
        for frame in read_frames(path):
            times.append(frame.time_s)

    with pytest.raises(MediaError, match=r"truncated-middle\.mp4: decoding fails after \d+\.\d\d s"):
        read()
    assert 0.3 * duration < times[-1] < 0.7 * duration
