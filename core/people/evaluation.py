"""Persons that `detect.py` told apart beside the truth: which tracks are of one person, and who spoke when."""

import csv
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.evaluation.detected import some_of
from core.evaluation.matching import Faces, frame_interval, match
from core.evaluation.official import Groundtruth
from core.people.agreement import DiarisationErrors, Pairs, Turn
from core.runtime.errors import UserError
from core.runtime.files import read_json

SUFFIX = ".asd"  # of the folders that detect.py writes
People = Mapping[tuple[str, str], str]  # video id and entity id -> person


@dataclass(frozen=True)
class PersonTracks:
    """The tracks of one video, and what they were taken for.

    Attributes:
        video_id: the video's name without extension.
        persons: (tracks,) the person of each; the track itself where persons were not told apart.
        rows: (rows,) int64, the track of each box, from 0.
        times_s: (rows,) float64, seconds from the file's beginning, as annotations count.
        boxes: (rows, [x1, y1, x2, y2]) float64, fractions of the frame's width and height.
        turns: of speech, by the video's RTTM file; None where it has none.
    """

    video_id: str
    persons: list
    rows: np.ndarray
    times_s: np.ndarray
    boxes: np.ndarray
    turns: list[Turn] | None


def read_people(path: str | Path, groundtruth: Groundtruth) -> People:
    """Read a csv of `video_id,entity_id,person` with this header.

    Raises:
        UserError: the file is absent or not of this form, an entity is there twice, or one of the ground truth is not.
    """
    columns = ["video_id", "entity_id", "person"]
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}): expected a csv of {','.join(columns)}") from error
    if header != columns:
        raise UserError(f"{path}: the header is {','.join(header)[:80]!r}; expected {','.join(columns)}")
    people: dict[tuple[str, str], str] = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != 3 or tuple(row[:2]) in people:
            raise UserError(
                f"{path}, line {number}: {','.join(row)[:80]!r}; expected {','.join(columns)}, an entity once"
            )
        people[row[0], row[1]] = row[2]
    absent = [entity for entity in dict.fromkeys(_entities(groundtruth)) if entity not in people]
    if absent:
        raise UserError(
            f"{path} names no person of entity {absent[0][1]} of {absent[0][0]}, nor of {len(absent) - 1} more"
        )
    return people


def read_outputs(folder: str | Path) -> list[PersonTracks]:
    """Read what `detect.py` wrote: speakers.json, and RTTM files where they are there.

    Args:
        folder: a `<video>.asd` folder, or one of such folders.

    Raises:
        UserError: there is none, or a file in one is not as detect.py writes it.
    """
    folder = Path(folder)
    folders = [folder] if folder.suffix == SUFFIX else sorted(folder.glob(f"*{SUFFIX}"))
    files = [path for path in (one / "speakers.json" for one in folders) if path.is_file()]
    if not files:
        raise UserError(f"{folder} holds no *{SUFFIX}/speakers.json: give a folder that detect.py has written (--out)")
    return [_read_output(path) for path in files]


