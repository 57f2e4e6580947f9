"""The catalog that holds an output's Iceberg table, and the file that says which it is, OUTPUT/iceberg.json.

A catalog names the file of a table's current metadata, and replaces that name for one writer at a time. By default the output has
one of its own: on a local disk OUTPUT/iceberg.db, pyiceberg's SQL catalog on SQLite; in an object store, which can't hold a database
that is written to, the metadata's own file names (`pipeline.table_formats.file_catalog`). `--iceberg-table CATALOG.NAMESPACE.TABLE`
names another, which pyiceberg knows from its configuration.
"""

import json
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import UserError
from pipeline.storage.filesystem import LOCAL
from pipeline.storage.uris import protocol, public_message, without_secrets
from pipeline.table.output_folder import ANNOTATIONS, ICEBERG_CATALOG, ICEBERG_NAME, OutputFolder

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

OWN_CATALOG, OWN_TABLE = "ugrie", "ugrie.annotations"


class TableName(NamedTuple):
    """A table by the name of its catalog, which is None for the output's own, and its name there."""

    catalog: str | None = None
    table: str = OWN_TABLE

    def __str__(self) -> str:
        return f"{self.catalog}.{self.table}" if self.catalog else "in the output's own catalog"

    @classmethod
    def of(cls, setting: str | None) -> "TableName":
        """Return the table that a setting names: the catalog's name up to the first dot. None is the output's own."""
        if setting is None:
            return cls()
        catalog, _, table = setting.partition(".")
        return cls(catalog, table)


def check_installed() -> None:
    """Raise UserError where pyiceberg is not installed."""
    if find_spec("pyiceberg") is None or find_spec("sqlalchemy") is None:
        raise UserError("an Iceberg table needs pyiceberg: pip install 'ugrie[iceberg]'")


def location(output: OutputFolder) -> str:
    """Return where the table is, as its metadata names it: a path on the local disk, else a URI."""
    folder = output.absolute(ANNOTATIONS)
    return folder if protocol(output.uri) in LOCAL else output.fs.unstrip_protocol(folder)


def saved_name(output: OutputFolder) -> TableName | None:
    """Return which table the output is, or None if it is none yet. Raises UserError."""
    saved = output.read_json(ICEBERG_NAME)
    return saved and TableName(saved["catalog"], saved["table"])


def save_name(output: OutputFolder, name: TableName) -> None:
    """Make the output this table, for good. Raises UserError where it is another one already."""
    with output.writable():
        output.create(ICEBERG_NAME, (json.dumps(name._asdict()) + "\n").encode())
    check_name(output, name)


def check_name(output: OutputFolder, name: TableName) -> None:
    """Raise UserError where the output is another table already."""
    saved = saved_name(output)
    if saved not in (None, name):
        remedy = "leave --iceberg-table out" if saved.catalog is None else f"give --iceberg-table {saved}"
        raise UserError(f"{without_secrets(output.uri)} is the Iceberg table {saved} already, not {name}: {remedy}")


def open_catalog(output: OutputFolder, name: TableName) -> "Catalog":
    """Return the catalog. The output's own is created where it is none yet. Raises UserError where pyiceberg doesn't know the name."""
    from pyiceberg.catalog import load_catalog

    if name.catalog is not None:
        try:
            return load_catalog(name.catalog)
        except Exception as error:  # each kind of catalog has errors of its own
            problem = public_message(error, output.options)
            remedy = "see docs/tables.md for how pyiceberg is told of it"
            raise UserError(f"iceberg_table: pyiceberg can't open the catalog {name.catalog} ({problem}); {remedy}") from None
    if protocol(output.uri) not in LOCAL:
        from pipeline.table_formats.file_catalog import FileCatalog

        return FileCatalog(output)
    from pyiceberg.catalog.sql import SqlCatalog
    from sqlalchemy import URL

    output.fs.makedirs(output.root, exist_ok=True)
    database = URL.create("sqlite", database=output.absolute(ICEBERG_CATALOG), query={"timeout": "60"})
    io = "pipeline.table_formats.iceberg_io.StorageIO"  # whose files are on the disk before the database names them
    return SqlCatalog(OWN_CATALOG, uri=database, **{"py-io-impl": io})  # type: ignore[arg-type]


def load_table(output: OutputFolder, name: TableName) -> "Table | None":
    """Return the table as it is now, or None where there is none yet. Nothing is created. Raises UserError."""
    from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

    if name.catalog is None and protocol(output.uri) in LOCAL and not output.exists(ICEBERG_CATALOG):
        return None
    catalog = open_catalog(output, name)
    with suppress(NoSuchTableError, NoSuchNamespaceError):
        return catalog.load_table(name.table)
    return None
