"""Columns of the input that stand in every output row (`--keep-columns`): their names, their types, and the IDs of rows.

The way of the values:

1. A source reads them in record batches (`Keep.batch`). An `Item` refers to its row of one.
2. `pipeline/inputs/manifest.py` gathers them, a table for some thousands of items, and gives each row its `row_id`: a hash of the image's
   ID and the values. Rows that earlier runs wrote are left out by it. The others are in the manifest with both, the values as one struct.
3. The operators load, annotate and write images without them. A block fetches an image once, however many of its rows name it.
4. `pipeline/stages/merge.py` compares each block with its part of the manifest, and puts the values of each row beside its annotation.
5. Later runs read `row_id` from the table, to know rows; runs from embeddings read the columns as well, to keep them.
"""

import hashlib
import json
import re
import threading
from collections.abc import Collection, Sequence
from itertools import chain, islice

import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.table.schema import RESERVED, Tables
from ugrie.schemes.scheme import bundled_schemes
from ugrie.text import did_you_mean

FORBIDDEN = re.compile(r"[\s,;{}()=.]")  # in names of output columns: Spark and Delta take none of these but the dot, which SQL splits at
MAX_ROW_BYTES = 2**16  # of a row's kept values, as JSON
SHOWN = 20  # keys that a message names


class Keep:
    """The columns of the input to keep: `columns` has their names in the input by their names in the table.

    All files of an input must have the columns in the types of the first.
    """

    def __init__(self, entries: Sequence[str] = ()):
        """Read entries of `--keep-columns`, such as `post=id`. Raises UserError."""
        self.columns: dict[str, str] = {}
        self.types: pa.Schema = pa.schema([])  # the columns' types in the table, once some rows were read
        self._read: list[pa.DataType] = []  # their types in the rows that were read last
        self._found: set[str] = set()
        self._others: dict[str, None] | None = None  # keys of JSON objects that were seen; None if there are no such objects
        self._lock = threading.Lock()
        for entry in entries:
            new, given, old = (part.strip() for part in entry.partition("="))
            if not new or (given and not old):
                raise UserError(f"keep_columns: '{entry}' is no column: give names, or new=old, such as post_id,author=user_id")
            if FORBIDDEN.search(new):
                raise UserError(
                    f"keep_columns: '{new}' can't be a column of the table: give it a plain name by new=old, such as post={new}"
                )
            if new.casefold() in map(str.casefold, self.columns):
                raise UserError(f"keep_columns names two columns '{new}': rename one by new=old")
            self.columns[new] = old or new

    def __bool__(self) -> bool:
        return bool(self.columns)

    def batch(self, columns: Sequence[pa.Array], name: str) -> pa.RecordBatch:
        """Return some rows of the file `name`, given its columns in the order of `columns`.

        Raises UserError if their types differ from those before, and ArrowInvalid if they are broken, such as text that is not in UTF-8.
        """
        for column in columns:
            column.validate(full=True)
        read = [values.type for values in columns]
        if read != self._read:
            self._check(read, name)
            self._read = read
        values = [column if column.type == kind else column.cast(kind) for kind, column in zip(self.types.types, columns, strict=True)]
        return pa.RecordBatch.from_arrays(values, schema=self.types)

    def _check(self, read: Sequence[pa.DataType], name: str) -> None:
        types = pa.schema([pa.field(new, kept_type(kind)) for new, kind in zip(self.columns, read, strict=True)])
        if not self.types:
            self.types = types
        for field, kind, own in zip(self.types, types.types, read, strict=True):
            if field.type != kind and not pa.types.is_null(own):
                differs = f"column '{self.columns[field.name]}' of {name} holds {kind}, and {field.type} in the file before"
                raise UserError(f"keep_columns: {differs}: write both with one type")

    def note(self, keys: Collection[str]) -> None:
        """Note the keys of some JSON objects. Any may be absent from an object, but not from all of them."""
        with self._lock:
            if self._others is None or not self._found.issuperset(self.columns.values()):
                self._found.update(old for old in self.columns.values() if old in keys)
                self._others = dict.fromkeys(islice(chain(self._others or (), keys), SHOWN))

    def check_found(self, uri: str) -> None:
        """Raise UserError where none of the JSON objects of the input `uri` had one of the columns."""
        if self._others is not None:
            for old in self.columns.values():
                if old not in self._found:
                    shown = ", ".join(self._others) or "no keys at all"
                    raise UserError(f"keep_columns: no row of {uri} has '{old}'{did_you_mean(old, self._others)}; they have {shown}")


def check_names(keep: Keep, tables: Tables) -> None:
    """Raise UserError where a column to keep has the name of one that the table has, or may have in other runs."""
    taken = {name.casefold() for name in (*tables.output.names, *RESERVED, *bundled_schemes())}
    for new, old in keep.columns.items():
        if new.casefold() in taken:
            remedy = f"keep it under another name, such as input_{new}={old}"
            raise UserError(f"keep_columns: the table has a column '{new.lower()}' of its own: {remedy}")


def kept_type(kind: pa.DataType) -> pa.DataType:
    """Return the type in which the table keeps a column: its own, without what only Arrow tells apart."""
    types = pa.types
    if types.is_null(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind):
        return pa.binary()
    if types.is_dictionary(kind):
        return kept_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return kept_type(kind.storage_type)
    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, kept_type(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(kept_type(kind.key_type), kept_type(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(kept_type(kind.value_type), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        return pa.list_(pa.field("element", kept_type(kind.value_type)))
    return kind


def row_texts(image_ids: np.ndarray, kept: pa.Table) -> list[bytes]:
    """Return what makes rows different: the image's ID, and the names and values of the kept columns, whatever their order."""
    names = sorted(kept.column_names)
    columns = [kept[name].cast(_json_type(kept.schema.field(name).type)).to_pylist() for name in names]
    dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=bytes.hex).encode
    head = dumps(names)
    return [f"{image_id}\0{head}\0{dumps(values)}".encode() for image_id, *values in zip(image_ids.tolist(), *columns, strict=True)]


def hash_row(text: bytes, repeat: int = 0) -> bytes:
    """Return the 8 bytes of a row's ID: of a row that was listed `repeat` times before, another one each time."""
    return hashlib.blake2b(text, digest_size=8, salt=repeat.to_bytes(8, "little")).digest()


def _json_type(kind: pa.DataType) -> pa.DataType:
    """Return the type whose values are the same in JSON whatever the version of Arrow: numbers for times, text for decimals."""
    types = pa.types
    if types.is_date32(kind) or types.is_time32(kind):
        return pa.int32()
    if types.is_temporal(kind):
        return pa.int64()
    if types.is_decimal(kind):
        return pa.string()
    if types.is_float16(kind):
        return pa.float32()
    if types.is_struct(kind):
        return pa.struct([pa.field(field.name, _json_type(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_json_type(kind.key_type), _json_type(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(_json_type(kind.value_type), kind.list_size)
    if types.is_list(kind):
        return pa.list_(_json_type(kind.value_type))
    return kind
