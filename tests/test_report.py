"""The report as a file: how faces are packed, which video it shows, and that texts stay texts."""

import base64
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detections import HEIGHT, SPEAKS, WIDTH, detected, steady, track
from videos import encode

from core.detection.results import DetectedVideo
from core.media.container import MediaFile
from core.outputs import report_media
from core.outputs.report import pack_faces, write_report
from core.outputs.report_media import find_media
from core.runtime.errors import MediaError


def clip(path: Path, codec: str = "libx264", **options) -> Path:
    """Five grey frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return encode(path, [np.full((HEIGHT, WIDTH, 3), 99, np.uint8)] * 5, codec=codec, **options)


def media_of(page: Path, path: Path, overlay: Path | None = None) -> report_media.Media:
    return find_media(page, path, MediaFile(path).info, overlay)


def unpack(text: str, frames: int, faces: int, *, heard: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times in s, boxes in pixels and probabilities, as the page reads them."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    times_s = np.cumsum(data[: 4 * frames].view("<i4")) / 10_000
    planes = data[4 * frames : 4 * frames + 8 * faces].reshape(4, 2, faces).astype(np.int64)
    edges = np.cumsum(planes[:, 0] + 256 * planes[:, 1], axis=1) % 65536 / 2
    rest = data[4 * frames + 8 * faces :]
    assert len(rest) == (faces if heard else 0)
    return times_s, edges.T, np.cumsum(rest.astype(np.int64)) % 256 / 255


def walk(frames: int, seed: int) -> np.ndarray:
    """Boxes of a head that moves, (frames, 4) float32 pixels; smooth, as tracks are."""
    steps = np.random.default_rng(seed).normal(0, 1, (frames + 8, 4))
    smooth = np.stack([np.convolve(edge, np.ones(9) / 9, "valid") for edge in steps.T], axis=1)
    start = np.array([300, 200, 420, 360])
    return (start + np.cumsum(smooth, axis=0)).clip(0, 3840).astype(np.float32)


def test_packed_faces_come_back():
    times_s = np.array([0.04, 0.08, 0.121, 7.5, 7.54, 7.58])
    tracks = [
        track(1, times_s, 0, [0.0, -1e-4, 20.0], box=(0, 0.5, 3839.75, 2160)),
        track(2, times_s, 2, [-20.0, 1.0, 2.0, 3.0], box=(100, 7, 130, 40)),
    ]
    video = detected(tracks, times_s)
    times, boxes, probabilities = unpack(pack_faces(video), 6, 7)
    np.testing.assert_allclose(times, times_s, atol=5e-5)
    np.testing.assert_allclose(boxes, np.concatenate([track.boxes for track in tracks]), atol=0.25)
    expected = np.concatenate([track.probabilities for track in tracks])
    np.testing.assert_allclose(probabilities, expected, atol=0.002)
    np.testing.assert_array_equal(probabilities >= 0.5, expected >= 0.5)  # also a hair below one half


def test_without_audio_no_probabilities_are_packed():
    times_s = steady(4)
    video = detected([track(1, times_s, 0, [np.nan] * 4)], times_s, audio_s=None)
    _, boxes, _ = unpack(pack_faces(video), 4, 4, heard=False)
    np.testing.assert_array_equal(boxes, [[40, 60, 120, 180]] * 4)


def test_a_face_and_frame_takes_few_bytes():
    times_s = steady(9000)
    random = np.random.default_rng(0)
    tracks = []
    for id in range(1, 11):
        scores = np.convolve(random.normal(0, 6, 908), np.ones(9) / 3, "valid")
        face = track(id, times_s, 900 * (id - 1), list(scores))
        face.boxes[:] = walk(900, seed=id)
        tracks.append(face)
    assert len(pack_faces(detected(tracks, times_s))) / 9000 <= 6


def page_of(tmp_path: Path, video: DetectedVideo, media: Path | None = None) -> str:
    write_report(tmp_path / "report.html", video, media)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def script_data(page: str) -> str:
    return re.search('id="report-facts">(.*?)</script>', page, re.S)[1]


def data_of(page: str) -> dict:
    return json.loads(script_data(page))


def test_texts_stay_texts(tmp_path):
    name = "a <img src=x onerror=alert(1)> \"b\" 'c' & {{ style }} größe.mp4"
    path = clip(tmp_path / "plain.mp4").rename(tmp_path / name)
    note = "</script><!-- <script>alert(2)</script>{{ video }} & \u2028 'quotes' \"quotes\""
    page = page_of(tmp_path, detected([], steady(5), path=path, notes=(note,)))
    assert "<title>a &lt;img src=x onerror=alert(1)&gt; &quot;b&quot; &#x27;c&#x27; &amp; {{ style }}" in page
    assert "onerror=alert(1)>" not in page
    assert not re.search("[<>&\u2028]", script_data(page))
    assert (data_of(page)["file"], data_of(page)["notes"]) == (name, [note])
    assert page.count("</script>") == 4


def test_tracks_in_the_page(tmp_path):
    times_s = steady(100)
    tracks = [
        track(1, times_s, 5, [SPEAKS] * 45),
        track(2, times_s, 30, [SPEAKS] * 45, shot=1),
        track(3, times_s, 90, [1] * 10, shot=1),
        track(4, times_s, 30, [SPEAKS] * 3, shot=1),  # too short to be speech
    ]
    data = data_of(page_of(tmp_path, detected(tracks, times_s, path=clip(tmp_path / "talk.mp4"), cuts=(25,))))
    assert data["cutsS"] == [1.0]
    assert data["speechS"] == 3.2  # the time in which two speak counts once
    first, second, _, last = data["tracks"]
    assert [first[name] for name in ("id", "shot", "firstFrame", "frames", "speakingS")] == [1, 1, 5, 45, 1.8]
    assert (first["speech"], last["speech"], second["shot"]) == ([[0.2, 2.0, 0.953]], [], 2)
    assert base64.b64decode(first["thumbnail"].removeprefix("data:image/jpeg;base64,"))[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("talk.mp4", "libx264", "video/mp4"),
        ("a.mkv", "libx264", "video/webm"),
        ("a.mov", "libx264", "video/mp4"),
        ("a.webm", "libvpx-vp9", "video/webm"),
    ],
)
def test_a_small_video_that_browsers_play_is_in_the_page(tmp_path, name, codec, kind):
    path = clip(tmp_path / name, codec)
    assert media_of(tmp_path / "out" / "report.html", path) == report_media.Media(name, kind, file=path)


def test_a_file_in_parts_is_one_base64_text(tmp_path):
    content = np.random.default_rng(0).bytes(report_media.PART_BYTES + 20)
    (tmp_path / "a").write_bytes(content)
    assert "".join(report_media.in_base64(tmp_path / "a")) == base64.b64encode(content).decode()
    assert list(report_media.in_base64(None)) == []


def test_a_large_video_is_referred_to(tmp_path, monkeypatch):
    monkeypatch.setattr(report_media, "EMBED_BYTES", 100)
    path = clip(tmp_path / "my videos" / "50% #1?.mp4")
    media = media_of(tmp_path / "out" / "report.html", path)
    assert (media.file, media.url) == (None, "../my%20videos/50%25%20%231%3F.mp4")
    assert media_of(tmp_path / "my videos" / "report.html", path).url == "50%25%20%231%3F.mp4"


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("old.avi", {"codec": "mpeg4"}, ".avi"),
        ("part4.mp4", {"codec": "mpeg4"}, "mpeg4"),
        ("fine.mp4", {"pixel_format": "yuv444p"}, "yuv444p"),
        ("a.mov", {"audio": np.zeros(640, np.int16), "audio_codec": "pcm_s16le"}, "pcm_s16le"),
    ],
)
def test_what_no_browser_plays_gives_way_to_the_overlay(tmp_path, name, options, what):
    path, page = clip(tmp_path / name, **options), tmp_path / "report.html"
    alone = media_of(page, path)
    assert what in alone.fault
    assert alone == media_of(page, path, tmp_path / "absent.mp4") == report_media.Media(fault=alone.fault)
    overlay = clip(tmp_path / "overlay.mp4")
    media = media_of(page, path, overlay)
    assert (media.file, media.has_boxes) == (overlay, True)
    assert media.fault.startswith(alone.fault)
    assert "overlay.mp4" in media.fault


@pytest.mark.parametrize("kind", ["video", "audio"])
@pytest.mark.parametrize("stream", [0, 1])
def test_streams_that_browsers_would_not_choose_give_way_to_the_overlay(tmp_path, kind, stream):
    path = clip(tmp_path / "a.mp4", audio=np.zeros(3200, np.int16))
    info = MediaFile(path).info
    info = replace(info, stream=stream) if kind == "video" else replace(info, audio=replace(info.audio, stream=stream))
    overlay = clip(tmp_path / "overlay.mp4")
    media = find_media(tmp_path / "report.html", path, info, overlay)
    assert (media.file, media.has_boxes, kind in media.fault) == (
        (overlay, True, True) if stream else (path, False, False)
    )


def test_a_report_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(MediaError, match="no file"):
        write_report(tmp_path / "report.html", detected([], steady(5), path=tmp_path / "gone.mp4"))
    assert list(tmp_path.iterdir()) == []


def test_a_page_is_as_large_as_its_video_and_asks_for_nothing_from_outside(tmp_path):
    path = clip(tmp_path / "v.mp4")
    page = page_of(tmp_path, detected([], steady(5), path=path))
    assert len(page) < 70_000 + 4 / 3 * path.stat().st_size
    assert not re.search(r"(?:src|href)=[\"']?(?!data:)", page.split('<script type="application/json"')[0])
