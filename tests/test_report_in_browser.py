"""The report in a real browser: boxes on the right pixels at the right time, clicks, keys, and no errors."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from detections import HEIGHT, SILENT, SPEAKS, WIDTH, detected, steady, track
from videos import encode

from core.detection.results import DetectedVideo, Person
from core.media.video_writer import write_video
from core.outputs import report_media
from core.outputs.report import write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed")

FPS, SECONDS = 25, 4
GREEN, RED, GREY = (47, 211, 154), (255, 107, 87), (195, 202, 210)  # --box-speaking, --box-silent, --box-no-score
LOCAL = ("file:", "blob:", "data:")

COLOUR_AT = """([x, y, width]) => {
  const canvas = document.getElementById('boxes'), context = canvas.getContext('2d');
  const scale = canvas.width / width;
  return [...context.getImageData(Math.round(x * scale), Math.round(y * scale), 1, 1).data];
}"""
EDGE_OF_BOX = """([y, width]) => {
  const canvas = document.getElementById('boxes'), scale = canvas.width / width;
  const row = canvas.getContext('2d').getImageData(0, Math.round(y * scale), canvas.width, 1).data;
  for (let x = 0; x < canvas.width; x++) if (row[4 * x + 3] > 200) return x / scale;
  return null;
}"""


def talk(path: Path, **options) -> DetectedVideo:
    """Face 1 speaks for the first 2 s and walks 1 pixel a frame to the right; face 2 is seen in the last second."""
    times_s = steady(FPS * SECONDS)
    first = track(1, times_s, 0, [SPEAKS] * 50 + [SILENT] * 50, box=(20, 60, 100, 180))
    first.boxes[:, 0::2] += np.arange(100)[:, None]
    second = track(2, times_s, 75, [SPEAKS] * 25, box=(230, 80, 300, 160), shot=1)
    return detected([first, second], times_s, path=path, cuts=(75,), **options)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "my talk.mp4"
    frames = (np.full((HEIGHT, WIDTH, 3), 2 * number, np.uint8) for number in range(FPS * SECONDS))
    write_video(path, frames, FPS, np.zeros(16000 * SECONDS, np.int16))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(browser, tmp_path: Path) -> Iterator[Callable]:
    """Write a report and open it; at the end the page must have had no error and asked for nothing from outside."""
    said, asked, pages = [], [], []

    def open_report(
        video: DetectedVideo,
        media: Path | None = None,
        *,
        width: int = 1280,
        dark: bool = False,
        video_plays: bool = True,
    ):
        path = tmp_path / f"report {len(pages)}.html"
        write_report(path, video, media)
        page = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        pages.append(page)
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]")
        if video_plays:
            wait_for(page, "video.readyState >= 2")
        return page

    yield open_report
    for page in pages:
        page.close()
    assert said == []
    assert asked
    assert [url for url in asked if not url.startswith(LOCAL)] == []


def seek(page, time_s: float) -> None:
    page.evaluate(
        "(timeS) => new Promise((seen) => { const video = document.getElementById('video');"
        " video.requestVideoFrameCallback(() => requestAnimationFrame(seen)); video.currentTime = timeS; })",
        time_s,
    )


def wait_for(page, condition: str) -> None:
    """Wait until JavaScript is true of `video`; Playwright's own waiting is forbidden by the page's rules."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if page.evaluate(f"((video) => {condition})(document.getElementById('video'))"):
            return
        page.wait_for_timeout(10)
    raise AssertionError(f"never: {condition}")


def arrives(page, time_s: float, within: float) -> None:
    """Wait until the video is at a time; a seek may wait for the one before it."""
    wait_for(page, f"Math.abs(video.currentTime - {time_s}) < {within}")


def colour_at(page, x: float, y: float) -> list[int]:
    """r, g, b and opacity on the canvas, at a pixel of the frame."""
    return page.evaluate(COLOUR_AT, [x, y, WIDTH])


