"""What there is to annotate: the images of a folder, prefix or glob, of a table, of Parquet with bytes, or of .tar shards.

Every image becomes an `Item`. A folder's images are all its files but hidden ones: what is no image becomes a row that says
so. A folder that holds only .tar or only .parquet files is read as shards or as a table of that kind. The members of a
.tar that are named like images are images (WebDataset keeps labels beside them, under the same name).
"""

import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from fsspec.implementations.http import HTTPFileSystem

from pipeline.errors import StorageError, UserError
from pipeline.retry import FOR_NOW
from pipeline.storage import Options, connect, listed, names, open_file, version_of
from pipeline.uris import scrubbed, without_secrets
from ugrie.errors import one_line
from ugrie.schemes import did_you_mean

LONGEST_URI = 2**16  # characters
NULL_LINE = re.compile(rb"(?:^|[\r\n])[ \t]*null")  # crashes Arrow's reader of JSON where a block of lines begins with it
TABLES = (".parquet", ".csv", ".jsonl")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".ico")


@dataclass(frozen=True)
class Item:
    """One image: its URI, and its size in bytes and version where they are known without asking for it.

    Images within a file have the file's path as `container`, and as `position` the byte in a .tar or the row in a Parquet.
    The URI has no secrets: where it takes some to fetch the image, such as a link's signature, they are in `link`.
    """

    uri: str
    size: int | None = None
    version: str = ""
    container: str | None = None
    position: int | None = None
    link: str | None = None


def items(uri: str, column: str, options: Options) -> Iterator[Item]:
    """The images of a source, in the order of their paths. Raises UserError where the source is empty or not as it should be."""
    fs, path = connect(uri, options)
    shown = without_secrets(uri)
    files = _files(fs, path, shown, options)
    found = False
    try:
        for item in _items(fs, files, column):
            found = True
            yield item
    except (OSError, StorageError, *FOR_NOW) as error:
        raise UserError(f"{shown} can't be read: {_told(error, options)}; check the file and the credentials") from None
    if not found:
        raise UserError(f"{shown} holds no images")


def _told(error: Exception, options: Options) -> str:
    return one_line(scrubbed(str(error), options)) or type(error).__name__


def _files(fs: fsspec.AbstractFileSystem, path: str, uri: str, options: Options) -> list[dict[str, Any]]:
    """The files of a folder, prefix or glob, or the one file, by path; hidden ones (._name, _name) left out, and links to folders."""

    def listing() -> tuple[dict[str, dict[str, Any]], str]:
        if fs.isfile(path):
            return {path: fs.info(path)}, posixpath.dirname(path)
        if any(c in path for c in "*?[") and not fs.isdir(path):
            return fs.glob(path, detail=True), re.split(r"[*?[]", path)[0].rpartition("/")[0]
        return fs.find(path, detail=True), path.rstrip("/")

    try:
        entries, base = listed(fs, path, listing)
    except FileNotFoundError:
        entries, base = {}, path
    except Exception as error:  # storage clients raise kinds of their own
        advice = "; check the credentials" if isinstance(error, PermissionError | StorageError) else ""
        raise UserError(f"{uri} can't be listed: {_told(error, options)}{advice}") from None
    files = []
    for name, info in sorted(entries.items()):
        parts = name[len(base) :].split("/")
        if any(part.startswith((".", "_")) for part in parts):
            continue
        if info.get("type") == "file":
            files.append(info)
        elif info.get("islink") and not fs.isdir(name):  # one that leads nowhere is an image that is missing
            files.append(info | {"size": info.get("size") if fs.exists(name) else None})
    if not files:
        raise UserError(f"nothing is to be found at {uri}: check the path, and that it is not empty")
    return files


def _items(fs: fsspec.AbstractFileSystem, files: list[dict[str, Any]], column: str) -> Iterator[Item]:
    endings = {posixpath.splitext(info["name"])[1].lower() for info in files}
    if endings == {".tar"}:
        for info in files:
            yield from _tar_members(fs, info)
    elif endings <= set(TABLES) and (len(files) == 1 or endings == {".parquet"}):
        for info in files:
            yield from _table_rows(fs, info, column)
    else:
        for info in files:
            # A local name that is no UTF-8 ends as a row that says missing.
            yield _named(Item(_shown(fs.unstrip_protocol(info["name"])), info.get("size"), version_of(info)))


