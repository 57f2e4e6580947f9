"""Input source: the current version of a Delta table, or one that is asked for. deltalake reads its log, and we its Parquet files.

So removed files are left out, and rows that deletion vectors mark; columns of partitions are in the log, and renamed ones found.
"""

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote

import fsspec
import numpy as np
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.sources.data_file import FIELD_ID, NO_ROWS, DataFile, StoredColumn, TableColumns, listed_file
from pipeline.sources.parquet_table import check_columns
from pipeline.sources.table_folders import TableFolder
from pipeline.storage.filesystem import Options
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import protocol, without_secrets
from pipeline.table.kept_columns import Keep
from pipeline.table_formats.delta_log import check_installed
from pipeline.table_formats.delta_storage import PROTOCOLS, readable, storage_options

if TYPE_CHECKING:
    from deltalake import DeltaTable

logger = logging.getLogger(__name__)
THREADS = 32  # files looked up at once
PHYSICAL, ID = b"delta.columnMapping.physicalName", b"delta.columnMapping.id"


class DeltaSource:
    """A Delta table that is read. Raises UserError where deltalake is missing or can't read it."""

    def __init__(self, fs: fsspec.AbstractFileSystem, found: TableFolder, options: Options):
        check_installed()
        from deltalake import DeltaTable

        self.fs, self.root, self.options = fs, found.root, options
        uri = fs.unstrip_protocol(found.root)
        self.name = without_secrets(uri)
        if protocol(uri) not in PROTOCOLS:
            raise UserError(f"{self.name} can't be read as a Delta table: deltalake reaches local disks, {', '.join(PROTOCOLS[2:])}")
        with readable(self.name, self.options):
            place = found.root if protocol(uri) == "file" else uri
            self.table: DeltaTable = DeltaTable(place, version=found.version, storage_options=storage_options(fs))
            self.columns = TableColumns(pa.schema(self.table.schema().to_arrow()), _key(self.table))

    def files(self, column: str, keep: Keep) -> Iterator[DataFile]:
        """List the table's files in the order of their paths. Raises UserError where the table lacks a column."""
        check_columns(self.columns.schema, column, self.name, keep)
        logger.info("reading version %d of the Delta table %s", self.table.version(), self.name)
        with readable(self.name, self.options):
            actions = pa.table(self.table.get_add_actions()).sort_by("path")
            deleted = self._deleted()
        paths = [self._path(path) for path in actions["path"].to_pylist()]
        if unknown := deleted.keys() - set(paths):
            raise UserError(f"{self.name} can't be read as a Delta table: {min(unknown)} has deleted rows, and is not in the table")
        partitions = actions["partition"].combine_chunks() if "partition" in actions.column_names else pa.array([{}] * len(actions))
        infos = parallel_map(lambda path: listed_file(self.fs, path, self.name), paths, THREADS)
        for i, (path, file) in enumerate(zip(paths, infos, strict=True)):
            given = {each.name: partitions.field(each.name)[i].cast(self.columns.schema.field(each.name).type) for each in partitions.type}
            yield DataFile(file, given, deleted.get(path, NO_ROWS), self.columns, self.root)

    def stored(self, column: str) -> StoredColumn:
        """Return by what the table's files know a column."""
        stated = self.columns.schema.field(column).metadata or {}
        if self.table.metadata().configuration.get("delta.columnMapping.mode", "none") == "none":
            return StoredColumn(column)
        return StoredColumn(stated[PHYSICAL].decode(), int(stated[ID]) if ID in stated else None)

    def _deleted(self) -> dict[str, np.ndarray]:
        """Return the rows that deletion vectors mark, by the files' paths."""
        if "deletionVectors" not in (self.table.protocol().reader_features or ()):
            return {}
        found = {}
        for batch in self.table.deletion_vectors():
            rows = pa.record_batch(batch)
            for path, kept in zip(rows["filepath"].to_pylist(), rows["selection_vector"], strict=True):
                found[self.fs._strip_protocol(unquote(path))] = np.flatnonzero(~kept.values.to_numpy(zero_copy_only=False))
        return found

    def _path(self, path: str) -> str:
        """Return where a file is, whose path in the log is a URI, relative or not."""
        path = unquote(path)
        if "://" not in path:
            return f"{self.root}/{path}"
        if protocol(path) != protocol(self.fs.unstrip_protocol(self.root)):
            raise UserError(f"{self.name} has files in another storage, such as {without_secrets(path)}: copy the table with its files")
        return str(self.fs._strip_protocol(path))


def _key(table: "DeltaTable") -> Callable[[pa.Field], str | int]:
    """Return what a column has in common in the table and in its files: a name, or with column mapping the one below it, or a number."""
    mode = table.metadata().configuration.get("delta.columnMapping.mode", "none")

    def key(field: pa.Field) -> str | int:
        stated = field.metadata or {}
        if mode == "id":
            return int(stated.get(ID) or stated.get(FIELD_ID) or -1)
        return stated[PHYSICAL].decode() if mode == "name" and PHYSICAL in stated else field.name

    return key
