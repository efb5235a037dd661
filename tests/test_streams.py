"""Files of several streams, clocks that begin late or go back, channels that cancel each other, empty packets."""

import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tiny import FPS
from videos import (
    click_times,
    clicks,
    encode,
    flip,
    frame_times,
    grey,
    heard,
    number_of,
    of_streams,
    stored_times,
    strength,
    tone,
    turn,
    with_empty_packets,
)

from core.clip_utils import SAMPLE_RATE
from core.detection.results import stream_notes
from core.formats.wav import read_wav
from core.media.audio import extract_audio
from core.media.container import MediaFile
from core.media.streams import steadied
from core.media.video import read_frames, until_failure
from core.media.video_audio import VideoAudio, audio_on_disk
from core.media.video_files import fetch_video
from core.outputs.report_media import why_not_played
from core.runtime.errors import MediaError, NoStreamError

FRAMES = 40
HEARD = VideoAudio(np.ones(SAMPLE_RATE, np.int16), 0.0, 1.0)


# Which streams


@pytest.mark.parametrize(
    ("flags", "sizes", "expected"),
    [
        (("", "default"), (64, 32), 1),  # flagged before larger
        (("default", "default"), (32, 64), 1),  # of those, the larger
        (("", ""), (32, 64), 1),
        (("", ""), (64, 64), 0),  # else the first
        (("attached_pic", ""), (64, 32), 0),  # cover art does not count
    ],
)
def test_the_video_is_chosen_as_ffmpeg_does(tmp_path, flags, sizes, expected):
    name = "a.mkv" if "attached_pic" not in flags else "a.mp4"
    shown = [20, 40]
    path = of_streams(tmp_path / name, [(size, n, flag) for size, n, flag in zip(sizes, shown, flags, strict=True)], [])
    if "attached_pic" in flags:
        shown, sizes = shown[1:], sizes[1:]
    with MediaFile(path) as media:
        assert (media.info.stream, media.info.streams) == (expected, len(shown))
        assert (media.info.width, number_of(next(read_frames(media)).rgb())) == (sizes[expected], shown[expected])
    other = len(shown) - 1 - expected
    assert number_of(next(read_frames(MediaFile(path, video_stream=other))).rgb()) == shown[other]
    with pytest.raises(MediaError, match=r"video stream 7: .*(two|2|one)"):
        MediaFile(path, video_stream=7)


def test_the_audio_is_chosen_as_ffmpeg_does(tmp_path):
    quiet, loud, wide = tone(2000), tone(8000, 500), np.stack([tone(4000, 700)] * 2)
    of = lambda *flags: of_streams(  # noqa: E731
        tmp_path / f"{'-'.join(flags)}.mkv", [(64, 0, "")], list(zip([quiet, loud, wide], flags, strict=True))
    )
    flagged, plain = of("", "default", ""), of("", "", "")
    for path, number, amplitude in ((flagged, 1, 8000), (plain, 2, 4000)):
        with MediaFile(path) as media:
            assert (media.audio.stream, media.audio.streams) == (number, 3)
            extract_audio(media, tmp_path / "a.wav")
        assert strength(read_wav(tmp_path / "a.wav")) == pytest.approx(amplitude, rel=0.05)
    for number, amplitude in ((0, 2000), (2, 4000), ("all", np.hypot(np.hypot(2000, 8000), 4000))):
        with MediaFile(flagged, audio_stream=number) as media, audio_on_disk(media) as audio:
            assert media.audio.stream == number
            assert strength(audio.samples[:]) == pytest.approx(amplitude, rel=0.05)


def test_mixed_streams_keep_their_times_and_the_length_of_the_longest(tmp_path):
    path = of_streams(
        tmp_path / "a.mkv", [(64, 0, "")], [(clicks([0.2], 0.6), ""), (clicks([0.4, 1.2], 1.5), "")], "pcm_s16le"
    )
    samples = heard_of(MediaFile(path, audio_stream="all"))
    np.testing.assert_allclose(click_times(samples), [0.2, 0.4, 1.2], atol=1e-3)
    assert len(samples) == pytest.approx(1.5 * SAMPLE_RATE, abs=1)


