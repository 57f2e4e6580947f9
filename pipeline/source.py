"""What there is to annotate: the images of a folder, prefix or glob, of a table, of Parquet with bytes, or of .tar shards.

Every image becomes an `Item`. A folder's images are all its files but hidden ones: what is no image becomes a row that says
so. A folder that holds only .tar or only .parquet files is read as shards or as a table of that kind. The members of a
.tar that are named like images are images (WebDataset keeps labels beside them, under the same name).
"""

import posixpath
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.storage import Options, connect, protocol, version_of
from ugrie.schemes import did_you_mean

TABLES = (".parquet", ".csv", ".jsonl")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".ico")


@dataclass(frozen=True)
class Item:
    """One image: its URI, and its size in bytes and version where they are known without asking for it.

    Images within a file have the file's path as `container`, and as `position` the byte in a .tar or the row in a Parquet.
    """

    uri: str
    size: int | None = None
    version: str = ""
    container: str | None = None
    position: int | None = None


def items(uri: str, column: str, options: Options) -> Iterator[Item]:
    """The images of a source, in the order of their paths. Raises UserError where the source is empty or not as it should be."""
    fs, path = connect(uri, options)
    files = _files(fs, path, uri)
    found = False
    try:
        for item in _items(fs, files, column):
            found = True
            yield item
    except OSError as error:
        what = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{uri} can't be read: {what}; check the file and the credentials") from None
    if not found:
        raise UserError(f"{uri} holds no images")


def _files(fs: fsspec.AbstractFileSystem, path: str, uri: str) -> list[dict[str, Any]]:
    """The files of a folder, prefix or glob, or the one file, by path; hidden ones (._name, _name) left out."""
    try:
        if fs.isfile(path):
            listed, base = {path: fs.info(path)}, posixpath.dirname(path)
        elif any(c in path for c in "*?[") and not fs.isdir(path):
            listed, base = fs.glob(path, detail=True), re.split(r"[*?[]", path)[0].rpartition("/")[0]
        else:
            listed, base = fs.find(path, detail=True), path.rstrip("/")
    except FileNotFoundError:
        listed, base = {}, path
    except PermissionError as error:
        raise UserError(f"{uri} can't be listed: {error or 'access denied'}; check the credentials") from None
    except Exception as error:  # storage clients raise kinds of their own
        raise UserError(f"{uri} can't be listed: {error or type(error).__name__}") from None
    files = []
    for name, info in sorted(listed.items()):
        parts = name[len(base) :].split("/")
        if info.get("type") == "file" and not any(part.startswith((".", "_")) for part in parts):
            files.append(info)
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
            # A local name may hold bytes that are no UTF-8; shown escaped, it ends as a row that says missing.
            name = fs.unstrip_protocol(info["name"]).encode(errors="surrogateescape").decode(errors="backslashreplace")
            yield Item(name, info.get("size"), version_of(info))


def _tar_members(fs: fsspec.AbstractFileSystem, info: dict[str, Any]) -> Iterator[Item]:
    shard, version = fs.unstrip_protocol(info["name"]), version_of(info)
    try:
        with fs.open(info["name"], "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.isfile() and member.name.lower().endswith(IMAGES):
                    yield Item(f"{shard}!/{member.name.removeprefix('./')}", member.size, version, info["name"], member.offset_data)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile ends silently there, but the archive doesn't
                raise tarfile.ReadError(f"it is cut off or broken at byte {tar.offset}")
    except tarfile.TarError as error:
        raise UserError(f"{shard} is no readable .tar: {error}") from None


def _table_rows(fs: fsspec.AbstractFileSystem, info: dict[str, Any], column: str) -> Iterator[Item]:
    name = fs.unstrip_protocol(info["name"])
    try:
        if name.lower().endswith(".parquet"):
            with fs.open(info["name"], "rb") as file:
                parquet = pq.ParquetFile(file)
                field = _field(parquet.schema_arrow, column, name)
                if _is_bytes(field.type):
                    version = version_of(info)
                    for row in range(parquet.metadata.num_rows):
                        yield Item(f"{name}!/{row}", None, version, info["name"], row)
                    return
                for batch in parquet.iter_batches(columns=[column]):
                    yield from _uris(batch.column(0), info["name"], fs)
            return
        with fs.open(info["name"], "rb") as file:
            table = pyarrow.csv.read_csv(file) if name.lower().endswith(".csv") else pyarrow.json.read_json(file)
    except pa.ArrowInvalid as error:
        raise UserError(f"{name} can't be read as a table: {str(error).splitlines()[0]}") from None
    _field(table.schema, column, name)
    for chunk in table.column(column).chunks:
        yield from _uris(chunk, info["name"], fs)


def _field(schema: pa.Schema, column: str, name: str) -> pa.Field:
    if column not in schema.names:
        close = did_you_mean(column, schema.names)
        raise UserError(f"{name} has no column '{column}'{close}; it has {', '.join(schema.names)}: name one with --column")
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
    for value in column.to_pylist():
        if value is None or not value.strip():
            yield Item("")
        elif "://" in value:
            yield Item(value)
        else:
            yield Item(fs.unstrip_protocol(posixpath.join(folder, value)))


def allowed_protocols(uri: str, extra: tuple[str, ...]) -> frozenset[str]:
    """Where the URIs of a source may point: the source's own kind of storage, by all its names (s3, s3a), and what the user allows."""
    names = fsspec.get_filesystem_class(protocol(uri)).protocol
    return frozenset({*([names] if isinstance(names, str) else names), *extra})
