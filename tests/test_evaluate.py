"""The evaluation script: the official number, the break-downs, and each file that it refuses, with its line.

Detected tracks and the Columbia protocol are tested number by number in test_detected_evaluation.py and
test_columbia.py; here it is what the script makes of them.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from videos import encode

import evaluate
from core.evaluation.official import read_groundtruth, read_predictions, scores_of

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


def predicted(truth=TRUTH, scores=SCORES):
    rows = []
    for line, score in zip(truth, scores, strict=True):
        fields = line.split(",")
        fields[6] = "SPEAKING_AUDIBLE"
        rows.append(",".join([*fields, score]))
    return rows


def write(path, rows):
    path.write_text("".join(f"{row}\n" for row in rows))
    return str(path)


def run(*arguments):
    """Exit status of the script, run in this process."""
    with pytest.raises(SystemExit) as stop:
        evaluate.main([str(argument) for argument in arguments])
    return stop.value.code


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "gt.csv", TRUTH), write(tmp_path / "ASC.csv", predicted())


def results(capsys, groundtruth, *arguments):
    assert run("--groundtruth", groundtruth, *arguments, "--json", "-") == 0
    return json.loads(capsys.readouterr().out)


def test_numbers_by_hand(files, capsys):
    truth, predictions = files
    document = results(capsys, truth, "--predictions", predictions, "--frame-size", "1280x720")
    # Ranks 1, 3 and 5 speak: precision 1, 2/3, 3/5.
    assert document["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3, abs=1e-12)
    assert document["chance"] == 0.5
    assert document["accuracy"] == pytest.approx(4 / 6)  # all but the scores 0.8 and 0.6 of silent rows
    assert document["roc_auc"] == pytest.approx((3 + 2 + 1) / 9)
    assert document["by_faces"] == {
        "1": {"rows": 1, "positives": 1, "average_precision": 1.0},
        "2": {"rows": 2, "positives": 1, "average_precision": 0.5},
        "3+": {"rows": 3, "positives": 1, "average_precision": 0.5},
    }
    # Widths 64, 128, 256 in video a; 64, 64, 256 in video -b.
    assert document["by_face_width"] == {
        "< 64 px": {"rows": 0, "positives": 0, "average_precision": None},
        "64-128 px": {"rows": 4, "positives": 2, "average_precision": pytest.approx((1 + 2 / 4) / 2)},
        "> 128 px": {"rows": 2, "positives": 1, "average_precision": 1.0},
    }
    assert document["notes"] == []
    assert document["files"] == [{key: document[key] for key in document["files"][0]}]


def test_official_number_comes_first_and_in_full(files, capsys):
    truth, predictions = files
    assert run("--groundtruth", truth, "--predictions", predictions) == 0
    text = capsys.readouterr().out
    assert float(text.splitlines()[0].removeprefix("average precision: ")) == (1 + 2 / 3 + 3 / 5) / 3
    assert "face width " not in text
    assert "--frame-size" in text  # says why that table is absent


def test_order_of_predictions_and_way_of_writing_numbers_do_not_matter(files, tmp_path, capsys):
    truth, predictions = files
    expected = results(capsys, truth, "--predictions", predictions)
    rewritten = [row.replace("1.10,", "1.1,", 1).replace("0.30,", "0.3,") for row in reversed(predicted())]
    assert rewritten != list(reversed(predicted()))
    again = results(capsys, truth, "--predictions", write(tmp_path / "other.csv", rewritten))
    assert {**again, "predictions": "", "files": []} == {**expected, "predictions": "", "files": []}


def test_ground_truth_of_several_files_or_a_folder(files, tmp_path, capsys):
    truth, predictions = files
    folder = tmp_path / "annotations"
    folder.mkdir()
    parts = [
        write(folder / "-b-activespeaker.csv", TRUTH[3:]),
        write(folder / "a-activespeaker.csv", TRUTH[:3]),
    ]
    expected = results(capsys, truth, "--predictions", predictions)["by_faces"]
    assert results(capsys, folder, "--predictions", predictions)["by_faces"] == expected
    assert results(capsys, parts[0], parts[1], "--predictions", predictions)["by_faces"] == expected
    write(folder / "a-activespeaker.csv", [*TRUTH[:2], TRUTH[2].replace("SPEAKING_AUDIBLE", "MAYBE")])
    assert run("--groundtruth", folder, "--predictions", predictions) == 2
    assert "a-activespeaker.csv, line 3: the label is 'MAYBE'" in capsys.readouterr().err


def test_several_predictions_json_and_plot(files, tmp_path, capsys):
    truth, first = files
    second = write(tmp_path / "STE$.csv", predicted(scores=list(reversed(SCORES))))
    plot, report = tmp_path / "pr.png", tmp_path / "report.json"
    assert run("--groundtruth", truth, "--predictions", first, second, "--plot", plot, "--json", report) == 0
    assert capsys.readouterr().out.count("average precision: ") == 2
    document = json.loads(report.read_text())
    assert [entry["predictions"] for entry in document["files"]] == [first, second]
    assert document["average_precision"] == document["files"][0]["average_precision"]
    assert document["files"][1]["average_precision"] != document["average_precision"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob(".part-*"))


def test_many_ties_are_told(files, tmp_path, capsys):
    constant = write(tmp_path / "constant.csv", predicted(scores=["0.5"] * 6))
    document = results(capsys, files[0], "--predictions", constant)
    assert document["ties"] == {"share": 1, "lowest": 0.5, "highest": 1}
    assert document["notes"][0].startswith("100.0% of the rows share their score")
    assert document["roc_auc"] == 0.5


def test_scores_that_are_no_probabilities_are_told(files, tmp_path, capsys):
    logits = write(tmp_path / "logits.csv", predicted(scores=["9", "8", "7", "6", "5", "-4e-1"]))
    document = results(capsys, files[0], "--predictions", logits)
    assert document["average_precision"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3, abs=1e-12)
    assert document["notes"][0].startswith("scores run from -0.4 to 9")


def test_frame_widths_come_from_the_videos(files, tmp_path, capsys):
    for name, split, width in (("a", "train", 1280), ("-b", "val", 640)):
        (tmp_path / "videos" / split).mkdir(parents=True)
        encode(tmp_path / "videos" / split / f"{name}.mp4", [np.zeros((36, width, 3), np.uint8)])
    document = results(capsys, files[0], "--predictions", files[1], "--videos", tmp_path / "videos")
    # Video -b is half as wide now: its faces are 32, 32 and 128 pixels wide.
    rows = {name: group["rows"] for name, group in document["by_face_width"].items()}
    assert rows == {"< 64 px": 2, "64-128 px": 3, "> 128 px": 1}
    (tmp_path / "videos" / "val" / "-b.mp4").unlink()
    assert run("--groundtruth", files[0], "--predictions", files[1], "--videos", tmp_path / "videos") == 2
    assert "no video -b in" in capsys.readouterr().err


def test_only_speaking_rows_leave_roc_auc_undefined(tmp_path, capsys):
    truth = write(tmp_path / "gt.csv", TRUTH[:1])
    predictions = write(tmp_path / "p.csv", predicted()[:1])
    document = results(capsys, truth, "--predictions", predictions)
    assert document["roc_auc"] is None
    assert document["average_precision"] == 1


# ---- what is refused --------------------------------------------------------------------------------------------

GOOD = predicted()


def changed(row, old, new, rows=GOOD):
    """The rows with a text replaced in one of them, counted from 0."""
    assert rows[row].count(old) >= 1
    return [*rows[:row], rows[row].replace(old, new), *rows[row + 1 :]]


FAULTY_PREDICTIONS = {
    "missing row": (GOOD[:4] + GOOD[5:], r"gt\.csv, line 5: entity -b:1 at 1\.1 s has no row in .*p\.csv"),
    "missing rows": (GOOD[:4], r"gt\.csv, line 5: .* has no row in .*p\.csv \(2 such rows\)"),
    "extra row": ([*GOOD, changed(0, "1.00", "1.20")[0]], r"p\.csv, line 7: entity a:0 at 1\.2 s is not in the ground"),
    "other entity": (changed(5, "-b:2", "-b:9"), r"p\.csv, line 6: entity -b:9 at 1\.1 s is not in the ground truth"),
    "other time": (changed(0, "1.00", "1.001"), r"p\.csv, line 1: entity a:0 at 1\.001 s is not in the ground truth"),
    "time of another entity": (changed(0, "a:0", "a:1"), r"p\.csv, line 1: entity a:1 at 1\.0 s is not in the ground"),
    "key twice": ([*GOOD, GOOD[1]], r"p\.csv, line 7: entity a:0 at 1\.1 s is already in .*p\.csv, line 2"),
    "key twice, one missing": ([*GOOD[:5], GOOD[1]], r"p\.csv, line 6: .* is already in .*p\.csv, line 2"),
    "other box": (
        changed(1, "0.40", "0.400001"),
        r"p\.csv, line 2: entity_box_x2 is 0\.400001; .* line 2\) it is 0\.4",
    ),
    "other video": (changed(0, "a,", "c,"), r"p\.csv, line 1: video_id is c; .* it is a"),
    "nan": (changed(3, ",0.6", ",nan"), r"p\.csv, line 4: score is nan"),
    "infinite": (changed(3, ",0.6", ",-inf"), r"p\.csv, line 4: score is -inf"),
    "no number": (changed(3, ",0.6", ",high"), r"p\.csv, line 4: score is 'high'"),
    "empty score": (changed(3, ",0.6", ","), r"p\.csv, line 4: score is ''"),
    "no number after an empty line": ([GOOD[0], "", *changed(1, ",0.8", ",x")[1:]], r"p\.csv, line 3: score is 'x'"),
    "other label": (changed(2, "SPEAKING_AUDIBLE", "NOT_SPEAKING"), r"p\.csv, line 3: the label is 'NOT_SPEAKING'"),
    "short row": ([*GOOD[:2], TRUTH[2], *GOOD[3:]], r"p\.csv, line 3: 8 columns where 9 are expected"),
    "long row after an empty line": (["", *changed(1, ",0.8", ",0.8,1")], r"p\.csv, line 3: 10 columns where 9"),
    "header": (
        ["video,frame_timestamp,x1,y1,x2,y2,label,entity,score", *GOOD],
        r"p\.csv, line 1: .*frame_timestamp.* header",
    ),
    "empty": ([], r"p\.csv .*mpty"),
    "empty lines only": (["", ""], r"p\.csv has no rows"),
}


@pytest.mark.parametrize("case", FAULTY_PREDICTIONS)
def test_faulty_predictions_are_refused(case, files, tmp_path, capsys):
    rows, message = FAULTY_PREDICTIONS[case]
    assert run("--groundtruth", files[0], "--predictions", write(tmp_path / "p.csv", rows)) == 2
    refused(capsys, message)


def refused(capsys, message):
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.search(message, captured.err), captured.err
    assert captured.err.count("\n") == 1


SILENT = [row.replace("SPEAKING_AUDIBLE", "NOT_SPEAKING") for row in TRUTH]
FAULTY_TRUTHS = {
    "no positive": (SILENT, r"t\.csv: none of 6 rows has the label SPEAKING_AUDIBLE"),
    "no labels": (
        [row.replace("SPEAKING_AUDIBLE", "") for row in TRUTH],
        r"t\.csv, line 1: the label is '' \(3 such rows",
    ),
    "no label column": (
        [",".join([*row.split(",")[:6], row.split(",")[7]]) for row in TRUTH],
        r"line 1: 7 columns where 8",
    ),
    "unknown label": (changed(1, "NOT_SPEAKING", "SILENT", TRUTH), r"t\.csv, line 2: the label is 'SILENT'"),
    "key twice": ([*TRUTH, TRUTH[4]], r"t\.csv, line 7: entity -b:1 at 1\.1 s is already in .*t\.csv, line 5"),
    "same time written otherwise": ([*TRUTH, changed(2, "1.10", "1.1", TRUTH)[2]], r"t\.csv, line 7: .* line 3"),
    "no number": (changed(4, "1.10", "late", TRUTH), r"t\.csv, line 5: frame_timestamp is 'late'"),
    "box not finite": (changed(4, "0.25", "nan", TRUTH), r"t\.csv, line 5: entity_box_x2 is nan"),
    "predictions in its place": (GOOD, r"t\.csv, line 1: 9 columns where 8 are expected"),
}


@pytest.mark.parametrize("case", FAULTY_TRUTHS)
def test_faulty_ground_truths_are_refused(case, files, tmp_path, capsys):
    rows, message = FAULTY_TRUTHS[case]
    assert run("--groundtruth", write(tmp_path / "t.csv", rows), "--predictions", files[1]) == 2
    refused(capsys, message)


def test_line_numbers_hold_far_into_a_large_file(files, tmp_path, capsys):
    # Longer than several of the reader's blocks, each of which counts its rows anew.
    rows = [f"a,{index / 25:.2f},0.1,0.1,0.2,0.2,SPEAKING_AUDIBLE,a:0,0.123456789" for index in range(60_000)]
    rows[300:300] = [""]
    rows[50_000] = rows[50_000].replace("0.123456789", "x")
    assert run("--groundtruth", files[0], "--predictions", write(tmp_path / "p.csv", rows)) == 2
    refused(capsys, r"p\.csv, line 50001: score is 'x'")
    rows[50_000] = rows[50_000].replace(",x", "")
    assert run("--groundtruth", files[0], "--predictions", write(tmp_path / "p.csv", rows)) == 2
    refused(capsys, r"p\.csv, line 50001: 8 columns where 9")


@pytest.mark.parametrize(
    "arguments",
    [
        "--frame-size 1280",
        "--frame-size 0x720",
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
def test_wrong_arguments_are_refused(arguments, files, capsys):
    assert run("--groundtruth", files[0], "--predictions", files[1], *arguments.split()) == 2
    option, value = arguments.split()[:2]
    refused(capsys, value if value.startswith("nowhere") else re.escape(option))


# ---- detected tracks --------------------------------------------------------------------------------------------


def on_own_tracks(shift=0.01):
    """The predictions with boxes a little off, other entity ids, and one box where nobody is."""
    rows = []
    for index, row in enumerate(predicted()):
        fields = row.split(",")
        fields[3], fields[5], fields[7] = f"{float(fields[3]) + shift}", f"{float(fields[5]) + shift}", f"{index}"
        rows.append(",".join(fields))
    return [*rows, "a,1.10,0.8,0.8,0.9,0.9,SPEAKING_AUDIBLE,7,0.95"]


def test_predictions_on_detected_tracks(files, tmp_path, capsys):
    detected = write(tmp_path / "detected.csv", on_own_tracks())
    assert run("--groundtruth", files[0], "--predictions", detected) == 2
    refused(capsys, r"entity 0 at 1\.0 s is not in the ground truth")
    document = results(capsys, files[0], "--predictions", detected, "--detected", "--frame-size", "1280x720")
    counts = {"annotated": 6, "predicted": 7, "matched": 6}
    assert document["faces"] == counts | {"recall": 1, "precision": pytest.approx(6 / 7)}
    # The false face comes first: ranks 2, 4 and 6 speak.
    assert document["average_precision"] == pytest.approx(1 / 2)
    assert document["average_precision_matched"] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert document["by_face_width"]["> 128 px"]["annotated"] == 2
    assert document["files"][0]["notes"] == []
    # An overlap of 9/11 is asked for and not reached.
    stricter = results(capsys, files[0], "--predictions", detected, "--detected", "--iou", "0.95")
    assert stricter["faces"]["matched"] == 0


def test_detected_tracks_as_text_and_as_a_plot(files, tmp_path, capsys):
    detected = write(tmp_path / "detected.csv", on_own_tracks())
    missed = write(tmp_path / "missed.csv", on_own_tracks()[-1:])
    plot = tmp_path / "pr.png"
    arguments = ("--groundtruth", files[0], "--predictions", detected, missed, "--detected", "--plot", plot)
    assert run(*arguments, "--json", tmp_path / "all.json") == 0
    first, second = capsys.readouterr().out.split("\n\n")
    assert float(first.splitlines()[0].removeprefix("average precision: ")) == pytest.approx(1 / 2)
    assert re.search(r"^faces right \(precision\) +0\.8571  6 of 7 predicted$", first, re.MULTILINE)
    assert re.search(r"^  3\+ +0\.5000 +1\.0000 +1\.0000 +3$", first, re.MULTILINE)
    assert second.startswith("average precision: 0.0\n")
    assert re.search(r"^accuracy at 0\.5, matched faces only +-  of 0$", second, re.MULTILINE)
    assert "note: 1 of 2 videos have no prediction, all their faces are missed: -b" in second
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert len(json.loads((tmp_path / "all.json").read_text())["files"]) == 2


def test_detected_tracks_against_a_folder(files, tmp_path, capsys):
    folder = tmp_path / "annotations"
    folder.mkdir()
    write(folder / "a-activespeaker.csv", TRUTH[:3])
    write(folder / "-b-activespeaker.csv", TRUTH[3:])
    detected = write(tmp_path / "detected.csv", on_own_tracks())
    expected = results(capsys, files[0], "--predictions", detected, "--detected")
    document = results(capsys, folder, "--predictions", detected, "--detected")
    assert {**document, "groundtruth": 0} == {**expected, "groundtruth": 0}


@pytest.fixture
def columbia(tmp_path):
    """Labels of two frames of one speaker, and predictions that find the first: F1 is 2 / 3."""
    labels = tmp_path / "labels"
    labels.mkdir()
    (labels / "bell.txt").write_text("0\t64\t36\t64\t1\n1\t64\t36\t64\t1\n")
    box = f"{64 / 640},{36 / 360},{128 / 640},{100 / 360}"
    return labels, write(tmp_path / "col.csv", [f"col,{time},{box},SPEAKING_AUDIBLE,1,0.9" for time in (0.0, 1.0)])


def test_columbia_protocol(columbia, tmp_path, capsys):
    labels, predictions = columbia
    assert run("--columbia", labels, "--predictions", predictions, "--json", tmp_path / "f1.json") == 0
    text = capsys.readouterr().out
    assert float(text.splitlines()[0].removeprefix("mean F1: ")) == pytest.approx(2 / 3)
    assert re.search(r"^  bell +0\.6667 +0\.5000 +2 +2 +1$", text, re.MULTILINE)
    document = json.loads((tmp_path / "f1.json").read_text())
    assert document["columbia"] == str(labels)
    assert document["speakers"]["bell"]["matched"] == 1
    assert (document["frame_size"], document["fps"]) == ([640, 360], 29.97)
    # At one frame per second the second label meets the second prediction.
    assert run("--columbia", labels, "--predictions", predictions, "--fps", "1", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["mean_f1"] == 1
    assert run("--columbia", labels, "--predictions", predictions, "--frame-size", "1920x1080") == 2
    refused(capsys, r"none of 2 predictions fits any of 2 labels in time and position; .* 1920x1080")


@pytest.mark.parametrize("option", [["--fps", "0"], ["--detected"], ["--videos", "videos"], ["--plot", "pr.png"]])
def test_arguments_that_columbia_does_not_take_are_refused(option, columbia, capsys):
    assert run("--columbia", columbia[0], "--predictions", columbia[1], *option) == 2
    refused(capsys, re.escape(" ".join(option[:1])))


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
    assert done.stdout.startswith("average precision: 0.75")
