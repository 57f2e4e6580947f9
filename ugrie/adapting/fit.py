"""Fits an adaptation: corrections of a checkpoint's log-probabilities, by a few labels (`ugrie/model/adaptation.py` applies them).

A correction is the mean of a Gaussian process's posterior, approximately: kernel logistic regression whose offset is what the checkpoint
says. Anchors stand for the images that the checkpoint was trained on, which are not at hand: landmarks of its regression, whose labels
are its own predictions (replay). So the correction stays small where the new labels say nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from torch import Tensor

from ugrie.evaluation.evaluate import predict
from ugrie.model.adaptation import Adaptation, directions
from ugrie.model.checkpoint import AdaptationConfig
from ugrie.model.mapper import Mapper, laplacian
from ugrie.model.model import UGRIE
from ugrie.model.zero_shot import ZeroShot
from ugrie.schemes.scheme import Scheme

SPREAD = 3.0  # of a correction far from all anchors: the Gaussian process's standard deviation (benchmarks/adapting.py)
ANCHORS = 1000  # at most
JITTER = 1e-6  # on the kernel's diagonal, so that two copies of an image have a factorisation
FLOOR = 1e-6  # the least probability: a label that the checkpoint thought impossible must be within reach


@dataclass(frozen=True)
class Answers:
    """What a checkpoint says before it is adapted, of n images or anchors: their `components` [n, components], and by scheme the
    log-probabilities of the labels, [n, labels]. A scheme that it can't answer is missing.
    """

    components: np.ndarray
    log_probs: Mapping[str, np.ndarray]

    def take(self, rows: np.ndarray) -> "Answers":
        return Answers(self.components[rows], {name: each[rows] for name, each in self.log_probs.items()})


@dataclass(frozen=True)
class Corrections:
    """Fitted corrections: `support` [m, components]; by scheme `weights` [m, outputs] and `bias` [labels], as `Adaptation` has them."""

    support: np.ndarray
    weights: Mapping[str, np.ndarray]
    bias: Mapping[str, np.ndarray]


def answers_of(model: UGRIE, embeddings: np.ndarray, zero_shot: Mapping[str, ZeroShot]) -> Answers:
    """Return what the model says of images by their embeddings, float32 [n, embedding_dim]."""
    with torch.inference_mode():
        components = model.mapper.components(torch.from_numpy(embeddings)).double().numpy()
    probs = {**predict(model, embeddings).probs, **{name: each.probs(embeddings) for name, each in zero_shot.items()}}
    return Answers(components, {name: np.log(np.maximum(each.astype(float), FLOOR)) for name, each in probs.items()})


def anchor_embeddings(mapper: Mapper) -> np.ndarray:
    """Return embeddings whose components are the landmarks, at most 1000 of them: float32 [n, embedding_dim], of unit length.

    On the line from the mean along a landmark's direction, they are where the length is one.
    """
    used = mapper.landmarks[mapper.landmarks.any(1)].double()
    step = max(1, -(-len(used) // ANCHORS))
    along, mean = used[::step] @ mapper.projection.double().T, mapper.mean.double()
    square, mixed, rest = (along * along).sum(1), along @ mean, 1 - mean @ mean
    length = (-mixed + (mixed * mixed + square * rest).sqrt()) / square
    return (mean + length[:, None] * along).float().numpy()


def fit(images: Answers, anchors: Answers, targets: Mapping[str, np.ndarray], schemes: Sequence[Scheme]) -> Corrections:
    """Fit the corrections of `schemes` to `targets`, by scheme [images, labels] (a row of zeros: no label).

    A scheme that the checkpoint can't answer starts from the frequencies of its labels, with one more image of each.
    """
    support = np.concatenate([images.components, anchors.components])
    factor = cholesky(_kernel(support, support) + JITTER * np.eye(len(support)), lower=True)
    features = solve_triangular(factor, _kernel(support, support), lower=True).T
    weights, bias = {}, {}
    for scheme in schemes:
        rows = np.flatnonzero(targets[scheme.name].any(1))
        labels = targets[scheme.name][rows]
        if scheme.name in images.log_probs:
            bias[scheme.name] = np.zeros(len(scheme.labels))
            rows = np.concatenate([rows, np.arange(len(images.components), len(support))])
            labels = np.concatenate([labels, np.exp(anchors.log_probs[scheme.name])])
            offset = np.concatenate([images.log_probs[scheme.name], anchors.log_probs[scheme.name]])[rows]
        else:
            bias[scheme.name] = np.log((labels.sum(0) + 1) / (labels.sum() + len(scheme.labels)))
            offset = np.broadcast_to(bias[scheme.name], labels.shape)
        fitted = _fit_logits(features[rows], offset, labels, directions(scheme).astype(float))
        weights[scheme.name] = solve_triangular(factor.T, fitted)
    return Corrections(support, weights, bias)


def apply(model: UGRIE, corrections: Corrections, schemes: Sequence[Scheme], base: str, zero_shot: Mapping[str, ZeroShot]) -> None:
    """Adapt the model in place. `schemes` are those corrected, `base` is the name@digest of the checkpoint, `zero_shot` has the
    answers that schemes start from.

    A model that was adapted before keeps its corrections, and these are added to them.
    """
    before, config = model.adaptation, model.config
    earlier = () if before is None else before.schemes
    added = tuple(scheme for scheme in schemes if scheme not in earlier)
    prompted = () if before is None else tuple(scheme.name for scheme in before.prompted)
    trained = {scheme.name for scheme in config.schemes}
    adapted = AdaptationConfig(
        base=base,
        support=len(corrections.support) + (0 if before is None else len(before.support)),
        schemes=tuple(scheme.name for scheme in earlier + added),
        zero_shot=prompted + tuple(scheme.name for scheme in added if scheme.name in zero_shot),
    )
    new = tuple(scheme for scheme in added if scheme.name not in trained)
    model.config = config.model_copy(
        update={
            "schemes": config.schemes + new,
            "few_shot": config.few_shot + tuple(scheme.name for scheme in new),
            "adaptation": adapted,
        }
    )
    model.adaptation = Adaptation(adapted, model.config.schemes, config.mapper.components, config.tower.embedding_dim)
    support, old = torch.from_numpy(corrections.support).float(), 0
    if before is not None:
        old = len(before.support)
        model.adaptation.support[:old] = before.support
        model.adaptation.weights[:old, : before.weights.shape[1]] = before.weights
        model.adaptation.bias[: len(before.bias)] = before.bias
        model.adaptation.vectors[: len(before.vectors)] = before.vectors
    model.adaptation.support[old:] = support
    output = label = 0
    for scheme in model.adaptation.schemes:
        if scheme.name in corrections.weights:
            model.adaptation.weights[old:, output : output + scheme.answers] = _tensor(corrections.weights[scheme.name])
            model.adaptation.bias[label : label + len(scheme.labels)] += _tensor(corrections.bias[scheme.name])
        output, label = output + scheme.answers, label + len(scheme.labels)
    vectors = [zero_shot[name].vectors for name in adapted.zero_shot[len(prompted) :]]
    if vectors:
        model.adaptation.vectors[-sum(map(len, vectors)) :] = torch.from_numpy(np.concatenate(vectors))


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()


def _kernel(components: np.ndarray, points: np.ndarray) -> np.ndarray:
    return laplacian(torch.from_numpy(components), torch.from_numpy(points)).numpy()


def _fit_logits(features: np.ndarray, offset: np.ndarray, labels: np.ndarray, along: np.ndarray) -> np.ndarray:
    """Return the weights [features, outputs] of the least penalised cross-entropy of softmax(offset + features @ weights @ along)."""
    shape = features.shape[1], len(along)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(shape)
        scores = offset + features @ weights @ along
        log_probs = scores - np.logaddexp.reduce(scores, 1, keepdims=True)
        gradient = features.T @ (np.exp(log_probs) * labels.sum(1, keepdims=True) - labels) @ along.T + weights / SPREAD**2
        return float((weights**2).sum() / (2 * SPREAD**2) - (labels * log_probs).sum()), gradient.ravel()

    return minimize(loss, np.zeros(shape[0] * shape[1]), jac=True, method="L-BFGS-B").x.reshape(shape)
