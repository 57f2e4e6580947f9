"""Fits each label's log-probability to the outputs of the kernel regression, by logistic regression (stacking, Wolpert 1992).

They are pooled with what BART says of the same labels, so that a model is as good as its own regression where BART has learned nothing
more.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from ugrie.schemes.scheme import Scheme
from ugrie.training.kernel_ridge import Regression, held_out_folds

STRENGTHS = (0.1, 1.0, 10.0)  # inverse regularisation strengths; the one with the least out-of-fold loss is taken
DEFAULT_STRENGTH = 1.0  # of a scheme that has too few images for out-of-fold losses
MOST = 20_000  # images that are used; more would not change a regression on so few outputs


def fit_label_scores(
    regression: Regression, targets: Mapping[str, np.ndarray], schemes: Sequence[Scheme], groups: np.ndarray, repeats: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return weights [outputs, labels] and bias [labels], as `Mapper.label_scores` uses them, for the labels of all schemes in turn.

    `targets` by scheme are [images, labels] (a row of zeros: no label), `groups` [images], and `repeats` [images] are weights, as in
    training. A scheme's labels follow from its own outputs, or from those of all schemes, whichever has the least loss on images of other
    groups. Zeros for a scheme without any label.
    """
    outputs = regression.predictions
    weights = np.zeros((outputs.shape[1], sum(len(scheme.labels) for scheme in schemes)), np.float32)
    bias = np.zeros(weights.shape[1], np.float32)
    output_end = label_end = 0
    for scheme in schemes:
        own, labels = slice(output_end, output_end + scheme.answers), slice(label_end, label_end + len(scheme.labels))
        output_end, label_end = own.stop, labels.stop
        folds = held_out_folds(scheme, targets[scheme.name], groups)
        rows = np.flatnonzero(folds >= 0)
        if not len(rows):
            continue
        if len(rows) > MOST:
            rows = np.sort(np.random.default_rng(0).permutation(rows)[:MOST])
        shares, found = targets[scheme.name][rows] * (repeats[rows, None] / repeats[rows].mean()), (own, DEFAULT_STRENGTH)
        if folds.max() > 0:
            candidates = [(columns, strength) for columns in (own, slice(None)) for strength in STRENGTHS]
            losses = [_held_out_loss(outputs[rows][:, columns], shares, folds[rows], strength) for columns, strength in candidates]
            found = candidates[int(np.argmin(losses))]
        weights[found[0], labels], bias[labels] = _logistic(outputs[rows][:, found[0]], shares, found[1])
    return weights, bias


def _held_out_loss(outputs: np.ndarray, shares: np.ndarray, folds: np.ndarray, strength: float) -> float:
    """Return the cross-entropy of images that were held out, summed over the folds."""
    loss = 0.0
    for fold in range(folds.max() + 1):
        held_out = folds == fold
        weights, bias = _logistic(outputs[~held_out], shares[~held_out], strength)
        scores = outputs[held_out] @ weights + bias
        log_probs = scores - np.logaddexp.reduce(scores, 1)[:, None]
        loss -= float((log_probs * shares[held_out]).sum())
    return loss


def _logistic(outputs: np.ndarray, shares: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights [outputs, labels] and bias [labels] of a multinomial logistic regression on weighted label distributions.

    One more image of each label, with outputs of zero, keeps a label that no image has from being impossible.
    """
    count = shares.shape[1]
    shares = np.concatenate([shares, np.eye(count, dtype=shares.dtype)])
    outputs = np.concatenate([outputs, np.zeros((count, outputs.shape[1]), outputs.dtype)])
    rows, labels = np.nonzero(shares)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # scores of a regression that stopped early are as good
        fit = LogisticRegression(C=strength, max_iter=300).fit(outputs[rows], labels, sample_weight=shares[rows, labels])
    if count == 2:  # of which scikit-learn states the second
        return np.concatenate([0 * fit.coef_, fit.coef_]).T, np.concatenate([[0.0], fit.intercept_])
    return fit.coef_.T, fit.intercept_
