"""Images that a table names by their URIs: what a URI stands for, and the rows of tables of text.

Columns to keep are read along, some thousands of rows at once.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from urllib.parse import urljoin

import fsspec
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.inputs.item import Item, Kept
from pipeline.inputs.kinds import kind_of
from pipeline.sources.data_file import DataFile
from pipeline.sources.text_table import text_rows
from pipeline.storage.files import open_file
from pipeline.storage.libraries import is_http
from pipeline.storage.spelling import canonical
from pipeline.storage.uris import without_secrets
from pipeline.table.kept_columns import Keep

FILE = re.compile(r"(?i)\s*(?:file|local):/")  # a URI, though it has no ://
DOTS = re.compile(r"(^|/)(?:\./)+")  # of ./a.jpg
MAX_URI = 2**16  # characters
ROWS = 4096  # read at once
TEXT = 16 * 2**20  # characters read at once where columns are kept
READ_AHEAD = 8 * 2**20  # bytes


def text_items(fs: fsspec.AbstractFileSystem, data: DataFile, column: str, name: str, keep: Keep) -> Iterator[Item]:
    """List the images of a table of text, called `name`, in the order of its rows.

    Raises UserError where the table can't be read, or `column` or a column to keep is missing.
    """
    table, kind = data.file, kind_of(data.file.name)
    if keep and kind == "JSON Lines":
        keep.note(data.given)
    with open_file(fs, table.name, table.info, ahead=READ_AHEAD) as file:
        rows = text_rows(file, kind, column, name, keep, data.read(keep))
        if keep:
            yield from _with_kept(rows, fs, data, name, keep)
        else:
            yield from uri_items((value for value, *_ in rows), table.name, fs)


def _with_kept(
    rows: Iterator[Sequence[str | None]], fs: fsspec.AbstractFileSystem, data: DataFile, name: str, keep: Keep
) -> Iterator[Item]:
    """Return an item for each row of a table of text, given by its URI and its values to keep."""
    while chunk := list(_some(rows)):
        uris, *columns = zip(*chunk, strict=True)
        kept = data.kept(keep, [pa.array(values, pa.string()) for values in columns], len(chunk), name)
        for i, item in enumerate(uri_items(uris, data.file.name, fs)):
            yield item._replace(kept=Kept(kept, i))


def _some(rows: Iterator[Sequence[str | None]]) -> Iterator[Sequence[str | None]]:
    size = 0
    for row in islice(rows, ROWS):
        yield row
        size += sum(map(len, filter(None, row)))
        if size > TEXT:
            return


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
