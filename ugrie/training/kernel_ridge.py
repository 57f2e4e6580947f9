"""Kernel ridge regression from an embedding's components to the labels of every scheme, with out-of-fold training predictions.

What is trained on the regression's predictions for the training images (mapper and BART) has to trust them as much as predictions
for new images. In-sample predictions leak the labels, so these are out-of-fold: each image's come from regressions fitted without its
group (stacking, Wolpert 1992). The kernel is approximated on landmarks (Nyström method, Williams and Seeger, NIPS 2000).

Memory grows with the square of the number of landmarks, not with landmarks times images: kernels are computed for a block of images at a
time. A ridge regression needs no more of its images than the products of their kernels and outputs, summed over the images (their
moments). They are summed once for each fold. Those of a regression fitted without a fold are the total less that fold's.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from ugrie.model.mapper import LENGTH
from ugrie.schemes.scheme import Scheme

FOLDS = 10
# A scheme with fewer groups for each of its outputs has in-sample predictions: regressions on the other groups' labels would say too
# little.
FEW = 40
NEIGHBOURS = 4  # whose mean a landmark is, the image itself included; fewer with less than 50 labelled images for each
IMAGES_A_NEIGHBOUR = 50
ALPHAS = (0.01, 0.03, 0.1, 0.3, 1.0)  # regularisation strengths; the one with the least out-of-fold error is taken, scheme by scheme
DEFAULT_ALPHA = 0.03  # of a scheme that has too few images for out-of-fold predictions
LANDMARKS = 700, 4000  # the least and the most that `landmarks_for` returns
# Labelled images up to which folds are stratified, scheme by scheme. With more, labels are as frequent in random folds, which all schemes
# that have labels for the same images share.
STRATIFIED = 20_000
BLOCK = 2048  # images whose kernels are computed at once
APART = 1e-4  # landmarks that are nearer to each other count as one: their kernels are too much alike to be told apart


@dataclass(frozen=True)
class Regression:
    """A fitted regression: `landmarks` [m, components], `weights` [m, outputs], `bias` [outputs], as `ugrie.model.mapper.Mapper` uses them.

    `predictions`, float32 [images, outputs], are those for the training images. An output is a label's share, or an ordinal scheme's
    expected value; each scheme's outputs are scaled so that its training labels have mean zero and variance one.
    `in_sample` is true if some scheme has too few images for out-of-fold predictions: its predictions are of the regression that was
    fitted on these images, and are overconfident.
    """

    landmarks: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    predictions: np.ndarray
    in_sample: bool


def landmarks_for(images: int) -> int:
    """Return how many landmarks suit a number of labelled images: sqrt(n) log(n), within bounds.

    So many keep the accuracy of a kernel ridge regression on all n images, up to a constant factor (Rudi, Camoriano and Rosasco, NIPS
    2015). The cost grows with the square of landmarks times images, hence the upper bound.
    """
    least, most = LANDMARKS
    return min(max(least, round(math.sqrt(images) * math.log(max(images, 1)))), most)


def fit_regression(
    components: np.ndarray, targets: Mapping[str, np.ndarray], schemes: Sequence[Scheme], groups: np.ndarray, landmarks: int
) -> Regression:
    """Fit the regression with at most `landmarks` landmarks.

    `components` are [images, components], `targets` by scheme [images, labels] (a row of zeros: no label), `groups` [images].
    The outputs of a scheme without any label are zeros.
    """
    kernels = _Kernels(components, _draw_landmarks(components, targets, landmarks))
    ends = np.cumsum([scheme.answers for scheme in schemes])
    columns = {scheme.name: slice(end - scheme.answers, end) for scheme, end in zip(schemes, ends, strict=True)}
    weights, bias = np.zeros((len(kernels.landmarks), ends[-1])), np.zeros(ends[-1])
    predictions, in_sample = np.zeros((len(components), ends[-1]), np.float32), False
    for folds, sharing in _by_folds(schemes, targets, groups):
        outputs = [scaled_outputs(scheme, targets[scheme.name]) for scheme in sharing]
        fits = _fit(kernels, folds, outputs)
        for scheme, (scheme_weights, scheme_bias, scheme_predictions) in zip(sharing, fits, strict=True):
            at = columns[scheme.name]
            weights[:, at], bias[at], predictions[:, at] = scheme_weights, scheme_bias, scheme_predictions
        in_sample |= folds.max() == 0
    return Regression(kernels.landmarks, weights, bias, predictions, bool(in_sample))


def _draw_landmarks(components: np.ndarray, targets: Mapping[str, np.ndarray], landmarks: int) -> np.ndarray:
    """Draw labelled images, and return the mean of each and its nearest neighbours; with few images, the image itself.

    A mean is as good a landmark, and is no image's own embedding. Images that have labels of the same schemes are drawn as often as those
    of others, while there are some: so a small data set that alone has a scheme has landmarks enough, beside a large one.
    """
    has_label = np.stack([target.any(1) for target in targets.values()], 1)
    shuffled = np.random.RandomState(0).permutation(np.flatnonzero(has_label.any(1)))
    _, kinds = np.unique(has_label[shuffled], axis=0, return_inverse=True)
    place = np.zeros(len(shuffled), int)  # among the images of its kind
    for kind in range(kinds.max() + 1):
        place[kinds == kind] = np.arange(np.count_nonzero(kinds == kind))
    drawn = shuffled[np.argsort(place, kind="stable")][:landmarks]
    count = max(1, min(NEIGHBOURS, len(shuffled) // IMAGES_A_NEIGHBOUR))
    nearest = NearestNeighbors(n_neighbors=count).fit(components).kneighbors(components[drawn], return_distance=False)
    means = normalize(components[nearest].mean(1)).astype(np.float64)
    return means[~np.tril(euclidean_distances(means) < APART, -1).any(1)]


class _Kernels:
    """The images' kernels with the landmarks, computed a block of images at a time."""

    def __init__(self, components: np.ndarray, landmarks: np.ndarray):
        self.components, self.landmarks = components, landmarks
        self.penalty = _kernel(landmarks, landmarks)  # that of a function with weights w is w' penalty w

    def blocks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield parts of the rows, and the kernels of each, [rows, landmarks]."""
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            yield part, _kernel(self.components[part].astype(np.float64), self.landmarks)

    def moments(self, rows: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Return the products of each two of the kernels, one, and the outputs, summed over the rows."""
        size = len(self.landmarks) + 1 + outputs.shape[1]
        total = np.zeros((size, size))
        for part, kernel in self.blocks(rows):
            values = np.concatenate([kernel, np.ones((len(part), 1)), outputs[part]], 1)
            total += values.T @ values
        return total

    def ridges(self, moments: np.ndarray, alphas: Sequence[float]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the weights [landmarks, outputs] and the bias [outputs] of a ridge regression for each alpha, from the moments.

        The bias is not penalised.
        """
        one = len(self.landmarks)
        mean = moments[one] / moments[one, one]
        centred = moments - np.outer(moments[one], mean)
        fits = []
        for alpha in alphas:  # a factorisation for each takes less time than one eigendecomposition for all
            factor = cho_factor(centred[:one, :one] + alpha * self.penalty, overwrite_a=True)
            weights = cho_solve(factor, centred[:one, one + 1 :])
            fits.append((weights, mean[one + 1 :] - mean[:one] @ weights))
        return fits

    def predict(self, ridges: Sequence[tuple[np.ndarray, np.ndarray]], rows: np.ndarray, predictions: np.ndarray) -> None:
        """Write the predictions of each ridge regression for the rows into `predictions`, [ridges, images, outputs]."""
        for part, kernel in self.blocks(rows):
            for (weights, bias), each in zip(ridges, predictions, strict=True):
                each[part] = kernel @ weights + bias


def _kernel(points: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    distances = euclidean_distances(points, landmarks)
    return np.exp(np.divide(distances, -LENGTH, out=distances), out=distances)


def _by_folds(schemes: Sequence[Scheme], targets: Mapping[str, np.ndarray], groups: np.ndarray) -> list[tuple[np.ndarray, list[Scheme]]]:
    """Return each distinct result of `held_out_folds`, and the schemes that have it. Schemes without any label are left out."""
    sharing: dict[bytes, tuple[np.ndarray, list[Scheme]]] = {}
    for scheme in schemes:
        folds = held_out_folds(scheme, targets[scheme.name], groups)
        if folds.max() >= 0:
            sharing.setdefault(folds.tobytes(), (folds, []))[1].append(scheme)
    return list(sharing.values())


def held_out_folds(scheme: Scheme, targets: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return the fold that holds each image out, int8 [images]: -1 for images without a label.

    Groups are kept whole. It is 0 for all images if there are too few groups to leave some out.
    """
    rows = np.flatnonzero(targets.any(1))
    folds = np.full(len(targets), -1, np.int8)
    folds[rows] = 0
    if len(np.unique(groups[rows])) < FEW * scheme.answers:
        return folds
    splitter = StratifiedGroupKFold if scheme.kind == "categorical" and len(rows) <= STRATIFIED else GroupKFold
    labels = targets[rows].argmax(1)
    for fold, (_, held_out) in enumerate(splitter(FOLDS, shuffle=True, random_state=0).split(labels, labels, groups[rows])):
        folds[rows[held_out]] = fold
    return folds


def scaled_outputs(scheme: Scheme, targets: np.ndarray) -> np.ndarray:
    """Return a scheme's outputs, scaled so that those of images with a label have mean zero and variance one: [images, outputs]."""
    outputs = targets @ np.array(scheme.values)[:, None] if scheme.kind == "ordinal" else targets.astype(float)
    has_label = targets.any(1)
    outputs -= outputs[has_label].mean(0)
    return outputs / max(np.sqrt((outputs[has_label] ** 2).mean()), 1e-6)


def _fit(kernels: _Kernels, folds: np.ndarray, outputs: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return the weights, bias and predictions for each scheme's outputs, of schemes that share `folds`.

    A scheme's alpha is the one with the least squared error on held-out images.
    """
    together, labelled = np.concatenate(outputs, 1), folds >= 0
    moments = [kernels.moments(np.flatnonzero(folds == fold), together) for fold in range(folds.max() + 1)]
    total = sum(moments[1:], moments[0])
    alphas, answered_as_new = (ALPHAS, ~labelled) if len(moments) > 1 else ((DEFAULT_ALPHA,), np.ones_like(labelled))
    predictions = np.zeros((len(alphas), *together.shape), np.float32)
    ridges = kernels.ridges(total, alphas)
    kernels.predict(ridges, np.flatnonzero(answered_as_new), predictions)
    if len(moments) > 1:
        for fold, held_out in enumerate(moments):
            kernels.predict(kernels.ridges(total - held_out, alphas), np.flatnonzero(folds == fold), predictions)
    errors = np.stack([((each[labelled] - together[labelled]) ** 2).sum(0) for each in predictions])
    fits, start = [], 0
    for columns in outputs:
        at = slice(start, start := start + columns.shape[1])
        best = int(errors[:, at].sum(1).argmin())
        weights, bias = ridges[best]
        fits.append((weights[:, at], bias[at], predictions[best][:, at]))
    return fits
