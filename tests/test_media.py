"""Containers and streams: what old, damaged and odd files do to the times of their frames."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tiny import FPS, HEIGHT, WIDTH

from core.formats.wav import SAMPLE_RATE
from core.media.audio import decode_audio
from core.media.container import Damage, open_media
from core.media.video import probe, read_frames
from core.media.video_audio import audio_on_disk
from core.media.video_writer import write_video
from core.outputs.report_media import why_not_played
from core.runtime.errors import MediaError

FRAMES = 40
RATE = 48_000
LOUD = 9000


def grey(number: int) -> np.ndarray:
    """A picture whose brightness tells its number."""
    return np.full((HEIGHT, WIDTH, 3), 20 + 4 * number, np.uint8)


def number_of(pixels: np.ndarray) -> int:
    """The number of a `grey` picture, whatever compression did to it."""
    return round((float(pixels.mean()) - 20) / 4)


def encode(path: Path, codec: str, **options: str) -> Path:
    """`grey` pictures at 25 a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height = WIDTH, HEIGHT
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(number), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def with_packets(source: Path, path: Path, edit: Callable[[int, bytes], bytes | None]) -> Path:
    """A copy of a video whose packets are changed, by their number; None leaves one out."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(old.streams.video[0])):
            content = edit(number, bytes(packet)) if packet.size else None
            if content is not None:
                copy = av.Packet(content)
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.is_keyframe, copy.stream = packet.is_keyframe, stream
                new.mux(copy)
    return path


def times_and_numbers(path: Path, damage: Damage | None = None) -> list[tuple[int, int]]:
    """Of each frame the time in ticks of 1/25 s and the number that it shows."""
    return [(round(frame.time_s * FPS), number_of(frame.rgb())) for frame in read_frames(path, damage=damage)]


def not_coded(number: int) -> bytes:
    """An MPEG-4 packet that only says "the same picture again" (vop_coded 0), as Xvid writes for dropped frames."""
    bits = f"01{'0'}1{number:05b}10".ljust(16, "1")
    return b"\0\0\1\xb6" + int(bits, 2).to_bytes(2, "big")


def sound_frames(samples: np.ndarray, rate: int = RATE, first: int = 0, step: int = 1152) -> Iterable[av.AudioFrame]:
    layout = "mono" if samples.ndim == 1 else "stereo"
    for start in range(0, len(samples), step):
        block = np.ascontiguousarray(samples[start : start + step]).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first + start
        yield frame


# Names


def test_titles_in_old_encodings_are_no_hindrance(tmp_path):
    for name in ("old.mkv", "old.avi", "old.mp4"):
        with av.open(str(tmp_path / name), "w") as container:
            container.metadata["title"] = "a cafeQ in Paris"
            stream = container.add_stream("mpeg4", rate=FPS)
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey(3), format="rgb24")))
            container.mux(stream.encode(None))
        content = (tmp_path / name).read_bytes()
        assert b"cafeQ" in content
        (tmp_path / name).write_bytes(content.replace(b"cafeQ", b"caf\xe9Q"))  # Latin-1
        assert probe(tmp_path / name).width == WIDTH
        assert [number_of(frame.rgb()) for frame in read_frames(tmp_path / name)] == [3]


# AVI: no times in the file


@pytest.mark.parametrize(
    ("codec", "options"), [("libx264", {"g": "12", "bf": "3"}), ("mpeg4", {"g": "12", "bf": "2", "b": "4000000"})]
)
def test_frames_of_avi_are_at_their_own_times(tmp_path, codec, options):
    """What FFmpeg says of H.264 with B-frames in AVI goes back and forth."""
    path = encode(tmp_path / "old.avi", codec, **options)
    assert times_and_numbers(path) == [(number, number) for number in range(FRAMES)]


def test_packets_of_avi_without_a_picture_shift_nothing(tmp_path):
    left_out = range(6, 10)
    source = encode(tmp_path / "source.avi", "mpeg4", g="100")
    path = with_packets(source, tmp_path / "a.avi", lambda n, old: not_coded(n) if n in left_out else old)
    found = times_and_numbers(path)
    assert [time for time, _ in found] == [number for number in range(FRAMES) if number not in left_out]
    assert all(abs(time - number) <= 1 for time, number in found[10:])


def test_avi_that_begins_between_key_frames_is_not_shifted(tmp_path):
    source = encode(tmp_path / "source.avi", "libx264", g="16", bf="0", keyint_min="16", sc_threshold="0")
    path = with_packets(source, tmp_path / "a.avi", lambda number, old: old if number >= 5 else None)
    first = next(read_frames(path)).time_s
    times = [time for time, number in times_and_numbers(path) if number >= 16]
    assert times == list(range(times[0], times[0] + FRAMES - 16))
    assert round(first * FPS) in (0, times[0])  # what comes before the first key frame may be shown or not


# Packets that cannot be decoded


def test_a_picture_packet_that_cannot_be_decoded_is_left_out(tmp_path):
    source = encode(tmp_path / "source.mp4", "mjpeg")
    path = with_packets(source, tmp_path / "a.mkv", lambda n, old: b"no picture" if n in (10, 20) else old)
    with pytest.raises(MediaError, match=r"decoding fails after 0\.36 s"):
        times_and_numbers(path)
    damage = Damage()
    kept = [number for number in range(FRAMES) if number not in (10, 20)]
    assert times_and_numbers(path, damage) == [(number, number) for number in kept]
    assert damage.packets == 2
    assert str(damage).startswith("2 packet(s) cannot be decoded, the first at 0.40 s (Invalid data")


def test_a_first_packet_that_cannot_be_decoded_is_passed(tmp_path):
    source = encode(tmp_path / "source.mp4", "mjpeg")
    path = with_packets(source, tmp_path / "a.mkv", lambda number, old: b"no picture" if number == 0 else old)
    assert probe(path).width == WIDTH
    path = with_packets(source, tmp_path / "b.mkv", lambda number, old: b"no picture")
    with pytest.raises(MediaError, match=r"no frame can be decoded \(40 packet\(s\) cannot be decoded, the first at"):
        probe(path)


def test_a_picture_that_is_decoded_in_part_is_told(tmp_path):
    """FFmpeg fills what is missing of H.264 from its neighbours, and says nothing."""
    source = encode(tmp_path / "source.mp4", "libx264", g="10", bf="0", crf="1")

    def damaged(number: int, old: bytes) -> bytes:
        middle = len(old) // 2
        return old[:middle] + bytes(255 - byte for byte in old[middle : middle + 20]) + old[middle + 20 :]

    damage = Damage()
    assert len(times_and_numbers(source, damage)) == FRAMES
    assert not damage
    path = with_packets(source, tmp_path / "a.mkv", lambda n, old: damaged(n, old) if n == 20 else old)
    assert len(list(read_frames(path, damage=damage))) == FRAMES
    assert damage.frames > 0
    assert "frame(s) can be decoded only in part" in str(damage)
    assert "at 0.80 s" in str(damage)


def test_a_recording_that_begins_between_key_frames_is_whole(tmp_path):
    source = encode(tmp_path / "source.ts", "libx264", g="16", bf="2", keyint_min="16", sc_threshold="0")
    path = with_packets(source, tmp_path / "a.ts", lambda number, old: old if number >= 5 else None)
    damage = Damage()
    numbers = [number for _, number in times_and_numbers(path, damage)]
    assert numbers[-24:] == list(range(16, FRAMES))
    assert not damage


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_other_streams_may_last_longer(tmp_path, name):
    """A second language or subtitles that go on make no file that is cut off."""
    with av.open(str(tmp_path / name), "w") as container:
        pictures = container.add_stream("libx264", rate=FPS)
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sounds = [container.add_stream("aac", rate=RATE, layout="mono") for _ in range(2)]
        for number in range(FRAMES):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(grey(number), format="rgb24")))
        container.mux(pictures.encode(None))
        for stream, seconds in zip(sounds, (1, 8), strict=True):
            for frame in sound_frames(np.zeros(seconds * RATE, np.int16)):
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    info = probe(tmp_path / name)
    assert info.told_s == pytest.approx(FRAMES / FPS, abs=0.1)
    assert info.duration_s == pytest.approx(8, abs=0.1)


def sound_with(path: Path, edit: Callable[[int, bytes], bytes]) -> Path:
    """Two seconds of loud noise in MP2 whose packets are changed, by their number."""
    noise = np.random.default_rng(0).integers(-LOUD, LOUD, 2 * RATE).astype(np.int16)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mp2", rate=RATE, layout="mono")
        packets = [packet for frame in sound_frames(noise) for packet in stream.encode(frame)]
        for number, packet in enumerate([*packets, *stream.encode(None)]):
            changed = av.Packet(edit(number, bytes(packet)))
            changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
            changed.stream = stream
            container.mux(changed)
    return path


def test_a_sound_packet_that_cannot_be_decoded_is_silence(tmp_path):
    path = sound_with(tmp_path / "a.mkv", lambda number, old: b"no sound" if number == 40 else old)
    with pytest.raises(MediaError, match=r"its sound fails to decode after 0\.9"):
        list(decode_audio(path))
    whole = np.concatenate(list(decode_audio(sound_with(tmp_path / "whole.mkv", lambda number, old: old))))
    with audio_on_disk(path) as sound:
        assert sound.faults == (
            "Of the sound 1 packet(s) cannot be decoded, at 0.95 s (Invalid data found when processing input). "
            "Silence stands for what is missing.",
        )
        damaged = sound.part(0.0, len(whole))
    loud = np.flatnonzero(np.abs(damaged.astype(int)) > 2) / SAMPLE_RATE
    pauses = np.flatnonzero(np.diff(loud) > 0.01)
    assert len(pauses) == 1
    assert loud[pauses[0]] == pytest.approx(0.95, abs=0.02)
    assert np.diff(loud)[pauses[0]] == pytest.approx(0.036, abs=0.015)  # a packet, or that and the next
    tail = slice(round(1.2 * SAMPLE_RATE), round(1.8 * SAMPLE_RATE))
    shifts = range(-20, 21)
    likeness = [float(whole[tail].astype(float) @ np.roll(damaged, shift)[tail]) for shift in shifts]
    assert abs(shifts[int(np.argmax(likeness))]) <= 8  # the container's times are whole milliseconds


# Sound whose times do not fit its samples, or whose form changes


def test_small_gaps_in_the_sound_add_up(tmp_path):
    """Lost packets of 20 ms, each too short to be told from jitter: what follows must not come ever earlier."""
    seconds, step = 20, 320
    samples = np.zeros(seconds * SAMPLE_RATE, np.int16)
    samples[-SAMPLE_RATE : -SAMPLE_RATE + 200] = LOUD
    lost = 0
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for number, frame in enumerate(sound_frames(samples, SAMPLE_RATE, step=step)):
            lost += number % 25 == 24 and number < 900
            frame.pts += lost * step
            container.mux(stream.encode(frame))
    assert lost == 36
    heard = np.concatenate(list(decode_audio(tmp_path / "a.mkv")))
    click_s = np.flatnonzero(heard > LOUD / 2)[0] / SAMPLE_RATE
    assert click_s == pytest.approx(seconds - 1 + lost * 0.02, abs=0.041)


@pytest.mark.parametrize("burst", [3, 5, 10])
def test_packets_stamped_in_bursts_make_no_gaps(tmp_path, burst):
    """Some recorders give all packets of a buffer its time."""
    samples = (LOUD * np.sin(np.arange(5 * SAMPLE_RATE) * 0.2)).astype(np.int16)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for number, frame in enumerate(sound_frames(samples, SAMPLE_RATE, step=320)):
            frame.pts = number // burst * burst * 320
            container.mux(stream.encode(frame))
    heard = np.concatenate(list(decode_audio(tmp_path / "a.mkv")))
    np.testing.assert_allclose(heard, samples, atol=2)


@pytest.mark.parametrize(("layout", "rate"), [("stereo", RATE), ("mono", 32_000)])
def test_sound_whose_form_changes_goes_on(tmp_path, layout, rate):
    """As in broadcasts, between the film and the advertisements."""
    shape = (11_520, 2) if layout == "stereo" else 11_520
    parts = [(np.full(11_520, LOUD, np.int16), "mono", RATE), (np.full(shape, -LOUD, np.int16), layout, rate)]
    with av.open(str(tmp_path / "a.ts"), "w") as container:
        stream = container.add_stream("mp2", rate=RATE, layout="mono")
        for part, (samples, part_layout, part_rate) in enumerate(parts):
            encoder = av.CodecContext.create("mp2", "w")
            encoder.sample_rate, encoder.layout, encoder.format = part_rate, part_layout, "s16"
            encoder.time_base = Fraction(1, part_rate)
            frames = sound_frames(samples, part_rate, first=round(part * 0.24 * part_rate))
            packets = [packet for frame in frames for packet in encoder.encode(frame)]
            for packet in [*packets, *encoder.encode(None)]:
                packet.stream = stream
                container.mux(packet)
    heard = np.concatenate(list(decode_audio(tmp_path / "a.ts"))).astype(float)
    assert len(heard) / SAMPLE_RATE == pytest.approx(0.24 + 11_520 / rate, abs=0.02)
    assert heard[1600:3200].mean() == pytest.approx(LOUD, rel=0.1)
    assert heard[4800:6400].mean() == pytest.approx(-LOUD, rel=0.1)


# Streams without a decoder


def test_sound_that_no_decoder_knows(tmp_path):
    write_video(tmp_path / "known.mkv", map(grey, range(10)), FPS, np.zeros(6400, np.int16))
    content = (tmp_path / "known.mkv").read_bytes()
    path = tmp_path / "unknown.mkv"
    path.write_bytes(content.replace(b"A_AAC", b"A_XYZ"))
    with audio_on_disk(path) as sound:
        assert sound is None
    with pytest.raises(MediaError, match="no decoder knows its sound"):
        list(decode_audio(path))
    assert why_not_played(path) == "Browsers do not play unknown sound."


def test_a_picture_that_no_decoder_knows(tmp_path):
    write_video(tmp_path / "known.mp4", map(grey, range(10)), FPS)
    content = (tmp_path / "known.mp4").read_bytes()
    path = tmp_path / "unknown.mp4"
    path.write_bytes(content.replace(b"avc1", b"zzzz"))
    for read in (probe, lambda path: list(read_frames(path))):
        with pytest.raises(MediaError, match="no decoder knows its picture"):
            read(path)
    with open_media(path) as container:
        assert len(container.streams.video) == 1
