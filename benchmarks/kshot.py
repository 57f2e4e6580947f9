"""Compares UGRIE with a logistic regression when trained on k labelled images of each class.

    python benchmarks/kshot.py --recipe ugrie/checkpoints/ugrie-l14/recipe.toml --data DIR --scheme ekman6

Each draw holds out a third of the images (by group) for evaluation. Of the others, k random images of each class keep their label of this
one scheme. UGRIE is trained as the recipe says, but for a fixed number of steps and without a validation split. The logistic
regression (C = 1) reads embeddings of unit length, centred and scaled by the labelled ones.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import labelled
import numpy as np
import torch
from measure import mean_interval, report
from sklearn.linear_model import LogisticRegression

from ugrie.data.labelled import Labelled
from ugrie.evaluation.evaluate import predict
from ugrie.schemes.scheme import Scheme
from ugrie.text import did_you_mean
from ugrie.training.cross_validation import assign_folds
from ugrie.training.recipe import Recipe
from ugrie.training.train import new_model, train
from ugrie.vision.config import TowerConfig

SEEN = 640  # images in an epoch, rounded so that each is seen equally often
EPOCHS = 40
FIRST = 100  # seed of the first draw; lower seeds were used to tune training on few images


def measure(recipe_file: Path, root: Path, name: str, shots: list[int], draws: int) -> dict[str, dict[str, dict[str, Any]]]:
    recipe, schemes, tower, data = labelled.read(recipe_file, root)
    known = {scheme.name: scheme for scheme in schemes if scheme.kind == "categorical"}
    if name not in known:
        sys.exit(f"kshot: '{name}' is no categorical scheme of this recipe{did_you_mean(name, known)}; it has {', '.join(known)}")
    scheme = known[name]
    recipe = recipe.model_copy(update={"schemes": (name,), "validation": 0.0, "refit": False, "epochs": EPOCHS})
    accuracies: dict[str, dict[int, list[float]]] = {"UGRIE": {}, "logistic regression": {}}
    for seed in range(FIRST, FIRST + draws):
        held_out = assign_folds(data.groups, 3, seed) == 0
        rng = np.random.default_rng(seed)
        for k in shots:
            labelled_rows = drawn(data.targets[name], ~held_out, k, rng)
            truth = data.targets[name][held_out].argmax(1)
            for contender, predicted in (
                ("UGRIE", ugrie(recipe, scheme, tower, data, held_out, labelled_rows, seed)),
                ("logistic regression", logistic(data, name, held_out, labelled_rows)),
            ):
                accuracies[contender].setdefault(k, []).append(float((predicted == truth).mean()))
        print(f"draw {seed - FIRST + 1} of {draws}", file=sys.stderr)
    theirs = accuracies["logistic regression"]
    gains = {k: [a - b for a, b in zip(ours, theirs[k], strict=True)] for k, ours in accuracies["UGRIE"].items()}
    return {
        **{contender: {str(k): summary(all_) for k, all_ in by_shots.items()} for contender, by_shots in accuracies.items()},
        "gain": {str(k): mean_interval(gain) for k, gain in gains.items()},
    }


def summary(accuracies: list[float]) -> dict[str, float]:
    spread = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else 0.0
    return {"accuracy": round(float(np.mean(accuracies)), 4), "sd": round(spread, 4)}


def drawn(targets: np.ndarray, among: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """Return the rows of k random images for each label."""
    labels = targets.argmax(1)
    has = targets.any(1) & among
    return np.concatenate([rng.permutation(np.flatnonzero(has & (labels == label)))[:k] for label in range(targets.shape[1])])


def ugrie(
    recipe: Recipe, scheme: Scheme, tower: TowerConfig, data: Labelled, held_out: np.ndarray, labelled_rows: np.ndarray, seed: int
) -> np.ndarray:
    """Return the labels that UGRIE predicts for the held-out images, int64 [n]."""
    targets = np.zeros_like(data.targets[scheme.name])
    targets[labelled_rows] = data.targets[scheme.name][labelled_rows]
    repeats = np.full(len(data), max(1, round(SEEN / len(labelled_rows))))
    learn = replace(data, targets={scheme.name: targets}, repeats=repeats).take(np.flatnonzero(~held_out))
    torch.manual_seed(seed)
    model = new_model(recipe, (scheme,), tower)
    train(model, learn, recipe.model_copy(update={"seed": seed}))
    return predict(model, data.embeddings[held_out]).probs[scheme.name].argmax(1)


def logistic(data: Labelled, name: str, held_out: np.ndarray, labelled_rows: np.ndarray) -> np.ndarray:
    """Return the labels that a logistic regression predicts for the held-out images, int64 [n]."""
    features = labelled.unit(data.embeddings, labelled_rows)
    probe = LogisticRegression(C=1.0, max_iter=1000).fit(features[labelled_rows], data.targets[name][labelled_rows].argmax(1))
    return probe.predict(features[held_out])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True, help="the recipe, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the recipe's data sets")
    parser.add_argument("--scheme", required=True, help="a categorical scheme of the recipe")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="values of k")
    parser.add_argument("--draws", type=int, default=10, help="random draws of held-out and labelled images")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    results = measure(args.recipe, args.data, args.scheme, args.shots, args.draws)
    report(f"kshot-{args.recipe.parent.name}", results, args.json)


if __name__ == "__main__":
    main()
