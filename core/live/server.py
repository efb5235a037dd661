"""A page of this machine alone that shows what is seen and who speaks, while that is found out.

The server listens on the loopback interface, and answers only requests that name it as their host and have a random
token in their path: other machines, other users, and other pages in the same browser get nothing.
"""

import base64
import contextlib
import hmac
import json
import queue
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import av
import cv2
import numpy as np

from core.clip_utils import GRID_FPS, SPEAKING_THRESHOLD
from core.live.audio import Resampler
from core.live.inbox import Heard, Inbox, Seen
from core.live.lines import ScoredFrame, as_plain
from core.media.video import Frame, yuv420_of
from core.outputs.report import page_file
from core.runtime.checks import as_number, as_whole
from core.runtime.errors import UserError

HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # of this machine in a browser
PAGE = "page.html"
REPORT_FILES = ("style.css", "canvas.js")  # of report.html, on which those of this page build
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
EVENTS = "events"
GIVEN = ("frame", "audio")  # by the camera and the microphone of a page
RATES = range(8_000, 192_001)  # samples per second that a browser may give
MOST_BYTES = 8 << 20  # of a frame, or a block of audio
GIVEN_UP_S = 3.0  # a page that gives nothing for so long gives room to another
SHOWN_SIDE = 960  # pixels, longer side of the frames that are shown
QUALITY = 80  # of their JPEGs
MOST_WATCHERS = 8
MOST_EVENTS = 50  # that wait for a page, 2 s of them; a page that is slower misses the oldest
EVERY_S = 1.0  # how often a page is told how many frames were left out, where nothing else is told
SILENT_S = 30.0  # a connection that says nothing for so long is ended
LAST_WORDS_S = 2.0  # in which pages take what they were told
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Page:
    """The page and its server, which runs in a `with` block.

    Args:
        port: to listen on; 0 for any that is free.
        title: of what is shown.
        delay_s: that scores are given after.
        inbox: what is shown comes through it.
        takes_camera: the browser's own camera and microphone are put into the inbox, those of one page.

    Attributes:
        address: what to open in a browser; who knows it sees the page.

    Raises:
        UserError: the port cannot be had.
    """

    def __init__(self, port: int, title: str, delay_s: float, inbox: Inbox, *, takes_camera: bool = False):
        self.inbox, self.takes_camera = inbox, takes_camera
        self.beginning = {
            "title": title,
            "delayS": delay_s,
            "threshold": SPEAKING_THRESHOLD,
            "takesCamera": takes_camera,
        }
        self.giving: tuple[str, float] | None = None  # page whose camera is taken, and when it gave something
        self.token = secrets.token_urlsafe(24)
        self.notes: deque[str] = deque(maxlen=MOST_EVENTS)
        self._resampler = Resampler()
        self._watchers: list[queue.Queue[bytes | None]] = []
        try:
            self._server = _Server((HOST, port), _Handler)
        except OSError as error:
            raise UserError(f"--port {port}: {error.strerror}; give another, or 0 for any that is free") from error
        self._server.page = self
        self.hosts = {f"{name}:{self._server.server_port}" for name in NAMES}
        self.address = f"http://{HOST}:{self._server.server_port}/{self.token}/"

    def __enter__(self) -> "Page":
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="page", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._tell("end", self.counts)
        self._put(None)
        until_s = time.monotonic() + LAST_WORDS_S
        while self._watchers and time.monotonic() < until_s:
            time.sleep(0.02)
        self._server.shutdown()
        self._server.server_close()

    def show(self, scored: ScoredFrame, seen: Seen) -> None:
        """Show a frame and its faces to who watches."""
        if not self._watchers:
            return
        frame = Frame(seen.time_s, seen.image)
        jpeg = seen.jpeg or _as_jpeg(frame)
        shown = {"width": frame.width, "height": frame.height, "jpeg": base64.b64encode(jpeg).decode("ascii")}
        self._tell("frame", as_plain(scored) | shown | self.counts)

    def note(self, text: str) -> None:
        """Tell a sentence to who watches, now or later."""
        self.notes.append(text)
        self._tell("note", text)

    @property
    def counts(self) -> dict[str, int]:
        """How many frames came, and were left out."""
        return {"frames": self.inbox.frames, "leftOut": self.inbox.left_out}

    def events(self) -> Iterator[bytes]:
        """What a page that begins to watch is told, to the end; nothing where enough watch."""
        if len(self._watchers) >= MOST_WATCHERS:
            return
        told: queue.Queue[bytes | None] = queue.Queue(MOST_EVENTS)
        self._watchers.append(told)
        try:
            yield _event("begin", self.beginning)
            yield from [_event("note", text) for text in tuple(self.notes)]
            while True:
                try:
                    event = told.get(timeout=EVERY_S)
                except queue.Empty:
                    event = _event("count", self.counts)
                if event is None:
                    return
                yield event
        finally:
            self._watchers.remove(told)

    def _tell(self, event: str, value: object) -> None:
        self._put(_event(event, value))

    def _put(self, event: bytes | None) -> None:
        for told in tuple(self._watchers):
            while True:
                with contextlib.suppress(queue.Full):
                    told.put_nowait(event)
                    break
                with contextlib.suppress(queue.Empty):
                    told.get_nowait()

    def take(self, name: str, page: str, query: Mapping[str, str], content: bytes) -> HTTPStatus:
        """Put what a page's camera or microphone gave into the inbox; how that went.

        Args:
            name: "frame" or "audio".
            page: its id.
            query: "time", seconds; of a frame "missed", how many the page left out before it; of audio "rate", samples
                per second.
            content: a JPEG, or int16 samples of one channel.
        """
        now_s = time.monotonic()
        if self.giving is not None and self.giving[0] != page and now_s - self.giving[1] < GIVEN_UP_S:
            return HTTPStatus.CONFLICT
        self.giving = page, now_s
        try:
            time_s = as_number(query["time"])
            if name == "frame":
                image = _decoded(content)
                self.inbox.leave_out(max(0, as_whole(query["missed"])))
                self.inbox.put(Seen(time_s, image, content))
            else:
                samples, rate = np.frombuffer(content, "<i2"), as_whole(query["rate"])
                if not len(samples) or rate not in RATES:
                    raise ValueError("no audio")
                self.inbox.put(Heard(*self._resampler.push(samples, rate, time_s)))
        except (KeyError, ValueError):
            return HTTPStatus.BAD_REQUEST
        return HTTPStatus.NO_CONTENT


