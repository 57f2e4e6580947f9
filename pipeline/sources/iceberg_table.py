"""Input source: the current snapshot of an Iceberg table, by its folder, its metadata file or its catalog. pyiceberg reads the metadata.

Its Parquet files are read by us: columns are found by their field IDs, and rows that position deletes or deletion vectors mark are left
out. A catalog is named as pyiceberg knows it: `iceberg://catalog/namespace.table`.
"""

import logging
import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.sources.data_file import FIELD_ID, NO_ROWS, DataFile, StoredColumn, TableColumns, field_id_of, listed_file
from pipeline.sources.parquet_table import check_columns
from pipeline.sources.table_folders import METADATA, TableFolder, metadata_files
from pipeline.storage.files import open_file, read
from pipeline.storage.filesystem import Options, connect, protocol_names
from pipeline.storage.parallel import parallel_map
from pipeline.storage.spelling import canonical
from pipeline.storage.uris import protocol, public_message, storage_key, without_secrets
from pipeline.table.kept_columns import Keep
from ugrie.text import did_you_mean

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile as IcebergFile
    from pyiceberg.table import Table

logger = logging.getLogger(__name__)
SCHEME = "iceberg"
THREADS = 32  # files looked up at once
_CATALOG = re.compile(rf"(?i:{SCHEME})://(?P<catalog>[^/]+)/(?P<table>[^/]+\.[^/.]+)/?")


def is_catalog(uri: str) -> bool:
    """Return whether a URI names a table in a catalog."""
    return protocol(uri) == SCHEME


def table_location(uri: str) -> str:
    """Return the folder of a table in a catalog, as a URI. Raises UserError."""
    return canonical(_from_catalog(uri).location())


class IcebergSource:
    """An Iceberg table that is read. Raises UserError where pyiceberg is missing or can't read it."""

    def __init__(self, table: "Table", fs: fsspec.AbstractFileSystem, name: str, location: str, options: Options):
        self.table, self.fs, self.options = table, fs, options
        self.name, self.location = name, location

    @classmethod
    def in_catalog(cls, uri: str, options: Options) -> "IcebergSource":
        """Return the table that `iceberg://catalog/namespace.table` names. `options` are those of the storage that it is in."""
        table = _from_catalog(uri)
        location = canonical(table.location())
        return cls(table, connect(location, options)[0], uri, location, options)

    @classmethod
    def in_folder(cls, fs: fsspec.AbstractFileSystem, found: TableFolder, options: Options) -> "IcebergSource":
        """Return the table in a folder."""
        _check_installed()
        uri = fs.unstrip_protocol(found.root)
        name = without_secrets(uri)
        metadata = found.metadata or _newest(fs, found.root, name)
        with _readable(name, options):
            return cls(_from_metadata(fs, metadata), fs, name, uri, options)

    @cached_property
    def columns(self) -> TableColumns:
        from pyiceberg.io.pyarrow import pyarrow_to_schema, schema_to_pyarrow

        # All that `identify` needs: it goes to other processes, to which neither the table nor its storage can go.
        mapping, name, options = self.table.name_mapping(), self.name, self.options

        def with_ids(file: pa.Schema) -> pa.Schema:
            if any(FIELD_ID in (field.metadata or {}) for field in file):
                return file
            return schema_to_pyarrow(pyarrow_to_schema(file, mapping, downcast_ns_timestamp_to_us=True))

        def identify(file: pa.Schema) -> pa.Schema:
            with _readable(name, options):
                return with_ids(file)

        with self._readable():
            return TableColumns(schema_to_pyarrow(self.table.schema()), field_id_of, identify)

    def files(self, column: str, keep: Keep) -> Iterator[DataFile]:
        """List the table's files in the order of their paths. Raises UserError where the table lacks a column."""
        check_columns(self.columns.schema, column, self.name, keep)
        snapshot = self.table.current_snapshot()
        logger.info("reading snapshot %s of the Iceberg table %s", None if snapshot is None else snapshot.snapshot_id, self.name)
        with self._readable():
            tasks = sorted(self.table.scan().plan_files(), key=lambda task: task.file.file_path)
        found: dict[str, dict[str, np.ndarray]] = {}  # by delete file, rows by data file
        base = self._path(self.location)
        paths = (self._path(task.file.file_path) for task in tasks)
        infos = parallel_map(lambda path: listed_file(self.fs, path, self.name), paths, THREADS)
        for task, file in zip(tasks, infos, strict=True):
            if task.file.file_format != "PARQUET":
                raise UserError(f"{self.name} has files that are not read, such as {file.name}: rewrite the table as Parquet")
            deleted = [self._deleted(each, found).get(task.file.file_path, NO_ROWS) for each in task.delete_files]
            rows = np.unique(np.concatenate(deleted)) if deleted else NO_ROWS
            yield DataFile(file, {}, rows, self.columns, base, self._missing(task.file))

    def stored(self, column: str) -> StoredColumn:
        """Return by what the table's files know a column."""
        return StoredColumn(column, field_id_of(self.columns.schema.field(column)))

    def _deleted(self, file: "IcebergFile", found: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Return the rows that a delete file marks, by the data files' paths. Each delete file is read once, into `found`."""
        if file.file_path not in found:
            path = self._path(file.file_path)
            with self._readable():
                if file.file_format == "PUFFIN":
                    from pyiceberg.table.deletion_vector import deletion_vectors_from_puffin_file
                    from pyiceberg.table.puffin import PuffinFile

                    vectors = deletion_vectors_from_puffin_file(PuffinFile(read(self.fs, path)))
                    rows = {each.referenced_data_file: each.to_vector().to_numpy() for each in vectors}
                elif file.file_format == "PARQUET":
                    with open_file(self.fs, path) as opened:
                        rows = _by_file(pq.read_table(opened, columns=["file_path", "pos"]))
                else:
                    raise ValueError(f"its deletes are in {file.file_format}: rewrite them as Parquet")
            found[file.file_path] = rows
        return found[file.file_path]

    def _missing(self, file: "IcebergFile") -> dict[str, pa.Scalar]:
        """Return the values of columns in a file that was written without them: those of its partition, and defaults."""
        schema = self.table.schema()
        values: dict[str, Any] = {field.name: field.initial_default for field in schema.fields if field.initial_default is not None}
        for place, part in enumerate(self.table.specs()[file.spec_id].fields):
            name = schema.find_column_name(part.source_id)
            if name in self.columns.schema.names and str(part.transform) == "identity":
                values[str(name)] = file.partition[place]
        return {name: _scalar(value, self.columns.schema.field(name).type) for name, value in values.items()}

    def _path(self, uri: str) -> str:
        """Return the path of one of the table's files. Raises UserError where it is in another storage."""
        uri, own = canonical(uri), self.fs.unstrip_protocol(self.fs._strip_protocol(self.location))
        if protocol(uri) != protocol(own) or storage_key(uri) != storage_key(own):
            raise UserError(f"{self.name} has files in another storage, such as {without_secrets(uri)}: copy the table into one")
        return str(self.fs._strip_protocol(uri))

    @contextmanager
    def _readable(self) -> Iterator[None]:
        with _readable(self.name, self.options):
            yield


def _scalar(value: Any, kind: pa.DataType) -> pa.Scalar:
    """Return a value as Iceberg's manifests have it: dates and times are numbers there."""
    if isinstance(value, int) and pa.types.is_date32(kind):
        return pa.scalar(value, pa.int32()).cast(kind)
    if isinstance(value, int) and pa.types.is_temporal(kind):
        return pa.scalar(value, pa.int64()).cast(kind)
    return pa.scalar(value, kind)


def _by_file(deletes: pa.Table) -> dict[str, np.ndarray]:
    """Return the positions of a file of position deletes by the data files' paths."""
    paths = deletes["file_path"].combine_chunks().dictionary_encode()
    codes, positions = paths.indices.to_numpy(), deletes["pos"].to_numpy()
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(len(paths.dictionary)), side="right")
    parts = np.split(positions[order], ends[:-1]) if len(ends) else []
    return dict(zip(paths.dictionary.to_pylist(), parts, strict=True))


