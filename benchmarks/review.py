"""Measures what `ugrie review` is worth: labels of the images that it chooses against labels at random, and the coverage of its intervals.

    python benchmarks/review.py --recipe ugrie/checkpoints/ugrie-tiny/recipe.toml --data DIR

Each corpus is a data set of the recipe; it is annotated by models of the others: a logistic regression for each scheme that they have.
Each draw holds out a third of the corpus (by group) for evaluation, reviews the rest, gives the chosen images their labels, and learns
from these alone: a logistic regression, or a ridge regression for an ordinal scheme, on principal components of the embeddings, whose
regularisation was fixed beforehand. Differences are paired over the draws, with 95 % intervals (Student's t).

Coverage: simulated reviews of whole corpora, whose labels are the data set's. An estimate covers if its 95 % interval holds the value of
the whole corpus. "accuracy over all chosen" is Wilson's interval over all labelled images, as if all were drawn at random.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import labelled
import numpy as np
from measure import mean_interval, report
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge

from pipeline.review import choose as rule
from pipeline.review.labels import Answer
from pipeline.review.measure import BINS, measure
from pipeline.review.pools import Candidates, Row, any_contradiction, uncertainty
from pipeline.review.record import Prediction, Review, ReviewImage, ReviewScheme
from pipeline.table.schema import SchemeMetadata
from ugrie.data.labelled import Labelled
from ugrie.evaluation.metrics import share_interval
from ugrie.schemes.scheme import Scheme
from ugrie.training.cross_validation import assign_folds

CORPORA = ("fi:mikels8", "outdoor:polarity3", "oasis:valence")
COVERED = ("outdoor:polarity3", "oasis:polarity3")
COMPONENTS = 128
FIRST = 500  # seed of the first draw; lower seeds were used to choose the rule
SHARE = 0.25  # the random part


@dataclass(frozen=True)
class Annotated:
    """A corpus: its `rows` in the data, and what the models of the other data sets say of them by scheme."""

    rows: np.ndarray
    schemes: tuple[Scheme, ...]
    probs: Mapping[str, np.ndarray]
    choices: Mapping[str, np.ndarray]


def components(embeddings: np.ndarray) -> np.ndarray:
    """Return the principal components of embeddings of unit length: [n, COMPONENTS at most]."""
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    found = PCA(min(COMPONENTS, *unit.shape), random_state=0).fit_transform(unit)
    return found / found.std()


def annotated(schemes: Sequence[Scheme], data: Labelled, features: np.ndarray, corpus: str) -> Annotated:
    own = data.sets == corpus
    found = {}
    for scheme in schemes:
        others = ~own & data.targets[scheme.name].any(1)
        if scheme.kind == "categorical" and others.any():
            found[scheme.name] = probabilities(features[others], data.targets[scheme.name][others].argmax(1), features[own], 0.05)
    choices = {name: probs.argmax(1) for name, probs in found.items()}
    return Annotated(np.flatnonzero(own), tuple(scheme for scheme in schemes if scheme.name in found), found, choices)


def probabilities(learn: np.ndarray, labels: np.ndarray, to: np.ndarray, c: float) -> np.ndarray:
    """Return a logistic regression's probabilities: float64 [to, labels up to the highest]."""
    model = LogisticRegression(C=c, max_iter=300).fit(learn, labels)
    probs = np.zeros((len(to), int(labels.max()) + 1))
    probs[:, model.classes_] = model.predict_proba(to)
    return probs


def metadata(scheme: Scheme) -> SchemeMetadata:
    ordinal = scheme.kind == "ordinal"
    return SchemeMetadata(
        scheme.kind,
        list(scheme.label_names),
        [label.polarity for label in scheme.labels],
        list(scheme.values) if ordinal else None,
        list(scheme.range or ()) if ordinal else None,
    )


