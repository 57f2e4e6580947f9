"""Estimates from a review's labels how good the model is on the whole corpus, and how far people agree: by scheme, with 95 % intervals.

Only the random part counts, a simple random sample of the corpus's different images: the others were chosen for being odd or unsure, and
would bias the estimates. Random images without a label are taken to be a random part of it, which holds where people stop early, since
the page shows all images in random order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from pipeline.review.labels import Answer
from pipeline.review.record import Review, ReviewScheme

LEVEL, RESAMPLES, SEED = 0.95, 2000, 0
BINS = 5  # of the calibration error: with a few dozen labels, more would measure chance
LEAST = 5  # images with a label for an estimate, or all of a smaller sample

Interval = tuple[float, float]
Estimate = tuple[float, Interval]


@dataclass(frozen=True)
class Sample:
    """The n random images with a label of a scheme: votes int [n, labels], the model's probabilities [n, labels] and its choices [n].

    `fraction` is the share of the corpus that they are; it makes intervals narrower (finite population correction).
    """

    votes: np.ndarray
    probs: np.ndarray
    choices: np.ndarray
    fraction: float

    @property
    def n(self) -> int:
        return len(self.votes)

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the model's label, float64 [n]."""
        return np.take_along_axis(self.probs, self.choices[:, None], 1)[:, 0]


def sample_of(review: Review, name: str, answers: Sequence[Answer]) -> Sample:
    """Return the random images with a label of a scheme."""
    votes = {image.image: np.zeros(len(review.schemes[name].labels), np.int64) for image in review.random}
    for answer in answers:
        if name in answer.labels and not answer.not_for_set and answer.image in votes:
            votes[answer.image][answer.labels[name]] += 1
    images = [image for image in review.random if votes[image.image].any()]
    predictions = [image.predictions[name] for image in images]
    probability = max((image.probability or 0 for image in review.random), default=0)
    return Sample(
        np.array([votes[image.image] for image in images]),
        np.array([prediction.probs for prediction in predictions]),
        np.array([prediction.choice for prediction in predictions], int),
        probability * len(images) / max(len(review.random), 1),
    )


