"""The log of a Delta table: the files that the table has, the runs that it lacks, and the commit that adds them."""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from io import SEEK_END
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.storage.filesystem import LOCAL
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import protocol, without_secrets
from pipeline.table.image_ids import unreadable
from pipeline.table.output_folder import ANNOTATIONS, OutputFolder
from pipeline.table.run_record import RunRecord, past_runs
from pipeline.table_formats.delta_storage import PROTOCOLS, readable, storage_options

if TYPE_CHECKING:
    from deltalake import DeltaTable
    from deltalake.schema import Field
    from deltalake.transaction import AddAction

PARTITION = "dt"
NOT_DELTA = re.compile(r'[tT]ype":"(timestamp_nanos|void)')  # types of deltalake that the format does not have
# The log states how many rows a file has, but no minima and maxima. Where it states those of some columns only, deltalake's reader
# by way of PyArrow (1.6) finds nothing by the other columns; nor does it once files are compacted.
PROPERTIES = {"delta.dataSkippingNumIndexedCols": "0"}
# Features under which rows may go by removing a file and adding another.
HARMLESS = {"appendOnly", "changeDataFeed", "checkConstraints", "invariants", "timestampNtz", "v2Checkpoint"}
REFUSED = ("delta.appendOnly", "delta.enableChangeDataFeed", "delta.columnMapping.mode")
THREADS = 16  # which wait for storage, most of the time


class DeltaLog:
    """An output's log as it is now: `table`, or None where there is none yet, and the files `present` in it.

    Raises UserError where the output can't be a Delta table.
    """

    def __init__(self, output: OutputFolder):
        check_installed()
        self.output, self.name = output, table_name(output)
        if protocol(output.uri) not in PROTOCOLS:
            raise UserError(f"{self.name} can't be a Delta table: deltalake reaches local disks, {', '.join(PROTOCOLS[2:])}")
        if unquote(output.root) != output.root or "\\" in output.root:
            raise UserError(f"{self.name} can't be a Delta table: deltalake takes no path with a backslash, or with % and two digits")
        folder = output.absolute(ANNOTATIONS)
        self.uri = folder if protocol(output.uri) in LOCAL else output.fs.unstrip_protocol(folder)
        with readable(self.name, self.output.options):
            self.options = storage_options(output.fs)
            self.table = self._open()
            self.present = {f"{ANNOTATIONS}/{path}" for path in paths(self.table)}

    def _open(self) -> "DeltaTable | None":
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            table = DeltaTable(self.uri, storage_options=self.options)
        except TableNotFoundError:
            return None
        if table.metadata().partition_columns != [PARTITION]:
            raise UserError(f"{self.name} is a Delta table of another kind, not partitioned by {PARTITION}: choose another output")
        return table

    def missing(self, runs: Sequence[RunRecord] | None = None) -> list[RunRecord]:
        """Return the committed runs, all by default, that have rows and are not in the table."""
        table = self.table
        found = [run for run in (past_runs(self.output) if runs is None else runs) if not self.present.issuperset(run.files)]
        if table is None:
            return found
        with readable(self.name, self.output.options):  # where compaction has replaced a run's files, the log still has its ID
            versions = list(parallel_map(lambda run: table.transaction_version(run.run_id), found, THREADS))
        return [run for run, version in zip(found, versions, strict=True) if version is None]

    def add_missing(self) -> None:
        """Add the missing runs in one commit. Raises CommitFailedError or another DeltaError where another commit came first."""
        from deltalake import CommitProperties, Schema, Transaction
        from deltalake.transaction import create_table_with_add_actions

        runs = self.missing()
        if not runs:
            return
        found = list(self.files(runs))
        columns = self.new_columns((file, schema) for file, schema, _ in found)
        actions = [action for _, _, action in found]
        ids = CommitProperties(app_transactions=[Transaction(run.run_id, 1) for run in runs])
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

    def replace(self, replaced: Mapping[str, str | None]) -> None:
        """Replace files by others that hold some of their rows, or by none, in one commit. Paths are within the output.

        A file that the table lacks is passed over. Raises UserError where `check_features` does, and DeltaError as `add_missing` does.
        """
        from deltalake import CommitProperties
        from deltalake.transaction import AddAction, RemoveAction

        assert self.table is not None
        self.check_features()
        stated = {f"{ANNOTATIONS}/{each['path']}": each for each in pa.table(self.table.get_add_actions(flatten=True)).to_pylist()}
        now = int(1000 * time.time())
        actions: list[AddAction | RemoveAction] = []
        for old, new in replaced.items():
            if old not in stated:
                continue
            day = {PARTITION: stated[old][f"partition.{PARTITION}"].isoformat()}
            path, size = old.removeprefix(f"{ANNOTATIONS}/"), stated[old]["size_bytes"]
            actions.append(RemoveAction(path, data_change=True, deletion_timestamp=now, size=size, partition_values=day))
            if new is not None:
                _, rows, size = self._footer(new)
                path, stats = new.removeprefix(f"{ANNOTATIONS}/"), json.dumps({"numRecords": rows})
                actions.append(AddAction(path, size, day, modification_time=now, data_change=True, stats=stats))
        if actions:
            # No retry by deltalake: after a compaction of the same files it would add ours beside the compacted ones.
            once = CommitProperties(max_commit_retries=0, custom_metadata={"ugrie": "clean --erase"})
            self.table.create_write_transaction(actions, "append", self.table.schema(), [PARTITION], commit_properties=once)

    def check_features(self) -> None:
        """Raise UserError where rows can't be erased by replacing files, since other writers have turned on features of the table."""
        assert self.table is not None
        protocol = self.table.protocol()
        others = {*(protocol.reader_features or ()), *(protocol.writer_features or ())} - HARMLESS
        configuration = self.table.metadata().configuration
        others |= {name for name in REFUSED if configuration.get(name, "none").lower() not in ("false", "none")}
        if others:
            raise UserError(f"{self.name} has features that an erasure doesn't keep to ({', '.join(sorted(others))}): turn them off first")

    def files(self, runs: Iterable[RunRecord]) -> "Iterator[tuple[str, pa.Schema, AddAction]]":
        """Yield the runs' files, each with its schema and its entry for the log."""
        return parallel_map(lambda each: self._file(*each), [(file, run) for run in runs for file in run.files], THREADS)

    def _file(self, file: str, run: RunRecord) -> "tuple[str, pa.Schema, AddAction]":
        from deltalake.transaction import AddAction

        schema, rows, size = self._footer(file)
        return (
            file,
            schema,
            AddAction(
                path=file.removeprefix(f"{ANNOTATIONS}/"),
                size=size,
                partition_values={PARTITION: run.date.isoformat()},
                modification_time=int(1000 * run.finished_at.timestamp()),
                data_change=True,
                stats=json.dumps({"numRecords": rows}),
            ),
        )

    def _footer(self, file: str) -> tuple[pa.Schema, int, int]:
        """Return a file's schema, its number of rows, and its size in bytes. Raises UserError."""
        try:
            with self.output.open(file) as opened:
                parquet = pq.ParquetFile(opened)
                return parquet.schema_arrow, parquet.metadata.num_rows, opened.seek(0, SEEK_END)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(file, error) from None

    def new_columns(self, schemas: Iterable[tuple[str, pa.Schema]]) -> "list[Field]":
        """Return the columns of these files that the table lacks. Raises UserError where the table's of that name differs."""
        before = {field.name: field for field in self.table.schema().fields} if self.table else {}
        known = dict(before)
        for source, schema in schemas:
            for field in self._columns(source, schema):
                ours = known.setdefault(field.name, field)
                if ours.type != field.type:
                    problem = f"its column {field.name} is of another type"
                elif ours.metadata.get("ugrie") != field.metadata.get("ugrie"):
                    problem = f"its scheme {field.name} has other labels"
                else:
                    continue
                raise UserError(
                    f"{source} can't be added to the Delta table {self.name}: {problem} than the table's; choose another output"
                )
        return [field for name, field in known.items() if name not in before]

    def _columns(self, source: str, schema: pa.Schema) -> "list[Field]":
        """Return columns as the log declares them. A scheme's carries its labels, since a compacted file loses its metadata.

        Not whether they were zero-shot: the column may hold rows of both kinds, and `zero_shot` says it of each row.
        """
        from deltalake import Schema

        check_embeddings(source, schema)
        schemes = json.loads((schema.metadata or {}).get(b"ugrie", b"{}")).get("schemes", {})
        schemes = {name: {key: value for key, value in fields.items() if key != "zero_shot"} for name, fields in schemes.items()}
        fields = [
            field.with_metadata({"ugrie": json.dumps(schemes[field.name], ensure_ascii=False)}) if field.name in schemes else field
            for field in schema
        ]
        for field in fields:
            if not _is_known(field):
                remedy = "cast it in the input, leave it out, or set table_format = parquet"
                raise UserError(
                    f"{source} can't be added to a Delta table: it has no type for {field.type}, of column {field.name}: {remedy}"
                )
        return Schema.from_arrow(pa.schema([*fields, pa.field(PARTITION, pa.date32())])).fields


