"""Layouts of public data sets as their authors publish them: TOML files in `ugrie/data/layouts/`, described in docs/datasets.md.

A layout is a `Format` (files, columns, splits and schemes) and the data set's origin. A recipe names the layout, and overrides any
setting in which its copy of the data set differs:

    [[data]]
    layout = "emoset"
    path = "EmoSet-118K"
"""

import re
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
from pydantic import Field

from ugrie.data.format import DataSet, Format, Strict
from ugrie.data.table import DataError, Table
from ugrie.text import did_you_mean

FOLDER = Path(__file__).parent / "layouts"


class Expected(Strict):
    """A pattern that some value of a column must match, and the problem and `remedy` if none does."""

    pattern: str
    remedy: str


class Layout(Format):
    """A public data set's format, its origin (`url`), its terms of use and the `source` to cite.

    `expected` holds patterns by column: a copy in which no value matches is damaged.
    """

    title: str
    url: str
    terms: str
    source: str
    expected: dict[str, Expected] = Field(default_factory=dict)

    def check(self, table: Table) -> None:
        """Raise DataError if the table is that of a damaged copy."""
        for name, expected in self.expected.items():
            values = np.unique(table.columns.get(name, np.array([], str))).astype(str)
            if len(values) and not any(re.search(expected.pattern, value) for value in values):
                raise DataError(f"{table.source}: the column '{name}' has only the values {', '.join(values)}: {expected.remedy}")


def bundled_layouts() -> tuple[str, ...]:
    """List the names of the bundled layouts."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


@cache
def load_layout(name: str) -> Layout:
    """Read a bundled layout. Raises DataError if there is none of that name."""
    known = bundled_layouts()
    if name not in known:
        raise DataError(f"there is no layout '{name}'{did_you_mean(name, known)}; the layouts are {', '.join(known)}")
    return Layout.model_validate(tomllib.loads((FOLDER / f"{name}.toml").read_text()))


def with_layout(data_set: DataSet) -> DataSet:
    """Return the data set with its layout's settings added. Its own settings take precedence; schemes are merged one by one.

    Raises DataError for an unknown layout.
    """
    if data_set.layout is None:
        return data_set
    layout = load_layout(data_set.layout)
    defaults = layout.model_dump(include=set(Format.model_fields), exclude_unset=True)
    own = data_set.model_dump(exclude_unset=True)
    return DataSet.model_validate(defaults | own | {"schemes": defaults["schemes"] | own.get("schemes", {})})
