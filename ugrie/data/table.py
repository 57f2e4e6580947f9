"""A data set as a table: columns as its files state them, and the images or their embeddings.

`ugrie.data.readers` makes it from files, `ugrie.data.targets` turns its columns into targets.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from ugrie.errors import GivenError
from ugrie.text import did_you_mean

Image = Path | bytes
"""An encoded image: a file, or the bytes of one."""


@dataclass(frozen=True)
class Picked(Sequence[Image]):
    """Selected rows of a sequence of images. An image is read only when it is accessed."""

    images: Sequence[Image]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | Sequence[Image]:
        return Picked(self.images, self.rows[index]) if isinstance(index, slice) else self.images[self.rows[index]]


class DataError(GivenError):
    """A data set that can't be read as its recipe states. The message names the file and the column or value."""


@dataclass(frozen=True)
class Table:
    """n images and their columns.

    `source` is the file or folder that errors name. Each of `columns` is [n]. `images` are files or bytes, or float32 [n, dim] if
    the data set brings embeddings. `names` [n] identify the images in messages.
    """

    source: Path
    columns: Mapping[str, np.ndarray]
    images: Sequence[Image] | np.ndarray
    names: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def column(self, name: str) -> np.ndarray:
        """Return a column [n]. Raises DataError if it is missing."""
        return column(self.columns, name, self.source)

    def take(self, rows: np.ndarray) -> "Table":
        images = self.images[rows] if isinstance(self.images, np.ndarray) else Picked(self.images, rows)
        return Table(self.source, {name: values[rows] for name, values in self.columns.items()}, images, self.names[rows])


def as_embeddings(values: np.ndarray, source: Path) -> np.ndarray:
    """Return a data set's embeddings as float32 [n, dim]. Raises DataError if they are not finite floating-point rows."""
    if values.ndim != 2 or values.dtype.kind != "f":
        raise DataError(
            f"{source}: `embedding` is {values.dtype} {list(values.shape)}: embeddings are floating-point numbers [images, dim]"
        )
    if not np.isfinite(values).all():
        raise DataError(f"{source}: row {np.flatnonzero(~np.isfinite(values).all(1))[0]} of `embedding` is not finite")
    return values.astype(np.float32)


def with_files(source: Path, columns: Mapping[str, np.ndarray], folder: Path, file: str) -> Table:
    """Return a table whose images are files in a folder, named by the column `file` or by a pattern of columns ("{ID}.jpg").

    Raises DataError if a file is missing.
    """
    if "{" in file:
        used = [column(columns, name, source) for name in re.findall(r"{([^{}]*)}", file)]
        pieces = re.split(r"{[^{}]*}", file)
        names = np.array(
            ["".join(p + v for p, v in zip(pieces, [*values, ""], strict=True)) for values in zip(*used, strict=True)], dtype=str
        )
    else:
        names = column(columns, file, source).astype(str)
    images = [folder / name for name in names]
    missing = [name for name, image in zip(names, images, strict=True) if not image.is_file()]
    if missing:
        raise DataError(f"{source}: {len(missing)} of {len(names)} images are not in {folder}: {some(missing)}")
    return Table(source, columns, images, names)


def column(columns: Mapping[str, np.ndarray], name: str, source: Path) -> np.ndarray:
    """Return a column [n] by name. Raises DataError if it is missing."""
    if name not in columns:
        raise DataError(f"{source} has no column '{name}'{did_you_mean(name, columns)}; it has {', '.join(columns)}")
    return columns[name]


def some(names: Sequence[str]) -> str:
    """List the first three of many names."""
    return ", ".join(f"'{name}'" for name in names[:3]) + (", …" if len(names) > 3 else "")