def heard_of(media: MediaFile) -> np.ndarray:
    with audio_on_disk(media) as audio:
        return audio.samples[:]


def test_cover_art_is_no_video(tmp_path):
    path = of_streams(tmp_path / "song.mp4", [(64, 20, "attached_pic")], [(tone(2000), "")])
    with MediaFile(path) as media:
        assert len(heard_of(media)) > SAMPLE_RATE
        with pytest.raises(MediaError, match="has no video stream"):
            _ = media.info


# Channels that cancel each other


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le", "pcm_u8", "flac"])
@pytest.mark.parametrize(("right", "expected"), [(-1.0, 8000), (-0.9, 7600), (1.0, 8000), (0.0, 4000), (-0.3, 2800)])
def test_opposite_sides_do_not_cancel_each_other(tmp_path, codec, right, expected):
    path = of_streams(tmp_path / "a.mkv", [(64, 0, "")], [(np.stack([tone(8000), tone(right * 8000)]), "")], codec)
    with MediaFile(path) as media:
        samples = heard_of(media)
        cancelled = right < -0.5
        assert media.cancelled_s == pytest.approx(1.6 * cancelled, abs=0.1)
    assert strength(samples) == pytest.approx(expected, rel=0.1)
    extract_audio(MediaFile(path), tmp_path / "a.wav")
    np.testing.assert_array_equal(read_wav(tmp_path / "a.wav"), samples)


@pytest.mark.parametrize("codec", ["flac", "pcm_s16le"])  # in Matroska, PCM does not say which channel is which
def test_opposite_sides_of_more_channels_do_not_cancel_each_other(tmp_path, codec):
    """5.1 with voices in the two front channels only, and a rumble that no mix holds."""
    silence = np.zeros_like(tone(0))
    channels = np.stack([tone(8000), -tone(8000), silence, tone(15_000, 40), silence, silence])
    path = of_streams(tmp_path / "a.mkv", [(64, 0, "")], [(channels, "")], codec)
    with MediaFile(path) as media:
        assert strength(heard_of(media)) > 2000
        assert media.cancelled_s > 1.5


def test_unlike_channels_are_mixed_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    path = of_streams(tmp_path / "a.mkv", [], [(rng.normal(0, 3000, (2, 25_600)).astype(np.int16), "")], "pcm_s16le")
    with MediaFile(path) as media:
        assert heard_of(media).std() == pytest.approx(3000 / np.sqrt(2), rel=0.05)
        assert media.cancelled_s == 0


def test_sides_that_become_opposite_are_heard_soon(tmp_path):
    left = np.concatenate([tone(8000), tone(4000), tone(4000)])
    right = np.concatenate([tone(8000), -tone(4000), -tone(4000)])
    path = of_streams(tmp_path / "a.mkv", [], [(np.stack([left, right]), "")], "pcm_s16le")
    samples = heard_of(MediaFile(path))
    assert strength(samples[: len(tone(0))]) == pytest.approx(8000, rel=0.02)
    assert strength(samples[2 * len(tone(0)) :]) == pytest.approx(4000, rel=0.02)


@pytest.mark.parametrize(("amplitude", "silent"), [(0, True), (40, False)])
def test_digital_silence_is_known(tmp_path, amplitude, silent):
    path = encode(tmp_path / "a.mkv", [grey(0)], audio=tone(amplitude), audio_codec="pcm_s16le")
    with MediaFile(path) as media, audio_on_disk(media) as audio:
        assert audio.silent is silent


