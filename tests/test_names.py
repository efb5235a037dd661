"""Names of persons in a file that is kept from run to run."""

import json

import numpy as np
import pytest
from detections import SPEAKS, detected, steady, track

from core.detection.results import DetectedVideo, Person
from core.outputs.names import NamedPerson, completed, given, persons_seen, read_names, with_names, write_names
from core.runtime.errors import UserError

LEFT, RIGHT = (40, 60, 120, 180), (200, 60, 280, 180)


def talk(persons: list[tuple[int, ...]]) -> DetectedVideo:
    """Two shots of 1 s with two faces each, tracks 1 to 4, left and right."""
    times_s = steady(50)
    tracks = [
        track(number, times_s, 25 * shot, [SPEAKS] * 25, box, shot)
        for number, (shot, box) in enumerate([(0, LEFT), (0, RIGHT), (1, LEFT), (1, RIGHT)], start=1)
    ]
    found = [Person(number, ids) for number, ids in enumerate(persons, start=1)]
    return detected(tracks, times_s, cuts=(25,), persons=found)


def named(seen: DetectedVideo, names: list[str | None]) -> list[NamedPerson]:
    """The file's persons after a run, with names put to them."""
    return [NamedPerson(name, one.seen) for name, one in zip(names, persons_seen(seen), strict=True)]


def named_tracks(video: DetectedVideo) -> list[tuple[int, tuple[int, ...], str | None]]:
    return [(person.id, person.tracks, person.name) for person in video.persons]


FIRST = talk([(1, 4), (2, 3)])


def test_each_track_is_seen_where_its_face_is_in_the_middle():
    assert persons_seen(FIRST) == [
        NamedPerson(None, ((0.48, 80, 120), (1.48, 240, 120)), 1),
        NamedPerson(None, ((0.48, 240, 120), (1.48, 80, 120)), 2),
    ]


@pytest.mark.parametrize(
    ("names", "again", "expected"),
    [
        (["Ann", "Bob"], [(1, 4), (2, 3)], [(1, (1, 4), "Ann"), (2, (2, 3), "Bob")]),
        ([None, "Bob"], [(1, 4), (2, 3)], [(1, (1, 4), None), (2, (2, 3), "Bob")]),
        # Other numbers: the first person was not found before.
        (["Ann", "Bob"], [(2, 3), (1, 4)], [(1, (2, 3), "Bob"), (2, (1, 4), "Ann")]),
        # A person that falls apart in the next run is one by the name.
        (["Ann", None], [(1,), (2, 3), (4,)], [(1, (1, 4), "Ann"), (2, (2, 3), None)]),
        # The user says that two are one.
        (["Ann", "Ann"], [(1, 4), (2, 3)], [(1, (1, 2, 3, 4), "Ann")]),
        # Most spots decide, also against a name.
        (["Ann", "Bob"], [(1, 2, 3), (4,)], [(1, (1, 2, 3), "Bob"), (2, (4,), "Ann")]),
        (["Ann", None], [(1, 2, 3), (4,)], [(1, (1, 2, 3), None), (2, (4,), "Ann")]),
    ],
)
def test_names_are_found_again_by_where_their_persons_are_seen(names, again, expected):
    found = with_names(talk(again), named(FIRST, names))
    assert named_tracks(found) == expected
    assert found.notes == []


def test_a_name_that_nobody_has_any_more_is_noted_and_kept():
    absent = NamedPerson("Zoë", ((0.48, 160, 20), (30.0, 80, 120)))
    found = with_names(FIRST, [absent, *named(FIRST, ["Ann", None])])
    assert ["Zoë" in note for note in found.notes] == [True]
    after = completed([absent, *named(FIRST, ["Ann", None])], persons_seen(found))
    assert [(one.person, one.name) for one in after] == [(1, "Ann"), (2, None), (None, "Zoë")]


def test_where_faces_overlap_the_nearest_is_meant():
    times_s = steady(10)
    tracks = [
        track(1, times_s, 0, [SPEAKS] * 10, (0, 0, 100, 100)),
        track(2, times_s, 0, [SPEAKS] * 10, (60, 0, 160, 100)),
    ]
    video = detected(tracks, times_s, persons=[Person(1, (1,)), Person(2, (2,))])
    found = with_names(video, [NamedPerson("Bob", ((0.2, 95, 50),))])
    assert [person.name for person in found.persons] == [None, "Bob"]


def test_the_file_comes_back_and_is_for_people(tmp_path):
    names = {"a.mp4": named(FIRST, ["Zoë", None]), "b.mp4": []}
    write_names(tmp_path / "names.json", names)
    assert read_names(tmp_path / "names.json") == names
    lines = (tmp_path / "names.json").read_text().splitlines()
    assert sum("seen" in line for line in lines) == 2  # a line each
    assert "Zoë" in lines[1]
    assert read_names(tmp_path / "absent.json") == {}


def test_outputs_depend_on_names_alone():
    """A file that a run wrote, and nobody has edited, makes nothing new; nor does one that the next run completed."""
    assert given(persons_seen(FIRST)) == {}
    before = named(FIRST, ["Ann", "Ann"])
    after = completed(before, persons_seen(with_names(FIRST, before)))
    assert len(after) == 1
    assert json.dumps(given(after)) == json.dumps(given(before))
    assert given(before) != given(named(FIRST, ["Ann", None])) != {}


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        ("[]", "object"),
        ('{"a.mp4": {}}', "list"),
        ('{"a.mp4": ["Ann"]}', "seen"),
        ('{"a.mp4": [{"name": "Ann"}]}', "seen"),
        ('{"a.mp4": [{"name": "Ann", "seen": [[1, 2]]}]}', "seen"),
        ('{"a.mp4": [{"name": "Ann", "seen": [[1, 2, "3"]]}]}', "seen"),
        ('{"a.mp4": [{"name": " ", "seen": []}]}', "name"),
        ('{"a.mp4": [{"name": "Ann\\nBob", "seen": []}]}', "name"),
        ('{"a.mp4": [{"name": 7, "seen": []}]}', "name"),
    ],
)
def test_files_that_are_not_of_this_form_are_refused(tmp_path, content, facts):
    (tmp_path / "names.json").write_text(content)
    with pytest.raises(UserError, match=rf"names\.json.*{facts}"):
        read_names(tmp_path / "names.json")


def test_spots_are_found_in_the_frame_that_shows_them():
    """The face walks 8 pixels a frame: a spot belongs to the frame shown at its time."""
    times_s = steady(30)
    walker = track(1, times_s, 0, [SPEAKS] * 30, (0, 60, 10, 80))
    walker.boxes[:, 0::2] += 8 * np.arange(30)[:, None]
    video = detected([walker], times_s, persons=[Person(1, (1,))])
    for time_s, x, name in ((0.4, 85, "Ann"), (0.4, 77, None), (0.3996, 85, "Ann")):
        found = with_names(video, [NamedPerson("Ann", ((time_s, x, 70),))])
        assert found.persons[0].name == name
