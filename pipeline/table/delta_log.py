"""The log of a Delta table: which files the table has, which runs it lacks, and the commit that adds them."""

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from io import SEEK_END
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.storage.files import open_file
from pipeline.storage.filesystem import LOCAL, Options, connect
from pipeline.storage.parallel import mapped
from pipeline.storage.uris import protocol, without_secrets
from pipeline.table.delta_storage import PROTOCOLS, storage_options, told
from pipeline.table.run_record import past_runs
from ugrie.text import one_line

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.schema import Field
    from deltalake.transaction import AddAction

PARTITION = "dt"
# The log says how many rows each file has, and not what its values are at least and at most: where it says that of some columns, and they
# are not all that a file has, deltalake's reader by way of PyArrow (1.6) finds nothing by the others. Nor does it once files are compacted.
PROPERTIES = {"delta.dataSkippingNumIndexedCols": "0"}
THREADS = 16  # which wait for storage, most of the time


class DeltaLog:
    """An output's log as it is now: the table, if there is one, and which files it has. Raises UserError where there can't be one."""

    def __init__(self, output: str, options: Options):
        installed()
        self.fs, root = connect(output, options)
        self.root = root.rstrip("/")
        self.given, self.shown = options, shown(output)
        if protocol(output) not in PROTOCOLS:
            raise UserError(f"{self.shown} can't be a Delta table: deltalake reaches local disks, {', '.join(PROTOCOLS[2:])}")
        if unquote(self.root) != self.root or "\\" in self.root:
            raise UserError(f"{self.shown} can't be a Delta table: deltalake takes no path with a backslash, or with % and two digits")
        self.uri = f"{self.root}/annotations" if protocol(output) in LOCAL else self.fs.unstrip_protocol(f"{self.root}/annotations")
        with self._readable():
            self.options = storage_options(self.fs)
            self.table = self._open()
            self.there = {f"annotations/{path}" for path in paths(self.table)}

    def _open(self) -> "DeltaTable | None":
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            table = DeltaTable(self.uri, storage_options=self.options)
        except TableNotFoundError:
            return None
        if table.metadata().partition_columns != [PARTITION]:
            raise UserError(f"{self.shown} is a Delta table of another kind, not partitioned by {PARTITION}: take another output")
        return table

    def missing(self, runs: Sequence[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
        """The records of those committed runs, of all by default, that have rows and are not in the table."""
        table = self.table
        found = [run for run in (past_runs(self.fs, self.root) if runs is None else runs) if not self.there.issuperset(run["files"])]
        if table is None:
            return found
        with self._readable():  # of a run whose files others have replaced, the log still has the id
            versions = list(mapped(lambda run: table.transaction_version(run["run_id"]), found, THREADS))
        return [run for run, version in zip(found, versions, strict=True) if version is None]

    def add_missing(self) -> None:
        """Raises CommitFailedError, or another DeltaError, where a commit came in between."""
        from deltalake import CommitProperties, Schema, Transaction
        from deltalake.transaction import create_table_with_add_actions

        runs = self.missing()
        if not runs:
            return
        found = list(self.files(runs))
        columns = self.new_columns((file, schema) for file, schema, _ in found)
        actions = [action for _, _, action in found]
        ids = CommitProperties(app_transactions=[Transaction(run["run_id"], 1) for run in runs])
        if self.table is None:
            create_table_with_add_actions(
                self.uri,
                Schema(columns),
                actions,
                partition_by=[PARTITION],
                configuration=PROPERTIES,
                storage_options=self.options,
                commit_properties=ids,
            )
            return
        if columns:
            self.table.alter.add_columns(columns)
        self.table.create_write_transaction([*actions], "append", self.table.schema(), [PARTITION], commit_properties=ids)

    def files(self, runs: Iterable[dict[str, Any]]) -> "Iterator[tuple[str, pa.Schema, AddAction]]":
        """The runs' files, the schema of each, and what the log is to say of it."""
        named = [(file, run) for run in runs for file in run["files"]]
        return mapped(lambda each: self._file(*each), named, THREADS)

    def _file(self, file: str, run: dict[str, Any]) -> "tuple[str, pa.Schema, AddAction]":
        from deltalake.transaction import AddAction

        try:
            with open_file(self.fs, f"{self.root}/{file}") as opened:
                parquet = pq.ParquetFile(opened)
                schema, rows, size = parquet.schema_arrow, parquet.metadata.num_rows, opened.seek(0, SEEK_END)
        except (OSError, pa.ArrowException) as error:
            problem = one_line(str(error)) or type(error).__name__
            raise UserError(f"{file} can't be read ({problem}), and a run's record lists it: restore it, or remove the record") from None
        finished = dt.datetime.fromisoformat(run["finished_at"]).timestamp()
        return (
            file,
            schema,
            AddAction(
                path=file.removeprefix("annotations/"),
                size=size,
                partition_values={PARTITION: run["date"]},
                modification_time=int(1000 * finished),
                data_change=True,
                stats=json.dumps({"numRecords": rows}),
            ),
        )

    def new_columns(self, schemas: Iterable[tuple[str, pa.Schema]]) -> "list[Field]":
        """The columns of these files that the table lacks. Raises UserError where one is there, and means something else."""
        before = {field.name: field for field in self.table.schema().fields} if self.table else {}
        known = dict(before)
        for whose, schema in schemas:
            for field in self._columns(whose, schema):
                there = known.setdefault(field.name, field)
                if there.type != field.type:
                    what = f"its column {field.name} is of another type"
                elif there.metadata.get("ugrie") != field.metadata.get("ugrie"):
                    what = f"its scheme {field.name} has other labels"
                else:
                    continue
                raise UserError(f"{whose} can't be added to the Delta table {self.shown}: {what} than there; take another output")
        return [field for name, field in known.items() if name not in before]

    def _columns(self, whose: str, schema: pa.Schema) -> "list[Field]":
        """As the log declares them. A scheme's has its labels with it, since a file loses its metadata when it is compacted."""
        from deltalake import Schema

        if "embedding" in schema.names:
            raise UserError(f"{whose} holds embeddings, for which a Delta table has no type (float16): take another output")
        schemes = json.loads((schema.metadata or {}).get(b"ugrie", b"{}")).get("schemes", {})
        fields = [
            field.with_metadata({"ugrie": json.dumps(schemes[field.name], ensure_ascii=False)}) if field.name in schemes else field
            for field in schema
        ]
        return Schema.from_arrow(pa.schema([*fields, pa.field(PARTITION, pa.date32())])).fields

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # deltalake's and the storage clients' have no kind in common
            raise UserError(f"{self.shown} can't be read as a Delta table: {told(error, self.given)}") from None


def installed() -> None:
    if find_spec("deltalake") is None:
        raise UserError("a Delta table needs deltalake: pip install 'ugrie[delta]'")


def shown(output: str) -> str:
    return f"{without_secrets(output).rstrip('/')}/annotations"


def paths(table: "DeltaTable | None") -> list[str]:
    return pa.table(table.get_add_actions())["path"].to_pylist() if table else []
