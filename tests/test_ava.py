"""The AVA format: reading with checks, augmenting by hand-computed runs, text that stays text."""

import numpy as np
import pandas as pd
import pytest
from tiny import annotation_row, write_annotations

from core.formats import ava
from core.runtime.errors import UserError

BOX = (0.25, 0.25, 0.5, 0.75)


def row(
    timestamp: str = "900.10", box=BOX, label: str = "NOT_SPEAKING", entity: str = "v_0900_0960:1", video: str = "v"
) -> str:
    return annotation_row(video, timestamp, box, label, entity)


def test_reads_text_in_the_order_of_the_file(tmp_path):
    lines = [row("900.10"), row("900.2", label="SPEAKING_AUDIBLE"), row("900.00", entity="-x:2")]
    rows = ava.read_annotations(write_annotations(tmp_path / "v-activespeaker.csv", lines))
    assert tuple(rows.columns) == ava.COLUMNS
    assert rows["frame_timestamp"].tolist() == ["900.10", "900.2", "900.00"]
    assert rows["entity_box_x1"].tolist() == ["0.250000"] * 3
    np.testing.assert_array_equal(ava.times(rows), [900.1, 900.2, 900.0])
    np.testing.assert_array_equal(ava.boxes(rows), [BOX] * 3)
    np.testing.assert_array_equal(ava.is_speaking(rows), [False, True, False])


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_endings_and_byte_order_marks_of_other_systems(tmp_path, ending, mark):
    path = tmp_path / "v-activespeaker.csv"
    path.write_bytes((mark + ending.join([row("1.00"), row("1.04")])).encode())  # no line end at the end either
    rows = ava.read_annotations(path)
    assert rows["video_id"].tolist() == ["v", "v"]
    assert rows["entity_id"].tolist() == ["v_0900_0960:1"] * 2


