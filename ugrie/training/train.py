"""Trains mapper and BART to write the filled template for image embeddings.

A sample states only the clauses it has labels for, in an order and selection drawn anew for every batch, so that any subset of
schemes can be asked for. `ugrie.training.batches` says what is drawn, `ugrie.training.loss` what is minimised, `ugrie.training.run`
where the images come from and what becomes of the model.
"""

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ugrie.data.labelled import Labelled
from ugrie.model.checkpoint import Config, MapperConfig
from ugrie.model.model import UGRIE
from ugrie.schemes.scheme import Scheme
from ugrie.training.batches import batches, draw_template, mix, split
from ugrie.training.calibration import fit_temperatures, validation_loss
from ugrie.training.init_bart import new_bart, pretrained_bart
from ugrie.training.loss import sentence_loss
from ugrie.training.recipe import Recipe
from ugrie.training.state import Point, Progress, best_epoch
from ugrie.vision.config import TowerConfig

if TYPE_CHECKING:
    from ugrie.training.kernel_ridge import Regression

logger = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """A training fails. The message says when and what may help."""


def new_model(recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig) -> UGRIE:
    """A model of the recipe's shape; torch's seed decides its random weights. Raises RecipeError for a pretrained BART not to be had."""
    if isinstance(recipe.bart, str):
        shape, bart, tokenizer = pretrained_bart(recipe.bart)
        # As in its pretraining; transformers states the second of the two nowhere in BartConfig.
        start = (bart.config.decoder_start_token_id, bart.config.bos_token_id)
    else:
        shape, bart, tokenizer = new_bart(recipe.bart, schemes)
        start = None
    config = Config(
        name=recipe.name,
        schemes=tuple(schemes),
        temperatures={},
        tower=tower,
        mapper=MapperConfig(
            components=recipe.components,
            landmarks=recipe.landmarks,
            prefix_length=recipe.prefix_length,
            hidden=recipe.hidden,
            dropout=recipe.dropout,
        ),
        bart=shape,
        decoder_start=start,
    )
    return UGRIE(config, tokenizer, bart)


def train(model: UGRIE, data: Labelled, recipe: Recipe, state: Path | None = None) -> list[Point]:
    """Trains in place, stops when the validation loss no longer falls, keeps the best weights, fits the temperatures.

    With the recipe's `refit` no epoch is chosen: it trains for all, fits the temperatures on the images held out, and trains anew, from
    the same start, on all images. With a `validation` of 0 nothing is held out: it trains for all epochs, and the probabilities are
    not calibrated. Returns the learning curve. With `state`, a file, a training that was interrupted
    goes on after its last whole epoch, and ends in the same weights as if it had not been (training anew on all begins again). Raises
    TrainingError when the loss is no longer a number.
    """
    draw = np.random.default_rng(recipe.seed)
    inside, outside = split(data, recipe.validation, draw) if recipe.validation else (np.arange(len(data)), np.arange(0))
    learn, check = data.take(inside), data.take(outside)
    start = copy.deepcopy(model.state_dict())
    regression, progress = _begin(model, learn, recipe, draw)
    if state is not None:
        progress.restore(state)
    curve = progress.curve
    with tqdm(total=recipe.epochs, initial=len(curve), desc="training", unit="epoch", disable=None) as bar:
        while len(curve) < recipe.epochs and len(curve) - 1 - kept_epoch(curve, recipe) < recipe.patience:
            training = _train_epoch(progress, learn, regression, recipe)
            validation = validation_loss(model, check) if len(check) else None
            curve.append({"epoch": len(curve), "training": training, "validation": validation})
            if not math.isfinite(training):
                raise TrainingError(f"the loss is {training} in epoch {len(curve)}: a lower learning_rate may help")
            if kept_epoch(curve, recipe) == len(curve) - 1:
                progress.best = copy.deepcopy(model.state_dict())
            if state is not None:
                progress.save(state)
            _tell(bar, curve[-1])
    model.load_state_dict(progress.best)
    model.eval()
    if len(check):
        model.config = model.config.model_copy(update={"temperatures": fit_temperatures(model, check)})
    if recipe.refit:
        _refit(model, start, data, recipe)
    return curve


def kept_epoch(curve: Sequence[Point], recipe: Recipe) -> int:
    """The epoch whose weights are kept, -1 for none: the best one, or the last where the recipe leaves nothing to choose."""
    return len(curve) - 1 if recipe.refit or not recipe.validation else best_epoch(curve)


def _begin(model: UGRIE, learn: Labelled, recipe: Recipe, draw: np.random.Generator) -> tuple["Regression", Progress]:
    """The regression that the mapper takes over, and a training at its start."""
    from ugrie.training.kernel_ridge import regress  # needs scikit-learn, which a model can be made and timed without

    embeddings, mapper = torch.from_numpy(learn.embeddings), model.mapper
    mapper.fit_projection(embeddings)
    regression = regress(mapper.components(embeddings).numpy(), learn.targets, model.config.schemes, learn.groups, recipe.landmarks)
    mapper.set_regression(*(torch.from_numpy(values) for values in (regression.landmarks, regression.weights, regression.bias)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * len(batches(learn, model.config.schemes, recipe.batch_size, draw))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.1)
    progress = Progress(model, optimizer, schedule, draw, copy.deepcopy(model.state_dict()), [])
    return regression, progress


def _refit(model: UGRIE, start: Mapping[str, Tensor], data: Labelled, recipe: Recipe) -> None:
    """Trains from `start` on all images. Depends on nothing that was drawn before, so that it may be interrupted and begun again."""
    torch.manual_seed(recipe.seed)
    model.load_state_dict(start)
    regression, progress = _begin(model, data, recipe, np.random.default_rng(recipe.seed))
    for _ in tqdm(range(recipe.epochs), desc="training on all", unit="epoch", disable=None):
        _train_epoch(progress, data, regression, recipe)
    model.eval()


def _train_epoch(progress: Progress, learn: Labelled, regression: "Regression", recipe: Recipe) -> float:
    """Sees every image once (or as often as its data set says). Returns the mean loss of a slot."""
    model, draw, losses = progress.model, progress.draw, []
    answers = regression.answers.astype(np.float32)
    model.train()
    for rows in batches(learn, model.config.schemes, recipe.batch_size, draw):
        template = draw_template(learn, model.config.schemes, rows[0], draw)
        mixed, targets = mix(answers[rows], learn.take(rows).targets, recipe.mixup, draw, regression.knowing)
        prefix = model.mapper.prefix(torch.from_numpy(mixed))
        loss, form = sentence_loss(model, prefix, targets, template, draw, recipe.context_noise)
        losses.append(loss.detach())
        progress.optimizer.zero_grad()
        (loss + recipe.form_weight * form).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        progress.optimizer.step()
        progress.schedule.step()
    return float(torch.stack(losses).mean())


def _tell(bar: tqdm, point: Point) -> None:
    """On a terminal in the bar, elsewhere as a line of the log."""
    losses = {name: f"{loss:.4f}" for name in ("training", "validation") if (loss := point[name]) is not None}
    bar.set_postfix(losses, refresh=False)
    bar.update()
    if bar.disable:
        logger.info("epoch %3d  %s", point["epoch"] + 1, "  ".join(f"{name} {loss}" for name, loss in losses.items()))
