"""What detect.py has written about a video, read again, together with the video."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.media.container import MediaFile
from core.outputs.speech import Segment
from core.runtime import elsewhere
from core.runtime.errors import UserError
from core.runtime.files import read_json
from core.runtime.provenance import Files, Record, read_record

NAME = "speakers.json"
SLACK_S = 1e-3  # its times are rounded to less than that
REMEDY = "run detect.py again"


@dataclass(frozen=True, eq=False)
class SeenFace:
    """A face track.

    Attributes:
        id: the track's.
        shot: index into the video's shots.
        person: what readers call who it shows: a name, "Person 2", or "Face 2" where persons were not told apart.
        number: the person's, or the track's where persons were not told apart.
        times_s: (n,) float64, seconds, as a player shows them.
        boxes: (n, [x1, y1, x2, y2]) float64, pixels of the displayed frame.
        scores: (n,) float64, log odds of speaking; NaN where the video has no audio.
        probabilities: (n,) float64, 0 to 1, of speaking; likewise.
        end_s: where the last frame gives way to the next.
        speech: in order.
    """

    id: int
    shot: int
    person: str
    number: int
    times_s: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    end_s: float
    speech: list[Segment]


@dataclass(frozen=True)
class Results:
    """A video and what was found in it.

    Attributes:
        path: of speakers.json.
        video: the video that it is about.
        has_audio: whether speech could be looked for.
        shots_s: start and end of each shot, seconds, as a player shows them.
        faces: in order of id.
        streams: arguments of `MediaFile`: which were asked for.
        complete: False where something of the file could not be decoded.
    """

    path: Path
    video: Path
    has_audio: bool
    shots_s: list[tuple[float, float]]
    faces: list[SeenFace]
    streams: dict[str, Any]
    complete: bool

    def of_persons(self, chosen: Iterable[str]) -> "Results":
        """The same with the faces of some persons only; of all where none is chosen.

        Args:
            chosen: names, such as "Zoë" or "Person 2", or numbers.

        Raises:
            UserError: there is no such person.
        """
        known = {key: face.person for face in self.faces for key in (str(face.number), face.person)}
        if absent := [person for person in chosen if person not in known]:
            people = dict.fromkeys(f"{face.number} ({face.person})" for face in self.faces)
            raise UserError(f"--persons {absent[0]}: {self.path} has {', '.join(people) or 'nobody'}")
        persons = {known[person] for person in chosen}
        return replace(self, faces=[face for face in self.faces if not persons or face.person in persons])

    def open(self) -> MediaFile:
        """The video, on the clock of the results.

        Raises:
            MediaError: it cannot be opened.
        """
        return MediaFile(elsewhere.bring(self.video), tolerant=not self.complete, as_played=True, **self.streams)


def read_results(folder: str | Path, video: Path | None = None) -> Results:
    """Read the outputs of detect.py.

    Args:
        folder: `<video>.asd`, with speakers.json.
        video: where the video is now; by default where it was, or beside the folder.

    Raises:
        UserError: there is no such folder or file, it is not as detect.py writes it, or the video is gone or another.
    """
    folder = Path(folder)
    if not elsewhere.is_folder(folder):
        raise UserError(f"no folder {folder}: give one that detect.py has written, such as interview.asd")
    path = folder / NAME
    if not elsewhere.is_file(path):
        raise UserError(f"{folder} holds no {NAME}: run detect.py with json among its formats")
    document = read_json(elsewhere.bring(path), REMEDY)
    try:
        name = document["video"]["file"]
        return Results(
            path,
            _find_video(folder, name, video),
            document["video"]["sound"] is not None,
            [(float(shot["start_s"]), float(shot["end_s"])) for shot in document["shots"]],
            _faces(document),
            {key: document["settings"].get(key) for key in ("video_stream", "audio_stream")},
            document["video"]["complete"],
        )
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not as detect.py writes it ({error!r}): {REMEDY}") from error


def _faces(document: dict[str, Any]) -> list[SeenFace]:
    persons = {person["id"]: person["name"] or f"Person {person['id']}" for person in document["persons"] or ()}
    faces = []
    for track in document["tracks"]:
        times_s, boxes = np.array(track["times_s"], np.float64), np.array(track["boxes"], np.float64)
        scores, probabilities = (
            np.full(len(times_s), np.nan) if track[name] is None else np.array(track[name], np.float64)
            for name in ("scores", "probabilities")
        )
        shapes = boxes.shape, scores.shape, probabilities.shape
        if not len(times_s) or shapes != ((len(times_s), 4), times_s.shape, times_s.shape):
            raise ValueError(f"track {track['id']} has not as many boxes, scores or probabilities as times")
        for part in track["speech"]:
            if not times_s[0] - SLACK_S <= part["start_s"] < part["end_s"]:
                raise ValueError(f"speech of track {track['id']} from {part['start_s']} to {part['end_s']} s")
            if part["start_s"] > times_s[-1] + SLACK_S:
                raise ValueError(f"speech of track {track['id']} at {part['start_s']} s, after its last frame")
        if track["end_s"] < times_s[-1]:
            raise ValueError(f"track {track['id']} ends at {track['end_s']} s, before its last frame")
        faces.append(
            SeenFace(
                track["id"],
                track["shot"],
                persons[track["person"]] if persons else f"Face {track['id']}",
                track["person"] if persons else track["id"],
                times_s,
                boxes,
                scores,
                probabilities,
                float(track["end_s"]),
                [Segment(part["start_s"], part["end_s"], part["probability"]) for part in track["speech"]],
            )
        )
    return faces


def _find_video(folder: Path, name: str, given: Path | None) -> Path:
    """The video that outputs were made of; see `read_results`."""
    record = read_record(folder, "outputs")
    noted = (record or {"notes": {}})["notes"].get("video")
    places = [given] if given is not None else [*([elsewhere.copy_of(noted)] if noted else []), folder.parent / name]
    video = next((place for place in places if elsewhere.is_file(place)), None)
    if video is None:
        looked = ", nor ".join(map(str, dict.fromkeys(places)))
        raise UserError(f"the video of {folder} is not at {looked}: say with --video where it is now")
    if record and "video" in Record(folder, "outputs", record["step"], {"video": Files.one(video)}).differences():
        raise UserError(f"{video} is not the file that {folder} was made of: give that with --video, or {REMEDY}")
    return video
