"""Predictions on detected tracks: every number by hand on a toy; on annotated boxes it is the official one."""

import numpy as np
import pytest

from core.boxes import intersection_over_union
from core.evaluation import metrics
from core.evaluation.detected import (
    compare,
    ego4d_average_precision,
    evaluate_detected,
    rankings_detected,
    read_detections,
)
from core.evaluation.official import read_groundtruth, scores_of
from core.runtime.errors import UserError

SPEAKING, SILENT, MUTE = "SPEAKING_AUDIBLE", "NOT_SPEAKING", "SPEAKING_NOT_AUDIBLE"
LEFT, RIGHT, CORNER = "0.1,0.1,0.2,0.3", "0.5,0.1,0.6,0.3", "0.8,0.8,0.9,0.9"
SHIFTED = "0.11,0.1,0.21,0.3"  # overlaps LEFT by 9/11
TRUTH = [
    f"a,1.00,{LEFT},{SPEAKING},a:0",
    f"a,1.00,{RIGHT},{MUTE},a:1",
    f"a,1.04,{LEFT},{SPEAKING},a:0",
    f"a,1.04,{RIGHT},{SPEAKING},a:1",
    f"a,1.08,{LEFT},{SILENT},a:0",
    f"c,1.00,{LEFT},{SPEAKING},c:0",  # a video without predictions
]
# (video, time, box, entity, score): the times lag by a quarter of a frame.
DETECTED = [
    ("a", "1.01", SHIFTED, "1", 0.9),  # right
    ("a", "1.01", RIGHT, "2", 0.8),  # matched with a face that is not heard
    ("a", "1.05", LEFT, "1", 0.4),  # right; the other face of 1.04 is missed
    ("a", "1.05", CORNER, "3", 0.7),  # a false face
    ("a", "1.09", LEFT, "1", 0.3),  # matched with a silent face
    ("a", "1.09", SHIFTED, "4", 0.6),  # a second box on the same face
    ("a", "1.25", LEFT, "1", 0.95),  # not annotated then
    ("x", "1.00", LEFT, "1", 0.99),  # not annotated at all
]


@pytest.fixture
def compared(tmp_path):
    def compared(detected=DETECTED, truth=TRUTH, **options):
        rows = [f"{video},{time},{box},{SPEAKING},{entity},{score}" for video, time, box, entity, score in detected]
        for name, lines in (("gt.csv", truth), ("p.csv", rows)):
            (tmp_path / name).write_text("".join(f"{line}\n" for line in lines))
        groundtruth = read_groundtruth([tmp_path / "gt.csv"])
        return compare(groundtruth, read_detections(tmp_path / "p.csv"), **options)

    return compared


@pytest.fixture
def evaluated(compared):
    def evaluated(*arguments, widths=None, **options):
        return evaluate_detected("p", compared(*arguments, **options), widths)

    return evaluated


def groups(numbers, *columns):
    return {group: tuple(values[name] for name in columns) for group, values in numbers.items()}


def test_numbers_by_hand(evaluated):
    result = evaluated()
    # By score: 0.9 right, 0.8, 0.7 and 0.6 wrong, 0.4 right, 0.3 wrong; two of four speaking faces are never found.
    assert result["average_precision"] == pytest.approx((1 + 2 / 5) / 4)
    # Matched faces: 0.9 speaks, 0.8 not, 0.4 speaks, 0.3 not.
    assert result["average_precision_matched"] == pytest.approx((1 + 2 / 3) / 2)
    # And below them the two missed ones, which speak: precision 3/5 and 4/6 there, so 4/6 from the third rank on.
    assert result["average_precision_annotated"] == pytest.approx((1 + 3 * 4 / 6) / 4)
    assert result["chance"] == pytest.approx(2 / 6 * 2 / 4)
    assert [result["faces"][name] for name in ("annotated", "predicted", "matched")] == [6, 6, 4]
    assert [result["faces"][name] for name in ("recall", "precision")] == pytest.approx([4 / 6, 4 / 6])
    assert result["speaking_faces"] == {"annotated": 4, "matched": 2, "recall": 0.5}
    assert result["accuracy"] == 0.5  # 0.9 and 0.3 are as labelled, 0.8 and 0.4 are not
    assert result["accuracy_annotated"] == pytest.approx(2 / 6)  # both missed faces speak
    assert result["roc_auc"] == pytest.approx(3 / 4)
    columns = ("annotated", "speaking", "predicted", "matched", "recall", "precision", "average_precision")
    assert groups(result["by_faces"], *columns) == {
        "1": (2, 1, 2, 1, 0.5, 0.5, 0),
        "2": (4, 3, 4, 3, 0.75, 0.75, pytest.approx((1 + 2 / 4) / 3)),  # 0.9 right, 0.8, 0.7 wrong, 0.4 right
        "3+": (0, 0, 0, 0, None, None, None),
    }
    assert result["ties"] == {"share": 0, "lowest": result["average_precision"], "highest": result["average_precision"]}


