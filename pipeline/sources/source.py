"""Input source: find out what `--input` names, and list its images.

It is a folder, a prefix, a glob, a single file, or a table of Delta or Iceberg. What the files of a folder are is decided by their names
(`kinds.py`):

- if there are images, they are the input. A file that is not an image, against its name, becomes a row with that status;
- else if there are .tar shards, their members are;
- else what the tables list or hold is, which must be of one kind.

Files of another kind, such as a README beside tables, are left out and counted. So are hidden ones, known markers and the output's own.
Columns to keep may also be partitions, in the names of folders (`partitions.py`), and those of an image folder's metadata.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice, repeat

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from pipeline.errors import StorageError, UserError
from pipeline.inputs.file_listing import FileListing, left_out_text
from pipeline.inputs.item import Item, Kept, escaped
from pipeline.inputs.kinds import IMAGE, PARQUET, SHARD, choose, kind_of
from pipeline.inputs.own_folders import own_folders
from pipeline.sources import partitions
from pipeline.sources.data_file import DataFile, StoredColumn
from pipeline.sources.delta_table import DeltaSource
from pipeline.sources.iceberg_table import IcebergSource, is_catalog, table_location
from pipeline.sources.image_folder import COLUMN, ImageFolder
from pipeline.sources.parquet_table import parquet_items
from pipeline.sources.table_folders import TableFolder, table_around, table_at
from pipeline.sources.tar import tar_items
from pipeline.sources.uri_table import text_items
from pipeline.storage.filesystem import Options, connect, protocol_names
from pipeline.storage.listing import File
from pipeline.storage.retry import transient_errors
from pipeline.storage.spelling import ALIASES, plain
from pipeline.storage.uris import public_message, without_secrets
from pipeline.table.kept_columns import Keep
from ugrie.text import did_you_mean

ROWS = 4096  # images whose kept values are held together
DEFAULT_COLUMN = "uri"


@dataclass
class Source:
    """An input whose kind is known: `images` that are files themselves (IMAGE), or `files` that hold images or name them.

    `place` is where its files are, a URI; `path` is that in their file system.
    """

    place: str
    path: str
    listing: FileListing
    kind: str
    images: Iterator[File] = field(default_factory=lambda: iter(()))
    files: Iterable[DataFile] = ()
    folder: ImageFolder = field(default_factory=ImageFolder)


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
    keep = keep or Keep()
    source = open_source(uri, column, options, left_out, output, keep)
    empty = True
    with readable(source.listing):
        for item in _items(source, column, keep):
            empty = False
            yield item
    if empty:
        raise no_images(source.listing)


def open_source(
    uri: str, column: str, options: Options, left_out: Counter[str] | None = None, output: str | None = None, keep: Keep | None = None
) -> Source:
    """Find out what a source is, as for `list_items`. Raises UserError."""
    keep = keep or Keep()
    in_catalog = IcebergSource.in_catalog(uri, options) if is_catalog(uri) else None
    place = uri if in_catalog is None else in_catalog.location
    fs, path = connect(place, options)
    if isinstance(fs, LocalFileSystem):
        path = plain(path)
    listing = FileListing(fs, without_secrets(uri), options, Counter() if left_out is None else left_out)
    if output is not None:
        listing.skip = own_folders(fs, path, place, output, options)
    with readable(listing):
        if in_catalog is not None:
            return Source(place, path, listing, PARQUET, files=in_catalog.files(column, keep))
        return _opened(Source(place, path, listing, PARQUET), uri.endswith("/"), column, keep)


@contextmanager
def readable(listing: FileListing) -> Iterator[None]:
    """Turn an error of reading a source into a UserError that says what to check."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, (OSError, StorageError, *transient_errors())):
            raise
        message = public_message(error, listing.options)
        raise UserError(f"{listing.uri} can't be read: {message}; check the file and the credentials") from None


def no_images(listing: FileListing) -> UserError:
    """Return the error for a source in which no image was found."""
    but = f", only {left_out_text(listing.left_out)}" if listing.left_out else ""
    return UserError(f"{listing.uri} holds no images{but}")


def allowed_protocols(uri: str, extra: tuple[str, ...]) -> frozenset[str]:
    """Return the protocols that URIs of a source may have: the source's own by all its names (s3, s3a), and what the user allows."""
    return frozenset({*protocol_names(storage_of(uri)), *(ALIASES.get(name.lower(), name.lower()) for name in extra)})


def storage_of(uri: str) -> str:
    """Return a URI in the storage that holds a source's files: its own, or that of a table in a catalog. Raises UserError."""
    return table_location(uri) if is_catalog(uri) else uri


def stored_column(uri: str, column: str, options: Options) -> StoredColumn:
    """Return by what a source's Parquet files know the column of the images. Raises UserError."""
    if is_catalog(uri):
        return IcebergSource.in_catalog(uri, options).stored(column)
    fs, path = connect(uri, options)
    found = table_at(fs, path)
    return StoredColumn(column) if found is None else _table(fs, found, options).stored(column)


