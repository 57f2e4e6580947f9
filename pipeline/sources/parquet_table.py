"""Images in the rows of a Parquet file: URIs or image bytes in a column. Columns to keep are read along, some thousands of rows at once."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import compress
from typing import IO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.inputs.item import Item, Kept
from pipeline.inputs.kinds import PARQUET, kind_of
from pipeline.inputs.parquet_pages import CheckedColumns, PageTooLargeError, column_batches, column_index, values_at
from pipeline.inputs.sniff import HEAD, what_it_is
from pipeline.sources.data_file import DataFile, repeated
from pipeline.sources.text_table import check_column
from pipeline.sources.uri_table import uri_items
from pipeline.storage.files import open_file
from pipeline.table.kept_columns import Keep

MAX_PAGE = 64 * 2**20  # bytes that pages may take
ROWS = 4096  # read at once
BUFFER = 2**20  # bytes that Arrow reads at once, unless a page is larger


def parquet_items(fs: fsspec.AbstractFileSystem, data: DataFile, column: str, name: str, keep: Keep) -> Iterator[Item]:
    """List the images of a Parquet file, called `name`, in the order of its rows. Raises UserError."""
    with open_file(fs, data.file.name, data.file.info, ahead=BUFFER) as file:
        try:
            yield from _Rows(fs, file, data, column, name, keep)
        except PageTooLargeError as error:
            raise UserError(f"{name} can't be read as a table: {error}; write it with less in a page, or name another column") from None
        except (pa.ArrowException, UnicodeDecodeError) as error:
            file.seek(0)
            head = file.read(HEAD)
            if not head.startswith(b"PAR1") and (found := what_it_is(head)) is not None:
                raise UserError(f"{name} is {found}") from None
            raise UserError(f"{name} can't be read as a table: {str(error).partition(chr(10))[0] or type(error).__name__}") from None


def divided(fs: fsspec.AbstractFileSystem, data: DataFile, rows: int) -> list[DataFile]:
    """Divide a Parquet file into ranges of its row groups, each of so many rows or of a single group. A broken file stays whole."""
    try:
        with open_file(fs, data.file.name, data.file.info, ahead=BUFFER) as file:
            metadata = pq.read_metadata(file)
    except (OSError, pa.ArrowException):
        return [data]  # whoever lists it says what is wrong
    starts, size = [0], 0
    for group in range(metadata.num_row_groups):
        if size and size + metadata.row_group(group).num_rows > rows:
            starts.append(group)
            size = 0
        size += metadata.row_group(group).num_rows
    ends = [*starts[1:], metadata.num_row_groups]
    return [replace(data, groups=range(start, end)) for start, end in zip(starts, ends, strict=True)]


class _Rows:
    """The images of an open file. Raises UserError."""

    def __init__(self, fs: fsspec.AbstractFileSystem, file: IO[bytes], data: DataFile, column: str, name: str, keep: Keep):
        self.fs, self.data, self.name, self.keep = fs, data, name, keep
        self.pages = CheckedColumns(file, MAX_PAGE)
        self.parquet = pq.ParquetFile(self.pages, pre_buffer=False, buffer_size=BUFFER)
        schema = self.parquet.schema_arrow
        self.images = self._own(column, schema)
        if self.images is not None:
            check_images(self.images, column, name)
        self.has_bytes = self.images is not None and _is_bytes(self.images.type)
        if self.has_bytes and kind_of(data.file.name) != PARQUET:
            raise UserError(f"{name} holds images, and is not named .parquet: rewrite the table with such names")
        self.kept = {old: self._own(old, schema, "--keep-columns") for old in data.read(keep)}
        if column in self.kept and self.has_bytes:
            raise UserError(f"keep_columns: column '{column}' of {name} holds the images: leave it out")

    def _own(self, column: str, schema: pa.Schema, flag: str = "--column") -> pa.Field | None:
        """Return the file's field for a column of the table, or None where the file was written without it."""
        if self.data.columns is not None:
            return self.data.columns.find(column, schema)
        others = [each for each in self.data.given if each not in schema.names] if flag != "--column" else []
        check_column(column, [*schema.names, *others], self.name, flag)
        return schema.field(column)

    def __iter__(self) -> Iterator[Item]:
        start = 0
        for group in range(self.parquet.metadata.num_row_groups):
            rows = self.parquet.metadata.row_group(group).num_rows
            asked = self.data.groups is None or group in self.data.groups
            if asked and ((alive := self.data.alive(start, rows)) is None or alive.any()):
                yield from self._of_group(group, start, rows)
            start += rows

    def _of_group(self, group: int, start: int, rows: int) -> Iterator[Item]:
        """List the images of a row group of so many rows, the first of which is the row `start` of the file."""
        uris: str | None = None
        is_uri = True
        if self.images is not None:
            uris = self.images.name
            if self.has_bytes:
                nulls = self._nulls(group, uris) if _has_paths(self.images.type) else 0
                # Where no row has bytes, the paths are URIs like any others. Else a path is read for a row that turns out to have none.
                uris, is_uri = f"{uris}.path" if nulls != 0 else None, nulls == rows
        own = [field.name for field in self.kept.values() if field is not None]
        paths = list(dict.fromkeys([*([uris] if uris else []), *own]))
        read = column_batches(self.parquet, self.pages, group, paths, ROWS) if paths else _chunks(rows)
        for batch in read:
            items = self._without_kept(batch, start, uris, is_uri)
            if self.keep:
                kept = self.data.kept(self.keep, self._values(batch), len(batch), self.name)
                items = (item._replace(kept=Kept(kept, i)) for i, item in enumerate(items))
            alive = self.data.alive(start, len(batch))
            yield from items if alive is None else compress(items, alive)
            start += len(batch)

    def _without_kept(self, batch: pa.RecordBatch, start: int, uris: str | None, is_uri: bool) -> Iterator[Item]:
        """Return an item for each row of a batch whose first is the row `start`; `uris` is the column of URIs, or of paths beside bytes."""
        table = self.data.file
        named = table.name if self.data.base is None else f"{self.data.base}/"
        listed = uri_items(values_at(batch, uris).to_pylist() if uris else [None] * len(batch), named, self.fs)
        if not self.has_bytes or (uris and is_uri):
            return listed
        items = (Item(f"{self.name}!/{row}", None, table.version, table.name, row) for row in range(start, start + len(batch)))
        return map(_with_path, items, listed) if uris else items

    def _values(self, batch: pa.RecordBatch) -> Iterator[pa.Array]:
        """Yield the columns to keep of a batch, those that are in the file or ought to be."""
        columns = self.data.columns
        for old in self.data.read(self.keep):
            own = self.kept[old]
            if columns is None:
                yield batch.column(old)
            elif own is None:
                kind = columns.schema.field(old).type
                yield repeated(self.data.missing.get(old, pa.scalar(None, kind)), len(batch))
            else:
                yield columns.conform(batch.column(own.name), own, old)

    def _nulls(self, group: int, images: str) -> int | None:
        """Return how many rows of a row group have no bytes; None if its footer doesn't say."""
        column = column_index(self.parquet, f"{images}.bytes")
        statistics = self.parquet.metadata.row_group(group).column(column).statistics
        return statistics.null_count if statistics is not None and statistics.has_null_count else None


