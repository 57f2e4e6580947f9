"""Labelled images for training: embeddings, and for each scheme a distribution over its labels.

A recipe (see `ugrie.training.recipe`) describes its data sets. They are loaded in two steps: `read` reads and checks everything
but the images, so that errors come early; `Unembedded.embed` then embeds the images, which takes most of the time.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ugrie.data.format import Column, DataSet
from ugrie.data.layout import load_layout, with_layout
from ugrie.data.readers import read_table
from ugrie.data.table import DataError, Image, Table, some
from ugrie.data.targets import read_targets
from ugrie.schemes.scheme import Scheme
from ugrie.text import did_you_mean

logger = logging.getLogger(__name__)

Embed = Callable[[Sequence[Image]], np.ndarray]
"""Embeds images: float32 [n, dim]. The row of an image that can't be decoded is NaN."""


@dataclass(frozen=True)
class Labelled:
    """n labelled images.

    `embeddings` is float32 [n, dim]. `targets` is float32 [n, labels] for each scheme; a row of zeros has no label. Images with
    the same entry in `groups` [n] stay on one side of a split. `repeats` int64 [n] counts how often an epoch uses an image. `sets` [n]
    are the paths of their data sets.
    """

    embeddings: np.ndarray
    targets: Mapping[str, np.ndarray]
    groups: np.ndarray
    repeats: np.ndarray
    sets: np.ndarray

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows: np.ndarray) -> "Labelled":
        targets = {name: target[rows] for name, target in self.targets.items()}
        return Labelled(self.embeddings[rows], targets, self.groups[rows], self.repeats[rows], self.sets[rows])

    @classmethod
    def concat(cls, parts: Sequence["Labelled"], schemes: Sequence[Scheme]) -> "Labelled":
        targets = {
            s.name: np.concatenate([p.targets.get(s.name, np.zeros((len(p), len(s.labels)), np.float32)) for p in parts]) for s in schemes
        }
        embeddings, groups, repeats, sets = (
            np.concatenate([getattr(p, name) for p in parts]) for name in ("embeddings", "groups", "repeats", "sets")
        )
        return cls(embeddings, targets, groups, repeats, sets)


@dataclass(frozen=True)
class Unembedded:
    """A data set whose images are not embedded yet: the `table` of n images; the other fields are as in `Labelled`."""

    table: Table
    targets: Mapping[str, np.ndarray]
    groups: np.ndarray
    repeats: np.ndarray
    sets: np.ndarray

    def embed(self, embed: Embed) -> Labelled:
        """Embed the images with `embed`, unless the data set brings embeddings.

        Images that can't be decoded are left out, with a warning. Raises DataError if none can be decoded.
        """
        images = self.table.images
        embeddings = images if isinstance(images, np.ndarray) else embed(images)
        broken = np.isnan(embeddings).any(1)
        names = some(self.table.names[broken])
        if broken.all():
            raise DataError(f"{self.table.source}: none of the {len(broken)} images can be decoded: {names}")
        if broken.any():
            logger.warning("%s: %d of %d images can't be decoded and are left out: %s", self.table.source, broken.sum(), len(broken), names)
        return Labelled(embeddings, self.targets, self.groups, self.repeats, self.sets).take(np.flatnonzero(~broken))


def load_all(data_sets: Sequence[DataSet], root: Path, schemes: Sequence[Scheme], embed: Embed, dim: int) -> Labelled:
    """Load all data sets of a recipe whose tower makes embeddings of `dim` dimensions.

    Groups that have the same image, in one data set or in two, are joined. Raises DataError for anything wrong in any of them before
    the first image is embedded.
    """
    parts = [read(data_set, root, schemes) for data_set in data_sets]
    for part in parts:
        if isinstance(part.table.images, np.ndarray) and part.table.images.shape[1] != dim:
            raise DataError(f"{part.table.source}: embeddings of {part.table.images.shape[1]} dimensions; the recipe's tower has {dim}")
    from ugrie.data.near_duplicates import joined_groups  # imports scikit-learn, which only training needs

    data = Labelled.concat([part.embed(embed) for part in parts], schemes)
    joined = joined_groups(data.embeddings, data.groups)
    if count := len(np.unique(data.groups)) - len(np.unique(joined)):
        logger.info("%d groups of images are joined to others that show the same images", count)
    return replace(data, groups=joined)


def read(data_set: DataSet, root: Path, schemes: Sequence[Scheme]) -> Unembedded:
    """Read and check a data set, all but its images. Images without a label are kept. Raises DataError."""
    known = {scheme.name: scheme for scheme in schemes}
    path = root / data_set.path
    for name in data_set.schemes:
        if name not in known:
            raise DataError(f"{path}: '{name}' is not a scheme of the recipe{did_you_mean(name, known)}")
    form = with_layout(data_set)
    columns = {name: form.column(name) for name in form.schemes if name in known}
    if not columns:
        raise DataError(f"{path}: the layout '{form.layout}' has {', '.join(form.schemes)}; the recipe trains none of these")
    table = read_table(path, form)
    if form.layout:
        load_layout(form.layout).check(table)
    targets = {name: read_targets(table, known[name], column, known) for name, column in columns.items()}
    groups = table.column(form.group).astype(str) if form.group else table.names
    groups = np.char.add(f"{data_set.path}:", groups)
    has_label = np.any([target.any(1) for target in targets.values()], axis=0)
    if not has_label.any():
        raise DataError(f"{table.source}: none of the {len(table)} images has a label")
    if not has_label.all():
        message = "%s: %d of %d images have no label: they only help to fit the mapper's projection"
        logger.info(message, table.source, (~has_label).sum(), len(table))
    repeats = data_set.repeat * _balancing_repeats(path, data_set.balance, columns, known, targets)
    return Unembedded(table, targets, groups, np.broadcast_to(repeats, len(table)), np.full(len(table), data_set.path))


def _balancing_repeats(
    path: Path, name: str | None, columns: Mapping[str, Column], known: Mapping[str, Scheme], targets: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Return how often to repeat each image so that all labels of the scheme `name` are about equally frequent: int64 [n].

    Without a scheme it is 1 for all, int64 [1]. Raises DataError for a scheme that is not categorical or not in the data set.
    """
    if name is None:
        return np.ones(1, np.int64)
    if name not in columns or known[name].kind != "categorical":
        categorical = [scheme for scheme in columns if known[scheme].kind == "categorical"]
        raise DataError(f"{path}: balance: '{name}' is not a categorical scheme of this data set{did_you_mean(name, categorical)}")
    labels, has_label = targets[name].argmax(1), targets[name].any(1)
    counts = np.bincount(labels[has_label], minlength=len(known[name].labels))
    return np.where(has_label, np.rint(counts.max() / np.maximum(counts, 1))[labels], 1).astype(np.int64)
