"""The evaluation script: the official number, the break-downs, and each file that it refuses, with its line.

Detected tracks and the Columbia protocol are tested number by number in test_detected_evaluation.py and
test_columbia.py; here it is what the script makes of them.
"""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import exit_status
from videos import encode

import evaluate
from core.evaluation.official import read_groundtruth, read_predictions, scores_of
from core.formats import ava
from core.runtime.provenance import Record

ROOT = Path(__file__).resolve().parents[1]
OFFICIAL = ROOT / "tests" / "fixtures" / "official_tool"

# Two videos; one, two and three faces in a frame; boxes of 0.05, 0.1 and 0.2 of the frame's width.
TRUTH = [
    "a,1.00,0.30,0.1,0.35,0.2,SPEAKING_AUDIBLE,a:0",
    "a,1.10,0.30,0.1,0.40,0.2,NOT_SPEAKING,a:0",
    "a,1.10,0.50,0.1,0.70,0.2,SPEAKING_AUDIBLE,a:1",
    "-b,1.10,0.10,0.1,0.15,0.2,SPEAKING_NOT_AUDIBLE,-b:0",
    "-b,1.10,0.20,0.1,0.25,0.2,SPEAKING_AUDIBLE,-b:1",
    "-b,1.10,0.60,0.1,0.80,0.2,NOT_SPEAKING,-b:2",
]
SCORES = ["0.9", "0.8", "0.7", "0.6", "0.5", "0.4"]
AVERAGE_PRECISION = (1 + 2 / 3 + 3 / 5) / 3  # ranks 1, 3 and 5 speak


def predicted(scores=SCORES):
    rows = []
    for line, score in zip(TRUTH, scores, strict=True):
        fields = line.split(",")
        fields[6] = "SPEAKING_AUDIBLE"
        rows.append(",".join([*fields, score]))
    return rows


GOOD = predicted()


def write(path, rows):
    path.write_text("".join(f"{row}\n" for row in rows))
    return str(path)


@pytest.fixture
def files(tmp_path):
    """Ground truth and predictions."""
    return write(tmp_path / "gt.csv", TRUTH), write(tmp_path / "p.csv", GOOD)


@pytest.fixture
def results(files, capsys):
    """The results as JSON of predictions, the good ones by default."""

    def results(*options, groundtruth=(files[0],), predictions=files[1]):
        words = ("--groundtruth", *groundtruth, "--predictions", predictions, "--json", "-", *options)
        assert exit_status(evaluate.main, *words) == 0
        return json.loads(capsys.readouterr().out)

    return results


@pytest.fixture
def refusal(files, capsys):
    """The one line that is printed where the good files, or what `options` put in their place, are refused."""

    def refusal(*options, source=("--groundtruth", files[0]), predictions=files[1]):
        assert exit_status(evaluate.main, *source, "--predictions", predictions, *options) == 2
        printed = capsys.readouterr()
        assert (printed.out, printed.err.count("\n")) == ("", 1)
        return printed.err

    return refusal


def groups(document, key, *columns):
    """Group -> its numbers."""
    return {name: tuple(numbers[column] for column in columns) for name, numbers in document[key].items()}


def test_numbers_by_hand(results):
    document = results("--frame-size", "1280x720")
    assert document["average_precision"] == pytest.approx(AVERAGE_PRECISION, abs=1e-12)
    assert document["chance"] == 0.5
    assert document["accuracy"] == pytest.approx(4 / 6)  # all but the scores 0.8 and 0.6 of silent rows
    assert document["roc_auc"] == pytest.approx((3 + 2 + 1) / 9)
    columns = ("rows", "positives", "average_precision")
    assert groups(document, "by_faces", *columns) == {"1": (1, 1, 1.0), "2": (2, 1, 0.5), "3+": (3, 1, 0.5)}
    # Widths 64, 128, 256 in video a; 64, 64, 256 in video -b.
    assert groups(document, "by_face_width", *columns) == {
        "< 64 px": (0, 0, None),
        "64-128 px": (4, 2, pytest.approx((1 + 2 / 4) / 2)),
        "> 128 px": (2, 1, 1.0),
    }
    assert (document["left_out"], len(document["notes"])) == (None, 1)  # nothing says that the ground truth is whole
    assert document["files"] == [{key: document[key] for key in document["files"][0]}]