def close_to(colour: tuple[int, int, int]) -> object:
    return pytest.approx([*colour, 255], abs=40)


def dashes(page, x: float, colour: tuple[int, int, int]) -> int:
    """How many of 30 pixels one below the other are part of a dashed line of a colour, 2 pixels wide at least."""
    rows = [[(x + aside, y) for aside in (-0.6, 0, 0.6)] for y in range(100, 130)]
    return sum(any(colour_at(page, *point) == close_to(colour) for point in row) for row in rows)


def edge_of_box(page, y: float = 120) -> float | None:
    """The leftmost x in a row of the frame where something is drawn."""
    return page.evaluate(EDGE_OF_BOX, [y, WIDTH])


def current_time(page) -> float:
    return page.evaluate("document.getElementById('video').currentTime")


def test_boxes_are_drawn_where_and_when_the_faces_are(show, video):
    page = show(talk(video))
    seek(page, 1.02)  # frame 25
    assert colour_at(page, 45, 120) == close_to(GREEN)
    assert colour_at(page, 125, 120) == close_to(GREEN)
    assert colour_at(page, 85, 120)[3] == 0  # the face itself stays free
    assert colour_at(page, 230, 120)[3] == 0  # face 2 is not there yet
    seek(page, 3.5)  # frame 87
    assert colour_at(page, 230, 120) == close_to(GREEN)
    assert 10 < dashes(page, 20 + 87, RED) < 25
    page.click("#show-boxes")
    assert edge_of_box(page) is None


def test_boxes_belong_to_the_frame_that_is_shown(show, video):
    page = show(talk(video))
    for frame in (0, 1, 24, 49):
        seek(page, (frame + 0.5) / FPS)
        assert edge_of_box(page) == pytest.approx(20 + frame - 0.75, abs=0.75)


def late(path: Path, start_s: float, begins_s: float) -> DetectedVideo:
    """As `talk`, on a clock that begins at `start_s`; in the file frames begin at `begins_s`."""
    frames = (np.full((HEIGHT, WIDTH, 3), 2 * number, np.uint8) for number in range(FPS * SECONDS))
    times_s, silence = begins_s + np.arange(FPS * SECONDS) / FPS, np.zeros(16_000 * SECONDS, np.int16)
    encode(path, frames, times_s, scale=90_000, bf="0", audio=silence, audio_start_s=begins_s)
    found = talk(path)
    return replace(
        found,
        start_s=start_s,
        frame_times_s=found.frame_times_s + start_s,
        tracks=[replace(track, times_s=track.times_s + start_s) for track in found.tracks],
        shots=[replace(shot, start_s=shot.start_s + start_s, end_s=shot.end_s + start_s) for shot in found.shots],
    )


@pytest.mark.parametrize(("name", "begins_s"), [("a.mp4", 605.0), ("a.mkv", 605.0), ("overlay.mp4", 0.0)])
def test_boxes_fit_a_video_whose_clock_begins_late(show, tmp_path, name, begins_s):
    """The browser's clock begins where the container's does; that of a video with boxes drawn in begins at 0."""
    page = show(late(tmp_path / name, 605.0, begins_s))
    assert current_time(page) == pytest.approx(begins_s, abs=0.1)
    for frame in (49, 1, 24):
        seek(page, begins_s + (frame + 0.5) / FPS)
        assert edge_of_box(page) == pytest.approx(20 + frame - 0.75, abs=0.75)
    assert page.inner_text("#facts li:nth-child(3)") == "0:04"
    box = page.locator("#ruler").bounding_box()
    lane = page.locator("#lanes canvas").last.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.98, lane["y"] + 10)  # face 2, in the last second
    arrives(page, begins_s + 0.98 * SECONDS, 0.03)
    wait_for(page, "!video.seeking")
    assert colour_at(page, 230, 120) == close_to(GREEN)


