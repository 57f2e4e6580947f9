"""One image of the input, as every kind of source lists it."""

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

import pyarrow as pa

from pipeline.storage.uris import without_secrets


class Kept(NamedTuple):
    """The values of an item's kept columns: those at `position` in a record batch that many items share."""

    rows: pa.RecordBatch
    position: int


class Item(NamedTuple):
    """One image: its URI, and its size in bytes and its version, where the listing states them.

    An image within a file has the file's path as `container`, and as `position` its first byte in a .tar or its row in a Parquet file.
    `uri` holds no secrets: a link that needs some to be fetched, such as a signature, is in `link`.
    `image_id` is set only for an image that a table of ours lists already; otherwise the ID follows from `uri` and `version`.
    `kept` is set where columns of the input are kept (`pipeline.table.kept_columns`).
    """

    uri: str
    size: int | None = None
    version: str = ""
    container: str | None = None
    position: int | None = None
    link: str | None = None
    image_id: int | None = None
    kept: Kept | None = None

    def redacted(self) -> "Item":
        """Return the item without secrets in `uri`; a URI that has some is kept whole in `link`."""
        uri = without_secrets(self.uri)
        return self if uri == self.uri else self._replace(uri=uri, link=self.uri)


def kept_rows(items: Sequence[Item]) -> pa.Table:
    """Return the kept values of items that have some, a row for each."""
    found = []
    for _, group in groupby((item.kept for item in items if item.kept is not None), key=lambda kept: id(kept.rows)):
        shared = list(group)
        found.append(shared[0].rows.take(pa.array([kept.position for kept in shared], pa.int64())))
    return pa.Table.from_batches(found).combine_chunks()


def escaped(name: str) -> str:
    """Return a file's name with the bytes that are not UTF-8 escaped (`caf\\xe9.jpg`)."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")
