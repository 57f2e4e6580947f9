"""An output's Iceberg table: the files that it has, the runs that it lacks, and the commit that adds them."""

import datetime as dt
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import UserError
from pipeline.storage.parallel import parallel_map
from pipeline.storage.uris import public_message, without_secrets
from pipeline.table.image_ids import unreadable
from pipeline.table.kept_columns import kept_type
from pipeline.table.output_folder import ANNOTATIONS, OutputFolder
from pipeline.table.run_record import RunRecord, past_runs
from pipeline.table_formats.delta_log import check_embeddings, table_name
from pipeline.table_formats.iceberg_catalog import TableName, check_installed, load_table, location, open_catalog, save_name

if TYPE_CHECKING:
    from pyiceberg.manifest import DataFile
    from pyiceberg.table import FileScanTask, Table, Transaction

PARTITION = "dt"
RUN, SCHEME = "ugrie.run.", "ugrie.scheme."  # table properties: a run's snapshot, a scheme's labels
RUN_ID = "ugrie.run-id"  # of a snapshot
THREADS = 16  # which wait for storage, most of the time
EPOCH = dt.date(1970, 1, 1)
PROPERTIES = {"format-version": "2", "commit.manifest-merge.enabled": "true"}  # a commit adds a manifest; a hundred become one


@dataclass(frozen=True)
class RunFile:
    """A file of a run: its path within the output, the run's date, its size and its footer."""

    path: str
    date: dt.date
    size: int
    footer: pq.FileMetaData

    @property
    def schema(self) -> pa.Schema:
        return self.footer.schema.to_arrow_schema()