def test_intervals_by_hand(compared):
    """Of two videos, c without a prediction, by leaving out either."""
    (result,) = metrics.intervals({"p": rankings_detected(compared(), {"a": 1280, "c": 640})})
    of_a = (1 + 2 / 5) / 3  # one of three speaking faces is never found
    assert result["average_precision"] == {
        "value": pytest.approx((1 + 2 / 5) / 4),
        "margin": pytest.approx(12.7062047 * of_a / 2),
        "videos": 2,
    }
    assert result["by_faces"] == {"1": None, "2": None, "3+": None}  # only c's lone face speaks
    assert result["by_face_width"]["> 128 px"] is None


def test_what_does_not_count_is_counted_and_named(evaluated):
    result = evaluated()
    assert (result["at_other_times"], result["of_other_videos"]) == (1, 1)
    assert (result["missed_videos"], result["other_videos"]) == (["c"], ["x"])
    facts = (("1 of 2 videos", ": c"), ("not annotated", ": 1"), ("(x)", ": 1"))
    for note, (fact, end) in zip(result["notes"][:3], facts, strict=True):
        assert fact in note
        assert note.endswith(end)


def test_face_widths_are_those_of_annotated_faces_and_of_false_ones(evaluated):
    detected = [("a", "1.00", "0.1,0.1,0.21,0.3", "1", 0.9), ("a", "1.00", "0.7,0.1,0.701,0.3", "2", 0.5)]
    by_width = evaluated(detected, widths={"a": 1280, "c": 640})["by_face_width"]
    # Annotated are five faces of 128 and one of 64 pixels; the matched box of 141 counts for its annotated face.
    expected = {"< 64 px": (0, 1, 0), "64-128 px": (6, 1, 1), "> 128 px": (0, 0, 0)}
    assert groups(by_width, "annotated", "predicted", "matched") == expected


def test_curve_has_the_average_precision_as_its_area(compared):
    recall, precision = compared().precision_recall()
    assert recall.tolist() == [0.25, 0.5]
    assert precision.tolist() == [1, 0.4]


def test_equal_scores_count_for_the_wrong_ones_in_any_order_of_rows(evaluated):
    tied = [(*row[:4], 0.5) for row in DETECTED]
    result = evaluated(tied)
    # Four wrong ones first, then two right ones: 1/5 and 2/6; the other way round 1 and 1; each over four.
    assert result["average_precision"] == pytest.approx(2 / 6 * 2 / 4)
    assert result["ties"] == {"share": 1, "lowest": result["average_precision"], "highest": 0.5}
    assert any("100.0%" in note for note in result["notes"])
    mirrored = evaluated(tied[::-1])
    assert mirrored["average_precision"] == result["average_precision"]
    assert mirrored["average_precision_annotated"] == result["average_precision_annotated"]


