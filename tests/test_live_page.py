"""The page of scripts/live.py: who may see it, what it is told, and what waits for a machine that is too slow."""

import contextlib
import http.client
import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from detections import Mean, Squares
from tiny import exit_status, tiny_frame

from core.clip_utils import GRID_FPS, SAMPLE_RATE
from core.live import LiveDetector
from core.live.inbox import Heard, Inbox, Seen, scored_frames
from core.live.lines import ScoredFace, ScoredFrame
from core.live.server import Page
from core.live.sources import FileSource, playing
from core.media.container import MediaFile
from core.media.video import yuv420_of
from core.media.video_audio import audio_on_disk
from core.media.video_writer import write_video
from core.runtime.errors import MediaError, UserError
from scripts import live as live_script


@pytest.fixture
def page() -> Iterator[Page]:
    with Page(0, "talk.mp4", 0.5, Inbox()) as page:
        yield page


def seen(time_s: float) -> Seen:
    return Seen(time_s, yuv420_of(tiny_frame(0)))


def ask(page: Page, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """Status and content of an answer; the path's TOKEN is the page's, Host unless given its address."""
    host, port = page.address.split("/")[2].split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    with contextlib.closing(connection):
        connection.putrequest(method, path.replace("TOKEN", page.token), skip_host=True)
        for name, value in {"Host": f"{host}:{port}", **headers}.items():
            connection.putheader(name, value.replace("PORT", port))
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()


@pytest.mark.parametrize("name", ["", "style.css", "canvas.js", "live.css", "watch.js", "lanes.js"])
@pytest.mark.parametrize("host", ["127.0.0.1:PORT", "localhost:PORT"])
def test_who_has_the_token_gets_the_page(page, name, host):
    status, content = ask(page, "GET", f"/TOKEN/{name}", Host=host)
    assert (status, len(content) > 100) == (200, True)


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/", {}, 403),
        ("GET", "/watch.js", {}, 403),
        ("GET", "/TOKE/", {}, 403),
        ("GET", "/TOKENx/", {}, 403),
        ("GET", "/TOKEN/", {"Host": "example.org:PORT"}, 403),
        ("GET", "/TOKEN/", {"Host": "127.0.0.1"}, 403),
        ("GET", "/TOKEN/events", {"Host": "rebound.example:PORT"}, 403),
        ("GET", "/TOKEN/events", {"Origin": "http://example.org"}, 403),
        ("GET", "/TOKEN/events", {"Origin": "https://127.0.0.1:PORT"}, 403),
        ("GET", "/TOKEN/absent.js", {}, 404),
        ("GET", "/TOKEN/../server.py", {}, 404),
        ("GET", "/TOKEN/lane.js", {}, 404),
        ("PUT", "/TOKEN/", {}, 501),
        ("DELETE", "/TOKEN/", {}, 501),
    ],
)
def test_all_others_are_refused(page, method, path, headers, status):
    assert ask(page, method, path, **headers)[0] == status


@pytest.fixture
def taking() -> Iterator[Page]:
    with Page(0, "camera", 0.5, Inbox(), takes_camera=True) as page:
        yield page


JPEG = cv2.imencode(".jpg", tiny_frame(0))[1].tobytes()


