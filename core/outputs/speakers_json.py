"""speakers.json: all that detection found, for programs; its schema is core/outputs/speakers.schema.json."""

import json
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from core.clip_utils import SPEAKING_THRESHOLD
from core.detection.results import DetectedVideo, Person, Shot, Track, kept_apart
from core.outputs.speech import Segment, speakers, speaking_time, speech_segments
from core.runtime.files import atomic_write, printable

GENERATOR = "Active Speakers in Context"
MEANING = {
    "score": "The log odds of speaking that the network gives a face at a frame: above 0 it rather speaks, below 0 it "
    "rather does not; +3 is 95 %, -3 is 5 %.",
    "probability": "1 / (1 + exp(-score)), from 0 to 1; how sure the network is, right as often as that only on "
    "videos like those of its training.",
    "threshold": "A frame counts as speaking if its probability is at least this; raise it for fewer false alarms, "
    "lower it to miss less.",
}
TIME_DECIMALS = 4
BOX_DECIMALS = 1
SCORE_DECIMALS = 3
PROBABILITY_DECIMALS = 4


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of what `write_speakers_json` writes."""
    return json.loads(files("core.outputs").joinpath("speakers.schema.json").read_text(encoding="utf-8"))


def write_speakers_json(path: str | Path, video: DetectedVideo) -> None:
    """Write a video's results as JSON, as `core/outputs/speakers.schema.json` describes field by field.

    Times are seconds with 4 decimals, boxes pixels of the displayed frame with 1, scores have 3, probabilities 4. The
    file is UTF-8; every shot, person and track has a line of its own.
    """
    facts = {
        "schema": schema()["$id"],
        "generator": GENERATOR,
        "video": _facts(video),
        "notes": video.notes,
        "settings": video.settings,
        "threshold": SPEAKING_THRESHOLD,
        "meaning": MEANING,
    }
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("{\n")
        file.writelines(f"{_compact(name)}:{_compact(value)},\n" for name, value in facts.items())
        file.write('"shots":')
        file.writelines(_by_lines(map(_shot, video.shots)))
        file.write(',\n"persons":')
        person_of = video.person_of
        file.writelines("null" if video.persons is None else _by_lines(_persons(video)))
        file.write(',\n"tracks":')
        file.writelines(_by_lines(_track(track, video, person_of.get(track.id)) for track in video.tracks))
        file.write("\n}\n")


def _shot(shot: Shot) -> dict[str, Any]:
    return {
        "first_frame": shot.first_frame,
        "last_frame": shot.last_frame,
        "start_s": _time(shot.start_s),
        "end_s": _time(shot.end_s),
    }


def _facts(video: DetectedVideo) -> dict[str, Any]:
    info = video.info
    return {
        "file": printable(video.path.name),
        "width": info.width,
        "height": info.height,
        "fps": round(info.fps, 6),
        "duration_s": None if info.duration_s is None else _time(info.duration_s),
        "start_s": _time(video.start_s),
        "container_offset_s": _time(video.offset_s),
        "frames": len(video.frame_times_s),
        "rotation": info.rotation,
        "video_stream": info.stream,
        "audio_stream": info.audio and info.audio.stream,
        "sound": video.audio_s and {"start_s": _time(video.audio_s[0]), "end_s": _time(video.audio_s[1])},
        "complete": video.complete,
    }


def _persons(video: DetectedVideo) -> Iterator[dict[str, Any]]:
    for person, speaker in zip(video.persons, speakers(video), strict=True):
        yield {
            "id": person.id,
            "name": person.name,
            "tracks": list(person.tracks),
            "speaking_s": _time(speaking_time(speaker.turns)),
            "turns": _segments(speaker.turns),
        }


def _segments(segments: Iterable[Segment]) -> list[dict[str, float]]:
    return [
        {
            "start_s": _time(segment.start_s),
            "end_s": _time(segment.end_s),
            "probability": round(segment.probability, PROBABILITY_DECIMALS),
        }
        for segment in segments
    ]


def _track(track: Track, video: DetectedVideo, person: Person | None) -> dict[str, Any]:
    segments = speech_segments(track, video)
    return {
        "id": track.id,
        "shot": track.shot,
        "person": person and person.id,
        "first_frame": int(track.frames[0]),
        "last_frame": int(track.frames[-1]),
        "end_s": _time(video.end_of_frame(int(track.frames[-1]))),
        "speaking_s": _time(speaking_time(segments)),
        "speech": _segments(segments),
        "times_s": _rounded(track.times_s, TIME_DECIMALS),
        "boxes": _rounded(track.boxes, BOX_DECIMALS),
        "scores": None if video.audio_s is None else kept_apart(track.scores, 0.0, SCORE_DECIMALS),
        "probabilities": None
        if video.audio_s is None
        else kept_apart(track.probabilities, SPEAKING_THRESHOLD, PROBABILITY_DECIMALS),
    }


def _time(seconds: float) -> float:
    return round(float(seconds), TIME_DECIMALS)


def _rounded(values: np.ndarray, decimals: int) -> list:
    return np.round(values.astype(np.float64), decimals).tolist()


def _by_lines(values: Iterable[Any]) -> Iterator[str]:
    """A JSON array with a line for each of its values, made one after the other."""
    yield "["
    for number, value in enumerate(values):
        yield (",\n" if number else "\n") + _compact(value)
    yield "\n]"


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
