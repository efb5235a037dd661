"""What scripts/live.py takes: streams, here of a local server, cameras and microphones, for which files stand here."""

import http.server
import itertools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from tiny import refusal, tiny_frame

from core.clip_utils import GRID_FPS, SAMPLE_RATE
from core.live import inbox as inbox_module
from core.live import sources
from core.live.audio import Resampler
from core.live.detector import AUDIO_AHEAD_S
from core.live.inbox import Heard, Inbox, Pace, Seen
from core.live.sources import CameraSource, Devices, FileSource, StreamSource, playing
from core.media.container import MediaFile
from core.media.video_audio import audio_on_disk
from core.media.video_writer import write_video
from core.runtime.errors import MediaError, UserError
from scripts import live as live_script

SECONDS = 1.2


@pytest.fixture(autouse=True)
def soon_again(monkeypatch) -> None:
    monkeypatch.setattr(sources, "AGAIN_S", 0.05)


@pytest.fixture
def film(tmp_path) -> Path:
    path, rng = tmp_path / "film.mp4", np.random.default_rng(0)
    audio = rng.integers(-5000, 5000, round(SECONDS * SAMPLE_RATE)).astype(np.int16)
    write_video(path, map(tiny_frame, range(round(SECONDS * GRID_FPS))), GRID_FPS, audio=audio)
    return path


@pytest.fixture
def served() -> Iterator[tuple[str, dict[str, list[bytes]]]]:
    """The address of a server, and what it serves: path -> what is sent in turn; the last of them again and again."""
    content: dict[str, list[bytes]] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = content.get(self.path, [b""])
            sent = parts.pop(0) if len(parts) > 1 else parts[0]
            self.send_response(200 if sent else 404)
            if self.path.startswith("/live"):  # in one chunk, after which more might follow
                self.send_header("Transfer-Encoding", "chunked")
                sent = b"%x\r\n%b\r\n" % (len(sent), sent)
            else:
                self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)
            self.close_connection = True

        def log_message(self, *arguments: object) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *arguments: object) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", content
        server.shutdown()


def without_length(path: Path) -> bytes:
    """A file as a live stream of Matroska, which does not say how long it is."""
    out = path.with_suffix(".live.mkv")
    with av.open(str(path)) as source, av.open(str(out), "w", format="matroska", options={"live": "1"}) as live:
        streams = [live.add_stream_from_template(stream) for stream in source.streams]
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                live.mux(packet)
    return out.read_bytes()


def taken(inbox: Inbox, enough: Callable[[list], bool]) -> list[Seen | Heard]:
    """What comes until it is enough."""
    items = []
    for item in inbox:
        items.append(item)
        if enough(items):
            break
    return items


def times_of(items: list[Seen | Heard]) -> list[float]:
    return [item.time_s for item in items if isinstance(item, Seen)]


def test_a_file_of_a_server_is_played_in_real_time(served, film):
    address, content = served
    content["/film.mp4"] = [film.read_bytes()]
    source, inbox, begun_s = StreamSource(f"{address}/film.mp4"), Inbox(), time.monotonic()
    with playing(source, inbox, print):
        items = list(inbox)
    assert time.monotonic() - begun_s >= SECONDS - 0.05
    assert (source.ends, source.has_audio, source.fps) == (True, True, 25.0)
    times_s = times_of(items)
    assert (inbox.frames, len(times_s)) == (30, 30 - inbox.left_out)
    assert np.array(times_s) - times_s[0] == pytest.approx(np.arange(30)[-len(times_s) :] / GRID_FPS, abs=0.5)
    assert abs(times_s[0] - time.time()) < 600
    heard = sum(len(item.samples) for item in items if isinstance(item, Heard))
    assert heard == pytest.approx(SECONDS * SAMPLE_RATE, abs=0.2 * SAMPLE_RATE)


