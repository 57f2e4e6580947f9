"""Input source: find out what `--input` names, and list its images.

It is a folder, a prefix, a glob or a single file. What its files are is decided by their names (`kinds.py`):

- if there are images, they are the input. A file that is not an image, against its name, becomes a row with that status;
- else if there are .tar shards, their members are;
- else what the tables list or hold is, which must be of one kind.

Files of another kind, such as a README beside tables, are left out and counted. So are hidden ones (`._name`, `_name`).
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain

import fsspec
from fsspec.utils import glob_translate

from pipeline.errors import StorageError, UserError
from pipeline.inputs.item import Item, escaped
from pipeline.inputs.kinds import IMAGE, SHARD, choose
from pipeline.inputs.tar import tar_items
from pipeline.inputs.uri_table import table_items
from pipeline.storage.files import list_with_retries
from pipeline.storage.filesystem import Options, connect, protocol_names
from pipeline.storage.listing import HIDDEN, File, file_of, files_below
from pipeline.storage.retry import TRANSIENT_ERRORS
from pipeline.storage.uris import public_message, without_secrets


def list_items(uri: str, column: str, options: Options, left_out: Counter[str] | None = None) -> Iterator[Item]:
    """List the images of a source in the order of their paths; `column` is that of a table's URIs or image bytes.

    Adds to `left_out` how many files are no part of it, by the ends of their names. Raises UserError where the source is empty or can't
    be read.
    """
    fs, path = connect(uri, options)
    public_uri = without_secrets(uri)
    empty = True
    try:
        for item in _items(fs, _files(fs, path, public_uri, options), column, Counter() if left_out is None else left_out):
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


def _items(fs: fsspec.AbstractFileSystem, files: Iterator[File], column: str, left_out: Counter[str]) -> Iterator[Item]:
    kind, chosen = choose(files, left_out)
    if kind == IMAGE:
        return _images(fs, chosen)
    if kind == SHARD:
        return tar_items(fs, chosen)
    return chain.from_iterable(table_items(fs, table, column) for table in chosen)


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
