"""Containers and streams: what old, damaged and odd files do to the times of their frames."""

import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tiny import FPS, WIDTH
from videos import audio_file, audio_frames, encode, grey, heard, number_of, with_packets

from core.clip_utils import SAMPLE_RATE
from core.media import container
from core.media.audio import decode_audio
from core.media.container import MediaFile
from core.media.video import read_frames
from core.media.video_audio import audio_on_disk
from core.outputs.report_media import why_not_played
from core.runtime.errors import MediaError

FRAMES = 40
RATE = 48_000
LOUD = 9000


def grey_video(path: Path, codec: str = "libx264", **options) -> Path:
    """`grey` frames at 25 a second."""
    return encode(path, map(grey, range(FRAMES)), codec=codec, scale=FPS, **options)


def times_and_numbers(media: MediaFile) -> list[tuple[int, int]]:
    """Of each frame the time in ticks of 1/25 s and the number that it shows."""
    return [(round(frame.time_s * FPS), number_of(frame.rgb())) for frame in read_frames(media)]


def not_coded(number: int) -> bytes:
    """An MPEG-4 packet that only says "the same frame again" (vop_coded 0), as Xvid writes for dropped frames."""
    bits = f"01{'0'}1{number:05b}10".ljust(16, "1")
    return b"\0\0\1\xb6" + int(bits, 2).to_bytes(2, "big")


@pytest.mark.parametrize("reading", [lambda media: list(read_frames(media)), lambda media: list(decode_audio(media))])
def test_a_file_is_opened_once_for_each_stream(tmp_path, monkeypatch, reading):
    path = grey_video(tmp_path / "a.mp4", audio=np.zeros(16_000, np.int16))
    opened, real = [], av.open
    monkeypatch.setattr(container.av, "open", lambda *given, **options: opened.append(given) or real(*given, **options))
    with MediaFile(path) as media:
        reading(media)
    assert len(opened) == 1
    with MediaFile(path) as media:
        assert (media.info.width, media.audio.sample_rate) == (WIDTH, 16_000)
        assert len(times_and_numbers(media)) == FRAMES
        assert sum(map(len, decode_audio(media))) > 15_000
    assert len(opened) == 3  # the file is read twice, side by side
    assert times_and_numbers(media) == times_and_numbers(media)  # again and again


@pytest.mark.parametrize("name", ["old.mkv", "old.avi", "old.mp4"])
def test_titles_in_old_encodings_are_no_hindrance(tmp_path, name):
    path = encode(tmp_path / name, [grey(3)], codec="mpeg4", title="a cafeQ in Paris")
    content = path.read_bytes()
    assert b"cafeQ" in content
    path.write_bytes(content.replace(b"cafeQ", b"caf\xe9Q"))  # Latin-1
    assert times_and_numbers(MediaFile(path)) == [(0, 3)]


# AVI: no times in the file


@pytest.mark.parametrize(
    ("codec", "options"), [("libx264", {"g": "12", "bf": "3"}), ("mpeg4", {"g": "12", "bf": "2", "b": "4000000"})]
)
def test_frames_of_avi_are_at_their_own_times(tmp_path, codec, options):
    """What FFmpeg says of H.264 with B-frames in AVI goes back and forth."""
    path = grey_video(tmp_path / "old.avi", codec, **options)
    assert times_and_numbers(MediaFile(path)) == [(number, number) for number in range(FRAMES)]


def test_packets_of_avi_without_a_frame_shift_nothing(tmp_path):
    dropped = range(6, 10)
    source = grey_video(tmp_path / "source.avi", "mpeg4", g="100")
    path = with_packets(source, tmp_path / "a.avi", lambda n, old: not_coded(n) if n in dropped else old)
    found = times_and_numbers(MediaFile(path))
    assert [time for time, _ in found] == [number for number in range(FRAMES) if number not in dropped]
    assert all(abs(time - number) <= 1 for time, number in found[10:])


def test_avi_that_begins_between_key_frames_is_not_shifted(tmp_path):
    source = grey_video(tmp_path / "source.avi", g="16", bf="0", keyint_min="16", sc_threshold="0")
    path = with_packets(source, tmp_path / "a.avi", lambda number, old: old if number >= 5 else None)
    found = times_and_numbers(MediaFile(path))
    times = [time for time, number in found if number >= 16]
    assert times == list(range(times[0], times[0] + FRAMES - 16))
    assert found[0][0] in (0, times[0])  # what comes before the first key frame may be shown or not


# Packets that cannot be decoded


