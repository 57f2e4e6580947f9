"""A file of a table, and what is stated about its rows elsewhere: by the names of its folders, or by the log of a table format.

A table of Delta or Iceberg may have other columns than a file that was written earlier: some were renamed, added, or made wider.
`TableColumns` finds those of the table in such a file, and gives its values the table's types.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import fsspec
import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.storage.files import list_with_retries
from pipeline.storage.listing import File, file_of
from pipeline.table.kept_columns import Keep

FIELD_ID = b"PARQUET:field_id"  # of a field's metadata, as pyarrow reads it
NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table whose files may have others. A column and its fields have the same `key` in the table and in a file.

    `identify` gives a file's fields what `key` needs, if they lack it.
    """

    schema: pa.Schema
    key: Callable[[pa.Field], str | int | None]
    identify: Callable[[pa.Schema], pa.Schema] = lambda file: file

    def find(self, column: str, file: pa.Schema) -> pa.Field | None:
        """Return the field of a file that holds a column of the table, or None if the file has none."""
        wanted = self.key(self.schema.field(column))
        return next((own for own in self.identify(file) if wanted is not None and self.key(own) == wanted), None)

    def conform(self, values: pa.Array, own: pa.Field, column: str) -> pa.Array:
        """Return values of the field `own` of a file as a column of the table. Raises ArrowInvalid where they can't be."""
        return self._conform(values, own.type, self.schema.field(column).type)

    def _conform(self, values: pa.Array, own: pa.DataType, wanted: pa.DataType) -> pa.Array:
        if not (pa.types.is_nested(wanted) and pa.types.is_nested(own)):
            return values.cast(wanted)
        if len(values) and values.offset:
            values = values.take(pa.array(np.arange(len(values))))  # whose parts begin at their first
        nulls = values.is_null() if values.null_count else None
        if pa.types.is_struct(wanted):
            places = {self.key(each): i for i, each in enumerate(own)}
            parts = []
            for each in wanted:
                i = places.get(self.key(each))
                parts.append(
                    pa.nulls(len(values), each.type) if i is None else self._conform(values.field(i), own.field(i).type, each.type)
                )
            return pa.StructArray.from_arrays(parts, fields=list(wanted), mask=nulls)
        if pa.types.is_map(wanted):
            keys = self._conform(values.keys, own.key_type, wanted.key_type)
            items = self._conform(values.items, own.item_type, wanted.item_type)
            return pa.MapArray.from_arrays(values.offsets, keys, items, type=wanted, mask=nulls)
        if pa.types.is_large_list(own):
            values = values.cast(pa.list_(own.value_field))
        elements = self._conform(values.values, own.value_type, wanted.value_type)
        kind = pa.LargeListArray if pa.types.is_large_list(wanted) else pa.ListArray
        offsets = values.offsets.cast(pa.int64()) if pa.types.is_large_list(wanted) else values.offsets
        return kind.from_arrays(offsets, elements, type=wanted, mask=nulls)


class StoredColumn(NamedTuple):
    """By what the files of a table know a column: the ID that its field has, or where a file states no such ID, its name."""

    name: str
    field_id: int | None = None


@dataclass(frozen=True)
class DataFile:
    """A file of a table. Every row has the values `given` in these columns, whatever the file holds.

    `deleted` are the numbers of rows that the table no longer has, ascending. `columns` are those of the table; None: the file's own.
    Relative URIs are relative to the folder `base`; None: the file's own. Where the file lacks a column, its values are those in `missing`.
    `groups` are the row groups of a Parquet file that are read; None: all.
    """

    file: File
    given: Mapping[str, pa.Scalar] = field(default_factory=dict)
    deleted: np.ndarray = field(default_factory=lambda: NO_ROWS)
    columns: TableColumns | None = None
    base: str | None = None
    missing: Mapping[str, pa.Scalar] = field(default_factory=dict)
    groups: range | None = None

    def read(self, keep: Keep) -> list[str]:
        """Return which columns to keep are read from the file, in their order."""
        return [old for old in keep.columns.values() if old not in self.given]

    def kept(self, keep: Keep, read: Iterable[pa.Array], rows: int, name: str) -> pa.RecordBatch:
        """Return some rows' values to keep, given those that were `read` from the file, which is called `name`."""
        others = iter(read)
        return keep.batch([repeated(self.given[old], rows) if old in self.given else next(others) for old in keep.columns.values()], name)

    def alive(self, start: int, rows: int) -> np.ndarray | None:
        """Return which of the rows from `start` on the table still has, as booleans, or None if it has all."""
        low, high = np.searchsorted(self.deleted, [start, start + rows])
        if low == high:
            return None
        alive = np.ones(rows, bool)
        alive[self.deleted[low:high] - start] = False
        return alive


def field_id_of(field: pa.Field) -> int | None:
    """Return the ID that a field has in Parquet, if any."""
    stated = (field.metadata or {}).get(FIELD_ID)
    return None if stated is None else int(stated)


def listed_file(fs: fsspec.AbstractFileSystem, path: str, name: str) -> File:
    """Look up a file that the log of the table `name` lists. Raises UserError where it is gone."""
    try:
        return file_of(list_with_retries(fs, path, lambda: fs.info(path)))
    except FileNotFoundError:
        raise UserError(f"{name} lists a file that is gone: {path}; restore it, or read a version that is not vacuumed") from None


def repeated(value: pa.Scalar, rows: int) -> pa.Array:
    """Return a column of one value."""
    return pa.repeat(value, rows) if value.is_valid else pa.nulls(rows, value.type)
