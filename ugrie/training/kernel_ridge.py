"""Kernel ridge regression from components of embeddings to the labels of every scheme, with honest answers for its own images.

Of an image it was made from a regression says what it was told. So that what is trained on its answers can trust them as much as
those for new images, an image's own come from regressions on other images' labels alone (stacking, Wolpert 1992). The kernel is
approximated on landmarks (Nyström method, Williams and Seeger, NIPS 2000).
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
FEW = 50  # images an answer, below which others' labels tell too little of one
NEIGHBOURS = 4  # of which a landmark is the middle, itself one of them
STRENGTHS = (0.01, 0.03, 0.1, 0.3, 1.0)  # of the regularisation; the one with the least error is taken, scheme by scheme


@dataclass(frozen=True)
class Regression:
    """`landmarks` [m, components], `weights` [m, answers] and `bias` [answers], as `ugrie.model.mapper.Mapper` applies them.

    `answers` [images, answers] are those for the images it was made from, each told by regressions on other groups' labels. An
    answer is a label's share, or an ordinal scheme's expected value; each scheme's are centred and of variance one as labelled.
    Where there are few images, others' labels tell too little of one: `knowing` says that answers are of regressions that know
    the image's own label, in a scheme at least. Such answers are too sure.
    """

    landmarks: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    answers: np.ndarray
    knowing: bool


def regress(
    components: np.ndarray, targets: Mapping[str, np.ndarray], schemes: Sequence[Scheme], groups: np.ndarray, landmarks: int
) -> Regression:
    """From components [images, components], targets by scheme [images, labels] (a row of zeros: no label) and groups [images].

    A scheme without any label is answered with zeros.
    """
    labelled = np.any([target.any(1) for target in targets.values()], axis=0)
    between = _between(components, labelled)
    nystroem = Nystroem(Matern(LENGTH, nu=0.5), n_components=min(landmarks, len(between)), random_state=0)
    features = nystroem.fit(between).transform(components)
    parts = [_one(features, scheme, targets[scheme.name], groups) for scheme in schemes]
    weights, bias, answers = (np.concatenate(values, -1) for values in list(zip(*parts, strict=True))[:3])
    return Regression(nystroem.components_, nystroem.normalization_.T @ weights, bias, answers, any(part[3] for part in parts))


def _between(components: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """The middle of each labelled image and those nearest to it, [labelled, components]; of few it is the image.

    As good a landmark, and no image's own embedding.
    """
    count = max(1, min(NEIGHBOURS, labelled.sum() // FEW))
    nearest = NearestNeighbors(n_neighbors=count).fit(components).kneighbors(components[labelled], return_distance=False)
    return normalize(components[nearest].mean(1))


def _one(features: np.ndarray, scheme: Scheme, targets: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Weights [features, answers], bias [answers], answers [images, answers] for one scheme, and whether they know their images'."""
    stated = targets @ np.array(scheme.values)[:, None] if scheme.kind == "ordinal" else targets.astype(float)
    has = targets.any(1)
    if not has.any():
        return np.zeros((features.shape[1], stated.shape[1])), np.zeros(stated.shape[1]), np.zeros_like(stated), False
    centred = stated[has] - stated[has].mean(0)
    wanted = centred / max(np.sqrt((centred**2).mean()), 1e-6)
    folds = _folds(scheme, targets[has].argmax(1), groups[has])
    strength, own = _told_by_others(features[has], wanted, folds) if folds else (STRENGTHS[1], None)
    ridge = Ridge(strength).fit(features[has], wanted)
    answers = ridge.predict(features).reshape(stated.shape)
    if own is not None:
        answers[has] = own
    return ridge.coef_.reshape(stated.shape[1], -1).T, np.atleast_1d(ridge.intercept_), answers, own is None


def _folds(scheme: Scheme, labels: np.ndarray, groups: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows to learn from and to tell, fold by fold, groups kept whole; none where there are too few images to do without some."""
    if len(np.unique(groups)) < FEW * scheme.answers:
        return []
    splitter = StratifiedGroupKFold if scheme.kind == "categorical" else GroupKFold
    return list(splitter(FOLDS, shuffle=True, random_state=0).split(labels, labels, groups))


def _told_by_others(features: np.ndarray, wanted: np.ndarray, folds: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[float, np.ndarray]:
    """The strength with the least error, and what is said of each image by regressions without its group."""
    told = {s: cross_val_predict(Ridge(s), features, wanted, cv=folds).reshape(wanted.shape) for s in STRENGTHS}
    best = min(told, key=lambda s: float(((told[s] - wanted) ** 2).sum()))
    return best, told[best]
