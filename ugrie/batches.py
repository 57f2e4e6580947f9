"""What is drawn of the labelled images while a model trains: what is held out, batches, templates, mixtures."""

from collections.abc import Sequence

import numpy as np

from ugrie.data import Labelled
from ugrie.schemes import Scheme
from ugrie.tables import DataError
from ugrie.template import Template


def split(data: Labelled, share: float, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation. Images of one group stay together. Raises DataError where there is but one group."""
    groups = draw.permutation(np.unique(data.groups))
    if len(groups) < 2:
        raise DataError(f"all {len(data)} images are of one group, {groups[0]}: none would be left to train on")
    held_out = np.isin(data.groups, groups[: min(max(1, round(share * len(groups))), len(groups) - 1)])
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def batches(data: Labelled, schemes: Sequence[Scheme], size: int, draw: np.random.Generator) -> list[np.ndarray]:
    """Rows in shuffled batches; the images of a batch have labels for the same schemes, so that one template fits all."""
    has = np.stack([data.targets[scheme.name].any(1) for scheme in schemes], 1)
    parts = []
    for kind in np.unique(has[has.any(1)], axis=0):
        rows = np.flatnonzero((has == kind).all(1))
        rows = draw.permutation(np.repeat(rows, data.repeats[rows]))
        parts += [rows[i : i + size] for i in range(0, len(rows), size)]
    return [parts[i] for i in draw.permutation(len(parts))]


def draw_template(data: Labelled, schemes: Sequence[Scheme], row: int, draw: np.random.Generator) -> Template:
    """Some of the clauses an image has labels for, in any order; all of them half of the time."""
    labelled = [scheme for scheme in schemes if data.targets[scheme.name][row].any()]
    count = len(labelled) if draw.random() < 0.5 else int(draw.integers(1, len(labelled) + 1))
    return Template(tuple(labelled[i] for i in draw.permutation(len(labelled))[:count]))


def choose(data: Labelled, taught: Labelled, share: float, draw: np.random.Generator) -> Labelled:
    """The same images, that share of them with the labels they have in `taught`, of all their schemes."""
    if not share:
        return data
    theirs = draw.random((len(data), 1)) < share
    targets = {name: np.where(theirs, taught.targets[name], target) for name, target in data.targets.items()}
    return Labelled(data.embeddings, targets, data.groups, data.repeats)


def mix(data: Labelled, concentration: float, draw: np.random.Generator) -> Labelled:
    """Mixup (Zhang et al., ICLR 2018): each image and its labels blended with another's of the batch, by Beta-drawn shares."""
    if not concentration:
        return data
    share = draw.beta(concentration, concentration, (len(data), 1)).astype(np.float32)
    other = data.take(draw.permutation(len(data)))
    targets = {name: share * target + (1 - share) * other.targets[name] for name, target in data.targets.items()}
    unit = [d.embeddings / np.linalg.norm(d.embeddings, axis=1, keepdims=True) for d in (data, other)]
    return Labelled(share * unit[0] + (1 - share) * unit[1], targets, data.groups, data.repeats)
