"""Labelled images for training and evaluation: embeddings, and for each scheme a distribution over its labels.

A data set is described in a recipe (see `ugrie.recipe`): a table of labels beside its images, or an .npz of embeddings.
Ratings become distributions over the two nearest levels of an ordinal scheme, so that their expectation is the rating.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ugrie.recipe import Column, DataSet
from ugrie.schemes import Scheme, SchemeError, did_you_mean


class DataError(ValueError):
    """A data set can't be read as its recipe says. The message names the file and the column or value."""


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


def load(data_set: DataSet, root: Path, schemes: Sequence[Scheme], embed: Callable[[list[Path]], np.ndarray]) -> Labelled:
    """Reads a data set. `embed` turns image files into embeddings; it is not called for an .npz, which has its own."""
    path = file = root / data_set.path
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            table = {name: arrays[name] for name in arrays.files}
        embeddings = _column(table, "embedding", path).astype(np.float32)
    else:
        file = path / data_set.labels
        if not file.is_file():
            raise DataError(f"there are no labels at {file}")
        with file.open(newline="") as lines:
            rows = list(csv.DictReader(lines))
        table = {name: np.array([row[name] for row in rows]) for name in (rows[0] if rows else {})}
        embeddings = embed([path / data_set.images / name for name in _column(table, data_set.file, file)])
    known = {scheme.name: scheme for scheme in schemes}
    targets = {}
    for name, column in data_set.schemes.items():
        if name not in known:
            raise DataError(f"{path}: '{name}' is none of the recipe's schemes{did_you_mean(name, known)}")
        values = _column(table, column.column or name, file)
        try:
            targets[name] = target(known[name], column, values)
        except ValueError as error:
            raise DataError(f"{file}, column '{column.column or name}': {error}") from None
    count = len(embeddings)
    groups = _column(table, data_set.group, file).astype(str) if data_set.group else np.arange(count).astype(str)
    return Labelled(embeddings, targets, np.char.add(f"{data_set.path}:", groups), np.full(count, data_set.repeat))


def target(scheme: Scheme, column: Column, values: np.ndarray) -> np.ndarray:
    """A column as distributions over a scheme's labels, float32 [n, labels]; zeros where a value is empty or left out."""
    if column.cuts and len(column.cuts) != len(scheme.labels) - 1:
        raise DataError(f"{len(column.cuts)} cuts make {len(column.cuts) + 1} classes, but {scheme.name} has {len(scheme.labels)} labels")
    out = np.zeros((len(values), len(scheme.labels)), np.float32)
    for row, value in enumerate(values.tolist()):
        if value == "" or value in column.leave_out or value != value:
            continue
        if column.cuts:
            out[row, int(np.searchsorted(column.cuts, float(value), side="right"))] = 1
        elif scheme.kind == "categorical":
            try:
                out[row, scheme.label_index(str(value))] = 1
            except SchemeError as error:
                raise DataError(f"row {row}: {error}") from None
        else:
            rating = rescale(float(value), column.range or scheme.range, scheme.range)
            out[row] = over_levels(rating, scheme.values)
    return out


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


def _column(table: Mapping[str, np.ndarray], name: str, path: Path) -> np.ndarray:
    if name not in table:
        raise DataError(f"{path} has no column '{name}'{did_you_mean(name, table)}; it has {', '.join(table)}")
    return table[name]
