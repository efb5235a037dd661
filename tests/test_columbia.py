"""The Columbia protocol on toys, with F1 by hand."""

import numpy as np
import pytest

from core.evaluation.columbia import evaluate_columbia, log_odds, read_labels, smoothed
from core.evaluation.detected import read_detections
from core.runtime.errors import UserError

# A frame of 512 pixels on both sides: corners in pixels are exact fractions of it.
SIZE, FPS = (512, 512), 25.0
BELL, LIEB = (100, 100), (300, 100)  # corners of boxes of 100 pixels


def write_labels(folder, name, labels, corner=BELL, size=100):
    """Labels at frames 0, 1, ... of a face that keeps its place."""
    folder.mkdir(exist_ok=True)
    rows = [f"{frame}\t{corner[0]}\t{corner[1]}\t{size}\t{label}" for frame, label in enumerate(labels)]
    (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")


def track(entity, scores, box, video="col"):
    """Rows of one track from time 0: box (x1, y1, x2, y2) in pixels."""
    corners = ",".join(repr(pixel / 512) for pixel in box)
    return [
        f"{video},{index / FPS!r},{corners},SPEAKING_AUDIBLE,{entity},{score!r}" for index, score in enumerate(scores)
    ]


def box_at(corner, width=100, height=100):
    return (corner[0], corner[1], corner[0] + width, corner[1] + height)


@pytest.fixture
def evaluated(tmp_path):
    """The results of predictions, with labels of speaker -> labels, or (labels, corner)."""

    def evaluated(labels, rows, size=SIZE, fps=FPS):
        for name, of_speaker in labels.items():
            write_labels(tmp_path / "labels", name, *(of_speaker if isinstance(of_speaker, tuple) else (of_speaker,)))
        (tmp_path / "p.csv").write_text("\n".join(rows) + "\n")
        return evaluate_columbia(read_labels(tmp_path / "labels"), "p", read_detections(tmp_path / "p.csv"), size, fps)

    return evaluated


def probabilities(values):
    return [1 / (1 + np.exp(-value)).item() for value in values]


LOGITS = [4.0, 1.0, -2.0, -8.0, 1.0]
MEANS = [1, -5 / 4, -4 / 5, -2, -3]  # over two to either side, as far as there are any


def test_f1_by_hand(evaluated):
    labels = {"bell": [1, 1, 0, 0, 1], "lieb": ([1, 1, 1], LIEB), "abbas": ([0, 1, 0], (400, 400))}
    result = evaluated(labels, track("1", LOGITS, box_at(BELL)) + track("2", [3.0, 3.0], box_at(LIEB)))
    # Bell speaks in the first frame only: TP 1, FN 2. Lieb: TP 2, and no prediction in the third frame: FN 1.
    columns = ("labels", "speaking", "matched", "accuracy", "f1")
    assert {name: tuple(counts[column] for column in columns) for name, counts in result["speakers"].items()} == {
        "bell": (5, 3, 5, pytest.approx(3 / 5), pytest.approx(2 / (2 + 2))),
        "lieb": (3, 3, 2, pytest.approx(2 / 3), pytest.approx(4 / (4 + 1))),
        "abbas": (3, 1, 0, pytest.approx(2 / 3), 0),
    }
    assert result["mean_f1"] == pytest.approx((0.5 + 0.8) / 2)  # Abbas is left out
    assert result["averaged"] == ["bell", "lieb"]
    assert result["scores"] == "log odds"
    assert any("abbas.txt" in note and "3 labels" in note for note in result["notes"])
    assert any("bell, lieb;" in note and "bell, boll, lieb, long, sick" in note for note in result["notes"])
    assert any("log odds" in note for note in result["notes"])


def test_probabilities_give_what_their_log_odds_give(evaluated):
    result = evaluated({"bell": [1, 1, 0, 0, 1]}, track("1", probabilities(LOGITS), box_at(BELL)))
    assert result["scores"] == "probabilities"
    assert result["mean_f1"] == pytest.approx(0.5)
    assert not any("log odds" in note for note in result["notes"])
    # The mean of these log odds is below 0, the mean of these probabilities above one half: nobody speaks.
    scores = probabilities([2.0, 2.0, -6.0])
    assert np.mean(scores) > 0.5
    assert evaluated({"bell": [0, 0, 0]}, track("1", scores, box_at(BELL)))["speakers"]["bell"]["accuracy"] == 1


def test_sure_probabilities_have_finite_log_odds():
    odds, are_probabilities = log_odds(np.array([0.0, 0.5, 1.0]))
    assert are_probabilities
    assert odds[1] == 0
    assert 20 < odds[2] < 30
    assert odds[0] == pytest.approx(-odds[2], rel=1e-3)


def test_one_half_does_not_speak(evaluated):
    assert evaluated({"bell": [1, 1]}, track("1", [0.5, 0.5], box_at(BELL)))["mean_f1"] == 0


def test_the_five_published_speakers_need_no_note(evaluated):
    corners = {name: (100 * index, 0) for index, name in enumerate(("bell", "boll", "lieb", "long", "sick"))}
    rows = [row for name, corner in corners.items() for row in track(name, [0.9, 0.9], box_at(corner))]
    result = evaluated({name: ([1, 0], corner) for name, corner in corners.items()}, rows)
    assert result["notes"] == []
    assert result["mean_f1"] == pytest.approx(2 / 3)  # each: TP 1, FP 1


def test_smoothing_stays_within_a_track_and_follows_time():
    scores = np.array([*LOGITS, 100.0])
    tracks = np.array([3, 3, 3, 3, 3, 1])
    times = np.arange(6) / 25
    np.testing.assert_allclose(smoothed(scores, tracks, times), [*MEANS, 100])
    order = np.array([4, 5, 0, 2, 1, 3])
    np.testing.assert_allclose(smoothed(scores[order], tracks[order], times[order]), np.array([*MEANS, 100])[order])


FITTING = {
    "inside, however small": ((150, 150, 160, 160), 1),
    "more than half inside": ((149, 100, 249, 200), 1),
    "half inside": ((150, 100, 250, 200), 0),
    "far larger": ((75, 75, 225, 225), 0),  # 100 x 100 of 150 x 150
    "a little larger": ((95, 95, 205, 205), 1),
    "more than half inside, but not of its square": ((100, 100, 140, 250), 0),  # 150 x 150 about (120, 175)
}


@pytest.mark.parametrize("case", FITTING)
def test_share_of_the_predicted_square_inside_the_label(case, evaluated):
    box, matched = FITTING[case]
    rows = track("1", [2.0], box) + track("2", [2.0], box_at(LIEB))
    assert evaluated({"bell": [1], "lieb": ([1], LIEB)}, rows)["speakers"]["bell"]["matched"] == matched


def test_the_largest_share_counts_then_the_highest_score(evaluated):
    inside, also, beside = box_at((110, 110), 20, 20), box_at((160, 160), 20, 20), box_at((130, 100))
    for other, first, second, f1 in (
        (beside, -2.0, 3.0, 0),
        (beside, 2.0, -3.0, 1),
        (also, -2.0, 3.0, 1),
        (also, 3.0, -2.0, 1),
    ):
        assert evaluated({"bell": [1]}, track("1", [first], inside) + track("2", [second], other))["mean_f1"] == f1


def test_labels_at_29_97_frames_meet_predictions_at_25(evaluated):
    result = evaluated({"bell": [1] * 300}, track("1", [2.0] * 251, box_at(BELL)), fps=29.97)
    assert result["speakers"]["bell"]["matched"] == 300
    assert result["mean_f1"] == 1
    # A change after 5 s in the video is one after frame 149 of the labels.
    halves = track("1", [2.0] * 125 + [-2.0] * 126, box_at(BELL))
    result = evaluated({"bell": [1] * 150 + [0] * 150}, halves, fps=29.97)
    assert result["speakers"]["bell"]["accuracy"] > 0.99
    assert result["speakers"]["bell"]["matched"] == 300


def test_a_speaker_who_never_speaks_is_not_averaged(evaluated):
    rows = track("1", [2.0, 2.0], box_at(BELL)) + track("2", [-2.0, -2.0], box_at(LIEB))
    result = evaluated({"bell": [1, 1], "lieb": ([0, 0], LIEB)}, rows)
    assert result["speakers"]["lieb"]["f1"] is None
    assert result["mean_f1"] == 1
    assert any("lieb.txt has no label that speaks" in note for note in result["notes"])


# ---- what is refused --------------------------------------------------------------------------------------------

GOOD_LINE = "12\t100\t100\t50\t1"


@pytest.mark.parametrize(
    "line",
    [
        "12 100 100 50 1",
        "12\t100\t100\t50",
        "12\t100\t100\t50\t1\t0",
        "12\t100\t100\tlarge\t1",
        "12\t100.5\t100\t50\t1",
        "12\t100\t100\t50\t2",
        "12\t100\t100\t0\t1",
        "-1\t100\t100\t50\t1",
        f"{2**63}\t100\t100\t50\t1",
        "frame\tx\ty\tsize\tlabel",
        "1_0\t100\t100\t50\t1",
        "９\t100\t100\t50\t1",
    ],
)
def test_faulty_lines_are_refused(line, tmp_path):
    (tmp_path / "bell.txt").write_text(f"{GOOD_LINE}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError) as caught:
        read_labels(tmp_path)
    assert f"bell.txt, line 3: {line!r}" in str(caught.value)
    assert "frame, x, y, size, label" in str(caught.value)


def test_labels_as_they_stand(tmp_path):
    (tmp_path / "bell.txt").write_text(f"{GOOD_LINE}\r\n13\t-3\t100\t50\t0\r\n")
    labels = read_labels(tmp_path)["bell"]
    assert labels.frames.tolist() == [12, 13]
    assert labels.boxes.tolist() == [[100, 100, 150, 150], [-3, 100, 47, 150]]
    assert labels.speaking.tolist() == [True, False]


def test_absent_labels_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    write_labels(tmp_path / "fusion", "bell", [])
    for folder, facts in (
        ("nowhere", ["no folder", "nowhere"]),
        ("empty", ["no .txt", "empty"]),
        (".", ["no .txt", "folder fusion"]),
        ("fusion", ["bell.txt is empty"]),
    ):
        with pytest.raises(UserError) as caught:
            read_labels(tmp_path / folder)
        assert all(fact in str(caught.value) for fact in facts)


def test_predictions_of_another_video_size_or_of_several_videos_are_refused(evaluated):
    rows = track("1", [2.0, 2.0], box_at(BELL))
    with pytest.raises(UserError, match=r"2 predictions .* 2 labels .*25 frames per second .*2048x2048"):
        evaluated({"bell": [1, 1]}, rows, size=(2048, 2048))
    with pytest.raises(UserError, match=r"2 videos \(a, col\)"):
        evaluated({"bell": [1, 1]}, rows + track("1", [2.0], box_at(BELL), video="a"))
