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
    outputs: Sequence[str], scores: np.ndarray, classes: np.ndarray, *, weights: Mapping[str, float], penalty: float
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
    areas = areas_under_curves(np.eye(2, dtype=bool)[classes].ravel(), scores[:, -1].ravel())
    loss = sum(weights[name] * entropy for name, entropy in zip(outputs, entropies, strict=True)) + penalty
    return {
        "loss": float(loss),
        **{f"{name}_accuracy": value for name, value in zip(outputs, accuracies, strict=True)},
        "auroc": areas[0],
        "aupr": areas[1],
    }


def areas_under_curves(targets: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """Areas under the ROC curve and under precision over recall.

    They are counted at thresholds, where score > threshold is positive, with straight lines between the points of the
    ROC curve. Between two points of the other, true positives are taken to grow in proportion to all predicted
    positives (Davis and Goadrich, "The Relationship Between Precision-Recall and ROC Curves", ICML 2006). With
    TP = slope P + intercept, the area is the integral of TP / P over TP / positives:
    slope (dTP + intercept log(P1 / P0)) / positives, where the logarithm counts as 0 if nothing is predicted positive
    at one of the ends.

    Args:
        targets: (n,) bool; both values occur.
        scores: (n,) 0 to 1; compared as float32, as Keras does.
    """
    inner = np.arange(1, THRESHOLDS - 1) / (THRESHOLDS - 1)
    thresholds = np.array([-MARGIN, *inner, 1 + MARGIN], np.float32)
    scores = scores.astype(np.float32)
    true, false = (
        len(part) - np.searchsorted(np.sort(part), thresholds, side="right")
        for part in (scores[targets], scores[~targets])
    )
    positives, negatives = true[0], false[0]  # the first threshold is below all scores
    roc = np.trapezoid(true[::-1] / positives, false[::-1] / negatives)

    predicted = true + false
    more_true, more, low, high = -np.diff(true), -np.diff(predicted), predicted[1:], predicted[:-1]
    slope = np.divide(more_true, more, out=np.zeros(len(more)), where=more > 0)
    intercept = true[1:] - slope * low
    ratio = np.divide(high, low, out=np.ones(len(more)), where=(high > 0) & (low > 0))
    return float(roc), float(np.sum(slope * (more_true + intercept * np.log(ratio))) / positives)
