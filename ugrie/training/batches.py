"""Sampling for training: the validation split, batches, templates and mixup."""

from collections.abc import Mapping, Sequence

import numpy as np

from ugrie.data.labelled import Labelled
from ugrie.data.table import DataError
from ugrie.schemes.scheme import Scheme
from ugrie.schemes.template import Template


def split(data: Labelled, share: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows for training and the rows for validation, `share` of the labelled groups (at least one).

    The images of a group stay together. Groups without a label go to training. Raises DataError if fewer than two groups have labels.
    """
    labelled = np.any([target.any(1) for target in data.targets.values()], axis=0)
    groups = rng.permutation(np.unique(data.groups[labelled]))
    if len(groups) < 2:
        raise DataError(
            f"all {labelled.sum()} images with labels are of one group, {groups[0]}: none would be left to train on; "
            "add labelled images of another group"
        )
    held_out = np.isin(data.groups, groups[: min(max(1, round(share * len(groups))), len(groups) - 1)])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def batches(data: Labelled, schemes: Sequence[Scheme], size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return the rows of each batch of an epoch, in shuffled order.

    The images of a batch have labels for the same schemes, so that one template fits all of them.
    """
    has_label = np.stack([data.targets[scheme.name].any(1) for scheme in schemes], 1)
    parts = []
    for combination in np.unique(has_label[has_label.any(1)], axis=0):
        rows = np.flatnonzero((has_label == combination).all(1))
        rows = rng.permutation(np.repeat(rows, data.repeats[rows]))
        parts += [rows[i : i + size] for i in range(0, len(rows), size)]
    return [parts[i] for i in rng.permutation(len(parts))]


def draw_template(data: Labelled, schemes: Sequence[Scheme], row: int, rng: np.random.Generator) -> Template:
    """Draw a template of clauses that an image has labels for, in random order: all of them with probability 1/2, else some."""
    labelled = [scheme for scheme in schemes if data.targets[scheme.name][row].any()]
    count = len(labelled) if rng.random() < 0.5 else int(rng.integers(1, len(labelled) + 1))
    return Template(tuple(labelled[i] for i in rng.permutation(len(labelled))[:count]))


def mixup(
    features: np.ndarray, targets: Mapping[str, np.ndarray], concentration: float, rng: np.random.Generator, in_sample: bool = False
) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """Blend each image's features and labels with those of another image of the batch (mixup, Zhang et al., ICLR 2018).

    The shares come from Beta(concentration, concentration); 0 blends nothing. `in_sample` predictions of the regression
    (`ugrie.training.kernel_ridge`) are blended with the batch's mean, too: they are overconfident beside predictions for new
    images, and so is every blend of two of them.
    """
    if not concentration:
        return features, targets
    share, pair_share = rng.beta(concentration, concentration, (2, len(features), 1)).astype(np.float32)
    other = rng.permutation(len(features))

    def blend(values: np.ndarray) -> np.ndarray:
        blended = share * values + (1 - share) * values[other]
        return pair_share * blended + (1 - pair_share) * values.mean(0) if in_sample else blended

    return blend(features), {name: blend(target) for name, target in targets.items()}
