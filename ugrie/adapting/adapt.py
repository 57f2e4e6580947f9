"""Adapts a checkpoint to a user's own labels: measure the gain by cross-validation, keep what gains, write the checkpoint.

    adapt_checkpoint("ugrie-tiny", Path("review"), Path("checkpoints/mine"), Path(".ugrie-cache"))

The data that the checkpoint was trained on are not needed. docs/training.md describes the files that are read and written.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ugrie.adapting.fit import Answers, anchor_embeddings, answers_of, apply, fit
from ugrie.data.near_duplicates import joined_groups
from ugrie.data.table import DataError
from ugrie.errors import GivenError
from ugrie.evaluation.evaluate import predict
from ugrie.evaluation.labelled_set import LabelledSet, read_labelled_set
from ugrie.evaluation.metrics import scheme_metrics
from ugrie.model import checkpoint, zero_shot
from ugrie.model.model import UGRIE
from ugrie.model.zero_shot import ZeroShot
from ugrie.schemes.scheme import Scheme, bundled_schemes, load_scheme
from ugrie.schemes.template import Template
from ugrie.training.cross_validation import assign_folds
from ugrie.training.record import check_writable, read_record, write_record
from ugrie.vision.download import fetch_weights
from ugrie.vision.embeddings import EmbeddingCache

logger = logging.getLogger(__name__)
FEW = 10  # labelled images of a scheme, at least
MOST = 5000  # labelled images; more are enough to train a checkpoint of one's own
FOLDS, REPEATS = 5, 4


class NoGainError(GivenError):
    """The labels make no scheme's answers better on images that were held out."""


@dataclass(frozen=True)
class Gain:
    """What cross-validation says of a scheme, `before` and `after` the adaptation: metrics, and `loss`, the mean fall of the
    cross-entropy in nats with its 95 % `interval`.
    """

    images: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    loss: float
    interval: tuple[float, float]


def adapt_checkpoint(
    base: str, data: Path, output: Path, cache: Path, schemes: Sequence[str] = (), tower_weights: str | None = None
) -> dict[str, Gain]:
    """Adapt the checkpoint `base` to the labels in the folder or file `data`, and write the new checkpoint to `output`.

    `data` is read as an evaluation reads it (`ugrie.evaluation.labelled_set`): a column for each scheme. Schemes new to the checkpoint are
    bundled ones, or files in `schemes`. Each scheme's gain is measured on held-out images. A scheme that gains nothing stays as it is.
    The same call does nothing once the checkpoint is written. `cache` keeps embeddings.

    Raises CheckpointError, SchemeError, TemplateError and DataError for wrong arguments, and NoGainError if no scheme gains.
    """
    folder = checkpoint.find(base)
    config = checkpoint.read_config(folder)
    name = f"{config.name}@{checkpoint.digest(folder)}"
    if tower_weights is not None and config.tower.vision_cfg is not None:
        raise checkpoint.CheckpointError(f"--tower-weights {tower_weights}: {config.name} bundles its own tower: leave the flag out")
    check_writable(output, cache)
    known = {scheme.name: scheme for scheme in config.schemes}
    given = {scheme.name: scheme for scheme in map(load_scheme, schemes) if scheme.name not in known}
    offered = {each: load_scheme(each) for each in bundled_schemes() if each not in known and each not in given}
    labelled = read_labelled_set(data, config.model_copy(update={"schemes": (*config.schemes, *given.values(), *offered.values())}), {})
    for each in given:
        if each not in labelled.targets:
            raise DataError(f"{labelled.table.source} has no labels for {each}, which --schemes names: name a column so")
    asked = _enough({**known, **given, **offered}, labelled)
    Template((*config.schemes, *(scheme for scheme in asked if scheme.name not in known)))  # their clauses must be told apart
    if len(labelled.table) > MOST:
        raise DataError(f"{labelled.table.source} has {len(labelled.table):,} labelled images: train on more than {MOST:,} by a recipe")
    if output.exists() and any((output / file).exists() for file in checkpoint.FILES) and read_record(output).get("adapted_from") != name:
        raise DataError(f"--output {output}: holds a checkpoint that was not adapted from {name}; name another folder, or remove it")
    model = UGRIE.from_pretrained(folder, tower_weights=tower_weights)
    targets, embeddings = _embedded(model, labelled, cache)
    run = _digest(name, output.name, asked, targets, embeddings)
    if (record := read_record(output)).get("run") == run:
        logger.info("%s is already adapted with these labels: nothing to do", output)
        return {each: Gain(**values) for each, values in record["gains"].items()}

    prior = _zero_shot(model, [scheme for scheme in asked if scheme.name not in known])
    images = answers_of(model, embeddings, prior)
    anchors = answers_of(model, anchor_embeddings(model.mapper), prior)
    gains = _cross_validate(model, embeddings, images, anchors, targets, asked, name, prior)
    kept = [scheme for scheme in asked if gains[scheme.name].loss > 0]
    for scheme in asked:
        gain = gains[scheme.name]
        result = "adapted" if scheme in kept else "left as it is: its labels make held-out images' answers no better"
        logger.info("%s, %d images: %s; %s", scheme.name, gain.images, result, _describe(scheme, gain))
    if not kept:
        raise NoGainError(f"{data}: no scheme of {config.name} gains by these labels, and nothing is written: label more images")
    apply(model, fit(images, anchors, targets, kept), kept, name, prior)
    model.config = model.config.model_copy(update={"name": output.name})
    write_record(output, {"adapted_from": name})  # first: if the run is interrupted here, the same command knows the folder as its own
    model.save_pretrained(output, _card(output.name, name, data, kept, gains, model.config.few_shot))
    write_record(output, {"adapted_from": name, "run": run, "gains": {each: vars(gain) for each, gain in gains.items()}})
    logger.info("%s is written", output)
    return gains


