"""Public data sets as their authors publish them: one TOML file each, in `ugrie/data/layouts/`; docs/datasets.md describes them.

A layout is a `Format` (which files, columns, splits and schemes a set has) with where the set is from. A recipe names it, and
says anything the format says where the copy at hand differs:

    [[data]]
    layout = "emoset"
    path = "EmoSet-118K"
"""

import tomllib
from functools import cache
from pathlib import Path

from ugrie.data.format import DataSet, Format
from ugrie.data.table import DataError
from ugrie.text import did_you_mean

FOLDER = Path(__file__).parent / "layouts"


class Layout(Format):
    """How a public data set is read, and where it is from, on which terms and what to cite."""

    title: str
    url: str
    terms: str
    source: str


def bundled_layouts() -> tuple[str, ...]:
    """Names of the data sets whose files are known."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


@cache
def load_layout(name: str) -> Layout:
    """Raises DataError where there is none of that name."""
    known = bundled_layouts()
    if name not in known:
        raise DataError(f"there is no layout '{name}'{did_you_mean(name, known)}; known are {', '.join(known)}")
    return Layout.model_validate(tomllib.loads((FOLDER / f"{name}.toml").read_text()))


def with_layout(data_set: DataSet) -> DataSet:
    """The data set with what its layout knows. What it says itself stands; a scheme it states is added or replaced.

    Raises DataError.
    """
    if data_set.layout is None:
        return data_set
    layout = load_layout(data_set.layout)
    known = layout.model_dump(include=set(Format.model_fields), exclude_unset=True)
    said = data_set.model_dump(exclude_unset=True)
    return DataSet.model_validate(known | said | {"schemes": known["schemes"] | said.get("schemes", {})})