def test_a_stream_that_breaks_off_is_opened_again(served, film):
    address, content = served
    whole = without_length(film)
    content["/live"] = [whole, whole[: len(whole) // 2], b"", whole]
    source, inbox, notes = StreamSource(f"{address}/live"), Inbox(), []
    assert not source.ends
    with playing(source, inbox, notes.append):
        items = taken(inbox, lambda items: len(notes) > 1 and len(times_of(items)) > 45)
        inbox.close()
    assert times_of(items) == sorted(times_of(items))
    assert ["nothing" in note for note in notes[:2]] == [True, False]


@pytest.mark.parametrize("path", ["/absent", "/audio.wav", "/text"])
def test_an_address_that_gives_no_video_is_refused_without_its_secrets(served, capsys, path):
    address, content = served
    content["/text"] = [b"no video at all"]
    content["/audio.wav"] = [b"RIFF" + bytes(100)]
    said = refusal(capsys, live_script.main, address.replace("//", "//someone:secret@") + path)
    assert address in said
    assert "secret" not in said


def test_a_stream_that_says_how_long_it_is_and_breaks_off_is_told(served, film, monkeypatch):
    address, content = served
    content["/film.mp4"] = [film.read_bytes()]
    source, inbox = StreamSource(f"{address}/film.mp4"), Inbox()
    content.clear()
    with playing(source, inbox, print), pytest.raises(MediaError, match=r"/film\.mp4"):
        list(inbox)


def test_the_last_frame_of_a_file_is_heard(film):
    """And no block of audio begins where another has."""
    inbox, given = Inbox(), []
    with (
        MediaFile(film, as_played=True) as media,
        audio_on_disk(media) as audio,
        playing(FileSource(media, audio), inbox, print),
    ):
        given.extend(inbox)
    heard_s = [item.time_s for item in given if isinstance(item, Heard)]
    assert np.diff(heard_s) == pytest.approx(1 / GRID_FPS, abs=1e-9)
    assert heard_s[-1] + 1 / GRID_FPS >= times_of(given)[-1] + AUDIO_AHEAD_S


class Clock:
    """Time that passes when it is waited for; also an event that is never set."""

    def __init__(self, monkeypatch):
        self.now_s, self.waited_s = 50.0, 0.0
        monkeypatch.setattr(inbox_module.time, "monotonic", lambda: self.now_s)

    def wait(self, seconds: float) -> None:
        self.waited_s += seconds
        self.now_s += seconds


def test_a_clock_that_jumps_is_not_waited_for(monkeypatch):
    clock = Clock(monkeypatch)
    pace, times_s = Pace(clock, may_jump=True), []
    for time_s in (7.0, 7.04, 5000.0, 5000.04, 3.0, 3.04):
        assert pace.wait(time_s)
        times_s.append(pace.began_s + time_s)
    assert clock.waited_s == pytest.approx(0.12)
    assert times_s == sorted(times_s)
    clock.now_s += 0.5
    assert not pace.wait(3.08)  # 0.5 s late


def test_long_gaps_of_a_file_are_waited_for(monkeypatch):
    clock = Clock(monkeypatch)
    pace = Pace(clock, may_jump=False)
    assert [pace.wait(time_s) for time_s in (0.0, 3.0, 60.0)] == [True] * 3
    assert clock.waited_s == pytest.approx(60)


def test_a_stream_that_paused_is_late_for_a_second(monkeypatch):
    """For 0.5 s, after two seconds; what it sends then is left out for little more than a second, and no more."""
    clock = Clock(monkeypatch)
    pace, given, sent_s = Pace(clock, may_jump=True), [], 50.0
    for number in range(500):
        sent_s += 0.5 if number == 50 else 0.04
        clock.now_s = max(clock.now_s, sent_s)
        given.append(pace.wait(number / 25))
    assert all(given[:50])
    assert 20 <= given.count(False) <= 30
    assert all(given[80:])


def test_a_stream_whose_clock_is_slow_is_seen_all_the_time(monkeypatch):
    """By one part in a thousand, for an hour."""
    clock = Clock(monkeypatch)
    pace, given = Pace(clock, may_jump=True), []
    for number in range(3600 * 25):
        clock.now_s = max(clock.now_s, 50.0 + 1.001 * number / 25)
        given.append(pace.wait(number / 25))
    assert 0.98 < np.mean(given) < 1


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize(("form", "layout"), [("s16", "mono"), ("fltp", "stereo")])
def test_audio_of_any_form_is_made_16_khz_and_stays_where_it_was_heard(rate, form, layout):
    tone = np.sin(2 * np.pi * 440 * np.arange(rate) / rate) * np.linspace(0.2, 0.8, rate)
    resampler, heard = Resampler(), np.zeros(2 * SAMPLE_RATE)
    for start in range(0, rate, rate // 50):
        part = tone[start : start + rate // 50]
        samples = (32767 * part).astype(np.int16)[None] if form == "s16" else np.tile(part, (2, 1)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format=form, layout=layout)
        frame.sample_rate = rate
        time_s, block = resampler.push_frame(frame, 100 + start / rate)
        at = round((time_s - 100) * SAMPLE_RATE)
        heard[at : at + len(block)] = block
    middle = slice(SAMPLE_RATE // 4, SAMPLE_RATE // 2)
    meant = np.interp(np.arange(SAMPLE_RATE) / SAMPLE_RATE, np.arange(rate) / rate, tone)[middle]
    assert np.corrcoef(heard[middle], meant)[0, 1] > 0.99
    assert np.ptp(heard[middle]) == pytest.approx(32767 * np.ptp(meant), rel=0.1)


@pytest.fixture
def devices(monkeypatch) -> None:
    """Files in place of cameras and microphones."""
    own = Devices("mp4", "mp4", "/absent/{}", "{}", "{}", "", "give a number", {})
    monkeypatch.setattr(sources, "DEVICES", {sys.platform: own})


def test_a_camera_and_a_microphone_that_are_lost_are_used_again(devices, film):
    microphone, inbox, notes, timers = film.with_name("microphone.mp4"), Inbox(), [], []
    microphone.write_bytes(film.read_bytes())
    source = CameraSource(str(film), str(microphone))
    away = film.with_name("away.mp4")

    def note(text: str) -> None:
        notes.append(text)
        if "camera gives nothing" in text and not away.exists():  # its end is the first loss: it stays away for a while
            film.rename(away)
            timers.append(threading.Timer(0.4, away.rename, (film,)))
            timers[-1].start()

    with playing(source, inbox, note):
        items = taken(inbox, lambda items: len(notes) > 4 and np.ptp([0, *np.diff(times_of(items))]) > 0.3)
        inbox.close()
    for timer in timers:
        timer.join()
    seen_s = times_of(items)
    assert max(np.diff(seen_s)) > 0.3
    assert seen_s == sorted(seen_s)
    assert {len(item.samples) > 0 for item in items if isinstance(item, Heard)} >= {True}
    for what in ("camera", "microphone"):
        own = ["nothing" in note for note in notes if what in note]
        assert own[:3] == list(itertools.islice(itertools.cycle((True, False)), len(own[:3])))


def test_a_camera_without_a_microphone_gives_frames(devices, film):
    inbox, notes = Inbox(), []
    with playing(CameraSource(str(film), str(film.with_name("absent.mp4"))), inbox, notes.append):
        items = taken(inbox, lambda items: bool(items and notes))
        inbox.close()
    assert isinstance(items[0], Seen)
    assert any("microphone" in note for note in notes)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--camera", "7"], "--camera 7"),
        (["--camera", "absent.mp4"], "absent.mp4"),
        (["--camera", "0", "film.mp4"], "film.mp4"),
        (["--microphone", "default"], "--camera"),
        (["film.mp4", "--microphone", "default"], "--camera"),
        (["s3://bucket/film.mp4"], "s3://bucket/film.mp4"),
        ([], "--page"),
    ],
)
def test_a_source_that_cannot_be_is_refused(devices, capsys, arguments, told):
    assert told in refusal(capsys, live_script.main, *arguments)


def test_where_there_are_no_cameras_that_is_said(monkeypatch):
    monkeypatch.setattr(sources, "DEVICES", {})
    with pytest.raises(UserError, match="--page"):
        CameraSource("0", "")
