"""How many labelled images UGRIE needs: k of each class, beside a logistic regression on the same ones.

    python benchmarks/kshot.py --recipe ugrie/checkpoints/ugrie-l14/recipe.toml --data DIR --scheme ekman6

In each draw a third of the images (by group) are put aside to measure on, and k images of each class keep their label of this one
scheme, at random; the others lose theirs. UGRIE is trained as the recipe says, but for a fixed number of steps and with nothing held
out. The logistic regression (C = 1) reads embeddings of unit length, centred and scaled by the labelled ones.
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
from ugrie.training.cross_validation import folds_of
from ugrie.training.recipe import Recipe
from ugrie.training.train import new_model, train
from ugrie.vision.config import TowerConfig

SEEN = 640  # images in an epoch, or the nearest number that shows each as often
EPOCHS = 40
FIRST = 100  # the first draw's seed: those below took part in choosing how few images are trained on


def measure(recipe_file: Path, root: Path, name: str, shots: list[int], draws: int) -> dict[str, dict[str, dict[str, Any]]]:
    recipe, schemes, tower, data = labelled.read(recipe_file, root)
    known = {scheme.name: scheme for scheme in schemes if scheme.kind == "categorical"}
    if name not in known:
        sys.exit(f"kshot: '{name}' is no scheme of classes of this recipe{did_you_mean(name, known)}; it has {', '.join(known)}")
    scheme = known[name]
    recipe = recipe.model_copy(update={"schemes": (name,), "validation": 0.0, "refit": False, "epochs": EPOCHS})
    accuracies: dict[str, dict[int, list[float]]] = {"UGRIE": {}, "logistic regression": {}}
    for seed in range(FIRST, FIRST + draws):
        aside = folds_of(data.groups, 3, seed) == 0
        draw = np.random.default_rng(seed)
        for k in shots:
            shown = drawn(data.targets[name], ~aside, k, draw)
            wanted = data.targets[name][aside].argmax(1)
            for contender, said in (
                ("UGRIE", ugrie(recipe, scheme, tower, data, aside, shown, seed)),
                ("logistic regression", logistic(data, name, aside, shown)),
            ):
                accuracies[contender].setdefault(k, []).append(float((said == wanted).mean()))
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


def drawn(targets: np.ndarray, among: np.ndarray, k: int, draw: np.random.Generator) -> np.ndarray:
    """Rows of k images for each label."""
    labels = targets.argmax(1)
    has = targets.any(1) & among
    return np.concatenate([draw.permutation(np.flatnonzero(has & (labels == label)))[:k] for label in range(targets.shape[1])])


def ugrie(
    recipe: Recipe, scheme: Scheme, tower: TowerConfig, data: Labelled, aside: np.ndarray, shown: np.ndarray, seed: int
) -> np.ndarray:
    targets = np.zeros_like(data.targets[scheme.name])
    targets[shown] = data.targets[scheme.name][shown]
    repeats = np.full(len(data), max(1, round(SEEN / len(shown))))
    learn = replace(data, targets={scheme.name: targets}, repeats=repeats).take(np.flatnonzero(~aside))
    torch.manual_seed(seed)
    model = new_model(recipe, (scheme,), tower)
    train(model, learn, recipe.model_copy(update={"seed": seed}))
    return predict(model, data.embeddings[aside]).probs[scheme.name].argmax(1)


def logistic(data: Labelled, name: str, aside: np.ndarray, shown: np.ndarray) -> np.ndarray:
    features = labelled.unit(data.embeddings, shown)
    probe = LogisticRegression(C=1.0, max_iter=1000).fit(features[shown], data.targets[name][shown].argmax(1))
    return probe.predict(features[aside])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scheme", required=True)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print the results as JSON and do not write them to benchmarks/results")
    args = parser.parse_args()
    results = measure(args.recipe, args.data, args.scheme, args.shots, args.draws)
    report(f"kshot-{args.recipe.parent.name}", results, args.json)


if __name__ == "__main__":
    main()