def _opened(source: Source, is_prefix: bool, column: str, keep: Keep) -> Source:
    """Return a source with its kind and files, which are looked up in its listing or in a table's log."""
    listing, path = source.listing, source.path
    fs = listing.fs
    if (found := table_at(fs, path)) is not None:
        return replace(source, files=_table(fs, found, listing.options).files(column, keep))
    folder = ImageFolder()
    kind, chosen = choose(folder.watch(listing.files(path, is_prefix)), listing.left_out)
    if kind == IMAGE:
        return replace(source, kind=kind, images=chosen, folder=folder)
    containers = list(chosen)
    for file in containers:
        if (name := escaped(file.name)) != file.name:
            raise UserError(f"{without_secrets(name)}: this path is not UTF-8: rename it, since the URIs of what it holds begin with it")
    given = partitions.values_of(containers) if keep else repeat({}, len(containers))
    files = [DataFile(file, values) for file, values in zip(containers, given, strict=True)]
    if kind != SHARD:
        listing.refuse_tables(containers)
    if kind == PARQUET and (found := table_around(fs, path, (file.name for file in containers))) is not None:
        whole = without_secrets(fs.unstrip_protocol(found.root))
        raise UserError(f"{listing.uri} is part of the {found.kind} table {whole}, whose files may be removed ones: name {whole}")
    return replace(source, kind=kind, files=files)


def _items(source: Source, column: str, keep: Keep) -> Iterator[Item]:
    listing = source.listing
    if source.kind != IMAGE:
        return items_in(listing.fs, source.kind, source.files, column, listing.left_out, keep)
    if keep:
        return _kept_images(listing, source.images, source.folder, column, keep)
    return image_items(listing.fs, source.images)


def items_in(
    fs: fsspec.AbstractFileSystem, kind: str, files: Iterable[DataFile], column: str, left_out: Counter[str], keep: Keep
) -> Iterator[Item]:
    """List the images in shards, or in the rows of tables, of a `kind`."""
    return tar_items(fs, files, left_out, keep) if kind == SHARD else _rows(fs, files, column, keep)


def _table(fs: fsspec.AbstractFileSystem, found: TableFolder, options: Options) -> DeltaSource | IcebergSource:
    return DeltaSource(fs, found, options) if found.kind == "Delta" else IcebergSource.in_folder(fs, found, options)


def _rows(fs: fsspec.AbstractFileSystem, files: Iterable[DataFile], column: str, keep: Keep) -> Iterator[Item]:
    """List the images in the rows of tables, Parquet or text."""
    for data in files:
        name = without_secrets(fs.unstrip_protocol(data.file.name))
        is_parquet = data.columns is not None or kind_of(data.file.name) == PARQUET
        yield from (parquet_items if is_parquet else text_items)(fs, data, column, name, keep)


def _kept_images(listing: FileListing, files: Iterator[File], folder: ImageFolder, column: str, keep: Keep) -> Iterator[Item]:
    """List images with columns to keep: partitions, in the names of their folders, or those of an image folder's metadata."""
    fs, first = listing.fs, next(files)
    files = chain([first], files)
    given = partitions.texts_of(first.name)
    if given.keys() >= set(keep.columns.values()):
        return _partitioned(fs, files, keep)
    folder.note(image_items(fs, files))
    if not folder.metadata:
        lacking = next(old for old in keep.columns.values() if old not in given)
        others = f" but those of their folders, {', '.join(given)}{did_you_mean(lacking, given)}" if given else ""
        remedy = "name a table of URIs, Parquet with image bytes, or .tar shards with a .json beside each image, or leave it out"
        raise UserError(f"keep_columns: {listing.uri} holds images, which have no columns{others}: {remedy}")
    metadata = [DataFile(file, values) for file, values in zip(folder.metadata, partitions.values_of(folder.metadata), strict=True)]
    rows = _rows(fs, metadata, COLUMN if column == DEFAULT_COLUMN else column, keep)
    return folder.rows(rows, listing.left_out)


def _partitioned(fs: fsspec.AbstractFileSystem, files: Iterator[File], keep: Keep) -> Iterator[Item]:
    """Return an item for each file, with partitions to keep as text: they are listed before it is known whether all are numbers."""
    while chunk := list(islice(files, ROWS)):
        found = [partitions.texts_of(file.name) for file in chunk]
        for old in keep.columns.values():
            if (i := next((i for i, texts in enumerate(found) if old not in texts), None)) is not None:
                name = without_secrets(fs.unstrip_protocol(chunk[i].name))
                raise UserError(f"keep_columns: {name} is in no folder '{old}=…', as others are: move it, or select files by a glob")
        kept = keep.batch([pa.array([texts[old] for texts in found], pa.string()) for old in keep.columns.values()], "the folders' names")
        for i, item in enumerate(image_items(fs, chunk)):
            yield item._replace(kept=Kept(kept, i))


def image_items(fs: fsspec.AbstractFileSystem, files: Iterable[File]) -> Iterator[Item]:
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
