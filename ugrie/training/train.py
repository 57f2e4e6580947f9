"""Trains mapper and BART by gradient descent to write the filled template for image embeddings.

A sample states only clauses that it has labels for. Their order and selection are drawn for every batch, so that any subset of schemes
can be asked for later. `ugrie.training.batches` does the sampling, `ugrie.training.loss` is the loss, and `ugrie.training.run` reads the
data before and writes the checkpoint after.
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
from ugrie.memory import Portions
from ugrie.model.checkpoint import Config, MapperConfig
from ugrie.model.consistency import consistent_groups
from ugrie.model.mapper import BLOCK
from ugrie.model.model import UGRIE
from ugrie.schemes.scheme import Scheme
from ugrie.training.batches import batches, draw_template, mixup, split
from ugrie.training.calibration import Calibration, calibrate, default_shares, validation_loss
from ugrie.training.init_bart import new_bart, pretrained_bart
from ugrie.training.loss import sentence_loss
from ugrie.training.recipe import Recipe
from ugrie.training.state import EpochMetrics, TrainingState, best_epoch
from ugrie.vision.config import TowerConfig

if TYPE_CHECKING:
    from ugrie.training.kernel_ridge import Regression

logger = logging.getLogger(__name__)
VALIDATED = 4096  # held-out images that are predicted at once, which bounds the memory


class TrainingError(RuntimeError):
    """Training failed. The message says when and what may help."""


def new_model(recipe: Recipe, schemes: Sequence[Scheme], tower: TowerConfig) -> UGRIE:
    """Return an untrained model of the recipe's shape; torch's global seed decides its random weights.

    Raises RecipeError if a pretrained BART can't be had.
    """
    if isinstance(recipe.bart, str):
        shape, bart, tokenizer = pretrained_bart(recipe.bart)
        # As in BART's pretraining. transformers does not state the second token anywhere in BartConfig.
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
            landmarks=recipe.landmarks or 1,  # `train` makes room for as many as suit the data
            prefix_length=recipe.prefix_length,
            hidden=recipe.hidden,
            dropout=recipe.dropout,
        ),
        bart=shape,
        decoder_start=start,
    )
    return UGRIE(config, tokenizer, bart)


def train(model: UGRIE, data: Labelled, recipe: Recipe, state: Path | None = None) -> list[EpochMetrics]:
    """Train a model in place and return its learning curve.

    Training stops early when the validation loss has not fallen for `patience` epochs. The weights of the best epoch are kept. For each
    scheme the regression's share in the probabilities and a temperature are fitted on the validation images.

    With the recipe's `refit` no epoch is chosen: the model is trained for all epochs, calibrated on the validation images, and then
    trained again on all images from the same initial weights. With a `validation` of 0 nothing is held out: the model is trained for
    all epochs, the shares are the default ones, and the probabilities are not calibrated.

    With `state`, a file, an interrupted training resumes after its last whole epoch and ends in the same weights as an uninterrupted
    one. A `refit`'s second training starts over. Raises TrainingError when the loss is no longer a finite number.
    """
    rng = np.random.default_rng(recipe.seed)
    training_rows, validation_rows = split(data, recipe.validation, rng) if recipe.validation else (np.arange(len(data)), np.arange(0))
    training_set, validation_set = data.take(training_rows), data.take(validation_rows)
    _resize(model, data, recipe)
    model.config = model.config.model_copy(update={"consistent": consistent_groups(model.config.schemes, data.targets)})
    model.portions = Portions(VALIDATED, "templates")
    model.bart = model.transformers_bart()
    initial_weights = copy.deepcopy(model.state_dict())
    regression, progress = _initialise(model, training_set, recipe, rng)
    if state is not None:
        progress.restore(state)
    curve = progress.curve
    with tqdm(total=recipe.epochs, initial=len(curve), desc="training", unit="epoch", disable=None) as bar:
        while len(curve) < recipe.epochs and len(curve) - 1 - kept_epoch(curve, recipe) < recipe.patience:
            loss = _train_epoch(progress, training_set, regression, recipe)
            validation = validation_loss(model, validation_set) if len(validation_set) else None
            curve.append({"epoch": len(curve), "training": loss, "validation": validation})
            if not math.isfinite(loss):
                raise TrainingError(f"the loss is {loss} in epoch {len(curve)}: a lower learning_rate may help")
            if kept_epoch(curve, recipe) == len(curve) - 1:
                progress.best = copy.deepcopy(model.state_dict())
            if state is not None:
                progress.save(state)
            _log_epoch(bar, curve[-1])
    model.load_state_dict(progress.best)
    model.eval()
    found = calibrate(model, validation_set) if len(validation_set) else Calibration(default_shares(model, data), {})
    fitted = {"temperatures": found.temperatures, "regression_shares": found.regression_shares}
    model.config = model.config.model_copy(update=fitted)
    if recipe.refit:
        _refit(model, initial_weights, data, recipe)
    return curve


def kept_epoch(curve: Sequence[EpochMetrics], recipe: Recipe) -> int:
    """Return the epoch whose weights are kept, -1 for none: the best one, or the last if the recipe chooses no epoch."""
    return len(curve) - 1 if recipe.refit or not recipe.validation else best_epoch(curve)


def _resize(model: UGRIE, data: Labelled, recipe: Recipe) -> None:
    """Make room for the recipe's landmarks, or for as many as suit the number of labelled images."""
    from ugrie.training.kernel_ridge import landmarks_for  # imports scikit-learn, which making and timing a model does not need

    labelled = np.any([target.any(1) for target in data.targets.values()], axis=0)
    landmarks = recipe.landmarks or landmarks_for(int(np.count_nonzero(labelled)))
    model.mapper.resize(landmarks)
    model.config = model.config.model_copy(update={"mapper": model.config.mapper.model_copy(update={"landmarks": landmarks})})