def measure(review: Review, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the measures by scheme, each as its estimate and its 95 % interval, or None where the labels don't suffice."""
    found: dict[str, Any] = {}
    for name, scheme in review.schemes.items():
        given = [answer for answer in answers if name in answer.labels and not answer.not_for_set]
        sample = sample_of(review, name, answers)
        measures: dict[str, Estimate | None] = {}
        if sample.n >= min(LEAST, len(review.random)) > 0:
            measures = _ordinal(scheme, sample) if scheme.kind == "ordinal" else _categorical(sample)
            measures["krippendorff_alpha"] = agreement(sample, _distances(scheme))
        found[name] = {
            "kind": scheme.kind,
            "people": len({answer.person for answer in given}),
            "images": len({answer.image for answer in given}),
            "random": sample.n,
            "measures": {key: value and {"estimate": value[0], "interval": value[1]} for key, value in measures.items()},
        }
    return {"model": review.model, "population": review.population, "schemes": found}


def hits(sample: Sample) -> np.ndarray:
    """Return whether the model's label is the one that most people gave; where t labels tie, 1/t: float64 [n]."""
    most = sample.votes == sample.votes.max(1, keepdims=True)
    return np.take_along_axis(most, sample.choices[:, None], 1)[:, 0] / most.sum(1)


def _categorical(sample: Sample) -> dict[str, Estimate | None]:
    right = hits(sample)
    return {
        "accuracy": share(sample, right),
        "ece": calibration_error(sample, right),
        "overconfidence": mean(sample, sample.confidence - right),
    }


def _ordinal(scheme: ReviewScheme, sample: Sample) -> dict[str, Estimate | None]:
    values = np.asarray(scheme.values)
    error = sample.probs @ values - sample.votes @ values / sample.votes.sum(1)
    return {"mae": mean(sample, np.abs(error)), "bias": mean(sample, error)}


def share(sample: Sample, right: np.ndarray) -> Estimate:
    """Return the share of the corpus that is right, with Wilson's interval (1927). It has some width even if none or all are right."""
    p = float(right.mean())
    if sample.fraction >= 1:
        return p, (p, p)
    n, z = sample.n / (1 - sample.fraction), float(stats.norm.ppf((1 + LEVEL) / 2))
    centre, half = p + z**2 / (2 * n), z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    return p, ((centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n))


def mean(sample: Sample, values: np.ndarray) -> Estimate | None:
    """Return the mean over the corpus of a value of each image, with its interval (Student's t); None for one image alone."""
    if sample.n < 2:
        return None
    estimate, variance = float(values.mean()), float(values.var(ddof=1)) / sample.n * max(1 - sample.fraction, 0)
    half = float(stats.t.ppf((1 + LEVEL) / 2, sample.n - 1)) * variance**0.5
    return estimate, (estimate - half, estimate + half)


def calibration_error(sample: Sample, right: np.ndarray) -> Estimate:
    """Return the expected calibration error in BINS bins of equal width, less the bias that few labels give it.

    Chance alone makes it positive: the bias is the bootstrap's mean minus the estimate, and the interval is the basic bootstrap's.
    """
    bins = np.clip(np.ceil(sample.confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = (right - sample.confidence)[:, None] * np.eye(BINS)[bins]
    estimate, samples = _bootstrap(sample, lambda counts: np.abs(counts @ gaps).sum(1) / counts.sum(1))
    low, high = np.percentile(samples, _ENDS)
    return max(2 * estimate - float(samples.mean()), 0.0), (max(float(2 * estimate - high), 0.0), max(float(2 * estimate - low), 0.0))


def agreement(sample: Sample, distances: np.ndarray) -> Estimate | None:
    """Return Krippendorff's alpha over the images that two people or more labelled; None if there are fewer than two such images.

    `distances` [labels, labels] are the squared differences of labels. The interval is the percentile bootstrap's over images.
    """
    several = sample.votes.sum(1) > 1
    if several.sum() < 2:
        return None
    votes, each = sample.votes[several], sample.votes[several].sum(1)
    observed = np.einsum("uc,uk,ck->u", votes, votes, distances) / (each - 1)

    def alpha(counts: np.ndarray) -> np.ndarray:
        labels, total = counts @ votes, counts @ each
        expected = np.einsum("bc,bk,ck->b", labels, labels, distances) / np.maximum(total - 1, 1)
        return 1 - np.divide(counts @ observed, expected, out=np.zeros(len(counts)), where=expected > 0)

    estimate, samples = _bootstrap(Sample(votes, votes, each, sample.fraction), alpha)
    low, high = np.percentile(samples, _ENDS)
    return estimate, (float(low), float(high))


_ENDS = (100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2)


def _distances(scheme: ReviewScheme) -> np.ndarray:
    if scheme.kind == "ordinal":
        return np.subtract.outer(np.asarray(scheme.values), np.asarray(scheme.values)) ** 2
    return 1.0 - np.eye(len(scheme.labels))


def _bootstrap(sample: Sample, statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float, np.ndarray]:
    """Return a statistic of how often each image counts, [resamples, n], for each once, and for resamples of them.

    The resamples' distance from the estimate is corrected for a finite population.
    """
    counts = np.random.default_rng(SEED).multinomial(sample.n, np.full(sample.n, 1 / sample.n), RESAMPLES)
    estimate = float(statistic(np.ones((1, sample.n)))[0])
    return estimate, estimate + (statistic(counts) - estimate) * max(1 - sample.fraction, 0.0) ** 0.5


TITLES = {
    "accuracy": "accuracy",
    "ece": "calibration error (ECE)",
    "overconfidence": "confidence minus accuracy",
    "mae": "mean absolute error",
    "bias": "mean error, predicted minus rated",
    "krippendorff_alpha": "agreement (Krippendorff's alpha)",
}


def table(measured: Mapping[str, Any]) -> str:
    """Format the measures for the terminal."""
    lines = [f"{measured['model']} on {measured['population']:,} different images, estimated from the random part of its review"]
    for name, found in measured["schemes"].items():
        people = f"{found['people']} {'person' if found['people'] == 1 else 'people'}"
        lines += ["", f"{name}: {found['images']} images labelled by {people}, {found['random']} of them drawn at random"]
        if not found["measures"]:
            lines.append(f"  too few: at least {LEAST} images of the random part need a label; label more on the page")
        for key, value in found["measures"].items():
            if value is None:
                needs = "labels of two people for the same images" if key == "krippendorff_alpha" else "more labels"
                lines.append(f"  {TITLES[key]:<36}   needs {needs}")
            else:
                low, high = value["interval"]
                lines.append(f"  {TITLES[key]:<36}{value['estimate']:>8.3f}   95 % interval {low:.3f} to {high:.3f}")
    return "\n".join(lines)
