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


@pytest.fixture
def read(tmp_path):
    """The rows of lines as an AVA csv."""
    return lambda lines: ava.read_annotations(write_annotations(tmp_path / "v-activespeaker.csv", lines))


def test_reads_text_in_the_order_of_the_file(read):
    over_the_edge = row("900.00", (-0.1, 0.5, 0.2, 1.05), entity="-x:2")
    rows = read([row("900.10"), row("900.2", label="SPEAKING_AUDIBLE"), over_the_edge])
    assert tuple(rows.columns) == ava.COLUMNS
    assert rows["frame_timestamp"].tolist() == ["900.10", "900.2", "900.00"]
    assert rows["entity_box_x1"].tolist() == ["0.250000", "0.250000", "-0.100000"]
    np.testing.assert_array_equal(ava.times(rows), [900.1, 900.2, 900.0])
    np.testing.assert_array_equal(ava.boxes(rows), [BOX, BOX, (-0.1, 0.5, 0.2, 1.05)])


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_endings_and_byte_order_marks_of_other_systems(tmp_path, ending, mark):
    path = tmp_path / "v-activespeaker.csv"
    path.write_bytes((mark + ending.join([row("1.00"), row("1.04")])).encode())  # no line end at the end either
    rows = ava.read_annotations(path)
    assert rows["video_id"].tolist() == ["v", "v"]
    assert rows["entity_id"].tolist() == ["v_0900_0960:1"] * 2


@pytest.mark.parametrize(
    ("second_line", "facts"),
    [
        (row("0.04")[: row("0.04").rindex(",")], ["7 columns", "8"]),
        (row("0.04") + ",0.5", ["9 columns", "8"]),
        (row("0.04").replace("0.250000", "0,25"), ["10 columns", "8"]),
        (row("nine"), ["frame_timestamp", "'nine'"]),
        (row("nan"), ["frame_timestamp", "'nan'"]),
        (row(""), ["frame_timestamp", "''"]),
        (row("-0.04"), ["frame_timestamp", "-0.04"]),
        (row("0.04").replace("0.750000", "0.75x"), ["entity_box_y2", "'0.75x'"]),
        (row("0.04").replace("0.750000", "inf"), ["entity_box_y2", "'inf'"]),
        (row("0.04", (1.1, 0.2, 1.3, 0.4)), ["box 1.100000,", "outside"]),
        (row("0.04", (0.2, -0.3, 0.4, -0.1)), ["box 0.200000,-0.3", "outside"]),
        (row("0.04", (0.5, 0.2, 0.5, 0.4)), ["box 0.500000,", "x1 < x2"]),
        (row("0.04", (0.2, 0.6, 0.5, 0.4)), ["box 0.200000,", "y1 < y2"]),
        (row("0.04", label="SPEAKING"), ["'SPEAKING'", *ava.LABEL_IDS]),
        (row("0.04", label=""), ["label", "''"]),
        (row("0.04", entity=""), ["entity_id", "''"]),
        (row("0.04", entity="../up"), ["entity_id", "'../up'"]),
        (row("0.04", entity=".."), ["entity_id", "'..'"]),
        (row("0.04", entity="a\tb"), ["entity_id", r"'a\tb'"]),
        (row("0.04", video="a/b", entity="b"), ["video_id", "'a/b'"]),
        (row("0.00"), ["v_0900_0960:1 at 0.00 s", "line 1"]),
        (row("0.000"), ["v_0900_0960:1 at 0.000 s", "line 1"]),
        (row("0.04", video="w"), ["v_0900_0960:1", "video w"]),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(read, second_line, facts):
    with pytest.raises(UserError) as error:
        read([row("0.00"), second_line, row("0.08")])
    assert all(fact in str(error.value) for fact in ["v-activespeaker.csv, line 2: ", *facts])


def test_the_first_of_many_bad_rows_is_named_and_they_are_counted_past_blank_lines(read):
    with pytest.raises(UserError, match=r"line 3: .*'A'.*2 such rows"):
        read([row("0.00"), "", row("0.04", label="A"), row("0.08"), row("0.12", label="B")])


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "Empty"),
        (b"\n\n", "no rows"),
        (b"v,\xff\xfe\n" * 3, "line 1: 2 columns"),
        (b"v,1,.1,.1,.2,.2,L,\xff\n", "UTF-8"),
    ],
)
def test_a_file_that_is_no_csv_is_refused(tmp_path, content, fact):
    path = tmp_path / "v-activespeaker.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=fact):
        ava.read_annotations(path)


def test_an_absent_file_or_folder_is_named(tmp_path):
    for read, path, fact in (
        (ava.read_annotations, tmp_path / "absent.csv", "no file"),
        (ava.read_split, tmp_path / "absent", "no annotation folder"),
        (ava.read_split, tmp_path, "no <video_id>-activespeaker.csv"),
    ):
        with pytest.raises(UserError, match=fact) as error:
            read(path)
        assert str(path) in str(error.value)


