"""Images listed in a table: URIs in a column of Parquet or of a table of text, or image bytes in a column of Parquet.

Columns to keep are read along, some thousands of rows at once.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import IO
from urllib.parse import urljoin

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.inputs.item import Item, Kept
from pipeline.inputs.kinds import PARQUET, kind_of
from pipeline.inputs.parquet_pages import CheckedColumns, PageTooLargeError, column_batches, column_index, values_at
from pipeline.inputs.sniff import HEAD, what_it_is
from pipeline.sources.text_table import check_column, text_rows
from pipeline.storage.files import open_file
from pipeline.storage.libraries import is_http
from pipeline.storage.listing import File
from pipeline.storage.spelling import canonical
from pipeline.storage.uris import without_secrets
from pipeline.table.kept_columns import Keep

FILE = re.compile(r"(?i)\s*(?:file|local):/")  # a URI, though it has no ://
DOTS = re.compile(r"(^|/)(?:\./)+")  # of ./a.jpg
MAX_URI = 2**16  # characters
MAX_PAGE = 64 * 2**20  # bytes that pages may take
ROWS = 4096  # read at once
TEXT = 16 * 2**20  # characters of a table of text, read at once where columns are kept
BUFFER = 2**20  # bytes that Arrow reads at once, unless a page is larger
READ_AHEAD = 8 * 2**20  # bytes of a table of text


def table_items(fs: fsspec.AbstractFileSystem, table: File, column: str, keep: Keep) -> Iterator[Item]:
    """List the images of a table, in the order of its rows.

    Raises UserError where the table can't be read, `column` is missing or holds neither URIs nor (in Parquet) image bytes, or a column to
    keep is missing.
    """
    name = without_secrets(fs.unstrip_protocol(table.name))
    kind = kind_of(table.name)
    with open_file(fs, table.name, table.info, ahead=BUFFER if kind == PARQUET else READ_AHEAD) as file:
        if kind != PARQUET:
            rows = text_rows(file, kind, column, name, keep)
            if keep:
                yield from _with_kept(rows, table.name, fs, name, keep)
            else:
                yield from uri_items((value for value, *_ in rows), table.name, fs)
            return
        try:
            yield from _parquet_items(fs, file, table, column, name, keep)
        except PageTooLargeError as error:
            raise UserError(f"{name} can't be read as a table: {error}; write it with less in a page, or name another column") from None
        except (pa.ArrowException, UnicodeDecodeError) as error:
            file.seek(0)
            head = file.read(HEAD)
            if not head.startswith(b"PAR1") and (found := what_it_is(head)) is not None:
                raise UserError(f"{name} is {found}") from None
            raise UserError(f"{name} can't be read as a table: {str(error).partition(chr(10))[0] or type(error).__name__}") from None


def _with_kept(rows: Iterator[Sequence[str | None]], table: str, fs: fsspec.AbstractFileSystem, name: str, keep: Keep) -> Iterator[Item]:
    """Return an item for each row of a table of text, given by its URI and its values to keep."""
    while chunk := list(_some(rows)):
        uris, *columns = zip(*chunk, strict=True)
        kept = keep.batch([pa.array(values, pa.string()) for values in columns], name)
        for i, item in enumerate(uri_items(uris, table, fs)):
            yield item._replace(kept=Kept(kept, i))


def _some(rows: Iterator[Sequence[str | None]]) -> Iterator[Sequence[str | None]]:
    size = 0
    for row in islice(rows, ROWS):
        yield row
        size += sum(map(len, filter(None, row)))
        if size > TEXT:
            return


def _parquet_items(fs: fsspec.AbstractFileSystem, file: IO[bytes], table: File, column: str, name: str, keep: Keep) -> Iterator[Item]:
    pages = CheckedColumns(file, MAX_PAGE)
    parquet = pq.ParquetFile(pages, pre_buffer=False, buffer_size=BUFFER)
    kind = _field(parquet.schema_arrow, column, name).type
    for old in keep.columns.values():
        check_column(old, parquet.schema_arrow.names, name, "--keep-columns")
        if old == column and _is_bytes(kind):
            raise UserError(f"keep_columns: column '{column}' of {name} holds the images: leave it out")
    start = 0
    for group in range(parquet.metadata.num_row_groups):
        end = start + parquet.metadata.row_group(group).num_rows
        uris: str | None = column
        is_uri = True
        if _is_bytes(kind):
            nulls = _nulls(parquet, group, column) if _has_paths(kind) else 0
            # Where no row has bytes, the paths are URIs like any others. Else a path is read for a row that turns out to have none.
            uris, is_uri = f"{column}.path" if nulls != 0 else None, nulls == end - start
        paths = list(dict.fromkeys([*([uris] if uris else []), *keep.columns.values()]))
        rows = (Item(f"{name}!/{row}", None, table.version, table.name, row) for row in range(start, end))
        for batch in column_batches(parquet, pages, group, paths, ROWS) if paths else ():
            items: Iterator[Item] = islice(rows, len(batch))
            if uris is not None:
                listed = uri_items(values_at(batch, uris).to_pylist(), table.name, fs)
                items = listed if is_uri else map(_with_path, items, listed)
            if keep:
                kept = keep.batch([batch.column(old) for old in keep.columns.values()], name)
                items = (item._replace(kept=Kept(kept, i)) for i, item in enumerate(items))
            yield from items
        if not paths:
            yield from rows
        start = end


def _nulls(parquet: pq.ParquetFile, group: int, column: str) -> int | None:
    """Return how many rows of a row group have no bytes; None if its footer doesn't say."""
    statistics = parquet.metadata.row_group(group).column(column_index(parquet, f"{column}.bytes")).statistics
    return statistics.null_count if statistics is not None and statistics.has_null_count else None


