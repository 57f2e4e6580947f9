"""Labelled images for training and evaluation: embeddings, and for each scheme a distribution over its labels.

A data set is described in a recipe (see `ugrie.training.recipe`) and read in two steps: `read` takes everything but the images, and
finds what is wrong; embedding them, which is what takes long, comes after. Ratings become distributions over the two nearest
levels of an ordinal scheme, so that their expectation is the rating.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ugrie.data.format import Column, DataSet
from ugrie.data.layouts import with_layout
from ugrie.data.readers import read_table
from ugrie.data.table import DataError, Image, Table, some
from ugrie.schemes.scheme import Scheme, SchemeError, load_scheme
from ugrie.text import did_you_mean

logger = logging.getLogger(__name__)

Embed = Callable[[Sequence[Image]], np.ndarray]
"""Turns images into float32 [n, dim]; the row of an image that can't be decoded is NaN."""


@dataclass(frozen=True)
class Labelled:
    """n images: `embeddings` float32 [n, dim], `targets` by scheme float32 [n, labels] (a row of zeros: no label), `groups`.

    `repeats` int64 [n] is how often an image is seen in an epoch.
    """

    embeddings: np.ndarray
    targets: Mapping[str, np.ndarray]
    groups: np.ndarray
    repeats: np.ndarray

    def __len__(self) -> int:
        return len(self.embeddings)

    def take(self, rows: np.ndarray) -> "Labelled":
        return Labelled(self.embeddings[rows], {k: v[rows] for k, v in self.targets.items()}, self.groups[rows], self.repeats[rows])

    @classmethod
    def concat(cls, parts: Sequence["Labelled"], schemes: Sequence[Scheme]) -> "Labelled":
        targets = {
            s.name: np.concatenate([p.targets.get(s.name, np.zeros((len(p), len(s.labels)), np.float32)) for p in parts]) for s in schemes
        }
        embeddings, groups, repeats = (np.concatenate([getattr(p, name) for p in parts]) for name in ("embeddings", "groups", "repeats"))
        return cls(embeddings, targets, groups, repeats)


@dataclass(frozen=True)
class Unembedded:
    """A data set read and checked, its images not yet: the `table` of n images, and what `Labelled` says about them."""

    table: Table
    targets: Mapping[str, np.ndarray]
    groups: np.ndarray
    repeats: np.ndarray

    def embed(self, embed: Embed) -> Labelled:
        """With the embeddings it brings, or those of `embed`. Leaves out, and warns of, images that can't be decoded."""
        images = self.table.images
        embeddings = images if isinstance(images, np.ndarray) else embed(images)
        broken = np.isnan(embeddings).any(1)
        names = some(self.table.names[broken])
        if broken.all():
            raise DataError(f"{self.table.source}: none of the {len(broken)} images can be decoded: {names}")
        if broken.any():
            logger.warning("%s: %d of %d images can't be decoded and are left out: %s", self.table.source, broken.sum(), len(broken), names)
        return Labelled(embeddings, self.targets, self.groups, self.repeats).take(np.flatnonzero(~broken))


def load_all(data_sets: Sequence[DataSet], root: Path, schemes: Sequence[Scheme], embed: Embed, dim: int) -> Labelled:
    """Reads the data sets of a recipe, whose tower has embeddings of `dim` dimensions.

    Raises DataError for whatever is wrong with one of them before any image is embedded.
    """
    parts = [read(data_set, root, schemes) for data_set in data_sets]
    for part in parts:
        if isinstance(part.table.images, np.ndarray) and part.table.images.shape[1] != dim:
            raise DataError(f"{part.table.source}: embeddings of {part.table.images.shape[1]} dimensions; the recipe's tower has {dim}")
    return Labelled.concat([part.embed(embed) for part in parts], schemes)


def read(data_set: DataSet, root: Path, schemes: Sequence[Scheme]) -> Unembedded:
    """Reads all of a data set but its images. Images without any label are left out. Raises DataError."""
    known = {scheme.name: scheme for scheme in schemes}
    path = root / data_set.path
    for name in data_set.schemes:
        if name not in known:
            raise DataError(f"{path}: '{name}' is none of the recipe's schemes{did_you_mean(name, known)}")
    form = with_layout(data_set)
    stated = {name: form.column(name) for name in form.schemes if name in known}
    if not stated:
        raise DataError(f"{path}: the layout '{form.layout}' knows {', '.join(form.schemes)}, and none of these is the recipe's")
    table = read_table(path, form)
    targets = {name: _targets(table, known[name], column, known) for name, column in stated.items()}
    groups = table.column(form.group).astype(str) if form.group else table.names
    groups = np.char.add(f"{data_set.path}:", groups)
    labelled = np.any([target.any(1) for target in targets.values()], axis=0)
    if not labelled.any():
        raise DataError(f"{table.source}: none of the {len(table)} images has a label")
    if not labelled.all():
        message = "%s: %d of %d images have no label: they show what images are like, not what they evoke"
        logger.info(message, table.source, (~labelled).sum(), len(table))
    repeats = data_set.repeat * _balanced(path, data_set.balance, stated, known, targets)
    return Unembedded(table, targets, groups, np.broadcast_to(repeats, len(table)))


