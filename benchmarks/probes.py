"""What plain regressions on a recipe's embeddings reach, on the folds that `jobs/train.py --folds 5` measures UGRIE on.

    python benchmarks/probes.py --recipe ugrie/checkpoints/ugrie-l14/recipe.toml --data DIR --json

A separate model for each scheme: logistic regression for categorical ones, ridge regression for ordinal ones, on the embeddings of
unit length, centred. Their regularisation is chosen by cross-validation within the training folds. How often the data's own labels
contradict each other is counted, too. For recipes of one data set whose embeddings are given (.npz).
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
from measure import machine, save
from sklearn.linear_model import LogisticRegressionCV, RidgeCV

from ugrie.annotation import Prediction
from ugrie.cross_validation import folds_of
from ugrie.data import load_all
from ugrie.measures import contradictions
from ugrie.recipe import read_recipe
from ugrie.schemes import load_scheme
from ugrie.template import Template
from ugrie.towers import tower_config

LOGISTIC = {
    "Cs": np.logspace(-3.5, -1.5, 5),
    "l1_ratios": (0,),
    "cv": 4,
    "scoring": "accuracy",
    "max_iter": 500,
    "use_legacy_attributes": False,
}


def no_images(_: object) -> np.ndarray:
    sys.exit("probes: this recipe's data are images; give one whose data are embeddings (.npz)")


def measure(recipe_file: Path, root: Path, folds: int) -> dict[str, dict[str, float]]:
    recipe = read_recipe(recipe_file)
    schemes = [load_scheme(name) for name in recipe.schemes]
    data = load_all(recipe.data, root, schemes, no_images, tower_config(recipe.tower).embedding_dim)
    fold = folds_of(data.groups, folds, recipe.seed)
    unit = data.embeddings / np.linalg.norm(data.embeddings, axis=1, keepdims=True)
    results = {}
    for scheme in schemes:
        targets = data.targets[scheme.name]
        has = targets.any(1)
        wanted = targets @ np.array(scheme.values) if scheme.values else targets.argmax(1)
        given = np.zeros(len(wanted))
        for k in range(folds):
            learn, check = has & (fold != k), has & (fold == k)
            mean = unit[learn].mean(0)
            scale = (unit[learn] - mean).std()
            probe = RidgeCV(np.logspace(1, 5, 12)) if scheme.values else LogisticRegressionCV(**LOGISTIC)
            given[check] = probe.fit((unit[learn] - mean) / scale, wanted[learn]).predict((unit[check] - mean) / scale)
        if scheme.values:
            results[scheme.name] = {"pearson_r": round(float(np.corrcoef(given[has], wanted[has])[0, 1]), 4)}
        else:
            results[scheme.name] = {"accuracy": round(float((given == wanted)[has].mean()), 4)}
    rows = np.all([target.any(1) for target in data.targets.values()], 0)
    labels = {name: target[rows] for name, target in data.targets.items()}
    said = Prediction(Template(tuple(schemes)), labels, {name: target.argmax(1) for name, target in labels.items()})
    results["labels that contradict each other"] = {name: round(found["share"], 4) for name, found in contradictions(said).items()}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the results as JSON and do not write them to benchmarks/results")
    args = parser.parse_args()
    results = measure(args.recipe, args.data, args.folds)
    if args.json:
        print(json.dumps({"machine": machine(), "results": results}, indent=1))
    else:
        print(json.dumps(results, indent=1))
        print(f"\nwritten to {save(f'probes-{args.recipe.parent.name}', results).name}")


if __name__ == "__main__":
    main()