def test_boxes_follow_while_it_plays(show, video):
    page = show(talk(video))
    page.evaluate("document.getElementById('video').play()")
    wait_for(page, "video.currentTime > 0.4")
    page.evaluate("document.getElementById('video').pause()")
    page.wait_for_timeout(200)
    assert edge_of_box(page) == pytest.approx(20 + FPS * current_time(page), abs=2.5)


@pytest.mark.parametrize("element", [".lane canvas", "#ruler", "#overview"])
def test_a_click_on_a_timeline_goes_there(show, video, element):
    page = show(talk(video))
    box = page.locator(element).first.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
    arrives(page, 0.75 * SECONDS, within=0.02)
    wait_for(
        page,
        f"""(() => {{
      const [head, ruler] = ['playhead', 'ruler'].map((id) => document.getElementById(id).getBoundingClientRect());
      return Math.abs((head.left - ruler.left) / ruler.width - 0.75) < {1.1 / FPS / SECONDS};
    }})()""",
    )  # on the frame that is shown


def test_a_click_on_a_face_goes_to_its_first_words(show, video):
    page = show(talk(video))
    page.click(".face >> nth=1")
    arrives(page, 3.0, within=0.01)
    page.click("#speakers button >> nth=0")
    arrives(page, 0.0, within=0.01)


def test_keys(show, video):
    page = show(talk(video))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    arrives(page, 1.0, within=0.01)
    wait_for(page, "!video.seeking")
    page.keyboard.press(".")
    arrives(page, 26.5 / FPS, within=0.01)
    page.keyboard.press(" ")
    wait_for(page, "!video.paused")
    page.keyboard.press(" ")
    wait_for(page, "video.paused")
    page.keyboard.press("End")
    arrives(page, SECONDS, within=0.1)
    wait_for(page, "!video.seeking")
    page.keyboard.press("Home")
    arrives(page, 0.0, within=0.01)


def test_zooming_keeps_the_time_under_the_pointer(show, video):
    page = show(talk(video))
    ruler = page.locator("#ruler").bounding_box()
    x, y = ruler["x"] + 0.75 * ruler["width"], ruler["y"] + 5
    page.mouse.move(x, y)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    wait_for(page, "document.querySelectorAll('.lane:not([hidden])').length === 2")
    page.mouse.click(ruler["x"], y)
    left = current_time(page)
    assert left > 1.5
    page.mouse.click(x, y)
    arrives(page, 3.0, within=0.02)
    page.mouse.wheel(-10_000, 0)  # back to the beginning, where face 2 is not
    wait_for(page, "document.querySelectorAll('.lane:not([hidden])').length === 1")


def test_who_spoke_how_long(show, video):
    page = show(talk(video))
    rows = page.locator("#speakers .name").all_inner_texts()
    assert [row.split() for row in rows] == [
        ["Face", "1", "2.0", "s", "of", "4.0", "s", "seen"],
        ["Face", "2", "1.0", "s", "of", "1.0", "s", "seen"],
    ]
    assert page.locator("#summary dd").all_inner_texts() == ["2", "2", "2", "3.0 s"]


def test_persons_have_a_lane_with_their_tracks_below(show, video):
    times_s = steady(FPS * SECONDS)
    tracks = [
        track(1, times_s, 0, [SPEAKS] * 50, box=(20, 60, 100, 180)),
        track(2, times_s, 0, [SILENT] * 50, box=(200, 60, 280, 180)),
        track(3, times_s, 50, [SPEAKS] * 25 + [SILENT] * 25, box=(20, 60, 100, 180), shot=1),
    ]
    persons = [Person(1, (1, 3), "Zoë"), Person(2, (2,))]
    page = show(detected(tracks, times_s, path=video, cuts=(50,), persons=persons))
    rows = page.locator("#speakers .name").all_inner_texts()
    assert [row.split() for row in rows] == [
        ["Zoë", "1", "turn,", "3.0", "s", "of", "4.0", "s", "seen"],
        ["Person", "2", "0", "turns,", "0.0", "s", "of", "2.0", "s", "seen"],
    ]
    assert page.locator("#summary dd").all_inner_texts() == ["2", "3", "2", "1", "3.0 s"]
    lanes = page.locator(".lane:visible .name")
    assert [lane.split("\n")[0] for lane in lanes.all_inner_texts()] == ["Zoë", "Face 1", "Face 3", "Person 2"]
    page.uncheck("#show-tracks")
    wait_for(page, "document.querySelectorAll('.lane:not([hidden])').length === 2")
    lane = page.locator(".lane canvas >> nth=0").bounding_box()
    page.mouse.move(lane["x"] + 0.6 * lane["width"], lane["y"] + 20)  # in the person's second track
    assert page.locator("#readout").inner_text() == "0:02.40 · 0.95"