def test_augment_by_hand(read):
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
    rows = ava.augment(read(lines))
    assert tuple(rows.columns) == (*ava.AUGMENTED_COLUMNS, "time_s")
    columns = ["entity_id", "frame_timestamp", "label_id", "instance_id"]
    assert list(rows[columns].itertuples(index=False, name=None)) == [
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


def test_augmented_rows_come_sorted_with_times(read, tmp_path):
    augmented = ava.augment(read([row("1.04"), row("1.00")]))
    ava.write_augmented(tmp_path / "a.csv", augmented.iloc[::-1])
    pd.testing.assert_frame_equal(ava.read_augmented(tmp_path / "a.csv"), augmented, check_column_type=False)


HEADER = ",".join(ava.AUGMENTED_COLUMNS)


@pytest.mark.parametrize(
    ("lines", "fact"),
    [
        (["video_id,frame_timestamp", "1,1"], "data/augment_annotations.py"),
        ([",".join(ava.COLUMNS) + ",label_id,run", ",".join("1" * 10)], "data/augment_annotations.py"),
        ([HEADER], "no rows"),
        ([HEADER, row("0.00") + ",0,a", row("x") + ",0,a"], "line 3: frame_timestamp is 'x'"),
        *(([HEADER, row("0.00") + ",0,a", row("0.04") + f",{other},a"], "line 3: label_id") for other in ("1", "x")),
        ([HEADER.replace("video", "\udce9"), row("0.00") + ",0,a"], "does not name video_id once"),
        ([HEADER + ",label", row("0.00") + ",0,a,x"], "does not name label once"),
        ([row("0.00") + ",0,a", row("0.04") + ",0"], "line 2: 9 columns where 10"),
    ],
)
def test_a_faulty_augmented_csv_is_refused(tmp_path, lines, fact):
    path = write_annotations(tmp_path / "a.csv", lines)
    with pytest.raises(UserError) as error:
        ava.read_augmented(path)
    assert all(text in str(error.value) for text in (str(path), fact))


def test_an_entity_of_two_videos_is_refused(tmp_path):
    for video in ("u", "v"):
        write_annotations(tmp_path / f"{video}-activespeaker.csv", [row(video=video)])
    with pytest.raises(UserError, match=r"v-activespeaker\.csv, line 1: .*v_0900_0960:1 of video v"):
        ava.read_split(tmp_path)


@pytest.mark.parametrize("scores", [[0.5], [0.5, np.nan], [0.5, np.inf], [[0.5], [0.5]]])
def test_predictions_need_one_finite_score_a_row(read, tmp_path, scores):
    error, fact = (UserError, "v_0900_0960:1 at 1.04 s") if np.shape(scores) == (2,) else (ValueError, "2 rows")
    with pytest.raises(error, match=fact):
        ava.write_predictions(tmp_path / "p.csv", read([row("1.00"), row("1.04")]), np.array(scores))
    assert not (tmp_path / "p.csv").exists()


def table(*keys: str) -> pd.DataFrame:
    """Rows of "<entity>@<timestamp>"."""
    entities, timestamps = zip(*(key.split("@") for key in keys), strict=True)
    return pd.DataFrame({"entity_id": entities, "frame_timestamp": timestamps})


def join(annotated: pd.DataFrame, found: pd.DataFrame) -> np.ndarray:
    return ava.positions(annotated, found["entity_id"].to_numpy(), found["frame_timestamp"].to_numpy(), "the folder F")


def test_rows_are_found_whatever_their_order():
    annotated = table("a@1.0", "a@1.04", "-b:1@1.0")
    found = table("-b:1@1.0", "a@1.04", "a@1.0")
    assert join(annotated, found).tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("found", "facts"),
    [
        (["a@1.1"], ["1 annotated rows are missing (a at 1.10)", "1 rows are not annotated (a at 1.1)"]),  # text: a key
        (["b@2.0", "a@1.10"], ["1 rows are not annotated (b at 2.0)"]),
        (["a@1.10", "a@1.10"], ["1 rows repeat a key (a at 1.10)"]),
    ],
)
def test_rows_that_do_not_fit_are_counted_and_shown(found, facts):
    with pytest.raises(UserError) as error:
        join(table("a@1.10"), table(*found))
    assert all(fact in str(error.value) for fact in ["the folder F", *facts])
    assert str(error.value).count(" rows ") == len(facts)


def test_many_missing_rows_are_counted_and_three_shown():
    many = table(*(f"e@{second}" for second in range(2000)))
    with pytest.raises(UserError, match=r"1,999 annotated rows are missing \(e at 1, e at 2, e at 3, \.\.\.\)"):
        join(many, many[:1])


def test_real_annotations_read_and_keep_their_rows(shared):
    folder = shared / "mini-ava" / "annotations" / "val"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    rows = ava.read_split(folder)
    lines = [line for path in ava.annotation_files(folder).values() for line in path.read_text().splitlines()]
    assert rows[list(ava.COLUMNS)].agg(",".join, axis=1).tolist() == lines
