"""Measures `ugrie train --from`: what a few labels of images of another kind gain on those, and cost on the data trained on.

    python benchmarks/adapting.py --recipe ugrie/checkpoints/ugrie-tiny/recipe.toml --data DIR

For each data set of the recipe a checkpoint is trained on three quarters of the other sets' images (by group). Its own set is then the
user's. In each draw a third of it is held out, and k random images of each label are given (of a rating, three times k random ones).
Accuracy is balanced over the labels; that of ratings is Pearson's r. `before` is the checkpoint, or chance for a scheme that is new to it.
`trained on` are the held-out images of the sets that it was trained on. Intervals are Student's t over the draws.
"""

import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import labelled
import numpy as np
import torch
from measure import mean_interval, report

from ugrie.adapting.fit import anchor_embeddings, answers_of, apply, fit
from ugrie.data.labelled import Labelled
from ugrie.evaluation.evaluate import predict
from ugrie.evaluation.metrics import scheme_metrics
from ugrie.model.model import UGRIE
from ugrie.schemes.scheme import Scheme
from ugrie.training.recipe import Recipe
from ugrie.training.train import new_model, train
from ugrie.vision.config import TowerConfig

FIRST = 1000  # seed of the first draw


def measure(recipe_file: Path, root: Path, shots: Sequence[int], draws: int) -> dict[str, Any]:
    recipe, schemes, tower, data = labelled.read(recipe_file, root)
    results = {}
    for own in np.unique(data.sets):
        model, held_out = trained_without(str(own), recipe, schemes, tower, data)
        for scheme in schemes:
            has = data.targets[scheme.name].any(1)
            mine = np.flatnonzero(has & (data.sets == own))
            if len(mine):
                theirs = np.intersect1d(np.flatnonzero(has), held_out)
                found = adapted(model, scheme, data, mine, theirs, shots, draws)
                known = any(each.name == scheme.name for each in model.config.schemes)
                results[f"{scheme.name} on {own}{'' if known else ' (new)'}"] = found
        print(f"{own} is done", file=sys.stderr)
    return results | {"draws": draws}


def trained_without(own: str, recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig, data: Labelled) -> tuple[UGRIE, np.ndarray]:
    """Return a model that was trained without a data set, and the rows of the other sets that were held out."""
    rows = np.flatnonzero(data.sets != own)
    known = [scheme for scheme in schemes if data.targets[scheme.name][rows].any()]
    groups = np.random.default_rng(0).permutation(np.unique(data.groups[rows]))
    held_out = np.isin(data.groups[rows], groups[: len(groups) // 4])
    part = data.take(rows[~held_out])
    learn = Labelled(part.embeddings, {s.name: part.targets[s.name] for s in known}, part.groups, part.repeats, part.sets)
    torch.manual_seed(0)
    model = new_model(recipe.model_copy(update={"schemes": tuple(scheme.name for scheme in known)}), known, tower)
    train(model, learn, recipe)
    return model.eval(), rows[held_out]


def adapted(
    model: UGRIE, scheme: Scheme, data: Labelled, mine: np.ndarray, theirs: np.ndarray, shots: Sequence[int], draws: int
) -> dict[str, Any]:
    """Return by k what the adaptation gains on the user's images `mine`, and on `theirs`, which the model was trained on the likes of."""
    anchors = answers_of(model, anchor_embeddings(model.mapper), {})
    found: dict[int, list[dict[str, float]]] = {k: [] for k in shots}
    for seed in range(FIRST, FIRST + draws):
        rng = np.random.default_rng(seed)
        order = rng.permutation(mine)
        test, offered = order[: len(order) // 3], order[len(order) // 3 :]
        for k in shots:
            rows = drawn(scheme, data.targets[scheme.name], offered, k)
            other = copy.deepcopy(model)
            corrections = fit(
                answers_of(model, data.embeddings[rows], {}), anchors, {scheme.name: data.targets[scheme.name][rows]}, [scheme]
            )
            apply(other, corrections, [scheme], "base", {})
            values = {"before": measured(model, scheme, data, test), "after": measured(other, scheme, data, test)}
            if len(theirs):
                values |= {"trained on, before": measured(model, scheme, data, theirs)}
                values |= {"trained on, after": measured(other, scheme, data, theirs)}
            found[k].append(values | {"images": float(len(rows))})
    return {str(k): summary(of) for k, of in found.items()}


def summary(of: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    gains = {"gain": [each["after"] - each["before"] for each in of]}
    if "trained on, after" in of[0]:
        gains["trained on, gain"] = [each["trained on, after"] - each["trained on, before"] for each in of]
    return {name: round(float(np.mean([each[name] for each in of])), 4) for name in of[0]} | {
        name: mean_interval(values) for name, values in gains.items()
    }


def drawn(scheme: Scheme, targets: np.ndarray, among: np.ndarray, k: int) -> np.ndarray:
    """Return the first k images of each label, or 3 k of a rating."""
    if scheme.kind == "ordinal":
        return among[: 3 * k]
    labels = targets[among].argmax(1)
    return np.concatenate([among[labels == label][:k] for label in range(len(scheme.labels))])


def measured(model: UGRIE, scheme: Scheme, data: Labelled, rows: np.ndarray) -> float:
    """Return the balanced accuracy or Pearson's r; chance for a scheme that the model can't answer."""
    if all(each.name != scheme.name for each in model.config.schemes):
        return 0.0 if scheme.kind == "ordinal" else 1 / len(scheme.labels)
    probs = predict(model, data.embeddings[rows], [scheme.name]).probs[scheme.name]
    found = scheme_metrics(scheme, data.targets[scheme.name][rows], probs)
    return found["pearson_r" if scheme.kind == "ordinal" else "balanced_accuracy"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, required=True, help="the recipe of several data sets, a TOML file")
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the recipe's data sets")
    parser.add_argument("--shots", type=int, nargs="+", default=[4, 8, 16, 32, 64], help="values of k")
    parser.add_argument("--draws", type=int, default=10, help="random draws of the images that are labelled")
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of writing them to benchmarks/results")
    args = parser.parse_args()
    results = measure(args.recipe, args.data, args.shots, args.draws)
    report(f"adapting-{args.recipe.parent.name}", results, args.json)


if __name__ == "__main__":
    main()
