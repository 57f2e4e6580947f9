"""Images listed in a table: URIs in a column of Parquet, CSV or JSON Lines, or image bytes in a column of Parquet."""

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import urljoin

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from fsspec.implementations.http import HTTPFileSystem

from pipeline.errors import UserError
from pipeline.inputs.item import Item
from pipeline.storage.files import open_file
from pipeline.storage.listing import File
from pipeline.storage.spelling import canonical
from pipeline.storage.uris import without_secrets
from ugrie.text import did_you_mean

SUFFIXES = (".parquet", ".csv", ".jsonl")
FILE = re.compile(r"(?i)\s*(?:file|local):/")  # a URI, though it has no ://
DOTS = re.compile(r"(^|/)(?:\./)+")  # of ./a.jpg
MAX_URI = 2**16  # characters
READ_AHEAD = 50 * 2**20  # bytes of a CSV or JSON Lines file, which is read whole
NULL_LINE = re.compile(rb"(?:^|[\r\n])[ \t]*null")  # Arrow's JSON reader crashes where a block of lines begins with it


def table_items(fs: fsspec.AbstractFileSystem, table: File, column: str) -> Iterator[Item]:
    """List the images of a table, in the order of its rows.

    Raises UserError where the table can't be read, or `column` is missing or holds neither URIs nor (in Parquet) image bytes.
    """
    name = without_secrets(fs.unstrip_protocol(table.name))
    list_items = _parquet_items if name.lower().endswith(".parquet") else _text_items
    try:
        yield from list_items(fs, table, column, name)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{name} can't be read as a table: {str(error).partition(chr(10))[0] or type(error).__name__}") from None


def _parquet_items(fs: fsspec.AbstractFileSystem, table: File, column: str, name: str) -> Iterator[Item]:
    with open_file(fs, table.name, table.info) as file:
        parquet = pq.ParquetFile(file)
        if _is_bytes(_field(parquet.schema_arrow, column, name).type):
            for row in range(parquet.metadata.num_rows):
                yield Item(f"{name}!/{row}", None, table.version, table.name, row)
            return
        # Read as a dictionary: a long value that repeats a million times takes its memory once.
        for batch in pq.ParquetFile(file, read_dictionary=[column]).iter_batches(columns=[column]):
            yield from uri_items(batch.column(0), table.name, fs)


def _text_items(fs: fsspec.AbstractFileSystem, table: File, column: str, name: str) -> Iterator[Item]:
    with open_file(fs, table.name, table.info, ahead=READ_AHEAD) as file:
        rows = pyarrow.csv.read_csv(file) if name.lower().endswith(".csv") else _read_json_lines(file.read())
    if _is_bytes(_field(rows.schema, column, name).type):
        raise pa.ArrowInvalid(f"column '{column}' is not in UTF-8")
    for chunk in rows.column(column).chunks:
        yield from uri_items(chunk, table.name, fs)


def _read_json_lines(data: bytes) -> pa.Table:
    if NULL_LINE.search(data):
        raise pa.ArrowInvalid("JSON parse error: a line is null, not an object")
    return pyarrow.json.read_json(pa.BufferReader(data))


def _field(schema: pa.Schema, column: str, name: str) -> pa.Field:
    """Return the column's field. Raises UserError where it is missing, ambiguous, or holds neither URIs nor image bytes."""
    if column not in schema.names:
        close = did_you_mean(column, schema.names)
        raise UserError(f"{name} has no column '{column}'{close}; it has {', '.join(schema.names)}: name one with --column")
    if schema.names.count(column) > 1:
        raise UserError(f"{name} has more than one column '{column}': rename one, or name another with --column")
    field = schema.field(column)
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_bytes(field.type)):
        raise UserError(f"column '{column}' of {name} holds {field.type}, neither URIs nor image bytes: name another with --column")
    return field


def _is_bytes(kind: pa.DataType) -> bool:
    """Return whether a column holds image bytes, or the struct of `bytes` and `path` in which Hugging Face datasets keep images."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def uri_items(column: pa.Array, table: str, fs: fsspec.AbstractFileSystem) -> Iterator[Item]:
    """Return an item for each URI of a column. A path without a protocol is relative to the folder of `table`, the table's path.

    A missing URI is an item too, with an empty `uri`. Raises UserError for a URI of more than MAX_URI characters.
    """
    folder = posixpath.dirname(table)
    for value in _values(column):
        if value is None or not value.strip():
            yield Item("")
        elif len(value) > MAX_URI:
            raise UserError(f"{without_secrets(table)} holds a URI of {len(value)} characters: name the column of URIs with --column")
        elif "://" in value or FILE.match(value):
            yield Item(canonical(value)).redacted()
        elif isinstance(fs, HTTPFileSystem):
            yield Item(urljoin(table, value.strip())).redacted()
        else:
            yield Item(canonical(fs.unstrip_protocol(posixpath.join(folder, DOTS.sub(r"\1", value.strip()))))).redacted()


def _values(column: pa.Array) -> Iterator[str | None]:
    if not pa.types.is_dictionary(column.type):
        return iter(column.to_pylist())
    words = column.dictionary.to_pylist()
    return (None if index is None else words[index] for index in column.indices.to_pylist())
