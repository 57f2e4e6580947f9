"""What is drawn of the labelled images while a model trains: what is held out, batches, templates, mixtures."""

from collections.abc import Mapping, Sequence

import numpy as np

from ugrie.data.labelled import Labelled
from ugrie.data.table import DataError
from ugrie.schemes.scheme import Scheme
from ugrie.schemes.template import Template


def split(data: Labelled, share: float, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows for training and for validation. Images of one group stay together, and groups without a label are for training.

    Raises DataError where there is but one group with labels.
    """
    labelled = np.any([target.any(1) for target in data.targets.values()], axis=0)
    groups = draw.permutation(np.unique(data.groups[labelled]))
    if len(groups) < 2:
        raise DataError(f"all {labelled.sum()} images with labels are of one group, {groups[0]}: none would be left to train on")
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


def mix(
    answers: np.ndarray, targets: Mapping[str, np.ndarray], concentration: float, draw: np.random.Generator, knowing: bool = False
) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """Mixup (Zhang et al., ICLR 2018): each image's answers and labels blended with another's of the batch, by Beta-drawn shares.

    Answers that are `knowing` (`ugrie.training.kernel_ridge`) are blended with the batch's mean, too: those for new images
    are less sure, and all blends of two images would be surer.
    """
    if not concentration:
        return answers, targets
    share, own = draw.beta(concentration, concentration, (2, len(answers), 1)).astype(np.float32)
    other = draw.permutation(len(answers))

    def blend(values: np.ndarray) -> np.ndarray:
        blended = share * values + (1 - share) * values[other]
        return own * blended + (1 - own) * values.mean(0) if knowing else blended

    return blend(answers), {name: blend(target) for name, target in targets.items()}
