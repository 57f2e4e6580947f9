"""Measures linear probes on a recipe's embeddings, on the same folds as `jobs/train.py --folds 5`.

    python benchmarks/probes.py --recipe ugrie/checkpoints/ugrie-l14/recipe.toml --data DIR --json

Each scheme has a separate model, logistic regression if it is categorical and ridge regression if it is ordinal, on centred
embeddings of unit length. The regularisation is chosen by cross-validation within the training folds.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import labelled
import numpy as np
from measure import report
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.metrics import f1_score

from ugrie.training.cross_validation import assign_folds

LOGISTIC = {
    "Cs": np.logspace(-3.5, -1.5, 5),
    "l1_ratios": (0,),
    "cv": 4,
    "scoring": "accuracy",
    "max_iter": 500,
    "use_legacy_attributes": False,
}


def measure(recipe_file: Path, root: Path, folds: int) -> dict[str, dict[str, float]]:
    recipe, schemes, _, data = labelled.read(recipe_file, root)
    fold = assign_folds(data.groups, folds, recipe.seed)
    results = {}
    for scheme in schemes:
        targets = data.targets[scheme.name]
        has = targets.any(1)
        truth = targets @ np.array(scheme.values) if scheme.values else targets.argmax(1)
        predicted = np.zeros(len(truth))
        for k in range(folds):
            learn, check = has & (fold != k), has & (fold == k)
            features = labelled.unit(data.embeddings, learn)
            probe = RidgeCV(np.logspace(1, 5, 12)) if scheme.values else LogisticRegressionCV(**LOGISTIC)
            predicted[check] = probe.fit(features[learn], truth[learn]).predict(features[check])
        for name in np.unique(data.sets[has]):
            rows = has & (data.sets == name)
            if scheme.values:
                found = {"pearson_r": float(np.corrcoef(predicted[rows], truth[rows])[0, 1])}
            else:
                found = {
                    "accuracy": float((predicted == truth)[rows].mean()),
                    "macro_f1": float(f1_score(truth[rows], predicted[rows], average="macro")),
                }
            results[f"{scheme.name} on {name}"] = {measure: round(value, 4) for measure, value in found.items()}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the recipe's data sets")
    parser.add_argument("--folds", type=int, default=5, help="number of folds")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    results = measure(args.recipe, args.data, args.folds)
    report(f"probes-{args.recipe.parent.name}", results, args.json)


if __name__ == "__main__":
    main()