T_OF_TWO = 12.7062047  # Student's t of one degree of freedom, 97.5 %


def test_intervals_by_hand(results):
    """Two videos: the error of the mean of two numbers is half of their difference."""
    intervals = results("--intervals", "--frame-size", "1280x720")["intervals"]
    of_a, of_b = (1 + 2 / 3) / 2, 1 / 2
    margin = pytest.approx(T_OF_TWO * (of_a - of_b) / 2)
    assert intervals["average_precision"] == {
        "value": pytest.approx(AVERAGE_PRECISION),
        "margin": margin,
        "videos": 2,
    }
    assert intervals["by_faces"] == {"1": None, "2": None, "3+": None}  # each of one video
    # One face of video a, wide 64 and 128 pixels, speaks: its scores are 0.9 and 0.8; of -b's 0.6 and 0.5 the second.
    assert intervals["by_face_width"]["64-128 px"]["margin"] == pytest.approx(T_OF_TWO * (1 - 1 / 2) / 2)
    assert (intervals["by_category"], intervals["difference"]) == (None, None)


def test_differences_are_of_the_same_videos(files, tmp_path, capsys):
    right = write(tmp_path / "right.csv", predicted(["0.9", "0.1", "0.7", "0.2", "0.5", "0.4"]))
    options = "--intervals", "--json", "-"
    assert exit_status(evaluate.main, "--groundtruth", files[0], "--predictions", files[1], right, *options) == 0
    first, second = (result["intervals"] for result in json.loads(capsys.readouterr().out)["files"])
    assert (first["difference"], second["average_precision"]["margin"]) == (None, 0)
    assert second["difference"]["from"] == files[1]
    assert second["difference"]["average_precision"] == {
        "value": pytest.approx(1 - AVERAGE_PRECISION),
        "margin": pytest.approx(first["average_precision"]["margin"]),
        "videos": 2,
    }


def test_intervals_are_printed(files, tmp_path, capsys):
    again = write(tmp_path / "again.csv", GOOD)
    words = "--groundtruth", files[0], "--predictions", files[1], again, "--intervals"
    assert exit_status(evaluate.main, *words) == 0
    first, second = capsys.readouterr().out.split("\n\n")
    number = rf"{AVERAGE_PRECISION:.4f} ± {T_OF_TWO / 6:.4f}"
    assert re.search(rf"^  all +{number} +2$", first, re.MULTILINE)
    assert re.search(rf"^  all +{number} +2 +\+0\.0000 ± 0\.0000$", second, re.MULTILINE)


def test_intervals_are_of_the_official_numbers_where_scores_are_equal(results, tmp_path):
    """Within a group equal scores come in another order than the group's rows have among all."""
    generator = np.random.default_rng(0)
    truth, scored = [], []
    for video, frame in itertools.product("abc", range(100)):
        for face in range(1 + frame % 3):
            label = generator.choice(["SPEAKING_AUDIBLE", "NOT_SPEAKING"])
            row = f"{video},{frame}.00,0.1,0.1,0.2,0.2"
            truth.append(f"{row},{label},{video}:{face}")
            scored.append(f"{row},SPEAKING_AUDIBLE,{video}:{face},{generator.integers(10) / 10}")
    paths = write(tmp_path / "tied.csv", truth), write(tmp_path / "scored.csv", scored)
    document = results("--intervals", groundtruth=paths[:1], predictions=paths[1])
    intervals = document["intervals"]
    assert intervals["average_precision"]["value"] == pytest.approx(document["average_precision"], abs=1e-12)
    for group in ("1", "2", "3+"):
        official = document["by_faces"][group]["average_precision"]
        assert intervals["by_faces"][group]["value"] == pytest.approx(official, abs=1e-12)


