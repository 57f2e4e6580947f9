"""Compares one model of all schemes with a separate model for each: the same recipe, folds, seeds and images.

    python benchmarks/unified.py --recipe ugrie/checkpoints/ugrie-l14/recipe.toml --data DIR

Both are cross-validated as `jobs/train.py --folds 5` does, with other folds and weights for each seed. Results for every scheme and data
set are accuracy, macro-F1, ROC AUC, NLL and ECE, or Pearson r, of both and their difference, as means over the seeds with 95 %
intervals (Student's t); and the share of images whose written labels contradict each other, beside that of the data's own labels
(among images that have labels of both schemes; null if there are none).
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import labelled
import numpy as np
from measure import mean_interval, report

from ugrie.data.labelled import Labelled
from ugrie.evaluation.metrics import contradictions, scheme_metrics
from ugrie.model.prediction import Prediction
from ugrie.schemes.scheme import Scheme
from ugrie.schemes.template import Template
from ugrie.training.cross_validation import predict_out_of_fold
from ugrie.training.recipe import Recipe
from ugrie.vision.config import TowerConfig

MEASURES = ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc", "nll", "ece", "pearson_r")


def measure(recipe_file: Path, root: Path, folds: int, seeds: int, separate: bool) -> dict[str, Any]:
    recipe, schemes, tower, data = labelled.read(recipe_file, root)
    kinds = ("unified", "single") if separate else ("unified",)
    runs: dict[str, list[dict[str, dict[str, float]]]] = {kind: [] for kind in kinds}
    shares: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for seed in range(seeds):
        seeded = recipe.model_copy(update={"seed": seed})
        unified = predict_out_of_fold(seeded, schemes, tower, data, folds)
        found = {"unified": unified}
        if separate:
            found["single"] = together(schemes, [alone(seeded, scheme, tower, data, folds) for scheme in schemes])
        for kind, predicted in found.items():
            runs[kind].append(measures(schemes, data, predicted))
            shares[kind].append(contradicting(predicted, {scheme.name: np.ones(len(data), bool) for scheme in schemes}))
        print(f"seed {seed + 1} of {seeds}", file=sys.stderr)
    labels = {name: shares.argmax(1) for name, shares in data.targets.items()}
    own = contradicting(Prediction(unified.template, data.targets, labels), {name: shares.any(1) for name, shares in data.targets.items()})
    return {
        "seeds": seeds,
        "measures": {where: {name: compared(runs, where, name) for name in runs["unified"][0][where]} for where in runs["unified"][0]},
        "labels that contradict each other": {
            pair: {
                "data": round(own[pair], 4) if pair in own else None,
                **{kind: round(float(np.mean([s[pair] for s in of])), 4) for kind, of in shares.items()},
            }
            for pair in shares["unified"][0]
        },
    }


def alone(recipe: Recipe, scheme: Scheme, tower: TowerConfig, data: Labelled, folds: int) -> Prediction:
    """Return the predictions of a model of one scheme. It sees all images, but no labels of other schemes."""
    only = replace(data, targets={scheme.name: data.targets[scheme.name]})
    return predict_out_of_fold(recipe.model_copy(update={"schemes": (scheme.name,)}), [scheme], tower, only, folds)


def together(schemes: Sequence[Scheme], single: Sequence[Prediction]) -> Prediction:
    """Return the predictions of the models of one scheme each as one."""
    probs = {name: values for each in single for name, values in each.probs.items()}
    return Prediction(Template(tuple(schemes)), probs, {name: values for each in single for name, values in each.choices.items()})


def measures(schemes: Sequence[Scheme], data: Labelled, predicted: Prediction) -> dict[str, dict[str, float]]:
    found = {}
    for scheme in schemes:
        has = data.targets[scheme.name].any(1)
        for name in np.unique(data.sets[has]):
            rows = has & (data.sets == name)
            labels = predicted.choices[scheme.name][rows]
            all_ = scheme_metrics(scheme, data.targets[scheme.name][rows], predicted.probs[scheme.name][rows], labels)
            found[f"{scheme.name} on {name}"] = {measure: all_[measure] for measure in MEASURES if measure in all_}
    return found


def compared(runs: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]], where: str, name: str) -> dict[str, Any]:
    values = {kind: np.array([run[where][name] for run in of]) for kind, of in runs.items()}
    differences = {"difference": mean_interval(values["unified"] - values["single"])} if "single" in values else {}
    return {kind: mean_interval(of) for kind, of in values.items()} | differences


def contradicting(predicted: Prediction, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return by pair of schemes the share of images whose labels contradict each other, among the `rows`, bool [n], of both schemes."""
    found: dict[str, float] = {}
    for pair in combinations(predicted.template.schemes, 2):
        both = np.logical_and(*(rows[scheme.name] for scheme in pair))
        if both.any():
            choices = {scheme.name: predicted.choices[scheme.name][both] for scheme in pair}
            found |= {name: counted["share"] for name, counted in contradictions(Prediction(Template(pair), {}, choices)).items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the recipe's data sets")
    parser.add_argument("--folds", type=int, default=5, help="number of folds")
    parser.add_argument("--seeds", type=int, default=5, help="number of cross-validations, each with other folds and weights")
    parser.add_argument("--no-separate", action="store_true", help="leave the separate models out, which take as long again or longer")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    results = measure(args.recipe, args.data, args.folds, args.seeds, not args.no_separate)
    report(f"{'folds' if args.no_separate else 'unified'}-{args.recipe.parent.name}", results, args.json)


if __name__ == "__main__":
    main()
