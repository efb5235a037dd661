"""A file server on 127.0.0.1 that remembers what it was asked and misbehaves on order."""

import hashlib
import io
import re
import socket
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from core.download.ava_release import AVA, Sources, at_mirror
from core.download.many import Remote


class Asked(NamedTuple):
    path: str
    range: str | None
    if_range: str | None


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request, client_address) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that left: its right
            super().handle_error(request, client_address)


class FaultyServer:
    """Serves `files`, with ranges and strong ETags.

    `faults[path]` lists what goes wrong with the next requests of that path, one word a request (see `_answer`); None
    stands for a request that is answered well.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[str | None]] = {}
        self.asked: list[Asked] = []
        self.half_sent = threading.Event()  # set when a "silent" answer has stopped in the middle
        self.go_on = threading.Event()  # ends the silence

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:  # noqa: N805 - self is the server
                self._answer(handler)

            def log_message(handler, *_) -> None:  # noqa: N805
                pass

        self.httpd = _QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"

    def __enter__(self) -> "FaultyServer":
        threading.Thread(target=self.httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.go_on.set()
        self.httpd.shutdown()
        self.httpd.server_close()

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def ranges(self) -> list[str | None]:
        return [asked.range for asked in self.asked]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, asked_range, if_range = handler.path, handler.headers["Range"], handler.headers["If-Range"]
        self.asked.append(Asked(path, asked_range, if_range))
        faults = self.faults.get(path, [])
        fault = faults.pop(0) if faults else None
        if fault == "hang_up":
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault is not None and fault.isdecimal():  # a status
            handler.send_response(int(fault))
            handler.send_header("Retry-After", "7")
            handler.end_headers()
            return
        if path not in self.files:
            handler.send_error(404)
            return

        content = self.files[path]
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        honoured = asked_range and fault not in ("ignore_range", "html", "no_length", "chunked", "chunks_cut")
        if honoured and (if_range in (None, tag) or fault == "ignore_if-range"):
            start = int(re.fullmatch(r"bytes=(\d+)-", asked_range)[1])
            if start >= len(content):
                handler.send_response(416)
                handler.send_header("Content-Range", f"bytes */{len(content)}")
                handler.end_headers()
                return
            handler.send_response(206)
            if fault == "other_range":
                start = 1
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            handler.send_response(200)
        body = content[start:]
        handler.send_header("Content-Type", "text/html" if fault == "html" else "application/octet-stream")
        if fault == "gzip":
            handler.send_header("Content-Encoding", "gzip")
        if fault != "no_mark":
            handler.send_header("ETag", "W/" + tag if fault == "weak_mark" else tag)
        if fault in ("chunked", "chunks_cut"):
            handler.send_header("Transfer-Encoding", "chunked")
            handler.protocol_version = "HTTP/1.1"
        elif fault != "no_length":
            handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()

        if fault in ("chunked", "chunks_cut"):
            body = b"%x\r\n%b\r\n" % (len(body), body) + (b"0\r\n\r\n" if fault == "chunked" else b"")
        elif fault in ("truncate", "no_mark", "weak_mark"):
            body = body[: len(body) // 2]
        elif fault == "wrong_bytes":
            body = bytes(byte ^ 1 for byte in body)
        elif fault == "silent":
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            self.half_sent.set()
            self.go_on.wait(timeout=30)
            return
        handler.wfile.write(body)


# ---- a small AVA at the paths of the real one ---------------------------------------------------------------------

IDS = {"train": ("-a_1", "b-2"), "val": ("--c3",)}
VIDEOS = {"-a_1.mkv": b"first" * 30_000, "b-2.mp4": b"second" * 30_000, "--c3.webm": b"third" * 30_000}
ARCHIVE = "/ava/download/ava_activespeaker_{}_v1.0.tar.bz2"
VIDEO = "/ava-dataset/trainval/{}"
NAMES = "/ava-dataset/annotations/ava_speech_file_names_v1.txt"
MD5S = "/tuanchien/asd/master/ava_speech_file_names_v1.csv"
UTILITY = "/l0kNCNuXuEq70c3iUHsXxJ7/active-speakers-context/ava_activespeaker_{}_augmented.csv"


def csv_of(video_id: str) -> bytes:
    return f"{video_id},900.10,0.1,0.1,0.2,0.2,NOT_SPEAKING,{video_id}_0900_0960:1\n".encode()


def member(name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple:
    """One entry of an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(content) if kind == tarfile.REGTYPE else 0
    return info, content


def archive_of(*members: tuple) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def serve_small_ava(server: FaultyServer) -> Sources:
    """Put archives, lists, videos (all but b-2 with a known MD5) and csvs on a server; where they are."""
    for split, ids in IDS.items():
        folder = f"some_folder_{split}"
        server.files[ARCHIVE.format(split)] = archive_of(
            member(folder, kind=tarfile.DIRTYPE),
            member(f"{folder}/README.txt"),
            *(member(f"{folder}/{name}-activespeaker.csv", csv_of(name)) for name in ids),
            *(member(f"{folder}/._{name}-activespeaker.csv") for name in ids),
        )
    server.files |= {VIDEO.format(name): content for name, content in VIDEOS.items()}
    server.files[NAMES] = "\r\n".join([*VIDEOS, "of_the_test_split.mkv"]).encode()
    md5s = "".join(f"{name},{hashlib.md5(VIDEOS[name]).hexdigest()}\n" for name in ("-a_1.mkv", "--c3.webm"))
    server.files[MD5S] = f"file_name,md5\n{md5s}".encode()
    server.files |= {UTILITY.format(split): split.encode() for split in ("train", "val", "test")}
    moved = at_mirror(AVA, server.url)

    def checked(remote: Remote) -> Remote:
        content = server.files[remote.url.removeprefix(server.url)]
        return Remote(remote.url, hashlib.md5(content).hexdigest())

    annotations = {split: checked(remote) for split, remote in moved.annotations.items()}
    md5_list = checked(moved.video_md5s)
    return Sources(annotations, moved.utility, moved.video_names, md5_list, moved.video_folder)
