"""The Columbia protocol on toys, with F1 by hand."""

import re

import numpy as np
import pytest

from core.evaluation.columbia import evaluate_columbia, log_odds, read_labels, smoothed, squares
from core.evaluation.detected import read_detections
from core.runtime.errors import UserError

# A picture of 512 pixels on both sides: corners in pixels are exact fractions of it.
SIZE, FPS = (512, 512), 25.0
BELL, LIEB = (100, 100), (300, 100)  # corners of boxes of 100 pixels


def write_labels(folder, name, labels, corner=BELL, size=100):
    """Labels at frames 0, 1, ... of a face that keeps its place."""
    folder.mkdir(exist_ok=True)
    rows = [f"{frame}\t{corner[0]}\t{corner[1]}\t{size}\t{label}" for frame, label in enumerate(labels)]
    (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")


def track(entity, scores, box, first=0, fps=FPS, video="col"):
    """Rows of one track: box (x1, y1, x2, y2) in pixels."""
    corners = ",".join(repr(pixel / 512) for pixel in box)
    return [
        f"{video},{(first + index) / fps!r},{corners},SPEAKING_AUDIBLE,{entity},{score!r}"
        for index, score in enumerate(scores)
    ]


def box_at(corner, width=100, height=100):
    return (corner[0], corner[1], corner[0] + width, corner[1] + height)


def evaluated(folder, rows, size=SIZE, fps=FPS):
    path = folder / "p.csv"
    path.write_text("\n".join(rows) + "\n")
    return evaluate_columbia(read_labels(folder / "labels"), "p", read_detections(path), size, fps)


def probabilities(values):
    return [1 / (1 + np.exp(-value)).item() for value in values]


LOGITS = [4.0, 1.0, -2.0, -8.0, 1.0]
MEANS = [1, -5 / 4, -4 / 5, -2, -3]  # over two to either side, as far as there are any


def test_f1_by_hand(tmp_path):
    labels = tmp_path / "labels"
    write_labels(labels, "bell", [1, 1, 0, 0, 1])
    write_labels(labels, "lieb", [1, 1, 1], LIEB)
    write_labels(labels, "abbas", [0, 1, 0], (400, 400))
    rows = track("1", LOGITS, box_at(BELL)) + track("2", [3.0, 3.0], box_at(LIEB))
    result = evaluated(tmp_path, rows)
    # Bell speaks in the first frame only: TP 1, FN 2. Lieb: TP 2, and no prediction in the third frame: FN 1.
    counts = {"labels": 5, "speaking": 3, "matched": 5}
    assert result["speakers"]["bell"] == counts | {"accuracy": pytest.approx(3 / 5), "f1": pytest.approx(2 / (2 + 2))}
    assert result["speakers"]["lieb"]["f1"] == pytest.approx(4 / (4 + 1))
    assert result["speakers"]["lieb"]["matched"] == 2
    assert result["speakers"]["abbas"]["f1"] == 0
    assert result["mean_f1"] == pytest.approx((0.5 + 0.8) / 2)  # Abbas is left out
    assert result["averaged"] == ["bell", "lieb"]
    assert result["scores"] == "log odds"
    assert any("abbas.txt" in note and "any of the 3 labels" in note for note in result["notes"])
    assert any("the published one is over bell, boll, lieb, long, sick" in note for note in result["notes"])


def test_probabilities_give_what_their_log_odds_give(tmp_path):
    write_labels(tmp_path / "labels", "bell", [1, 1, 0, 0, 1])
    result = evaluated(tmp_path, track("1", probabilities(LOGITS), box_at(BELL)))
    assert result["scores"] == "probabilities"
    assert result["mean_f1"] == pytest.approx(0.5)
    assert not any("log odds" in note for note in result["notes"])
    # The mean of these log odds is below 0, the mean of these probabilities above one half: nobody speaks.
    write_labels(tmp_path / "labels", "bell", [0, 0, 0])
    result = evaluated(tmp_path, track("1", probabilities([2.0, 2.0, -6.0]), box_at(BELL)))
    assert np.mean(probabilities([2.0, 2.0, -6.0])) > 0.5
    assert result["speakers"]["bell"]["accuracy"] == 1


def test_the_five_published_speakers_need_no_note(tmp_path):
    rows = []
    for index, name in enumerate(("bell", "boll", "lieb", "long", "sick")):
        write_labels(tmp_path / "labels", name, [1, 0], (100 * index, 0))
        rows += track(name, [0.9, 0.9], box_at((100 * index, 0)))
    result = evaluated(tmp_path, rows)
    assert result["notes"] == []
    assert result["mean_f1"] == pytest.approx(2 / 3)  # each: TP 1, FP 1


def test_smoothing_stays_within_a_track_and_follows_time():
    scores = np.array([*LOGITS, 100.0])
    tracks = np.array([3, 3, 3, 3, 3, 1])
    times = np.arange(6) / 25
    np.testing.assert_allclose(smoothed(scores, tracks, times), [*MEANS, 100])
    order = np.array([4, 5, 0, 2, 1, 3])
    np.testing.assert_allclose(smoothed(scores[order], tracks[order], times[order]), np.array([*MEANS, 100])[order])


def test_sure_probabilities_have_finite_log_odds():
    odds, are_probabilities = log_odds(np.array([0.0, 0.5, 1.0]))
    assert are_probabilities
    assert odds[1] == 0
    assert 20 < odds[2] < 30
    assert odds[0] == pytest.approx(-odds[2], rel=1e-3)


def test_one_half_does_not_speak(tmp_path):
    write_labels(tmp_path / "labels", "bell", [1, 1])
    assert evaluated(tmp_path, track("1", [0.5, 0.5], box_at(BELL)))["mean_f1"] == 0


def test_squares_by_hand():
    boxes = np.array([[100, 100, 160, 200], [0, 0, 80, 40]], dtype=float)
    assert squares(boxes).tolist() == [[80, 100, 180, 200], [0, -20, 80, 60]]


FITTING = {
    "inside, however small": ((150, 150, 160, 160), 1),
    "more than half inside": ((149, 100, 249, 200), 1),
    "half inside": ((150, 100, 250, 200), 0),
    "far larger": ((75, 75, 225, 225), 0),  # 100 x 100 of 150 x 150
    "a little larger": ((95, 95, 205, 205), 1),
    "more than half inside, but not of its square": ((100, 100, 140, 250), 0),  # 150 x 150 about (120, 175)
}


@pytest.mark.parametrize("case", FITTING)
def test_share_of_the_predicted_square_inside_the_label(case, tmp_path):
    box, matched = FITTING[case]
    write_labels(tmp_path / "labels", "bell", [1])
    write_labels(tmp_path / "labels", "lieb", [1], LIEB)
    rows = track("1", [2.0], box) + track("2", [2.0], box_at(LIEB))
    assert evaluated(tmp_path, rows)["speakers"]["bell"]["matched"] == matched


def test_the_largest_share_counts_then_the_highest_score(tmp_path):
    write_labels(tmp_path / "labels", "bell", [1])
    inside, beside = box_at((110, 110), 20, 20), box_at((130, 100))
    for first, second, f1 in ((-2.0, 3.0, 0), (2.0, -3.0, 1)):
        assert evaluated(tmp_path, track("1", [first], inside) + track("2", [second], beside))["mean_f1"] == f1
    also = box_at((160, 160), 20, 20)
    for scores in ((-2.0, 3.0), (3.0, -2.0)):
        assert evaluated(tmp_path, track("1", [scores[0]], inside) + track("2", [scores[1]], also))["mean_f1"] == 1


def test_labels_at_29_97_frames_meet_predictions_at_25(tmp_path):
    write_labels(tmp_path / "labels", "bell", [1] * 300)
    result = evaluated(tmp_path, track("1", [2.0] * 251, box_at(BELL)), fps=29.97)
    assert result["speakers"]["bell"]["matched"] == 300
    assert result["mean_f1"] == 1
    # A change after 5 s in the video is one after frame 149 of the labels.
    write_labels(tmp_path / "labels", "bell", [1] * 150 + [0] * 150)
    halves = [2.0] * 125 + [-2.0] * 126
    result = evaluated(tmp_path, track("1", halves, box_at(BELL)), fps=29.97)
    assert result["speakers"]["bell"]["accuracy"] > 0.99
    assert result["speakers"]["bell"]["matched"] == 300


def test_a_speaker_who_never_speaks_is_not_averaged(tmp_path):
    write_labels(tmp_path / "labels", "bell", [1, 1])
    write_labels(tmp_path / "labels", "lieb", [0, 0], LIEB)
    rows = track("1", [2.0, 2.0], box_at(BELL)) + track("2", [-2.0, -2.0], box_at(LIEB))
    result = evaluated(tmp_path, rows)
    assert result["speakers"]["lieb"]["f1"] is None
    assert result["mean_f1"] == 1
    assert any("lieb.txt has no label that speaks" in note for note in result["notes"])


# ---- what is refused --------------------------------------------------------------------------------------------

GOOD_LINE = "12\t100\t100\t50\t1"
FAULTY_LINES = {
    "spaces": "12 100 100 50 1",
    "four columns": "12\t100\t100\t50",
    "six columns": "12\t100\t100\t50\t1\t0",
    "a word": "12\t100\t100\tlarge\t1",
    "a fraction": "12\t100.5\t100\t50\t1",
    "another label": "12\t100\t100\t50\t2",
    "no size": "12\t100\t100\t0\t1",
    "a frame before the first": "-1\t100\t100\t50\t1",
    "a number beyond all frames": f"{2**63}\t100\t100\t50\t1",
    "a header": "frame\tx\ty\tsize\tlabel",
}


@pytest.mark.parametrize("case", FAULTY_LINES)
def test_faulty_lines_are_refused(case, tmp_path):
    (tmp_path / "bell.txt").write_text(f"{GOOD_LINE}\n\n{FAULTY_LINES[case]}\n")
    expected = rf"bell\.txt, line 3: {re.escape(repr(FAULTY_LINES[case]))}; expected frame, x, y, size, label"
    with pytest.raises(UserError, match=expected):
        read_labels(tmp_path)


def test_labels_as_they_stand(tmp_path):
    (tmp_path / "bell.txt").write_text(f"{GOOD_LINE}\r\n13\t-3\t100\t50\t0\r\n")
    labels = read_labels(tmp_path)["bell"]
    assert labels.frames.tolist() == [12, 13]
    assert labels.boxes.tolist() == [[100, 100, 150, 150], [-3, 100, 47, 150]]
    assert labels.speaking.tolist() == [True, False]


def test_absent_labels_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*nowhere: expected one <speaker>\.txt"):
        read_labels(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no \.txt in .*: expected one <speaker>\.txt"):
        read_labels(tmp_path)
    write_labels(tmp_path / "fusion", "bell", [1])
    with pytest.raises(UserError, match=r"there are some in its folder fusion"):
        read_labels(tmp_path)
    (tmp_path / "fusion" / "bell.txt").write_text("\n\n")
    with pytest.raises(UserError, match=r"bell\.txt is empty"):
        read_labels(tmp_path / "fusion")


def test_predictions_of_another_video_size_or_of_several_videos_are_refused(tmp_path):
    write_labels(tmp_path / "labels", "bell", [1, 1])
    rows = track("1", [2.0, 2.0], box_at(BELL))
    message = "none of 2 predictions fits any of 2 labels .* as of 25 frames per second and frames of 2048x2048"
    with pytest.raises(UserError, match=message):
        evaluated(tmp_path, rows, size=(2048, 2048))
    with pytest.raises(UserError, match=r"p has predictions of 2 videos \(a, col\)"):
        evaluated(tmp_path, rows + track("1", [2.0], box_at(BELL), video="a"))