def _is_known(field: pa.Field) -> bool:
    """Return whether Delta has the type of a column. deltalake takes some more than the format has, or as others."""
    from deltalake import Schema

    try:
        schema = Schema.from_arrow(pa.schema([field]))
    except Exception:  # deltalake has no class for it
        return False
    return pa.schema(schema.to_arrow()).field(0).type == field.type and NOT_DELTA.search(schema.to_json()) is None


def check_installed() -> None:
    """Raise UserError where deltalake is not installed."""
    if find_spec("deltalake") is None:
        raise UserError("a Delta table needs deltalake: pip install 'ugrie[delta]'")


def check_embeddings(source: str, schema: pa.Schema) -> None:
    """Raise UserError where a file has embeddings as Parquet tables have them: neither Delta nor Iceberg has a type for float16."""
    if "embedding" in schema.names and schema.field("embedding").type.value_type == pa.float16():
        remedy = "choose another output, into which --from-embeddings takes them"
        raise UserError(f"{source} holds embeddings in float16, for which Delta and Iceberg tables have no type: {remedy}")


def table_name(output: OutputFolder) -> str:
    """Return the table's URI without its secrets, for messages."""
    return f"{without_secrets(output.uri).rstrip('/')}/{ANNOTATIONS}"


def paths(table: "DeltaTable | None") -> list[str]:
    """Return the paths of a table's files within the table."""
    return pa.table(table.get_add_actions())["path"].to_pylist() if table else []