# The clock


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_times_are_those_of_a_player_where_that_is_asked_for(tmp_path, name):
    """Each frame at its own timestamp; without `as_played` times count from the beginning."""
    times_s = 3605 + np.arange(FRAMES) / FPS
    path = encode(
        tmp_path / name, map(grey, range(FRAMES)), times_s, audio=clicks([0.8], 1.6), audio_start_s=3605.0, bf="0"
    )
    base_s = float(next(av.open(str(path)).demux(video=0)).pts * Fraction(1, 90_000)) - 3605 if name == "a.ts" else 0.0
    counted = frame_times(path)
    np.testing.assert_allclose(frame_times(path, as_played=True), times_s + base_s, atol=2e-3)
    assert counted[0] < 0.1
    media, played = MediaFile(path), MediaFile(path, as_played=True)
    assert (media.start_s, played.offset_s) == (0, 0)
    assert played.start_s == media.offset_s == pytest.approx(3605 + base_s - counted[0], abs=2e-3)
    at = 3605.8 + base_s  # the click, whatever the clock counts from
    for opened, begin_s in ((media, media.offset_s), (played, 0.0)):
        with audio_on_disk(opened) as audio:
            assert len(audio.samples) < 2 * SAMPLE_RATE
            around = audio.part(at - begin_s - 0.1, SAMPLE_RATE // 5)
        assert click_times(around) == pytest.approx([0.1], abs=5e-3)


def test_a_clock_that_begins_before_0_begins_at_0_in_players(tmp_path):
    """FFmpeg counts the hours before a transport stream's clock turns over as negative."""
    path = encode(tmp_path / "a.ts", map(grey, range(FRAMES)), 95_400 + np.arange(FRAMES) / FPS, scale=90_000, bf="0")
    assert av.open(str(path)).start_time < 0
    with MediaFile(path, as_played=True) as media:
        assert media.offset_s == pytest.approx(95_400 - (1 << 33) / 90_000, abs=2.0)
        assert media.start_s == 0
    np.testing.assert_allclose(frame_times(path, as_played=True), np.arange(FRAMES) / FPS, atol=1e-3)


CODECS = {  # of a container: video, ticks a second, audio
    ".mpg": ("mpeg2video", FPS, "mp2"),
    ".flv": ("flv", 1000, "aac"),
    ".webm": ("libvpx", 1000, "libopus"),
}


def recording(path: Path, first: int, frames: int = FRAMES, width: int = 64, **options) -> Path:
    """`frames` frames that are numbered in twos from `first` on, with a click in their middle."""
    codec, scale, audio_codec = CODECS.get(path.suffix, ("libx264", None, "aac"))
    return encode(
        path,
        (grey(first + frame // 2, width) for frame in range(frames)),
        codec=codec,
        scale=scale,
        audio=clicks([frames / 2 / FPS], frames / FPS, 48_000),
        rate=48_000,
        audio_codec=audio_codec,
        **options,
    )


def parts(folder: Path, name: str, recordings: int) -> Path:
    """Recordings of `FRAMES` frames, numbered on, one behind the other."""
    made = [recording(folder / f"{n}{Path(name).suffix}", n * FRAMES // 2) for n in range(recordings)]
    return joined_to(folder / name, *(part.read_bytes() for part in made))


def joined_to(path: Path, *contents: bytes) -> Path:
    path.write_bytes(b"".join(contents))
    return path


@pytest.mark.parametrize("name", ["a.ts", "a.mpg", "a.mp4", "a.mov", "a.mkv", "a.webm", "a.flv", "live.mkv"])
def test_recordings_joined_byte_by_byte_are_one_behind_the_other(tmp_path, name):
    path = parts(tmp_path, name, 3)
    if name == "live.mkv":  # written without knowing how long it will get
        path.write_bytes(re.sub(rb"(?<=\x18S\x80g).{8}", b"\1" + b"\xff" * 7, path.read_bytes(), flags=re.DOTALL))
    firsts = FRAMES * np.arange(1, 3)
    with MediaFile(path) as media:
        frames = [(frame.time_s, number_of(frame.rgb())) for frame in read_frames(media)]
        samples = heard_of(media)
        joins_s = sorted(media.joins_s["video"])
    times_s, numbers = map(np.array, zip(*frames, strict=True))
    np.testing.assert_allclose(numbers, np.arange(3 * FRAMES) // 2, atol=1)
    assert (np.diff(times_s) > 0).all()
    assert np.diff(times_s).max() < 0.2
    np.testing.assert_allclose(joins_s, times_s[firsts], atol=0.1)
    np.testing.assert_allclose(click_times(samples), times_s[[FRAMES // 2, *(firsts + FRAMES // 2)]], atol=0.025)


@pytest.mark.parametrize("name", ["a.ts", "a.mpg", "a.mp4", "a.mkv"])
@pytest.mark.parametrize("seek_s", [1.0, 2.0])
def test_a_seek_into_joined_recordings_finds_the_same_frame(tmp_path, name, seek_s):
    path = parts(tmp_path, name, 2)
    times_s = frame_times(path)
    assert next(read_frames(MediaFile(path), seek_s)).time_s == times_s[times_s <= seek_s][-1]


def test_joined_recordings_may_differ(tmp_path):
    """In size, streams and the end of the last one; each keeps its length."""
    first = recording(tmp_path / "0.mp4", 0, FRAMES)
    second = encode(tmp_path / "1.mp4", (grey(20 + n // 2, 32, 96) for n in range(FRAMES)))
    turn(second, 1)
    third = recording(tmp_path / "2.mp4", 40, FRAMES, movflags="faststart")
    path = joined_to(tmp_path / "a.mp4", *(part.read_bytes() for part in (first, second, third)))
    with MediaFile(path, tolerant=True) as media:
        frames = list(read_frames(media))
        assert [number_of(frame.rgb()) for frame in frames] == pytest.approx(np.arange(3 * FRAMES) // 2, abs=1)
        assert {(frame.width, frame.height) for frame in frames} == {(media.info.width, media.info.height)}
        np.testing.assert_allclose(click_times(heard_of(media)), [0.8, 4.0], atol=0.025)
        assert (media.info.duration_s, media.info.declared_s) == pytest.approx((4.8, 4.8), abs=0.05)
        assert why_not_played(path, media.info)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "begins.mp4"])
def test_a_last_recording_that_is_cut_off_is_a_fault(tmp_path, name):
    """What says how long it is may be lost, so that it cannot be opened; what comes before is read all the same."""
    whole = recording(tmp_path / name, 0, **({"movflags": "faststart"} if name == "begins.mp4" else {}))
    content = whole.read_bytes()
    path = joined_to(tmp_path / f"joined{whole.suffix}", content, content[: len(content) * 2 // 3])
    with MediaFile(path, tolerant=True) as media:
        frames = list(until_failure(read_frames(media)))
        assert len(frames) in range(FRAMES, 2 * FRAMES)
        if name == "a.mp4":
            with pytest.raises(MediaError, match="recording 2 of 2"):
                list(read_frames(media))
        else:
            assert media.declared_s > frames[-1].time_s + 0.3


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv"])
@pytest.mark.parametrize("rest", [bytes(70_000), b"<html>not found</html>" * 4000, bytes(range(1, 256)) * 300])
def test_what_follows_a_recording_is_counted(tmp_path, name, rest):
    whole = parts(tmp_path, name, 1)
    path = joined_to(tmp_path / f"b{whole.suffix}", whole.read_bytes(), rest)
    with MediaFile(path) as media:
        assert len(list(read_frames(media))) == FRAMES
        assert media.unread_bytes == len(rest)
        assert [str(len(rest)) in note.replace(",", "") for note in stream_notes(media, HEARD, 0.0, 1.0)] == [True]


def test_frames_without_a_time_are_noted(tmp_path):
    """FFmpeg loses the times before 0 of H.264 in Matroska."""
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(grey(number, 64, 64), format="rgb24")
            frame.pts, frame.time_base = (number - 10) * 40, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with MediaFile(path) as media:
        assert len(list(read_frames(media))) < FRAMES
        [note] = stream_notes(media, HEARD, 0.0, 1.0)
        assert note.startswith("10 frame(s)")


def test_headers_alone_are_no_recording(tmp_path):
    """As where each segment of a stream was fetched with its header."""
    path = tmp_path / "a.mp4"
    fragments = recording(path, 0, movflags="frag_keyframe+empty_moov").read_bytes()
    header = fragments[: fragments.index(b"moof") - 4]
    with MediaFile(joined_to(path, header, fragments)) as media:
        assert [number_of(frame.rgb()) for frame in read_frames(media)] == pytest.approx(np.arange(FRAMES) // 2, abs=1)
        assert not media.joins_s["video"]


# Packets of 0 bytes


@pytest.mark.parametrize(("codec", "pixel_format"), [("mpeg4", "yuv420p"), ("mjpeg", "yuvj420p")])
@pytest.mark.parametrize("tolerant", [True, False])
def test_a_packet_of_0_bytes_repeats_the_frame(tmp_path, codec, pixel_format, tolerant):
    source = encode(tmp_path / "source.mp4", map(grey, range(FRAMES)), codec=codec, pixel_format=pixel_format)
    path = with_empty_packets(source, tmp_path / "a.mp4", range(20, 24))
    media = MediaFile(path, tolerant=tolerant)
    found = [round(frame.time_s * FPS) for frame in read_frames(media)]
    assert found == [number for number in range(FRAMES) if number not in range(20, 24)]
    assert not media.damage["video"]


def test_theora_repeats_frames(shared):
    media = MediaFile(shared / "cases" / "theora_repeats.ogv", tolerant=True)
    times_s = [frame.time_s for frame in read_frames(media)]
    assert (len(times_s), round(times_s[-1] * FPS)) == (47, 49)
    assert not media.damage["video"]


def test_a_later_recording_may_lack_the_stream_that_is_asked_for(tmp_path):
    audios = [(tone(0), ""), (tone(9000), "default")]
    made = [of_streams(tmp_path / f"{count}.mkv", [(64, count, "")], audios[-count:]) for count in (2, 1)]
    path = joined_to(tmp_path / "joined.mkv", *(part.read_bytes() for part in made))
    with MediaFile(path, audio_stream=1) as media:
        assert [number_of(frame.rgb()) for frame in read_frames(media)] == [2] * FRAMES + [1] * FRAMES
    with pytest.raises(NoStreamError):
        MediaFile(path, audio_stream=2)


# Damaged times


@pytest.fixture(scope="module", params=[("0", "0"), ("2", "0"), ("2", "700000")])
def broadcast(request, tmp_path_factory) -> Path:
    """A transport stream, without and with B-frames, with a time for each frame of its audio, or for several."""
    b_frames, delay = request.param
    folder = tmp_path_factory.mktemp("broadcast")
    made = recording(folder / "made.ts", 0, bf=b_frames)
    with av.open(str(made)) as source, av.open(str(folder / "a.ts"), "w", options={"max_delay": delay}) as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                out.mux(packet)
    return folder / "a.ts"


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_damaged_time_is_what_those_around_it_let_expect(broadcast, tmp_path, kind):
    """Each bit above a second's, of a random packet that is neither the first nor the last."""
    rng = np.random.default_rng(0)
    content = broadcast.read_bytes()
    places = [place for packet in stored_times(content, kind)[1:-1] for place in packet]
    times_s, clicked_s = frame_times(broadcast), click_times(heard(broadcast))
    assert (len(times_s), len(clicked_s)) == (FRAMES, 1)
    for bit in range(17, 33):
        path = tmp_path / "damaged.ts"
        path.write_bytes(flip(content, int(rng.choice(places)), bit))
        with MediaFile(path) as media:
            np.testing.assert_allclose([frame.time_s for frame in read_frames(media)], times_s, atol=1 / FPS)
            assert click_times(heard_of(media)) == pytest.approx(clicked_s, abs=0.05)
            assert media.joins_s == {"video": set(), "audio": set()}
            assert media.untimed == 0


@pytest.mark.parametrize("most", [1, 4])
def test_times_are_left_alone_that_may_be_right(most):
    """Random streams that stand still for long, and recordings that are joined: in order, each time as it was."""
    rng = np.random.default_rng(most)
    for _ in range(200):
        steps = rng.choice([0.04, 0.04, 0.04, 3.0, 60.0], rng.integers(2, 40))
        later = rng.uniform(0.04, 100) + np.cumsum(rng.choice([0.02, 0.04], rng.integers(most + 1, 20)))
        recordings = [np.cumsum(steps), later] if later[-1] < steps[0] else [np.cumsum(steps)]
        times_s = np.concatenate(recordings).tolist()
        items = list(enumerate(times_s))
        found = list(steadied(items, lambda item: (0, "video", item[1]), lambda item, time_s: 1 / 0, most))
        assert found == items


@pytest.mark.parametrize("most", [1, 4])
def test_times_that_are_far_off_are_put_between_those_around_them(most):
    """Two random streams, of which up to `most` times in succession are elsewhere."""
    rng = np.random.default_rng(most)
    for _ in range(200):
        right = {stream: np.cumsum(rng.uniform(0.02, 0.06, 40)) for stream in (0, 1)}
        given = {stream: times_s.copy() for stream, times_s in right.items()}
        first = rng.integers(2, 35)
        damaged = slice(first, first + rng.integers(1, most + 1))
        given[rng.integers(2)][damaged] += rng.choice([-1, 1]) * rng.uniform(10, 1e5)
        items = [[stream, place, given[stream][place]] for place in range(40) for stream in (0, 1)]
        found = list(
            steadied(items, lambda item: (item[0], "video", item[2]), lambda item, time_s: item.insert(2, time_s), most)
        )
        assert [item[:2] for item in found] == [[stream, place] for place in range(40) for stream in (0, 1)]
        for stream, place, time_s, *_ in found:
            assert time_s == pytest.approx(right[stream][place], abs=0.06)


# Fetched from an address


def fetched(server, path: Path) -> Path:
    """The copy of a video at an address."""
    server.files[f"/{path.name}"] = path.read_bytes()
    copy = path.with_name(f"fetched_{path.stem}.mkv")
    fetch_video(f"{server.url}/{path.name}", copy)
    return copy


def seen_in(path: Path) -> tuple[list[float], list[int]]:
    """When its frames are shown, and the numbers that they show."""
    with MediaFile(path) as media:
        shown = [(round(frame.time_s, 3), number_of(frame.rgb())) for frame in read_frames(media)]
    return tuple(map(list, zip(*shown, strict=True)))


def test_what_is_fetched_begins_with_the_first_frame_and_keeps_what_streams_are_for(server, tmp_path):
    """Of a file whose first packets have no decoding times, as x264 sorts frames; the second of both is the default."""
    videos, audios = (
        [(64, 3, ""), (64, 7, "default"), (64, 9, "attached_pic")],
        [(tone(0), ""), (tone(9000), "default")],
    )
    path = of_streams(tmp_path / "a.mkv", videos[:2], audios)
    with av.open(str(path)) as container:
        assert any(packet.size and packet.dts is None for packet in container.demux(video=0))
    copy = fetched(server, path)
    assert seen_in(copy) == seen_in(path)
    assert set(seen_in(copy)[1]) == {7}
    with audio_on_disk(MediaFile(copy)) as audio:
        assert strength(audio.samples) > 1000
    music = of_streams(tmp_path / "music.mp4", videos[2:], audios[1:])
    with pytest.raises(MediaError, match="no video stream"):
        seen_in(fetched(server, music))


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.ts", "a.webm"])
def test_what_is_fetched_is_at_its_time(server, tmp_path, name):
    """Also where the audio begins before the file does, as AAC does in mp4."""
    path = recording(tmp_path / name, 0)
    copy = fetched(server, path)
    with MediaFile(copy, as_played=True) as media:
        found_s = [frame.time_s for frame in read_frames(media)]
    np.testing.assert_allclose(found_s, frame_times(path, as_played=True), atol=1e-3)
    with MediaFile(copy, as_played=True) as media, MediaFile(path, as_played=True) as its:
        assert click_times(heard_of(media)) == pytest.approx(click_times(heard_of(its)), abs=2e-3)


def test_joined_recordings_are_fetched_to_the_end(server, tmp_path):
    path = parts(tmp_path, "joined.ts", 2)
    assert seen_in(fetched(server, path)) == seen_in(path)
