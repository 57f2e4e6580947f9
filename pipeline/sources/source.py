"""Input source: find out what `--input` names, and list its images.

It is a folder, a prefix, a glob or a single file. What its files are is decided by their names (`kinds.py`):

- if there are images, they are the input. A file that is not an image, against its name, becomes a row with that status;
- else if there are .tar shards, their members are;
- else what the tables list or hold is, which must be of one kind.

Files of another kind, such as a README beside tables, are left out and counted. So are hidden ones, known markers and the output's own.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain

import fsspec
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import StorageError, UserError
from pipeline.inputs.file_listing import FileListing, left_out_text
from pipeline.inputs.item import Item, escaped
from pipeline.inputs.kinds import IMAGE, SHARD, choose
from pipeline.inputs.own_folders import own_folders
from pipeline.sources.tar import tar_items
from pipeline.sources.uri_table import table_items
from pipeline.storage.filesystem import Options, connect, protocol_names
from pipeline.storage.listing import File
from pipeline.storage.retry import transient_errors
from pipeline.storage.spelling import ALIASES, plain
from pipeline.storage.uris import public_message, without_secrets
from pipeline.table.kept_columns import Keep


def list_items(
    uri: str,
    column: str,
    options: Options,
    left_out: Counter[str] | None = None,
    output: str | None = None,
    keep: Keep | None = None,
) -> Iterator[Item]:
    """List the images of a source in the order of their paths; `column` is that of a table's URIs or image bytes.

    Counts in `left_out`, by reason, what is not listed, such as the own files of the run's `output`. With columns to `keep`, it lists the
    rows of a table, or the samples of shards, with their values.
    Raises UserError where the source is empty or can't be read.
    """
    fs, path = connect(uri, options)
    if isinstance(fs, LocalFileSystem):
        path = plain(path)
    listing = FileListing(fs, without_secrets(uri), options, Counter() if left_out is None else left_out)
    if output is not None:
        listing.skip = own_folders(fs, path, uri, output, options)
    empty = True
    try:
        for item in _items(listing, path, uri.endswith("/"), column, keep or Keep()):
            empty = False
            yield item
    except Exception as error:
        if not isinstance(error, (OSError, StorageError, *transient_errors())):
            raise
        raise UserError(f"{listing.uri} can't be read: {public_message(error, options)}; check the file and the credentials") from None
    if empty:
        but = f", only {left_out_text(listing.left_out)}" if listing.left_out else ""
        raise UserError(f"{listing.uri} holds no images{but}")


def allowed_protocols(uri: str, extra: tuple[str, ...]) -> frozenset[str]:
    """Return the protocols that URIs of a source may have: the source's own by all its names (s3, s3a), and what the user allows."""
    return frozenset({*protocol_names(uri), *(ALIASES.get(name.lower(), name.lower()) for name in extra)})


def _items(listing: FileListing, path: str, is_prefix: bool, column: str, keep: Keep) -> Iterator[Item]:
    kind, chosen = choose(listing.files(path, is_prefix), listing.left_out)
    if kind == IMAGE:
        if keep:
            remedy = "name a table of URIs, Parquet with image bytes, or .tar shards with a .json beside each image, or leave it out"
            raise UserError(f"keep_columns: {listing.uri} holds images, which have no columns: {remedy}")
        return _images(listing.fs, chosen)
    containers = list(chosen)
    for file in containers:
        if (name := escaped(file.name)) != file.name:
            raise UserError(f"{without_secrets(name)}: this path is not UTF-8: rename it, since the URIs of what it holds begin with it")
    if kind == SHARD:
        return tar_items(listing.fs, containers, listing.left_out, keep)
    listing.refuse_tables(containers)
    return chain.from_iterable(table_items(listing.fs, table, column, keep) for table in containers)


def _images(fs: fsspec.AbstractFileSystem, files: Iterator[File]) -> Iterator[Item]:
    """Return an item for each file."""
    prefix = None
    for name, size, version in files:
        if prefix is None:
            prefix = fs.unstrip_protocol(name).removesuffix(name)  # such as s3://: the same for all files of a storage
        uri = f"{prefix}{name}"
        if not uri.isascii():
            uri = escaped(uri)  # a local name that is not UTF-8 can't be fetched by it: its row will have the status "missing"
        item = Item(uri, size, version)
        yield item.redacted() if "@" in uri or "?" in uri else item  # others hold no secret