class IcebergTable:
    """An output's table as it is now: `table` is pyiceberg's, or None where there is none yet.

    Raises UserError where the output can't be this Iceberg table.
    """

    def __init__(self, output: OutputFolder, name: TableName):
        check_installed()
        self.output, self.name, self.shown = output, name, table_name(output)
        self.location = location(output)
        with self.readable():
            self.table = load_table(output, name)
        if self.table:
            self._check(self.table)

    def _check(self, table: "Table") -> None:
        from pyiceberg.transforms import IdentityTransform

        if table.location().rstrip("/") != self.location:
            place = without_secrets(table.location())
            raise UserError(f"the Iceberg table {self.name} is at {place}, not at {self.shown}: give another name as --iceberg-table")
        spec = [(field.name, field.transform) for field in table.spec().fields]
        if spec != [(PARTITION, IdentityTransform())]:
            raise UserError(f"{self.shown} is an Iceberg table of another kind, not partitioned by {PARTITION}: choose another output")

    def tasks(self) -> "list[FileScanTask]":
        """Return the files of the current snapshot, each with the files that delete rows of it."""
        with self.readable():
            return list(self.table.scan().plan_files()) if self.table else []

    @cached_property
    def present(self) -> set[str]:
        """The files of the current snapshot, as paths within the output."""
        return {self.path(task.file.file_path) for task in self.tasks()}

    def referenced(self) -> set[str]:
        """Return the files of every snapshot that the table keeps, as paths within the output."""
        if self.table is None:
            return set()
        io = self.table.io
        with self.readable():
            lists = parallel_map(lambda snapshot: snapshot.manifests(io), self.table.snapshots(), THREADS)
            manifests = {manifest.manifest_path: manifest for each in lists for manifest in each}
            entries = parallel_map(lambda manifest: manifest.fetch_manifest_entry(io), manifests.values(), THREADS)
            return {self.path(entry.data_file.file_path) for each in entries for entry in each}

    def path(self, file: str) -> str:
        """Return a file's path within the output. Raises UserError where it is elsewhere."""
        if not file.startswith(f"{self.location}/"):
            raise UserError(
                f"the Iceberg table {self.shown} has a file elsewhere, {without_secrets(file)}: rewrite it into the table's folder"
            )
        return f"{ANNOTATIONS}{file.removeprefix(self.location)}"

    def missing(self, runs: Sequence[RunRecord] | None = None) -> list[RunRecord]:
        """Return the committed runs, all by default, that have rows and were never added to the table."""
        runs = past_runs(self.output) if runs is None else runs
        added = self.table.properties if self.table else {}
        return [run for run in runs if run.files and RUN + run.run_id not in added]

    def add_missing(self) -> None:
        """Add the missing runs in one commit. Raises pyiceberg's errors where another commit came first."""
        runs = self.missing()
        if not runs:
            return
        found = list(self.files(runs))
        columns = self.new_columns((file.path, file.schema) for file in found)
        save_name(self.output, self.name)
        with self.transaction(columns) as transaction:
            append = _append_once(transaction, [run.run_id for run in runs])
            added = {RUN + run.run_id: str(append.snapshot_id) for run in runs}
            schemes = {name: text for file in found for name, text in _scheme_properties(file.schema).items()}
            transaction.set_properties(added | schemes)
            for file in found:
                append.append_data_file(self.data_file(transaction, file))
            append.commit()

    def replace(self, old: "Sequence[FileScanTask]", new: Sequence[RunFile]) -> None:
        """Put files in the place of others, in one commit. Raises UserError where one of the others has changed or is gone."""
        current = {task.file.file_path: task for task in self.tasks()}
        if self.present.issuperset(file.path for file in new):  # by a commit whose answer was lost
            return
        for task in old:
            now = current.get(task.file.file_path)
            if now is None or now.delete_files != task.delete_files:
                raise UserError(f"another writer has changed {self.path(task.file.file_path)} meanwhile: run the same command again")
        with self.transaction([]) as transaction:
            overwrite = transaction.update_snapshot().overwrite()
            for task in old:
                overwrite.delete_data_file(task.file)
            for file in new:
                overwrite.append_data_file(self.data_file(transaction, file))
            overwrite.commit()

    @contextmanager
    def transaction(self, columns: Sequence[pa.Field]) -> "Iterator[Transaction]":
        """Begin a transaction that adds columns, and the table where there is none. It is committed at the end."""
        if self.table is None:
            transaction = self._creation(columns)
        else:
            transaction = self.table.transaction()
            if columns:
                with transaction.update_schema() as update:
                    update.union_by_name(pa.schema(columns))
        yield transaction
        transaction.commit_transaction()

    def _creation(self, columns: Sequence[pa.Field]) -> "Transaction":
        from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids
        from pyiceberg.partitioning import PartitionField, PartitionSpec
        from pyiceberg.schema import assign_fresh_schema_ids
        from pyiceberg.table import TableProperties
        from pyiceberg.transforms import IdentityTransform

        catalog = open_catalog(self.output, self.name)
        catalog.create_namespace_if_not_exists(self.name.table.rpartition(".")[0])
        schema = assign_fresh_schema_ids(_pyarrow_to_schema_without_ids(pa.schema([*columns, pa.field(PARTITION, pa.date32())])))
        spec = PartitionSpec(PartitionField(schema.find_field(PARTITION).field_id, 1000, IdentityTransform(), PARTITION))
        transaction = catalog.create_table_transaction(
            self.name.table, schema, location=self.location, partition_spec=spec, properties={**PROPERTIES}
        )
        # The files have no field IDs: readers find columns by their names, which update_schema adds to.
        names = transaction.table_metadata.schema().name_mapping.model_dump_json()
        transaction.set_properties({TableProperties.DEFAULT_NAME_MAPPING: names})
        return transaction

    def files(self, runs: Iterable[RunRecord]) -> Iterator[RunFile]:
        """Yield the runs' files."""
        return parallel_map(lambda each: self.file(*each), [(file, run.date) for run in runs for file in run.files], THREADS)

    def file(self, path: str, date: dt.date) -> RunFile:
        """Read a file's footer. Raises UserError."""
        try:
            with self.output.open(path) as opened:
                footer = pq.read_metadata(opened)
                return RunFile(path, date, opened.seek(0, 2), footer)
        except (OSError, pa.ArrowException) as error:
            raise unreadable(path, error) from None

    def data_file(self, transaction: "Transaction", file: RunFile) -> "DataFile":
        """Return a file's entry for a manifest. It has the partition's date, which readers take from there: no file has the column."""
        from pyiceberg.io.pyarrow import (
            compute_statistics_plan,
            data_file_statistics_from_parquet_metadata,
            parquet_path_to_id_mapping,
        )
        from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
        from pyiceberg.typedef import Record

        metadata = transaction.table_metadata
        schema = metadata.schema()
        plan = compute_statistics_plan(schema, metadata.properties)
        statistics = data_file_statistics_from_parquet_metadata(file.footer, plan, parquet_path_to_id_mapping(schema))
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=f"{self.location}{file.path.removeprefix(ANNOTATIONS)}",
            file_format=FileFormat.PARQUET,
            partition=Record((file.date - EPOCH).days),
            file_size_in_bytes=file.size,
            spec_id=metadata.default_spec_id,
            **statistics.to_serialized_dict(),
        )

    def new_columns(self, schemas: Iterable[tuple[str, pa.Schema]]) -> list[pa.Field]:
        """Return the columns of these files that the table lacks. Raises UserError where the table's of that name differs."""
        from pyiceberg.io.pyarrow import schema_to_pyarrow

        before = _kinds(schema_to_pyarrow(self.table.schema(), include_field_ids=False)) if self.table else {}
        labels = {name: text for name, text in (self.table.properties if self.table else {}).items() if name.startswith(SCHEME)}
        known, found = dict(before), list[pa.Field]()
        for source, schema in schemas:
            schemes = _scheme_properties(schema)
            for field, kind in zip(schema, self._known_kinds(source, schema), strict=True):
                text = schemes.get(SCHEME + field.name)
                if field.name not in known:
                    found.append(field.with_nullable(self.table is not None or field.nullable).remove_metadata())
                if known.setdefault(field.name, kind) != kind:
                    problem = f"its column {field.name} is of another type"
                elif text is not None and labels.setdefault(SCHEME + field.name, text) != text:
                    problem = f"its scheme {field.name} has other labels"
                else:
                    continue
                raise UserError(
                    f"{source} can't be added to the Iceberg table {self.shown}: {problem} than the table's; choose another output"
                )
        return found

    def _known_kinds(self, source: str, schema: pa.Schema) -> list[Any]:
        """Return the columns' types in Iceberg. Raises UserError where it has none, or only a wider one, which the files don't have."""
        from pyiceberg.io.pyarrow import UnsupportedPyArrowTypeException, schema_to_pyarrow

        check_embeddings(source, schema)
        kinds = []
        for field in schema:
            try:
                kind = _kinds(pa.schema([field]))[field.name]
                is_same = kept_type(schema_to_pyarrow(kind, include_field_ids=False)) == kept_type(field.type)
            except UnsupportedPyArrowTypeException:
                is_same = False
            if not is_same:
                problem = f"it has no type for {field.type}, of column {field.name}"
                remedy = "cast it in the input, leave it out, or set table_format = parquet"
                raise UserError(f"{source} can't be added to an Iceberg table: {problem}: {remedy}")
            kinds.append(kind)
        return kinds

    @contextmanager
    def readable(self) -> Iterator[None]:
        """Turn any error of reading the table into a UserError."""
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # catalogs' and storage clients' errors have no common class
            problem = public_message(error, self.output.options)
            raise UserError(f"{self.shown} can't be read as an Iceberg table: {problem}") from None


