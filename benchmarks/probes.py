"""What plain regressions on a recipe's embeddings reach, on the folds that `jobs/train.py --folds 5` measures UGRIE on.

    python benchmarks/probes.py --recipe ugrie/checkpoints/ugrie-l14/recipe.toml --data DIR --json

A separate model for each scheme: logistic regression for categorical ones, ridge regression for ordinal ones, on the embeddings of
unit length, centred. Their regularisation is chosen by cross-validation within the training folds.
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

from ugrie.training.cross_validation import folds_of

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
    fold = folds_of(data.groups, folds, recipe.seed)
    sets = np.array([group.partition(":")[0] for group in data.groups])
    results = {}
    for scheme in schemes:
        targets = data.targets[scheme.name]
        has = targets.any(1)
        wanted = targets @ np.array(scheme.values) if scheme.values else targets.argmax(1)
        given = np.zeros(len(wanted))
        for k in range(folds):
            learn, check = has & (fold != k), has & (fold == k)
            features = labelled.unit(data.embeddings, learn)
            probe = RidgeCV(np.logspace(1, 5, 12)) if scheme.values else LogisticRegressionCV(**LOGISTIC)
            given[check] = probe.fit(features[learn], wanted[learn]).predict(features[check])
        for name in np.unique(sets[has]):
            rows = has & (sets == name)
            if scheme.values:
                found = {"pearson_r": float(np.corrcoef(given[rows], wanted[rows])[0, 1])}
            else:
                found = {
                    "accuracy": float((given == wanted)[rows].mean()),
                    "macro_f1": float(f1_score(wanted[rows], given[rows], average="macro")),
                }
            results[f"{scheme.name} on {name}"] = {measure: round(value, 4) for measure, value in found.items()}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the results as JSON and do not write them to benchmarks/results")
    args = parser.parse_args()
    results = measure(args.recipe, args.data, args.folds)
    report(f"probes-{args.recipe.parent.name}", results, args.json)


if __name__ == "__main__":
    main()