def candidates(corpus: Annotated, embeddings: np.ndarray, rows: np.ndarray, seed: int) -> Candidates:
    """Return some rows of a corpus as the candidates of a review."""
    about = {scheme.name: metadata(scheme) for scheme in corpus.schemes}
    probs = {name: corpus.probs[name][rows] for name in about}
    choices = {name: corpus.choices[name][rows] for name in about}
    own = embeddings[corpus.rows[rows]]
    return Candidates(
        [Row("", f"{row:064x}", 0, row) for row in rows.tolist()],
        probs,
        choices,
        np.mean(list(uncertainty(about, probs).values()), axis=0),
        any_contradiction(about, choices, len(rows)),
        own / np.linalg.norm(own, axis=1, keepdims=True),
        np.random.default_rng(seed).permutation(len(rows)),
        len(rows),
        exact=True,
    )


def chosen(corpus: Annotated, pool: Candidates, count: int) -> list[rule.Pick]:
    about = {scheme.name: metadata(scheme) for scheme in corpus.schemes}
    return rule.choose(pool, about, count, SHARE, np.ones(len(pool), bool))


Rule = Callable[[Annotated, Candidates, int], np.ndarray]


def by_review(corpus: Annotated, pool: Candidates, count: int) -> np.ndarray:
    return np.array([pick.row for pick in chosen(corpus, pool, count)])


def at_random(corpus: Annotated, pool: Candidates, count: int) -> np.ndarray:
    return np.argsort(pool.random)[:count]


def most_unsure(corpus: Annotated, pool: Candidates, count: int) -> np.ndarray:
    """Return a random quarter and the most unsure of the others."""
    drawn = at_random(corpus, pool, round(SHARE * count))
    order = np.argsort(-pool.unsure)
    return np.concatenate([drawn, order[~np.isin(order, drawn)][: count - len(drawn)]])


def farthest(corpus: Annotated, pool: Candidates, count: int) -> np.ndarray:
    """Return a random quarter and others that are far from each other (k-center)."""
    drawn = at_random(corpus, pool, round(SHARE * count))
    left = np.setdiff1d(np.arange(len(pool)), drawn)
    return np.concatenate([drawn, left[rule.farthest(pool.features[left], count - len(drawn))]])


RULES: dict[str, tuple[Rule, int]] = {
    "review": (by_review, 1),
    "random": (at_random, 1),
    "random, twice as many": (at_random, 2),
    "most unsure": (most_unsure, 1),
    "k-center": (farthest, 1),
}


def worth(data: Labelled, features: np.ndarray, corpus: Annotated, scheme: Scheme, count: int, draws: int) -> dict[str, Any]:
    """Compare the rules: accuracy, or Pearson r of an ordinal scheme, on held-out images of the corpus."""
    targets = data.targets[scheme.name]
    found: dict[str, list[float]] = {name: [] for name in RULES}
    for seed in range(FIRST, FIRST + draws):
        test = assign_folds(data.groups[corpus.rows], 3, seed) == 0
        labelled_rows = targets[corpus.rows].any(1)
        left, held_out = np.flatnonzero(~test & labelled_rows), corpus.rows[test & labelled_rows]
        pool = candidates(corpus, data.embeddings, left, seed)
        for name, (choice, times) in RULES.items():
            rows = corpus.rows[left[choice(corpus, pool, times * count)]]
            found[name].append(score(scheme, targets, features, rows, held_out))
    twice = found["random, twice as many"]
    return {
        "measure": "pearson_r" if scheme.kind == "ordinal" else "accuracy",
        **{
            name: {
                "mean": round(float(np.mean(scores)), 4),
                "minus random, twice as many": mean_interval([a - b for a, b in zip(scores, twice, strict=True)]),
            }
            for name, scores in found.items()
        },
    }


def score(scheme: Scheme, targets: np.ndarray, features: np.ndarray, rows: np.ndarray, held_out: np.ndarray) -> float:
    if scheme.kind == "ordinal":
        values = targets @ np.asarray(scheme.values)
        predicted = Ridge(30.0).fit(features[rows], values[rows]).predict(features[held_out])
        return float(np.corrcoef(predicted, values[held_out])[0, 1])
    probs = probabilities(features[rows], targets[rows].argmax(1), features[held_out], 0.3)
    return float((probs.argmax(1) == targets[held_out].argmax(1)).mean())


