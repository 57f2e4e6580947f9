"""Rewrites files of an Iceberg table, in one commit: small ones are merged into large ones."""

import datetime as dt
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.client import naming_full_disk
from pipeline.table.output_folder import partition
from pipeline.table_formats.iceberg_table import EPOCH, PARTITION, IcebergTable, RunFile

if TYPE_CHECKING:
    from pyiceberg.table import FileScanTask

FILE_BYTES = 256 * 2**20  # of a merged file
GROUP_ROWS = 2**14  # of a row group, as in the files of runs
SPLIT = "BYTE_STREAM_SPLIT"
PREFIX = "compacted-"  # of the names of merged files


def small_files(table: IcebergTable, before: dt.date | None) -> "list[list[FileScanTask]]":
    """Return the groups of files to merge: small ones of one partition, before a date if one is given."""
    by_date: dict[dt.date, list[FileScanTask]] = {}
    for task in table.tasks():
        by_date.setdefault(date_of(task), []).append(task)
    groups: list[list[FileScanTask]] = []
    for date, tasks in sorted(by_date.items()):
        if before is not None and date >= before:
            continue
        groups.append([])
        size = 0
        for task in sorted(tasks, key=lambda task: task.file.file_path):
            if task.file.file_size_in_bytes >= FILE_BYTES and not task.delete_files:
                continue
            if size + task.file.file_size_in_bytes > FILE_BYTES and groups[-1]:
                groups.append([])
                size = 0
            groups[-1].append(task)
            size += task.file.file_size_in_bytes
    return [group for group in groups if len(group) > 1 or any(task.delete_files for task in group)]


def merge(table: IcebergTable, tasks: "Sequence[FileScanTask]") -> RunFile:
    """Write the rows of some files of one partition, without those that were deleted, as one file of the output. Return it."""
    date = date_of(tasks[0])
    target = f"{partition(date)}/{PREFIX}{uuid.uuid4().hex[:8]}-00000.parquet"
    with TemporaryDirectory(prefix="ugrie-") as temporary, naming_full_disk(temporary):
        local = Path(temporary) / "merged.parquet"
        schema = _schema(table)
        # Its Arrow types are left out: pyiceberg's are those for long texts, and the files of runs have others.
        encodings = {"use_dictionary": _encoded(table, tasks, "RLE_DICTIONARY"), "use_byte_stream_split": _encoded(table, tasks, SPLIT)}
        with pq.ParquetWriter(local, schema, compression="zstd", store_schema=False, **encodings) as writer:
            for rows in _row_groups(_batches(table, tasks, schema.names)):
                writer.write_table(rows.cast(schema), row_group_size=GROUP_ROWS)
        table.output.upload(str(local), target)
    return table.file(target, date)


def _batches(table: IcebergTable, tasks: "Iterable[FileScanTask]", names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of some files, of which one at a time is in memory."""
    from pyiceberg.expressions import AlwaysTrue
    from pyiceberg.io.pyarrow import ArrowScan

    assert table.table is not None
    columns = table.table.scan(selected_fields=tuple(names)).projection()
    for task in tasks:
        yield from ArrowScan(table.table.metadata, table.table.io, columns, AlwaysTrue()).to_record_batches([task])


def _row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Gather batches, which may be of a few rows each, to tables of some row groups."""
    waiting: list[pa.Table] = []
    for batch in batches:
        waiting.append(pa.Table.from_batches([batch]))
        if sum(map(len, waiting)) >= GROUP_ROWS:
            yield pa.concat_tables(waiting, promote_options="permissive")
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting, promote_options="permissive")


def _schema(table: IcebergTable) -> pa.Schema:
    """Return the schema of a merged file: the table's with the IDs of its fields, but without the partition, as in the files of runs."""
    assert table.table is not None
    return pa.schema([field for field in table.table.schema().as_arrow() if field.name != PARTITION])


def _encoded(table: IcebergTable, tasks: "Iterable[FileScanTask]", encoding: str) -> list[str]:
    """Return the columns that one of the files encodes in this way."""
    footers = [table.file(table.path(task.file.file_path), date_of(task)).footer for task in tasks]
    columns = [footer.row_group(0).column(i) for footer in footers if footer.num_row_groups for i in range(footer.num_columns)]
    return sorted({column.path_in_schema for column in columns if encoding in column.encodings})


def date_of(task: "FileScanTask") -> dt.date:
    """Return the date of a file's partition."""
    return EPOCH + dt.timedelta(days=task.file.partition[0])
