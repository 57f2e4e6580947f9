"""Reader of Parquet data sets: image bytes, file names or embeddings in one column, labels and ratings in the others.

Image bytes are a binary column, or the struct of `bytes` and `path` that Hugging Face datasets use. From such files, class numbers
are read as their names, and the split in a shard's name (train-00000-of-00004.parquet) as the column `split`. Bytes are read lazily,
one row group at a time, so a data set may be larger than memory.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ugrie.data.format import Format
from ugrie.data.table import DataError, Image, Picked, Table, as_embeddings, with_files
from ugrie.text import did_you_mean

SHARD = re.compile(r"^(\w+)-\d{5}-of-\d{5}")


class ParquetImages(Sequence[Image]):
    """The bytes of the images in one column of several files, in order. A row without an image is empty bytes."""

    def __init__(self, files: Sequence[pq.ParquetFile], column: str):
        self.column = column
        self.groups = [(file, i) for file in files for i in range(file.num_row_groups)]
        self.ends = np.cumsum([0, *(file.metadata.row_group(i).num_rows for file, i in self.groups)])
        self._group, self._bytes = -1, [b""]

    def __len__(self) -> int:
        return int(self.ends[-1])

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | Sequence[Image]:
        if isinstance(index, slice):
            return Picked(self, np.arange(len(self))[index])
        row = range(len(self))[index]
        group = int(np.searchsorted(self.ends, row, side="right")) - 1
        if group != self._group:
            file, i = self.groups[group]
            values = file.read_row_group(i, columns=[self.column]).column(0)
            if pa.types.is_struct(values.type):
                values = pc.struct_field(values, "bytes")
            self._group, self._bytes = group, [value or b"" for value in values.to_pylist()]
        return self._bytes[row - self.ends[group]]


def read_parquet(path: Path, paths: Sequence[Path], form: Format) -> Table:
    """Read the Parquet files `paths` of the data set `path` as one table. Raises DataError."""
    try:
        files = [pq.ParquetFile(file) for file in paths]
        schema = files[0].schema_arrow
        for other, file in zip(paths, files, strict=True):
            if file.schema_arrow.names != schema.names:
                raise DataError(f"{other} has other columns than {paths[0]}")
        parts = [_columns(file, name.name) for file, name in zip(files, paths, strict=True)]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if "embedding" in schema.names:
            lists = [row for file in files for row in file.read(columns=["embedding"]).column(0).to_pylist()]
            return _embedded(path, columns, lists)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} can't be read as Parquet: {str(error).splitlines()[0]}") from None
    if form.file in schema.names and _is_bytes(schema.field(form.file).type):
        images = ParquetImages(files, form.file)
        counts = zip(paths, (file.metadata.num_rows for file in files), strict=True)
        names = [f"{file.name}, row {row}" for file, count in counts for row in range(count)]
        return Table(path, columns, images, np.array(names, dtype=str))
    if "{" not in form.file and form.file not in columns:
        raise DataError(
            f"{path} has no column '{form.file}' of images{did_you_mean(form.file, schema.names)}; it has {', '.join(schema.names)}: "
            "name the column of image bytes or file names as `file`; embeddings must be in the column 'embedding'"
        )
    return with_files(path, columns, (path if path.is_dir() else path.parent) / form.images, form.file)


def _columns(file: pq.ParquetFile, name: str) -> dict[str, np.ndarray]:
    """Return the text and number columns of a file, each [n]. A null is '' or NaN."""
    schema = file.schema_arrow
    classes = _class_names(schema)
    names = [field.name for field in schema if _is_text(field.type) or _is_number(field.type)]
    columns = {}
    for column, values in zip(names, file.read(columns=names).columns, strict=True):
        if column in classes:
            values = pc.take(pa.array(classes[column]), values)
        if _is_number(values.type):
            columns[column] = values.cast(pa.float64()).to_numpy()
        else:
            columns[column] = np.array(values.cast(pa.string()).fill_null("").to_pylist(), dtype=str)
    shard = SHARD.match(name)
    if shard and "split" not in columns:
        columns["split"] = np.full(file.metadata.num_rows, shard.group(1))
    return columns


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the class names that Hugging Face datasets keep in the metadata, by class column; a class number is an index."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    return {
        name: feature["names"] for name, feature in features.items() if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }


def _embedded(path: Path, columns: dict[str, np.ndarray], lists: list[list[float] | None]) -> Table:
    lengths = {len(row or ()) for row in lists}
    if len(lengths) > 1:
        raise DataError(f"{path}: `embedding` has rows of different lengths: {', '.join(map(str, sorted(lengths)))}")
    embeddings = as_embeddings(np.array(lists, np.float32).reshape(len(lists), -1), path)
    return Table(path, columns, embeddings, np.char.add("row ", np.arange(len(lists)).astype(str)))


def _is_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