def test_one_video_has_no_interval(refusal, tmp_path):
    truth = write(tmp_path / "one.csv", TRUTH[:3])
    message = refusal("--intervals", source=("--groundtruth", truth), predictions=write(tmp_path / "q.csv", GOOD[:3]))
    assert "--intervals" in message


def test_order_of_predictions_and_way_of_writing_numbers_do_not_matter(results, tmp_path):
    rewritten = [row.replace("1.10,", "1.1,", 1).replace("0.30,", "0.3,") for row in reversed(GOOD)]
    assert not set(rewritten) <= set(GOOD)
    again = results(predictions=write(tmp_path / "other.csv", rewritten))
    assert {**again, "predictions": "", "files": []} == {**results(), "predictions": "", "files": []}


@pytest.fixture
def folder(tmp_path):
    """The ground truth as a folder of one csv a video."""
    (tmp_path / "annotations").mkdir()
    write(tmp_path / "annotations" / "-b-activespeaker.csv", TRUTH[3:])
    write(tmp_path / "annotations" / "a-activespeaker.csv", TRUTH[:3])
    return tmp_path / "annotations"


def test_ground_truth_of_several_files_or_a_folder(results, refusal, folder):
    expected = results()["by_faces"]
    assert results(groundtruth=[folder])["by_faces"] == expected
    assert results(groundtruth=sorted(folder.iterdir(), reverse=True))["by_faces"] == expected
    write(folder / "a-activespeaker.csv", changed(2, "SPEAKING_AUDIBLE", "MAYBE", TRUTH[:3]))
    message = refusal(source=("--groundtruth", folder))
    assert all(fact in message for fact in ("a-activespeaker.csv, line 3", "'MAYBE'"))


def test_several_predictions_as_text_json_and_plot(files, tmp_path, capsys):
    second = write(tmp_path / "STE$^$.csv", predicted(list(reversed(SCORES))))
    plot, report = tmp_path / "pr.png", tmp_path / "report.json"
    words = ("--groundtruth", files[0], "--predictions", files[1], second, "--plot", plot, "--json", report)
    assert exit_status(evaluate.main, *words) == 0
    text = capsys.readouterr().out
    numbers = re.findall(r"^average precision: (.*)", text, re.MULTILINE)
    assert text.startswith(f"average precision: {AVERAGE_PRECISION!r}\n")  # in full
    assert "face width " not in text
    assert "--frame-size" in text  # says why that table is absent
    document = json.loads(report.read_text())
    assert [entry["predictions"] for entry in document["files"]] == [files[1], second]
    assert [entry["average_precision"] for entry in document["files"]] == [*map(float, numbers)]
    assert document["average_precision"] == AVERAGE_PRECISION != float(numbers[1])
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".part-*"))


def test_ties_and_scores_that_are_no_probabilities_are_noted(results, tmp_path):
    document = results(predictions=write(tmp_path / "constant.csv", predicted(["0.5"] * 6)))
    assert document["ties"] == {"share": 1, "lowest": 0.5, "highest": 1}
    assert "100.0%" in document["notes"][0]
    assert document["roc_auc"] == 0.5
    document = results(predictions=write(tmp_path / "logits.csv", predicted(["9", "8", "7", "6", "5", "-4e-1"])))
    assert document["average_precision"] == pytest.approx(AVERAGE_PRECISION, abs=1e-12)
    assert "from -0.4 to 9" in document["notes"][1]


def test_frame_widths_come_from_the_videos(results, refusal, tmp_path):
    videos = tmp_path / "videos"
    for name, split, width in (("a", "train", 1280), ("-b", "val", 640)):
        (videos / split).mkdir(parents=True)
        encode(videos / split / f"{name}.mp4", [np.zeros((36, width, 3), np.uint8)])
    # Video -b is half as wide now: its faces are 32, 32 and 128 pixels wide.
    counts = {"< 64 px": (2,), "64-128 px": (3,), "> 128 px": (1,)}
    assert groups(results("--videos", videos), "by_face_width", "rows") == counts
    (videos / "val" / "-b.mp4").unlink()
    assert "no video -b in" in refusal("--videos", videos)


