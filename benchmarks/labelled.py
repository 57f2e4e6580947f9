"""Reads a recipe's labelled images for the benchmarks that train, as `jobs/train.py` does."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ugrie.data.labelled import Labelled, load_all
from ugrie.data.table import Image
from ugrie.schemes.scheme import Scheme, load_scheme
from ugrie.training.recipe import Recipe, read_recipe
from ugrie.training.towers import load_tower, tower_config
from ugrie.vision.config import TowerConfig
from ugrie.vision.embeddings import EmbeddingCache


def read(recipe_file: Path, root: Path) -> tuple[Recipe, list[Scheme], TowerConfig, Labelled]:
    """Return the recipe, its schemes, its tower and its data sets below `root`. Embeddings are cached in `.ugrie-cache`."""
    recipe = read_recipe(recipe_file)
    schemes = [load_scheme(name) for name in recipe.schemes]
    tower = tower_config(recipe.tower)

    def embed(images: Sequence[Image]) -> np.ndarray:
        return EmbeddingCache(load_tower(tower, None), Path(".ugrie-cache"))(images)

    return recipe, schemes, tower, load_all(recipe.data, root, schemes, embed, tower.embedding_dim)


def unit(embeddings: np.ndarray, learn: np.ndarray) -> np.ndarray:
    """Return embeddings of length one, centred and scaled by the rows `learn`: the features of a linear model."""
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    centred = directions - directions[learn].mean(0)
    return centred / centred[learn].std()
