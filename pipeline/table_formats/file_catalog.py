"""An Iceberg catalog without a service: the newest of the numbered files OUTPUT/annotations/metadata/v1.metadata.json, v2 and so on.

A commit creates the next file, which must not exist: of several writers one succeeds, by the same conditional request that creates a
run's record. `version-hint.text` beside it states the number for readers; it may lag behind, and commits don't depend on it.
The layout is that of Iceberg's file-system tables, so readers that know those need no catalog.
"""

from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.io import FileIO
from pyiceberg.serializers import FromInputFile
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import EMPTY_DICT, Identifier, Properties

from pipeline.table.output_folder import ANNOTATIONS, OutputFolder
from pipeline.table_formats.iceberg_io import StorageIO

HINT = f"{ANNOTATIONS}/metadata/version-hint.text"


class FileCatalog(MetastoreCatalog, NoopCatalog):
    """The catalog of an output's one table, whatever its name. What UGRIE does not need of a catalog is not implemented."""

    def __init__(self, output: OutputFolder):
        super().__init__("ugrie")
        self.output = output

    def _load_file_io(self, properties: Properties = EMPTY_DICT, location: str | None = None) -> FileIO:
        return StorageIO(properties, self.output.fs)

    def create_namespace_if_not_exists(self, namespace: str | Identifier, properties: Properties = EMPTY_DICT) -> None:
        """There are no namespaces."""

    def load_table(self, identifier: str | Identifier) -> Table:
        return self._load(identifier, self._newest())

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Create the next version. Raises CommitFailedException where another writer was first."""
        version = self._newest()
        current = self._load(table.name(), version) if version else None
        metadata = self._update_and_stage_table(current, table.name(), requirements, updates).metadata
        if current and metadata == current.metadata:
            return CommitTableResponse(metadata=metadata, metadata_location=current.metadata_location)
        version += 1
        if not self.output.create(_file(version), metadata.model_dump_json(exclude_none=True).encode()):
            raise CommitFailedException(f"another writer made version {version} of the table")
        self._state(version)
        return CommitTableResponse(metadata=metadata, metadata_location=self._location(version))

    def _load(self, identifier: str | Identifier, version: int) -> Table:
        if not version:
            raise NoSuchTableError(f"{self.output.uri} is no Iceberg table yet")
        location, io = self._location(version), self._load_file_io()
        return Table(self.identifier_to_tuple(identifier), FromInputFile.table_metadata(io.new_input(location)), location, io, self)

    def _location(self, version: int) -> str:
        return self.output.fs.unstrip_protocol(self.output.absolute(_file(version)))

    def _newest(self, version: int | None = None) -> int:
        """Return the number of the newest version, at least `version` or else the one that is stated; 0 where there is none."""
        if version is None:
            try:
                version = int(self.output.read(HINT))
            except FileNotFoundError:
                version = 0
        while self.output.exists(_file(version + 1)):
            version += 1
        return version

    def _state(self, version: int) -> None:
        """Write the hint. The writer of an older version may come later, so each looks for a newer one after it has written."""
        stated = 0
        while stated < version:
            self.output.write(HINT, str(version).encode())
            stated, version = version, self._newest(version)


def _file(version: int) -> str:
    return f"{ANNOTATIONS}/metadata/v{version}.metadata.json"