def _balanced(
    path: Path, name: str | None, stated: Mapping[str, Column], known: Mapping[str, Scheme], targets: Mapping[str, np.ndarray]
) -> np.ndarray:
    """How often each image is to be seen for the labels of the scheme to be seen about as often as its most frequent one, int64 [n]."""
    if name is None:
        return np.ones(1, np.int64)
    if name not in stated or known[name].kind != "categorical":
        classes = [scheme for scheme in stated if known[scheme].kind == "categorical"]
        raise DataError(f"{path}: balance: '{name}' is none of its schemes of classes{did_you_mean(name, classes)}")
    labels, has = targets[name].argmax(1), targets[name].any(1)
    counts = np.bincount(labels[has], minlength=len(known[name].labels))
    return np.where(has, np.rint(counts.max() / np.maximum(counts, 1))[labels], 1).astype(np.int64)


def _targets(table: Table, scheme: Scheme, column: Column, known: Mapping[str, Scheme]) -> np.ndarray:
    """What a table states of a scheme, as `target` and `distribution` give it, through a crosswalk where it speaks another."""
    try:
        spoken = known.get(column.from_) or load_scheme(column.from_) if column.from_ else scheme
        crosswalk = spoken.crosswalk(scheme) if column.from_ else None
    except SchemeError as error:
        raise DataError(f"{table.source}, scheme '{scheme.name}': {error}") from None
    if column.distribution:
        said = f"{table.source}, distribution of '{scheme.name}'"
        columns = {label: table.column(name) for label, name in column.distribution.items()}
    else:
        name = column.column or (spoken.name if spoken.name in table.columns or "class" not in table.columns else "class")
        said = f"{table.source}, column '{name}'"
        values = table.column(name)
    try:
        shares = distribution(spoken, columns) if column.distribution else target(spoken, column, values)
    except DataError as error:
        raise DataError(f"{said}: {error}") from None
    return shares if crosswalk is None else normalized(shares @ crosswalk)


def target(scheme: Scheme, column: Column, values: np.ndarray) -> np.ndarray:
    """A column as distributions over a scheme's labels, float32 [n, labels]; zeros where a value is empty or left out."""
    if column.cuts and len(column.cuts) != len(scheme.labels) - 1:
        raise DataError(f"{len(column.cuts)} cuts make {len(column.cuts) + 1} classes, but {scheme.name} has {len(scheme.labels)} labels")
    if values.ndim != 1:
        raise DataError(f"it has the shape {list(values.shape)}, not one value for each image")
    distinct, rows = np.unique(values, return_inverse=True)
    out = np.zeros((len(distinct), len(scheme.labels)), np.float32)
    for row, value in enumerate(distinct.tolist()):
        word = _word(value)
        if word == "" or word in column.leave_out:
            continue
        if column.cuts:
            out[row, int(np.searchsorted(column.cuts, _number(word), side="right"))] = 1
        elif scheme.kind == "categorical" or word in column.codes:
            try:
                out[row, scheme.label_index(column.codes.get(word, word))] = 1
            except SchemeError as error:
                raise DataError(str(error)) from None
        else:
            rating = rescale(_number(word), column.range or scheme.range, scheme.range)
            out[row] = over_levels(rating, scheme.values)
    return out[rows]


def distribution(scheme: Scheme, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Votes, counts or probabilities [n] by label as distributions, float32 [n, labels]; zeros where none is given."""
    out = np.zeros((len(next(iter(columns.values()))), len(scheme.labels)), np.float64)
    for label, values in columns.items():
        try:
            index = scheme.label_index(label)
        except SchemeError as error:
            raise DataError(str(error)) from None
        words = [_word(value) for value in values.tolist()]
        votes = np.array([_number(word) if word else 0 for word in words])
        if (votes < 0).any():
            raise DataError(f"{votes.min():g} votes for {label}: there are none below 0")
        out[:, index] += votes
    return normalized(out)


def normalized(shares: np.ndarray) -> np.ndarray:
    """Rows [n, labels] divided by their sums, float32; a row of zeros stays one."""
    sums = shares.sum(1, keepdims=True)
    return np.divide(shares, sums, out=np.zeros_like(shares), where=sums > 0).astype(np.float32)


def rescale(value: float, source: tuple[float, float] | None, to: tuple[float, float] | None) -> float:
    """A rating on one scale read on another; raises DataError outside its own scale."""
    assert source is not None
    assert to is not None
    if not source[0] <= value <= source[1]:
        raise DataError(f"a rating of {value} is outside its scale {list(source)}")
    return to[0] + (value - source[0]) * (to[1] - to[0]) / (source[1] - source[0])


def over_levels(value: float, levels: Sequence[float]) -> np.ndarray:
    """The distribution over the two levels around a value whose expectation is the value."""
    out = np.zeros(len(levels), np.float32)
    upper = int(np.clip(np.searchsorted(levels, value), 1, len(levels) - 1))
    share = (value - levels[upper - 1]) / (levels[upper] - levels[upper - 1])
    out[upper - 1], out[upper] = 1 - share, share
    return out


def _word(value: object) -> str:
    """A cell as text: nothing for a missing one, and no '.0' where numbers stand for classes."""
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() else repr(value)
    return str(value).strip()


def _number(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        raise DataError(f"'{word}' is no number") from None
    if not math.isfinite(number):
        raise DataError(f"'{word}' is no finite number; an empty cell says that there is none")
    return number
