"""evaluate.py --people: outputs of detect.py beside who is who, every number by hand on a toy."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detections import SILENT, SPEAKS, detected, steady, track
from tiny import exit_status

import evaluate
from core.detection.results import DetectedVideo, Person
from core.outputs.files import write_outputs

LEFT, RIGHT, FAR = (32, 60, 96, 180), (192, 60, 256, 180), (280, 200, 310, 236)  # pixels of 320 x 240
PEOPLE = {"a:1": "Alice", "a:2": "Bob", "a:3": "Bob", "a:4": "Alice"}


def annotations(path: Path, speaking: dict[str, range]) -> Path:
    """Two shots of 1 s: Alice left and Bob right, then the other way round; some frames speak."""
    rows = []
    for entity, box, frames in (
        ("a:1", LEFT, range(25)),
        ("a:2", RIGHT, range(25)),
        ("a:3", LEFT, range(25, 50)),
        ("a:4", RIGHT, range(25, 50)),
    ):
        sides = ",".join(f"{side / size:.6f}" for side, size in zip(box, (320, 240) * 2, strict=True))
        for frame in frames:
            label = "SPEAKING_AUDIBLE" if frame in speaking.get(entity, ()) else "NOT_SPEAKING"
            rows.append(f"a,{frame / 25:.2f},{sides},{label},{entity}\n")
    path.write_text("".join(rows))
    return path


def outputs(
    folder: Path,
    persons: list[Person] | None,
    formats: tuple[str, ...] = ("json", "rttm"),
    name: str = "a",
    start_s: float = 0.0,
) -> DetectedVideo:
    """Alice speaks in the first shot, Bob from 1.4 s on; a fifth track is no annotated face."""
    times_s = start_s + steady(50)
    tracks = [
        track(1, times_s, 0, [SPEAKS] * 25, box=LEFT),
        track(2, times_s, 0, [SILENT] * 25, box=RIGHT),
        track(3, times_s, 25, [SILENT] * 10 + [SPEAKS] * 15, box=LEFT, shot=1),
        track(4, times_s, 25, [SILENT] * 25, box=RIGHT, shot=1),
        track(5, times_s, 25, [SILENT] * 25, box=FAR, shot=1),
    ]
    video = replace(detected(tracks, times_s, path=f"{name}.mp4", cuts=(25,), persons=persons), start_s=start_s)
    write_outputs(folder / f"{name}.asd", video, formats)
    return video


@pytest.fixture
def run(tmp_path):
    """Evaluate outputs in `out`; the exit status and the results."""
    annotations(tmp_path / "gt.csv", {"a:1": range(25), "a:3": range(25, 50)})
    (tmp_path / "people.csv").write_text(
        "video_id,entity_id,person\n" + "".join(f"a,{e},{p}\n" for e, p in PEOPLE.items())
    )

    def run(*options: object) -> tuple[int, dict]:
        given = [
            "--groundtruth",
            tmp_path / "gt.csv",
            "--predictions",
            tmp_path / "out",
            "--people",
            tmp_path / "people.csv",
        ]
        status = exit_status(evaluate.main, *given, "--json", tmp_path / "result.json", *options)
        path = tmp_path / "result.json"
        return status, json.loads(path.read_text()) if path.exists() else {}

    return run


@pytest.mark.parametrize("start_s", [0.0, 7200.04])  # annotations count from the file's beginning
def test_right_persons(run, tmp_path, capsys, start_s):
    outputs(tmp_path / "out", [Person(1, (1, 4), "X"), Person(2, (2, 3)), Person(3, (5,))], start_s=start_s)
    status, result = run()
    assert status == 0
    assert (result["videos"], result["tracks"], result["matched"]) == (1, 5, 4)
    assert result["pairs"] == {"same": 2, "found": 2, "both": 2, "f1": 1.0, "precision": 1.0, "recall": 1.0}
    assert result["diarisation"] == pytest.approx(
        {"total": 2.0, "missed": 0.4, "false_alarm": 0, "confusion": 0, "rate": 0.2}
    )
    assert capsys.readouterr().out.startswith("pairwise F1: 1.0\n")


@pytest.mark.parametrize(
    ("persons", "pairs", "confusion"),
    [
        # by their position: Alice is the first for 1 s, and Bob's 0.6 s are said to be hers
        ([Person(1, (1, 3)), Person(2, (2, 4)), Person(3, (5,))], (2, 2, 0), 0.6),
        ([Person(1, (1, 2, 3, 4)), Person(2, (5,))], (2, 6, 2), 0.6),
        ([Person(number, (number,)) for number in range(1, 6)], (2, 0, 0), 0),
        (None, (2, 0, 0), 0),  # not told apart: each track is somebody
    ],
)
def test_wrong_persons(run, tmp_path, persons, pairs, confusion):
    outputs(tmp_path / "out", persons)
    _, result = run()
    assert tuple(result["pairs"][key] for key in ("same", "found", "both")) == pairs
    assert result["pairs"]["f1"] == pytest.approx(2 * pairs[2] / (pairs[0] + pairs[1]))
    assert result["diarisation"]["confusion"] == pytest.approx(confusion)
    assert result["diarisation"]["missed"] == pytest.approx(0.4)


def test_a_single_folder_without_rttm_and_other_videos(run, tmp_path):
    outputs(tmp_path / "out", None, ("json",))
    outputs(tmp_path / "out", None, name="b")
    _, result = run()
    assert result["diarisation"] is None
    assert (result["other_videos"], result["missed_videos"]) == (["b"], [])
    assert len(result["notes"]) == 2
    _, single = run("--predictions", tmp_path / "out" / "a.asd")
    assert single["tracks"] == result["tracks"] == 5


@pytest.mark.parametrize(
    ("file", "content", "facts"),
    [
        ("people.csv", "video,entity,person\n", "header"),
        ("people.csv", "video_id,entity_id,person\na,a:1,Alice\na,a:1,Bob\n", "line 3.*once"),
        ("people.csv", "video_id,entity_id,person\na,a:1,Alice\n", "a:2"),
        ("people.csv", None, r"people\.csv.*read"),
        ("out/a.asd/speakers.json", "{}", r"speakers\.json"),
        ("out/a.asd/speakers.json", None, "no .*speakers"),
        ("out/a.asd/a.rttm", "SPEAKER a 1 now 2\n", r"a\.rttm, line 1"),
    ],
)
def test_files_that_are_not_of_their_form_are_refused(run, tmp_path, capsys, file, content, facts):
    outputs(tmp_path / "out", None)
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    assert run()[0] == 2
    assert re.search(facts, capsys.readouterr().err)


@pytest.mark.parametrize("option", [["--detected"], ["--plot", "a.png"], ["--frame-size", "1x1"], ["--columbia", "x"]])
def test_what_does_not_go_with_people_is_refused(run, option, capsys):
    assert run(*option)[0] == 2
    assert option[0].strip("-") in capsys.readouterr().err


def test_turns_of_annotations_have_the_length_of_their_rows(tmp_path):
    """Rows at 10 a second last 0.1 s each, so that speech has its length."""
    from core.evaluation.official import read_groundtruth
    from core.people.evaluation import true_turns

    rows = [
        f"a,{n / 10:.2f},0.1,0.1,0.2,0.2,{'SPEAKING_AUDIBLE' if n in (2, 3, 8) else 'NOT_SPEAKING'},a:1\n"
        for n in (*range(5), 8, 9)
    ]
    (tmp_path / "slow.csv").write_text("".join(rows))
    turns = true_turns(read_groundtruth([tmp_path / "slow.csv"]), {("a", "a:1"): "Alice"})["a"]
    assert np.array([turn[:2] for turn in turns]) == pytest.approx(np.array([[0.2, 0.3], [0.3, 0.4], [0.8, 0.9]]))