def test_only_speaking_rows_leave_roc_auc_undefined(results, tmp_path):
    truth, predictions = write(tmp_path / "t.csv", TRUTH[:1]), write(tmp_path / "q.csv", GOOD[:1])
    document = results(groundtruth=[truth], predictions=predictions)
    assert (document["roc_auc"], document["average_precision"]) == (None, 1)


def test_files_of_others_are_read_as_they_are(results, files, tmp_path):
    """A `val_orig.csv`, augmented, with header, and the `val_res.csv` that pandas makes of it, numbers rewritten."""
    truth = pd.read_csv(files[0], header=None, names=ava.COLUMNS)
    augmented = truth.assign(label_id=truth["label"].map(ava.LABEL_IDS), instance_id=truth["entity_id"] + ":0")
    augmented.to_csv(tmp_path / "val_orig.csv", index=False)
    augmented.to_csv(tmp_path / "no_header.csv", index=False, header=False)
    scored = augmented.assign(score=np.float32(SCORES), label="SPEAKING_AUDIBLE")
    scored = scored.drop(columns=["label_id", "instance_id"])
    scored.to_csv(tmp_path / "val_res.csv", index=False)
    scored[scored.columns[::-1]].to_csv(tmp_path / "other_order.csv")
    unnamed = dict.fromkeys(("groundtruth", "predictions", "files"))
    for name, scores in itertools.product(("val_orig.csv", "no_header.csv"), ("val_res.csv", "other_order.csv")):
        found = results(groundtruth=[tmp_path / name], predictions=tmp_path / scores)
        assert found | unnamed == results() | unnamed


# ---- what is refused --------------------------------------------------------------------------------------------


def changed(row, old, new, rows=GOOD):
    """The rows with a text replaced in one of them, counted from 0."""
    assert old in rows[row]
    return [*rows[:row], rows[row].replace(old, new), *rows[row + 1 :]]