def _kinds(schema: pa.Schema) -> dict[str, Any]:
    """Return the columns' types in Iceberg, without the IDs of their fields."""
    from pyiceberg.io.pyarrow import _pyarrow_to_schema_without_ids

    return {field.name: field.field_type for field in _pyarrow_to_schema_without_ids(schema).fields}


def _scheme_properties(schema: pa.Schema) -> dict[str, str]:
    """Return the table's property for each scheme of a file: its kind, labels, polarities and values.

    Not whether they were zero-shot: the column may hold rows of both kinds, and `zero_shot` says it of each row.
    """
    schemes = json.loads((schema.metadata or {}).get(b"ugrie", b"{}")).get("schemes", {})
    stated = {name: {key: value for key, value in fields.items() if key != "zero_shot"} for name, fields in schemes.items()}
    return {SCHEME + name: json.dumps(fields, ensure_ascii=False) for name, fields in stated.items()}


def _append_once(transaction: "Transaction", run_ids: Sequence[str]) -> Any:
    """Return what appends files to a table once. Where another commit came first, pyiceberg's own retry looks whether it was these runs'.

    Without that, its retry would append them again. That it retries is needed: it is how it recognises a commit of its own whose answer
    was lost.
    """
    from pyiceberg.exceptions import ValidationException
    from pyiceberg.table.snapshots import Operation
    from pyiceberg.table.update.snapshot import _MergeAppendFiles

    class AppendOnce(_MergeAppendFiles):
        def _validate_concurrency(self) -> None:
            if any(RUN + run_id in self._transaction._table.properties for run_id in run_ids):
                raise ValidationException("another driver added the run meanwhile")

    names = {RUN_ID: ",".join(run_ids)}
    return AppendOnce(Operation.APPEND, transaction, transaction._table.io, snapshot_properties=names)