def test_the_curve_and_the_speech_are_on_the_lane(show, video):
    page = show(talk(video))
    opaque = """(share) => {
      const canvas = document.querySelector('.lane canvas'), x = Math.round(share * canvas.width);
      const column = canvas.getContext('2d').getImageData(x, 0, 1, canvas.height).data;
      return Array.from({length: canvas.height}, (_, y) => [y / canvas.height, ...column.slice(4 * y, 4 * y + 3)])
        .filter(([y, r, g, b]) => Math.max(r, g, b) - Math.min(r, g, b) > 90).map(([y]) => y);
    }"""
    speaking, silent = page.evaluate(opaque, 0.25), page.evaluate(opaque, 0.75)
    assert min(speaking) < 0.2  # the curve is up
    assert max(speaking) > 0.95  # the bar of speech
    assert min(silent) > 0.5  # the curve is down
    assert max(silent) < 0.9  # no bar


def test_without_audio_the_page_says_so(show, video):
    times_s = steady(FPS * SECONDS)
    page = show(detected([track(1, times_s, 0, [np.nan] * 100)], times_s, path=video, audio_s=None))
    assert page.locator("#no-audio").is_visible()
    assert page.locator("#speakers li").count() == 0
    seek(page, 1.0)
    assert 10 < dashes(page, 40, GREY) < 25


def test_without_faces_the_page_says_so(show, video):
    page = show(detected([], steady(100), path=video, notes=("No face was found.",)))
    assert page.locator("#no-faces").is_visible()
    assert page.locator("#notes").inner_text() == "No face was found."


def test_texts_do_nothing_but_show(show, video, tmp_path):
    name = "<img src=x onerror=\"hacked=1\"> & 'größe' {{ facts }}.mp4"
    shutil.copy(video, tmp_path / name)
    page = show(talk(tmp_path / name, notes=("</script><script>window.hacked = 1</script>",)))
    assert page.locator("#file").inner_text() == name
    assert page.title().startswith(name)
    assert page.locator("#notes").inner_text() == "</script><script>window.hacked = 1</script>"
    assert page.evaluate("window.hacked") is None


def test_a_large_video_is_played_from_beside_the_page(show, video, tmp_path, monkeypatch):
    monkeypatch.setattr(report_media, "EMBED_BYTES", 100)
    (tmp_path / "50% #1?").mkdir()
    path = shutil.copy(video, tmp_path / "50% #1?" / "größe.mp4")
    page = show(talk(path))
    assert page.evaluate("document.getElementById('video').currentSrc").startswith("file:")
    seek(page, 1.02)
    assert colour_at(page, 45, 120) == close_to(GREEN)


def test_a_video_that_is_gone_can_be_chosen(browser, tmp_path, video, monkeypatch):
    monkeypatch.setattr(report_media, "EMBED_BYTES", 100)
    path = shutil.copy(video, tmp_path / "moved away.mp4")
    write_report(tmp_path / "report.html", talk(path))
    path.unlink()
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector("#missing:visible")
    assert "could not be loaded from “moved away.mp4”" in page.locator("#missing").inner_text()
    page.click(".face >> nth=1")  # the timeline works without the video
    assert colour_at(page, 230, 120) == close_to(GREEN)
    page.set_input_files("#chooser", video)
    page.wait_for_selector("#missing", state="hidden")
    wait_for(page, "video.readyState >= 2")
    seek(page, 1.02)
    assert colour_at(page, 45, 120) == close_to(GREEN)
    page.close()


