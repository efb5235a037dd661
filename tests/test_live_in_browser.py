"""The page of scripts/live.py in a real browser: what is played, and the browser's own camera, fed from files."""

import json
import shutil
import threading
import time
import wave
from collections.abc import Callable, Iterator
from dataclasses import replace

import cv2
import jsonschema
import numpy as np
import pytest
from detections import Mean, Squares
from tiny import exit_status, tiny_frame

from core.clip_utils import GRID_FPS, SAMPLE_RATE
from core.live import LiveDetector
from core.live.inbox import Inbox
from core.live.lines import schema
from core.live.server import Page
from core.media.video_writer import write_video
from scripts import live as live_script

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed")

WIDTH, HEIGHT = 320, 240
FACE = (22, 3, 42, 27)  # the second of `tiny.BOXES`, which are of 64 x 48 pixels
BOXES_DRAWN = """() => {
  const canvas = document.getElementById('boxes');
  const pixels = canvas.width ? canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data : [];
  let drawn = 0;
  for (let i = 3; i < pixels.length; i += 4) drawn += pixels[i] > 200;
  return drawn;
}"""


def drawn_frame(number: int) -> np.ndarray:
    """Two squares, (HEIGHT, WIDTH, [r, g, b]) uint8; no cut."""
    return cv2.resize(tiny_frame(20 + number % 10, faces=2), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST)


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What makes Chromium play files as its camera and microphone, over and over."""
    folder = tmp_path_factory.mktemp("camera")
    with (folder / "camera.y4m").open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F10:1 Ip A1:1 C420jpeg\n".encode())
        for number in range(40):  # few a second, for machines that have much to do
            file.write(b"FRAME\n" + cv2.cvtColor(drawn_frame(number), cv2.COLOR_RGB2YUV_I420).tobytes())
    noise = np.random.default_rng(0).integers(-8000, 8000, 48_000 * 4).astype("<i2")
    with wave.open(str(folder / "microphone.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes(noise.tobytes())
    return [
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={folder / 'camera.y4m'}",
        f"--use-file-for-fake-audio-capture={folder / 'microphone.wav'}",
    ]


@pytest.fixture(scope="module")
def browser(camera) -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *camera])
        yield browser
        browser.close()


class Running:
    """scripts/live.py in a thread.

    Attributes:
        page, inbox: its own.
        status: with which it ended.
    """

    page: Page
    inbox: Inbox
    status: int | None = None

    def end(self) -> None:
        """As Ctrl-C does."""
        self.inbox.close()
        self.thread.join(60)


@pytest.fixture
def run(light_weights, monkeypatch) -> Iterator[Callable[..., Running]]:
    """Starts scripts/live.py with a page, and stand-ins of detector and encoder."""
    monkeypatch.setattr("core.live.detector.find_detector", lambda *arguments: Squares(2))
    started = []

    def fast(*arguments: object, **options: object) -> LiveDetector:
        live = LiveDetector(*arguments, **options)
        live.encoder = replace(live.encoder, network=Mean())
        return live

    monkeypatch.setattr(live_script, "LiveDetector", fast)

    def start(*arguments: object) -> Running:
        running = Running()
        opened = threading.Event()

        class OwnPage(Page):
            def __enter__(self) -> Page:
                running.page, running.inbox = self, self.inbox
                opened.set()
                return super().__enter__()

        monkeypatch.setattr(live_script, "Page", OwnPage)
        options = ["--weights", light_weights, "--context", "none", "--delay", "0.4", "--page"]

        def go() -> None:
            running.status = exit_status(live_script.main, *arguments, *options)

        running.thread = threading.Thread(target=go)
        running.thread.start()
        started.append(running)
        assert opened.wait(60)
        return running

    yield start
    for running in started:
        running.end()


def is_fault(message: object) -> bool:
    """Whether a page's message is about an error that it does not show."""
    return message.type == "error" and "409 (Conflict)" not in message.text


@pytest.fixture
def show(browser) -> Iterator[Callable]:
    """Open a page that may use some devices; at the end it must have had no error and asked nobody else."""
    contexts, said, asked, own = [], [], [], []

    def open_page(address: str, *permissions: str, dark: bool = False):
        context = browser.new_context(color_scheme="dark" if dark else "light", permissions=list(permissions))
        contexts.append(context)
        own.append(address)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if is_fault(message) else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if not url.startswith((*own, "data:"))] == []


def wait_for(page, condition: Callable[[], object], seconds: float = 100) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never; the page says {page.inner_text('body')!r}")


def faces(page) -> list[str]:
    """What the timelines say: ["Face 1 speaks · 0.71", ...]."""
    return [" ".join(text.split()) for text in page.locator(".lane .name").all_inner_texts()]


def test_the_cameras_faces_appear_with_boxes_and_probabilities(run, show, capsys):
    running = run()
    page = show(running.page.address, "camera", "microphone")
    wait_for(page, lambda: page.inner_text("#empty-text") == "The camera is off.")  # by the first event
    page.click("#start")
    wait_for(page, lambda: len(faces(page)) == 2 and all("0." in text or "1." in text for text in faces(page)))
    assert page.evaluate(BOXES_DRAWN) > 200
    assert page.evaluate("[frame.width, frame.height]") == [WIDTH, HEIGHT]
    assert page.locator("#notes li").count() == 0
    page.click("#stop")
    wait_for(page, lambda: page.inner_text("#empty-text") == "The camera is off.")
    running.end()
    assert running.status == 0
    wait_for(page, lambda: page.get_attribute("#state", "data-state") == "ended")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line in lines:
        jsonschema.validate(line, schema())
    whole = [line for line in lines if len(line["faces"]) == 2]
    assert [face["id"] for face in whole[0]["faces"]] == [1, 2]
    for line in whole:
        assert line["faces"][1]["box"] == pytest.approx([5 * edge for edge in FACE], abs=12)
    assert any(face["probability"] is not None for line in whole for face in line["faces"])
    assert abs(lines[-1]["time"] - time.time()) < 600