def test_what_a_camera_and_a_microphone_give_is_taken(taking):
    samples = (8000 * np.sin(np.arange(4800) / 20)).astype(np.int16)
    assert ask(taking, "POST", "/TOKEN/frame?time=100.5&missed=3&page=a", JPEG)[0] == 204
    for number in range(10):
        path = f"/TOKEN/audio?time={100 + number / 10}&rate=48000&page=a"
        assert ask(taking, "POST", path, samples.tobytes())[0] == 204
    taking.inbox.close()
    frame, *blocks = taking.inbox
    assert (frame.time_s, frame.image.width, frame.image.height, frame.jpeg) == (100.5, 64, 48, JPEG)
    assert (taking.inbox.frames, taking.inbox.left_out) == (4, 3)
    assert sum(len(block.samples) for block in blocks) == pytest.approx(SAMPLE_RATE, abs=50)
    heard_s = blocks[0].time_s
    for block in blocks:  # each begins where the one before ends
        assert block.time_s == pytest.approx(heard_s, abs=1e-3)
        heard_s = block.time_s + len(block.samples) / SAMPLE_RATE


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/TOKEN/frame?time=1&missed=0", b"no JPEG", {}, 400),
        ("/TOKEN/frame?time=nan&missed=0", JPEG, {}, 400),
        ("/TOKEN/frame?missed=0", JPEG, {}, 400),
        ("/TOKEN/frame?time=1", JPEG, {}, 400),
        ("/TOKEN/audio?time=1&rate=0", bytes(64), {}, 400),
        ("/TOKEN/audio?time=1&rate=48000", bytes(63), {}, 400),
        ("/TOKEN/frame?time=1&missed=0", b"", {}, 411),
        ("/TOKEN/frame?time=1&missed=0", b"", {"Content-Length": "9999999999"}, 413),
        ("/TOKEN/frame?time=1&missed=0", b"", {"Content-Length": "-1"}, 411),
        ("/TOKEN/events", JPEG, {}, 404),
        ("/frame?time=1&missed=0", JPEG, {}, 403),
        ("/TOKEN/frame?time=1&missed=0", JPEG, {"Origin": "http://example.org"}, 403),
        ("/TOKEN/frame?time=1&missed=0", JPEG, {"Host": "example.org"}, 403),
    ],
)
def test_what_is_no_frame_and_no_audio_is_refused(taking, path, body, headers, status):
    assert ask(taking, "POST", path, body, **headers)[0] == status
    assert (taking.inbox.frames, list(closed(taking.inbox))) == (0, [])


def closed(inbox: Inbox) -> Inbox:
    inbox.close()
    return inbox


def test_a_page_of_a_file_takes_no_camera(page):
    assert ask(page, "POST", "/TOKEN/frame?time=1&missed=0", JPEG)[0] == 404


