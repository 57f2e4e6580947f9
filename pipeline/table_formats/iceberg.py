"""The output as an Iceberg table: OUTPUT/annotations with metadata, in which one commit makes all files of a run visible.

Rows are not written again: the commit names the files that the run wrote. As in a Delta table (`pipeline.table_formats.delta`), a run is
added after its record was created, and whatever adds next adds what is missing. The table keeps each run's ID as a property, set by the
commit that adds its files, and a commit that is second looks for it: no run is added twice, also where its files were replaced by
compacted ones and its snapshot has expired.
"""

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from pipeline.config import AnnotateConfig
from pipeline.errors import StorageError, UserError
from pipeline.storage.uris import public_message
from pipeline.table.output_folder import ICEBERG_NAME, OutputFolder
from pipeline.table.run_record import RunRecord
from pipeline.table.schema import SchemeMetadata, Tables
from pipeline.table_formats import iceberg_erase
from pipeline.table_formats.delta_log import table_name
from pipeline.table_formats.iceberg_catalog import TableName, check_installed, check_name, saved_name
from pipeline.table_formats.iceberg_rewrite import PREFIX, merge, small_files
from pipeline.table_formats.iceberg_table import SCHEME, IcebergTable

T = TypeVar("T")
ATTEMPTS = 12  # to commit, where other writers come first


def open_log(output: OutputFolder) -> IcebergTable:
    """Open the table as it is now; empty where there is none. Raises UserError."""
    return IcebergTable(output, saved_name(output) or TableName())


def is_table(output: OutputFolder) -> bool:
    """Return whether an output is an Iceberg table, so that its readers see the files listed there and no others. Raises UserError."""
    with output.readable():
        return output.exists(ICEBERG_NAME)


def check(config: AnnotateConfig, tables: Tables) -> None:
    """Check that a run can be added once it is done, with all runs committed before. Writes nothing. Raises UserError."""
    check_installed()
    output, name = OutputFolder(config.output, config.storage_options), TableName.of(config.iceberg_table)
    check_name(output, name)
    table = IcebergTable(output, name)
    table.new_columns([("this run", tables.output), *((file.path, file.schema) for file in table.files(table.missing()))])


def add(output: OutputFolder, name: TableName | None = None) -> None:
    """Add all committed runs that the table lacks, in one commit; create the table where there is none, by default in its own catalog.

    Of several processes that add the same at once, one does. Raises UserError, StorageError.
    """
    check_installed()
    name = saved_name(output) or name or TableName()
    _committed(output, lambda: IcebergTable(output, name).add_missing())


def schemes(output: OutputFolder) -> dict[str, SchemeMetadata]:
    """Return the schemes of the table's columns. Raises UserError."""
    table = open_log(output).table
    properties = table.properties if table else {}
    return {name.removeprefix(SCHEME): SchemeMetadata(**json.loads(text)) for name, text in properties.items() if name.startswith(SCHEME)}


def check_erasable(output: OutputFolder) -> None:
    """Raise UserError where `replace` would refuse the table."""
    check_installed()
    table = open_log(output)
    iceberg_erase.check(table)
    table.referenced()  # which refuses files that are elsewhere


def replace(output: OutputFolder, replaced: Mapping[str, str | None]) -> None:
    """Replace files of the table by others, or by none, in one commit; those that it lacks are passed over. Paths are within the output.

    Then all snapshots expire that have one of these files. Raises UserError, StorageError.
    """
    while _committed(output, lambda: iceberg_erase.replace(open_log(output), replaced)):
        pass


def files(output: OutputFolder) -> set[str]:
    """Return the files that make up the table now: paths within the output. Raises UserError."""
    return open_log(output).present


def earlier_files(output: OutputFolder) -> set[str]:
    """Return the files that only earlier snapshots have, as paths within the output. Raises UserError."""
    table = open_log(output)
    return table.referenced() - table.present


def kept_files(output: OutputFolder, runs: Sequence[RunRecord]) -> set[str]:
    """Return the files of all snapshots that the table keeps, and of these committed runs where it lacks them: paths within the output.

    Raises UserError.
    """
    table = open_log(output)
    return table.referenced().union(*(run.files for run in table.missing(runs)))


def writer_of(path: str) -> str | None:
    """Return "compaction" for a file that a compaction wrote; None for any other file."""
    return "compaction" if path.rpartition("/")[2].startswith(PREFIX) else None


def compact(output: OutputFolder, before: dt.date | None) -> dict[str, int]:
    """Merge the small files of each partition, or of those before a date, into large ones. The small files stay where they are.

    Returns the counts that deltalake names for a Delta table. Raises UserError, StorageError.
    """
    add(output)
    table = open_log(output)
    groups = small_files(table, before)
    old = [task for group in groups for task in group]
    try:
        new = [merge(table, group) for group in groups]
        if new:
            _retried(lambda: open_log(output).replace(old, new))
    except UserError:
        raise
    except Exception as error:  # as above
        problem = public_message(error, output.options)
        raise StorageError(f"{table_name(output)} was not compacted, and is unchanged: {problem}") from None
    return {"numFilesAdded": len(new), "numFilesRemoved": len(old), "partitionsOptimized": len({file.date for file in new})}


def _committed(output: OutputFolder, commit: Callable[[], T]) -> T:
    """Make a commit, and return what it returns. Raises UserError, StorageError."""
    try:
        return _retried(commit)
    except UserError:
        raise
    except Exception as error:  # catalogs' and storage clients' errors have no common class
        problem = public_message(error, output.options)
        raise StorageError(f"{table_name(output)} can't be written as an Iceberg table: {problem}") from None


def _retried(commit: Callable[[], T]) -> T:
    """Make a commit, again where another writer came first. Raises the last attempt's error."""
    wait = wait_random_exponential(0.1, 5)
    return Retrying(retry=retry_if_exception(_may_pass), stop=stop_after_attempt(ATTEMPTS), wait=wait, reraise=True)(commit)


def _may_pass(error: BaseException) -> bool:
    """Return whether another attempt may succeed: another writer was first, or the catalog did not answer."""
    from pyiceberg import exceptions
    from sqlalchemy.exc import SQLAlchemyError

    others = (exceptions.CommitFailedException, exceptions.ValidationException, exceptions.TableAlreadyExistsError)
    failures = (exceptions.CommitStateUnknownException, exceptions.ServerError, exceptions.ServiceUnavailableError)
    expired = FileNotFoundError  # manifests of a snapshot that an erasure has removed meanwhile
    return isinstance(error, (*others, *failures, expired, exceptions.TooManyRequestsError, SQLAlchemyError))