class BrowserSource:
    """The camera and the microphone of a browser, which its page puts into the inbox."""

    name, fps, has_audio, ends = "Camera of the browser", float(GRID_FPS), True, False
    faults: tuple[str, ...] = ()

    def play(self, inbox: Inbox, note: object) -> None:
        """As `core.live.sources.Source.play`: wait for the end."""
        inbox.closed.wait()


class _Server(ThreadingHTTPServer):
    page: Page

    def handle_error(self, request: object, client_address: object) -> None:
        """Nothing: who asked has gone."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SILENT_S
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: standard error is for notes, and paths hold the token."""

    def do_GET(self) -> None:
        name = self._name()
        if name == EVENTS:
            self._answer(HTTPStatus.OK, {"Content-Type": "text/event-stream", "Connection": "close"})
            for event in self.server.page.events():
                self.wfile.write(event)
        elif name is not None:
            content = _content(name or PAGE)
            if content is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            kind = TYPES[Path(name or PAGE).suffix]
            self._answer(HTTPStatus.OK, {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(content))})
            self.wfile.write(content)

    def do_POST(self) -> None:
        name = self._name()
        length = self.headers.get("Content-Length", "")
        if name is None:
            return
        if not self.server.page.takes_camera or name not in GIVEN:
            self._refuse(HTTPStatus.NOT_FOUND)
        elif not length.isdecimal():
            self._refuse(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > MOST_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            query = dict(parse_qsl(urlsplit(self.path).query))
            status = self.server.page.take(name, query.pop("page", ""), query, self.rfile.read(int(length)))
            self._answer(status, {"Content-Length": "0"})

    def _name(self) -> str | None:
        """What is asked for; None where the request was refused."""
        page = self.server.page
        token, _, name = urlsplit(self.path).path.removeprefix("/").partition("/")
        host, origin = self.headers.get("Host"), self.headers.get("Origin", f"http://{HOST}")
        known = host in page.hosts and origin in (f"http://{HOST}", f"http://{host}")
        if known and hmac.compare_digest(token.encode(), page.token.encode()):
            return name
        self._refuse(HTTPStatus.FORBIDDEN)
        return None

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True  # what is sent with it is not read
        self.send_error(status)

    def _answer(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()


def _content(name: str) -> bytes | None:
    """A file of the page; None where there is none."""
    if name in REPORT_FILES:
        return page_file(name).encode()
    folder = files("core.live").joinpath("page")
    return next((file.read_bytes() for file in folder.iterdir() if file.name == name), None)


def _event(name: str, value: object) -> bytes:
    """A server-sent event."""
    return f"event: {name}\ndata: {json.dumps(value, separators=(',', ':'))}\n\n".encode()


def _as_jpeg(frame: Frame) -> bytes:
    pixels = frame.scaled_bgr(SHOWN_SIDE)
    return cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[1].tobytes()


def _decoded(jpeg: bytes) -> av.VideoFrame:
    """A JPEG's frame.

    Raises:
        ValueError: it is none.
    """
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB) if jpeg else None
    if pixels is None or min(pixels.shape[:2]) < 2:
        raise ValueError("no JPEG")
    height, width = (side // 2 * 2 for side in pixels.shape[:2])
    return yuv420_of(np.ascontiguousarray(pixels[:height, :width]))