def test_a_video_packet_that_cannot_be_decoded_is_skipped(tmp_path):
    source = grey_video(tmp_path / "source.mp4", "mjpeg", pixel_format="yuvj420p")
    path = with_packets(source, tmp_path / "a.mkv", lambda n, old: b"no frame" if n in (10, 20) else old)
    with pytest.raises(MediaError, match=r"decoding fails after 0\.36 s"):
        times_and_numbers(MediaFile(path))
    media = MediaFile(path, tolerant=True)
    assert times_and_numbers(media) == [(number, number) for number in range(FRAMES) if number not in (10, 20)]
    assert media.damage["video"].packets == 2
    assert re.match(r"2 packet.* 0\.40 s .*Invalid data", str(media.damage["video"]))


def test_a_first_packet_that_cannot_be_decoded_is_skipped(tmp_path):
    source = grey_video(tmp_path / "source.mp4", "mjpeg", pixel_format="yuvj420p")
    path = with_packets(source, tmp_path / "a.mkv", lambda number, old: b"no frame" if number == 0 else old)
    for tolerant in (False, True):
        media = MediaFile(path, tolerant=tolerant)
        assert media.info.width == WIDTH
        assert number_of(next(read_frames(media, 1.0)).rgb()) == 25
    with pytest.raises(MediaError, match="at its first frame"):
        times_and_numbers(MediaFile(path))
    path = with_packets(source, tmp_path / "b.mkv", lambda number, old: b"no frame")
    with pytest.raises(MediaError, match=r"b\.mkv.*no frame.*40 packet"):
        _ = MediaFile(path, tolerant=True).info


def test_a_frame_that_is_decoded_in_part_is_noted(tmp_path):
    """FFmpeg fills what is missing of H.264 from its neighbours, and says nothing."""
    source = grey_video(tmp_path / "source.mp4", g="10", bf="0", crf="1")

    def damaged(number: int, old: bytes) -> bytes:
        middle = len(old) // 2
        return old[:middle] + bytes(255 - byte for byte in old[middle : middle + 20]) + old[middle + 20 :]

    whole = MediaFile(source, tolerant=True)
    assert len(times_and_numbers(whole)) == FRAMES
    assert not whole.damage["video"]
    path = with_packets(source, tmp_path / "a.mkv", lambda n, old: damaged(n, old) if n == 20 else old)
    media = MediaFile(path, tolerant=True)
    assert len(list(read_frames(media))) == FRAMES
    assert media.damage["video"].frames > 0
    assert re.search(r"in part.* 0\.80 s", str(media.damage["video"]))


def test_a_recording_that_begins_between_key_frames_is_whole(tmp_path):
    source = grey_video(tmp_path / "source.ts", g="16", bf="2", keyint_min="16", sc_threshold="0")
    path = with_packets(source, tmp_path / "a.ts", lambda number, old: old if number >= 5 else None)
    media = MediaFile(path, tolerant=True)
    assert [number for _, number in times_and_numbers(media)][-24:] == list(range(16, FRAMES))
    assert not media.damage["video"]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_other_streams_may_last_longer(tmp_path, name):
    """A second language or subtitles that go on make no file that is cut off."""
    with av.open(str(tmp_path / name), "w") as file:
        video = file.add_stream("libx264", rate=FPS)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        languages = [file.add_stream("aac", rate=RATE, layout="mono") for _ in range(2)]
        for number in range(FRAMES):
            file.mux(video.encode(av.VideoFrame.from_ndarray(grey(number), format="rgb24")))
        file.mux(video.encode(None))
        for stream, seconds in zip(languages, (1, 8), strict=True):
            for frame in [*audio_frames(np.zeros(seconds * RATE, np.int16), RATE), None]:
                file.mux(stream.encode(frame))
    info = MediaFile(tmp_path / name).info
    assert info.declared_s == pytest.approx(FRAMES / FPS, abs=0.1)
    assert info.duration_s == pytest.approx(8, abs=0.1)


def test_an_audio_packet_that_cannot_be_decoded_is_silence(tmp_path):
    noise = np.random.default_rng(0).integers(-LOUD, LOUD, 2 * RATE).astype(np.int16)
    source = audio_file(tmp_path / "source.mkv", audio_frames(noise, RATE), "ac3", RATE)
    path = with_packets(source, tmp_path / "a.mkv", lambda number, old: b"no audio" if number == 30 else old)
    with pytest.raises(MediaError, match=r"its audio fails to decode after 0\.9"):
        heard(path)
    whole = heard(source)
    with audio_on_disk(MediaFile(path, tolerant=True)) as audio:
        [fault] = audio.faults
        assert re.match(r"Audio: 1 packet.* 0\.95 s .*Invalid data", fault)
        damaged = audio.part(0.0, len(whole))
    loud = np.flatnonzero(np.abs(damaged.astype(int)) > 2) / SAMPLE_RATE
    [pause] = np.flatnonzero(np.diff(loud) > 0.01)
    assert loud[pause] == pytest.approx(0.95, abs=0.02)
    assert np.diff(loud)[pause] == pytest.approx(0.036, abs=0.015)  # a packet, or that and the next
    tail = slice(round(1.2 * SAMPLE_RATE), round(1.8 * SAMPLE_RATE))
    shift = max(range(-600, 601), key=lambda shift: whole[tail].astype(float) @ np.roll(damaged, shift)[tail])
    assert abs(shift) <= 8  # the container's times are whole milliseconds


