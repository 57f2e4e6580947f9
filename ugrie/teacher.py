"""Soft labels from a teacher: kernel ridge regression on the embeddings, told of each image only by others.

An image's label is one draw of what people might have said of it. What a regression expects from all *other* images says more
about the rest of that distribution, so a model that learns from it (distillation, Hinton et al. 2015) learns the noise of single
labels by heart less. With a few thousand embeddings the regression is a linear system and takes seconds.
"""

import numpy as np
from sklearn.gaussian_process.kernels import Matern
from sklearn.kernel_ridge import KernelRidge
from sklearn.model_selection import GroupKFold, cross_val_predict

from ugrie.data import Labelled

LENGTH = 2.0  # of the kernel, in units of an embedding's distance from the mean
STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0)  # of the regularisation; the one with the least error is taken, scheme by scheme
LEAST = 1e-3  # a regression may leave [0, 1]


def teach(data: Labelled, folds: int = 5) -> Labelled:
    """The same images with the teacher's distributions in place of their labels; where an image had none it has none.

    An image's group (a theme, say) is never among those that its distribution is predicted from. A scheme whose labelled images
    are of a single group keeps its labels.
    """
    unit = data.embeddings / np.linalg.norm(data.embeddings, axis=1, keepdims=True)
    centred = (unit - unit.mean(0)).astype(np.float64)
    centred /= max(np.sqrt((centred**2).sum(1).mean()), 1e-12)
    kernel = Matern(length_scale=LENGTH, nu=0.5)(centred)
    return Labelled(
        data.embeddings, {n: _expected(t, kernel, data.groups, folds) for n, t in data.targets.items()}, data.groups, data.repeats
    )


def _expected(targets: np.ndarray, kernel: np.ndarray, groups: np.ndarray, folds: int) -> np.ndarray:
    rows = np.flatnonzero(targets.any(1))
    parts = min(folds, len(np.unique(groups[rows])))
    if parts < 2:
        return targets
    wanted = targets[rows] - targets[rows].mean(0)
    given = (
        cross_val_predict(
            KernelRidge(alpha=strength, kernel="precomputed"), kernel[np.ix_(rows, rows)], wanted, cv=GroupKFold(parts), groups=groups[rows]
        )
        for strength in STRENGTHS
    )
    best = min(given, key=lambda values: float(((values - wanted) ** 2).sum()))
    probs = np.maximum(best + targets[rows].mean(0), LEAST)
    taught = np.zeros_like(targets)
    taught[rows] = probs / probs.sum(1, keepdims=True)
    return taught
