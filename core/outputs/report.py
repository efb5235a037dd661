"""report.html: a page that shows what was found in a video, without network or server.

The page is made of the files in `core/outputs/report_page`. Its data are in three script elements that are no scripts:
facts as JSON, the faces of all frames as packed numbers, the video itself as base64 where it is small enough.
"""

import base64
import html
import json
import re
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from core.clip_utils import SPEAKING_THRESHOLD
from core.detection.results import DetectedVideo, Track
from core.outputs.report_media import Media, find_media, in_base64
from core.outputs.speakers_json import MEANING
from core.outputs.speech import Segment, Speaker, speakers, speaking_time, speech_segments
from core.outputs.tables import face_frames
from core.runtime.files import atomic_write, printable

# Each uses those before it.
SCRIPTS = ("data.js", "canvas.js", "media.js", "player.js", "lane.js", "timeline.js", "page.js")
PLACEHOLDER = re.compile(r"\{\{ (\w+) \}\}")  # in page.html
TIME_UNITS = 10_000  # of a second
BOX_UNITS = 2  # of a pixel
PROBABILITY_UNITS = 255  # 0.5 is between 127 and 128, so that speaking and silent stay apart


def write_report(path: str | Path, video: DetectedVideo, media: str | Path | None = None) -> None:
    """Write one HTML page that shows a video with its faces, a timeline a face, and who spoke how long.

    The video is in the page if its file has at most 32 MB and browsers play it; a larger one is referred to by its
    path relative to the page, and the page asks for the file where it is not found there.

    Args:
        path: page to write.
        video: what was detected.
        media: the same video with boxes drawn in, shown where browsers do not play the video itself.

    Raises:
        MediaError: the video is gone.
    """
    path = Path(path)
    shown = find_media(path, video.path, video.info, None if media is None else Path(media))
    parts = {
        "title": [html.escape(printable(video.path.name))],
        "style": [page_file("style.css")],
        "script": [page_file(name) for name in SCRIPTS],
        "facts": [as_script_data(_facts(video, shown))],
        "faces": [pack_faces(video)],
        "video": in_base64(shown.file),
    }
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        # Texts and names of placeholders alternate; the content of one part is never taken for another's placeholder.
        for number, text in enumerate(PLACEHOLDER.split(page_file("page.html"))):
            file.writelines(parts[text] if number % 2 else [text])


def as_script_data(value: Any) -> str:
    """JSON that cannot end the script element around it, whatever texts it contains."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def pack_faces(video: DetectedVideo) -> str:
    """The times of all frames, and boxes and probabilities of all faces, as the page reads them.

    Differences of neighbours are small numbers, mostly alike, so that deflate leaves 2 to 4 bytes of a face and frame.

    Returns:
        Base64 of zlib's deflate of: (frames,) int32, differences of times in 0.1 ms; then for each of x1, y1, x2, y2
        of all tracks laid end to end the differences in half pixels as uint16 (modulo 2^16), low bytes before high
        bytes; then, where there is audio, the differences of probabilities in 1/255 as uint8 (modulo 2^8).
    """
    faces = face_frames(video)
    packed = [_steps(video.frame_times_s * TIME_UNITS).astype("<i4").tobytes()]
    for edge in faces.boxes.T:
        steps = _steps(edge * BOX_UNITS)
        packed += [(steps & 255).astype(np.uint8).tobytes(), (steps >> 8 & 255).astype(np.uint8).tobytes()]
    if video.audio_s is not None:
        steps = _steps(faces.probabilities.astype(np.float64) * PROBABILITY_UNITS)
        packed.append((steps & 255).astype(np.uint8).tobytes())
    return base64.b64encode(zlib.compress(b"".join(packed))).decode("ascii")


def _steps(values: np.ndarray) -> np.ndarray:
    """Rounded values as differences from the one before, int64."""
    return np.diff(np.rint(values).astype(np.int64), prepend=0)


def _facts(video: DetectedVideo, shown: Media) -> dict[str, Any]:
    info = video.info
    all_speakers, person_of = speakers(video), video.person_of
    return {
        "file": printable(video.path.name),
        "width": info.width,
        "height": info.height,
        "fps": info.fps,
        "frames": len(video.frame_times_s),
        "startS": video.start_s,
        "endS": video.end_of_frame(len(video.frame_times_s) - 1),
        "audioS": video.audio_s,
        "speechS": _covered_s([turn for speaker in all_speakers for turn in speaker.turns]),
        "complete": video.complete,
        "notes": video.notes,
        "settings": video.settings,
        "meaning": MEANING,
        "threshold": SPEAKING_THRESHOLD,
        "units": {"time": TIME_UNITS, "box": BOX_UNITS, "probability": PROBABILITY_UNITS},
        "cutsS": [shot.start_s for shot in video.shots[1:]],
        "hasPersons": video.persons is not None,
        "speakers": [_speaker(speaker, video) for speaker in all_speakers],
        "tracks": [
            _track(track, speech_segments(track, video), person_of[track.id].label if person_of else str(track.id))
            for track in video.tracks
        ],
        "media": {
            "name": shown.name,
            "type": shown.type,
            "url": shown.url,
            "hasBoxes": shown.has_boxes,
            "fault": shown.fault,
        },
    }


def _speaker(speaker: Speaker, video: DetectedVideo) -> dict[str, Any]:
    return {
        "label": speaker.label,
        "tracks": [track.id for track in speaker.tracks],
        "seenS": round(sum(video.end_of_frame(int(t.frames[-1])) - float(t.times_s[0]) for t in speaker.tracks), 3),
        **_speech(speaker.turns),
    }


def _track(track: Track, segments: list[Segment], mark: str) -> dict[str, Any]:
    return {
        "id": track.id,
        "mark": mark,  # on its box
        "shot": track.shot + 1,
        "firstFrame": int(track.frames[0]),
        "frames": len(track.frames),
        **_speech(segments),
        "thumbnail": "data:image/jpeg;base64," + base64.b64encode(track.thumbnail).decode("ascii"),
    }


def _speech(segments: list[Segment]) -> dict[str, Any]:
    return {
        "speech": [
            [round(segment.start_s, 3), round(segment.end_s, 3), round(segment.probability, 3)] for segment in segments
        ],
        "speakingS": round(speaking_time(segments), 3),
    }


def _covered_s(segments: list[Segment]) -> float:
    """Seconds in which at least one face speaks."""
    total_s, until_s = 0.0, float("-inf")
    for segment in sorted(segments, key=lambda segment: segment.start_s):
        total_s += max(0.0, segment.end_s - max(segment.start_s, until_s))
        until_s = max(until_s, segment.end_s)
    return round(total_s, 3)


def page_file(name: str) -> str:
    """A file that the page is made of, such as `style.css`."""
    return files("core.outputs").joinpath("report_page", name).read_text(encoding="utf-8")