# Audio with times that do not fit its samples, or a form that changes


def test_small_gaps_in_the_audio_add_up(tmp_path):
    """Lost packets of 20 ms, each as short as jitter: what follows must not come ever earlier."""
    seconds, step = 20, 320
    samples = np.zeros(seconds * SAMPLE_RATE, np.int16)
    samples[-SAMPLE_RATE : -SAMPLE_RATE + 200] = LOUD
    frames, lost = audio_frames(samples, SAMPLE_RATE, step=step), 0
    for number, frame in enumerate(frames):
        lost += number % 25 == 24 and number < 900
        frame.pts += lost * step
    assert lost == 36
    click_s = np.flatnonzero(heard(audio_file(tmp_path / "a.mkv", frames)) > LOUD / 2)[0] / SAMPLE_RATE
    assert click_s == pytest.approx(seconds - 1 + lost * 0.02, abs=0.041)


@pytest.mark.parametrize(("burst", "jitter"), [(3, 0), (5, 0), (10, 0), (1, 3)])
def test_packets_stamped_in_bursts_or_with_jitter_make_no_gaps(tmp_path, burst, jitter):
    """Some recorders give all packets of a buffer its time, or each the time of its arrival, here up to 60 ms late."""
    samples = (LOUD * np.sin(np.arange(5 * SAMPLE_RATE) * 0.2)).astype(np.int16)
    frames = audio_frames(samples, SAMPLE_RATE, step=320)
    for number, frame in enumerate(frames):
        frame.pts = (number // burst * burst) * 320 + jitter * 320 * min(number % 24, 24 - number % 24) // 12
    np.testing.assert_allclose(heard(audio_file(tmp_path / "a.mkv", frames)), samples, atol=2)


@pytest.mark.parametrize(("layout", "rate"), [("stereo", RATE), ("mono", 32_000)])
def test_audio_goes_on_where_its_form_changes(tmp_path, layout, rate):
    """As in broadcasts, between the film and the advertisements."""
    shape = (11_520, 2) if layout == "stereo" else 11_520
    parts = [(np.full(11_520, LOUD, np.int16), "mono", RATE), (np.full(shape, -LOUD, np.int16), layout, rate)]
    with av.open(str(tmp_path / "a.ts"), "w") as file:
        stream = file.add_stream("mp2", rate=RATE, layout="mono")
        for part, (samples, part_layout, part_rate) in enumerate(parts):
            encoder = av.CodecContext.create("mp2", "w")
            encoder.sample_rate, encoder.layout, encoder.format = part_rate, part_layout, "s16"
            encoder.time_base = Fraction(1, part_rate)
            frames = audio_frames(samples, part_rate, first=round(part * 0.24 * part_rate))
            for packet in [packet for frame in [*frames, None] for packet in encoder.encode(frame)]:
                packet.stream = stream
                file.mux(packet)
    samples = heard(tmp_path / "a.ts").astype(float)
    assert len(samples) / SAMPLE_RATE == pytest.approx(0.24 + 11_520 / rate, abs=0.02)
    assert samples[1600:3200].mean() == pytest.approx(LOUD, rel=0.1)
    assert samples[4800:6400].mean() == pytest.approx(-LOUD, rel=0.1)


# Streams without a decoder


def test_audio_that_no_decoder_knows(tmp_path):
    path = grey_video(tmp_path / "a.mkv", audio=np.zeros(6400, np.int16))
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_XYZ"))
    with audio_on_disk(MediaFile(path, tolerant=True)) as audio:
        assert audio is None
    with pytest.raises(MediaError, match="no decoder knows its audio"):
        heard(path)
    assert why_not_played(path, MediaFile(path).info) == "Browsers do not play unknown audio."


def test_a_video_that_no_decoder_knows(tmp_path):
    path = grey_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    for read in (lambda media: media.info, lambda media: list(read_frames(media))):
        with pytest.raises(MediaError, match=r"a\.mp4.*no decoder knows its video"):
            read(MediaFile(path))


def test_bare_dv_has_a_frame_rate(tmp_path):
    """FFmpeg gives the ticks of its clock for it, 60,000 a second."""
    frames = [grey(number, 720, 576) for number in range(5)]
    audio = np.zeros((2, 9600), np.int16)
    path = encode(
        tmp_path / "a.dv", frames, codec="dvvideo", scale=FPS, audio=audio, rate=48_000, audio_codec="pcm_s16le"
    )
    assert MediaFile(path).info.fps == 25