def _initialise(model: UGRIE, data: Labelled, recipe: Recipe, rng: np.random.Generator) -> tuple["Regression", TrainingState]:
    """Fit the mapper's projection and regression, and return the regression and the state before the first epoch."""
    from ugrie.training.kernel_ridge import fit_regression  # scikit-learn, too
    from ugrie.training.stacking import fit_label_scores

    embeddings, mapper = torch.from_numpy(data.embeddings), model.mapper
    mapper.fit_projection(embeddings)
    components = torch.cat([mapper.components(block) for block in embeddings.split(BLOCK)]).numpy()
    regression = fit_regression(components, data.targets, model.config.schemes, data.groups, len(mapper.landmarks))
    mapper.set_regression(*(torch.from_numpy(values) for values in (regression.landmarks, regression.weights, regression.bias)))
    label_scores = fit_label_scores(regression, data.targets, model.config.schemes, data.groups, data.repeats)
    for buffer, values in zip((mapper.label_weights, mapper.label_bias), label_scores, strict=True):
        buffer.copy_(torch.from_numpy(values))
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * len(batches(data, model.config.schemes, recipe.batch_size, rng))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps, pct_start=0.1)
    return regression, TrainingState(model, optimizer, schedule, rng, copy.deepcopy(model.state_dict()), [])


def _refit(model: UGRIE, initial_weights: Mapping[str, Tensor], data: Labelled, recipe: Recipe) -> None:
    """Train from the initial weights on all images.

    Seeds its own generators, so that its result does not depend on the first training or on how often this one was interrupted.
    """
    torch.manual_seed(recipe.seed)
    model.load_state_dict(initial_weights)
    regression, progress = _initialise(model, data, recipe, np.random.default_rng(recipe.seed))
    for _ in tqdm(range(recipe.epochs), desc="training on all images", unit="epoch", disable=None):
        _train_epoch(progress, data, regression, recipe)
    model.eval()


def _train_epoch(progress: TrainingState, data: Labelled, regression: "Regression", recipe: Recipe) -> float:
    """Train on every image once (or its data set's `repeat` times). Returns the mean loss of a slot in nats."""
    model, rng, losses = progress.model, progress.rng, []
    model.train()
    for rows in batches(data, model.config.schemes, recipe.batch_size, rng):
        template = draw_template(data, model.config.schemes, rows[0], rng)
        mixed, targets = mixup(regression.predictions[rows], data.take(rows).targets, recipe.mixup, rng, regression.in_sample)
        prefix = model.mapper.prefix(torch.from_numpy(mixed))
        loss, form_loss = sentence_loss(model, prefix, targets, template, rng, recipe.context_noise)
        losses.append(loss.detach())
        progress.optimizer.zero_grad()
        (loss + recipe.form_weight * form_loss).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        progress.optimizer.step()
        progress.schedule.step()
    return float(torch.stack(losses).mean())


def _log_epoch(bar: tqdm, metrics: EpochMetrics) -> None:
    """Show an epoch's losses in the progress bar on a terminal, elsewhere as a line of the log."""
    losses = {name: f"{loss:.4f}" for name in ("training", "validation") if (loss := metrics[name]) is not None}
    bar.set_postfix(losses, refresh=False)
    bar.update()
    if bar.disable:
        logger.info("epoch %3d  %s", metrics["epoch"] + 1, "  ".join(f"{name} {loss}" for name, loss in losses.items()))