EXTRA = changed(0, "1.00", "1.20")[0]
OTHER_LABEL = "SPEAKING_AUDIBLE", "NOT_SPEAKING"
UNLABELLED = [row.replace("SPEAKING_AUDIBLE", "") for row in TRUTH]
SEVEN_COLUMNS = [",".join([*row.split(",")[:6], row.split(",")[7]]) for row in TRUTH]
HEADER = "video,frame_timestamp,x1,y1,x2,y2,label,entity,score"
NAMES = "video_id,frame_timestamp,entity_box_x1,entity_box_y1,entity_box_x2,entity_box_y2,label,entity_id,score"
FAULTY = {  # what is wrong: (the file with these rows, what the message names)
    "missing row": ("p.csv", GOOD[:4] + GOOD[5:], ["gt.csv, line 5: ", "-b:1 at 1.1 s", "p.csv"]),
    "missing rows": ("p.csv", GOOD[:4], ["gt.csv, line 5: ", "p.csv", "2 such rows"]),
    "extra row": ("p.csv", [*GOOD, EXTRA], ["p.csv, line 7: ", "a:0 at 1.2 s"]),
    "other entity": ("p.csv", changed(5, "-b:2", "-b:9"), ["p.csv, line 6: ", "-b:9 at 1.1 s"]),
    "other time": ("p.csv", changed(0, "1.00", "1.001"), ["p.csv, line 1: ", "a:0 at 1.001 s"]),
    "time of another entity": ("p.csv", changed(0, "a:0", "a:1"), ["p.csv, line 1: ", "a:1 at 1.0 s"]),
    "key twice": ("p.csv", [*GOOD, GOOD[1]], ["p.csv, line 7: ", "a:0 at 1.1 s", "p.csv, line 2"]),
    "key twice, one missing": ("p.csv", [*GOOD[:5], GOOD[1]], ["p.csv, line 6: ", "p.csv, line 2"]),
    "other box": (
        "p.csv",
        changed(1, "0.40", "0.400001"),
        ["p.csv, line 2: ", "entity_box_x2 is 0.400001", "gt.csv, line 2", "0.4;"],
    ),
    "other boxes": (
        "p.csv",
        [row.replace(",0.2,", ",0.3,") for row in reversed(GOOD)],
        ["p.csv, line 1: ", "entity_box_y2 is 0.3", "gt.csv, line 6", "6 such rows"],
    ),
    "other video": ("p.csv", changed(0, "a,", "c,"), ["p.csv, line 1: ", "video_id is c", "it is a;"]),
    "nan": ("p.csv", changed(3, ",0.6", ",nan"), ["p.csv, line 4: ", "score is nan"]),
    "infinite": ("p.csv", changed(3, ",0.6", ",-inf"), ["p.csv, line 4: ", "score is -inf"]),
    "no number": ("p.csv", changed(3, ",0.6", ",high"), ["p.csv, line 4: ", "score is 'high'"]),
    "empty score": ("p.csv", changed(3, ",0.6", ","), ["p.csv, line 4: ", "score is ''"]),
    "after an empty line": ("p.csv", [GOOD[0], "", *changed(1, ",0.8", ",x")[1:]], ["p.csv, line 3: ", "score is 'x'"]),
    "other label": ("p.csv", changed(2, *OTHER_LABEL), ["p.csv, line 3: ", "'NOT_SPEAKING'"]),
    "short row": ("p.csv", [*GOOD[:2], TRUTH[2], *GOOD[3:]], ["p.csv, line 3: ", "8 columns", "9"]),
    "long row": ("p.csv", ["", *changed(1, ",0.8", ",0.8,1")], ["p.csv, line 3: ", "10 columns", "9"]),
    "header": ("p.csv", [HEADER, *GOOD], ["p.csv: ", "does not name video_id, ", "entity_box_x1", "entity_id once"]),
    "carriage returns": ("p.csv", ["\r".join(GOOD), "x"], ["p.csv, line 7: ", "1 columns", "9"]),
    "below a header": ("p.csv", [NAMES, *changed(1, ",0.8", ",x")], ["p.csv, line 3: ", "score is 'x'"]),
    "empty": ("p.csv", [], ["p.csv", "mpty"]),
    "empty lines only": ("p.csv", ["", ""], ["p.csv has no rows"]),
    "no positive": ("gt.csv", [row.replace(*OTHER_LABEL) for row in TRUTH], ["gt.csv: ", "6 rows", "SPEAKING_AUDIBLE"]),
    "no labels": ("gt.csv", UNLABELLED, ["gt.csv, line 1: ", "label is ''", "3 such rows"]),
    "no label column": ("gt.csv", SEVEN_COLUMNS, ["gt.csv, line 1: ", "7 columns", "8"]),
    "unknown label": ("gt.csv", changed(1, "NOT_SPEAKING", "SILENT", TRUTH), ["gt.csv, line 2: ", "'SILENT'"]),
    "truth twice": ("gt.csv", [*TRUTH, TRUTH[4]], ["gt.csv, line 7: ", "-b:1 at 1.1 s", "gt.csv, line 5"]),
    "time as text": ("gt.csv", [*TRUTH, TRUTH[2].replace("1.10", "1.1")], ["gt.csv, line 7: ", "gt.csv, line 3"]),
    "late": ("gt.csv", changed(4, "1.10", "late", TRUTH), ["gt.csv, line 5: ", "frame_timestamp is 'late'"]),
    "box of nan": ("gt.csv", changed(4, "0.25", "nan", TRUTH), ["gt.csv, line 5: ", "entity_box_x2 is nan"]),
    "predictions as truth": ("gt.csv", GOOD, ["gt.csv, line 1: ", "9 columns", "8"]),
}


@pytest.mark.parametrize("case", FAULTY)
def test_faulty_files_are_refused(case, refusal, tmp_path):
    name, rows, facts = FAULTY[case]
    write(tmp_path / name, rows)
    message = refusal()
    assert all(fact in message for fact in facts), message