def _shown(name: str) -> str:
    """A file's name with what is no UTF-8 in it escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _named(item: Item) -> Item:
    """The item under a URI without secrets."""
    uri = without_secrets(item.uri)
    return item if uri == item.uri else replace(item, uri=uri, link=item.uri)


def _tar_members(fs: fsspec.AbstractFileSystem, info: dict[str, Any]) -> Iterator[Item]:
    shard, version = without_secrets(fs.unstrip_protocol(info["name"])), version_of(info)
    try:
        with open_file(fs, info["name"], info, ahead=50 * 2**20) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            seen: Counter[str] = Counter()
            for member in tar:
                if member.isfile() and member.name.lower().endswith(IMAGES):
                    if member.issparse():
                        raise tarfile.ReadError(f"{_shown(member.name)} is stored sparsely, in pieces: pack it anew without --sparse")
                    member_name = _shown(member.name.removeprefix("./"))
                    seen[member_name] += 1
                    if seen[member_name] > 1:  # a .tar may hold several files of one name
                        member_name += f"#{seen[member_name]}"
                    yield Item(f"{shard}!/{member_name}", member.size, version, info["name"], member.offset_data)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile ends silently there, but the archive doesn't
                raise tarfile.ReadError(f"it is cut off or broken at byte {tar.offset}")
    except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:  # sizes below zero, or beyond all measure
        raise UserError(f"{shard} is no readable .tar: {str(error) or type(error).__name__}") from None


def _table_rows(fs: fsspec.AbstractFileSystem, info: dict[str, Any], column: str) -> Iterator[Item]:
    name = without_secrets(fs.unstrip_protocol(info["name"]))
    try:
        if name.lower().endswith(".parquet"):
            with open_file(fs, info["name"], info) as file:
                parquet = pq.ParquetFile(file)
                field = _field(parquet.schema_arrow, column, name)
                if _is_bytes(field.type):
                    version = version_of(info)
                    for row in range(parquet.metadata.num_rows):
                        yield Item(f"{name}!/{row}", None, version, info["name"], row)
                    return
                # As a dictionary: what a few bytes repeat a million times takes no more memory than once.
                for batch in pq.ParquetFile(file, read_dictionary=[column]).iter_batches(columns=[column]):
                    yield from _uris(batch.column(0), info["name"], fs)
            return
        with open_file(fs, info["name"], info, ahead=50 * 2**20) as file:
            table = pyarrow.csv.read_csv(file) if name.lower().endswith(".csv") else _json_lines(file.read())
        if _is_bytes(_field(table.schema, column, name).type):
            raise pa.ArrowInvalid(f"column '{column}' is not in UTF-8")
        for chunk in table.column(column).chunks:
            yield from _uris(chunk, info["name"], fs)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{name} can't be read as a table: {str(error).partition(chr(10))[0] or type(error).__name__}") from None


def _json_lines(data: bytes) -> pa.Table:
    if NULL_LINE.search(data):
        raise pa.ArrowInvalid("JSON parse error: a line is null, which is no object")
    return pyarrow.json.read_json(pa.BufferReader(data))


def _field(schema: pa.Schema, column: str, name: str) -> pa.Field:
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
    """Image bytes, or the struct of `bytes` and `path` in which Hugging Face datasets keep images."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_bytes(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _uris(column: pa.Array, table: str, fs: fsspec.AbstractFileSystem) -> Iterator[Item]:
    """A table's URIs; a path without a protocol is taken from the table's folder. A missing one is a row as well."""
    folder = posixpath.dirname(table)
    if pa.types.is_dictionary(column.type):
        words = column.dictionary.to_pylist()
        values = (None if index is None else words[index] for index in column.indices.to_pylist())
    else:
        values = iter(column.to_pylist())
    for value in values:
        if value is None or not value.strip():
            yield Item("")
        elif len(value) > LONGEST_URI:
            raise UserError(f"{without_secrets(table)} holds a URI of {len(value)} characters: name the column of URIs with --column")
        elif "://" in value:
            scheme, _, rest = value.strip().partition("://")
            yield _named(Item(f"{scheme.lower()}://{rest}"))
        elif isinstance(fs, HTTPFileSystem):
            yield _named(Item(urljoin(table, value.strip())))
        else:
            yield _named(Item(fs.unstrip_protocol(posixpath.join(folder, value))))


def allowed_protocols(uri: str, extra: tuple[str, ...]) -> frozenset[str]:
    """Where the URIs of a source may point: the source's own kind of storage, by all its names (s3, s3a), and what the user allows."""
    return frozenset({*names(uri), *(name.lower() for name in extra)})