def _enough(known: Mapping[str, Scheme], labelled: LabelledSet) -> list[Scheme]:
    """Return the schemes that have enough labels. Raises DataError if none has."""
    counts = {name: int(np.count_nonzero(target.any(1))) for name, target in labelled.targets.items()}
    few = [f"{name} has {count}" for name, count in counts.items() if count < FEW]
    if len(few) == len(counts):
        raise DataError(f"{labelled.table.source}: {', '.join(few)} labelled images: {FEW} of a scheme are the least to learn from")
    if few:
        logger.warning("left as they are, since %d labelled images are the least to learn from: %s", FEW, ", ".join(few))
    return [known[name] for name, count in counts.items() if count >= FEW]


def _embedded(model: UGRIE, labelled: LabelledSet, cache: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return targets and embeddings of the images that can be decoded. Raises DataError if none can, and CheckpointError."""
    images = labelled.table.images
    if isinstance(images, np.ndarray):
        return dict(labelled.targets), images.astype(np.float32)
    try:
        encoder = model.load_encoder()
    except (OSError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{model.config.name} can't embed images (embeddings as .npz need no tower): {error}") from error
    embeddings = EmbeddingCache(encoder, cache)(images)
    whole = ~np.isnan(embeddings).any(1)
    if not whole.any():
        raise DataError(f"{labelled.table.source}: none of the {len(images)} images can be decoded")
    return {name: target[whole] for name, target in labelled.targets.items()}, embeddings[whole]


def _zero_shot(model: UGRIE, schemes: Sequence[Scheme]) -> dict[str, ZeroShot]:
    """Return zero-shot answers to schemes that are new to the model, if its tower is a CLIP whose weights can be had; else none."""
    tower = model.config.tower
    if not schemes or tower.name is None:
        return {}
    try:
        weights = model.tower_weights or fetch_weights(tower)
        digest = checkpoint.named_tower_digest(model.config, weights)
        return zero_shot.answer(tower, digest, model.mapper.mean.numpy(), schemes, lambda: weights)
    except (OSError, ValueError, checkpoint.CheckpointError) as error:
        names = ", ".join(scheme.name for scheme in schemes)
        logger.warning("%s: learnt from the labels alone, since zero-shot answers can't be had: %s", names, str(error).splitlines()[0])
        return {}


def _cross_validate(
    model: UGRIE,
    embeddings: np.ndarray,
    images: Answers,
    anchors: Answers,
    targets: Mapping[str, np.ndarray],
    schemes: Sequence[Scheme],
    base: str,
    prior: Mapping[str, ZeroShot],
) -> dict[str, Gain]:
    """Return each scheme's gain on held-out images, over repeated folds. Near duplicates are in one fold."""
    groups = joined_groups(embeddings, np.arange(len(embeddings)))
    config, before = model.config, model.adaptation
    found: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {scheme.name: [] for scheme in schemes}
    for repeat in range(REPEATS):
        folds = assign_folds(groups, min(FOLDS, len(np.unique(groups))), repeat)
        for fold in range(folds.max() + 1):
            rows, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            learnt = fit(images.take(rows), anchors, {name: target[rows] for name, target in targets.items()}, schemes)
            apply(model, learnt, schemes, base, prior)
            after = predict(model, embeddings[held_out]).probs
            model.config, model.adaptation = config, before
            for scheme in schemes:
                at = targets[scheme.name][held_out].any(1)
                start = images.log_probs.get(scheme.name)
                probs = np.exp(start[held_out] if start is not None else np.tile(learnt.bias[scheme.name], (len(held_out), 1)))
                found[scheme.name].append((targets[scheme.name][held_out][at], probs[at], after[scheme.name][at]))
    return {scheme.name: _gain(scheme, *map(np.concatenate, zip(*found[scheme.name], strict=True))) for scheme in schemes}


def _gain(scheme: Scheme, targets: np.ndarray, before: np.ndarray, after: np.ndarray) -> Gain:
    """Return the gain of predictions, [repeats times images, labels]. Its interval counts each image once."""
    falls = (targets * (np.log(np.maximum(after, 1e-12)) - np.log(np.maximum(before, 1e-12)))).sum(1)
    images = len(targets) // REPEATS
    error = 1.96 * float(falls.std()) / images**0.5
    metrics_before, metrics_after = (scheme_metrics(scheme, targets, probs) for probs in (before, after))
    return Gain(images, metrics_before, metrics_after, float(falls.mean()), (float(falls.mean()) - error, float(falls.mean()) + error))


def _describe(scheme: Scheme, gain: Gain) -> str:
    """Return a gain as text: the measure that people know, and the cross-entropy."""
    measure = "accuracy" if scheme.kind == "categorical" else "pearson_r"
    shown = f"{gain.before[measure]:.1%} to {gain.after[measure]:.1%}" if scheme.kind == "categorical" else ""
    shown = shown or f"{gain.before[measure]:.3f} to {gain.after[measure]:.3f}"
    low, high = gain.interval
    return f"{'accuracy' if measure == 'accuracy' else 'Pearson r'} {shown}, cross-entropy {-gain.loss:+.3f} ({-high:+.3f} to {-low:+.3f})"


def _card(name: str, base: str, data: Path, kept: Sequence[Scheme], gains: Mapping[str, Gain], few_shot: Sequence[str]) -> str:
    """Return the text of MODEL_CARD.md."""
    rows = [f"| {s.name}{' (new)' if s.name in few_shot else ''} | {gains[s.name].images} | {_describe(s, gains[s.name])} |" for s in kept]
    images = max(gains[scheme.name].images for scheme in kept)
    return f"""# {name}

`{base}`, adapted by `ugrie train --from` to {images} labelled images from `{data.name}`.
On images that were held out ({FOLDS} folds, {REPEATS} times):

| scheme | images | before and after |
|---|---|---|
{chr(10).join(rows)}

Cross-entropies are in nats, with 95 % intervals. They are of images like those that were labelled. Images unlike these are answered as
before, up to a small change. The checkpoint holds the embeddings of the labelled images, reduced to the mapper's components.
For everything else see the card of `{base}`.
"""


def _digest(base: str, name: str, schemes: Sequence[Scheme], targets: Mapping[str, np.ndarray], embeddings: np.ndarray) -> str:
    """Return 32 hexadecimal digits that identify what decides the outcome."""
    parts = [base, name, [scheme.model_dump(mode="json") for scheme in schemes]]
    state = hashlib.sha256(json.dumps(parts).encode())
    for values in (embeddings, *(targets[scheme.name] for scheme in schemes)):
        state.update(f"{values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    return state.hexdigest()[:32]
