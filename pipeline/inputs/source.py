"""Input source: find out what `--input` names, and list its images.

It is a folder, a prefix, a glob or a single file. Every file of a folder is an image, except hidden ones, known markers and the output's
own, which are counted; a file that is not an image becomes a row with that status. A folder that holds only .tar files is
read as shards, one that holds only .parquet files as a table, and a single .parquet, .csv or .jsonl file as a table too.
"""

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain

import fsspec

from pipeline.errors import StorageError, UserError
from pipeline.inputs import uri_table
from pipeline.inputs.file_listing import FileListing, left_out_text, message
from pipeline.inputs.item import Item, escaped
from pipeline.inputs.own_folders import own_folders
from pipeline.inputs.tar import tar_items
from pipeline.inputs.uri_table import table_items
from pipeline.storage.filesystem import Options, connect, protocol_names
from pipeline.storage.listing import File
from pipeline.storage.retry import TRANSIENT_ERRORS
from pipeline.storage.spelling import ALIASES
from pipeline.storage.uris import without_secrets


def list_items(uri: str, column: str, options: Options, left_out: Counter[str] | None = None, output: str | None = None) -> Iterator[Item]:
    """List the images of a source in the order of their paths; `column` is that of a table's URIs or image bytes.

    Counts in `left_out`, by reason, what is not listed, such as the own files of the run's `output`.
    Raises UserError where the source is empty or can't be read.
    """
    fs, path = connect(uri, options)
    listing = FileListing(fs, without_secrets(uri), options, Counter() if left_out is None else left_out)
    if output is not None:
        listing.skip = own_folders(fs, path, uri, output, options)
    empty = True
    try:
        for item in _items(fs, listing.files(path, is_prefix=uri.endswith("/")), column, listing.left_out):
            empty = False
            yield item
    except (OSError, StorageError, *TRANSIENT_ERRORS) as error:
        raise UserError(f"{listing.uri} can't be read: {message(error, options)}; check the file and the credentials") from None
    if empty:
        but = f", only {left_out_text(listing.left_out)}" if listing.left_out else ""
        raise UserError(f"{listing.uri} holds no images{but}")


def allowed_protocols(uri: str, extra: tuple[str, ...]) -> frozenset[str]:
    """Return the protocols that URIs of a source may have: the source's own by all its names (s3, s3a), and what the user allows."""
    return frozenset({*protocol_names(uri), *(ALIASES.get(name.lower(), name.lower()) for name in extra)})


def _items(fs: fsspec.AbstractFileSystem, files: Iterable[File], column: str, left_out: Counter[str]) -> Iterator[Item]:
    """List the images. Files are held back only as long as they may still be shards or a table."""
    files, first, suffixes = iter(files), [], set()
    for file in files:
        first.append(file)
        suffixes.add(posixpath.splitext(file.name)[1].lower())
        if suffixes not in ({".tar"}, {".parquet"}) and not (len(first) == 1 and suffixes <= set(uri_table.SUFFIXES)):
            yield from _images(fs, chain(first, files))
            return
    if suffixes == {".tar"}:
        yield from tar_items(fs, first, left_out)
        return
    for table in first:
        yield from table_items(fs, table, column)


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
