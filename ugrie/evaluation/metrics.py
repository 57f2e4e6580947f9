"""Metrics of one scheme's predictions against its labels, their 95 % intervals, and contradictions between schemes.

`targets` and `probs` are float [n, labels], each row adding up to one. `choices`, int [n], is the label that was written, by default
the most probable one. docs/evaluation.md defines each metric and names its source.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import stats
from sklearn import metrics

from ugrie.model.prediction import Prediction
from ugrie.schemes.contradictions import contradicting
from ugrie.schemes.scheme import Scheme

RESAMPLES, SEED = 1000, 0
BINS = 15  # of the calibration error, as in Guo et al., ICML 2017


def scheme_metrics(scheme: Scheme, targets: np.ndarray, probs: np.ndarray, choices: np.ndarray | None = None) -> dict[str, float]:
    """Return the metrics of one scheme.

    Categorical: accuracy, balanced accuracy (over the labels that occur), macro-F1 (over all the scheme's labels), NLL in nats,
    Brier score and expected calibration error; ROC AUC if there are two labels; if the scheme has a wheel, the mean distance on
    it and the accuracy weighted by it. Ordinal: Pearson r, concordance (CCC), mean absolute and root mean squared error of the
    expectation, in the scheme's range; and the mean absolute error of a constant, the mean of the labels evaluated.
    """
    if scheme.kind == "ordinal":
        ratings, values = targets @ np.asarray(scheme.values), probs @ np.asarray(scheme.values)
        return {"n": len(ratings), **_ordinal(ratings, values), "mae_of_constant": float(np.abs(ratings - ratings.mean()).mean())}
    truth, chosen = targets.argmax(1), probs.argmax(1) if choices is None else choices
    labels, present = np.arange(len(scheme.labels)), np.unique(truth)
    found = {
        "n": len(truth),
        "accuracy": float(metrics.accuracy_score(truth, chosen)),
        "balanced_accuracy": float(metrics.recall_score(truth, chosen, labels=present, average="macro", zero_division=0)),
        "macro_f1": float(metrics.f1_score(truth, chosen, labels=labels, average="macro", zero_division=0)),
        **{name: float(values.mean()) for name, values in _per_image(scheme, truth, chosen, probs).items()},
        "ece": _calibration_error(*_calibration(truth, chosen, probs)),
    }
    if len(labels) == len(present) == 2:
        found["roc_auc"] = float(metrics.roc_auc_score(truth, probs[:, 1]))
    return found


def confidence_intervals(
    scheme: Scheme, targets: np.ndarray, probs: np.ndarray, choices: np.ndarray | None = None
) -> dict[str, tuple[float, float]]:
    """Return 95 % intervals of the metrics, by the percentile bootstrap over images (Efron and Tibshirani 1993) with a fixed seed."""
    if scheme.kind == "ordinal":
        ratings, values = targets @ np.asarray(scheme.values), probs @ np.asarray(scheme.values)
        measure: Callable[[np.ndarray], dict[str, float]] = partial(_ordinal, ratings, values)
    else:
        measure = _resampled(scheme, targets.argmax(1), probs.argmax(1) if choices is None else choices, probs)
    rng, count = np.random.default_rng(SEED), len(targets)
    samples = [measure(rng.integers(count, size=count)) for _ in range(RESAMPLES)]
    return {name: _percentile_interval([sample[name] for sample in samples]) for name in samples[0]}


def confusion(scheme: Scheme, targets: np.ndarray, choices: np.ndarray) -> np.ndarray:
    """Return the confusion matrix, int64 [labels, labels]: images by their label (rows) and by the label written (columns)."""
    return metrics.confusion_matrix(targets.argmax(1), choices, labels=np.arange(len(scheme.labels)))


def reliability(targets: np.ndarray, probs: np.ndarray, choices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, by bin of the written label's probability, images int64 [15], accuracy and mean probability (NaN in an empty bin)."""
    bins, correct, confidence = _calibration(targets.argmax(1), choices, probs)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return count, np.bincount(bins, correct, BINS) / count, np.bincount(bins, confidence, BINS) / count


def contradictions(prediction: Prediction) -> dict[str, Any]:
    """Count the images whose labels contradict each other: one is of positive, the other of negative polarity.

    For every pair of schemes that have labels of both polarities: the number of images whose labels contradict, and their share of all
    images with its 95 % interval. With several pairs also the images with any contradiction.
    """
    polarities = {scheme.name: [label.polarity for label in scheme.labels] for scheme in prediction.template.schemes}
    pairs = contradicting(polarities, prediction.choices)
    found = {}
    for name, contradicts in pairs.items():
        count, n = int(contradicts.sum()), len(prediction)
        found[name] = {"contradictions": count, "share": count / n, "interval": {"share": share_interval(count, n)}}
    return found


def share_interval(count: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927). Unlike a bootstrap's, it has some width even if none or all were counted."""
    interval = stats.binomtest(count, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _ordinal(ratings: np.ndarray, values: np.ndarray, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
    """Return the metrics of ratings and predicted values, float [n], or of some rows. Correlations with a constant are 0."""
    ratings, values = ratings[rows], values[rows]
    gap = ratings.mean() - values.mean()
    covariance = ((ratings - ratings.mean()) * (values - values.mean())).mean()
    error = values - ratings
    return {
        "pearson_r": float(covariance / max(ratings.std() * values.std(), 1e-12)),
        "ccc": float(2 * covariance / max(ratings.var() + values.var() + gap**2, 1e-12)),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
    }


def _per_image(scheme: Scheme, truth: np.ndarray, chosen: np.ndarray, probs: np.ndarray) -> dict[str, np.ndarray]:
    """Return each image's contribution, float [n], to the metrics that are means over images. Probabilities are at least 1e-12 in logs."""
    rows = np.arange(len(truth))
    parts = {"nll": -np.log(np.maximum(probs[rows, truth], 1e-12))}
    parts["brier"] = ((probs - np.eye(len(scheme.labels))[truth]) ** 2).sum(1)
    if scheme.wheel:
        steps = scheme.wheel_distance[truth, chosen]
        parts["wheel_distance"] = steps
        parts["wheel_accuracy"] = 1 / (1 + steps)
    return parts


def _calibration(truth: np.ndarray, chosen: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the bin of the written label's probability, whether the label is correct, and that probability, each [n].

    A bin includes its upper bound.
    """
    confidence = probs[np.arange(len(chosen)), chosen].astype(np.float64)
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1), truth == chosen, confidence


def _calibration_error(bins: np.ndarray, correct: np.ndarray, confidence: np.ndarray) -> float:
    return float(np.abs(np.bincount(bins, correct - confidence)).sum() / len(bins))


def _resampled(scheme: Scheme, truth: np.ndarray, chosen: np.ndarray, probs: np.ndarray) -> Callable[[np.ndarray], dict[str, float]]:
    """Return a function that computes the categorical metrics of any rows by counting: scikit-learn takes some ten milliseconds each.

    Balanced accuracy is over the labels that occur in the rows. ROC AUC is NaN if only one label does.
    """
    size = len(scheme.labels)
    cell = truth * size + chosen
    means = _per_image(scheme, truth, chosen, probs)
    bins, correct, confidence = _calibration(truth, chosen, probs)
    scores, rank = np.unique(probs[:, 1], return_inverse=True)  # a pair of equal scores counts half, as in the Mann-Whitney U test
    two_classes = size == len(np.unique(truth)) == 2

    def measure(rows: np.ndarray) -> dict[str, float]:
        table = np.bincount(cell[rows], minlength=size * size).reshape(size, size)
        right, support, predicted = table.diagonal(), table.sum(1), table.sum(0)
        found = {
            "accuracy": right.sum() / len(rows),
            "balanced_accuracy": (right[support > 0] / support[support > 0]).mean(),
            "macro_f1": (2 * right / np.maximum(support + predicted, 1)).mean(),
            **{name: values[rows].mean() for name, values in means.items()},
            "ece": _calibration_error(bins[rows], correct[rows], confidence[rows]),
        }
        if two_classes:
            negative, positive = (np.bincount(rank[rows[truth[rows] == side]], minlength=len(scores)) for side in (0, 1))
            wins = (positive * (np.cumsum(negative) - negative / 2)).sum()
            found["roc_auc"] = wins / (support[0] * support[1]) if support.all() else np.nan
        return found

    return measure


def _percentile_interval(samples: Sequence[float] | np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return float(low), float(high)