@pytest.mark.parametrize(
    ("second_line", "message"),
    [
        (row("0.04")[: row("0.04").rindex(",")], r"line 2: Expected 8 columns, got 7: v,0\.04,"),
        (row("0.04") + ",0.5", r"line 2: Expected 8 columns, got 9: "),
        (row("nine"), r"line 2: frame_timestamp is 'nine', expected a finite number"),
        (row("nan"), r"line 2: frame_timestamp is 'nan'"),
        (row(""), r"line 2: frame_timestamp is ''"),
        (row("-0.04"), r"line 2: frame_timestamp is -0\.04, expected seconds >= 0"),
        (row("0.04").replace("0.250000", "0,25"), r"line 2: Expected 8 columns, got 10: "),
        (row("0.04").replace("0.750000", "0.75x"), r"line 2: entity_box_y2 is '0\.75x'"),
        (row("0.04").replace("0.750000", "inf"), r"line 2: entity_box_y2 is 'inf'"),
        (row("0.04", (1.1, 0.2, 1.3, 0.4)), r"line 2: box 1\.100000,.* lies outside the frame"),
        (row("0.04", (0.2, -0.3, 0.4, -0.1)), r"line 2: box .* lies outside the frame"),
        (row("0.04", (0.5, 0.2, 0.5, 0.4)), r"line 2: box .* is empty, expected x1 < x2"),
        (row("0.04", (0.2, 0.6, 0.5, 0.4)), r"line 2: box .* is empty, expected x1 < x2 and y1 < y2"),
        (row("0.04", label="SPEAKING"), r"line 2: unknown label 'SPEAKING', accepted are NOT_SPEAKING, SPEAKING_AUD"),
        (row("0.04", label=""), r"line 2: unknown label ''"),
        (row("0.04", entity=""), r"line 2: entity_id is ''"),
        (row("0.04", entity="../up"), r"line 2: entity_id is '\.\./up'"),
        (row("0.04", entity=".."), r"line 2: entity_id is '\.\.'"),
        (row("0.04", entity="a\tb"), r"line 2: entity_id is 'a\\tb', expected a name that can be a file name"),
        (row("0.04", video="a/b"), r"line 2: video_id is 'a/b'"),
        (row("0.00"), r"line 2: entity v_0900_0960:1 at 0\.00 s stands in an earlier line already"),
        (row("0.000"), r"line 2: .* at 0\.000 s stands in an earlier line already"),
        ("", r"line 2: the line is blank, expected a row; delete it"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path, second_line, message):
    path = write_annotations(tmp_path / "v-activespeaker.csv", [row("0.00"), second_line, row("0.08")])
    with pytest.raises(UserError, match=message) as error:
        ava.read_annotations(path)
    assert str(path) in str(error.value)


def test_the_first_of_many_bad_rows_is_named_and_they_are_counted(tmp_path):
    lines = [row("0.00"), row("0.04", label="A"), row("0.08"), row("0.12", label="B")]
    with pytest.raises(UserError, match=r"line 2: unknown label 'A'.*\(2 such rows\)"):
        ava.read_annotations(write_annotations(tmp_path / "v-activespeaker.csv", lines))


def test_a_box_that_reaches_over_the_edge_is_accepted(tmp_path):
    path = write_annotations(tmp_path / "v-activespeaker.csv", [row(box=(-0.1, 0.5, 0.2, 1.05))])
    np.testing.assert_array_equal(ava.boxes(ava.read_annotations(path)), [[-0.1, 0.5, 0.2, 1.05]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"v,\xff\xfe\n" * 3, "expected UTF-8 text"),
        (b"v,1,.1,.1,.2,.2,L,\xff\n", "expected UTF-8 text"),
    ],
)
def test_a_file_that_is_no_csv_is_refused(tmp_path, content, message):
    path = tmp_path / "v-activespeaker.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        ava.read_annotations(path)


def test_an_absent_file_or_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no file .*absent\.csv"):
        ava.read_annotations(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="no annotation folder"):
        ava.read_split(tmp_path / "absent")
    with pytest.raises(UserError, match=r"no <video_id>-activespeaker\.csv in"):
        ava.read_split(tmp_path)


def test_augment_by_hand(tmp_path):
    """Two entities, mixed in the file: runs of one label are counted from 0 within each entity, in time order."""
    n, s, q = ava.LABEL_IDS
    lines = [
        row("2.00", label=s, entity="b:1", video="-b"),
        row("1.08", label=n, entity="a:2"),
        row("1.00", label=n, entity="a:2"),
        row("1.04", label=n, entity="a:1"),
        row("1.04", label=s, entity="a:2"),
        row("10.00", label=q, entity="a:2"),
        row("9.96", label=n, entity="a:2"),
        row("1.00", label=n, entity="a:1"),
    ]
    rows = ava.augment(ava.read_annotations(write_annotations(tmp_path / "v-activespeaker.csv", lines)))
    assert tuple(rows.columns) == (*ava.AUGMENTED_COLUMNS, "time_s")
    assert list(
        zip(rows["entity_id"], rows["frame_timestamp"], rows["label_id"], rows["instance_id"], strict=True)
    ) == [
        ("b:1", "2.00", 1, "b:1:0"),
        ("a:1", "1.00", 0, "a:1:0"),
        ("a:1", "1.04", 0, "a:1:0"),
        ("a:2", "1.00", 0, "a:2:0"),
        ("a:2", "1.04", 1, "a:2:1"),
        ("a:2", "1.08", 0, "a:2:2"),
        ("a:2", "9.96", 0, "a:2:2"),  # sorted by the number, not by the text
        ("a:2", "10.00", 2, "a:2:3"),
    ]


def test_timestamps_and_boxes_keep_their_text_through_all_files(tmp_path):
    """900.1 for 900.10 would be another key; 0.500000 for 0.5 would be another box text."""
    line = "v,900.10,0.1,0.20,0.300,.4000,SPEAKING_NOT_AUDIBLE,v_0900_0960:1"
    annotations = write_annotations(tmp_path / "in" / "v-activespeaker.csv", [line])
    ava.write_augmented(tmp_path / "augmented.csv", ava.augment(ava.read_split(annotations.parent)))
    header, augmented = (tmp_path / "augmented.csv").read_text().splitlines()
    assert header == ",".join(ava.AUGMENTED_COLUMNS)
    assert augmented == f"{line},2,v_0900_0960:1:0"
    rows = ava.read_augmented(tmp_path / "augmented.csv")
    ava.write_groundtruth(tmp_path / "gt.csv", rows)
    assert (tmp_path / "gt.csv").read_text() == f"{line}\n"
    ava.write_predictions(tmp_path / "predictions.csv", rows, np.array([1 / 3]))
    text = (tmp_path / "predictions.csv").read_text()
    assert text.startswith("v,900.10,0.1,0.20,0.300,.4000,SPEAKING_AUDIBLE,v_0900_0960:1,0.33")
    assert float(text.rsplit(",", 1)[1]) == 1 / 3  # full precision


def test_augmented_rows_come_sorted_with_times(tmp_path):
    rows = pd.DataFrame([line.split(",") for line in (row("1.04"), row("1.00"))], columns=list(ava.COLUMNS))
    augmented = ava.augment(rows)
    ava.write_augmented(tmp_path / "a.csv", augmented.iloc[::-1])
    pd.testing.assert_frame_equal(ava.read_augmented(tmp_path / "a.csv"), augmented, check_column_type=False)


@pytest.mark.parametrize("header", ["video_id,frame_timestamp", ",".join(ava.COLUMNS) + ",label_id,run"])
def test_a_csv_that_is_not_augmented_is_refused_as_such(tmp_path, header):
    columns = header.count(",") + 1
    path = write_annotations(tmp_path / "a.csv", [header, ",".join(["1"] * columns)])
    with pytest.raises(UserError, match=r"make the file with data/augment_annotations\.py"):
        ava.read_augmented(path)


def test_an_augmented_csv_without_rows_is_refused(tmp_path):
    path = write_annotations(tmp_path / "a.csv", [",".join(ava.AUGMENTED_COLUMNS)])
    with pytest.raises(UserError, match="has no rows"):
        ava.read_augmented(path)


def test_a_bad_row_of_an_augmented_csv_has_the_line_of_the_file(tmp_path):
    lines = [",".join(ava.AUGMENTED_COLUMNS), row("0.00") + ",0,a", row("x") + ",0,a"]
    with pytest.raises(UserError, match="line 3: frame_timestamp is 'x'"):
        ava.read_augmented(write_annotations(tmp_path / "a.csv", lines))


def test_an_entity_of_two_videos_is_refused(tmp_path):
    for video in ("u", "v"):
        write_annotations(tmp_path / f"{video}-activespeaker.csv", [row(video=video)])
    with pytest.raises(UserError, match="entity v_0900_0960:1 stands in the annotations of u, v"):
        ava.read_split(tmp_path)


@pytest.mark.parametrize("scores", [[0.5], [0.5, np.nan], [0.5, np.inf], [[0.5], [0.5]]])
def test_predictions_need_one_finite_score_a_row(tmp_path, scores):
    rows = pd.DataFrame([line.split(",") for line in (row("1.00"), row("1.04"))], columns=list(ava.COLUMNS))
    with pytest.raises(ValueError, match="one finite score for each of 2 rows"):
        ava.write_predictions(tmp_path / "p.csv", rows, np.array(scores))
    assert not (tmp_path / "p.csv").exists()


def test_real_annotations_read_and_keep_their_rows(shared):
    folder = shared / "mini-ava" / "annotations" / "val"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    rows = ava.read_split(folder)
    lines = [line for path in ava.annotation_files(folder).values() for line in path.read_text().splitlines()]
    assert rows[list(ava.COLUMNS)].agg(",".join, axis=1).tolist() == lines
