"""What kind of table an output is, besides the files that its records list: a Delta table, an Iceberg table, or none."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from pipeline.config import AnnotateConfig
from pipeline.errors import UserError
from pipeline.table.commit import part_of
from pipeline.table.output_folder import OutputFolder
from pipeline.table.run_record import RunRecord
from pipeline.table.schema import Tables
from pipeline.table_formats import delta, iceberg
from pipeline.table_formats.delta_log import table_name
from pipeline.table_formats.iceberg_catalog import TableName

TITLES = {"delta": "a Delta table", "iceberg": "an Iceberg table"}
FORMATS: dict[str, Any] = {"delta": delta, "iceberg": iceberg}


def format_of(output: OutputFolder) -> str | None:
    """Return "delta", "iceberg" or None: whether the readers of an output see the files of a table, and no others. Raises UserError."""
    return next((name for name, module in FORMATS.items() if module.is_table(output)), None)


def check(config: AnnotateConfig, tables: Tables) -> None:
    """Check that a run can be added to its table once it is done, with all runs committed before. Writes nothing. Raises UserError."""
    if config.iceberg_table and config.table_format != "iceberg":
        raise UserError(f"iceberg_table = {config.iceberg_table} is for Iceberg tables: set table_format = iceberg too, or leave it out")
    output = OutputFolder(config.output, config.storage_options)
    found = format_of(output)
    if found not in (None, config.table_format):
        raise UserError(f"{table_name(output)} is {TITLES[found]}, whose readers would not see this run: give --table-format {found}")
    if config.table_format in FORMATS:
        FORMATS[config.table_format].check(config, tables)


def add(output: OutputFolder, config: AnnotateConfig) -> None:
    """Add all committed runs that the table lacks. Raises UserError, StorageError."""
    if config.table_format == "delta":
        delta.add(output)
    if config.table_format == "iceberg":
        iceberg.add(output, TableName.of(config.iceberg_table))


def compact(output: OutputFolder, before: dt.date | None) -> dict[str, Any]:
    """Merge the small files of each partition, or of those before a date. Return deltalake's counts. Raises UserError, StorageError."""
    found = format_of(output)
    if found is None:
        raise UserError(f"{table_name(output)} is no Delta or Iceberg table: a run with --table-format delta or iceberg makes it one")
    counts: dict[str, Any] = FORMATS[found].compact(output, before)
    return counts


def files_of(output: OutputFolder, runs: Sequence[RunRecord]) -> list[str] | None:
    """Return the files that hold these committed runs' rows now (paths within the output), and maybe rows of other runs too.

    Files of a run that is not in the table yet are among them. None where there is no table. Raises UserError.
    """
    found = format_of(output)
    if found is None:
        return None
    log = FORMATS[found].open_log(output)
    missing = [file for run in log.missing(runs) for file in run.files]
    own = [file for run in runs for file in run.files if file in log.present]
    return sorted({*own, *missing, *(file for file in log.present if part_of(file) is None)})
