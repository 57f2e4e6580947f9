"""Trains a checkpoint from a recipe: check everything, embed the images, cross-validate, train, write.

    train_recipe(Path("recipe.toml"), Path("data"), Path("checkpoints/mine"), Path(".ugrie-cache"), folds=5)

Errors in the recipe and the data are found before an image is embedded. docs/training.md describes the recipe and the files written.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ugrie.data.labelled import Labelled, load_all
from ugrie.data.layout import with_layout
from ugrie.data.table import DataError, Image
from ugrie.model import checkpoint
from ugrie.model.model import UGRIE
from ugrie.schemes.scheme import Scheme, load_scheme
from ugrie.schemes.template import Template
from ugrie.training.cross_validation import cross_validate
from ugrie.training.learning_curve import draw_curve
from ugrie.training.recipe import Recipe, RecipeError, read_recipe
from ugrie.training.record import check_writable, read_record, write_record
from ugrie.training.towers import load_tower, tower_config
from ugrie.training.train import kept_epoch, new_model, train
from ugrie.vision.config import TowerConfig
from ugrie.vision.embeddings import EmbeddingCache

logger = logging.getLogger(__name__)


def train_recipe(
    path: Path, root: Path, output: Path, cache: Path, folds: int = 0, bart: str | None = None, tower_weights: str | None = None
) -> dict[str, dict[str, Any]]:
    """Train the checkpoint that a recipe describes and write it to `output`. Returns the cross-validated metrics, if `folds` is not 0.

    `root` is the folder of the data sets. `bart` replaces the recipe's. `tower_weights` is a file of the tower's weights; without it
    open_clip fetches them, but only if there are images to embed.

    Semantics: the same call resumes an interrupted one, and ends in the same checkpoint bit for bit. Once the checkpoint is written,
    the same call logs so and does nothing. `cache` keeps embeddings, and until the checkpoint is written the training state.

    Raises RecipeError, SchemeError, TemplateError and DataError for wrong arguments, and TrainingError.
    """
    stated = read_recipe(path)
    if bart is not None:
        stated = stated.model_copy(update={"bart": bart})
    loaded = (load_scheme(str(path.parent / name) if name.endswith(".toml") else name) for name in stated.schemes)
    schemes = Template(tuple(loaded)).schemes
    check_writable(output, cache)
    _check_output(stated, output)
    _check_labels(stated, schemes)
    recipe = _resolve_bart(stated, path.parent)
    config = tower_config(recipe.tower)
    if tower_weights is not None and config.name is None:
        raise RecipeError(f"--tower-weights {tower_weights}: lite2 needs none: leave the flag out")
    if tower_weights is not None and not tower_weights.endswith(".safetensors"):  # as the jobs that annotate with the checkpoint
        raise RecipeError(f"--tower-weights {tower_weights}: weights are read as .safetensors only, since other files can hold code")
    if tower_weights is not None and not Path(tower_weights).is_file():
        raise RecipeError(f"--tower-weights {tower_weights}: there is no such file")
    encoder = load_tower(config, None) if config.name is None else None
    torch.manual_seed(recipe.seed)
    model = _checked_model(recipe, schemes, config)

    def embed(images: Sequence[Image]) -> np.ndarray:
        nonlocal encoder
        if encoder is None:
            encoder = load_tower(config, tower_weights)
        return EmbeddingCache(encoder, cache)(images)

    data = load_all(recipe.data, root, schemes, embed, config.embedding_dim)
    for scheme in schemes:
        if not data.targets[scheme.name].any():
            raise DataError(f"no image has a label for {scheme.name}: add some, or take it from the recipe's schemes")
    run = _run_digest(stated, folds, model, data)
    previous = read_record(output)
    if previous.get("run") == run:
        logger.info("%s is already trained with this recipe on this data: nothing to do", output)
        return previous["cross_validated"]
    state = cache / "training" / run
    metrics = cross_validate(recipe, schemes, config, data, folds, state) if folds else {}
    logger.info("training the checkpoint")
    torch.manual_seed(recipe.seed)
    model = new_model(recipe, schemes, config)
    curve = train(model, data, recipe, state / "final.pt")
    model.encoder = encoder
    if encoder is not None:
        model.config = model.config.model_copy(
            update={"tower": encoder.config}
        )  # with the SHA-256 of weights that are not in the checkpoint
    record = {"recipe": stated.model_dump(mode="json", exclude_unset=True)}
    write_record(output, record)  # first: if the run is interrupted here, the same command recognises the folder as its own and resumes
    card = path.parent / "MODEL_CARD.md"
    model.save_pretrained(output, card.read_text() if card.is_file() else f"# {recipe.name}\n\nTrained by `ugrie train`.\n")
    draw_curve(curve, kept_epoch(curve, recipe), recipe.name, output / "training.png")
    write_record(output, record | {"run": run, "curve": curve, "cross_validated": metrics})
    shutil.rmtree(state)
    logger.info("%s is written", output)
    return metrics


def _check_output(recipe: Recipe, output: Path) -> None:
    """Raise RecipeError if `output` holds a checkpoint of another recipe."""
    if any((output / file).exists() for file in checkpoint.FILES):
        try:
            same = Recipe.model_validate(read_record(output).get("recipe")) == recipe
        except ValueError:
            same = False
        if not same:
            raise RecipeError(f"--output {output}: holds a checkpoint that this recipe did not make; name another folder, or remove it")


def _check_labels(recipe: Recipe, schemes: Sequence[Scheme]) -> None:
    """Raise DataError if a scheme has labels in no data set of the recipe."""
    labelled = {name for data_set in recipe.data for name in with_layout(data_set).schemes}
    for scheme in schemes:
        if scheme.name not in labelled:
            raise DataError(f"no data set of the recipe has labels for {scheme.name}: add some, or take it from the recipe's schemes")


def _resolve_bart(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe with the path of its BART, if that is a folder below the recipe's own."""
    if isinstance(recipe.bart, str) and (folder / recipe.bart).is_dir():
        return recipe.model_copy(update={"bart": str(folder / recipe.bart)})
    return recipe


def _checked_model(recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig) -> UGRIE:
    """Return a new model after one trial prediction. Raises RecipeError if the recipe's shape does not fit its tower or template."""
    model = new_model(recipe, schemes, tower)
    dim = tower.embedding_dim
    if recipe.components > dim:
        raise RecipeError(f"components: {recipe.components} are more than the tower's {dim} dimensions: lower it")
    try:
        model.eval().predict(torch.ones(1, dim))
    except ValueError as error:
        raise RecipeError(f"bart: {error}") from error
    return model


def _run_digest(recipe: Recipe, folds: int, model: UGRIE, data: Labelled) -> str:
    """Return 32 hexadecimal digits that identify what decides the outcome: recipe, folds, schemes, initial weights, labelled data."""
    state = hashlib.sha256(json.dumps([recipe.model_dump(mode="json"), folds, model.config.model_dump(mode="json")]).encode())
    for name, tensor in model.state_dict().items():
        state.update(name.encode() + tensor.numpy().tobytes())
    state.update(model.tokenizer.to_str().encode())
    for values in (data.embeddings, *data.targets.values(), data.groups, data.repeats):
        state.update(f"{values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    return state.hexdigest()[:32]