def test_line_numbers_hold_far_into_a_large_file(refusal, tmp_path):
    # Longer than several of the reader's blocks, each of which counts its rows anew.
    rows = [f"a,{index / 25:.2f},0.1,0.1,0.2,0.2,SPEAKING_AUDIBLE,a:0,0.123456789" for index in range(60_000)]
    rows[300:300] = [""]
    for score, fact in ((",x", "'x'"), ("", "8 columns")):
        message = refusal(predictions=write(tmp_path / "p.csv", changed(50_000, ",0.123456789", score, rows)))
        assert "p.csv, line 50001: " in message
        assert fact in message


@pytest.mark.parametrize(
    "arguments",
    [
        "--frame-size 1280",
        "--frame-size 0x720",
        f"--frame-size {'9' * 5000}x720",
        "--videos nowhere",
        "--plot pr.txt",
        "--predictions nowhere.csv",
        "--groundtruth nowhere.csv",
        "--iou 0.5",  # goes with --detected
        "--iou 0 --detected",
        "--iou 50 --detected",
        "--iou nan --detected",
        "--fps 25",  # goes with --columbia
    ],
)
def test_wrong_arguments_are_refused(arguments, refusal):
    option, value = arguments.split()[:2]
    assert (value if value.startswith("nowhere") else option) in refusal(*arguments.split())


# ---- detected tracks --------------------------------------------------------------------------------------------


def on_own_tracks(shift=0.01):
    """The predictions with boxes a little off, other entity ids, and one box where nobody is."""
    rows = []
    for index, row in enumerate(GOOD):
        fields = row.split(",")
        fields[3], fields[5], fields[7] = f"{float(fields[3]) + shift}", f"{float(fields[5]) + shift}", f"{index}"
        rows.append(",".join(fields))
    return [*rows, "a,1.10,0.8,0.8,0.9,0.9,SPEAKING_AUDIBLE,7,0.95"]


def test_the_record_beside_a_ground_truth_says_what_it_lacks(results, refusal, files):
    path = Path(files[0])
    path.unlink()
    with Record(path.parent, "gt", "ground truth", {"left_out": 2}).making(["gt.csv"]):
        write(path, TRUTH)
    document = results("--frame-size", "1280x720")
    assert (document["left_out"], "2 of 8" in document["notes"][0]) == (2, True)
    write(path, [*TRUTH[:-1], TRUTH[-1].replace("NOT_SPEAKING", "SPEAKING_AUDIBLE")])
    assert str(path) in refusal()


@pytest.fixture
def detected(tmp_path):
    return write(tmp_path / "detected.csv", on_own_tracks())


def test_predictions_on_detected_tracks(results, refusal, detected, folder):
    assert "entity 0 at 1.0 s" in refusal(predictions=detected)
    document = results("--detected", "--frame-size", "1280x720", predictions=detected)
    counts = {"annotated": 6, "predicted": 7, "matched": 6}
    assert document["faces"] == counts | {"recall": 1, "precision": pytest.approx(6 / 7)}
    assert document["average_precision"] == pytest.approx(1 / 2)  # the false face comes first: ranks 2, 4, 6 speak
    assert document["average_precision_matched"] == pytest.approx(AVERAGE_PRECISION)
    assert document["by_face_width"]["> 128 px"]["annotated"] == 2
    assert len(document["files"][0]["notes"]) == 1  # nothing says that the ground truth is whole, as annotations are
    of_folder = results("--detected", "--frame-size", "1280x720", groundtruth=[folder], predictions=detected)
    assert (of_folder["left_out"], of_folder["notes"]) == (0, [])
    same = {"groundtruth": 0, "left_out": 0, "notes": 0, "files": 0}
    assert of_folder | same == document | same
    # An overlap of 9/11 is not enough.
    assert results("--detected", "--iou", "0.95", predictions=detected)["faces"]["matched"] == 0


def test_differences_on_detected_tracks(results, detected, tmp_path):
    better = write(tmp_path / "better.csv", on_own_tracks()[:-1])
    document = results("--detected", "--intervals", "--predictions", detected, better)
    difference = document["files"][1]["intervals"]["difference"]
    assert (difference["from"], difference["average_precision"]["videos"]) == (detected, 2)
    assert difference["average_precision"]["value"] == pytest.approx(AVERAGE_PRECISION - 1 / 2)


