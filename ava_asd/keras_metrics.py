"""Loss, accuracy and areas as Keras' evaluation reports them, for comparison with numbers from there.

`AUC` of tf.keras.metrics counts at 200 thresholds, and over both columns of the softmax at once: each window counts
twice, as speaking and as not speaking. It is no ranking metric of the speaking class; `core.evaluation.metrics` has
those.
"""

from collections.abc import Mapping, Sequence

import numpy as np

THRESHOLDS = 200
MARGIN = 1e-7  # the first and the last threshold lie this far outside 0 and 1


def evaluate_keras(
    outputs: Sequence[str], scores: np.ndarray, classes: np.ndarray, weights: Mapping[str, float], penalty: float
) -> dict[str, float]:
    """What Keras' `evaluate` gives for the published compilation of the networks.

    Args:
        outputs: names of the outputs.
        scores: (window, output, class) probabilities.
        classes: (window,) 0 or 1.
        weights: name of an output -> weight of its cross-entropy in the loss.
        penalty: what the L2 regularisation adds to the loss.

    Returns:
        loss; `<output>_accuracy` of each output; auroc and aupr of the last output, which is the joint one if there
        are several.
    """
    rows = np.arange(len(classes))
    entropies = [
        -np.log(np.maximum(scores[rows, position, classes], np.finfo(float).tiny)).mean()
        for position, _ in enumerate(outputs)
    ]
    accuracies = [float(np.mean(scores[:, position].argmax(axis=1) == classes)) for position, _ in enumerate(outputs)]
    targets = np.eye(2, dtype=bool)[classes].ravel()
    counts = count_at_thresholds(targets, scores[:, -1].ravel())
    loss = sum(weights[name] * entropy for name, entropy in zip(outputs, entropies, strict=True)) + penalty
    return {
        "loss": float(loss),
        **{f"{name}_accuracy": value for name, value in zip(outputs, accuracies, strict=True)},
        "auroc": roc_area(*counts),
        "aupr": precision_recall_area(*counts),
    }


def count_at_thresholds(targets: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, int]:
    """True and false positives at each of the thresholds, ascending, where score > threshold is positive.

    Args:
        targets: (n,) bool.
        scores: (n,) 0 to 1; compared as float32, as Keras does.

    Returns:
        True positives and false positives, (threshold,) int64 each; the numbers of positives and of negatives.
    """
    inner = np.arange(1, THRESHOLDS - 1) / (THRESHOLDS - 1)
    thresholds = np.array([-MARGIN, *inner, 1 + MARGIN], np.float32)
    scores = scores.astype(np.float32)

    def above(values: np.ndarray) -> np.ndarray:
        return len(values) - np.searchsorted(np.sort(values), thresholds, side="right")

    return above(scores[targets]), above(scores[~targets]), int(targets.sum()), int((~targets).sum())


def roc_area(true_positives: np.ndarray, false_positives: np.ndarray, positives: int, negatives: int) -> float:
    """Area under the ROC curve between the thresholds' points, by the trapezoidal rule."""
    recall, fall_out = true_positives / positives, false_positives / negatives
    return float(np.trapezoid(recall[::-1], fall_out[::-1]))


def precision_recall_area(
    true_positives: np.ndarray, false_positives: np.ndarray, positives: int, negatives: int
) -> float:
    """Area under precision over recall, interpolated between the thresholds' points.

    Between two thresholds true positives are taken to grow in proportion to all predicted positives (Davis and
    Goadrich, "The Relationship Between Precision-Recall and ROC Curves", ICML 2006). With TP = slope P + intercept,
    the area is the integral of TP / P over TP / positives: slope (dTP + intercept log(P1 / P0)) / positives, where the
    logarithm counts as 0 if nothing is predicted positive at one of the ends.
    """
    predicted = true_positives + false_positives
    more_true = true_positives[:-1] - true_positives[1:]
    more, low, high = predicted[:-1] - predicted[1:], predicted[1:], predicted[:-1]
    slope = np.divide(more_true, more, out=np.zeros(len(more)), where=more > 0)
    intercept = true_positives[1:] - slope * low
    ratio = np.divide(high, low, out=np.ones(len(more)), where=(high > 0) & (low > 0))
    return float(np.sum(slope * (more_true + intercept * np.log(ratio))) / positives)