def _chunks(rows: int) -> Iterator[pa.RecordBatch]:
    """Yield batches without columns, of so many rows together."""
    for start in range(0, rows, ROWS):
        yield pa.RecordBatch.from_struct_array(pa.array([{}] * min(ROWS, rows - start), pa.struct([])))


def _with_path(item: Item, path: Item) -> Item:
    return item._replace(link=path.link or path.uri or None)


def check_columns(schema: pa.Schema, column: str, name: str, keep: Keep) -> None:
    """Raise UserError where the table `name` lacks the column of its images or one to keep, or has no images there."""
    check_column(column, schema.names, name)
    check_images(schema.field(column), column, name)
    for old in keep.columns.values():
        check_column(old, schema.names, name, "--keep-columns")


def check_images(field: pa.Field, column: str, name: str) -> None:
    """Raise UserError where the field of a column holds neither URIs nor image bytes."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not (_is_text(kind) or _is_bytes(field.type)):
        raise UserError(f"column '{column}' of {name} holds {field.type}, neither URIs nor image bytes: name another with --column")


def _is_bytes(kind: pa.DataType) -> bool:
    """Return whether a column holds image bytes, or the struct of `bytes` and `path` in which Hugging Face datasets keep images."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _has_paths(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 and _is_text(kind.field("path").type)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
