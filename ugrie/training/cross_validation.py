"""K-fold cross-validation of a recipe: every image is predicted by a model that was not trained on it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from ugrie.atomic import write_whole
from ugrie.data.labelled import Labelled
from ugrie.data.table import DataError
from ugrie.evaluation.evaluate import predict
from ugrie.evaluation.metrics import confidence_intervals, scheme_metrics
from ugrie.model.prediction import Prediction
from ugrie.schemes.scheme import Scheme
from ugrie.schemes.template import Template
from ugrie.training.recipe import Recipe
from ugrie.training.train import new_model, train
from ugrie.vision.config import TowerConfig

logger = logging.getLogger(__name__)


def cross_validate(
    recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig, data: Labelled, folds: int, state: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Return the metrics of `predict_out_of_fold`'s predictions for each "SCHEME on DATA SET", with 95 % intervals over its images."""
    predicted = predict_out_of_fold(recipe, schemes, tower, data, folds, state)
    results = {}
    for scheme in schemes:
        has_label = data.targets[scheme.name].any(1)
        for name in np.unique(data.sets[has_label]):
            rows = has_label & (data.sets == name)
            labelled = scheme, data.targets[scheme.name][rows], predicted.probs[scheme.name][rows], predicted.choices[scheme.name][rows]
            results[f"{scheme.name} on {name}"] = {
                **scheme_metrics(*labelled),
                "interval": {metric: list(bounds) for metric, bounds in confidence_intervals(*labelled).items()},
            }
    return results


def predict_out_of_fold(
    recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig, data: Labelled, folds: int, state: Path | None = None
) -> Prediction:
    """Return the predictions for all images, each image's by the model that was trained on the other folds.

    Groups are held out whole. With `state`, a folder, an interrupted cross-validation resumes. Raises DataError if there are too
    few groups.
    """
    fold = assign_folds(data.groups, folds, recipe.seed)
    probs = {scheme.name: np.zeros_like(data.targets[scheme.name]) for scheme in schemes}
    choices = {scheme.name: np.zeros(len(data), np.int64) for scheme in schemes}
    for k in range(folds):
        logger.info("fold %d of %d", k + 1, folds)
        fold_state = None if state is None else state / f"fold-{k + 1}-of-{folds}"
        found = _predict_fold(recipe, schemes, tower, data, fold == k, recipe.seed + k, fold_state)
        for scheme in schemes:
            probs[scheme.name][fold == k] = found[f"probs.{scheme.name}"]
            choices[scheme.name][fold == k] = found[f"choices.{scheme.name}"]
    return Prediction(Template(tuple(schemes)), probs, choices)


def assign_folds(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each image, int64 [n], the same for all images of a group. Raises DataError if there are too few groups."""
    shuffled = np.random.default_rng(seed).permutation(np.unique(groups))
    if not 2 <= folds <= len(shuffled):
        raise DataError(f"{len(shuffled)} groups of images can't be split into {folds} folds: ask for 2 or more, and at most one a group")
    fold_of_group = {group: i % folds for i, group in enumerate(shuffled)}
    return np.array([fold_of_group[group] for group in groups])


def _predict_fold(
    recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig, data: Labelled, held_out: np.ndarray, seed: int, state: Path | None
) -> dict[str, np.ndarray]:
    """Return "probs.SCHEME", float32 [held out, labels], and "choices.SCHEME", int64 [held out], of a model trained on the other images.

    A fold that an interrupted run has finished is read from `state` and not trained again.
    """
    finished = None if state is None else state.with_suffix(".safetensors")
    if finished is not None and finished.is_file():
        return load_file(finished)
    torch.manual_seed(seed)
    model = new_model(recipe, schemes, tower)
    train(model, data.take(np.flatnonzero(~held_out)), recipe, None if state is None else state.with_suffix(".pt"))
    predicted = predict(model, data.embeddings[held_out])
    found = {f"probs.{name}": probs for name, probs in predicted.probs.items()}
    found |= {f"choices.{name}": choices for name, choices in predicted.choices.items()}
    if finished is not None:
        write_whole(finished, lambda part: save_file(found, part))
        finished.with_suffix(".pt").unlink()
    return found
