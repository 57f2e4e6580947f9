"""Input source: find out what `--input` names, and list its images.

It is a folder, a prefix, a glob or a single file. Every file of a folder is an image, except hidden ones (`._name`, `_name`); a file
that is not an image becomes a row with that status. A folder that holds only .tar files is read as shards, one that holds only
.parquet files as a table, and a single .parquet, .csv or .jsonl file as a table too.
"""

import posixpath
import re
from collections.abc import Iterable, Iterator
from itertools import chain

import fsspec
from fsspec.utils import glob_translate

from pipeline.errors import StorageError, UserError
from pipeline.inputs import uri_table
from pipeline.inputs.item import Item, escaped
from pipeline.inputs.tar import tar_items
from pipeline.inputs.uri_table import table_items
from pipeline.storage.files import list_with_retries
from pipeline.storage.filesystem import Options, connect, protocol_names
from pipeline.storage.listing import HIDDEN, File, file_of, files_below
from pipeline.storage.retry import TRANSIENT_ERRORS
from pipeline.storage.uris import public_message, without_secrets


def list_items(uri: str, column: str, options: Options) -> Iterator[Item]:
    """List the images of a source in the order of their paths; `column` is that of a table's URIs or image bytes.

    Raises UserError where the source is empty or can't be read.
    """
    fs, path = connect(uri, options)
    public_uri = without_secrets(uri)
    empty = True
    try:
        for item in _items(fs, _files(fs, path, public_uri, options), column):
            empty = False
            yield item
    except (OSError, StorageError, *TRANSIENT_ERRORS) as error:
        raise UserError(f"{public_uri} can't be read: {public_message(error, options)}; check the file and the credentials") from None
    if empty:
        raise UserError(f"{public_uri} holds no images")


def allowed_protocols(uri: str, extra: tuple[str, ...]) -> frozenset[str]:
    """Return the protocols that URIs of a source may have: the source's own by all its names (s3, s3a), and what the user allows."""
    return frozenset({*protocol_names(uri), *(name.lower() for name in extra)})


def _files(fs: fsspec.AbstractFileSystem, path: str, uri: str, options: Options) -> Iterator[File]:
    """List the files in the order of their paths, without hidden ones and links to folders. Raises UserError where there are none."""
    empty = True
    try:
        for file in _list(fs, path):
            empty = False
            yield file
    except FileNotFoundError:
        pass
    except Exception as error:  # storage clients raise kinds of their own
        advice = "; check the credentials" if isinstance(error, PermissionError | StorageError) else ""
        raise UserError(f"{uri} can't be listed: {public_message(error, options)}{advice}") from None
    if empty:
        raise UserError(f"nothing found at {uri}: check the path, and that it is not empty")


def _list(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[File]:
    """List the single file at `path`, or the files of a folder, prefix or glob."""
    try:
        info = list_with_retries(fs, path, lambda: fs.info(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # a prefix that may be listed can refuse this
        info = {}
    if info.get("type") == "file":
        return iter([] if HIDDEN.search(f"/{posixpath.basename(path)}") else [file_of(info)])
    if not any(c in path for c in "*?[") or list_with_retries(fs, path, lambda: fs.isdir(path)):
        return files_below(fs, path)
    base = re.split(r"[*?[]", path)[0].rpartition("/")[0]
    levels = None if "**" in path else path[len(base) + 1 :].count("/")
    pattern = re.compile(glob_translate(path))
    return (file for file in files_below(fs, base or fs.root_marker, levels) if pattern.match(file.name))


def _items(fs: fsspec.AbstractFileSystem, files: Iterable[File], column: str) -> Iterator[Item]:
    """List the images. Files are held back only as long as they may still be shards or a table."""
    files, first, suffixes = iter(files), [], set()
    for file in files:
        first.append(file)
        suffixes.add(posixpath.splitext(file.name)[1].lower())
        if suffixes not in ({".tar"}, {".parquet"}) and not (len(first) == 1 and suffixes <= set(uri_table.SUFFIXES)):
            yield from _images(fs, chain(first, files))
            return
    if suffixes == {".tar"}:
        yield from tar_items(fs, first)
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