def test_the_camera_of_one_page_is_taken_until_it_gives_no_more(taking, monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr("core.live.server.time.monotonic", lambda: now_s[0])
    given = []
    for seconds, name in ((0, "a"), (1, "b"), (1, "a"), (2.9, "b"), (0.2, "b"), (1, "a")):
        now_s[0] += seconds
        given.append(ask(taking, "POST", f"/TOKEN/frame?time=1&missed=0&page={name}", JPEG)[0])
    assert given == [204, 409, 204, 409, 204, 409]


def test_pages_have_tokens_of_their_own_and_listen_to_this_machine_alone(page):
    with Page(0, "talk.mp4", 0.5, Inbox()) as other:
        assert other.token != page.token
        assert len(other.token) >= 32
        assert other.address.startswith("http://127.0.0.1:")


def test_a_port_that_is_taken_is_refused_by_the_name_typed(page):
    port = int(page.address.split(":")[2].split("/")[0])
    with pytest.raises(UserError, match=f"--port {port}"):
        Page(port, "talk.mp4", 0.5, Inbox())


def test_a_page_that_is_slow_misses_the_oldest_and_few_may_watch(page):
    events = page.events()
    assert b"talk.mp4" in next(events)
    for number in range(200):
        page.show(ScoredFrame(number / 25, (ScoredFace(7, (1.0, 2.0, 30.0, 40.0), 0.25, -1.1),)), seen(number / 25))
    told = [next(events) for _ in range(50)]
    assert [b'"time":6.0' in told[0], b'"time":7.96' in told[-1]] == [True, True]
    assert b'"faces":[{"id":7,"box":[1.0,2.0,30.0,40.0],"probability":0.25}]' in told[0]
    assert next(events).startswith(b"event: count")  # nothing else waits
    watchers = [page.events() for _ in range(9)]
    assert [bool(next(watcher, b"")) for watcher in watchers] == [True] * 7 + [False] * 2
    events.close()
    assert next(page.events())


def test_little_waits_for_the_detector(page):
    inbox, block = Inbox(), np.zeros(SAMPLE_RATE, np.int16)
    assert [inbox.put(seen(number / 25)) for number in range(15)] == [True] * 10 + [False] * 5
    assert [inbox.put(Heard(float(number), block)) for number in range(12)] == [True] * 10 + [False] * 2
    items = iter(inbox)
    assert next(items).time_s == 0.0
    assert inbox.put(seen(1.0))
    assert (inbox.frames, inbox.left_out) == (16, 5)
    inbox.close()
    assert not inbox.put(seen(2.0))
    inbox.leave_out()
    assert (inbox.frames, inbox.left_out) == (16, 5)  # nobody missed what came then
    assert [item.time_s for item in items if isinstance(item, Seen)] == [*(number / 25 for number in range(1, 10)), 1.0]


def test_what_goes_wrong_while_a_source_plays_is_raised_where_it_is_waited_for():
    class Broken:
        name, fps, has_audio, ends, faults = "broken", 25.0, False, True, ()

        def play(self, inbox, note) -> None:
            inbox.put(seen(0.0))
            raise MediaError("the end of it is damaged")

    inbox = Inbox()
    with playing(Broken(), inbox, print), pytest.raises(MediaError, match="damaged"):
        list(inbox)


def test_what_came_before_a_source_failed_is_scored(light_weights):
    live = LiveDetector("light_asd", light_weights, context="none", delay_s=0.4, detector=Squares(3), audio=False)
    inbox, given = Inbox(), []
    for number in range(5):
        inbox.put(seen(number / 25))
    inbox.close(MediaError("it broke off"))
    scored = scored_frames(live, inbox)
    given.extend(frame.time_s for frame, _ in itertools.islice(scored, 5))
    with pytest.raises(MediaError, match="broke off"):
        next(scored)
    assert given == [number / 25 for number in range(5)]


@pytest.fixture
def film(tmp_path):
    """60 frames with three faces, 2.4 s, and noise."""
    path = tmp_path / "film.mkv"
    noise = np.random.default_rng(0).integers(-5000, 5000, round(2.4 * SAMPLE_RATE)).astype(np.int16)
    write_video(path, (tiny_frame(number // 2) for number in range(60)), GRID_FPS, audio=noise)
    return path


def test_a_machine_that_is_too_slow_leaves_frames_out(film, light_weights, monkeypatch):
    live = LiveDetector("light_asd", light_weights, context="none", delay_s=0.4, detector=Squares(3), min_face_px=10)
    live.encoder = replace(live.encoder, network=Mean())
    take, waited = live.push_frame, []

    def slowly(image: av.VideoFrame, time_s: float) -> list[ScoredFrame]:
        time.sleep(0.12)
        return take(image, time_s)

    monkeypatch.setattr(live, "push_frame", slowly)
    inbox = Inbox()
    with (
        MediaFile(film, as_played=True) as media,
        audio_on_disk(media) as audio,
        playing(FileSource(media, audio), inbox, print),
    ):
        times_s = []
        for scored, frame in scored_frames(live, inbox):
            assert scored.time_s == frame.time_s
            times_s.append(scored.time_s)
            waited.append(inbox.frames / 25 - frame.time_s)
    assert times_s == sorted(times_s)
    assert (inbox.frames, len(times_s)) == (60, 60 - inbox.left_out)
    assert 15 <= inbox.left_out <= 50
    assert max(waited) < 4  # 0.4 s of delay, and the ten frames that may wait, each for 0.12 s and more


def test_the_page_of_a_file_is_told_what_standard_output_is(film, light_weights, monkeypatch, capsys):
    monkeypatch.setattr("core.live.detector.find_detector", lambda *arguments: Squares(3))
    pages = []
    monkeypatch.setattr(
        live_script, "Page", lambda *given, **options: pages.append(Page(*given, **options)) or pages[0]
    )
    options = ["--weights", light_weights, "--context", "none", "--delay", "0.4", "--page"]
    thread = threading.Thread(target=exit_status, args=(live_script.main, film, *options))
    thread.start()
    until_s = time.monotonic() + 60
    while not pages and time.monotonic() < until_s:
        time.sleep(0.01)
    told = b"".join(pages[0].events())
    thread.join()
    out = capsys.readouterr()
    assert pages[0].address in out.err
    times = [line.split(",")[0].removeprefix('{"time":') for line in out.out.splitlines()]
    shown = [part.split(b",")[0].decode() for part in told.split(b'data: {"time":')[1:]]
    assert shown
    assert shown == times[-len(shown) :]
    assert told.count(b"event: end") == 1
    with pytest.raises(OSError, match="refused"):
        ask(pages[0], "GET", "/TOKEN/")


@pytest.mark.parametrize("port", ["-1", "65536", "any"])
def test_a_port_that_cannot_be_is_refused(film, capsys, port):
    assert exit_status(live_script.main, film, "--page", f"--port={port}") == 2
    assert port in capsys.readouterr().err