def test_nothing_found(evaluated):
    result = evaluated([("a", "1.00", CORNER, "1", 0.9)])
    assert result["average_precision"] == result["chance"] == 0
    assert result["average_precision_matched"] is result["accuracy"] is result["roc_auc"] is None
    assert result["faces"]["recall"] == result["faces"]["precision"] == 0
    assert result["accuracy_annotated"] == pytest.approx(2 / 6)
    # All are missed: the silent ones come first among equals, precision is 1/3, 2/4, 3/5, 4/6.
    assert result["average_precision_annotated"] == pytest.approx(4 / 6)


def test_a_higher_overlap_can_be_asked_for(evaluated):
    assert evaluated(min_overlap=9 / 11)["faces"]["matched"] == 4
    stricter = evaluated(min_overlap=0.82)
    assert stricter["faces"]["matched"] == 3
    assert stricter["min_overlap"] == 0.82


def test_missed_faces_score_lowest_on_any_scale(compared):
    # Below -1e300 a difference of 1 is none; and negative scores must not lift a missed face.
    scores = (-1e300, -2e300, -3e300, -1.5e300, -4e300, -2.5e300)
    detected = [(*row[:4], score) for row, score in zip(DETECTED, scores, strict=False)]
    comparison = compared(detected)
    assert (comparison.annotated_scores[comparison.missed] < min(scores)).all()
    assert np.count_nonzero(comparison.missed) == 2
    assert evaluate_detected("p", comparison)["accuracy"] == 0.5  # nobody is believed to speak


def test_annotated_boxes_as_predictions_give_the_official_number(compared):
    generator = np.random.default_rng(0)
    places = [(index / 25, face) for index in range(100) for face in range(generator.integers(1, 4))]
    boxes = [f"{0.3 * face:.2f},0.1,{0.3 * face + 0.2:.2f},0.4" for _, face in places]
    labels = generator.choice([SPEAKING, SILENT, MUTE], len(places))
    truth = [
        f"a,{time:.2f},{box},{label},a:{face}" for (time, face), box, label in zip(places, boxes, labels, strict=True)
    ]
    scores = generator.random(len(places)) + 0.3 * (labels == SPEAKING)
    detected = [
        ("a", f"{time:.2f}", box, f"a:{face}", score)
        for (time, face), box, score in zip(places, boxes, scores.tolist(), strict=True)
    ]
    comparison = compared(detected, truth)
    official = metrics.average_precision(
        comparison.groundtruth.speaking, scores_of(comparison.groundtruth, comparison.predictions)
    )
    result = evaluate_detected("p", comparison)
    assert result["faces"]["recall"] == result["faces"]["precision"] == 1
    for key in ("average_precision", "average_precision_matched", "average_precision_annotated"):
        assert result[key] == pytest.approx(official, abs=1e-12)


EMPTY_TRUTH = f"a,1.04,0.3,0.1,0.2,0.3,{SILENT},a:2"
FAULTY = {  # what is wrong: (predictions, ground truth, what the message names)
    "twice at a time": ([*DETECTED, ("a", "1.010", CORNER, "1", 0.1)], TRUTH, ["p.csv, line 9: ", "line 1"]),
    "in pixels": ([("a", "1.0", "100,100,200,300", "1", 0.5)], TRUTH, ["p.csv, line 1: ", "100.0,100.0,200.0,300.0"]),
    "empty": ([*DETECTED, ("a", "1.0", "0.2,0.1,0.2,0.3", "1", 0.5)], TRUTH, ["p.csv, line 9: ", "0.2,0.1,0.2,0.3"]),
    "other videos only": (DETECTED[7:], TRUTH, ["p.csv: ", "(x)", "(a, c)"]),
    "other times only": (DETECTED[6:7], TRUTH, ["p.csv: ", "none of 1 predictions"]),
    "empty truth": (DETECTED, [*TRUTH, EMPTY_TRUTH], ["gt.csv, line 7: ", "0.3,0.1,0.2,0.3"]),
}


@pytest.mark.parametrize("case", FAULTY)
def test_faulty_files_are_refused(case, compared):
    detected, truth, facts = FAULTY[case]
    with pytest.raises(UserError) as caught:
        compared(detected, truth)
    assert all(fact in str(caught.value) for fact in facts)


