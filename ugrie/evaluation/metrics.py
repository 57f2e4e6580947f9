"""How well predictions agree with labels: the measures of one scheme, 95 % intervals for them, and contradictions between schemes.

`targets` and `probs` are float [n, labels], rows adding up to one; `choices`, int [n], is the label that was written, by default
the likeliest. docs/evaluation.md says what each measure is and where it comes from.
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


def evaluate(scheme: Scheme, targets: np.ndarray, probs: np.ndarray, choices: np.ndarray | None = None) -> dict[str, float]:
    """The measures of one scheme.

    Categorical: accuracy, balanced accuracy (over the labels that occur), macro-F1 (over all the scheme's labels), NLL in nats,
    Brier score, expected calibration error; for two labels ROC AUC; and for a scheme with a wheel the mean distance on it and
    the accuracy that it weights. Ordinal: Pearson r, concordance (CCC), mean absolute and root mean squared error of the
    expectation, in the scheme's range; and the mean absolute error of a constant, the mean of the labels evaluated.
    """
    if scheme.kind == "ordinal":
        wanted, given = targets @ np.asarray(scheme.values), probs @ np.asarray(scheme.values)
        return {"n": len(wanted), **_ordinal(wanted, given), "mae_of_constant": float(np.abs(wanted - wanted.mean()).mean())}
    wanted, chosen = targets.argmax(1), probs.argmax(1) if choices is None else choices
    labels, present = np.arange(len(scheme.labels)), np.unique(wanted)
    measured = {
        "n": len(wanted),
        "accuracy": float(metrics.accuracy_score(wanted, chosen)),
        "balanced_accuracy": float(metrics.recall_score(wanted, chosen, labels=present, average="macro", zero_division=0)),
        "macro_f1": float(metrics.f1_score(wanted, chosen, labels=labels, average="macro", zero_division=0)),
        **{name: float(values.mean()) for name, values in _means(scheme, wanted, chosen, probs).items()},
        "ece": _calibration_error(*_calibration(wanted, chosen, probs)),
    }
    if len(labels) == len(present) == 2:
        measured["roc_auc"] = float(metrics.roc_auc_score(wanted, probs[:, 1]))
    return measured


def intervals(scheme: Scheme, targets: np.ndarray, probs: np.ndarray, choices: np.ndarray | None = None) -> dict[str, tuple[float, float]]:
    """95 % intervals of `evaluate`'s measures, by the percentile bootstrap over images (Efron and Tibshirani 1993), seed fixed."""
    if scheme.kind == "ordinal":
        wanted, given = targets @ np.asarray(scheme.values), probs @ np.asarray(scheme.values)
        measure: Callable[[np.ndarray], dict[str, float]] = partial(_ordinal, wanted, given)
    else:
        measure = _resampled(scheme, targets.argmax(1), probs.argmax(1) if choices is None else choices, probs)
    draw, count = np.random.default_rng(SEED), len(targets)
    samples = [measure(draw.integers(count, size=count)) for _ in range(RESAMPLES)]
    return {name: _interval([sample[name] for sample in samples]) for name in samples[0]}


def confusion(scheme: Scheme, targets: np.ndarray, choices: np.ndarray) -> np.ndarray:
    """int64 [labels, labels]: images by their label (rows) and by the label written (columns)."""
    return metrics.confusion_matrix(targets.argmax(1), choices, labels=np.arange(len(scheme.labels)))


def reliability(targets: np.ndarray, probs: np.ndarray, choices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """By bin of the written label's probability: images int64 [15], their share that is right and mean probability (NaN: none)."""
    bins, hit, confidence = _calibration(targets.argmax(1), choices, probs)
    count = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        return count, np.bincount(bins, hit, BINS) / count, np.bincount(bins, confidence, BINS) / count


def contradictions(prediction: Prediction) -> dict[str, Any]:
    """How often labels written for one image contradict each other: one is of positive, the other of negative polarity.

    For every pair of schemes that have labels of both polarities: the images whose labels do, and their share of all, with its
    95 % interval; where there are several pairs, also the images with any.
    """
    polarities = {scheme.name: [label.polarity for label in scheme.labels] for scheme in prediction.template.schemes}
    pairs = contradicting(polarities, prediction.choices)
    found = {}
    for name, contradicts in pairs.items():
        count, n = int(contradicts.sum()), len(prediction)
        found[name] = {"contradictions": count, "share": count / n, "interval": {"share": share_interval(count, n)}}
    return found


def share_interval(count: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927), which is of some width also where none or all were counted; resampling's is not."""
    interval = stats.binomtest(count, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _ordinal(wanted: np.ndarray, given: np.ndarray, rows: np.ndarray | slice = slice(None)) -> dict[str, float]:
    """The measures of ratings and predictions, float [n], or some rows of them. What is constant correlates with nothing."""
    wanted, given = wanted[rows], given[rows]
    gap = wanted.mean() - given.mean()
    covariance = ((wanted - wanted.mean()) * (given - given.mean())).mean()
    error = given - wanted
    return {
        "pearson_r": float(covariance / max(wanted.std() * given.std(), 1e-12)),
        "ccc": float(2 * covariance / max(wanted.var() + given.var() + gap**2, 1e-12)),
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt((error**2).mean())),
    }


def _means(scheme: Scheme, wanted: np.ndarray, chosen: np.ndarray, probs: np.ndarray) -> dict[str, np.ndarray]:
    """What an image adds to each measure that is a mean over images, float [n]. A probability of zero is taken for 1e-12."""
    rows = np.arange(len(wanted))
    parts = {"nll": -np.log(np.maximum(probs[rows, wanted], 1e-12))}
    parts["brier"] = ((probs - np.eye(len(scheme.labels))[wanted]) ** 2).sum(1)
    if scheme.wheel:
        steps = scheme.wheel_distance[wanted, chosen]
        parts["wheel_distance"] = steps
        parts["wheel_accuracy"] = 1 / (1 + steps)
    return parts


def _calibration(wanted: np.ndarray, chosen: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The bin of the written label's probability, whether it is right, and the probability. Bins hold their upper bound."""
    confidence = probs[np.arange(len(chosen)), chosen].astype(np.float64)
    return np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1), wanted == chosen, confidence


def _calibration_error(bins: np.ndarray, hit: np.ndarray, confidence: np.ndarray) -> float:
    return float(np.abs(np.bincount(bins, hit - confidence)).sum() / len(bins))


def _resampled(scheme: Scheme, wanted: np.ndarray, chosen: np.ndarray, probs: np.ndarray) -> Callable[[np.ndarray], dict[str, float]]:
    """The categorical measures of any selection of images, by counting: scikit-learn takes some ten milliseconds for each.

    Balanced accuracy is over the labels that occur in the selection, ROC AUC is NaN where only one does.
    """
    size = len(scheme.labels)
    cell = wanted * size + chosen
    means = _means(scheme, wanted, chosen, probs)
    bins, hit, confidence = _calibration(wanted, chosen, probs)
    scores, rank = np.unique(probs[:, 1], return_inverse=True)  # a pair of one score counts half, as Mann and Whitney have it
    two_classes = size == len(np.unique(wanted)) == 2

    def measure(rows: np.ndarray) -> dict[str, float]:
        table = np.bincount(cell[rows], minlength=size * size).reshape(size, size)
        right, support, predicted = table.diagonal(), table.sum(1), table.sum(0)
        measured = {
            "accuracy": right.sum() / len(rows),
            "balanced_accuracy": (right[support > 0] / support[support > 0]).mean(),
            "macro_f1": (2 * right / np.maximum(support + predicted, 1)).mean(),
            **{name: values[rows].mean() for name, values in means.items()},
            "ece": _calibration_error(bins[rows], hit[rows], confidence[rows]),
        }
        if two_classes:
            negative, positive = (np.bincount(rank[rows[wanted[rows] == side]], minlength=len(scores)) for side in (0, 1))
            wins = (positive * (np.cumsum(negative) - negative / 2)).sum()
            measured["roc_auc"] = wins / (support[0] * support[1]) if support.all() else np.nan
        return measured

    return measure


def _interval(samples: Sequence[float] | np.ndarray) -> tuple[float, float]:
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return float(low), float(high)
