"""Targets: the labels, votes or ratings of a table as distributions over a scheme's labels, float32 [n, labels].

A rating becomes a distribution over the two nearest levels of an ordinal scheme, so that its expectation is the rating. A row of
zeros has no label.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ugrie.data.format import Column
from ugrie.data.table import DataError, Table
from ugrie.schemes.scheme import Scheme, SchemeError, load_scheme


def read_targets(table: Table, scheme: Scheme, column: Column, known: Mapping[str, Scheme]) -> np.ndarray:
    """Return a table's targets for a scheme, converted by a crosswalk if the table states another scheme (`Column.from_`).

    `known` are the recipe's schemes by name; another scheme is loaded. Raises DataError.
    """
    try:
        stated = known.get(column.from_) or load_scheme(column.from_) if column.from_ else scheme
        crosswalk = stated.crosswalk(scheme) if column.from_ else None
    except SchemeError as error:
        raise DataError(f"{table.source}, scheme '{scheme.name}': {error}") from None
    if column.distribution:
        place = f"distribution of '{scheme.name}'"
        votes = {label: table.column(name) for label, name in column.distribution.items()}
    else:
        name = column.column or (stated.name if stated.name in table.columns or "class" not in table.columns else "class")
        place = f"column '{name}'"
        values = table.column(name)
    try:
        shares = distribution(stated, votes) if column.distribution else target(stated, column, values)
    except DataError as error:
        raise DataError(f"{table.source}, {place}: {error}") from None
    return shares if crosswalk is None else normalized(shares @ crosswalk)


def target(scheme: Scheme, column: Column, values: np.ndarray) -> np.ndarray:
    """Return a column of labels or ratings as distributions; zeros where a value is empty or left out. Raises DataError."""
    if column.cuts and len(column.cuts) != len(scheme.labels) - 1:
        raise DataError(f"{len(column.cuts)} cuts make {len(column.cuts) + 1} classes, but {scheme.name} has {len(scheme.labels)} labels")
    if values.ndim != 1:
        raise DataError(f"its shape is {list(values.shape)}: a column has one value for each image")
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
    """Return votes, counts or probabilities, [n] for each label, as distributions; zeros where an image has none. Raises DataError."""
    out = np.zeros((len(next(iter(columns.values()))), len(scheme.labels)), np.float64)
    for label, values in columns.items():
        try:
            index = scheme.label_index(label)
        except SchemeError as error:
            raise DataError(str(error)) from None
        words = [_word(value) for value in values.tolist()]
        votes = np.array([_number(word) if word else 0 for word in words])
        if (votes < 0).any():
            raise DataError(f"{votes.min():g} votes for {label}: votes can't be negative")
        out[:, index] += votes
    return normalized(out)


def normalized(shares: np.ndarray) -> np.ndarray:
    """Divide the rows of [n, labels] by their sums, as float32; a row of zeros stays zeros."""
    sums = shares.sum(1, keepdims=True)
    return np.divide(shares, sums, out=np.zeros_like(shares), where=sums > 0).astype(np.float32)


def rescale(value: float, source: tuple[float, float] | None, to: tuple[float, float] | None) -> float:
    """Convert a rating from the scale `source` to the scale `to`. Raises DataError if it is outside `source`."""
    assert source is not None
    assert to is not None
    if not source[0] <= value <= source[1]:
        raise DataError(f"a rating of {value} is outside its scale {list(source)}")
    return to[0] + (value - source[0]) * (to[1] - to[0]) / (source[1] - source[0])


def over_levels(value: float, levels: Sequence[float]) -> np.ndarray:
    """Return the distribution over the two levels next to a value whose expectation is the value: float32 [levels]."""
    out = np.zeros(len(levels), np.float32)
    upper = int(np.clip(np.searchsorted(levels, value), 1, len(levels) - 1))
    share = (value - levels[upper - 1]) / (levels[upper] - levels[upper - 1])
    out[upper - 1], out[upper] = 1 - share, share
    return out


def _word(value: object) -> str:
    """Return a cell as text: '' for a missing value, and no '.0' for a class number that was read as a float."""
    if isinstance(value, float):
        return "" if value != value else str(int(value)) if value.is_integer() else repr(value)
    return str(value).strip()


def _number(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        raise DataError(f"'{word}' is not a number") from None
    if not math.isfinite(number):
        raise DataError(f"'{word}' is not a finite number: leave the cell empty if the image has no value")
    return number
