"""One model for all schemes against a model for each: the same recipe, folds, seeds and images.

    python benchmarks/unified.py --recipe ugrie/checkpoints/ugrie-l14/recipe.toml --data DIR

Each is cross-validated as `jobs/train.py --folds 5` does, with other folds and weights for each seed. For every scheme and data set:
accuracy, macro-F1, ROC AUC, NLL and ECE, or Pearson r, of both and their difference, as means over the seeds with 95 % intervals
(Student's t). And how often the labels written for an image contradict each other, beside how often the data's own labels do.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import labelled
import numpy as np
from measure import mean_interval, report

from ugrie.data.labelled import Labelled
from ugrie.evaluation.metrics import contradictions, evaluate
from ugrie.model.prediction import Prediction
from ugrie.schemes.scheme import Scheme
from ugrie.schemes.template import Template
from ugrie.training.cross_validation import predict_unseen
from ugrie.training.recipe import Recipe
from ugrie.vision.config import TowerConfig

MEASURES = ("accuracy", "macro_f1", "roc_auc", "nll", "ece", "pearson_r")


def measure(recipe_file: Path, root: Path, folds: int, seeds: int) -> dict[str, Any]:
    recipe, schemes, tower, data = labelled.read(recipe_file, root)
    runs: dict[str, list[dict[str, dict[str, float]]]] = {"unified": [], "single": []}
    shares: dict[str, list[dict[str, float]]] = {"unified": [], "single": []}
    for seed in range(seeds):
        seeded = recipe.model_copy(update={"seed": seed})
        unified = predict_unseen(seeded, schemes, tower, data, folds)
        single = {scheme.name: alone(seeded, scheme, tower, data, folds) for scheme in schemes}
        for kind, probs in (("unified", unified), ("single", single)):
            runs[kind].append(measures(schemes, data, probs))
            shares[kind].append(contradicting(schemes, data, probs))
        print(f"seed {seed + 1} of {seeds}", file=sys.stderr)
    own = contradicting(schemes, data, data.targets)
    return {
        "seeds": seeds,
        "measures": {where: {name: compared(runs, where, name) for name in runs["unified"][0][where]} for where in runs["unified"][0]},
        "labels that contradict each other": {
            pair: {"data": round(own[pair], 4), **{kind: round(float(np.mean([s[pair] for s in of])), 4) for kind, of in shares.items()}}
            for pair in own
        },
    }


def alone(recipe: Recipe, scheme: Scheme, tower: TowerConfig, data: Labelled, folds: int) -> np.ndarray:
    """What a model of one scheme predicts. It sees the others' images too, but none of their labels."""
    only = Labelled(data.embeddings, {scheme.name: data.targets[scheme.name]}, data.groups, data.repeats)
    return predict_unseen(recipe.model_copy(update={"schemes": (scheme.name,)}), [scheme], tower, only, folds)[scheme.name]


def measures(schemes: Sequence[Scheme], data: Labelled, probs: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    sets = np.array([group.partition(":")[0] for group in data.groups])
    found = {}
    for scheme in schemes:
        has = data.targets[scheme.name].any(1)
        for name in np.unique(sets[has]):
            rows = has & (sets == name)
            all_ = evaluate(scheme, data.targets[scheme.name][rows], probs[scheme.name][rows])
            found[f"{scheme.name} on {name}"] = {measure: all_[measure] for measure in MEASURES if measure in all_}
    return found


def compared(runs: Mapping[str, Sequence[Mapping[str, Mapping[str, float]]]], where: str, name: str) -> dict[str, Any]:
    unified, single = (np.array([run[where][name] for run in runs[kind]]) for kind in ("unified", "single"))
    return {"unified": mean_interval(unified), "single": mean_interval(single), "difference": mean_interval(unified - single)}


def contradicting(schemes: Sequence[Scheme], data: Labelled, probs: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The share of images whose labels contradict each other, of those that people gave a label in every scheme."""
    rows = np.all([target.any(1) for target in data.targets.values()], 0)
    said = {scheme.name: probs[scheme.name][rows] for scheme in schemes}
    found = contradictions(Prediction(Template(tuple(schemes)), said, {name: shares.argmax(1) for name, shares in said.items()}))
    return {pair: counted["share"] for pair, counted in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the results as JSON and do not write them to benchmarks/results")
    args = parser.parse_args()
    results = measure(args.recipe, args.data, args.folds, args.seeds)
    report(f"unified-{args.recipe.parent.name}", results, args.json)


if __name__ == "__main__":
    main()