def _with_path(item: Item, path: Item) -> Item:
    return item._replace(link=path.link or path.uri or None)


def _field(schema: pa.Schema, column: str, name: str) -> pa.Field:
    """Return the column's field. Raises UserError where it is missing, ambiguous, or holds neither URIs nor image bytes."""
    check_column(column, schema.names, name)
    field = schema.field(column)
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not (_is_text(kind) or _is_bytes(field.type)):
        raise UserError(f"column '{column}' of {name} holds {field.type}, neither URIs nor image bytes: name another with --column")
    return field


def _is_bytes(kind: pa.DataType) -> bool:
    """Return whether a column holds image bytes, or the struct of `bytes` and `path` in which Hugging Face datasets keep images."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _has_paths(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and kind.get_field_index("path") >= 0 and _is_text(kind.field("path").type)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def uri_items(values: Iterable[str | None], table: str, fs: fsspec.AbstractFileSystem) -> Iterator[Item]:
    """Return an item for each URI of a table. A path without a protocol is relative to the folder of `table`, the table's path.

    A missing URI is an item too, with an empty `uri`. Raises UserError for a URI of more than MAX_URI characters.
    """
    folder = posixpath.dirname(table)
    for value in values:
        if value is None or not value.strip():
            yield Item("")
        elif len(value) > MAX_URI:
            raise UserError(f"{without_secrets(table)} holds a URI of {len(value)} characters: name the column of URIs with --column")
        elif "://" in value or FILE.match(value):
            yield Item(canonical(value)).redacted()
        elif is_http(fs):
            yield Item(_joined(table, value.strip())).redacted()
        else:
            yield Item(canonical(fs.unstrip_protocol(posixpath.join(folder, DOTS.sub(r"\1", value.strip()))))).redacted()


def _joined(table: str, link: str) -> str:
    """Return a relative link as one from the table's page, or below its folder where it is no link that can be taken so."""
    try:
        return urljoin(table, link)
    except ValueError:  # such as //[x
        return posixpath.join(posixpath.dirname(table.partition("?")[0]), link.lstrip("/"))