def _newest(fs: fsspec.AbstractFileSystem, root: str, name: str) -> str:
    """Return the path of a table's newest metadata file: the one that its hint names, or else the one with the highest number."""
    try:
        hint = read(fs, f"{root}/metadata/version-hint.text").decode().strip()
    except (FileNotFoundError, UnicodeDecodeError):
        hint = ""
    by_number: dict[int, list[str]] = {}
    for path in metadata_files(fs, root):
        match = METADATA.fullmatch(file := posixpath.basename(path))
        assert match is not None
        if hint and hint in (file, match["version"], file.partition(".metadata")[0]):
            return path
        by_number.setdefault(int(match["version"] or match["number"]), []).append(path)
    newest = by_number[max(by_number)]
    if len(newest) > 1:
        remedy = f"name the one that its catalog states, or the table in its catalog: {SCHEME}://catalog/namespace.table"
        raise UserError(f"{name} has several newest metadata files ({', '.join(map(posixpath.basename, newest))}): {remedy}")
    return newest[0]


def _from_metadata(fs: fsspec.AbstractFileSystem, path: str) -> "Table":
    """Return the table that a metadata file describes, whose other files are read through `fs`."""
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.io.fsspec import FsspecFileIO
    from pyiceberg.serializers import FromInputFile
    from pyiceberg.table import StaticTable

    class Storage(FsspecFileIO):
        def get_fs(self, scheme: str, hostname: str | None = None) -> fsspec.AbstractFileSystem:
            if scheme not in protocol_names(fs.unstrip_protocol("")):
                raise ValueError(f"it has files in {scheme}://, another storage")
            return fs

    io, uri = Storage({}), fs.unstrip_protocol(path)
    metadata = FromInputFile.table_metadata(io.new_input(uri))
    return StaticTable(("table",), metadata, uri, io, NoopCatalog("none"))


def _from_catalog(uri: str) -> "Table":
    match = _CATALOG.fullmatch(uri)
    if match is None:
        raise UserError(f"{uri} names no table of a catalog: give {SCHEME}://catalog/namespace.table")
    _check_installed()
    from pyiceberg.catalog import load_catalog
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    namespace = match["table"].rpartition(".")[0]
    with _readable(uri, {}):
        catalog = load_catalog(match["catalog"])
        try:
            return catalog.load_table(match["table"])
        except NoSuchTableError:
            try:
                tables = [".".join(each) for each in catalog.list_tables(namespace)]
            except NoSuchNamespaceError:
                tables = []
            close = did_you_mean(match["table"], tables)
            raise UserError(f"the catalog {match['catalog']} has no table {match['table']}{close}") from None


@contextmanager
def _readable(name: str, options: Options) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # pyiceberg's and the storage clients' errors have no common class
        text = public_message(error, options)
        if "equality deletes" in text:
            text = "it has equality deletes, which pyiceberg does not read: compact the table (rewrite_data_files) with its engine"
        raise UserError(f"{name} can't be read as an Iceberg table: {text}") from None


def _check_installed() -> None:
    """Raise UserError where pyiceberg is not installed."""
    if find_spec("pyiceberg") is None:
        raise UserError("an Iceberg table needs pyiceberg: pip install 'ugrie[iceberg]'")
