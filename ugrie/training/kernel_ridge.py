"""Kernel ridge regression from an embedding's components to the labels of every scheme, with out-of-fold training predictions.

What is trained on the regression's predictions for the training images (mapper and BART) has to trust them as much as predictions
for new images. In-sample predictions leak the labels, so these are out-of-fold: each image's come from regressions fitted without its
group (stacking, Wolpert 1992). The kernel is approximated on landmarks (Nyström method, Williams and Seeger, NIPS 2000).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.gaussian_process.kernels import Matern
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, cross_val_predict
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from ugrie.model.mapper import LENGTH
from ugrie.schemes.scheme import Scheme

FOLDS = 10
# A scheme with fewer groups for each of its outputs has in-sample predictions: regressions on the other groups' labels would say too
# little. A landmark is the mean of one neighbour for each so many labelled images.
FEW = 50
NEIGHBOURS = 4  # at most, the image itself included
ALPHAS = (0.01, 0.03, 0.1, 0.3, 1.0)  # regularisation strengths; the one with the least out-of-fold error is taken, scheme by scheme
DEFAULT_ALPHA = 0.03  # of a scheme that has too few images for out-of-fold predictions


@dataclass(frozen=True)
class Regression:
    """A fitted regression: `landmarks` [m, components], `weights` [m, outputs], `bias` [outputs], as `ugrie.model.mapper.Mapper` uses them.

    `predictions` [images, outputs] are those for the training images. An output is a label's share, or an ordinal scheme's expected
    value; each scheme's outputs are scaled so that its training labels have mean zero and variance one.
    `in_sample` is true if some scheme has too few images for out-of-fold predictions: its predictions are of the regression that was
    fitted on these images, and are overconfident.
    """

    landmarks: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    predictions: np.ndarray
    in_sample: bool


def fit_regression(
    components: np.ndarray, targets: Mapping[str, np.ndarray], schemes: Sequence[Scheme], groups: np.ndarray, landmarks: int
) -> Regression:
    """Fit the regression with at most `landmarks` landmarks.

    `components` are [images, components], `targets` by scheme [images, labels] (a row of zeros: no label), `groups` [images].
    The outputs of a scheme without any label are zeros.
    """
    labelled = np.any([target.any(1) for target in targets.values()], axis=0)
    candidates = _landmark_candidates(components, labelled)
    nystroem = Nystroem(Matern(LENGTH, nu=0.5), n_components=min(landmarks, len(candidates)), random_state=0)
    features = nystroem.fit(candidates).transform(components)
    fits = [_fit_scheme(features, scheme, targets[scheme.name], groups) for scheme in schemes]
    weights, bias, predictions = (np.concatenate(values, -1) for values in list(zip(*fits, strict=True))[:3])
    return Regression(nystroem.components_, nystroem.normalization_.T @ weights, bias, predictions, any(fit[3] for fit in fits))


def _landmark_candidates(components: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Return the mean of each labelled image and its nearest neighbours, [labelled, components]; with few images, the image itself.

    A mean is as good a landmark, and is no image's own embedding.
    """
    count = max(1, min(NEIGHBOURS, labelled.sum() // FEW))
    nearest = NearestNeighbors(n_neighbors=count).fit(components).kneighbors(components[labelled], return_distance=False)
    return normalize(components[nearest].mean(1))


def _fit_scheme(
    features: np.ndarray, scheme: Scheme, targets: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Return a scheme's weights [features, outputs], bias [outputs], predictions [images, outputs], and whether these are in-sample."""
    outputs = targets @ np.array(scheme.values)[:, None] if scheme.kind == "ordinal" else targets.astype(float)
    has_label = targets.any(1)
    if not has_label.any():
        return np.zeros((features.shape[1], outputs.shape[1])), np.zeros(outputs.shape[1]), np.zeros_like(outputs), False
    centred = outputs[has_label] - outputs[has_label].mean(0)
    scaled = centred / max(np.sqrt((centred**2).mean()), 1e-6)
    folds = _folds(scheme, targets[has_label].argmax(1), groups[has_label])
    alpha, out_of_fold = _out_of_fold_predictions(features[has_label], scaled, folds) if folds else (DEFAULT_ALPHA, None)
    ridge = Ridge(alpha).fit(features[has_label], scaled)
    predictions = ridge.predict(features).reshape(outputs.shape)
    if out_of_fold is not None:
        predictions[has_label] = out_of_fold
    return ridge.coef_.reshape(outputs.shape[1], -1).T, np.atleast_1d(ridge.intercept_), predictions, out_of_fold is None


def _folds(scheme: Scheme, labels: np.ndarray, groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the training and held-out rows of each fold, groups kept whole; nothing if there are too few groups to leave some out."""
    if len(np.unique(groups)) < FEW * scheme.answers:
        return []
    splitter = StratifiedGroupKFold if scheme.kind == "categorical" else GroupKFold
    return list(splitter(FOLDS, shuffle=True, random_state=0).split(labels, labels, groups))


def _out_of_fold_predictions(
    features: np.ndarray, targets: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[float, np.ndarray]:
    """Return the regularisation strength with the least squared error on held-out rows, and its predictions for them."""
    by_alpha = {alpha: cross_val_predict(Ridge(alpha), features, targets, cv=folds).reshape(targets.shape) for alpha in ALPHAS}
    best = min(by_alpha, key=lambda alpha: float(((by_alpha[alpha] - targets) ** 2).sum()))
    return best, by_alpha[best]
