"""Names that users give to persons, in a JSON file that is kept from run to run.

    {"interview.mp4": [
      {"person": 1, "name": "Alice", "seen": [[12.4, 512, 210], [31.08, 498, 233]]},
      {"person": 2, "name": null, "seen": [[12.4, 902, 250]]}
    ]}

Numbers of persons and tracks change with settings and versions, so a person is found again by where she is seen: each
of `seen` is a time in seconds and a position in pixels of the displayed frame, the middle of a face. `person` is the
number in the outputs of the last run, for those who read the file.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.detection.results import DetectedVideo, Person, Track
from core.runtime.errors import UserError
from core.runtime.files import atomic_write, read_json

Spot = tuple[float, float, float]  # time in seconds; x and y in pixels
TIME_DECIMALS, PIXEL_DECIMALS = 4, 1
TIME_SLACK_S = 1e-3


@dataclass(frozen=True)
class NamedPerson:
    """A person of the file.

    Attributes:
        name: None where nobody gave one.
        seen: where the person's tracks are.
        person: the number in the outputs; None where the video does not show the person any more.
    """

    name: str | None
    seen: tuple[Spot, ...]
    person: int | None = None


Names = Mapping[str, Sequence[NamedPerson]]  # file name of a video -> its persons


def read_names(path: str | Path) -> Names:
    """Read the file; no names where it is absent.

    Raises:
        UserError: it is not of this form.
    """
    if not Path(path).exists():
        return {}
    remedy = "mend it, or delete it to have it written anew"
    document = read_json(path, remedy)
    try:
        return {video: from_plain(persons) for video, persons in document.items()}
    except ValueError as error:
        raise UserError(f"{path}: {error}; {remedy}") from error


def write_names(path: str | Path, names: Names) -> None:
    """Write the file, a line for each person; whole or not at all."""
    videos = []
    for video, persons in names.items():
        lines = [f"\n  {json.dumps(person, ensure_ascii=False)}" for person in as_plain(persons)]
        videos.append(f"{json.dumps(video, ensure_ascii=False)}: [{','.join(lines)}\n]")
    with atomic_write(path) as temporary:
        temporary.write_text("{" + ",\n".join(videos) + "}\n", encoding="utf-8")


def as_plain(persons: Iterable[NamedPerson]) -> list[dict[str, Any]]:
    """Persons as the file's JSON has them."""
    return [{"person": one.person, "name": one.name, "seen": [list(spot) for spot in one.seen]} for one in persons]


def from_plain(persons: Any) -> list[NamedPerson]:
    """What `as_plain` gives, read again.

    Raises:
        ValueError: it is not of that form.
    """
    if not isinstance(persons, list):
        raise ValueError(f"{_shown(persons)} is no list of persons")
    return [_named_person(item) for item in persons]


def given(persons: Iterable[NamedPerson]) -> dict[str, list[Spot]]:
    """What the file makes of a video's outputs, as plain values: name ("" for none) -> where; empty without names."""
    spots: dict[str, list[Spot]] = {}
    for person in persons:
        spots.setdefault(person.name or "", []).extend(person.seen)
    return {name: sorted(where) for name, where in sorted(spots.items())} if any(spots) else {}


def with_names(video: DetectedVideo, persons: Sequence[NamedPerson]) -> DetectedVideo:
    """A video whose persons have the names of the file; persons of one name become one.

    A person gets the name, or none, of most of the file's spots that lie on the person's faces. A note says which names
    were not found.

    Args:
        video: with persons.
        persons: of the file.
    """
    person_of = video.person_of
    votes = {person.id: Counter() for person in video.persons}
    for one in persons:
        for spot in one.seen:
            if (track := _track_at(video.tracks, spot)) is not None:
                votes[person_of[track.id].id][one.name] += 1
    tracks_of: dict[str | int, list[int]] = {}  # name, or number where there is none -> tracks
    for person in video.persons:
        counts = votes[person.id]
        name = max(counts, key=lambda name: (counts[name], name is not None), default=None)
        tracks_of.setdefault(name or person.id, []).extend(person.tracks)
    named = [
        Person(number, tuple(sorted(tracks)), key if isinstance(key, str) else None)
        for number, (key, tracks) in enumerate(tracks_of.items(), start=1)
    ]
    absent = dict.fromkeys(one.name for one in persons if one.name and one.name not in tracks_of)
    notes = [f"Named, but not seen in this video: {', '.join(absent)}."] * bool(absent)
    return replace(video, persons=named, notes=[*video.notes, *notes])


def persons_seen(video: DetectedVideo) -> list[NamedPerson]:
    """The persons of a video as the file has them, each with the middle of each track."""
    tracks = {track.id: track for track in video.tracks}
    return [
        NamedPerson(person.name, tuple(_spot(tracks[number]) for number in person.tracks), person.id)
        for person in video.persons
    ]


def completed(before: Iterable[NamedPerson], now: Sequence[NamedPerson]) -> list[NamedPerson]:
    """What the file has to say of a video after a run: who is seen now, and the names that were not found."""
    names = {person.name for person in now}
    return [*now, *(replace(person, person=None) for person in before if person.name and person.name not in names)]


def _named_person(item: Any) -> NamedPerson:
    fields = item if isinstance(item, dict) else {}
    name, seen = fields.get("name"), fields.get("seen")
    if not (name is None or (isinstance(name, str) and name.strip() and name.isprintable())):
        raise ValueError(f"the name {_shown(name)} is neither null nor a text of one line")
    if not isinstance(seen, list) or not all(map(_is_spot, seen)):
        raise ValueError(f"{_shown(item)} has no list `seen` of [time in seconds, x, y]")
    return NamedPerson(name and name.strip(), tuple((spot[0], spot[1], spot[2]) for spot in seen), fields.get("person"))


def _is_spot(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(number) in (int, float) for number in value)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)[:80]


def _spot(track: Track) -> Spot:
    middle = len(track.frames) // 2
    x, y = (track.boxes[middle, :2] + track.boxes[middle, 2:]).astype(float) / 2
    return round(float(track.times_s[middle]), TIME_DECIMALS), round(x, PIXEL_DECIMALS), round(y, PIXEL_DECIMALS)


def _track_at(tracks: Sequence[Track], spot: Spot) -> Track | None:
    """The track whose face is around a spot; of several the one whose middle is nearest."""
    time_s, *point = spot
    near: list[tuple[float, Track]] = []
    for track in tracks:
        if track.times_s[0] - TIME_SLACK_S <= time_s <= track.times_s[-1] + TIME_SLACK_S:
            box = track.boxes[np.searchsorted(track.times_s, time_s + TIME_SLACK_S, "right") - 1]
            if (box[:2] <= point).all() and (point <= box[2:]).all():
                near.append((float(np.linalg.norm((box[:2] + box[2:]) / 2 - point)), track))
    return min(near, key=lambda item: item[0])[1] if near else None