def test_detected_tracks_as_text_and_as_a_plot(files, detected, tmp_path, capsys):
    missed = write(tmp_path / "missed.csv", on_own_tracks()[-1:])
    plot, report = tmp_path / "pr.png", tmp_path / "all.json"
    words = ("--groundtruth", files[0], "--predictions", detected, missed, "--plot", plot, "--json", report)
    assert exit_status(evaluate.main, *words, "--detected") == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert float(first.splitlines()[0].removeprefix("average precision: ")) == pytest.approx(1 / 2)
    assert re.search(r"^faces right \(precision\) +0\.8571  6 of 7 predicted$", first, re.MULTILINE)
    assert re.search(r"^  3\+ +0\.5000 +1\.0000 +1\.0000 +3$", first, re.MULTILINE)
    assert second.startswith("average precision: 0.0\n")
    assert re.search(r"^accuracy at 0\.5, matched faces only +-  of 0$", second, re.MULTILINE)
    assert re.search(r"^note: 1 of 2 videos .*: -b$", second, re.MULTILINE)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert len(json.loads(report.read_text())["files"]) == 2


# ---- the Columbia protocol --------------------------------------------------------------------------------------


@pytest.fixture
def columbia(tmp_path):
    """Arguments: labels of two frames of one speaker, and predictions that find the first: F1 is 2 / 3."""
    (tmp_path / "labels").mkdir()
    write(tmp_path / "labels" / "bell.txt", ["0\t64\t36\t64\t1", "1\t64\t36\t64\t1"])
    box = f"{64 / 640},{36 / 360},{128 / 640},{100 / 360}"
    rows = [f"col,{time},{box},SPEAKING_AUDIBLE,1,0.9" for time in (0.0, 1.0)]
    return {"source": ("--columbia", tmp_path / "labels"), "predictions": write(tmp_path / "col.csv", rows)}


def test_columbia_protocol(columbia, refusal, tmp_path, capsys):
    words = (*columbia["source"], "--predictions", columbia["predictions"], "--json")
    assert exit_status(evaluate.main, *words, tmp_path / "f1.json") == 0
    text = capsys.readouterr().out
    assert float(text.splitlines()[0].removeprefix("mean F1: ")) == pytest.approx(2 / 3)
    assert re.search(r"^  bell +0\.6667 +0\.5000 +2 +2 +1$", text, re.MULTILINE)
    document = json.loads((tmp_path / "f1.json").read_text())
    assert document["columbia"] == str(tmp_path / "labels")
    assert document["speakers"]["bell"]["matched"] == 1
    assert (document["frame_size"], document["fps"]) == ([640, 360], 29.97)
    # At one frame per second the second label meets the second prediction.
    assert exit_status(evaluate.main, *words, "-", "--fps", "1") == 0
    assert json.loads(capsys.readouterr().out)["mean_f1"] == 1
    assert "1920x1080" in refusal("--frame-size", "1920x1080", **columbia)


@pytest.mark.parametrize("option", ["--fps 0", "--detected", "--videos videos", "--plot pr.png", "--intervals"])
def test_arguments_that_columbia_does_not_take_are_refused(option, columbia, refusal):
    assert option.split()[0] in refusal(*option.split(), **columbia)


# ---- the official tool ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", range(2))
def test_the_official_tools_files_in_any_order_of_predictions(shuffle):
    groundtruth = read_groundtruth([OFFICIAL / "gt.csv"])
    expected = scores_of(groundtruth, read_predictions(OFFICIAL / "pred_ties.csv"))
    shuffled = scores_of(groundtruth, read_predictions(OFFICIAL / f"pred_ties_shuf{shuffle}.csv"))
    assert shuffled.tolist() == expected.tolist()


def test_runs_as_a_script_without_loading_what_it_does_not_need(files):
    check = "import sys, evaluate; print(sorted({'torch', 'matplotlib', 'scipy', 'av'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
    command = [sys.executable, "evaluate.py", "--groundtruth", files[0], "--predictions", files[1]]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"average precision: {AVERAGE_PRECISION!r}\n")