def coverage(data: Labelled, corpus: Annotated, scheme: Scheme, reviews: int, count: int) -> dict[str, Any]:
    """Return how often the intervals of simulated reviews hold the value of the whole corpus."""
    truth = data.targets[scheme.name][corpus.rows].argmax(1)
    probs, choices = corpus.probs[scheme.name], corpus.choices[scheme.name]
    confidence = probs[np.arange(len(truth)), choices]
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    right = choices == truth
    true = {
        "accuracy": float(right.mean()),
        "ece": float(np.abs(np.bincount(bins, right - confidence)).sum() / len(truth)),
        "overconfidence": float((confidence - right).mean()),
    }
    covered: dict[str, list[bool]] = {key: [] for key in (*true, "accuracy over all chosen")}
    widths, estimates, naive = [], [], []
    for seed in range(reviews):
        picks = chosen(corpus, candidates(corpus, data.embeddings, np.arange(len(truth)), seed), count)
        measures = measure(*simulated(scheme, picks, probs, choices, truth))["schemes"][scheme.name]["measures"]
        for key, value in true.items():
            low, high = measures[key]["interval"]
            covered[key].append(low <= value <= high)
        rows = np.array([pick.row for pick in picks])
        low, high = share_interval(int(right[rows].sum()), len(rows))
        covered["accuracy over all chosen"].append(low <= true["accuracy"] <= high)
        widths.append(float(np.diff(measures["accuracy"]["interval"])[0]))
        estimates.append(measures["accuracy"]["estimate"])
        naive.append(float(right[rows].mean()))
    return {
        "reviews": reviews,
        "images": len(truth),
        "true": {key: round(value, 4) for key, value in true.items()},
        "covered": {key: round(float(np.mean(each)), 4) for key, each in covered.items()},
        "mean estimate of accuracy": round(float(np.mean(estimates)), 4),
        "mean accuracy over all chosen": round(float(np.mean(naive)), 4),
        "mean width of the interval": round(float(np.mean(widths)), 4),
    }


def simulated(
    scheme: Scheme, picks: Sequence[rule.Pick], probs: np.ndarray, choices: np.ndarray, truth: np.ndarray
) -> tuple[Review, list[Answer]]:
    """Return the record of a review and its answers."""
    images, answers = [], []
    for pick in picks:
        name = f"{pick.row}.jpg"
        predicted = Prediction(choice=int(choices[pick.row]), probs=tuple(map(float, probs[pick.row])))
        images.append(
            ReviewImage(
                image=name,
                content_hash="",
                uri="",
                run_id="",
                part=pick.part,
                probability=pick.probability,
                why=pick.why,
                predictions={scheme.name: predicted},
            )
        )
        answers.append(Answer(name, "a", {scheme.name: int(truth[pick.row])}))
    about = ReviewScheme(kind="categorical", labels=scheme.label_names)
    review = Review(
        input="", model="", runs=(), seed=0, population=len(truth), exact=True, schemes={scheme.name: about}, images=tuple(images)
    )
    return review, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the recipe's data sets")
    parser.add_argument("--corpora", nargs="+", default=CORPORA, help="data sets of the recipe, each with a scheme to label")
    parser.add_argument("--covered", nargs="*", default=COVERED, help="data sets, each with a categorical scheme, for the coverage")
    parser.add_argument("--count", type=int, default=100, help="images of a review")
    parser.add_argument("--draws", type=int, default=20, help="random draws of held-out images")
    parser.add_argument("--reviews", type=int, default=200, help="simulated reviews for the coverage")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    _, schemes, _, data = labelled.read(args.recipe, args.data)
    by_name = {scheme.name: scheme for scheme in schemes}
    features = components(data.embeddings)
    entries = [(entry, *entry.split(":")) for entry in (*args.covered, *args.corpora)]
    corpora = {corpus: annotated(schemes, data, features, corpus) for corpus in dict.fromkeys(corpus for _, corpus, _ in entries)}
    results: dict[str, Any] = {"count": args.count, "random share": SHARE, "draws": args.draws, "coverage": {}, "labels": {}}
    for entry, corpus, name in entries[: len(args.covered)]:
        results["coverage"][entry] = coverage(data, corpora[corpus], by_name[name], args.reviews, args.count)
    for entry, corpus, name in entries[len(args.covered) :]:
        results["labels"][entry] = worth(data, features, corpora[corpus], by_name[name], args.count, args.draws)
    report(f"review-{args.recipe.parent.name}", results, args.json)


if __name__ == "__main__":
    main()
