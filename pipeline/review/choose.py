"""Chooses the images of a review among the candidates: a random part, by which the model is measured, and those whose labels teach most.

The random part is drawn first, so that whatever is chosen besides it can't bias the measure. Of the others at most a tenth each are images
whose labels contradict each other and images that the model is unsure of, as different from each other as can be. The rest represents the
corpus: with some hundred labels, images like many others teach more than odd ones of which the model is unsure (Hacohen et al., Active
learning on a budget, ICML 2022; benchmarks/review.py compares).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.review.pools import Candidates, uncertainty
from pipeline.review.record import Part
from pipeline.table.schema import SchemeMetadata

CONTRADICTING, UNSURE = 0.1, 0.1  # of all images of a review, at most
AMONG = 4  # unsure images are chosen among so many times as many
RIDGE = 1.0  # of the regression whose error the representative images make small
REPRESENTED = 2048  # images of the corpus that they represent
MEDIAN_OF = 256  # rows, whose distances to all others give the width of the kernel


@dataclass(frozen=True)
class Pick:
    """A chosen candidate: its `row` among the candidates, the part it was drawn for, and `why`. `probability` is None unless random."""

    row: int
    part: Part
    why: tuple[str, ...]
    probability: float | None = None


def choose(
    candidates: Candidates, schemes: Mapping[str, SchemeMetadata], count: int, random_share: float, usable: np.ndarray
) -> list[Pick]:
    """Return `count` usable candidates, or all of a smaller corpus. `usable` is bool [n]."""
    in_order = np.argsort(candidates.random, kind="stable")
    sample = in_order[(candidates.random[in_order] >= 0) & usable[in_order]]
    if not len(sample):
        return []
    drawn = sample if candidates.exact and len(sample) <= count else sample[: max(1, round(random_share * count))]
    probability = min(1.0, len(drawn) / max(candidates.population, 1))
    picks = [Pick(row, "random", ("drawn at random",), probability) for row in drawn.tolist()]
    left = usable.copy()
    left[drawn] = False

    def take(rows: np.ndarray, part: Part) -> None:
        for row in rows.tolist():
            picks.append(Pick(row, part, reasons(candidates, schemes, row, part)))
            left[row] = False

    def room(share: float = 1.0) -> int:
        return max(0, min(round(share * count), count - len(picks)))

    features = candidates.features
    against = np.flatnonzero(candidates.contradictions & left)
    take(against[farthest(features[against], room(CONTRADICTING))], "contradicting")
    unsure = np.flatnonzero(left)
    unsure = unsure[np.argsort(-candidates.unsure[unsure], kind="stable")[: AMONG * room(UNSURE)]]
    take(unsure[farthest(features[unsure], room(UNSURE))], "unsure")
    corpus = sample[left[sample]][: max(REPRESENTED, AMONG * count)]
    known = np.array([pick.row for pick in picks])
    rows = np.concatenate([known, corpus])
    take(rows[representative(features[rows], room(), len(known))], "representative")
    return picks


def farthest(features: np.ndarray, count: int) -> np.ndarray:
    """Return `count` rows that are far from each other, or all: farthest-first traversal (Gonzalez 1985) from the first row."""
    if not len(features) or not count:
        return np.empty(0, int)
    chosen = [0]
    distance = _squared_distances(features, features[:1])[:, 0]
    while len(chosen) < min(count, len(features)):
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, _squared_distances(features, features[chosen[-1:]])[:, 0])
    return np.array(chosen)


def representative(features: np.ndarray, count: int, known: int) -> np.ndarray:
    """Return `count` rows, none of the first `known`, whose labels tell most about the others beside those of the known.

    Transductive experimental design (Yu, Bi and Tresp, ICML 2006): each row is the one that lowers the error of a kernel ridge regression
    on all rows most. The kernel is Gaussian, its width the median distance.
    """
    count = min(count, len(features) - known)
    if count <= 0:
        return np.empty(0, int)
    squared = _squared_distances(features, features)
    kernel = np.exp(-squared / max(float(np.median(squared[:MEDIAN_OF])), 1e-12)).astype(np.float32)
    # The kernel less what the chosen rows explain: kernel - explained.T @ explained. Of it only the diagonal and the norms are kept.
    explained = np.empty((known + count, len(features)))
    diagonal, norms = np.ones(len(features)), np.einsum("ij,ij->j", kernel, kernel).astype(np.float64)
    free = np.arange(len(features)) >= known
    chosen: list[int] = []
    for number in range(known + count):
        row = number if number < known else int(np.where(free, norms / (diagonal + RIDGE), -1).argmax())
        free[row] = False
        chosen.append(row)
        before = explained[:number]
        column = (kernel[:, row] - before.T @ before[:, row]) / np.sqrt(diagonal[row] + RIDGE)
        product = kernel @ column.astype(np.float32) - before.T @ (before @ column)
        norms += column**2 * (column @ column) - 2 * column * product
        diagonal -= column**2
        explained[number] = column
    return np.array(chosen[known:])


def _squared_distances(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the squared distances of rows, float32 [some, others]."""
    squares = (some**2).sum(1)[:, None] + (others**2).sum(1)[None] - 2 * some @ others.T
    return np.maximum(squares, 0)


def reasons(candidates: Candidates, schemes: Mapping[str, SchemeMetadata], row: int, part: Part) -> tuple[str, ...]:
    """Return why an image was chosen, in words."""
    if part == "representative":
        return ("many images of the corpus are like it",)
    if part == "contradicting":
        labels = {name: _polarity_and_label(scheme, int(candidates.choices[name][row])) for name, scheme in schemes.items()}
        against = [f"{name} {label}" for name, (polarity, label) in labels.items() if polarity in ("positive", "negative")]
        return (f"labels contradict each other: {', '.join(against)}",)
    unsure = {name: float(u[0]) for name, u in uncertainty(schemes, {n: p[row : row + 1] for n, p in candidates.probs.items()}).items()}
    name = max(unsure, key=lambda each: unsure[each])
    return (f"the model is unsure of {name}: {_spread(schemes[name], candidates.probs[name][row])}",)


def _polarity_and_label(scheme: SchemeMetadata, index: int) -> tuple[str | None, str]:
    return scheme.polarities[index] if scheme.polarities else None, scheme.labels[index]


def _spread(scheme: SchemeMetadata, probs: np.ndarray) -> str:
    """Return what a scheme's probabilities lie between: the two most probable labels, or the value and its standard deviation."""
    if scheme.kind == "ordinal":
        values: Sequence[float] = scheme.values or ()
        value = float(probs @ np.asarray(values))
        return f"{value:.1f} ± {max(float(probs @ np.asarray(values) ** 2) - value**2, 0) ** 0.5:.1f}"
    first, second = np.argsort(-probs)[:2].tolist()
    return f"{scheme.labels[first]} {100 * probs[first]:.0f} %, {scheme.labels[second]} {100 * probs[second]:.0f} %"
