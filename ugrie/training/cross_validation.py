"""Measures a recipe on images that the model which predicts them has not seen, fold by fold."""

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
from ugrie.evaluation.metrics import evaluate, intervals
from ugrie.schemes.scheme import Scheme
from ugrie.training.recipe import Recipe
from ugrie.training.train import new_model, train
from ugrie.vision.config import TowerConfig

logger = logging.getLogger(__name__)


def cross_validate(
    recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig, data: Labelled, folds: int, state: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Measures by scheme and data set, with 95 % intervals over its images, of what `predict_unseen` predicts."""
    probs = predict_unseen(recipe, schemes, tower, data, folds, state)
    measured = {}
    sets = np.array([group.partition(":")[0] for group in data.groups])
    for scheme in schemes:
        has = data.targets[scheme.name].any(1)
        for name in np.unique(sets[has]):
            rows = has & (sets == name)
            given = scheme, data.targets[scheme.name][rows], probs[scheme.name][rows]
            measured[f"{scheme.name} on {name}"] = {
                **evaluate(*given),
                "interval": {name: list(bounds) for name, bounds in intervals(*given).items()},
            }
    return measured


def predict_unseen(
    recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig, data: Labelled, folds: int, state: Path | None = None
) -> dict[str, np.ndarray]:
    """Probabilities by scheme, float32 [images, labels], each image's from a model trained on the other folds' images (and groups).

    With `state`, a folder, an interrupted one goes on where it stopped. Raises DataError where there are too few groups.
    """
    fold = folds_of(data.groups, folds, recipe.seed)
    probs = {s.name: np.zeros_like(data.targets[s.name]) for s in schemes}
    for k in range(folds):
        logger.info("fold %d of %d", k + 1, folds)
        where = None if state is None else state / f"fold-{k + 1}-of-{folds}"
        for name, given in _fold(recipe, schemes, tower, data, fold == k, recipe.seed + k, where).items():
            probs[name][fold == k] = given
    return probs


def folds_of(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each image, int64 [n], by its group. Raises DataError where there are too few groups."""
    known = np.random.default_rng(seed).permutation(np.unique(groups))
    if not 2 <= folds <= len(known):
        raise DataError(f"{len(known)} groups of images can't be parted in {folds} folds")
    fold_of_group = {group: i % folds for i, group in enumerate(known)}
    return np.array([fold_of_group[group] for group in groups])


def _fold(
    recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig, data: Labelled, held_out: np.ndarray, seed: int, state: Path | None
) -> dict[str, np.ndarray]:
    """Probabilities by scheme, float32 [held out, labels], of a model trained on the rest; those kept from before, if there are any."""
    kept = None if state is None else state.with_suffix(".safetensors")
    if kept is not None and kept.is_file():
        return load_file(kept)
    torch.manual_seed(seed)
    model = new_model(recipe, schemes, tower)
    train(model, data.take(np.flatnonzero(~held_out)), recipe, None if state is None else state.with_suffix(".pt"))
    probs = dict(predict(model, data.embeddings[held_out]).probs)
    if kept is not None:
        write_whole(kept, lambda part: save_file(probs, part))
        kept.with_suffix(".pt").unlink()
    return probs
