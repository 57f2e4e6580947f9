"""What there is to annotate: the images of a folder, prefix or glob, of a table, of Parquet with bytes, or of .tar shards.

Every image becomes an `Item`. A folder's images are all its files but hidden ones: what is no image becomes a row that says
so. A folder that holds only .tar or only .parquet files is read as shards or as a table of that kind. The members of a
.tar that are named like images are images (WebDataset keeps labels beside them, under the same name).
"""

import posixpath
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple
from urllib.parse import urljoin

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
from fsspec.implementations.http import HTTPFileSystem
from fsspec.utils import glob_translate

from pipeline.errors import StorageError, UserError
from pipeline.storage.files import listed, open_file
from pipeline.storage.filesystem import Options, connect, names
from pipeline.storage.listing import HIDDEN, File, file_of, files_below
from pipeline.storage.parallel import mapped
from pipeline.storage.retry import FOR_NOW
from pipeline.storage.uris import scrubbed, without_secrets
from ugrie.text import did_you_mean, one_line

LONGEST_URI = 2**16  # characters
SHARDS_AT_ONCE = 8
NULL_LINE = re.compile(rb"(?:^|[\r\n])[ \t]*null")  # crashes Arrow's reader of JSON where a block of lines begins with it
TABLES = (".parquet", ".csv", ".jsonl")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".ico")


class Item(NamedTuple):
    """One image: its URI, and its size in bytes and version where they are known without asking for it.

    Images within a file have the file's path as `container`, and as `position` the byte in a .tar or the row in a Parquet.
    The URI has no secrets: where it takes some to fetch the image, such as a link's signature, they are in `link`.
    `image_id` is that of an image which a table of ours lists already; any other's follows from URI and version.
    """

    uri: str
    size: int | None = None
    version: str = ""
    container: str | None = None
    position: int | None = None
    link: str | None = None
    image_id: int | None = None


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


def _files(fs: fsspec.AbstractFileSystem, path: str, uri: str, options: Options) -> Iterator[File]:
    """The files of a folder, prefix or glob, or the one file, by path; hidden ones (._name, _name) left out, and links to folders."""
    found = False
    try:
        for file in _listed(fs, path):
            found = True
            yield file
    except FileNotFoundError:
        pass
    except Exception as error:  # storage clients raise kinds of their own
        advice = "; check the credentials" if isinstance(error, PermissionError | StorageError) else ""
        raise UserError(f"{uri} can't be listed: {_told(error, options)}{advice}") from None
    if not found:
        raise UserError(f"nothing is to be found at {uri}: check the path, and that it is not empty")


def _listed(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[File]:
    try:
        info = listed(fs, path, lambda: fs.info(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # as it may be for a prefix that may be listed
        info = {}
    if info.get("type") == "file":
        return iter([] if HIDDEN.search(f"/{posixpath.basename(path)}") else [file_of(info)])
    if not any(c in path for c in "*?[") or listed(fs, path, lambda: fs.isdir(path)):
        return files_below(fs, path)
    base = re.split(r"[*?[]", path)[0].rpartition("/")[0]
    levels = None if "**" in path else path[len(base) + 1 :].count("/")
    pattern = re.compile(glob_translate(path))
    return (file for file in files_below(fs, base or fs.root_marker, levels) if pattern.match(file.name))


def _items(fs: fsspec.AbstractFileSystem, files: Iterable[File], column: str) -> Iterator[Item]:
    files, begun, endings = iter(files), [], set()
    for file in files:
        begun.append(file)
        endings.add(posixpath.splitext(file.name)[1].lower())
        if endings not in ({".tar"}, {".parquet"}) and not (len(begun) == 1 and endings <= set(TABLES)):
            yield from _images(fs, chain(begun, files))
            return
    if endings == {".tar"}:
        yield from chain.from_iterable(mapped(lambda shard: list(_tar_members(fs, shard)), begun, SHARDS_AT_ONCE))
        return
    for file in begun:
        yield from _table_rows(fs, file, column)


def _images(fs: fsspec.AbstractFileSystem, files: Iterator[File]) -> Iterator[Item]:
    start = None
    for name, size, version in files:
        if start is None:
            start = fs.unstrip_protocol(name).removesuffix(name)  # s3://, and the like: the same for all files of one storage
        uri = f"{start}{name}"
        if not uri.isascii():
            uri = _shown(uri)  # a local name that is no UTF-8 ends as a row that says missing
        item = Item(uri, size, version)
        yield _named(item) if "@" in uri or "?" in uri else item  # else there is no secret in it


def _shown(name: str) -> str:
    """A file's name with what is no UTF-8 in it escaped."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _named(item: Item) -> Item:
    """The item under a URI without secrets."""
    uri = without_secrets(item.uri)
    return item if uri == item.uri else item._replace(uri=uri, link=item.uri)


def _tar_members(fs: fsspec.AbstractFileSystem, shard: File) -> Iterator[Item]:
    uri = without_secrets(fs.unstrip_protocol(shard.name))
    try:
        with open_file(fs, shard.name, shard.info, ahead=8 * 2**20) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            seen: Counter[str] = Counter()
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                if member.isfile() and member.name.lower().endswith(IMAGES):
                    if member.issparse():
                        raise tarfile.ReadError(f"{_shown(member.name)} is stored sparsely, in pieces: pack it anew without --sparse")
                    member_name = _shown(member.name.removeprefix("./"))
                    seen[member_name] += 1
                    if seen[member_name] > 1:  # a .tar may hold several files of one name
                        member_name += f"#{seen[member_name]}"
                    yield Item(f"{uri}!/{member_name}", member.size, shard.version, shard.name, member.offset_data)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile ends silently there, but the archive doesn't
                raise tarfile.ReadError(f"it is cut off or broken at byte {tar.offset}")
    except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:  # sizes below zero, or beyond all measure
        raise UserError(f"{uri} is no readable .tar: {str(error) or type(error).__name__}") from None


def _table_rows(fs: fsspec.AbstractFileSystem, table: File, column: str) -> Iterator[Item]:
    name = without_secrets(fs.unstrip_protocol(table.name))
    try:
        if name.lower().endswith(".parquet"):
            with open_file(fs, table.name, table.info) as file:
                parquet = pq.ParquetFile(file)
                field = _field(parquet.schema_arrow, column, name)
                if _is_bytes(field.type):
                    for row in range(parquet.metadata.num_rows):
                        yield Item(f"{name}!/{row}", None, table.version, table.name, row)
                    return
                # As a dictionary: what a few bytes repeat a million times takes no more memory than once.
                for batch in pq.ParquetFile(file, read_dictionary=[column]).iter_batches(columns=[column]):
                    yield from _uris(batch.column(0), table.name, fs)
            return
        with open_file(fs, table.name, table.info, ahead=50 * 2**20) as file:
            rows = pyarrow.csv.read_csv(file) if name.lower().endswith(".csv") else _json_lines(file.read())
        if _is_bytes(_field(rows.schema, column, name).type):
            raise pa.ArrowInvalid(f"column '{column}' is not in UTF-8")
        for chunk in rows.column(column).chunks:
            yield from _uris(chunk, table.name, fs)
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