def test_a_camera_without_a_microphone_is_seen_and_not_heard(run, show, capsys):
    page = show(run().page.address, "camera")
    page.click("#start")
    wait_for(page, lambda: len(faces(page)) == 2 and all("not heard" in text for text in faces(page)))
    assert page.evaluate(BOXES_DRAWN) > 200
    assert "no microphone" in page.inner_text("#notes")


def test_a_camera_that_may_not_be_used_is_asked_for_again(run, show):
    page = show(run().page.address)
    page.click("#start")
    wait_for(page, lambda: page.get_attribute("#empty", "data-kind") == "refused")
    assert "Allow it" in page.inner_text("#empty-text")
    page.context.grant_permissions(["camera", "microphone"])
    page.click("#start")
    wait_for(page, lambda: len(faces(page)) == 2)
    assert not page.is_visible("#empty")


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_a_device_that_is_lost_is_used_when_it_is_back(run, show, kind):
    page = show(run().page.address, "camera", "microphone")
    page.click("#start")
    wait_for(page, lambda: any("0." in text for text in faces(page)))
    page.evaluate("navigator.mediaDevices.enumerateDevices = async () => []")
    page.evaluate(
        "(kind) => watch.camera.tracks.filter((track) => track.kind === kind)"
        ".forEach((track) => { track.stop(); track.dispatchEvent(new Event('ended')); })",
        kind,
    )
    assert page.evaluate("watch.camera.audio") is None
    assert (page.inner_text("#state") == "camera gone") == (kind == "video")
    assert "is gone" in page.inner_text("#notes")
    page.evaluate("watch.show([watch.shown])")  # one that was on its way
    assert (page.inner_text("#state") == "camera gone") == (kind == "video")
    page.evaluate("delete navigator.mediaDevices.enumerateDevices")
    wait_for(page, lambda: page.evaluate("watch.camera.audio?.state") == "running")
    wait_for(page, lambda: page.inner_text("#state") == "live" and "0." in faces(page)[-1])


REMEMBER_TRACKS = """() => {
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  window.given = [];
  window.allowed = null; // else a promise: the browser asks until then
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    window.isAsked = true;
    await window.allowed;
    const stream = await ask(wanted);
    window.given.push(...stream.getTracks());
    return stream;
  };
}"""
LOSE = """(kind) => {
  for (const track of window.given.filter((track) => track.kind === kind && track.readyState === "live")) {
    track.stop();
    track.dispatchEvent(new Event("ended"));
  }
}"""
LIVE = "window.given.filter((track) => track.readyState === 'live').map((track) => track.kind).sort()"


def test_a_camera_that_is_lost_stopped_and_started_again_is_taken_once(run, show):
    page = show(run().page.address, "camera", "microphone")
    page.evaluate(REMEMBER_TRACKS)
    page.click("#start")
    wait_for(page, lambda: faces(page))
    page.evaluate(LOSE, "video")
    page.click("#stop")
    page.evaluate("window.allowed = new Promise((allow) => { window.allow = allow; }); null")
    page.click("#start")
    page.wait_for_timeout(2500)  # in which the lost one would be looked for
    page.evaluate("window.allow()")
    wait_for(page, lambda: page.inner_text("#state") == "live")
    page.wait_for_timeout(500)
    assert page.evaluate(LIVE) == ["audio", "video"]
    page.click("#stop")
    assert page.evaluate(LIVE) == []


@pytest.mark.parametrize("lost", [True, False])
def test_what_is_allowed_after_a_stop_is_not_used(run, show, lost):
    """A microphone that was lost, or both devices."""
    page = show(run().page.address, "camera", "microphone")
    page.evaluate(REMEMBER_TRACKS)
    if lost:
        page.click("#start")
        wait_for(page, lambda: page.evaluate("watch.camera.audio?.state") == "running")
    page.evaluate("window.isAsked = false; window.allowed = new Promise((allow) => { window.allow = allow; }); null")
    page.evaluate(LOSE, "audio") if lost else page.click("#start")
    wait_for(page, lambda: page.evaluate("window.isAsked"))
    page.evaluate("watch.camera.stop()")
    page.evaluate("window.allow()")
    page.wait_for_timeout(500)
    assert page.evaluate(LIVE) == []
    assert page.inner_text("#empty-text") == "The camera is off."


def test_one_page_gives_its_camera(run, show):
    address = run().page.address
    first, second = show(address, "camera"), show(address, "camera")
    first.click("#start")
    wait_for(first, lambda: faces(first))
    second.click("#start")
    wait_for(second, lambda: second.get_attribute("#empty", "data-kind") == "refused")
    assert "Another page" in second.inner_text("#empty-text")


@pytest.mark.parametrize("dark", [False, True])
def test_a_file_that_is_played_is_shown(run, show, tmp_path, dark):
    path, noise = tmp_path / "talk.mp4", np.random.default_rng(0).integers(-8000, 8000, 6 * SAMPLE_RATE)
    write_video(path, map(drawn_frame, range(150)), GRID_FPS, audio=noise.astype(np.int16))
    page = show(run(path).page.address, dark=dark)
    wait_for(page, lambda: len(faces(page)) == 2 and all("0." in text for text in faces(page)))
    assert page.inner_text("#title") == "talk.mp4"
    assert page.evaluate(BOXES_DRAWN) > 200
    assert "0.4 s" in page.inner_text("#facts")
    assert not page.is_visible("#start")
    wait_for(page, lambda: page.inner_text("#state") == "ended")