def test_entity_ids_may_be_the_same_in_two_videos(evaluated):
    result = evaluated([("a", "1.00", LEFT, "1", 0.9), ("c", "1.00", LEFT, "1", 0.8)])
    assert result["faces"]["matched"] == 2
    assert result["missed_videos"] == []


def test_ego4d_counts_speaking_faces_alone_and_predictions_at_all_times(compared):
    detected = [
        ("a", "0.0332", SHIFTED, "1", 0.9),  # frame 1: right
        ("a", "0.0333", LEFT, "2", 0.8),  # the same face again: false, though it overlaps it more
        ("a", "0.0333", RIGHT, "3", 0.7),  # on a silent face: false
        ("a", "0.0667", RIGHT, "3", 0.6),  # frame 2: right
        ("a", "0.1000", LEFT, "1", 0.95),  # nobody is annotated then: false
        ("x", "0.0333", LEFT, "1", 0.99),  # of another video
    ]
    truth = [
        f"a,0.033333,{LEFT},{SPEAKING},a:0",
        f"a,0.033333,{RIGHT},{SILENT},a:1",
        f"a,0.066667,{RIGHT},{SPEAKING},a:1",
        f"c,0.033333,{LEFT},{SPEAKING},c:0",
    ]
    comparison = compared(detected, truth)
    # By score: 0.95 false, 0.9 right, 0.8 and 0.7 false, 0.6 right; one of three is not found.
    value = ego4d_average_precision(comparison.groundtruth, comparison.predictions)
    assert value == pytest.approx((1 / 2 + 2 / 5) / 3)
    # The 9/11 of 0.9 are too little: 0.8 is the first to find the face, at 1/3, which 2/5 on its right raises.
    value = ego4d_average_precision(comparison.groundtruth, comparison.predictions, 0.9)
    assert value == pytest.approx((2 / 5 + 2 / 5) / 3)


def test_ego4d_as_its_published_loop_counts(compared):
    """Detections in turn, the annotated box that each overlaps most, and whether it is used already."""
    rng = np.random.default_rng(5)

    def faces(number: int) -> list[tuple[str, str, str]]:
        corners = rng.integers(0, 4, (number, 2)) / 10  # so that overlaps are equal, or just enough
        frames = rng.integers(0, 12, number)
        boxes = (f"{x},{y},{x + 0.3:.2f},{y + 0.3:.2f}" for x, y in corners)
        return [
            ("ab"[n % 2], f"{frame / 30:.6f}", box) for n, (frame, box) in enumerate(zip(frames, boxes, strict=True))
        ]

    truth = [(*face, (SPEAKING, SILENT)[n % 3 == 0]) for n, face in enumerate(faces(60))]
    detected = [(*face, str(n), score) for n, (face, score) in enumerate(zip(faces(80), rng.random(80), strict=True))]
    used, right = set(), []
    for video, time, box, _, _ in sorted(detected, key=lambda row: -row[-1]):
        best, overlap = None, 0.5 - 1e-9
        for n, (other_video, other_time, other_box, label) in enumerate(truth):
            if (video, time, SPEAKING) == (other_video, other_time, label):
                boxes = (np.array(text.split(","), float)[None] for text in (box, other_box))
                shared = float(intersection_over_union(*boxes)[0])
                if shared > overlap:
                    best, overlap = n, shared
        right.append(best is not None and best not in used)
        used.add(best)
    found = np.flatnonzero(right)
    precision = np.arange(1, len(found) + 1) / (found + 1)
    expected = np.maximum.accumulate(precision[::-1]).sum() / sum(label == SPEAKING for *_, label in truth)
    lines = [f"{video},{time},{box},{label},{video}:{n}" for n, (video, time, box, label) in enumerate(truth)]
    comparison = compared(detected, lines)
    assert 5 < len(found) < 40
    assert ego4d_average_precision(comparison.groundtruth, comparison.predictions) == pytest.approx(expected)