def test_the_overlay_stands_in_for_what_no_browser_plays(show, video, tmp_path):
    (tmp_path / "old.avi").write_bytes(video.read_bytes())
    page = show(talk(tmp_path / "old.avi"), video)
    assert page.locator("#shown").inner_text() == "Browsers do not play .avi files. my talk.mp4 is shown in its place."
    seek(page, 1.02)
    assert edge_of_box(page) is None  # its boxes are in its frames
    alone = show(talk(tmp_path / "old.avi"), video_plays=False)
    assert "Browsers do not play .avi files." in alone.locator("#missing").inner_text()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 400])
def test_nothing_is_wider_than_the_window(show, video, width, dark):
    page = show(talk(video, notes=("A note " + "that is long " * 20,)), width=width, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(15, 19, 24)" if dark else "rgb(246, 247, 249)")


def crowd(path: Path, faces: int) -> DetectedVideo:
    times_s = steady(FPS * SECONDS)
    return detected([track(id, times_s, id, [SPEAKS] * 40) for id in range(1, faces + 1)], times_s, path=path)


def test_a_picture_of_the_whole_page_has_the_lanes_below_the_fold(show, video):
    page = show(crowd(video, 6))
    page.set_viewport_size({"width": 1280, "height": 400})
    lane = page.locator(".lane canvas >> nth=5").bounding_box()
    assert lane["y"] > 400 + 100
    pixels = cv2.imdecode(np.frombuffer(page.screenshot(full_page=True), np.uint8), cv2.IMREAD_COLOR).astype(int)
    left, top, width, height = (round(lane[key]) for key in ("x", "y", "width", "height"))
    speech = pixels[top + height - 3, left : left + width]
    assert np.mean(speech[:, 1] - speech[:, 2] > 90) == pytest.approx(40 / 100, abs=0.02)  # green


def test_all_lanes_are_printed(show, video):
    page = show(crowd(video, 30))
    drawn = "[...document.querySelectorAll('.lane canvas')].filter((canvas) => canvas.width).length"
    assert page.evaluate(drawn) < 30
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(drawn) == 30
    for box in (".lanes", ".speakers ol"):
        hidden = "(box) => box.scrollHeight - box.clientHeight"  # pixels that one would have to scroll to see
        assert page.locator(box).evaluate(hidden) <= 1
    page.emulate_media(media="screen")
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    wait_for(page, f"{drawn} < 30")


def test_an_hour_with_two_hundred_faces(show, video):
    times_s = steady(90_000)
    scores = list(np.tile([SPEAKS] * 40 + [SILENT] * 35, 12))
    tracks = [track(id, times_s, 446 * (id - 1), scores) for id in range(1, 201)]
    page = show(detected(tracks, times_s, path=video, cuts=tuple(range(300, 90_000, 300))))
    assert page.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart") < 3000
    page.click("#zoom-all")
    wait_for(page, "document.querySelectorAll('.lane:not([hidden])').length === 200")
    slowest = page.evaluate("""async () => {
      const frame = () => new Promise((seen) => requestAnimationFrame(() => seen(performance.now())));
      let slowest = 0, before = await frame();
      for (const step of Array(30).keys()) {
        document.querySelector('.lanes').scrollTop = step * 300;
        if (step % 5 === 0) document.getElementById(step % 2 ? 'zoom-in' : 'zoom-out').click();
        const now = await frame();
        slowest = Math.max(slowest, now - before);
        before = now;
      }
      return slowest;
    }""")
    assert slowest < 500  # some tens of milliseconds on an idle machine
    kept = page.evaluate("[...document.querySelectorAll('.lane canvas')].filter((canvas) => canvas.width).length")
    assert 0 < kept < 40  # lanes off the screen take no memory