def _read_output(path: Path) -> PersonTracks:
    document = read_json(path, "run detect.py again")
    try:
        video, tracks = document["video"], document["tracks"]
        boxes = np.array([box for track in tracks for box in track["boxes"]], np.float64).reshape(-1, 4)
        times_s = np.array([time_s for track in tracks for time_s in track["times_s"]], np.float64)
        rows = np.repeat(np.arange(len(tracks)), [len(track["times_s"]) for track in tracks])
        video_id = Path(video["file"]).stem
        rttm = path.with_name(f"{video_id}.rttm")
        return PersonTracks(
            video_id,
            [track["id"] if document["persons"] is None else track["person"] for track in tracks],
            rows,
            times_s - video["start_s"],
            boxes / np.tile([video["width"], video["height"]], 2),
            read_rttm(rttm, video["start_s"]) if rttm.is_file() else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not as detect.py writes it ({error!r}): run detect.py again") from error


def read_rttm(path: str | Path, begins_s: float = 0.0) -> list[Turn]:
    """The turns of an RTTM file of one video.

    Args:
        path: of the file.
        begins_s: when the video begins, by the clock of the file; the turns count from there.

    Raises:
        UserError: a line is none of RTTM; with file and line.
    """
    turns = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split()
        try:
            if fields[0] == "SPEAKER":
                start_s = float(fields[3]) - begins_s
                turns.append((round(start_s, 6), round(start_s + float(fields[4]), 6), fields[7]))
        except (IndexError, ValueError):
            raise UserError(
                f"{path}, line {number}: {line[:80]!r}; expected the ten fields of RTTM, start and duration in seconds"
            ) from None
    return turns


def true_turns(groundtruth: Groundtruth, people: People) -> dict[str, list[Turn]]:
    """Video id -> who speaks when; a row lasts until the entity's next, or for as long as a row mostly does."""
    turns: dict[str, list[Turn]] = {video_id: [] for video_id in groundtruth.video_ids}
    times_s, speaking = groundtruth.rows.numbers("frame_timestamp"), groundtruth.speaking
    for (video_id, entity), rows in _rows_by_entity(groundtruth).items():
        order = rows[np.argsort(times_s[rows])]
        step = frame_interval(times_s[order])
        starts = times_s[order]
        ends = np.append(np.minimum(starts[1:], starts[:-1] + 1.5 * step), starts[-1:] + step)
        turns[video_id] += [
            (float(start), float(end), people[video_id, entity])
            for start, end in np.stack([starts, ends], axis=1)[speaking[order]].round(6)
        ]
    return turns


def true_persons(groundtruth: Groundtruth, people: People, videos: Sequence[PersonTracks]) -> list[list[str | None]]:
    """For each video the person of each of its tracks: that of most of the annotated faces it is matched with; None
    where it is matched with none.
    """
    numbers = {video_id: number for number, video_id in enumerate(groundtruth.video_ids)}
    starts = np.cumsum([0, *(len(video.persons) for video in videos)])
    annotated = Faces(
        groundtruth.rows.codes("video_id").astype(np.int64),
        groundtruth.rows.numbers("frame_timestamp"),
        groundtruth.rows.boxes(),
    )
    predicted = Faces(
        np.concatenate([np.full(len(video.rows), numbers[video.video_id]) for video in videos]),
        np.concatenate([video.times_s for video in videos]),
        np.concatenate([video.boxes for video in videos]),
    )
    tracks = np.concatenate([video.rows + start for video, start in zip(videos, starts[:-1], strict=True)])
    shown, matches = match(annotated, predicted)
    entities = _entities(groundtruth)
    votes: list[Counter] = [Counter() for _ in range(starts[-1])]
    for row, found in zip(shown.rows[matches >= 0], matches[matches >= 0], strict=True):
        votes[tracks[row]][people[entities[found]]] += 1
    persons = [vote.most_common(1)[0][0] if vote else None for vote in votes]
    return [persons[start:end] for start, end in itertools.pairwise(starts)]


def evaluate_people(
    name: str, groundtruth: Groundtruth, people: People, videos: Sequence[PersonTracks]
) -> dict[str, Any]:
    """Results of one folder of outputs, as the docstring of `evaluate.py` lists them.

    Raises:
        UserError: none of the videos is annotated.
    """
    others = sorted({video.video_id for video in videos} - set(groundtruth.video_ids))
    videos = [video for video in videos if video.video_id in groundtruth.video_ids]
    if not videos:
        raise UserError(f"{name}: its videos ({some_of(others)}) are none of the ground truth's")
    missed = sorted(set(groundtruth.video_ids) - {video.video_id for video in videos})
    pairs, matched = Pairs(), 0
    for video, persons in zip(videos, true_persons(groundtruth, people, videos), strict=True):
        known = [(person, taken) for person, taken in zip(persons, video.persons, strict=True) if person is not None]
        pairs += Pairs.of(*zip(*known, strict=True)) if known else Pairs()
        matched += len(known)
    with_turns = [video for video in videos if video.turns is not None]
    truth, errors = true_turns(groundtruth, people), DiarisationErrors()
    for video in with_turns:
        errors += DiarisationErrors.of(truth[video.video_id], video.turns)
    notes = [f"{len(missed)} annotated videos have no outputs and do not count: {some_of(missed)}"] * bool(missed)
    notes += [f"videos that are not annotated are left out: {some_of(others)}"] * bool(others)
    if len(with_turns) < len(videos):
        notes.append(f"{len(videos) - len(with_turns)} videos have no RTTM file and do not count for the error rate")
    return {
        "predictions": name,
        "videos": len(videos),
        "tracks": sum(len(video.persons) for video in videos),
        "matched": matched,
        "pairs": {**asdict(pairs), "f1": pairs.f1, "precision": pairs.precision, "recall": pairs.recall},
        "diarisation": {**asdict(errors), "rate": errors.rate} if with_turns else None,
        "missed_videos": missed,
        "other_videos": others,
        "notes": notes,
    }


def _entities(groundtruth: Groundtruth) -> list[tuple[str, str]]:
    """Video id and entity id of each row."""
    columns = (groundtruth.rows.table[name].chunk(0).to_pylist() for name in ("video_id", "entity_id"))
    return list(zip(*columns, strict=True))


def _rows_by_entity(groundtruth: Groundtruth) -> dict[tuple[str, str], np.ndarray]:
    rows: dict[tuple[str, str], list[int]] = {}
    for row, entity in enumerate(_entities(groundtruth)):
        rows.setdefault(entity, []).append(row)
    return {entity: np.array(numbers) for entity, numbers in rows.items()}
