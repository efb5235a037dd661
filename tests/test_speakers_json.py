"""speakers.json against its schema, and its numbers by hand."""

import json
from functools import reduce
from operator import getitem

import jsonschema
import numpy as np
import pytest
from detections import SILENT, SPEAKS, detected, steady, track

from core.detection.results import DetectedVideo, Person
from core.outputs.speakers_json import schema, write_speakers_json


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


def talk(**options) -> DetectedVideo:
    times_s = steady(60, 30)
    tracks = [
        track(1, times_s, 3, [SPEAKS] * 12 + [SILENT] * 3),
        track(2, times_s, 30, [SILENT] * 9, box=(10.04, 20.06, 30, 40), shot=1),
    ]
    return detected(tracks, times_s, fps=30.0, cuts=(30,), notes=("The audio is late.",), **options)


def written(tmp_path, video: DetectedVideo) -> dict:
    write_speakers_json(tmp_path / "speakers.json", video)
    return json.loads((tmp_path / "speakers.json").read_bytes())


def test_what_is_written_fits_the_schema(tmp_path, validator):
    document = written(tmp_path, talk())
    validator.validate(document)
    assert document["video"] == {
        "file": "talk.mp4",
        "width": 320,
        "height": 240,
        "rotation": 0,
        "fps": 30.0,
        "frames": 60,
        "duration_s": 2.0,
        "start_s": 0.0,
        "container_offset_s": 0.0,
        "video_stream": 0,
        "audio_stream": 0,
        "sound": {"start_s": 0.0, "end_s": 10.0},
        "complete": True,
    }
    assert document["notes"] == ["The audio is late."]
    assert document["settings"] == {"encoder": "light_asd", "context": None, "threshold": 0.5}
    assert document["persons"] is None
    assert document["shots"] == [
        {"first_frame": 0, "last_frame": 29, "start_s": 0.0, "end_s": 1.0},
        {"first_frame": 30, "last_frame": 59, "start_s": 1.0, "end_s": 2.0},
    ]
    assert set(document["meaning"]) == {"score", "probability", "threshold"}


def test_tracks_have_one_item_a_frame(tmp_path):
    first, second = written(tmp_path, talk())["tracks"]
    assert (first["id"], first["shot"], first["person"]) == (1, 0, None)  # persons were not told apart
    assert (first["first_frame"], first["last_frame"]) == (3, 17)
    assert (first["end_s"], second["end_s"]) == (0.6, 1.3)
    assert first["times_s"][:2] == [0.1, 0.1333]
    assert first["scores"] == [3.0] * 12 + [-3.0] * 3
    assert first["probabilities"] == [0.9526] * 12 + [0.0474] * 3
    assert first["speech"] == [{"start_s": 0.1, "end_s": 0.5, "probability": 0.9526}]
    assert first["speaking_s"] == 0.4
    assert second["boxes"] == [[10.0, 20.1, 30.0, 40.0]] * 9
    assert (second["shot"], second["speech"], second["speaking_s"]) == (1, [], 0.0)


def test_persons_have_tracks_turns_and_names(tmp_path, validator):
    persons = [Person(1, (1,), "Zoë"), Person(2, (2,))]
    document = written(tmp_path, talk(persons=persons))
    validator.validate(document)
    turns = [{"start_s": 0.1, "end_s": 0.5, "probability": 0.9526}]
    assert document["persons"] == [
        {"id": 1, "name": "Zoë", "tracks": [1], "speaking_s": 0.4, "turns": turns},
        {"id": 2, "name": None, "tracks": [2], "speaking_s": 0, "turns": []},
    ]
    assert [track["person"] for track in document["tracks"]] == [1, 2]


def test_without_audio_there_are_boxes_only(tmp_path, validator):
    times_s = steady(10)
    video = detected([track(1, times_s, 0, [np.nan] * 10)], times_s, audio_s=None)
    document = written(tmp_path, video)
    validator.validate(document)
    assert document["video"]["sound"] is None
    assert document["tracks"][0]["probabilities"] is None
    assert document["tracks"][0]["scores"] is None
    assert document["tracks"][0]["speech"] == []
    assert len(document["tracks"][0]["boxes"]) == 10


@pytest.mark.parametrize("name", ['say "hi" <b>.mp4', "größe 测试.mp4", "caf\udce9.mp4"])
def test_any_file_name(tmp_path, validator, name):
    document = written(tmp_path, detected([], steady(5), path=name, complete=False))
    validator.validate(document)
    assert document["video"]["file"] == name.replace("\udce9", "\N{REPLACEMENT CHARACTER}")
    assert document["video"]["complete"] is False


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("tracks", 0, "boxes", 0), [1, 2, 3]),
        (("tracks", 0, "probabilities", 0), 1.5),
        (("tracks", 0, "name"), "Alice"),
        (("video", "rotation"), 45),
        (("schema",), "urn:active-speakers-in-context:speakers:2"),
        (("shots", 0, "first_frame"), 0.5),
        (("tracks", 0, "person"), 0),
        (("persons",), [{"id": 1, "name": "Alice", "tracks": [], "speaking_s": 0, "turns": []}]),
        (("video", "sound"), {"start_s": 0.0}),
    ],
)
def test_the_schema_refuses_what_does_not_fit(tmp_path, validator, keys, value):
    document = written(tmp_path, talk())
    *parents, last = keys
    reduce(getitem, parents, document)[last] = value
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(document)


def test_rounding_crosses_no_threshold(tmp_path):
    """0.49996 and 0.50004 both round to 0.5, which speaks."""
    scores = [float(np.log(p / (1 - p))) for p in (0.49996, 0.50004, 0.99999)]
    times_s = steady(3)
    [found] = written(tmp_path, detected([track(1, times_s, 0, scores)], times_s))["tracks"]
    assert found["probabilities"] == [0.4999, 0.5, 1.0]
    assert found["scores"] == [-0.001, 0.0, 11.513]
